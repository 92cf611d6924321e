/**
 * Big-endian reads and writes on a bare Uint8Array. Shifts, not DataView: making a view for each
 * packet costs several times the reads themselves.
 *
 * @module
 */

/** Unsigned 16 bits at `offset`, which the caller has checked to lie inside. */
export function u16(bytes: Uint8Array, offset: number): number {
  return (bytes[offset]! << 8) | bytes[offset + 1]!;
}

/** Unsigned 32 bits at `offset`, which the caller has checked to lie inside. */
export function u32(bytes: Uint8Array, offset: number): number {
  return (
    ((bytes[offset]! << 24) | (bytes[offset + 1]! << 16) | (bytes[offset + 2]! << 8) |
      bytes[offset + 3]!) >>> 0
  );
}

/** Writes the low 16 bits of `value`. */
export function putU16(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value >>> 8;
  bytes[offset + 1] = value;
}

/** Writes the low 32 bits of `value`. */
export function putU32(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value >>> 24;
  bytes[offset + 1] = value >>> 16;
  bytes[offset + 2] = value >>> 8;
  bytes[offset + 3] = value;
}

/** Whether `length` bytes of `a` from `aOffset` equal those of `b` from `bOffset`. */
export function equalBytes(
  a: Uint8Array,
  b: Uint8Array,
  aOffset: number = 0,
  bOffset: number = 0,
  length: number = Math.max(a.length - aOffset, b.length - bOffset),
): boolean {
  for (let i = 0; i < length; i++) {
    if (a[aOffset + i] !== b[bOffset + i]) return false;
  }
  return true;
}

/** A copy, also of a Node Buffer, whose own `slice` is a view that changes with what was lent. */
export function copyBytes(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes);
}

/** One after the other. */
export function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Lower-case hexadecimal text. */
export function toHex(bytes: Uint8Array): string {
  // Joined and not added up: engines keep sums of strings as trees, which weigh more.
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Bytes from hexadecimal text; white space between digits is ignored.
 *
 * @throws {SyntaxError} Where the text is no even number of hexadecimal digits.
 */
export function fromHex(text: string): Uint8Array {
  const digits = text.replace(/\s+/g, "");
  if (!/^([0-9a-f]{2})*$/i.test(digits)) {
    throw new SyntaxError(`Cannot read hexadecimal text: current value is "${text}"`);
  }
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}
