import type { Search } from "./useSearches";

const WORDS: Readonly<Record<string, string>> = { cancelled: "stopped", handler_error: "failed" };

/** Each search as a chip: what was typed, and what became of it; the newest first. */
export function Fates({ searches }: { searches: readonly Search[] }) {
  return (
    <ol className="fates" aria-label="Latest searches">
      {searches.map(({ id, text, fate }) => (
        <li key={id} className={fate}>
          <span className="typed">{text === "" ? "(empty)" : text}</span>
          <span className="fate">{WORDS[fate] ?? fate}</span>
        </li>
      ))}
    </ol>
  );
}
