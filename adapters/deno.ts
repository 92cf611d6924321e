/**
 * natkit on Deno: UDP over `Deno.listenDatagram` where the program runs with `--unstable-net`, over
 * `node:dgram` otherwise.
 *
 * Neither can be connected here (Deno has no such call; a connect of its `node:dgram` never ends),
 * so the address toward the peer is looked up and bound, datagrams from others are dropped, and
 * ICMP errors do not show: `onUnreachable` is never called.
 *
 * Permissions: `--allow-net`; `--allow-sys=networkInterfaces` to know the local address;
 * `--allow-run=ip` (Linux) to find the gateway where `--allow-all` is not given, and the address
 * toward one that is named but in none of this host's networks; `--allow-sys=osUptime` to tell
 * sleep from a clock that is set.
 *
 * @example
 * ```ts
 * import { denoRuntime } from "@natkit/natkit/deno";
 * const runtime = denoRuntime();
 * console.assert(runtime.interfaces().length > 0);
 * ```
 *
 * @module
 */
import { platform } from "node:os";
import { isWildcard } from "../core/cidr.ts";
import { NatError } from "../core/errors.ts";
import { anyAddress, familyOf, formatEndpoint, isSameEndpoint, withoutZone } from "../core/ip.ts";
import type { Endpoint } from "../core/machine.ts";
import { startTimer, systemNow } from "./clock.ts";
import { type DenoNamespace, listenNative } from "./deno_datagram.ts";
import { openDgram } from "./dgram.ts";
import { bindToward } from "./discovery/bind_toward.ts";
import { openHttp, openStreams } from "./net.ts";
import { runCommand } from "./program.ts";
import type { InterfaceAddress, Runtime, UdpHandlers, UdpOptions, UdpSocket } from "./runtime.ts";
import { readInterfaces, readTextFile } from "./system.ts";
import { cryptoRandom, errorCode, openError, sourceReader, wrongPeer } from "./udp.ts";

export type { Endpoint, Instant } from "../core/machine.ts";
export type { RandomSource } from "../core/random.ts";
export type { InterfaceAddress, Runtime, UdpHandlers, UdpOptions, UdpSocket } from "./runtime.ts";

const { Deno } = globalThis as unknown as { Deno: DenoNamespace };

/** Deno as a {@linkcode Runtime}. */
export function denoRuntime(): Runtime {
  return {
    name: "deno",
    platform: platform(),
    now: systemNow,
    random: cryptoRandom,
    setTimer: startTimer,
    openUdp,
    openHttp,
    openStreams,
    interfaces,
    readTextFile: readGranted,
    run: (command, args) => runCommand(Deno.Command, command, args),
  };
}

function permissionError(what: string, flag: string, cause?: unknown): NatError {
  return new NatError("permission", `${what}: ${flag} is needed`, { cause });
}

function interfaces(): InterfaceAddress[] {
  try {
    return readInterfaces();
  } catch (error) {
    if (errorCode(error) !== "NotCapable") throw error;
    const flag = "--allow-sys=networkInterfaces";
    throw permissionError("Cannot read the network interfaces", flag, error);
  }
}

/** Deno would ask whether `/proc` may be read, and then want `--allow-all` all the same. */
async function readGranted(path: string): Promise<string> {
  const isProc = path.startsWith("/proc/");
  if (isProc && Deno.permissions.querySync({ name: "read", path }).state !== "granted") {
    throw permissionError(`Cannot read ${path}`, "--allow-all");
  }
  return await readTextFile(path);
}

async function openUdp(options: UdpOptions, handlers: UdpHandlers): Promise<UdpSocket> {
  const { connect: peer } = options;
  if (peer) await checkNet(peer);
  const local = await bindToward(denoRuntime(), options);
  const readSource = sourceReader(options);
  const filtered: UdpHandlers = {
    onDatagram(data, source) {
      const from = readSource(source.address, source.port);
      if (from) handlers.onDatagram(data, from);
    },
    onUnreachable: (to) => handlers.onUnreachable(to),
    onError: (error, to) => handlers.onError(to ? flagError(error, to) : error, to),
  };
  const socket = await openAt(local, options, filtered);
  return {
    // Bound to the wildcard for want of permission, it still sends from where the route says.
    local: { address: peer ? local.address : socket.local.address, port: socket.local.port },
    send(data, to) {
      if (!peer || isSameEndpoint(to, peer)) socket.send(data, to);
      else handlers.onError(wrongPeer(to, peer), to);
    },
    close: () => socket.close(),
    unref: () => socket.unref?.(),
    ref: () => socket.ref?.(),
    ...(socket.detach && { detach: () => socket.detach!() }),
  };
}

/** Opens a socket without a peer, on the wildcard where only that is permitted. */
async function openAt(
  local: Endpoint,
  { connect, multicast, multicastBy, reuseAddress = false, isDetachable = false }: UdpOptions,
  handlers: UdpHandlers,
): Promise<UdpSocket> {
  const options = {
    local,
    reuseAddress,
    isDetachable,
    ...(multicast && { multicast }),
    ...(multicastBy && { multicastBy }),
  };
  try {
    // `joinMulticastV6` wants an interface's index, which Deno does not tell; nor does it let one
    // choose by which interface multicast leaves.
    const needsDgram = isDetachable || multicastBy !== undefined ||
      (multicast && familyOf(multicast.group) === 6);
    if (Deno.listenDatagram && !needsDgram) {
      return await listenNative(Deno.listenDatagram, options, handlers);
    }
    return await openDgram(options, handlers, false);
  } catch (error) {
    const failure = openError(error, options);
    if (!connect || failure.code !== "permission" || isWildcard(local.address)) throw failure;
    const any = { address: anyAddress(familyOf(local.address)), port: local.port };
    return await openAt(any, { ...options, connect }, handlers);
  }
}

/** An endpoint as `--allow-net` spells it. */
function netHost({ address, port }: Endpoint): string {
  return formatEndpoint({ address: withoutZone(address), port });
}

/** Deno checks each destination, but tells only after sending; a peer is asked for beforehand. */
async function checkNet(peer: Endpoint): Promise<void> {
  const host = netHost(peer);
  const { state } = await Deno.permissions.request({ name: "net", host });
  if (state !== "granted") {
    throw permissionError(`Cannot send to ${formatEndpoint(peer)}`, `--allow-net=${host}`);
  }
}

/**
 * Names the flag where Deno refused a destination: `NotCapable`, and from `node:dgram` `UNKNOWN`,
 * which there is the code of every failure.
 */
function flagError(error: NatError, to: Endpoint): NatError {
  const code = errorCode(error.cause);
  const isRefused = code === "NotCapable" || (code === "UNKNOWN" && !mayReach(to));
  if (!isRefused) return error;
  const what = `Cannot send to ${formatEndpoint(to)}`;
  return permissionError(what, `--allow-net=${netHost(to)}`, error.cause);
}

function mayReach(to: Endpoint): boolean {
  return Deno.permissions.querySync({ name: "net", host: netHost(to) }).state === "granted";
}
