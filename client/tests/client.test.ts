import { describe, expect, test, vi } from "vitest";
import { CacaoClient, type ClientOptions, type EventError } from "../src/client";
import { FakeBrowser, initMessage } from "./browser";

function connect(options: ClientOptions = {}, browser = new FakeBrowser()) {
  const onError = vi.fn();
  const client = new CacaoClient({
    url: "ws://server/ws",
    onError,
    environment: browser.environment,
    ...options,
  });
  client.connect();
  return { browser, client, onError };
}

/** How a promise has settled by now: its value, its error's code, or "pending". */
async function outcome(promise: Promise<unknown>): Promise<unknown> {
  return Promise.race([
    promise.catch((error: EventError) => error.code),
    // One turn later than any promise that is settled already.
    Promise.resolve().then(() => Promise.resolve("pending")),
  ]);
}

const hello = (browser: FakeBrowser) => browser.socket.sent[0];

describe("state", () => {
  test("init brings the whole state, updates change it", () => {
    const { browser, client } = connect();
    const socket = browser.welcome({ state: { count: 0, name: "Ada" } });
    socket.say({ type: "update", changes: { count: 1 }, rev: 2 });
    expect([client.get("count"), client.get("name")]).toEqual([1, "Ada"]);
    expect(client.sessionId).toBe("s1");
  });

  test("patches are applied to what is there, with the other changes of their update", () => {
    const { browser, client } = connect();
    const socket = browser.welcome({ state: { lines: ["a"], text: "many", count: 0 } });
    const before = client.get("lines");
    const heard: unknown[] = [];
    client.subscribe("lines", () => heard.push([client.get("lines"), client.get("count")]));
    socket.say({
      type: "update",
      changes: { count: 1 },
      patches: { lines: [["splice", 1, 0, ["b"]]], text: [["append", " words"]] },
      rev: 2,
    });
    expect(heard).toEqual([[["a", "b"], 1]]);
    expect(client.get("text")).toBe("many words");
    expect(before).toEqual(["a"]);
  });

  test("a patch that does not fit is asked after, and nothing of its update is shown", () => {
    const { browser, client } = connect();
    const socket = browser.welcome({ state: { text: 7, count: 0 } });
    const patches = { text: [["append", "!"]] };
    socket.say({ type: "update", changes: { count: 1 }, patches, rev: 2 });
    expect(client.get("count")).toBe(0);
    expect(socket.sent.at(-1)).toEqual({ type: "hello", resume: "t1", rev: 1, patches: true });
    socket.say(initMessage({ outcome: "rebuilt", state: { text: "7!", count: 1 }, rev: 3 }));
    expect([client.get("text"), client.get("count")]).toEqual(["7!", 1]);
  });

  test("the old state stays while the connection is sought again", () => {
    const { browser, client } = connect();
    browser.welcome({ state: { count: 7 } }).end(1006);
    expect(client.status).toBe("reconnecting");
    expect(client.get("count")).toBe(7);
  });

  test("resumed adds what was missed, rebuilt and fresh replace everything", () => {
    const { browser, client } = connect();
    browser.welcome({ state: { a: 1, b: 1 } });
    browser.reconnect({ outcome: "resumed", state: { b: 2 }, rev: 2 });
    expect([client.get("a"), client.get("b")]).toEqual([1, 2]);
    browser.reconnect({ outcome: "rebuilt", state: { b: 3 }, rev: 3 });
    expect([client.get("a"), client.get("b")]).toEqual([undefined, 3]);
    browser.reconnect({ outcome: "fresh", state: { a: 4 } });
    expect([client.get("a"), client.get("b")]).toEqual([4, undefined]);
  });

  test("listeners hear of the status and of a new session", () => {
    const { browser, client } = connect();
    const seen: unknown[] = [];
    client.subscribeStatus(() => seen.push([client.status, client.sessionId]));
    browser.welcome();
    browser.socket.end(4001);
    expect(seen).toEqual([
      ["connecting", "s1"],
      ["connected", "s1"],
      ["disconnected", "s1"],
    ]);
  });

  test("the address may be relative to the page", () => {
    const { browser } = connect({ url: "/live" });
    expect(browser.socket.url).toBe(`${location.origin.replace("http", "ws")}/live`);
  });

  test.each([
    ["https://host/ws", "wss://host/ws"],
    ["http://host:8000/ws", "ws://host:8000/ws"],
    ["wss://host/ws", "wss://host/ws"],
  ])("%s is dialled as %s", (url, dialled) => {
    expect(connect({ url }).browser.socket.url).toBe(dialled);
  });
});

describe("revisions", () => {
  test("after a gap the state is asked for again, on the same socket", () => {
    const { browser, client } = connect();
    const socket = browser.welcome({ state: { a: 1, b: 1 } });
    socket.say({ type: "update", changes: { a: 2 }, rev: 2 });
    socket.say({ type: "update", changes: { b: 4 }, rev: 4 });
    expect(socket.sent.at(-1)).toEqual({ type: "hello", resume: "t1", rev: 2, patches: true });
    socket.say({ type: "update", changes: { b: 5 }, rev: 5 });
    expect(client.get("b")).toBe(1);
    socket.say({
      type: "init",
      outcome: "rebuilt",
      state: { a: 3, b: 5 },
      sessionId: "s1",
      rev: 6,
    });
    socket.say({ type: "update", changes: { b: 6 }, rev: 7 });
    expect([client.get("a"), client.get("b")]).toEqual([3, 6]);
    expect(browser.sockets).toHaveLength(1);
  });

  test("a gap is asked about once", () => {
    const { browser } = connect();
    const socket = browser.welcome();
    for (const rev of [3, 4, 5]) socket.say({ type: "update", changes: {}, rev });
    expect(socket.sent).toHaveLength(2);
  });

  test("what was seen already is not applied again", () => {
    const { browser, client } = connect();
    const socket = browser.welcome({ rev: 5, state: { a: 5 } });
    socket.say({ type: "update", changes: { a: 4 }, rev: 4 });
    socket.say({ type: "update", changes: { a: 5.5 }, rev: 5 });
    expect(client.get("a")).toBe(5);
    expect(socket.sent).toHaveLength(1);
  });
});

describe("events", () => {
  test("they are numbered and carry their data", () => {
    const { browser, client } = connect();
    const socket = browser.welcome();
    client.send("increment");
    client.send("save", { title: "Ä" });
    expect(socket.sent.slice(1)).toEqual([
      { type: "event", id: 1, name: "increment", data: {} },
      { type: "event", id: 2, name: "save", data: { title: "Ä" } },
    ]);
  });

  test("the promise settles with the result, not with the acknowledgement", async () => {
    const { browser, client } = connect();
    const socket = browser.welcome();
    const [first, second] = [client.send("a"), client.send("b")];
    socket.say({ type: "update", changes: {}, rev: 2, ack: 2 });
    expect(await outcome(first)).toBe("pending");
    socket.say({ type: "result", id: 2, ok: true });
    expect(await outcome(second)).toEqual({ type: "result", id: 2, ok: true });
    expect(await outcome(first)).toBe("pending");
    socket.say({ type: "result", id: 1, ok: true });
    expect(await outcome(first)).toEqual({ type: "result", id: 1, ok: true });
  });

  test("a failed result rejects with all that is known of it", async () => {
    const { browser, client, onError } = connect();
    const promise = client.send("save");
    const details = [{ path: ["age"], message: "should be a number" }];
    const failure = { code: "invalid_data", message: "no", details, errorId: "e-7" };
    browser.welcome().say({ type: "result", id: 1, ok: false, ...failure });
    await expect(promise).rejects.toMatchObject({ name: "EventError", ...failure });
    expect(onError).toHaveBeenCalledTimes(1);
  });

  test("an error about an event rejects its promise", async () => {
    const { browser, client } = connect();
    const promise = client.send("svae");
    browser.welcome().say({ type: "error", code: "unknown_event", message: "no", id: 1 });
    expect(await outcome(promise)).toBe("unknown_event");
  });

  test("an error about no event goes to onError", () => {
    const { browser, onError } = connect();
    browser.welcome().say({ type: "error", code: "not_serializable", message: "no" });
    expect(onError).toHaveBeenCalledWith(expect.objectContaining({ code: "not_serializable" }));
  });

  test.each(["superseded", "dropped", "cancelled"])("%s rejects but is no news", async (code) => {
    const { browser, client, onError } = connect();
    const promise = client.send("search");
    browser.welcome().say({ type: "result", id: 1, ok: false, code, message: "" });
    expect(await outcome(promise)).toBe(code);
    expect(onError).not.toHaveBeenCalled();
  });

  test("a rejection that nobody looks at is told to onError and does no harm", async () => {
    const { browser, client, onError } = connect();
    client.send("boom"); // vitest fails the run on an unhandled rejection
    browser.welcome().say({ type: "result", id: 1, ok: false, code: "handler_error" });
    await vi.advanceTimersByTimeAsync(0);
    expect(onError).toHaveBeenCalledTimes(1);
  });

  test.each([
    ["a cycle", makeCycle],
    ["a list", () => [1]],
    ["a function", () => () => 1],
    ["a big integer", () => ({ n: 1n })],
  ])("%s is refused as data", async (_, make) => {
    const { browser, client } = connect();
    browser.welcome();
    expect(await outcome(client.send("save", make()))).toBe("not_serializable");
    expect(browser.socket.events).toEqual([]);
  });

  test("data is what it was when it was sent", () => {
    const { browser, client } = connect();
    const data = { n: 1 };
    client.send("save", data);
    data.n = 2;
    browser.welcome();
    expect(browser.socket.sent.at(-1)).toMatchObject({ data: { n: 1 } });
  });

  test("a result for an event that is not ours is ignored", () => {
    const { browser, onError } = connect();
    browser.welcome().say({ type: "result", id: 99, ok: true });
    expect(onError).not.toHaveBeenCalled();
  });
});

function makeCycle(): object {
  const cycle: Record<string, unknown> = {};
  cycle.self = cycle;
  return cycle;
}

describe("without a connection", () => {
  test("events wait, and are sent in order when it is there", () => {
    const { browser, client } = connect();
    client.send("a");
    client.send("b");
    browser.welcome();
    expect(browser.socket.events).toEqual([
      [1, "a"],
      [2, "b"],
    ]);
  });

  test("events may be sent before connecting", () => {
    const browser = new FakeBrowser();
    const client = new CacaoClient({ url: "ws://server/ws", environment: browser.environment });
    client.send("a");
    client.connect();
    browser.welcome();
    expect(browser.socket.events).toEqual([[1, "a"]]);
  });

  test("an event sent by a listener while the state comes is sent once", () => {
    const { browser, client } = connect();
    client.subscribe("a", () => client.send("seen"));
    browser.welcome();
    browser.socket.say(initMessage({ outcome: "rebuilt", state: { a: 1 } }));
    expect(browser.socket.events).toEqual([[1, "seen"]]);
  });

  test("no more wait than the limit; the next are refused, not dropped", async () => {
    const { browser, client } = connect({ queueLimit: 2 });
    const promises = ["a", "b", "c"].map((name) => client.send(name));
    expect(await Promise.all(promises.map(outcome))).toEqual(["pending", "pending", "busy"]);
    browser.welcome();
    expect(browser.socket.events).toEqual([
      [1, "a"],
      [2, "b"],
    ]);
  });

  test("256 events wait by default", async () => {
    const { client } = connect();
    const promises = Array.from({ length: 257 }, () => client.send("a"));
    expect(await outcome(promises[255] as Promise<unknown>)).toBe("pending");
    expect(await outcome(promises[256] as Promise<unknown>)).toBe("busy");
  });

  test("with a connection no more are under way: the server keeps no more results", async () => {
    const { browser, client } = connect({ queueLimit: 2 });
    const socket = browser.welcome();
    const [first, second] = [client.send("a"), client.send("b")];
    socket.say({ type: "update", changes: {}, rev: 2, ack: 1 });
    expect(await outcome(client.send("c"))).toBe("busy");
    socket.say({ type: "result", id: 1, ok: true });
    expect(await Promise.all([first, second].map(outcome))).toEqual([
      { type: "result", id: 1, ok: true },
      "pending",
    ]);
    expect(await outcome(client.send("d"))).toBe("pending");
  });
});

describe("after a reconnect", () => {
  test("the session is asked for by its latest token and revision", () => {
    const { browser } = connect();
    browser.welcome({ token: "t1" }).say({ type: "update", changes: {}, rev: 2 });
    browser.reconnect({ outcome: "resumed", token: "t2", rev: 2 });
    expect(hello(browser)).toEqual({ type: "hello", resume: "t1", rev: 2, patches: true });
    browser.reconnect();
    expect(hello(browser)).toEqual({ type: "hello", resume: "t2", rev: 2, patches: true });
  });

  test.each(["resumed", "rebuilt"])("%s: what was not accepted is sent again, in order", (kind) => {
    const { browser, client } = connect();
    const socket = browser.welcome();
    for (const name of ["a", "b", "c", "d"]) client.send(name);
    socket.say({ type: "update", changes: {}, rev: 2, ack: 1 });
    browser.reconnect({ outcome: kind, lastEvent: 2, rev: 3 });
    client.send("e");
    expect(browser.socket.events).toEqual([
      [3, "c"],
      [4, "d"],
      [5, "e"],
    ]);
  });

  test("a result that was on its way settles its promise after all", async () => {
    const { browser, client } = connect();
    browser.welcome();
    const promise = client.send("save");
    browser.reconnect({ outcome: "resumed", lastEvent: 1 });
    expect(await outcome(promise)).toBe("pending");
    browser.socket.say({ type: "result", id: 1, ok: true });
    expect(await outcome(promise)).toMatchObject({ ok: true });
  });

  test("what the server repeats of settled events is not told again", async () => {
    const onError = vi.fn();
    const { browser, client } = connect({ onError });
    const failure = { type: "result", id: 1, ok: false, code: "handler_error", message: "no" };
    browser.welcome();
    const promise = client.send("save");
    browser.socket.say(failure);
    expect(await outcome(promise)).toBe("handler_error");
    browser.reconnect({ outcome: "resumed", lastEvent: 1 });
    browser.socket.say(failure);
    browser.socket.say({ type: "error", id: 1, code: "unknown_event", message: "no" });
    await Promise.resolve();
    expect(onError).toHaveBeenCalledTimes(1);
  });

  test("the server hears at once that its new token has come", () => {
    const { browser } = connect();
    const first = browser.welcome();
    expect(first.sent.at(-1)).toMatchObject({ type: "hello" });
    browser.reconnect({ outcome: "resumed" });
    expect(browser.socket.sent.at(-1)).toEqual({ type: "beat" });
    browser.reconnect({ outcome: "fresh" });
    expect(browser.socket.sent.at(-1)).toMatchObject({ type: "hello" });
  });

  test("the page is told what became of its session", () => {
    const onOutcome = vi.fn();
    const { browser, client } = connect({ onOutcome });
    browser.welcome({ outcome: "fresh" });
    expect(client.outcome).toBeNull();
    for (const each of ["resumed", "resumed", "rebuilt", "fresh"]) {
      browser.reconnect({ outcome: each });
      expect(client.outcome).toBe(each);
    }
    browser.socket.say({ type: "update", changes: {}, rev: 99 });
    browser.socket.say(initMessage({ outcome: "rebuilt", rev: 100 }));
    expect(client.outcome).toBe("fresh"); // it was the same connection
    expect(onOutcome.mock.calls.flat()).toEqual(["resumed", "resumed", "rebuilt", "fresh"]);
  });

  test("fresh: nothing is sent into the new session, every promise rejects", async () => {
    const { browser, client } = connect();
    const socket = browser.welcome();
    const [accepted, sent] = [client.send("a"), client.send("b")];
    socket.say({ type: "update", changes: {}, rev: 2, ack: 1 });
    socket.end(1006);
    const waiting = client.send("c");
    browser.page("wake");
    browser.welcome({ outcome: "fresh", sessionId: "s2" });
    expect(await Promise.all([accepted, sent, waiting].map(outcome))).toEqual(
      Array(3).fill("cancelled"),
    );
    expect(browser.socket.events).toEqual([]);
    expect(client.sessionId).toBe("s2");
  });

  test("fresh: the numbers start anew", () => {
    const { browser, client } = connect();
    browser.welcome();
    client.send("a");
    browser.reconnect({ outcome: "fresh" });
    client.send("b");
    expect(browser.socket.events).toEqual([[1, "b"]]);
  });

  test.each([1002, 1003, 1007])("%i: a new session is asked for", (code) => {
    const { browser } = connect();
    browser.welcome().end(code);
    vi.advanceTimersByTime(250);
    browser.socket.accept();
    expect(hello(browser)).toEqual({ type: "hello", patches: true });
  });

  test("1009: the biggest event is given up, the others are sent again", async () => {
    const { browser, client } = connect();
    const socket = browser.welcome();
    const small = client.send("small");
    const big = client.send("big", { text: "x".repeat(1000) });
    const later = client.send("later");
    socket.end(1009);
    expect(await Promise.all([small, big, later].map(outcome))).toEqual([
      "pending",
      "too_big",
      "pending",
    ]);
    vi.advanceTimersByTime(250);
    browser.welcome({ outcome: "resumed", lastEvent: 1 });
    expect(browser.socket.events).toEqual([[2, "later"]]);
  });
});

describe("under test", () => {
  test("a client that connects tells the harness that was there before the page", () => {
    const harness = new Set<CacaoClient>();
    vi.stubGlobal("__cacao__", harness);
    const { client } = connect();
    vi.unstubAllGlobals();
    expect([...harness]).toEqual([client]);
  });

  test("without a harness nothing is told, and nothing is left behind", () => {
    connect();
    expect(globalThis).not.toHaveProperty("__cacao__");
  });
});

describe("staying closed", () => {
  test.each([
    [1000, "done"],
    [4001, ""],
    [4401, "unauthorized"],
  ])("%i says so and cancels what waits", async (code, reason) => {
    const { browser, client } = connect();
    const socket = browser.welcome();
    const promise = client.send("a");
    socket.end(code, reason);
    expect(client.status).toBe("disconnected");
    expect(client.closing).toEqual({ code, reason });
    expect(await outcome(promise)).toBe("cancelled");
    expect(await outcome(client.send("b"))).toBe("cancelled");
  });

  test("an event that comes later is told why", async () => {
    const { browser, client } = connect();
    browser.socket.end(4401, "unauthorized");
    await expect(client.send("a")).rejects.toThrow("does not let this client in: unauthorized");
  });

  test("the page may connect again", () => {
    const { browser, client } = connect();
    browser.welcome().end(4001);
    client.connect();
    expect(client.closing).toBeNull();
    browser.welcome();
    expect(client.status).toBe("connected");
  });

  test("disconnecting cancels what waits", async () => {
    const { browser, client } = connect();
    browser.welcome();
    const promise = client.send("a");
    client.disconnect();
    expect(await outcome(promise)).toBe("cancelled");
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("holding", () => {
  test("the connection lives as long as somebody holds it", () => {
    const browser = new FakeBrowser();
    const client = new CacaoClient({ url: "ws://server/ws", environment: browser.environment });
    expect(browser.sockets).toHaveLength(0);
    const letGo = client.retain();
    const letGoToo = client.retain();
    browser.welcome();
    letGo();
    letGo();
    vi.advanceTimersByTime(0);
    expect(client.status).toBe("connected");
    letGoToo();
    vi.advanceTimersByTime(0);
    expect(client.status).toBe("disconnected");
  });

  test("letting go and holding again in one task costs nothing", () => {
    const { browser, client } = connect();
    const socket = browser.welcome();
    client.retain()();
    const letGo = client.retain();
    vi.advanceTimersByTime(0);
    expect(socket.closedWith).toBeNull();
    expect(browser.sockets).toHaveLength(1);
    letGo();
  });
});

describe("a reloaded page", () => {
  test("is back in its session", () => {
    const { browser } = connect();
    const old = browser.welcome({ token: "t1" });
    browser.page("hide");
    expect(old.sent.at(-1)).toEqual({ type: "bye" });

    const { client } = connect({}, browser);
    client.send("a");
    browser.welcome({ outcome: "rebuilt", lastEvent: 17, state: { count: 3 } });
    expect(hello(browser)).toEqual({ type: "hello", resume: "t1", patches: true });
    expect(client.get("count")).toBe(3);
    expect(browser.socket.events).toEqual([[18, "a"]]);
  });

  test("sends what was clicked meanwhile even if its session is gone", () => {
    const { browser } = connect();
    browser.welcome();
    browser.page("hide");
    const { client } = connect({}, browser);
    client.send("a");
    browser.welcome({ outcome: "fresh" });
    expect(browser.socket.events).toEqual([[1, "a"]]);
  });

  test("asks for its session until it is answered", () => {
    const { browser } = connect();
    browser.welcome({ token: "t1" });
    browser.page("hide");
    connect({}, browser);
    browser.socket.accept();
    browser.socket.end(1006);
    vi.advanceTimersByTime(250);
    browser.socket.accept();
    expect(hello(browser)).toEqual({ type: "hello", resume: "t1", patches: true });
  });

  test("duplicated from a living one starts a session of its own", () => {
    const { browser } = connect();
    browser.welcome({ token: "t1" });
    connect({}, browser);
    browser.socket.accept();
    expect(hello(browser)).toEqual({ type: "hello", patches: true });
    expect([...browser.stored]).toEqual([]);
  });

  test("put aside by the browser and back takes its token out again", () => {
    const { browser } = connect();
    browser.welcome({ token: "t1", rev: 4 });
    browser.page("hide");
    expect(browser.stored.size).toBe(1);
    browser.page("wake");
    browser.socket.accept();
    expect(hello(browser)).toEqual({ type: "hello", resume: "t1", rev: 4, patches: true });
    expect(browser.stored.size).toBe(0);
  });
});
