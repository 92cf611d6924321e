/**
 * The caller's mistakes, thrown at once with the name and the value (TypeError for the wrong
 * kind, RangeError for the wrong size).
 *
 * @module
 */
import { canonicalAddress, familyOf } from "./ip.ts";

/** The largest lifetime that fits the wire, seconds: 2³² − 1. */
export const MAX_LIFETIME_SECONDS = 0xffff_ffff;

/** A value as messages show it. */
export function show(value: unknown): string {
  return typeof value === "string" ? `"${value}"` : String(value);
}

/**
 * Returns `value` where it is true or false.
 *
 * @throws {TypeError} Where it is neither.
 */
export function checkBoolean(name: string, value: unknown): boolean {
  if (typeof value === "boolean") return value;
  throw new TypeError(`'${name}' must be true or false: current value is ${show(value)}`);
}

/**
 * Returns `value` where it is an integer in `low`…`high`.
 *
 * @throws {TypeError} Where it is no number.
 * @throws {RangeError} Where it is not such an integer.
 */
export function checkInteger(name: string, value: unknown, low: number, high: number): number {
  if (typeof value !== "number") {
    throw new TypeError(`'${name}' must be a number: current value is ${show(value)}`);
  }
  if (!Number.isInteger(value) || value < low || value > high) {
    throw new RangeError(
      `'${name}' must be an integer in ${low}..${high}: current value is ${value}`,
    );
  }
  return value;
}

/**
 * Returns `value` where it is a port, from `low` (0 or 1) to 65535.
 *
 * @throws {TypeError | RangeError} As {@linkcode checkInteger}.
 */
export function checkPort(name: string, value: unknown, low: 0 | 1 = 1): number {
  return checkInteger(name, value, low, 65535);
}

/**
 * Returns `value` where it is a lifetime in seconds that fits 32 bits, from `low` on.
 *
 * @throws {TypeError | RangeError} As {@linkcode checkInteger}.
 */
export function checkLifetime(name: string, value: unknown, low: number = 1): number {
  return checkInteger(name, value, low, MAX_LIFETIME_SECONDS);
}

/**
 * Returns the canonical text of an IP address, of one family where `family` says so.
 *
 * @throws {TypeError} Where it is no IP address, or one of the other family.
 */
export function checkAddress(name: string, value: unknown, family?: 4 | 6): string {
  const address = typeof value === "string" ? canonicalAddress(value) : undefined;
  if (address === undefined) {
    throw new TypeError(`'${name}' must be an IP address: current value is ${show(value)}`);
  }
  if (family !== undefined && familyOf(address) !== family) {
    throw new TypeError(`'${name}' must be an IPv${family} address: current value is ${address}`);
  }
  return address;
}

/**
 * Returns `value` where it is text.
 *
 * @throws {TypeError} Where it is none.
 */
export function checkString(name: string, value: unknown): string {
  if (typeof value === "string") return value;
  throw new TypeError(`'${name}' must be a string: current value is ${show(value)}`);
}

/**
 * Returns `value` where it is an address family.
 *
 * @throws {TypeError} Where it is none.
 */
export function checkFamily(name: string, value: unknown): 4 | 6 {
  if (value === 4 || value === 6) return value;
  throw new TypeError(`'${name}' must be 4 or 6: current value is ${show(value)}`);
}

/**
 * Returns `value` where it is an array; what is in it is not looked at.
 *
 * @throws {TypeError} Where it is none.
 */
export function checkList<T>(name: string, value: readonly T[]): readonly T[] {
  if (Array.isArray(value)) return value;
  throw new TypeError(`'${name}' must be an array: current value is ${show(value)}`);
}

/**
 * Returns `value` where it can be called, or is left out.
 *
 * @throws {TypeError} Where it is neither.
 */
export function checkCallback<T>(name: string, value: T): T {
  if (value === undefined || typeof value === "function") return value;
  throw new TypeError(`'${name}' must be a function: current value is ${show(value)}`);
}

/**
 * Returns `value` where it is one of `choices`.
 *
 * @throws {TypeError} Where it is not.
 */
export function checkChoice<const T extends string>(
  name: string,
  value: unknown,
  choices: readonly T[],
): T {
  if (!choices.includes(value as T)) {
    throw new TypeError(
      `'${name}' must be one of ${choices.join(", ")}: current value is ${show(value)}`,
    );
  }
  return value as T;
}
