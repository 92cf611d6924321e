/**
 * What Node's modules tell of the system, on all three runtimes.
 *
 * @module
 */
import { closeSync, openSync, readSync } from "node:fs";
import { open } from "node:fs/promises";
// Not `node:process`: to import that Node reads each of its properties, and opens standard output.
import { networkInterfaces, platform, uptime } from "node:os";
import { canonicalAddress, familyOf } from "../core/ip.ts";
import type { RandomSource } from "../core/random.ts";
import type { InterfaceAddress } from "./runtime.ts";

/** The addresses of `os.networkInterfaces()`, which Bun and Deno have too. */
export function readInterfaces(): InterfaceAddress[] {
  const found: InterfaceAddress[] = [];
  for (const [name, addresses] of Object.entries(networkInterfaces())) {
    for (const { address: text, cidr, internal, ...rest } of addresses ?? []) {
      const bare = canonicalAddress(text);
      if (bare === undefined) continue;
      const zone = platform() === "win32" ? (rest as { scopeid?: number }).scopeid : name;
      const address = canonicalAddress(text.includes("%") ? text : `${text}%${zone}`) ?? bare;
      const prefixLength = Number(cidr?.split("/")[1] ?? (familyOf(bare) === 4 ? 32 : 128));
      found.push({ name, address, prefixLength, internal });
    }
  }
  return found;
}

/** How many bytes of randomness are read at a time. */
const POOL_BYTES = 256;

/**
 * Randomness from the kernel, which is where Web Crypto takes it from as well: Node spends
 * milliseconds on loading that, and a first request waits for twelve bytes.
 *
 * @param fallback Where there is no such file.
 */
export function systemRandom(
  fallback: RandomSource,
  path: string = "/dev/urandom",
): RandomSource {
  const pool = new Uint8Array(POOL_BYTES);
  let used = POOL_BYTES;
  const refill = (): boolean => {
    try {
      const file = openSync(path, "r");
      try {
        // Less than 256 bytes are never cut short (random(4)).
        used = readSync(file, pool, 0, POOL_BYTES, null) === POOL_BYTES ? 0 : POOL_BYTES;
      } finally {
        closeSync(file);
      }
    } catch {
      used = POOL_BYTES;
    }
    return used === 0;
  };
  const fill = (bytes: Uint8Array): void => {
    for (let at = 0; at < bytes.length;) {
      if (used === POOL_BYTES && !refill()) return fallback.fill(bytes);
      const part = pool.subarray(used, used + bytes.length - at);
      bytes.set(part, at);
      // What has been given out is not to be found in memory afterwards.
      part.fill(0);
      used += part.length;
      at += part.length;
    }
  };
  return {
    fill,
    u32() {
      const four = new Uint8Array(4);
      fill(four);
      return new DataView(four.buffer).getUint32(0);
    },
  };
}

/** What is asked of `Deno` before Deno asks the user. */
interface DenoPermissions {
  readonly permissions: { querySync(wanted: object): { readonly state: string } };
}

/** Milliseconds since the system started, sleep included; undefined where Deno forbids. */
export function readUptimeMs(): number | undefined {
  const { Deno } = globalThis as { Deno?: DenoPermissions };
  const { state } = Deno?.permissions.querySync({ name: "sys", kind: "osUptime" }) ??
    { state: "granted" };
  return state === "granted" ? uptime() * 1000 : undefined;
}

/** The most that is read of a file, bytes: a routing table can be long. */
const MAX_FILE_BYTES = 1 << 24;

/** Reads a text file, at most its first 16 MiB. */
export async function readTextFile(path: string): Promise<string> {
  const file = await open(path, "r");
  try {
    const decoder = new TextDecoder();
    const buffer = new Uint8Array(65536);
    let text = "";
    for (let read = 0; read < MAX_FILE_BYTES;) {
      // Files in /proc have no size, so they are read until they end.
      const { bytesRead } = await file.read(buffer, 0, buffer.length, null);
      if (bytesRead === 0) break;
      read += bytesRead;
      text += decoder.decode(buffer.subarray(0, bytesRead), { stream: true });
    }
    return text;
  } finally {
    await file.close();
  }
}
