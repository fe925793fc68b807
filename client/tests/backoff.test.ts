import { expect, test } from "vitest";
import { backoffMs } from "../src/backoff";

test("the first attempt is made at once", () => {
  expect(backoffMs(0, 0.99)).toBe(0);
});

test("the ceiling doubles from 250 ms to 10 s", () => {
  const ceilings = [1, 2, 3, 4, 5, 6, 7, 8, 2000].map((failures) => backoffMs(failures, 1));
  expect(ceilings).toEqual([250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000]);
});

test("any delay below the ceiling is equally likely", () => {
  expect([0, 0.25, 0.5].map((random) => backoffMs(3, random))).toEqual([0, 250, 500]);
});
