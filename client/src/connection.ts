/**
 * One WebSocket that comes back.
 *
 * How it works. `open` dials; the owner's greeting goes out when the socket opens, and with the
 * server's `init` the connection counts as connected. A socket ends by its close code, or by
 * silence: no `init` within 10 s of dialling, or nothing at all for 2.5 heartbeats. `CLOSE_PLANS`
 * then says whether to come back. The first attempt after a loss is made at once, later ones after
 * a random delay that grows; `attempts` falls back to 0 only once a connection has lasted, so that
 * a server which fails right after `init` is not hammered. The network's return and a look at the
 * tab cut the delay short.
 *
 * Everything that a replaced socket still says is ignored: only the current one is listened to.
 */

import { backoffMs } from "./backoff";
import type { Environment, Socket } from "./environment";
import {
  type ClientMessage,
  type HelloMessage,
  parseServerMessage,
  type ServerMessage,
  SUBPROTOCOL,
} from "./protocol";

/**
 * - `connecting`: not connected yet.
 * - `connected`: the server's state has come.
 * - `reconnecting`: the connection was lost and is sought again; the old state stays.
 * - `disconnected`: closed, and staying so.
 */
export type ConnectionStatus = "connecting" | "connected" | "reconnecting" | "disconnected";

/**
 * What to do when a connection has ended.
 *
 * - `resume`: come back at once, to the same session.
 * - `later`: the same, but not at once: the server is busy, or restarts for everybody.
 * - `anew`: come back with a new session: this one's bytes were refused.
 * - `stay`: stay closed.
 */
export type ClosePlan = "resume" | "later" | "anew" | "stay";

/** By close code; every other code, and a connection that just broke, means `resume`. */
export const CLOSE_PLANS: ReadonlyMap<number, ClosePlan> = new Map<number, ClosePlan>([
  [1000, "stay"], // the author has ended the session
  [1002, "anew"], // broken frames
  [1003, "anew"], // a binary message
  [1007, "anew"], // not UTF-8
  [1008, "later"], // policy: a flood, no hello, not allowed
  [1012, "later"], // the server restarts
  [1013, "later"], // too many sessions
  [4001, "stay"], // taken over by a newer connection
  [4401, "stay"], // not let in: somebody has to log in first
]);

export const CLOSE_TOO_BIG = 1009;
const CLOSE_NORMAL = 1000;
const CLOSE_SILENCE = 4408;

const OPENING_MS = 10_000;
const LASTING_MS = 5_000;
const SILENT_HEARTBEATS = 2.5;

/** What a connection asks and tells its owner. */
export interface ConnectionOwner {
  /** Where to connect; asked before each attempt. */
  url(): string;
  /** The first message of each socket. */
  greeting(): HelloMessage;
  received(message: Exclude<ServerMessage, { type: "beat" }>): void;
  /** The socket has ended; with `stay` there will be no other until `open`. */
  ended(plan: ClosePlan, code: number, reason: string): void;
  /** The page goes; the last word to the server is being said. */
  hiding(): void;
  statusChanged(): void;
}

export class Connection {
  readonly #owner: ConnectionOwner;
  readonly #environment: Environment;
  #status: ConnectionStatus = "disconnected";
  #socket: Socket | null = null;
  #isGreeted = false;
  #attempts = 0;
  #silenceMs = OPENING_MS;
  #heartbeatMs = Number.POSITIVE_INFINITY;
  #sentAt = 0;
  #retryTimer: unknown;
  #silenceTimer: unknown;
  #lastingTimer: unknown;
  #stopListening: (() => void)[] = [];

  constructor(owner: ConnectionOwner, environment: Environment) {
    this.#owner = owner;
    this.#environment = environment;
  }

  get status(): ConnectionStatus {
    return this.#status;
  }

  /** Starts connecting, and keeps at it. Does nothing if that is under way. */
  open(): void {
    if (this.#status !== "disconnected") return;
    this.#attempts = 1; // the dial below; if it fails, the next one waits
    this.#stopListening = [
      this.#environment.onPage("hide", () => this.#hide()),
      this.#environment.onPage("wake", () => this.#wake()),
    ];
    this.#setStatus("connecting");
    this.#dial();
  }

  /** Says goodbye and stays closed. Closing twice is nothing. */
  close(): void {
    this.#leave();
    this.#rest();
  }

  /** Sends a message, or text that is one already; drops it if no socket is open. */
  send(message: ClientMessage | string): void {
    if (!this.#isGreeted) return;
    this.#sentAt = this.#environment.timers.now();
    this.#socket?.send(typeof message === "string" ? message : JSON.stringify(message));
  }

  #dial(): void {
    const isCurrent = (): boolean => this.#socket === socket;
    const socket = this.#environment.openSocket(this.#owner.url(), SUBPROTOCOL, {
      opened: () => isCurrent() && this.#greet(),
      received: (data) => isCurrent() && this.#received(data),
      closed: (code, reason) => isCurrent() && this.#ended(code, reason),
    });
    this.#socket = socket;
    this.#silenceMs = OPENING_MS;
    this.#heartbeatMs = Number.POSITIVE_INFINITY;
    this.#watchSilence();
  }

  #greet(): void {
    this.#isGreeted = true;
    this.send(this.#owner.greeting());
  }

  #received(data: unknown): void {
    const message = typeof data === "string" ? parseServerMessage(data) : null;
    // The opening deadline is for `init`: other words before it do not extend it.
    if (this.#status === "connected") this.#watchSilence();
    if (message === null) return;
    if (message.type === "beat" || this.#isQuiet()) this.send({ type: "beat" });
    if (message.type === "beat") return;
    // Before the status changes: whoever sees "connected" sees the state too.
    this.#owner.received(message);
    if (message.type === "init") this.#connected(message.heartbeat);
  }

  /** A server that talks all the time sends no beats to answer, and needs to hear of us too. */
  #isQuiet(): boolean {
    return this.#environment.timers.now() - this.#sentAt > this.#heartbeatMs / 2;
  }

  #connected(heartbeat = Number.POSITIVE_INFINITY): void {
    this.#heartbeatMs = heartbeat * 1000;
    this.#silenceMs = SILENT_HEARTBEATS * this.#heartbeatMs;
    this.#watchSilence();
    this.#clear(this.#lastingTimer);
    this.#lastingTimer = this.#after(LASTING_MS, () => {
      this.#attempts = 0;
    });
    this.#setStatus("connected");
  }

  #watchSilence(): void {
    this.#clear(this.#silenceTimer);
    if (!Number.isFinite(this.#silenceMs)) return;
    this.#silenceTimer = this.#after(this.#silenceMs, () => {
      this.#socket?.close(CLOSE_SILENCE, "heartbeat timeout");
      // A dead network would answer the close only much later.
      this.#ended(CLOSE_SILENCE, "heartbeat timeout");
    });
  }

  #ended(code: number, reason: string): void {
    this.#forget();
    const plan = CLOSE_PLANS.get(code) ?? "resume";
    this.#owner.ended(plan, code, reason);
    if (plan === "stay") this.#rest();
    else this.#retry(plan);
  }

  #retry(plan: ClosePlan): void {
    if (plan === "later") this.#attempts = Math.max(1, this.#attempts);
    const delayMs = backoffMs(this.#attempts, this.#environment.random());
    this.#attempts += 1;
    this.#retryTimer = this.#after(delayMs, () => this.#dial());
    if (this.#status === "connected") this.#setStatus("reconnecting");
  }

  #wake(): void {
    if (this.#socket !== null) return;
    this.#clear(this.#retryTimer);
    this.#dial();
  }

  #hide(): void {
    this.#owner.hiding();
    this.#leave();
    if (this.#status === "connected") this.#setStatus("reconnecting");
  }

  /** Ends the socket politely; a browser may take the page back, so nothing else changes. */
  #leave(): void {
    this.send({ type: "bye" });
    this.#socket?.close(CLOSE_NORMAL, "");
    this.#forget();
  }

  #forget(): void {
    this.#socket = null;
    this.#isGreeted = false;
    this.#clear(this.#retryTimer);
    this.#clear(this.#silenceTimer);
    this.#clear(this.#lastingTimer);
  }

  #rest(): void {
    for (const stop of this.#stopListening.splice(0)) stop();
    this.#setStatus("disconnected");
  }

  #setStatus(status: ConnectionStatus): void {
    if (this.#status === status) return;
    this.#status = status;
    this.#owner.statusChanged();
  }

  #after(delayMs: number, callback: () => void): unknown {
    return this.#environment.timers.setTimeout(callback, delayMs);
  }

  #clear(timer: unknown): void {
    this.#environment.timers.clearTimeout(timer);
  }
}
