/**
 * Header fields as SSDP, SOAP and GENA have them in common.
 *
 * @module
 */
import { show } from "../check.ts";
import type { HttpHeaders } from "../machine.ts";

/** The value of the first field of that name, whatever its case; undefined where there is none. */
export function headerValue(headers: HttpHeaders, name: string): string | undefined {
  const wanted = name.toLowerCase();
  return headers.find(([key]) => key.toLowerCase() === wanted)?.[1].trim();
}

/**
 * Returns `value` where it can stand in a field: no line break, which would begin another field, and
 * nothing else that is no visible Latin-1.
 *
 * @throws {TypeError} Where it cannot.
 */
export function checkFieldValue(name: string, value: unknown): string {
  // deno-lint-ignore no-control-regex
  if (typeof value === "string" && !/[\0-\x1f\x7f]|[^\0-\xff]/.test(value)) return value;
  throw new TypeError(
    `'${name}' must be text without control characters: current value is ${show(value)}`,
  );
}

/** A number of decimal digits alone, at most `high`; undefined where it is none. */
export function readNumber(text: string | undefined, high: number): number | undefined {
  if (text === undefined || !/^[0-9]{1,15}$/.test(text.trim())) return undefined;
  const number = Number(text);
  return number <= high ? number : undefined;
}
