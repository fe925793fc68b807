/**
 * The browser side of one session: its state, and the events on their way to the server.
 *
 * An event is in one of two places until its promise settles. `#waiting` holds those that the
 * server has not accepted yet, in order; `#running` those that it has, whose result is to come.
 * Events are numbered when they are sent, and numbered on from the server's last accepted one
 * after each `init`, so that a session applies each exactly once whatever the connection does.
 */

import { CLOSE_TOO_BIG, type ClosePlan, Connection, type ConnectionStatus } from "./connection";
import { browserEnvironment, type Environment } from "./environment";
import { applyPatches } from "./patches";
import {
  type BeatMessage,
  type ErrorDetail,
  encodeEvent,
  type Failure,
  type HelloMessage,
  type InitMessage,
  type Outcome,
  type Result,
  type ServerMessage,
  type UpdateMessage,
} from "./protocol";
import { type Listener, Store, type Unsubscribe } from "./store";

/** What an event carries: anything that JSON can hold as an object. */
export type EventData = object;

export interface ClientOptions {
  /** Where the server listens; `ws:`, `http:` or relative. Default: `/ws` on the page's own host. */
  url?: string;
  /**
   * How many events may be under way at once, those that wait for a connection included. Default:
   * 256, which is how many results the server keeps for a client that has lost its connection.
   */
  queueLimit?: number;
  /**
   * Hears of every failed event and every other error that the server reports, except outcomes that
   * were asked for (`superseded`, `dropped`, `cancelled`). Default: `console.warn`.
   */
  onError?: (error: EventError) => void;
  /** Hears of each attempt to take the session up again; see `CacaoClient.outcome`. */
  onOutcome?: (outcome: Outcome) => void;
  /** What to use in place of the browser's own, for tests. */
  environment?: Partial<Environment>;
}

/** Why the client stays disconnected. */
export interface Closing {
  /**
   * The WebSocket close code; 4001: another tab or connection has taken this session over; 4401:
   * the server does not let this client in, for which `reason` may tell why.
   */
  readonly code: number;
  readonly reason: string;
}

/**
 * An event that came to nothing.
 *
 * `code` is one of the protocol's, such as `invalid_data`, `handler_error` or `superseded`, or one
 * of the client's own: `busy` (too many events are under way), `cancelled` (the session is gone, or the
 * client was closed), `too_big` (over the server's limit), `not_serializable` (JSON cannot hold it).
 */
export class EventError extends Error {
  override readonly name = "EventError";
  readonly code: string;
  /** For `invalid_data`: each wrong field. */
  readonly details: readonly ErrorDetail[];
  /** What finds the error in the server's log. */
  readonly errorId: string | undefined;

  constructor(failure: Failure) {
    super(failure.message ?? failure.code);
    this.code = failure.code;
    this.details = failure.details ?? [];
    this.errorId = failure.errorId;
  }
}

const QUIET_CODES: ReadonlySet<string> = new Set(["superseded", "dropped", "cancelled"]);

/** Where a test harness that was there before the page hears of its clients. */
interface Harnessed {
  __cacao__?: Set<CacaoClient>;
}

interface PendingEvent {
  /** 0 until it is sent. */
  id: number;
  readonly name: string;
  readonly dataJson: string;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: EventError) => void;
}

/**
 * A client of one Cacao server. Making one has no effect yet: `connect` or `retain` it.
 *
 * Without React this is the whole API; `CacaoProvider` holds one for the hooks.
 */
export class CacaoClient {
  readonly #url: string;
  readonly #queueLimit: number;
  readonly #onError: (error: EventError) => void;
  readonly #onOutcome: (outcome: Outcome) => void;
  readonly #environment: Environment;
  readonly #connection: Connection;
  readonly #store = new Store();
  readonly #listeners = new Set<Listener>();
  #waiting: PendingEvent[] = [];
  readonly #running = new Map<number, PendingEvent>();
  #holders = 0;
  #closing: Closing | null = null;
  /** Whether events may be sent: the state is up to date and no `init` is awaited. */
  #isReady = false;
  #sessionId: string | null = null;
  #token: string | undefined;
  #rev: number | undefined;
  #lastId = 0;
  /** Whether this connection asked for an earlier session. */
  #isReturning = false;
  #outcome: Outcome | null = null;

  constructor(options: ClientOptions = {}) {
    this.#url = options.url ?? "/ws";
    this.#queueLimit = options.queueLimit ?? 256;
    this.#onError = options.onError ?? console.warn;
    this.#onOutcome = options.onOutcome ?? (() => {});
    this.#environment = { ...browserEnvironment(), ...options.environment };
    this.#connection = new Connection(
      {
        url: () => this.#socketUrl(),
        greeting: () => {
          const hello = this.#greeting();
          this.#isReturning = hello.resume !== undefined;
          return hello;
        },
        received: (message) => this.#received(message),
        ended: (plan, code, reason) => this.#ended(plan, code, reason),
        hiding: () => this.#keepToken(),
        statusChanged: () => this.#changed(),
      },
      this.#environment,
    );
  }

  get status(): ConnectionStatus {
    return this.#connection.status;
  }

  /** The public name of the session; `null` before the first connection. */
  get sessionId(): string | null {
    return this.#sessionId;
  }

  /**
   * What became of the session when it was last taken up again, after a loss of the connection or a
   * reload of the page; `null` if that was never tried. `fresh`: it is gone, this is a new one.
   */
  get outcome(): Outcome | null {
    return this.#outcome;
  }

  /** Why the client is disconnected for good; `null` if it is not, or was closed by `disconnect`. */
  get closing(): Closing | null {
    return this.#closing;
  }

  /** The value of a signal; `undefined` if the server has sent none. */
  get(name: string): unknown {
    return this.#store.get(name);
  }

  /** Calls `listener` after each change of the signal `name`, until the returned function is called. */
  subscribe(name: string, listener: Listener): Unsubscribe {
    return this.#store.subscribe(name, listener);
  }

  /** Calls `listener` when `status`, `sessionId`, `outcome` or `closing` may have changed. */
  subscribeStatus(listener: Listener): Unsubscribe {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Connects, and reconnects until `disconnect`. Does nothing if that is under way. */
  connect(): void {
    this.#closing = null;
    (globalThis as Harnessed).__cacao__?.add(this);
    this.#connection.open();
  }

  /** Says goodbye to the server; events whose result has not come reject with `cancelled`. */
  disconnect(): void {
    this.#isReady = false;
    this.#connection.close();
    this.#cancelAll("the client was disconnected");
  }

  /**
   * Connects for as long as somebody holds the client.
   *
   * @returns Lets go. The last one to let go disconnects, but only in the next task: React's
   *   StrictMode lets go and takes hold again at once, which must not cost a connection.
   */
  retain(): () => void {
    this.#holders += 1;
    this.connect();
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#holders -= 1;
      this.#environment.timers.setTimeout(() => {
        if (this.#holders === 0) this.disconnect();
      }, 0);
    };
  }

  /**
   * Sends an event, now or when the connection is back.
   *
   * @param data - Encoded now; what happens to the object later is not seen.
   * @returns Resolves when the event's handler has ended well and its changes have come; rejects
   *   with an `EventError` otherwise. A rejection that nobody looks at raises no
   *   `unhandledrejection`: it has been told to `onError` already.
   */
  send(name: string, data: EventData = {}): Promise<Result> {
    const promise = new Promise<Result>((resolve, reject) => {
      this.#enqueue({ id: 0, name, dataJson: encodeData(name, data), resolve, reject });
    });
    promise.catch((error: EventError) => this.#report(error));
    return promise;
  }

  #enqueue(event: PendingEvent): void {
    if (this.#closing !== null) {
      throw cancelled(`event '${event.name}' was not sent: ${describe(this.#closing)}`);
    }
    if (this.#waiting.length + this.#running.size >= this.#queueLimit) {
      throw new EventError({
        code: "busy",
        message: `event '${event.name}' was not sent: ${this.#queueLimit} events are under way already`,
      });
    }
    if (this.#isReady) this.#transmit(event);
    this.#waiting.push(event);
  }

  #transmit(event: PendingEvent): void {
    this.#lastId += 1;
    event.id = this.#lastId;
    this.#connection.send(encodeEvent(event.id, event.name, event.dataJson));
  }

  #greeting(): HelloMessage {
    const kept = this.#takeKeptToken();
    if (this.#sessionId === null) this.#token ??= kept;
    if (this.#token === undefined) return { type: "hello", patches: true };
    const hello = { type: "hello", resume: this.#token, patches: true } as const;
    return this.#rev === undefined ? hello : { ...hello, rev: this.#rev };
  }

  #received(message: Exclude<ServerMessage, BeatMessage>): void {
    switch (message.type) {
      case "init":
        this.#begin(message);
        break;
      case "update":
        this.#update(message);
        break;
      case "result":
        // After a resume the server repeats what may have been lost, and what was not.
        if (message.ok) this.#take(message.id)?.resolve(message);
        else this.#take(message.id)?.reject(new EventError(message));
        break;
      case "error":
        if (message.id === undefined) this.#report(new EventError(message));
        else this.#take(message.id)?.reject(new EventError(message));
    }
  }

  #begin(init: InitMessage): void {
    const outcome = init.outcome ?? "fresh";
    const lastEvent = init.lastEvent ?? 0;
    // What was meant for a session that is gone is never sent into another one.
    if (outcome === "fresh" && this.#sessionId !== null) this.#cancelAll("the session is gone");
    this.#accept(lastEvent);
    this.#isReady = false; // what a listener sends now is sent below, with the others
    this.#sessionId = init.sessionId;
    this.#token = init.token;
    this.#rev = init.rev;
    if (outcome === "resumed") this.#store.merge(init.state);
    else this.#store.replace(init.state);
    this.#lastId = lastEvent;
    // The earlier token holds until the server has heard that this one has come.
    if (outcome !== "fresh") this.#connection.send({ type: "beat" });
    for (const event of this.#waiting) this.#transmit(event);
    this.#isReady = true;
    if (this.#isReturning) {
      this.#isReturning = false;
      this.#outcome = outcome;
      this.#onOutcome(outcome);
    }
    this.#changed();
  }

  #update(update: UpdateMessage): void {
    if (update.ack !== undefined) this.#accept(update.ack);
    if (!this.#isReady) return; // an `init` with the whole state is on its way
    const expected = (this.#rev ?? 0) + 1;
    const { rev = expected } = update;
    if (rev < expected) return;
    const patched = applyPatches(update.patches ?? {}, (name) => this.#store.get(name));
    if (rev > expected || patched === null) {
      this.#askAgain();
      return;
    }
    this.#rev = rev;
    this.#store.merge({ ...update.changes, ...patched });
  }

  /** An update was lost, or does not fit: the server is asked for the whole state, over the same socket. */
  #askAgain(): void {
    this.#isReady = false;
    this.#connection.send(this.#greeting());
  }

  /** Events up to `id` have been accepted and are never sent again. */
  #accept(id: number): void {
    while (true) {
      const event = this.#waiting[0];
      if (event === undefined || event.id === 0 || event.id > id) return;
      this.#waiting.shift();
      this.#running.set(event.id, event);
    }
  }

  #take(id: number): PendingEvent | undefined {
    this.#accept(id);
    const event = this.#running.get(id);
    this.#running.delete(id);
    return event;
  }

  #ended(plan: ClosePlan, code: number, reason: string): void {
    this.#isReady = false;
    if (code === CLOSE_TOO_BIG) this.#dropBiggest();
    if (plan === "anew") this.#token = undefined;
    if (plan === "stay") {
      this.#closing = { code, reason };
      this.#cancelAll(describe(this.#closing));
    }
  }

  /** The server refused a message for its size without saying which: it can only be this one. */
  #dropBiggest(): void {
    const [biggest] = this.#waiting
      .filter((event) => event.id !== 0)
      .sort((one, other) => other.dataJson.length - one.dataJson.length);
    if (biggest === undefined) return;
    this.#waiting = this.#waiting.filter((event) => event !== biggest);
    biggest.reject(
      new EventError({
        code: "too_big",
        message: `event '${biggest.name}' is larger than the server takes`,
      }),
    );
  }

  #cancelAll(reason: string): void {
    const events = [...this.#running.values(), ...this.#waiting];
    this.#running.clear();
    this.#waiting = [];
    for (const event of events) {
      event.reject(cancelled(`event '${event.name}' was cancelled: ${reason}`));
    }
  }

  /**
   * Leaves the token for the page that a reload makes of this one.
   *
   * It is in the storage only while its page is away: so a tab duplicated from a living one finds
   * none there, and starts a session of its own.
   */
  #keepToken(): void {
    this.#isReady = false;
    if (this.#token === undefined) return;
    try {
      this.#environment.storage?.setItem(this.#storageKey, this.#token);
    } catch {
      // The storage is full: the reloaded page starts a new session.
    }
  }

  #takeKeptToken(): string | undefined {
    const { storage } = this.#environment;
    const token = storage?.getItem(this.#storageKey) ?? undefined;
    storage?.removeItem(this.#storageKey);
    return token;
  }

  #report(error: EventError): void {
    if (!QUIET_CODES.has(error.code)) this.#onError(error);
  }

  #changed(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  get #storageKey(): string {
    return `cacao ${this.#url}`;
  }

  #socketUrl(): string {
    const url = new URL(this.#url, globalThis.location?.href);
    url.protocol = url.protocol.replace("http", "ws");
    return url.href;
  }
}

function encodeData(name: string, data: EventData): string {
  const json = toJson(data);
  if (json?.startsWith("{")) return json;
  throw new EventError({
    code: "not_serializable",
    message: `the data of event '${name}' is not a JSON object; send an object of plain values`,
  });
}

function toJson(data: EventData): string | undefined {
  try {
    return JSON.stringify(data);
  } catch {
    return undefined; // a cycle, a BigInt, a toJSON that throws
  }
}

function cancelled(message: string): EventError {
  return new EventError({ code: "cancelled", message });
}

function describe({ code, reason }: Closing): string {
  if (code === 4001) return "another connection has taken the session over";
  if (code === 4401) return `the server does not let this client in${reason && `: ${reason}`}`;
  return `the server closed the connection with code ${code}${reason && `: ${reason}`}`;
}
