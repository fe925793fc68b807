/** Changes to a part of a value, applied to a copy: who holds the old value keeps it as it is. */

import type { Patch, State } from "./protocol";

/**
 * Applies the patches of one update.
 *
 * @param current - The value that this client has of a signal.
 * @returns The new values by name, or `null` if a patch does not fit: then the client does not have
 *   what the server thinks it has.
 */
export function applyPatches(
  patches: { readonly [name: string]: readonly Patch[] },
  current: (name: string) => unknown,
): State | null {
  const changes: Record<string, unknown> = {};
  for (const [name, steps] of Object.entries(patches)) {
    const value = steps.reduce(applyPatch, current(name));
    if (value === undefined) return null;
    changes[name] = value;
  }
  return changes;
}

/** `undefined`, which no signal can be, if the patch does not fit. */
function applyPatch(value: unknown, [operation, ...rest]: Patch): unknown {
  if (operation === "append" && typeof value === "string") return value + rest[0];
  if (operation !== "splice" || !Array.isArray(value)) return undefined;
  const [at, deleted, added] = rest as [number, number, unknown[]];
  if (!Array.isArray(added) || at + deleted > value.length) return undefined;
  return [...value.slice(0, at), ...added, ...value.slice(at + deleted)];
}
