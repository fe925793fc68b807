/**
 * The values of the server's signals, by name, each with its own listeners.
 *
 * A change wakes the listeners of its own signal and nobody else, so a page of a thousand signals
 * renders one component for one change.
 */

import type { State } from "./protocol";

export type Listener = () => void;
export type Unsubscribe = () => void;

/** Names that reach an object's prototype; the server refuses them too. */
const REFUSED_NAMES: ReadonlySet<string> = new Set(["__proto__", "constructor", "prototype"]);

export class Store {
  readonly #values = new Map<string, unknown>();
  readonly #listeners = new Map<string, Set<Listener>>();

  /** The value of a signal, or `undefined` if the server has sent none; `null` is a value. */
  get(name: string): unknown {
    return this.#values.get(name);
  }

  /** Calls `listener` after each change of the signal `name`, until the returned function is called. */
  subscribe(name: string, listener: Listener): Unsubscribe {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0 && this.#listeners.get(name) === listeners) {
        this.#listeners.delete(name);
      }
    };
  }

  /** Sets the signals in `changes` and leaves all others as they are. */
  merge(changes: State): void {
    // Own enumerable keys only, and every value is in place before the first listener looks.
    const changed = Object.entries(changes).filter(([name, value]) => this.#set(name, value));
    for (const [name] of changed) this.#notify(name);
  }

  /** Takes `state` as the whole state: signals that are not in it are gone. */
  replace(state: State): void {
    const gone = [...this.#values.keys()].filter((name) => !Object.hasOwn(state, name));
    for (const name of gone) this.#values.delete(name);
    this.merge(state);
    for (const name of gone) this.#notify(name);
  }

  #set(name: string, value: unknown): boolean {
    if (REFUSED_NAMES.has(name) || Object.is(this.#values.get(name), value)) return false;
    this.#values.set(name, value);
    return true;
  }

  #notify(name: string): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) listener();
  }
}
