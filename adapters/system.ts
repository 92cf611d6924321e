/**
 * What Node's modules tell of the system, on all three runtimes.
 *
 * @module
 */
import { open } from "node:fs/promises";
// Not `node:process`: to import that Node reads each of its properties, and opens standard output.
import { networkInterfaces, platform, uptime } from "node:os";
import { canonicalAddress, familyOf } from "../core/ip.ts";
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
