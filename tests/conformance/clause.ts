/**
 * What a conformance test is written with: a test that counts the assertions it makes, and the
 * assertions it counts. One that asserts nothing fails, be it emptied or a loop without a turn; one
 * that passes leaves its count where the test command looks for it, which takes a clause for tested
 * by that alone.
 *
 * @module
 */
import * as std from "@std/assert";
import { appendFileSync } from "node:fs";
import process from "node:process";
import { it as register } from "node:test";

/** Assertions made so far; tests run one after the other. */
let made = 0;

/**
 * `it()` for the test of a clause. Call it inside of `describe()`: at the top level Deno would take
 * this file for the test's.
 *
 * @param title The clause's id and what it says: `"PCP-C-40: …"`.
 * @throws If the title has no id.
 */
export function it(title: string, body: () => void | Promise<void>): void {
  const id = /^([A-Z]+-[CS]-\d+): ./.exec(title)?.[1];
  if (id === undefined) {
    throw new TypeError(`Cannot test a clause as 'title' has no id: current value is "${title}"`);
  }
  register(title, async () => {
    const before = made;
    await body();
    if (made === before) throw new Error(`${id}: nothing was asserted`);
    const record = process.env["NATKIT_CLAUSES"];
    if (record !== undefined) appendFileSync(record, `${id} ${made - before}\n`);
  });
}

function counted<F extends (...args: never[]) => unknown>(assertion: F): F {
  return ((...args: Parameters<F>) => {
    made++;
    return assertion(...args);
  }) as F;
}

/** Counts, where the library's own `assert()` narrows no type. */
export function claim(condition: unknown, message: string = "a claim"): asserts condition {
  made++;
  if (!condition) throw new Error(message);
}

export const assert: typeof std.assert = counted(std.assert);
export const assertEquals: typeof std.assertEquals = counted(std.assertEquals);
export const assertNotEquals: typeof std.assertNotEquals = counted(std.assertNotEquals);
export const assertThrows: typeof std.assertThrows = counted(std.assertThrows);
