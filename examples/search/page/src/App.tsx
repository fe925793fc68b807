import { useConnectionStatus, useEvent, useSignal } from "@cacao/client";
import { useRef, useState } from "react";
import { Fates } from "./Fates";
import { useSearches } from "./useSearches";

interface Bar {
  readonly name: string;
  readonly cocoa: number;
  readonly rating: number;
}

export function App() {
  const { searches, search } = useSearches();
  const stop = useEvent("stop");
  const isSearching = searches.some(({ fate }) => fate === "running");

  return (
    <main className="card">
      <header>
        <h1>Chocolate search</h1>
        <Connection />
      </header>
      <SearchField isSearching={isSearching} search={search} stop={stop} />
      <Fates searches={searches} />
      <Results isStale={isSearching} />
    </main>
  );
}

interface SearchFieldProps {
  isSearching: boolean;
  search: (text: string) => void;
  stop: () => void;
}

function SearchField({ isSearching, search, stop }: SearchFieldProps) {
  const field = useRef<HTMLInputElement>(null);
  const [text, setText] = useState("");
  const change = (value: string) => {
    setText(value);
    search(value);
  };
  const stopAndTypeOn = () => {
    stop();
    field.current?.focus(); // the button is about to be disabled, and would lose the focus
  };

  return (
    <search className="search">
      <label htmlFor="text">Find a bar</label>
      <div className="row">
        <div className="field">
          <input
            ref={field}
            id="text"
            type="search"
            autoComplete="off"
            spellCheck={false}
            maxLength={60}
            placeholder="dark ghana"
            value={text}
            onChange={({ target }) => change(target.value)}
          />
          {isSearching && <span className="spinner" aria-hidden="true" />}
        </div>
        <button type="button" disabled={!isSearching} onClick={stopAndTypeOn}>
          Stop
        </button>
      </div>
    </search>
  );
}

function Results({ isStale }: { isStale: boolean }) {
  const bars = useSignal<readonly Bar[]>("bars", []);
  const answered = useSignal("answered", "");

  return (
    <section aria-label="Results" aria-busy={isStale} className="results">
      <div className="summary">
        <p id="summary" aria-live="polite">
          {summary(answered, bars.length)}
        </p>
        <Running />
      </div>
      <ol>
        {bars.map(({ name, cocoa, rating }) => (
          <li key={name}>
            <span className="name">{name}</span>
            <span className="cocoa">{cocoa} %</span>
            <span className="rating">
              <span aria-hidden="true">★ </span>
              <span className="unseen">rated </span>
              {rating.toFixed(1)}
            </span>
          </li>
        ))}
      </ol>
    </section>
  );
}

function summary(answered: string, found: number): string {
  if (answered === "") return "A query takes two seconds; type on, and it is cancelled.";
  return found === 0 ? `No bar for “${answered}”` : `The best for “${answered}”`;
}

function Running() {
  const running = useSignal("running", 0);
  return (
    <p title="of all users">
      Queries running <strong id="running">{running}</strong>
    </p>
  );
}

function Connection() {
  const status = useConnectionStatus();
  return (
    <p role="status" className={status}>
      {status}
    </p>
  );
}
