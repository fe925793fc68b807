import {
  useCacao,
  useConnectionStatus,
  useEvent,
  useSessionOutcome,
  useSignal,
  useSignalInput,
} from "@cacao/client";

export function App() {
  return (
    <main className="card">
      <header>
        <h1>Counter</h1>
        <Connection />
      </header>
      <Counter />
      <Greeting />
    </main>
  );
}

function Counter() {
  const count = useSignal("count", 0);
  const doubled = useSignal("doubled", 0);
  const decrement = useEvent("decrement");
  const increment = useEvent("increment");
  const reset = useEvent("reset");

  return (
    <section aria-label="Count">
      <p id="count" className="count" aria-live="polite">
        {count}
      </p>
      <p className="doubled">
        doubled <strong id="doubled">{doubled}</strong>
      </p>
      <div className="buttons">
        <button type="button" title="One less" onClick={decrement}>
          −
        </button>
        <button type="button" title="Back to zero" className="quiet" onClick={reset}>
          Reset
        </button>
        <button type="button" title="One more" onClick={increment}>
          +
        </button>
      </div>
    </section>
  );
}

function Greeting() {
  const name = useSignalInput("name");
  const greeting = useSignal("greeting", "");

  return (
    <section aria-label="Greeting" className="greeting">
      <label htmlFor="name">Your name</label>
      <input id="name" autoComplete="off" maxLength={60} placeholder="Ada" {...name} />
      <p id="greeting" aria-live="polite">
        {greeting}
      </p>
    </section>
  );
}

function Connection() {
  const status = useConnectionStatus();
  const outcome = useSessionOutcome();
  const client = useCacao();

  return (
    <div className="connection">
      <p role="status" className={status}>
        {status}
      </p>
      {status === "connected" && outcome === "fresh" && (
        <p className="note">Your session had ended; this is a new one.</p>
      )}
      {status === "disconnected" && (
        <button type="button" className="quiet small" onClick={() => client.connect()}>
          {client.closing?.code === 4001 ? "Use this tab" : "Connect"}
        </button>
      )}
    </div>
  );
}
