import { describe, expect, test } from "vitest";
import { applyPatches } from "../src/patches";
import type { Patch } from "../src/protocol";
import { Store } from "../src/store";

const apply = (value: unknown, ...patches: Patch[]) =>
  applyPatches({ it: patches }, () => value)?.it;

describe("a patch makes the new value", () => {
  test.each<[unknown, Patch, unknown]>([
    ["many words", ["append", "; more"], "many words; more"],
    ["", ["append", "a"], "a"],
    ["half a pair: \ud83d", ["append", "\ude00"], "half a pair: 😀"],
    [
      [1, 2],
      ["splice", 2, 0, [3, 4]],
      [1, 2, 3, 4],
    ],
    [[], ["splice", 0, 0, [[1], { a: 1 }]], [[1], { a: 1 }]],
    [
      [1, 2, 3, 4],
      ["splice", 1, 2, ["x"]],
      [1, "x", 4],
    ],
    [[1, 2, 3], ["splice", 0, 3, []], []],
  ])("%j and %j", (value, patch, expected) => {
    expect(apply(value, patch)).toEqual(expected);
  });

  test("several are applied in order", () => {
    expect(apply([1], ["splice", 1, 0, [2]], ["splice", 2, 0, [3]])).toEqual([1, 2, 3]);
  });
});

test("the old value stays as it was", () => {
  const before = Object.freeze([1, 2]);
  expect(apply(before, ["splice", 2, 0, [3]])).not.toBe(before);
  expect(before).toEqual([1, 2]);
});

describe("a patch that does not fit gives nothing", () => {
  test.each<[unknown, unknown]>([
    [undefined, ["append", "a"]],
    [null, ["append", "a"]],
    [[1], ["append", "a"]],
    ["text", ["splice", 0, 0, []]],
    [undefined, ["splice", 0, 0, []]],
    [[1], ["splice", 2, 0, [3]]],
    [[1], ["splice", 0, 2, [3]]],
    [[1], ["splice", 0, 1]],
    [[1], ["reverse"]],
    [[1], []],
  ])("%j and %j", (value, patch) => {
    expect(applyPatches({ it: [patch as Patch] }, () => value)).toBeNull();
  });

  test.each(["__proto__", "constructor", "prototype"])("and has the name %s", (name) => {
    const store = new Store();
    const patches = JSON.parse(`{${JSON.stringify(name)}: [["append", "b"]]}`);
    expect(applyPatches(patches, (each) => store.get(each))).toBeNull();
    expect(Object.getPrototypeOf({})).toBe(Object.prototype);
  });

  test("and takes the others of its update with it", () => {
    const patches = { good: [["append", "b"] as const], bad: [["append", "b"] as const] };
    expect(applyPatches(patches, (name) => (name === "good" ? "a" : 1))).toBeNull();
  });
});
