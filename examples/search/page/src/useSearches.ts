import { type EventError, useEvent } from "@cacao/client";
import { useCallback, useRef, useState } from "react";

export interface Search {
  readonly id: number;
  readonly text: string;
  /** "running", "done", or the code with which the server ended it: "superseded", "cancelled" ... */
  readonly fate: string;
}

const SHOWN = 12;

/** The latest searches, the newest first, and a function that begins one more. */
export function useSearches() {
  const send = useEvent<{ text: string }>("search");
  const lastId = useRef(0);
  const [searches, setSearches] = useState<readonly Search[]>([]);

  const search = useCallback(
    (text: string) => {
      lastId.current += 1;
      const id = lastId.current;
      const settle = (fate: string) =>
        setSearches((now) => now.map((each) => (each.id === id ? { ...each, fate } : each)));
      setSearches((now) => [{ id, text, fate: "running" }, ...now].slice(0, SHOWN));
      send({ text }).then(
        () => settle("done"),
        (error: EventError) => settle(error.code),
      );
    },
    [send],
  );

  return { searches, search };
}
