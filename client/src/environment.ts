/** What the client needs from the browser, so that tests can put their own in its place. */

/** An open, or opening, WebSocket. */
export interface Socket {
  send(text: string): void;
  close(code: number, reason: string): void;
}

/** What a socket tells its owner, never before `openSocket` has returned. */
export interface SocketEvents {
  opened(): void;
  received(data: unknown): void;
  closed(code: number, reason: string): void;
}

export interface Timers {
  setTimeout(callback: () => void, delayMs: number): unknown;
  clearTimeout(timer: unknown): void;
  /** Milliseconds since some moment; never goes back. */
  now(): number;
}

/** Where a token waits while its page reloads; `sessionStorage` is one per tab. */
export type TokenStorage = Pick<Storage, "getItem" | "setItem" | "removeItem">;

/**
 * - `hide`: the page goes: closed, reloaded, left, or put aside by the browser.
 * - `wake`: a page put aside is back, the network is back, or the tab is looked at again.
 */
export type PageEvent = "hide" | "wake";

export interface Environment {
  openSocket(url: string, subprotocol: string, events: SocketEvents): Socket;
  readonly timers: Timers;
  /** A number from 0 up to 1. */
  random(): number;
  /** `null` where there is none, or it is forbidden. */
  readonly storage: TokenStorage | null;
  /** Calls `handler` for each event of the page until the returned function is called. */
  onPage(event: PageEvent, handler: () => void): () => void;
}

/** The browser's own environment; safe to ask for where there is no browser. */
export function browserEnvironment(): Environment {
  return {
    openSocket: openWebSocket,
    timers: {
      setTimeout: (callback, delayMs) => setTimeout(callback, delayMs),
      clearTimeout: (timer) => clearTimeout(timer as number),
      now: () => performance.now(),
    },
    random: Math.random,
    storage: tabStorage(),
    onPage: typeof window === "undefined" ? () => () => {} : onBrowserPage,
  };
}

function openWebSocket(url: string, subprotocol: string, events: SocketEvents): Socket {
  const socket = new WebSocket(url, subprotocol);
  socket.onopen = () => events.opened();
  socket.onmessage = (event) => events.received(event.data);
  socket.onclose = (event) => events.closed(event.code, event.reason);
  return socket;
}

function tabStorage(): TokenStorage | null {
  try {
    return sessionStorage;
  } catch {
    return null; // reading the name alone throws in a sandboxed frame
  }
}

function onBrowserPage(event: PageEvent, handler: () => void): () => void {
  if (event === "hide") return listen(window, "pagehide", handler);
  const stops = [
    listen(window, "online", handler),
    listen(window, "pageshow", (shown) => {
      if ((shown as PageTransitionEvent).persisted) handler();
    }),
    listen(document, "visibilitychange", () => {
      if (document.visibilityState === "visible") handler();
    }),
  ];
  return () => {
    for (const stop of stops) stop();
  };
}

function listen(target: EventTarget, type: string, handler: (event: Event) => void): () => void {
  target.addEventListener(type, handler);
  return () => target.removeEventListener(type, handler);
}
