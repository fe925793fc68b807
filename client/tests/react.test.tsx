import { act, fireEvent, render, screen } from "@testing-library/react";
import { type ReactNode, StrictMode } from "react";
import { renderToString } from "react-dom/server";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { CacaoClient } from "../src/client";
import {
  CacaoProvider,
  useConnectionStatus,
  useEvent,
  useIsConnected,
  useResource,
  useSessionId,
  useSessionOutcome,
  useSignal,
  useSignalCheckbox,
  useSignalForm,
  useSignalInput,
  useSignalSelect,
  useSignalSwitch,
} from "../src/react";
import { FakeBrowser } from "./browser";

let browser: FakeBrowser;
let client: CacaoClient;
let rev: number;

beforeEach(() => {
  browser = new FakeBrowser();
  client = new CacaoClient({
    url: "ws://server/ws",
    onError: () => {},
    environment: browser.environment,
  });
  rev = 1;
});

/** Renders inside a provider and connects it, with the state that the server has. */
function show(ui: ReactNode, state: object = {}) {
  const view = render(<CacaoProvider client={client}>{ui}</CacaoProvider>);
  act(() => void browser.welcome({ state }));
  return view;
}

/** Lets the server send changes. */
function change(changes: object): void {
  rev += 1;
  act(() => browser.socket.say({ type: "update", changes, rev }));
}

/** Lets the server say how an event ended; its promise's readers have run when this returns. */
async function answer(id: number, failure?: object): Promise<void> {
  await act(async () => {
    browser.socket.say({ type: "result", id, ok: failure === undefined, ...failure });
  });
}

const lastSent = () => browser.socket.sent.at(-1);

describe("useSignal", () => {
  test("with 1,000 components on a signal each, one change renders one", () => {
    const renders = new Map<string, number>();
    function Cell({ name }: { name: string }) {
      renders.set(name, (renders.get(name) ?? 0) + 1);
      return <i>{useSignal(name, 0)}</i>;
    }
    const names = Array.from({ length: 1000 }, (_, i) => `cell${i}`);
    show(
      names.map((name) => <Cell key={name} name={name} />),
      Object.fromEntries(names.map((name) => [name, 0])),
    );
    renders.clear();
    change({ cell500: 7 });
    expect([...renders]).toEqual([["cell500", 1]]);
    expect(screen.getByText("7")).toBeDefined();
  });

  test("the fallback stands in until there is a value, and null is one", () => {
    function Name() {
      return <p role="note">{String(useSignal<string | null>("name", "nobody"))}</p>;
    }
    show(<Name />);
    const note = screen.getByRole("note");
    expect(note.textContent).toBe("nobody");
    change({ name: "Ada" });
    expect(note.textContent).toBe("Ada");
    change({ name: null });
    expect(note.textContent).toBe("null");
  });

  test("a component may turn to another signal", () => {
    function Value({ name }: { name: string }) {
      return <p role="note">{useSignal(name, 0)}</p>;
    }
    const { rerender } = show(<Value name="a" />, { a: 1, b: 2 });
    rerender(
      <CacaoProvider client={client}>
        <Value name="b" />
      </CacaoProvider>,
    );
    change({ b: 3 });
    expect(screen.getByRole("note").textContent).toBe("3");
  });

  test("several changes at once are shown at once", () => {
    const seen: string[] = [];
    function Sum() {
      seen.push(`${useSignal("a", 0)}+${useSignal("b", 0)}`);
      return null;
    }
    show(<Sum />, { a: 1, b: 1 });
    change({ a: 2, b: 2 });
    expect(seen).not.toContain("2+1");
    expect(seen.at(-1)).toBe("2+2");
  });

  test("the server's state stays on the page while the connection is sought again", () => {
    function Count() {
      return (
        <p role="note">
          {useSignal("count", 0)} {useConnectionStatus()}
        </p>
      );
    }
    show(<Count />, { count: 7 });
    act(() => browser.socket.end(1006));
    expect(screen.getByRole("note").textContent).toBe("7 reconnecting");
  });

  test("a page rendered on a server shows the fallbacks", () => {
    function Count() {
      return <p>{useSignal("count", 7)}</p>;
    }
    const html = renderToString(
      <CacaoProvider>
        <Count />
      </CacaoProvider>,
    );
    expect(html).toBe("<p>7</p>");
  });
});

describe("useResource", () => {
  function Results() {
    const { value, isLoading, error } = useResource<string[]>("results");
    return (
      <p role="note">
        {value?.join() ?? "nothing"} {isLoading ? "loading" : "ready"} {error?.errorId}
      </p>
    );
  }
  const shown = () => screen.getByRole("note").textContent?.trim();

  test("it is loading until the server has spoken, and keeps its value while it loads", () => {
    show(<Results />);
    expect(shown()).toBe("nothing loading");
    change({ results: { value: ["a", "b"], isLoading: false, error: null } });
    expect(shown()).toBe("a,b ready");
    change({ results: { value: ["a", "b"], isLoading: true, error: null } });
    expect(shown()).toBe("a,b loading");
  });

  test("an error stands beside the last value", () => {
    show(<Results />, { results: { value: ["a"], isLoading: false, error: null } });
    const error = { message: "resource 'results' failed", errorId: "8a0c" };
    change({ results: { value: ["a"], isLoading: false, error } });
    expect(shown()).toBe("a ready 8a0c");
  });
});

describe("CacaoProvider", () => {
  test("under StrictMode one socket is opened, and none is left", () => {
    const { unmount } = render(
      <StrictMode>
        <CacaoProvider client={client}>ready</CacaoProvider>
      </StrictMode>,
    );
    act(() => void vi.advanceTimersByTime(0));
    act(() => void browser.welcome());
    expect(browser.sockets).toHaveLength(1);
    expect(browser.socket.closedWith).toBeNull();
    unmount();
    vi.advanceTimersByTime(0);
    expect(browser.socket.closedWith).toBe(1000);
    expect(vi.getTimerCount()).toBe(0);
    expect(browser.pageHandlers).toBe(0);
  });

  test("another url is another server", () => {
    const urls: string[] = [];
    vi.stubGlobal(
      "WebSocket",
      class {
        constructor(url: string) {
          urls.push(url);
        }
        close() {}
      },
    );
    const { rerender, unmount } = render(<CacaoProvider url="ws://a/ws" />);
    rerender(<CacaoProvider url="ws://a/ws" />);
    rerender(<CacaoProvider url="ws://b/ws" />);
    unmount();
    vi.advanceTimersByTime(0);
    vi.unstubAllGlobals();
    expect(urls).toEqual(["ws://a/ws", "ws://b/ws"]);
  });

  test("a hook outside of one says what to do", () => {
    vi.mocked(console.error).mockImplementation(() => {});
    function Lost() {
      return useSessionId();
    }
    expect(() => render(<Lost />)).toThrow("not inside a <CacaoProvider>");
    vi.mocked(console.error).mockClear(); // React reports the error as well
  });
});

test("the status, the session and being connected are told", () => {
  function Facts() {
    return (
      <p role="note">
        {useConnectionStatus()} {String(useSessionId())} {String(useIsConnected())}{" "}
        {String(useSessionOutcome())}
      </p>
    );
  }
  render(
    <CacaoProvider client={client}>
      <Facts />
    </CacaoProvider>,
  );
  const note = screen.getByRole("note");
  expect(note.textContent).toBe("connecting null false null");
  act(() => void browser.welcome({ sessionId: "abc" }));
  expect(note.textContent).toBe("connected abc true null");
  act(() => browser.reconnect({ outcome: "rebuilt", sessionId: "abc" }));
  expect(note.textContent).toBe("connected abc true rebuilt");
  act(() => browser.socket.end(4001));
  expect(note.textContent).toBe("disconnected abc false rebuilt");
});

describe("useEvent", () => {
  test("gives the same function at every render", () => {
    const given = new Set<unknown>();
    function Button() {
      given.add(useEvent("increment"));
      return <>{useSignal("count", 0)}</>;
    }
    show(<Button />);
    change({ count: 1 });
    expect(given.size).toBe(1);
  });

  test("sends data, but takes no click for data", () => {
    function Buttons() {
      const increment = useEvent("increment");
      return (
        <>
          <button type="button" onClick={increment}>
            one
          </button>
          <button type="button" onClick={() => increment({ by: 5 })}>
            five
          </button>
        </>
      );
    }
    show(<Buttons />);
    fireEvent.click(screen.getByText("one"));
    expect(lastSent()).toEqual({ type: "event", id: 1, name: "increment", data: {} });
    fireEvent.click(screen.getByText("five"));
    expect(lastSent()).toEqual({ type: "event", id: 2, name: "increment", data: { by: 5 } });
  });

  test("settles with the result", async () => {
    const outcomes: unknown[] = [];
    function Button() {
      const save = useEvent("save");
      const press = () =>
        save().then(
          (result) => outcomes.push(result.ok),
          (error) => outcomes.push(error.code),
        );
      return (
        <button type="button" onClick={press}>
          save
        </button>
      );
    }
    show(<Button />);
    fireEvent.click(screen.getByText("save"));
    fireEvent.click(screen.getByText("save"));
    await answer(1);
    await answer(2, { code: "handler_error" });
    expect(outcomes).toEqual([true, "handler_error"]);
  });
});

describe("useSignalInput", () => {
  function Name() {
    return <input aria-label="name" {...useSignalInput("name")} />;
  }
  const input = () => screen.getByRole<HTMLInputElement>("textbox");
  const type = (value: string) => fireEvent.change(input(), { target: { value } });

  test("shows the signal and sends what is typed", () => {
    show(<Name />, { name: "Ada" });
    expect(input().value).toBe("Ada");
    type("Ada L");
    expect(lastSent()).toEqual({
      type: "event",
      id: 1,
      name: "name:input",
      data: { value: "Ada L" },
    });
    expect(input().value).toBe("Ada L");
  });

  test("an echo of an earlier keystroke does not overwrite newer typing", async () => {
    show(<Name />, { name: "" });
    type("a");
    type("ab");
    change({ name: "a" });
    await answer(1);
    expect(input().value).toBe("ab");
    change({ name: "ab" });
    await answer(2);
    expect(input().value).toBe("ab");
  });

  test("the caret stays where it is while the server answers", async () => {
    show(<Name />, { name: "Ada" });
    input().focus();
    type("AdXa");
    input().setSelectionRange(3, 3);
    change({ name: "AdXa" });
    await answer(1);
    expect(input().selectionStart).toBe(3);
  });

  test("once the last keystroke is answered the server's value counts again", async () => {
    show(<Name />, { name: "" });
    type("ada");
    change({ name: "ADA" });
    expect(input().value).toBe("ada");
    await answer(1);
    expect(input().value).toBe("ADA");
    change({ name: "Grace" });
    expect(input().value).toBe("Grace");
  });

  test("a value that the server did not take is taken back", async () => {
    show(<Name />, { name: "Ada" });
    type("A");
    await answer(1);
    expect(input().value).toBe("Ada");
  });

  test("what the server refuses stays, marked, until the signal changes", async () => {
    show(<Name />, { name: "Ada" });
    type("!!");
    await answer(1, { code: "invalid_data" });
    expect(input().value).toBe("!!");
    expect(input().getAttribute("aria-invalid")).toBe("true");
    change({ name: "Grace" });
    expect(input().value).toBe("Grace");
    expect(input().getAttribute("aria-invalid")).toBe("false");
    change({ name: "Ada" });
    expect(input().value).toBe("Ada");
  });

  test("typing goes on without a connection, and is sent when it is back", () => {
    show(<Name />, { name: "" });
    act(() => browser.socket.end(1006));
    type("a");
    expect(input().value).toBe("a");
    browser.page("wake");
    act(() => void browser.welcome({ outcome: "resumed", rev: 2 }));
    expect(lastSent()).toMatchObject({ name: "name:input", data: { value: "a" } });
  });

  test("the event may have another name", () => {
    function Renamed() {
      return <input {...useSignalInput("name", "", { event: "rename" })} />;
    }
    show(<Renamed />);
    type("x");
    expect(lastSent()).toMatchObject({ name: "rename" });
  });

  test.each([
    ["5", 5],
    ["", null],
    ["1.5", 1.5],
  ])("a number input sends %o as %o", (text, sent) => {
    function Age() {
      return <input type="number" {...useSignalInput("age")} />;
    }
    show(<Age />, { age: 3 });
    fireEvent.change(screen.getByRole("spinbutton"), { target: { value: text } });
    expect(lastSent()).toMatchObject({ data: { value: sent } });
  });

  test("with a number as fallback a text input sends numbers, and what is none as it is", () => {
    function Age() {
      return <input {...useSignalInput("age", 0)} />;
    }
    show(<Age />);
    expect(input().value).toBe("0");
    type("42");
    expect(lastSent()).toMatchObject({ data: { value: 42 } });
    type("forty");
    expect(lastSent()).toMatchObject({ data: { value: "forty" } });
  });

  test("a number stays as it was typed while it says what the signal says", async () => {
    function Price() {
      return <input {...useSignalInput("price", 0)} />;
    }
    show(<Price />, { price: 0 });
    type("1.");
    change({ price: 1 });
    await answer(1);
    expect(input().value).toBe("1.");
    change({ price: 2 });
    expect(input().value).toBe("2");
  });

  test("null is an empty field", () => {
    function Age() {
      return <input {...useSignalInput("age", 7)} />;
    }
    show(<Age />, { age: null });
    expect(input().value).toBe("");
  });
});

describe("useSignalSelect", () => {
  test("shows the signal and sends the choice", async () => {
    function Size() {
      return (
        <select {...useSignalSelect("size", 10)}>
          <option>10</option>
          <option>20</option>
        </select>
      );
    }
    show(<Size />, { size: 10 });
    const select = screen.getByRole<HTMLSelectElement>("combobox");
    fireEvent.change(select, { target: { value: "20" } });
    expect(select.value).toBe("20");
    expect(lastSent()).toMatchObject({ name: "size:input", data: { value: 20 } });
    await answer(1);
    expect(select.value).toBe("10");
  });
});

describe.each([
  ["useSignalCheckbox", useSignalCheckbox, "checkbox"],
  ["useSignalSwitch", useSignalSwitch, "switch"],
])("%s", (_, useField, role) => {
  test("shows the signal, and the user's choice until the server has answered", async () => {
    function Box() {
      return <input type="checkbox" {...useField("done")} />;
    }
    show(<Box />, { done: false });
    const box = screen.getByRole<HTMLInputElement>(role);
    fireEvent.click(box);
    expect(lastSent()).toMatchObject({ name: "done:input", data: { value: true } });
    expect(box.checked).toBe(true);
    await answer(1);
    expect(box.checked).toBe(false);
    change({ done: true });
    expect(box.checked).toBe(true);
  });
});

describe("useSignalForm", () => {
  const submissions: Promise<unknown>[] = [];
  function Form() {
    const form = useSignalForm({ name: "", age: 0, agreed: false }, "signup");
    return (
      <form onSubmit={form.handleSubmit}>
        <input aria-label="name" {...form.fields.name} />
        <input aria-label="age" type="number" {...form.fields.age} />
        <input type="checkbox" {...form.fields.agreed} />
        <button type="submit" disabled={form.isSubmitting}>
          send
        </button>
        <button type="button" onClick={() => submissions.push(form.submit(), form.submit("other"))}>
          twice
        </button>
        <button type="button" onClick={() => form.setValue("name", "Grace")}>
          grace
        </button>
        <p role="note">{JSON.stringify([form.errors, form.error?.code ?? null])}</p>
      </form>
    );
  }
  const field = (label: string) => screen.getByLabelText<HTMLInputElement>(label);
  const send = () => screen.getByText<HTMLButtonElement>("send");
  const fill = (label: string, value: string) =>
    fireEvent.change(field(label), { target: { value } });
  const refused = {
    code: "invalid_data",
    details: [
      { path: ["age"], message: "too young" },
      { path: ["age"], message: "odd" },
    ],
  };

  test("sends all values in one event", () => {
    show(<Form />);
    fill("name", "Ada");
    fill("age", "36");
    fireEvent.click(screen.getByRole("checkbox"));
    fireEvent.click(send());
    expect(browser.socket.events).toEqual([[1, "signup"]]);
    expect(lastSent()).toMatchObject({ data: { name: "Ada", age: 36, agreed: true } });
  });

  test("a field shows the signal of its name until it is changed", () => {
    show(<Form />, { name: "Ada", age: 36 });
    expect(field("name").value).toBe("Ada");
    fill("name", "Grace");
    change({ name: "Edith", age: 37 });
    expect([field("name").value, field("age").value]).toEqual(["Grace", "37"]);
  });

  test("is submitting until the result has come, then empty again", async () => {
    show(<Form />);
    fill("name", "Ada");
    fireEvent.click(send());
    expect(send().disabled).toBe(true);
    await answer(1);
    expect(send().disabled).toBe(false);
    expect(field("name").value).toBe("");
  });

  test("what is typed while it is submitting is kept", async () => {
    show(<Form />);
    fill("name", "Ada");
    fireEvent.click(send());
    fill("name", "Ada L");
    await answer(1);
    expect(field("name").value).toBe("Ada L");
  });

  test("says what is wrong with which field until that is changed", async () => {
    show(<Form />);
    fill("age", "3");
    fireEvent.click(send());
    await answer(1, refused);
    const note = screen.getByRole("note");
    expect(note.textContent).toBe('[{"age":"too young"},"invalid_data"]');
    expect(field("age").getAttribute("aria-invalid")).toBe("true");
    expect(field("name").getAttribute("aria-invalid")).toBe("false");
    expect(field("age").value).toBe("3");
    fill("age", "33");
    expect(note.textContent).toBe('[{},"invalid_data"]');
  });

  test("a failure that is about no field is told too", async () => {
    show(<Form />);
    fireEvent.click(send());
    await answer(1, { code: "handler_error" });
    expect(screen.getByRole("note").textContent).toBe('[{},"handler_error"]');
    expect(send().disabled).toBe(false);
  });

  test("submitting while a submission is under way is the same submission", () => {
    show(<Form />);
    fireEvent.click(screen.getByText("twice"));
    expect(browser.socket.events).toEqual([[1, "signup"]]);
    expect(submissions[0]).toBe(submissions[1]);
  });

  test("values can be set from outside the fields", () => {
    show(<Form />);
    fireEvent.click(screen.getByText("grace"));
    expect(field("name").value).toBe("Grace");
  });
});
