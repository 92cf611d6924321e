/**
 * What Node's modules tell of the system, on all three runtimes.
 *
 * @module
 */
import { execFile } from "node:child_process";
import { networkInterfaces } from "node:os";
import process from "node:process";
import { canonicalAddress, familyOf } from "../core/ip.ts";
import type { InterfaceAddress } from "./runtime.ts";

/** The addresses of `os.networkInterfaces()`, which Bun and Deno have too. */
export function readInterfaces(): InterfaceAddress[] {
  const found: InterfaceAddress[] = [];
  for (const [name, addresses] of Object.entries(networkInterfaces())) {
    for (const { address: text, cidr, internal, ...rest } of addresses ?? []) {
      const bare = canonicalAddress(text);
      if (bare === undefined) continue;
      const zone = process.platform === "win32" ? (rest as { scopeid?: number }).scopeid : name;
      const address = canonicalAddress(text.includes("%") ? text : `${text}%${zone}`) ?? bare;
      const prefixLength = Number(cidr?.split("/")[1] ?? (familyOf(bare) === 4 ? 32 : 128));
      found.push({ name, address, prefixLength, internal });
    }
  }
  return found;
}

/** Runs a program without a shell; what it prints is bounded, and so is its time. */
export function runProgram(command: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const limits = { timeout: 10_000, maxBuffer: 1 << 22, windowsHide: true };
    execFile(
      command,
      [...args],
      limits,
      (error, stdout) => error ? reject(error) : resolve(stdout),
    );
  });
}
