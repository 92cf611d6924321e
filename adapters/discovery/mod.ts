/**
 * Finds the gateways that this host sends through, what takes its traffic past them, and whether
 * any of that changed.
 *
 * @module
 */
import { NatError } from "../../core/errors.ts";
import { type Family, familyOf } from "../../core/ip.ts";
import type { InterfaceAddress } from "../runtime.ts";
import { farReaching } from "./local_address.ts";
import { bestRoute, isVirtualInterface, PUBLIC_ADDRESS, rankRoutes } from "./route.ts";
import { nameInterface, wayOf } from "./source_toward.ts";
import {
  askSystem,
  type DiscoveryRuntime,
  type FoundRoute,
  type GatewaySource,
  interfacesOrNone,
  readFleeting,
  readRoutes,
  refusalError,
  type WayOut,
} from "./system_view.ts";

export { isVirtualInterface } from "./route.ts";
export { bestInterfaceAddress, pickLocalAddress, type PickOptions } from "./local_address.ts";
export { sourceToward } from "./source_toward.ts";
export type { DiscoveryRuntime, GatewaySource } from "./system_view.ts";

/** A gateway of this host. */
export interface GatewayCandidate {
  /** Canonical, with the zone where it is link-local. */
  readonly address: string;
  /** 4 or 6. */
  readonly family: Family;
  /** The name of the interface toward it, where the system tells it. */
  readonly interface: string | undefined;
  /** This host's address toward it: IPv6 a global one that stays where there is one (PCP-C-24). */
  readonly localAddress: string | undefined;
  /** The route's metric: lower comes first, within a family. */
  readonly metric: number;
  /** Where it was found. */
  readonly source: GatewaySource;
}

/**
 * Traffic to the internet goes past the first gateway, or by none: a tunnel (a VPN) takes it. What
 * comes in by a port opened at that gateway would be answered through the tunnel.
 */
export interface Detour {
  /** Which traffic. */
  readonly family: Family;
  /** The interface that takes it, where it is known. */
  readonly interface: string | undefined;
  /** This host's address on that interface. */
  readonly localAddress: string | undefined;
  /** The gateway on that way, where the routing table names one. */
  readonly gateway: string | undefined;
  /** The gateway that is passed by, where there is one: the LAN's. */
  readonly passes: string | undefined;
}

/** How this host is connected. */
export interface Network {
  /** The most likely way out first. */
  readonly gateways: readonly GatewayCandidate[];
  /** At most one a family. */
  readonly detours: readonly Detour[];
}

const PUBLIC = [PUBLIC_ADDRESS[4], PUBLIC_ADDRESS[6]];

/**
 * How this host is connected: the gateways of its routes to the internet, and what takes its
 * traffic past them. Gateways come real interfaces before tunnels and container bridges, IPv4
 * before IPv6, then as the system would take them.
 *
 * @throws {NatError} `permission` where the runtime forbids every way to find out.
 */
export async function readNetwork(runtime: DiscoveryRuntime): Promise<Network> {
  const interfaces = interfacesOrNone(runtime);
  const [{ routes: found, refusal }, ...asked] = await Promise.all([
    readRoutes(runtime, PUBLIC),
    askWayOut(runtime, interfaces, 4),
    askWayOut(runtime, interfaces, 6),
  ]);
  if (refusal) {
    const hint = "; a gateway that is named needs none";
    throw refusalError("Cannot look up the default gateway", refusal, hint);
  }
  const routes = found.map((route) => ({ ...route, ...nameInterface(route, interfaces) }));
  const { addresses: avoid } = routes.some(({ family }) => family === 6)
    ? await readFleeting(runtime, interfaces)
    : { addresses: new Set<string>() };
  const ways = asked.map((way, i) => completeWay(way, i === 0 ? 4 : 6, routes, interfaces, avoid));
  const gateways = rankRoutes([...routes, ...ways.flatMap((way) => routeOfRules(way, routes))])
    .map((route) => ({
      address: route.gateway,
      family: familyOf(route.gateway),
      ...wayOf(route, interfaces, avoid),
      metric: route.metric,
      source: route.source,
    }));
  const detours = ways.flatMap((way) => way ? detourOf(way, gateways) : []);
  return { gateways, detours };
}

/**
 * The gateways of {@linkcode readNetwork}.
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
  return [...(await readNetwork(runtime)).gateways];
}

/** The way of a family's traffic to the internet. */
type FamilyWay = WayOut & { readonly family: Family };

/** Whether the host has a choice: else there is nothing to ask, and no program to run. */
function hasTwoInterfaces(interfaces: readonly InterfaceAddress[], family: Family): boolean {
  return new Set(farReaching(interfaces, family).map(({ name }) => name)).size > 1;
}

function askWayOut(
  runtime: DiscoveryRuntime,
  interfaces: readonly InterfaceAddress[],
  family: Family,
): Promise<WayOut | undefined | "unknown"> {
  if (!hasTwoInterfaces(interfaces, family)) return Promise.resolve("unknown");
  return askSystem(runtime, PUBLIC_ADDRESS[family], interfaces);
}

/** What the system said, completed from its table; the table's word where it said nothing. */
function completeWay(
  asked: WayOut | undefined | "unknown",
  family: Family,
  routes: readonly FoundRoute[],
  interfaces: readonly InterfaceAddress[],
  avoid: ReadonlySet<string>,
): FamilyWay | undefined {
  if (asked === undefined) return undefined;
  const own = routes.filter((route) => route.family === family);
  const isUnknown = asked === "unknown";
  const route = bestRoute(
    isUnknown
      ? own
      : own.filter((one) => wayOf(one, interfaces, avoid).interface === asked.interface),
  );
  if (!isUnknown) return { ...asked, family, gateway: asked.gateway ?? route?.gateway };
  return route && { ...wayOf(route, interfaces, avoid), family, gateway: route.gateway };
}

/** A gateway that only rules lead to stands in no table that was read. */
function routeOfRules(way: FamilyWay | undefined, routes: readonly FoundRoute[]): FoundRoute[] {
  if (way?.gateway === undefined) return [];
  if (routes.some(({ gateway }) => gateway === way.gateway)) return [];
  const { family, gateway, interface: name, localAddress } = way;
  const prefixLength = family === 4 ? 32 : 128;
  const route = { family, prefixLength, gateway, interface: name, metric: 0 } as const;
  // IPv6: the system's own choice may be a temporary address.
  const own = family === 4 && localAddress !== undefined ? { localAddress } : {};
  return [{ ...route, ...own, source: "ip" }];
}

function detourOf(way: FamilyWay, gateways: readonly GatewayCandidate[]): Detour[] {
  const first = gateways.find(({ family }) => family === way.family);
  const isKnown = way.interface !== undefined && (!first || first.interface !== undefined);
  if (!isKnown || first?.interface === way.interface) return [];
  return [{
    family: way.family,
    interface: way.interface,
    localAddress: way.localAddress,
    gateway: way.gateway,
    passes: first?.address,
  }];
}

/** What a detour means for who opens a port, as a sentence. */
export function explainDetour({ family, interface: name, gateway, passes }: Detour): string {
  const kind = name !== undefined && isVirtualInterface(name) ? "tunnel" : "interface";
  const what = `IPv${family} traffic leaves through the ${kind} ${name}`;
  const own = gateway === undefined
    ? "whose gateway no route names"
    : `whose gateway is ${gateway}`;
  return passes === undefined
    ? `${what}, ${own}: name it with --gateway`
    : `${what}, ${own}, and not through ${passes}: a port opened at ${passes} may not be ` +
      "reachable; --gateway names the one to ask";
}

/** The error where {@linkcode readNetwork} finds no gateway, of a family or at all. */
export function gatewayNotFound({ detours }: Network, family?: Family): NatError {
  const detour = detours.find((one) => family === undefined || one.family === family);
  const ofFamily = family === undefined ? "" : ` for IPv${family}`;
  const why = detour === undefined
    ? `this host has no default route${ofFamily}; --gateway names one`
    : explainDetour(detour);
  return new NatError("gateway-not-found", `Cannot find a gateway${ofFamily}: ${why}`);
}

/**
 * The addresses by which others reach this host where they get to its networks: those of its
 * interfaces that stay, IPv4 before IPv6. None where the runtime forbids to look.
 */
export async function readLocalAddresses(runtime: DiscoveryRuntime): Promise<string[]> {
  const interfaces = interfacesOrNone(runtime);
  const { addresses: fleeting } = await readFleeting(runtime, interfaces);
  return [...farReaching(interfaces, 4), ...farReaching(interfaces, 6)]
    .map(({ address }) => address).filter((address) => !fleeting.has(address));
}

/** What {@linkcode networkFingerprint} reads. */
export interface NetworkFingerprint {
  /** Differs wherever routes, addresses, their states or the ways out do. */
  readonly text: string;
  /** After how long it is worth being read again, milliseconds: seconds, by what reading costs. */
  readonly readAgainMs: number;
}

/** Files and a socket: less than a millisecond. Programs: some. A router's table: more. */
const CHEAP_MS = 2_000, DEAR_MS = 5_000;

/**
 * All that discovery goes by, as one text, to be compared with an earlier one: routes to the
 * internet, the addresses of interfaces, which of them are temporary or deprecated, and from where
 * the system would send. What cannot be read counts as unchanging.
 */
export async function networkFingerprint(runtime: DiscoveryRuntime): Promise<NetworkFingerprint> {
  const interfaces = interfacesOrNone(runtime);
  const [read, fleeting, ...ways] = await Promise.all([
    readRoutes(runtime, PUBLIC, true),
    // Windows takes a second to tell the states of addresses.
    runtime.platform === "win32" ? undefined : readFleeting(runtime, interfaces),
    askWayOut(runtime, interfaces, 4),
    askWayOut(runtime, interfaces, 6),
  ]);
  const lines = [
    ...interfaces.map(({ name, address, prefixLength }) => `${name} ${address}/${prefixLength}`),
    ...read.routes.map(({ family, prefixLength, gateway, interface: name, metric }) =>
      `route ${family} /${prefixLength} via ${gateway} dev ${name} metric ${metric}`
    ),
    ...[...fleeting?.addresses ?? []].map((address) => `fleeting ${address}`),
    ...ways.flatMap((way) =>
      typeof way === "object" ? `from ${way.localAddress} by ${way.gateway}` : []
    ),
  ];
  const hasRun = !runtime.addressToward && ways.some((way) => way !== "unknown");
  const isCheap = read.isCheap && (fleeting?.isCheap ?? true) && !hasRun;
  return { text: lines.sort().join("\n"), readAgainMs: isCheap ? CHEAP_MS : DEAR_MS };
}
