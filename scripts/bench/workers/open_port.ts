/**
 * `openPort` against a bare UDP echo of the same runtime, both over loopback to another process,
 * and what it takes on the wire.
 *
 * @module
 */
import { systemRuntime } from "../../../adapters/auto.ts";
import { findGateways } from "../../../adapters/discovery/mod.ts";
import type { NatOptions } from "../../../adapters/api/options.ts";
import { openPort } from "../../../mod.ts";
import { measure, type Timing } from "../measure.ts";
import { bareSocket } from "./bare_udp.ts";
import { roundTrips, startProxy } from "./proxy.ts";
import { spawnServer } from "./servers.ts";

/** What `open-port` takes. */
export interface OpenPortOptions {
  readonly timeMs: number;
}

/** What `open-port` measures. */
export interface OpenPortResult {
  readonly timings: Record<"echo" | "pcp" | "natPmp" | "discovery", Timing>;
  /** The first call in a process, milliseconds. */
  readonly firstMs: number;
  readonly wire: Record<"pcp" | "natPmp", { trips: number; log: string }>;
}

/** Measures one `openPort`; its end is not part of it. */
export async function timeToOpen(
  port: number,
  options: NatOptions = {},
): Promise<{ overriddenDuration: number; overriddenIterationCost: number; via: string }> {
  const from = performance.now();
  const mapping = await openPort(6000, { gateway: `127.0.0.1:${port}`, ...options });
  const elapsed = performance.now() - from;
  await mapping.close();
  return {
    overriddenDuration: elapsed,
    overriddenIterationCost: performance.now() - from,
    via: mapping.via,
  };
}

/** The task. */
export async function openPortTask({ timeMs }: OpenPortOptions): Promise<OpenPortResult> {
  const [echo, both, natPmpOnly] = await Promise.all([
    spawnServer("echo"),
    spawnServer("gateway"),
    spawnServer("gateway", { protocols: ["nat-pmp"] }),
  ]);
  const { overriddenDuration: firstMs } = await timeToOpen(both.port);
  let heard: () => void = () => {};
  const socket = await bareSocket(() => heard());
  const packet = new Uint8Array(60);
  const runtime = systemRuntime();
  const timings = await measure({
    echo: () =>
      new Promise<void>((resolve) => {
        heard = resolve;
        socket.send(packet, echo.port, "127.0.0.1");
      }),
    pcp: () => timeToOpen(both.port),
    natPmp: () => timeToOpen(natPmpOnly.port),
    discovery: () => findGateways(runtime),
  }, { timeMs, isAsync: true });
  const wire = { pcp: await countTrips(both.port), natPmp: await countTrips(natPmpOnly.port) };
  socket.close();
  for (const server of [echo, both, natPmpOnly]) server.end();
  return { timings, firstMs, wire };
}

async function countTrips(gatewayPort: number): Promise<{ trips: number; log: string }> {
  const proxy = await startProxy(gatewayPort);
  const mapping = await openPort(6000, { gateway: `127.0.0.1:${proxy.port}` });
  const log = [...proxy.log];
  await mapping.close();
  proxy.close();
  const arrows = log.map(({ direction, what }) => (direction === "up" ? "→" : "←") + what);
  return { trips: roundTrips(log), log: arrows.join(" ") };
}
