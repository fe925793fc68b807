/**
 * The wire: what client and server say to each other, as JSON text over one WebSocket.
 *
 * `docs/protocol.md` tells the whole protocol; `tests/wire/` holds the golden messages that this
 * file and the server are both held to. Text that is no message of the server's becomes `null`.
 */

/** The WebSocket subprotocol that this client asks for. */
export const SUBPROTOCOL = "cacao.v1";

/** Values of signals by name, as they came. */
export type State = { readonly [name: string]: unknown };

/** What became of the session that a `hello` asked to resume. */
export type Outcome = "fresh" | "resumed" | "rebuilt";

/** One wrong field of an event's data: where it is, and what is wrong with it. */
export interface ErrorDetail {
  readonly path: readonly (string | number)[];
  readonly message: string;
}

export interface InitMessage {
  readonly type: "init";
  /** The whole state; after `resumed` at least what this client has missed. */
  readonly state: State;
  readonly sessionId: string;
  readonly rev?: number;
  /** What the next `hello` presents to resume this session; a secret. */
  readonly token?: string;
  readonly outcome?: Outcome;
  /** The last event that the session has accepted. */
  readonly lastEvent?: number;
  /** Seconds within which the server sends something, be it a `beat`. */
  readonly heartbeat?: number;
}

/** What to do to the value that a client has: to a string, or to a list. */
export type Patch =
  | readonly ["append", text: string]
  | readonly ["splice", at: number, deleted: number, added: readonly unknown[]];

export interface UpdateMessage {
  readonly type: "update";
  readonly changes: State;
  /** By name, for signals that are not in `changes`. */
  readonly patches?: { readonly [name: string]: readonly Patch[] };
  readonly rev?: number;
  /** Every event up to this one has been accepted. */
  readonly ack?: number;
}

/** The event's handler has ended well. */
export interface Result {
  readonly type: "result";
  readonly id: number;
  readonly ok: true;
}

/** Why an event, or another message, came to nothing. */
export interface Failure {
  readonly code: string;
  readonly message?: string;
  readonly details?: readonly ErrorDetail[];
  readonly errorId?: string;
}

export interface FailedResult extends Failure {
  readonly type: "result";
  readonly id: number;
  readonly ok: false;
}

export interface ErrorMessage extends Failure {
  readonly type: "error";
  readonly id?: number;
}

/** A sign of life, from either side. */
export interface BeatMessage {
  readonly type: "beat";
}

export type ServerMessage =
  | InitMessage
  | UpdateMessage
  | Result
  | FailedResult
  | ErrorMessage
  | BeatMessage;

export interface HelloMessage {
  readonly type: "hello";
  readonly resume?: string;
  /** The last revision seen; left out by a page that has no state yet. */
  readonly rev?: number;
  /** This client can apply patches. */
  readonly patches: true;
}

export interface ByeMessage {
  readonly type: "bye";
}

export type ClientMessage = HelloMessage | ByeMessage | BeatMessage;

/** Writes an event whose data is JSON already, so that it is encoded once however often it is sent. */
export function encodeEvent(id: number, name: string, dataJson: string): string {
  return `{"type":"event","id":${id},"name":${JSON.stringify(name)},"data":${dataJson}}`;
}

/**
 * Reads one message of the server's.
 *
 * @returns The message, or `null` if the text is not JSON, its type is unknown, or a field has the
 *   wrong type. The caller drops it: a lost update shows as a gap in the revisions.
 */
export function parseServerMessage(text: string): ServerMessage | null {
  const message = parseJson(text);
  return isRecord(message) && isServerMessage(message) ? message : null;
}

type Fields = Record<string, unknown>;
type Check = (value: unknown) => boolean;

const isString: Check = (value) => typeof value === "string";
const isNumber: Check = (value) => typeof value === "number";
const isDetails: Check = (value) =>
  Array.isArray(value) &&
  value.every((entry) => isRecord(entry) && Array.isArray(entry.path) && isString(entry.message));
const isPatches: Check = (value) =>
  isRecord(value) &&
  Object.values(value).every((steps) => Array.isArray(steps) && steps.every(Array.isArray));
const optional =
  (check: Check): Check =>
  (value) =>
    value === undefined || check(value);

const FAILURE = {
  code: isString,
  message: optional(isString),
  details: optional(isDetails),
  errorId: optional(isString),
};

/** What each field of each message must be; fields that are not listed are not looked at. */
const SHAPES: ReadonlyMap<unknown, Record<string, Check>> = new Map<unknown, Record<string, Check>>(
  [
    [
      "init",
      {
        state: isRecord,
        sessionId: isString,
        rev: optional(isNumber),
        token: optional(isString),
        outcome: optional(isString),
        lastEvent: optional(isNumber),
        heartbeat: optional(isNumber),
      },
    ],
    [
      "update",
      {
        changes: isRecord,
        patches: optional(isPatches),
        rev: optional(isNumber),
        ack: optional(isNumber),
      },
    ],
    ["result", { id: isNumber }],
    ["error", { id: optional(isNumber), ...FAILURE }],
    ["beat", {}],
  ],
);

function isServerMessage(message: Fields): message is Fields & ServerMessage {
  if (message.type === "result" && message.ok !== true && !matches(message, FAILURE)) return false;
  const shape = SHAPES.get(message.type);
  return shape !== undefined && matches(message, shape);
}

function matches(message: Fields, shape: Record<string, Check>): boolean {
  return Object.entries(shape).every(([field, check]) => check(message[field]));
}

function isRecord(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
