/**
 * natkit on Node: UDP over `node:dgram`.
 *
 * @example
 * ```ts
 * import { nodeRuntime } from "@natkit/natkit/node";
 * const runtime = nodeRuntime();
 * console.assert(runtime.interfaces().length > 0);
 * ```
 *
 * @module
 */
import { platform } from "node:os";
import { startTimer, systemNow } from "./clock.ts";
import { openDgram } from "./dgram.ts";
import { openHttp, openStreams } from "./net.ts";
import { runProgram } from "./program.ts";
import type { Runtime } from "./runtime.ts";
import { readInterfaces, readTextFile } from "./system.ts";
import { addressToward, cryptoRandom } from "./udp.ts";
import { systemRandom } from "./system.ts";

export type { Endpoint, Instant } from "../core/machine.ts";
export type { RandomSource } from "../core/random.ts";
export type { InterfaceAddress, Runtime, UdpHandlers, UdpOptions, UdpSocket } from "./runtime.ts";

/** Node as a {@linkcode Runtime}. */
export function nodeRuntime(): Runtime {
  return {
    name: "node",
    platform: platform(),
    now: systemNow,
    random: systemRandom(cryptoRandom),
    setTimer: startTimer,
    openUdp: openDgram,
    openHttp,
    openStreams,
    interfaces: readInterfaces,
    addressToward: (address) => addressToward(address, openDgram),
    readTextFile,
    run: runProgram,
  };
}
