import { afterEach, expect, test, vi } from "vitest";
import { browserEnvironment } from "../src/environment";

afterEach(() => {
  vi.unstubAllGlobals();
  sessionStorage.clear();
});

function hear(event: "hide" | "wake") {
  const handler = vi.fn();
  const stop = browserEnvironment().onPage(event, handler);
  return { handler, stop };
}

function setVisibility(state: DocumentVisibilityState): void {
  vi.spyOn(document, "visibilityState", "get").mockReturnValue(state);
  document.dispatchEvent(new Event("visibilitychange"));
}

function showPage(persisted: boolean): void {
  window.dispatchEvent(Object.assign(new Event("pageshow"), { persisted }));
}

test("a page that goes is heard", () => {
  const { handler, stop } = hear("hide");
  window.dispatchEvent(new Event("pagehide"));
  stop();
  window.dispatchEvent(new Event("pagehide"));
  expect(handler).toHaveBeenCalledTimes(1);
});

test.each([
  ["the network is back", () => window.dispatchEvent(new Event("online")), 1],
  ["the tab is looked at", () => setVisibility("visible"), 1],
  ["the tab is hidden", () => setVisibility("hidden"), 0],
  ["a page put aside is back", () => showPage(true), 1],
  ["a page is shown for the first time", () => showPage(false), 0],
])("%s: it wakes %#", (_, happen, times) => {
  const { handler, stop } = hear("wake");
  happen();
  expect(handler).toHaveBeenCalledTimes(times);
  stop();
  happen();
  expect(handler).toHaveBeenCalledTimes(times);
});

test("the token waits in the storage of the tab", () => {
  browserEnvironment().storage?.setItem("key", "token");
  expect(sessionStorage.getItem("key")).toBe("token");
});

test("a page that may not store anything does without", () => {
  const spy = vi.spyOn(globalThis, "sessionStorage", "get").mockImplementation(() => {
    throw new DOMException("denied", "SecurityError");
  });
  expect(browserEnvironment().storage).toBeNull();
  spy.mockRestore();
});

test("outside a browser there is no page to hear of", () => {
  vi.stubGlobal("window", undefined);
  const stop = browserEnvironment().onPage("hide", () => {});
  expect(stop).not.toThrow();
});

test("a real WebSocket's events come through", () => {
  class Recorder {
    static last: Recorder;
    onopen = () => {};
    onmessage = (_: { data: unknown }) => {};
    onclose = (_: { code: number; reason: string }) => {};
    constructor(
      readonly url: string,
      readonly subprotocol: string,
    ) {
      Recorder.last = this;
    }
  }
  vi.stubGlobal("WebSocket", Recorder);
  const events = { opened: vi.fn(), received: vi.fn(), closed: vi.fn() };
  browserEnvironment().openSocket("ws://server/ws", "cacao.v1", events);
  Recorder.last.onopen();
  Recorder.last.onmessage({ data: "text" });
  Recorder.last.onclose({ code: 1006, reason: "" });
  expect([Recorder.last.url, Recorder.last.subprotocol]).toEqual(["ws://server/ws", "cacao.v1"]);
  expect(events.opened).toHaveBeenCalledTimes(1);
  expect(events.received).toHaveBeenCalledWith("text");
  expect(events.closed).toHaveBeenCalledWith(1006, "");
});
