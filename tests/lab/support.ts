/**
 * What the lab tests have in common.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { Lab } from "../../scripts/lab/lab.ts";
import type { Done, Event } from "../../scripts/lab/natkit.ts";
import { ADDRESS } from "../../scripts/lab/topology.ts";
import { reach } from "../../scripts/lab/traffic.ts";
import type { Endpoint } from "../../core/machine.ts";

/** With the description's address at hand upnpc does not wait two seconds for SSDP. */
const DESCRIPTION = `http://${ADDRESS.gateway}:49152/rootDesc.xml`;

/** The gateway's table as upnpc lists it: `TCP 6000->192.168.77.10:6000`. */
export async function table(lab: Lab): Promise<string[]> {
  const { stdout, stderr } = await lab.exec("host", ["upnpc", "-u", DESCRIPTION, "-l"]);
  assert(stdout.includes("ExternalIPAddress"), `upnpc: ${stdout}${stderr}`);
  return [...stdout.matchAll(/^\s*\d+ (TCP|UDP)\s+(\d+->\S+)/gm)].map(([, protocol, ports]) =>
    `${protocol} ${ports}`
  );
}

/** The only event of this name. */
export function only(done: Done, name: string): Event {
  const found = done.events.filter(({ event }) => event === name);
  assertEquals(found.length, 1, `one ${name} event:\n${done.said}`);
  return found[0]!;
}

/** Asserts an exit status, showing all that was said otherwise. */
export function assertStatus(done: Done, code: number): void {
  assertEquals(done.code, code, `exit status:\n${done.said}`);
}

/** Waits until something is so. */
export async function until(
  what: string,
  isSo: () => Promise<boolean>,
  withinMs: number,
): Promise<number> {
  const startedAt = performance.now();
  while (!(await isSo())) {
    if (performance.now() - startedAt > withinMs) throw new Error(`${withinMs} ms without ${what}`);
    await pause(100);
  }
  return performance.now() - startedAt;
}

/** How long neighbours that have forgotten each other may take; a lease of 9 s is renewed in half. */
const REACHED_WITHIN_MS = 20_000;

/** Waits until a port of a host is reached from the public host over IPv6, by that one's address. */
export async function untilReached6(
  lab: Lab,
  protocol: "tcp" | "udp",
  target: Endpoint,
  what: string,
): Promise<void> {
  const isReached = async () => {
    // The gateway knows its neighbour on the internet by that one's asking, and asks in vain itself.
    await lab.exec("pub", ["ip", "-6", "neigh", "flush", "all"]);
    return (await reach(lab, "pub", protocol, target)) === ADDRESS.pub6;
  };
  await until(what, isReached, REACHED_WITHIN_MS);
}

/** Lets time pass. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Field by path: `field(event, "external.address")`. */
export function field(event: Event, path: string): unknown {
  return path.split(".").reduce<unknown>(
    (value, key) => (value as Record<string, unknown> | undefined)?.[key],
    event,
  );
}
