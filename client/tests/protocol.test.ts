import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type ClientMessage, encodeEvent, parseServerMessage } from "../src/protocol";

interface Golden {
  name: string;
  direction: "server->client" | "client->server";
  message: { type: string; id?: number; name?: string; data?: object };
  text?: string;
  valid: boolean;
}

/** The messages that the Python suite reads too. */
const WIRE = join(import.meta.dirname, "../../tests/wire");

const golden = readdirSync(WIRE)
  .map((file) => JSON.parse(readFileSync(join(WIRE, file), "utf8")) as Golden)
  .filter((entry) => !Array.isArray(entry));

const towards = (direction: Golden["direction"]) =>
  golden.filter((entry) => entry.direction === direction && entry.valid);

describe("golden messages", () => {
  test.each(towards("server->client"))(
    "$message.type is understood: $name",
    ({ message, text }) => {
      expect(parseServerMessage(text ?? JSON.stringify(message))).toEqual(message);
    },
  );

  test.each(towards("client->server"))(
    "$message.type is not the server's to say: $name",
    (entry) => {
      const isEither = entry.message.type === "beat";
      expect(parseServerMessage(JSON.stringify(entry.message)) === null).toBe(!isEither);
    },
  );

  test("events are written as agreed", () => {
    const events = towards("client->server").filter(({ message }) => message.id !== undefined);
    expect(events).not.toHaveLength(0);
    for (const { message, text } of events) {
      const { id = 0, name = "", data = {} } = message;
      expect(encodeEvent(id, name, JSON.stringify(data))).toBe(text);
    }
  });

  test("the client's other messages are written as agreed", () => {
    const messages: ClientMessage[] = [
      { type: "hello", patches: true },
      { type: "hello", resume: "t0ken-1", patches: true, rev: 41 },
      { type: "bye" },
      { type: "beat" },
    ];
    const agreed = towards("client->server").map(({ text }) => text);
    for (const message of messages) expect(agreed).toContain(JSON.stringify(message));
  });

  test("there is one of each type", () => {
    const types = new Set(towards("server->client").map(({ message }) => message.type));
    expect([...types].sort()).toEqual(["beat", "error", "init", "result", "update"]);
  });
});

test.each([
  "",
  "{",
  "null",
  "1",
  '"init"',
  "[]",
  "{}",
  '{"type":"nope"}',
  '{"type":"__proto__"}',
  '{"type":["init"]}',
  '{"type":"init"}',
  '{"type":"init","state":[],"sessionId":"a"}',
  '{"type":"init","state":{},"sessionId":1}',
  '{"type":"init","state":{},"sessionId":"a","rev":"1"}',
  '{"type":"init","state":{},"sessionId":"a","token":1}',
  '{"type":"update"}',
  '{"type":"update","changes":null}',
  '{"type":"update","changes":{},"ack":"1"}',
  '{"type":"update","changes":{},"patches":[]}',
  '{"type":"update","changes":{},"patches":{"a":"append"}}',
  '{"type":"update","changes":{},"patches":{"a":["append"]}}',
  '{"type":"result","ok":true}',
  '{"type":"result","id":1}',
  '{"type":"result","id":1,"ok":false}',
  '{"type":"result","id":1,"ok":false,"code":7}',
  '{"type":"error"}',
  '{"type":"error","code":"busy","id":"1"}',
  '{"type":"error","code":"invalid_data","details":"age"}',
  '{"type":"error","code":"invalid_data","details":[{"message":"no path"}]}',
])("%s is no message of the server's", (text) => {
  expect(parseServerMessage(text)).toBeNull();
});

test("unknown fields are ignored", () => {
  const message = { type: "update", changes: { a: 1 }, later: ["more"] };
  expect(parseServerMessage(JSON.stringify(message))).toEqual(message);
});

test("an event's name cannot break out of its message", () => {
  const text = encodeEvent(1, 'a","id":9,"x":"', "{}");
  expect(JSON.parse(text)).toEqual({ type: "event", id: 1, name: 'a","id":9,"x":"', data: {} });
});
