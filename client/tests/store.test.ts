import { expect, test, vi } from "vitest";
import { Store } from "../src/store";

test("a change wakes the listeners of its own signal and nobody else", () => {
  const store = new Store();
  const [onA, onB] = [vi.fn(), vi.fn()];
  store.subscribe("a", onA);
  store.subscribe("b", onB);
  store.merge({ a: 1 });
  expect(onA).toHaveBeenCalledTimes(1);
  expect(onB).not.toHaveBeenCalled();
});

test("a value that is the same wakes nobody", () => {
  const store = new Store();
  store.merge({ a: 1, b: Number.NaN });
  const listener = vi.fn();
  store.subscribe("a", listener);
  store.subscribe("b", listener);
  store.merge({ a: 1, b: Number.NaN });
  expect(listener).not.toHaveBeenCalled();
});

test("every listener sees the whole change", () => {
  const store = new Store();
  const seen: unknown[] = [];
  store.subscribe("a", () => seen.push([store.get("a"), store.get("b")]));
  store.subscribe("b", () => seen.push([store.get("a"), store.get("b")]));
  store.merge({ a: 1, b: 2 });
  expect(seen).toEqual([
    [1, 2],
    [1, 2],
  ]);
});

test("merging leaves what is not mentioned", () => {
  const store = new Store();
  store.merge({ a: 1, b: 2 });
  store.merge({ b: null });
  expect([store.get("a"), store.get("b")]).toEqual([1, null]);
});

test("replacing removes what is not mentioned and tells who listens to it", () => {
  const store = new Store();
  store.merge({ a: 1, b: 2 });
  const listener = vi.fn();
  store.subscribe("a", listener);
  store.replace({ b: 2 });
  expect(store.get("a")).toBeUndefined();
  expect(listener).toHaveBeenCalledTimes(1);
});

test("who has unsubscribed hears nothing, and others still do", () => {
  const store = new Store();
  const [gone, stays] = [vi.fn(), vi.fn()];
  const unsubscribe = store.subscribe("a", gone);
  store.subscribe("a", stays);
  unsubscribe();
  unsubscribe();
  store.merge({ a: 1 });
  expect(gone).not.toHaveBeenCalled();
  expect(stays).toHaveBeenCalledTimes(1);
});

test("an old unsubscribe does not take away a newer listener", () => {
  const store = new Store();
  const newer = vi.fn();
  const unsubscribe = store.subscribe("a", vi.fn());
  unsubscribe();
  store.subscribe("a", newer);
  unsubscribe();
  store.merge({ a: 1 });
  expect(newer).toHaveBeenCalledTimes(1);
});

test("a listener may unsubscribe while it is told", () => {
  const store = new Store();
  const other = vi.fn();
  const unsubscribe = store.subscribe("a", () => unsubscribe());
  store.subscribe("a", other);
  store.merge({ a: 1 });
  expect(other).toHaveBeenCalledTimes(1);
});

test.each(["__proto__", "constructor", "prototype"])("%s is refused as a name", (name) => {
  const store = new Store();
  const text = `{"${name}": {"polluted": true}, "a": 1}`;
  store.merge(JSON.parse(text));
  store.replace(JSON.parse(text));
  expect(store.get(name)).toBeUndefined();
  expect(store.get("a")).toBe(1);
  expect(({} as Record<string, unknown>).polluted).toBeUndefined();
});

test.each(["toString", "hasOwnProperty", "valueOf"])("%s is a name like any other", (name) => {
  const store = new Store();
  expect(store.get(name)).toBeUndefined();
  store.replace(JSON.parse(`{"${name}": 1}`));
  expect(store.get(name)).toBe(1);
  store.replace({});
  expect(store.get(name)).toBeUndefined();
});
