import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

/** Who may import whom. Arrows point down only; if you find a better cut, redraw this first. */
const LAYERS: Record<string, string[]> = {
  "protocol.ts": [],
  "backoff.ts": [],
  "environment.ts": [],
  "store.ts": ["./protocol"],
  "patches.ts": ["./protocol"],
  "connection.ts": ["./protocol", "./backoff", "./environment"],
  "client.ts": ["./protocol", "./store", "./patches", "./connection", "./environment"],
  "core.ts": ["./client", "./connection", "./environment", "./protocol"],
  "react.tsx": ["./client", "./connection", "./protocol", "react"],
  "index.ts": ["./core", "./react"],
};

const SRC = join(import.meta.dirname, "../src");

function importsOf(file: string): string[] {
  const source = readFileSync(join(SRC, file), "utf8");
  return [...source.matchAll(/\b(?:from|import)\s*\(?\s*"([^"]+)"/g)].map(([, name = ""]) => name);
}

test("the table names every file", () => {
  expect(readdirSync(SRC).sort()).toEqual(Object.keys(LAYERS).sort());
});

test.each(Object.entries(LAYERS))("%s imports only what is below it", (file, allowed) => {
  expect(allowed).toEqual(expect.arrayContaining(importsOf(file)));
});

test("only react.tsx imports React", () => {
  const importers = readdirSync(SRC).filter((file) => importsOf(file).includes("react"));
  expect(importers).toEqual(["react.tsx"]);
});
