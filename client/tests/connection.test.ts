import { describe, expect, test, vi } from "vitest";
import { CLOSE_PLANS, Connection, type ConnectionOwner } from "../src/connection";
import { FakeBrowser, initMessage } from "./browser";

function open() {
  const browser = new FakeBrowser();
  const statuses: string[] = [];
  const owner: ConnectionOwner = {
    url: () => "ws://server/ws",
    greeting: () => ({ type: "hello", patches: true }),
    received: vi.fn(),
    ended: vi.fn(),
    hiding: vi.fn(),
    statusChanged: () => statuses.push(connection.status),
  };
  const connection: Connection = new Connection(owner, browser.environment);
  connection.open();
  return { browser, connection, owner, statuses };
}

/** Opens a connection that has lasted long enough to count as a good one. */
function openLasting() {
  const opened = open();
  opened.browser.welcome({ heartbeat: 3600 });
  vi.advanceTimersByTime(5_000);
  return opened;
}

/** Milliseconds until the next attempt, which this lets happen. */
function delayOfNextAttempt(browser: FakeBrowser): number {
  const before = browser.sockets.length;
  const start = Date.now();
  vi.advanceTimersToNextTimer();
  expect(browser.sockets).toHaveLength(before + 1);
  return Date.now() - start;
}

describe("connecting", () => {
  test("the socket asks for the subprotocol and says hello first", () => {
    const { browser } = open();
    expect(browser.socket.subprotocol).toBe("cacao.v1");
    expect(browser.socket.sent).toEqual([]);
    browser.socket.accept();
    expect(browser.socket.sent).toEqual([{ type: "hello", patches: true }]);
  });

  test("it counts as connected once the state has come", () => {
    const { browser, statuses } = open();
    browser.socket.accept();
    expect(statuses).toEqual(["connecting"]);
    browser.socket.say(initMessage());
    expect(statuses).toEqual(["connecting", "connected"]);
  });

  test("the owner has the state before the status says so", () => {
    const { browser, owner, connection } = open();
    vi.mocked(owner.received).mockImplementation(() => {
      expect(connection.status).toBe("connecting");
    });
    browser.welcome();
    expect(owner.received).toHaveBeenCalledTimes(1);
  });

  test("opening twice opens one socket", () => {
    const { browser, connection } = open();
    connection.open();
    expect(browser.sockets).toHaveLength(1);
  });

  test("a server that accepts and then says nothing is given up after 10 s", () => {
    const { browser } = open();
    browser.socket.accept();
    vi.advanceTimersByTime(9_999);
    browser.socket.say({ type: "beat" });
    expect(browser.socket.closedWith).toBeNull();
    vi.advanceTimersByTime(1);
    expect(browser.socket.closedWith).toBe(4408);
  });

  test("what cannot be read is dropped", () => {
    const { browser, owner, connection } = open();
    const socket = browser.welcome();
    socket.say("{");
    socket.say({ type: "nope" });
    expect(owner.received).toHaveBeenCalledTimes(1);
    expect(connection.status).toBe("connected");
  });
});

describe("coming back", () => {
  test("the first attempt is made at once, later ones after growing delays", () => {
    const { browser, statuses } = openLasting();
    const delays = Array.from({ length: 9 }, () => {
      browser.socket.end(1006);
      return delayOfNextAttempt(browser);
    });
    expect(delays).toEqual([0, 250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
    expect(statuses.at(-1)).toBe("reconnecting");
  });

  test("the delays are shortened at random", () => {
    const { browser } = openLasting();
    browser.random = 0.5;
    browser.socket.end(1006);
    delayOfNextAttempt(browser);
    browser.socket.end(1006);
    expect(delayOfNextAttempt(browser)).toBe(125);
  });

  test("until the first connection the status stays connecting", () => {
    const { browser, statuses } = open();
    browser.socket.end(1006);
    expect(delayOfNextAttempt(browser)).toBe(250);
    browser.welcome();
    expect(statuses).toEqual(["connecting", "connected"]);
  });

  test("a server that fails right after init is not hammered", () => {
    const { browser } = open();
    const delays = Array.from({ length: 4 }, () => {
      browser.welcome();
      browser.socket.end(1011);
      return delayOfNextAttempt(browser);
    });
    expect(delays).toEqual([250, 500, 1000, 2000]);
  });

  test("a connection that has lasted starts the delays over", () => {
    const { browser } = open();
    browser.socket.end(1006);
    delayOfNextAttempt(browser);
    browser.welcome();
    vi.advanceTimersByTime(5_000);
    browser.socket.end(1006);
    expect(delayOfNextAttempt(browser)).toBe(0);
  });

  test("the page waking up cuts the delay short", () => {
    const { browser } = open();
    browser.socket.end(1006);
    browser.page("wake");
    expect(browser.sockets).toHaveLength(2);
    vi.advanceTimersByTime(9_000);
    expect(browser.sockets).toHaveLength(2);
  });

  test("the page waking up leaves a living connection alone", () => {
    const { browser } = openLasting();
    browser.page("wake");
    expect(browser.sockets).toHaveLength(1);
  });

  test("what an old socket still says is ignored", () => {
    const { browser, owner, statuses } = openLasting();
    const old = browser.socket;
    vi.advanceTimersByTime(3600 * 2500);
    browser.page("wake");
    browser.welcome();
    const calls = vi.mocked(owner.received).mock.calls.length;
    old.say({ type: "update", changes: {} });
    old.end(1000);
    expect(owner.received).toHaveBeenCalledTimes(calls);
    expect(statuses.at(-1)).toBe("connected");
  });
});

describe("close codes", () => {
  test.each([
    [1001, 0],
    [1002, 0],
    [1003, 0],
    [1006, 0],
    [1007, 0],
    [1008, 250],
    [1009, 0],
    [1011, 0],
    [1012, 250],
    [1013, 250],
    [4408, 0],
  ])("%i comes back after at most %i ms", (code, delayMs) => {
    const { browser } = openLasting();
    browser.socket.end(code);
    expect(delayOfNextAttempt(browser)).toBe(delayMs);
  });

  test.each([1000, 4001, 4401])("%i stays closed", (code) => {
    const { browser, connection } = openLasting();
    browser.socket.end(code);
    browser.page("wake");
    vi.runAllTimers();
    expect(browser.sockets).toHaveLength(1);
    expect(connection.status).toBe("disconnected");
    expect(browser.pageHandlers).toBe(0);
  });

  test.each([...CLOSE_PLANS])("the owner hears that %i means %s", (code, plan) => {
    const { browser, owner } = openLasting();
    browser.socket.end(code, "why");
    expect(owner.ended).toHaveBeenCalledWith(plan, code, "why");
  });
});

describe("heartbeat", () => {
  test("a beat is answered with a beat", () => {
    const { browser } = open();
    const socket = browser.welcome();
    socket.say({ type: "beat" });
    expect(socket.sent).toEqual([{ type: "hello", patches: true }, { type: "beat" }]);
  });

  test("a server that talks all the time hears of the page twice an interval", () => {
    const { browser } = open();
    const socket = browser.welcome({ heartbeat: 20 });
    for (let second = 1; second <= 25; second++) {
      vi.advanceTimersByTime(1_000);
      socket.say({ type: "update", changes: {} });
    }
    expect(socket.sent).toEqual([
      { type: "hello", patches: true },
      { type: "beat" },
      { type: "beat" },
    ]);
  });

  test("2.5 intervals of silence mean that the connection is lost", () => {
    const { browser, connection } = open();
    const socket = browser.welcome({ heartbeat: 20 });
    vi.advanceTimersByTime(49_999);
    expect(connection.status).toBe("connected");
    vi.advanceTimersByTime(1);
    expect(socket.closedWith).toBe(4408);
    expect(connection.status).toBe("reconnecting");
    vi.advanceTimersByTime(1);
    expect(browser.sockets).toHaveLength(2);
  });

  test("any message counts as a sign of life", () => {
    const { browser, connection } = open();
    const socket = browser.welcome({ heartbeat: 20 });
    for (const text of ['{"type":"beat"}', '{"type":"update","changes":{}}', "nonsense"]) {
      vi.advanceTimersByTime(49_999);
      socket.say(text);
    }
    vi.advanceTimersByTime(49_999);
    expect(connection.status).toBe("connected");
  });

  test("a server that promises no heartbeat may be silent", () => {
    const { browser, connection } = open();
    browser.welcome({ heartbeat: undefined });
    vi.advanceTimersByTime(24 * 3_600_000);
    expect(connection.status).toBe("connected");
  });
});

describe("leaving", () => {
  test("closing says bye and leaves nothing behind", () => {
    const { browser, connection } = open();
    const socket = browser.welcome();
    connection.close();
    connection.close();
    expect(socket.sent.at(-1)).toEqual({ type: "bye" });
    expect(socket.closedWith).toBe(1000);
    expect(connection.status).toBe("disconnected");
    expect(vi.getTimerCount()).toBe(0);
    expect(browser.pageHandlers).toBe(0);
  });

  test("closing while waiting to come back gives up", () => {
    const { browser, connection } = open();
    browser.socket.end(1006);
    connection.close();
    vi.runAllTimers();
    expect(browser.sockets).toHaveLength(1);
  });

  test("closing before the socket is open says nothing into it", () => {
    const { browser, connection } = open();
    connection.close();
    expect(browser.socket.sent).toEqual([]);
    expect(browser.socket.closedWith).toBe(1000);
  });

  test("it can be opened again", () => {
    const { browser, connection } = open();
    connection.close();
    connection.open();
    browser.welcome();
    expect(connection.status).toBe("connected");
  });

  test("a page that goes says bye, and is back when the browser restores it", () => {
    const { browser, connection, owner } = open();
    const socket = browser.welcome();
    browser.page("hide");
    expect(owner.hiding).toHaveBeenCalledTimes(1);
    expect(socket.sent.at(-1)).toEqual({ type: "bye" });
    expect(connection.status).toBe("reconnecting");
    vi.runAllTimers();
    expect(browser.sockets).toHaveLength(1);
    browser.page("wake");
    browser.welcome();
    expect(connection.status).toBe("connected");
  });
});
