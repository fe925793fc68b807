/** A browser with nothing behind it: each test plays the server, the network and the user. */

import type { Environment, PageEvent, Socket, SocketEvents } from "../src/environment";

export class FakeSocket implements Socket {
  readonly url: string;
  readonly subprotocol: string;
  /** What the client has sent, parsed. */
  readonly sent: unknown[] = [];
  /** How the client has closed it. */
  closedWith: number | null = null;
  readonly #events: SocketEvents;

  constructor(url: string, subprotocol: string, events: SocketEvents) {
    this.url = url;
    this.subprotocol = subprotocol;
    this.#events = events;
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }

  close(code: number): void {
    this.closedWith = code;
  }

  accept(): void {
    this.#events.opened();
  }

  say(message: object | string): void {
    this.#events.received(typeof message === "string" ? message : JSON.stringify(message));
  }

  end(code: number, reason = ""): void {
    this.#events.closed(code, reason);
  }

  /** The events that the client has sent, as `[id, name]`. */
  get events(): unknown[] {
    return this.sent
      .map((message) => message as Record<string, unknown>)
      .filter((message) => message.type === "event")
      .map((message) => [message.id, message.name]);
  }
}

export class FakeBrowser {
  readonly sockets: FakeSocket[] = [];
  readonly stored = new Map<string, string>();
  /** What `random` gives: 1 makes each delay as long as it can get. */
  random = 1;
  readonly #handlers = new Map<PageEvent, Set<() => void>>([
    ["hide", new Set()],
    ["wake", new Set()],
  ]);

  readonly environment: Environment = {
    openSocket: (url, subprotocol, events) => {
      const socket = new FakeSocket(url, subprotocol, events);
      this.sockets.push(socket);
      return socket;
    },
    timers: {
      setTimeout: (callback, delayMs) => setTimeout(callback, delayMs),
      clearTimeout: (timer) => clearTimeout(timer as number),
      now: () => performance.now(),
    },
    random: () => this.random,
    storage: {
      getItem: (key) => this.stored.get(key) ?? null,
      setItem: (key, value) => void this.stored.set(key, value),
      removeItem: (key) => void this.stored.delete(key),
    },
    onPage: (event, handler) => {
      this.#handlers.get(event)?.add(handler);
      return () => void this.#handlers.get(event)?.delete(handler);
    },
  };

  /** The newest socket. */
  get socket(): FakeSocket {
    const socket = this.sockets.at(-1);
    if (socket === undefined) throw new Error("no socket has been opened");
    return socket;
  }

  get pageHandlers(): number {
    return [...this.#handlers.values()].reduce((sum, handlers) => sum + handlers.size, 0);
  }

  page(event: PageEvent): void {
    for (const handler of [...(this.#handlers.get(event) ?? [])]) handler();
  }

  /** Accepts the newest socket and greets it as a server does. */
  welcome(init: object = {}): FakeSocket {
    this.socket.accept();
    this.socket.say(initMessage(init));
    return this.socket;
  }

  /** Breaks the connection, makes the client come back at once, and greets it again. */
  reconnect(init: object = {}): FakeSocket {
    this.socket.end(1006);
    this.page("wake");
    return this.welcome(init);
  }
}

export function initMessage(fields: object = {}): object {
  return {
    type: "init",
    state: {},
    sessionId: "s1",
    rev: 1,
    token: "t1",
    outcome: "fresh",
    lastEvent: 0,
    heartbeat: 20,
    ...fields,
  };
}
