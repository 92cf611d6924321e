/**
 * What protects a STUN message: MESSAGE-INTEGRITY and MESSAGE-INTEGRITY-SHA256 with their keys
 * (RFC 8489 §9, §14.5, §14.6), and FINGERPRINT (§14.7). The hashes come from `@noble/hashes`,
 * which is synchronous and the same on every runtime; no other file imports it.
 *
 * @module
 */
import { hmac } from "@noble/hashes/hmac.js";
import { md5, sha1 } from "@noble/hashes/legacy.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { copyBytes, putU16 } from "../bytes.ts";

/** The hash of a MESSAGE-INTEGRITY attribute, or of a MESSAGE-INTEGRITY-SHA256 one. */
export type IntegrityHash = "sha1" | "sha256";

/** The algorithms by which a long-term key is made (RFC 8489 §18.5). */
export type PasswordAlgorithm = "MD5" | "SHA-256";

/** Bytes of the value of the attribute, by its hash. */
export const INTEGRITY_LENGTH: Readonly<Record<IntegrityHash, number>> = { sha1: 20, sha256: 32 };

const encoder = new TextEncoder();

/**
 * Text as RFC 8265's OpaqueString profile has it: all spaces are U+0020, the rest is composed
 * (NFC); case and width are kept.
 *
 * @throws {TypeError} Where nothing is left, or a control character is in it.
 */
export function opaqueString(name: string, text: string): string {
  const prepared = text.replace(/\p{Zs}/gu, " ").normalize("NFC");
  // Not shown: it may be a password.
  if (prepared === "") throw new TypeError(`'${name}' must not be empty`);
  if (/[\p{Cc}\p{Cs}]/u.test(prepared)) {
    throw new TypeError(`'${name}' must not hold control characters or halves of characters`);
  }
  return prepared;
}

/**
 * The key of short-term credentials: the password's bytes (RFC 8489 §9.1.1).
 *
 * @throws {TypeError} Where the password is empty or holds control characters.
 */
export function shortTermKey(password: string): Uint8Array {
  return encoder.encode(opaqueString("password", password));
}

/**
 * The key of long-term credentials: a hash of `username:realm:password` (RFC 8489 §9.2.2,
 * §18.5.1), 16 bytes by MD5 and 32 by SHA-256.
 *
 * @throws {TypeError} Where one of the texts is empty or holds control characters.
 */
export function longTermKey(
  username: string,
  realm: string,
  password: string,
  algorithm: PasswordAlgorithm = "MD5",
): Uint8Array {
  const text = `${opaqueString("username", username)}:${opaqueString("realm", realm)}:${
    opaqueString("password", password)
  }`;
  return (algorithm === "MD5" ? md5 : sha256)(encoder.encode(text));
}

/**
 * The 32 bytes of USERHASH, which stands for a user name that shall not be read on the way
 * (RFC 8489 §14.4).
 *
 * @throws {TypeError} Where one of the texts is empty or holds control characters.
 */
export function userhash(username: string, realm: string): Uint8Array {
  const text = `${opaqueString("username", username)}:${opaqueString("realm", realm)}`;
  return sha256(encoder.encode(text));
}

/**
 * The value of an integrity attribute that stands at `at`: over all before it, under a header whose
 * length ends with the attribute, whatever follows (RFC 8489 §14.5, STUN-01, STUN-02).
 */
export function integrityOf(
  bytes: Uint8Array,
  at: number,
  key: Uint8Array,
  hash: IntegrityHash,
): Uint8Array {
  const header = copyBytes(bytes.subarray(0, 20));
  putU16(header, 2, at - 20 + 4 + INTEGRITY_LENGTH[hash]);
  return hmac.create(hash === "sha1" ? sha1 : sha256, key)
    .update(header).update(bytes.subarray(20, at)).digest();
}

/** Whether the value of the integrity attribute at `at` is right; takes the same time if not. */
export function isIntact(
  bytes: Uint8Array,
  at: number,
  key: Uint8Array,
  hash: IntegrityHash,
): boolean {
  const wanted = integrityOf(bytes, at, key, hash);
  let difference = 0;
  for (let i = 0; i < wanted.length; i++) difference |= wanted[i]! ^ bytes[at + 4 + i]!;
  return difference === 0;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/**
 * The value of a FINGERPRINT attribute that stands at `at`: the CRC-32 of all before it, XORed with
 * "STUN", so that a CRC of another protocol in the same place does not pass (RFC 8489 §14.7).
 */
export function fingerprintOf(bytes: Uint8Array, at: number): number {
  let crc = -1;
  for (let i = 0; i < at; i++) crc = CRC_TABLE[(crc ^ bytes[i]!) & 0xff]! ^ (crc >>> 8);
  return (~crc ^ 0x5354554e) >>> 0;
}
