/**
 * natkit on Bun: UDP over `Bun.udpSocket`.
 *
 * @example
 * ```ts ignore
 * import { bunRuntime } from "natkit/bun";
 * const runtime = bunRuntime();
 * console.assert(runtime.name === "bun");
 * ```
 *
 * @module
 */
import { platform } from "node:os";
import { openUdpSocket, type UdpSocketFunction } from "./bun_datagram.ts";
import { startTimer, systemNow } from "./clock.ts";
import { openHttp, openStreams } from "./net.ts";
import { runProgram } from "./program.ts";
import type { Runtime, UdpHandlers, UdpOptions, UdpSocket } from "./runtime.ts";
import { readInterfaces, readTextFile } from "./system.ts";
import { addressToward, cryptoRandom } from "./udp.ts";

export type { Endpoint, Instant } from "../core/machine.ts";
export type { RandomSource } from "../core/random.ts";
export type { InterfaceAddress, Runtime, UdpHandlers, UdpOptions, UdpSocket } from "./runtime.ts";

/** Bun as a {@linkcode Runtime}. */
export function bunRuntime(): Runtime {
  return {
    name: "bun",
    platform: platform(),
    now: systemNow,
    random: cryptoRandom,
    setTimer: startTimer,
    openUdp,
    openHttp,
    openStreams,
    interfaces: readInterfaces,
    addressToward: (address) => addressToward(address, openUdp),
    readTextFile,
    run: runProgram,
  };
}

async function openUdp(options: UdpOptions, handlers: UdpHandlers): Promise<UdpSocket> {
  if (options.isDetachable) {
    const { openDgram } = await import("./dgram.ts");
    return await openDgram(options, handlers);
  }
  const { Bun } = globalThis as unknown as { Bun: { udpSocket: UdpSocketFunction } };
  return await openUdpSocket(Bun.udpSocket, options, handlers);
}
