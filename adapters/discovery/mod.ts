/**
 * Finds the gateways that this host sends through.
 *
 * Linux: `/proc/net/route` and `/proc/net/ipv6_route`, and `ip route` where those may not be read
 * (Deno without `--allow-all`). macOS and the BSDs: `netstat`, `route`. Windows: PowerShell,
 * `route print`. The first source that has an answer counts.
 *
 * @module
 */
import { NatError } from "../../core/errors.ts";
import { type Family, familyOf } from "../../core/ip.ts";
import type { InterfaceAddress, Runtime } from "../runtime.ts";
import { errorCode, zoneOf } from "../udp.ts";
import { parseNetstat, parseRouteGet } from "./darwin.ts";
import {
  parseFleetingAddresses,
  parseIpRoute,
  parseProcIpv6Route,
  parseProcRoute,
} from "./linux.ts";
import { bestInterfaceAddress, pickLocalAddress } from "./local_address.ts";
import { type DefaultRoute, rankRoutes } from "./route.ts";
import { NET_ROUTE_SCRIPT, parseNetRoute, parseRoutePrint } from "./windows.ts";

export { isVirtualInterface } from "./route.ts";
export { bestInterfaceAddress, pickLocalAddress, type PickOptions } from "./local_address.ts";

/** Where a {@linkcode GatewayCandidate} was found. */
export type GatewaySource = "proc" | "ip" | "netstat" | "route" | "powershell" | "route-print";

/** A gateway of this host. */
export interface GatewayCandidate {
  /** Canonical, with the zone where it is link-local. */
  readonly address: string;
  /** 4 or 6. */
  readonly family: Family;
  /** The name of the interface toward it, where the system tells it. */
  readonly interface: string | undefined;
  /** This host's address toward it: IPv6 a global one where there is one (PCP-C-24). */
  readonly localAddress: string | undefined;
  /** The route's metric: lower comes first, within a family. */
  readonly metric: number;
  /** Where it was found. */
  readonly source: GatewaySource;
}

/** What discovery needs of a {@linkcode Runtime}. */
export type DiscoveryRuntime = Pick<
  Runtime,
  "platform" | "interfaces" | "readTextFile" | "run"
>;

/** From this length on a table in /proc may have been cut off at some bound, characters. */
const HUGE_TABLE = 10_000_000;

interface Source {
  readonly name: GatewaySource;
  readonly read: (runtime: DiscoveryRuntime) => Promise<string>;
  readonly parse: (text: string) => DefaultRoute[];
}

const file = (path: string, parse: Source["parse"]): Source => ({
  name: "proc",
  read: (runtime) => runtime.readTextFile(path),
  parse,
});

const program = (name: GatewaySource, line: string[], parse: Source["parse"]): Source => ({
  name,
  read: (runtime) => runtime.run(line[0]!, line.slice(1)),
  parse,
});

const isLittleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Lists of sources; of each list the first that can be read and has a route counts. */
function sourcesOf(platform: string): Source[][] {
  switch (platform) {
    case "linux":
    case "android":
      return [[
        file("/proc/net/route", (text) => parseProcRoute(text, isLittleEndian)),
        program("ip", ["ip", "-4", "route", "show", "default"], parseIpRoute),
      ], [
        file("/proc/net/ipv6_route", parseProcIpv6Route),
        program("ip", ["ip", "-6", "route", "show", "default"], parseIpRoute),
      ]];
    case "win32":
      return [[
        program(
          "powershell",
          ["powershell.exe", "-NoProfile", "-NonInteractive", "-Command", NET_ROUTE_SCRIPT],
          parseNetRoute,
        ),
        program("route-print", ["route.exe", "print"], parseRoutePrint),
      ]];
    default:
      return [[
        program("netstat", ["netstat", "-rn"], parseNetstat),
        program("route", ["route", "-n", "get", "default"], parseRouteGet),
        program("route", ["route", "-n", "get", "-inet6", "default"], parseRouteGet),
      ]];
  }
}

/**
 * The gateways of this host's default routes, the most likely way out first: real interfaces
 * before tunnels and container bridges, IPv4 before IPv6, then by metric.
 *
 * @returns An empty list where there is none or the system does not say.
 * @throws {NatError} `permission` where the runtime forbids every way to find out.
 *
 * @example
 * ```ts
 * import { findGateways } from "./mod.ts";
 * import { nodeRuntime } from "../node.ts";
 * for (const { address, localAddress } of await findGateways(nodeRuntime())) {
 *   console.log(`${address} from ${localAddress}`);
 * }
 * ```
 */
export async function findGateways(runtime: DiscoveryRuntime): Promise<GatewayCandidate[]> {
  const found = await Promise.all(
    sourcesOf(runtime.platform).map((sources) => readFirst(runtime, sources)),
  );
  const refusals = found.filter((result) => result instanceof NatError);
  const routes = found.flatMap((result) => result instanceof NatError ? [] : result);
  if (routes.length === 0 && refusals.length === found.length) throw refusals[0];
  if (routes.length === 0) return [];
  const interfaces = readInterfaces(runtime);
  const avoid = await readFleeting(runtime);
  return rankRoutes(routes).map((route) => {
    const name = route.interface ?? nameOf(interfaces, route);
    const family = familyOf(route.gateway);
    return {
      address: route.gateway,
      family,
      interface: name,
      localAddress: route.localAddress ?? localToward(interfaces, route.gateway, name, avoid),
      metric: route.metric,
      source: route.source,
    };
  });
}

/** The routes of the first source that has any; an error where the runtime forbids them all. */
async function readFirst(
  runtime: DiscoveryRuntime,
  sources: readonly Source[],
): Promise<(DefaultRoute & { source: GatewaySource })[] | NatError> {
  let refusal: unknown;
  let isRefused = true;
  for (const { name, read, parse } of sources) {
    try {
      const text = await read(runtime);
      const routes = parse(text).map((route) => ({ ...route, source: name }));
      // A table that was seen whole and has no default route needs no second opinion.
      if (routes.length > 0 || (name === "proc" && text.length < HUGE_TABLE)) return routes;
      isRefused = false;
    } catch (error) {
      if (isPermission(error)) refusal = error;
      else isRefused = false;
    }
  }
  if (!isRefused) return [];
  const flag = `--allow-run=${programsOf(sources).join(",")}`;
  return new NatError(
    "permission",
    `Cannot look up the default gateway: ${flag} (or --allow-all) is needed; a gateway that is ` +
      "named needs none",
    { cause: refusal },
  );
}

function programsOf(sources: readonly Source[]): string[] {
  const names: Record<GatewaySource, string> = {
    "proc": "",
    "ip": "ip",
    "netstat": "netstat",
    "route": "route",
    "powershell": "powershell.exe",
    "route-print": "route.exe",
  };
  return [...new Set(sources.map(({ name }) => names[name]).filter((name) => name !== ""))];
}

function isPermission(error: unknown): boolean {
  return /^(NotCapable|PermissionDenied|EACCES|EPERM|ERR_ACCESS_DENIED|permission)$/
    .test(errorCode(error));
}

/** The interfaces, or none where the runtime forbids: a gateway without local address is of use. */
function readInterfaces(runtime: DiscoveryRuntime): InterfaceAddress[] {
  try {
    return runtime.interfaces();
  } catch {
    return [];
  }
}

async function readFleeting(runtime: DiscoveryRuntime): Promise<Set<string>> {
  if (runtime.platform !== "linux") return new Set();
  try {
    return parseFleetingAddresses(await runtime.readTextFile("/proc/net/if_inet6"));
  } catch {
    return new Set();
  }
}

/** The name of the interface by the host's address on it, or by the zone (Windows' index). */
function nameOf(
  interfaces: readonly InterfaceAddress[],
  { gateway, localAddress }: DefaultRoute,
): string | undefined {
  const zone = zoneOf(gateway);
  return interfaces.find(({ address }) =>
    address === localAddress || (zone !== undefined && zoneOf(address) === zone)
  )?.name;
}

function localToward(
  interfaces: readonly InterfaceAddress[],
  gateway: string,
  name: string | undefined,
  avoid: ReadonlySet<string>,
): string | undefined {
  const near = bestInterfaceAddress(
    name === undefined ? interfaces : interfaces.filter((one) => one.name === name),
    gateway,
  );
  if (familyOf(gateway) === 4 && near) return near.address;
  const options = name === undefined ? { avoid } : { interface: name, avoid };
  return pickLocalAddress(interfaces, familyOf(gateway), options) ?? near?.address;
}
