/**
 * What the system tells of its routes and addresses, by whatever of its ways the runtime may use.
 *
 * Linux: `/proc/net/route`, `/proc/net/ipv6_route`, `/proc/net/if_inet6`, and `ip` where those may
 * not be read (Deno without `--allow-all`). macOS and the BSDs: `netstat`, `route`, `ifconfig`.
 * Windows: PowerShell, `route print`. The first that has an answer counts.
 *
 * @module
 */
import { NatError } from "../../core/errors.ts";
import { type Family, familyOf } from "../../core/ip.ts";
import type { InterfaceAddress, Runtime } from "../runtime.ts";
import { errorCode } from "../udp.ts";
import {
  parseFleetingAddresses,
  parseFleetingIpAddr,
  parseIpRoute,
  parseIpRouteGet,
  parseProcIpv6Route,
  parseProcRoute,
  type RouteAnswer,
} from "./linux.ts";
import { farReaching } from "./local_address.ts";
import type { Route } from "./route.ts";

/** Where a route was found. */
export type GatewaySource = "proc" | "ip" | "netstat" | "route" | "powershell" | "route-print";

/** What discovery needs of a {@linkcode Runtime}. */
export type DiscoveryRuntime = Pick<
  Runtime,
  "platform" | "interfaces" | "readTextFile" | "run" | "addressToward"
>;

/** A route and where it was found. */
export type FoundRoute = Route & { readonly source: GatewaySource };

/** From this length on a table in /proc may have been cut off at some bound, characters. */
const HUGE_TABLE = 10_000_000;

interface Source {
  readonly name: GatewaySource;
  read(runtime: DiscoveryRuntime, toward: string): Promise<string>;
  parse(text: string, toward: string): Route[];
}

interface SourceList {
  readonly families: readonly Family[];
  readonly sources: readonly Source[];
}

const file = (path: string, parse: Source["parse"]): Source => ({
  name: "proc",
  read: (runtime) => runtime.readTextFile(path),
  parse,
});

const program = (name: GatewaySource, line: readonly string[], parse: Source["parse"]): Source => ({
  name,
  read: (runtime) => runtime.run(line[0]!, line.slice(1)),
  parse,
});

/** Router's tables are long: `ip` is asked for the routes to one address only. */
const ipRoute = (flag: "-4" | "-6"): Source => ({
  name: "ip",
  read: (runtime, toward) => runtime.run("ip", [flag, "route", "show", "match", toward]),
  parse: parseIpRoute,
});

const isLittleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

const powershell = (script: string) =>
  ["powershell.exe", "-NoProfile", "-NonInteractive", "-Command", script] as const;

const LINUX: readonly SourceList[] = [{
  families: [4],
  sources: [
    file("/proc/net/route", (text, toward) => parseProcRoute(text, toward, isLittleEndian)),
    ipRoute("-4"),
  ],
}, {
  families: [6],
  sources: [file("/proc/net/ipv6_route", parseProcIpv6Route), ipRoute("-6")],
}];

/** Windows' and the BSDs' words are read by modules that no other system loads. */
type Windows = typeof import("./windows.ts");
type Darwin = typeof import("./darwin.ts");

function windowsSources(
  { NET_ROUTE_SCRIPT, parseNetRoute, parseRoutePrint }: Windows,
  isQuick: boolean,
): readonly SourceList[] {
  const routePrint = program("route-print", ["route.exe", "print"], parseRoutePrint);
  const netRoute = program("powershell", powershell(NET_ROUTE_SCRIPT), parseNetRoute);
  // PowerShell takes a second to start, and names interfaces.
  return [{ families: [4, 6], sources: isQuick ? [routePrint] : [netRoute, routePrint] }];
}

function bsdSources({ parseNetstat, parseRouteGet }: Darwin): readonly SourceList[] {
  /** `route get default` of one family. */
  const routeGet = (family: Family, ...flags: string[]): Source =>
    program(
      "route",
      ["route", "-n", "get", ...flags, "default"],
      (text, toward) => familyOf(toward) === family ? parseRouteGet(text, family) : [],
    );
  const netstat = program("netstat", ["netstat", "-rn"], parseNetstat);
  return [{ families: [4, 6], sources: [netstat, routeGet(4), routeGet(6, "-inet6")] }];
}

/** Lists of sources; of each list the first that can be read and has a route counts. */
async function sourcesOf(platform: string, isQuick: boolean): Promise<readonly SourceList[]> {
  if (isLinux({ platform })) return LINUX;
  if (platform === "win32") return windowsSources(await import("./windows.ts"), isQuick);
  return bsdSources(await import("./darwin.ts"));
}

function isLinux({ platform }: Pick<Runtime, "platform">): boolean {
  return platform === "linux" || platform === "android";
}

/** The routes that lead to some addresses, and how they were come by. */
export interface RoutesRead {
  /** In the order of the sources. */
  readonly routes: FoundRoute[];
  /** Whether files alone were read, and short ones: that costs little enough to do often. */
  readonly isCheap: boolean;
  /** What is missing where the runtime forbids every way. */
  readonly refusal: Refusal | undefined;
}

/** What the runtime wants before it tells. */
export interface Refusal {
  /** The flag, as text. */
  readonly flag: string;
  /** What the runtime said. */
  readonly cause: unknown;
}

/** The error where the runtime does not let us do what is said. */
export function refusalError(what: string, { flag, cause }: Refusal, hint: string = ""): NatError {
  return new NatError("permission", `${what}: ${flag} (or --allow-all) is needed${hint}`, {
    cause,
  });
}

/**
 * Reads the routes that lead to these addresses.
 *
 * @param isQuick Whether to leave out what takes long, at the price of interfaces' names (Windows).
 */
export async function readRoutes(
  runtime: DiscoveryRuntime,
  addresses: readonly string[],
  isQuick: boolean = false,
): Promise<RoutesRead> {
  const all = await sourcesOf(runtime.platform, isQuick);
  const lists = all.flatMap(({ families, sources }) => {
    const wanted = addresses.filter((address) => families.includes(familyOf(address)));
    return wanted.length === 0 ? [] : [readFirst(runtime, sources, wanted)];
  });
  const found = await Promise.all(lists);
  const routes = found.flatMap((read) => read.routes);
  const refusals = found.flatMap(({ refusal }) => refusal ?? []);
  return {
    routes,
    isCheap: found.every((read) => read.isCheap),
    refusal: routes.length === 0 && refusals.length === found.length ? refusals[0] : undefined,
  };
}

/** The routes of the first source that has any. */
async function readFirst(
  runtime: DiscoveryRuntime,
  sources: readonly Source[],
  addresses: readonly string[],
): Promise<RoutesRead> {
  let cause: unknown;
  let isRefused = true;
  for (const { name, read, parse } of sources) {
    try {
      const text = await read(runtime, addresses[0]!);
      const routes = addresses.flatMap((address) => parse(text, address))
        .map((route) => ({ ...route, source: name }));
      // A table that was seen whole and has no route there needs no second opinion.
      if (routes.length > 0 || (name === "proc" && text.length < HUGE_TABLE)) {
        const isCheap = name === "proc" && text.length < HUGE_TABLE / 10;
        return { routes, isCheap, refusal: undefined };
      }
      isRefused = false;
    } catch (error) {
      if (isPermission(error)) cause = error;
      else isRefused = false;
    }
  }
  const refusal = isRefused ? refusalOf(sources, cause) : undefined;
  return { routes: [], isCheap: false, refusal };
}

function refusalOf(sources: readonly Source[], cause: unknown): Refusal {
  const programs: Record<GatewaySource, string> = {
    "proc": "",
    "ip": "ip",
    "netstat": "netstat",
    "route": "route",
    "powershell": "powershell.exe",
    "route-print": "route.exe",
  };
  const names = new Set(sources.map(({ name }) => programs[name]).filter((name) => name !== ""));
  return { flag: `--allow-run=${[...names].join(",")}`, cause };
}

function isPermission(error: unknown): boolean {
  return /^(NotCapable|PermissionDenied|EACCES|EPERM|ERR_ACCESS_DENIED|permission)$/
    .test(errorCode(error));
}

/** The interfaces, or none where the runtime forbids: a gateway without local address is of use. */
export function interfacesOrNone(runtime: DiscoveryRuntime): InterfaceAddress[] {
  try {
    return runtime.interfaces();
  } catch {
    return [];
  }
}

/** Where the system would send, and from where, with what it leaves open. */
export type WayOut = Omit<RouteAnswer, "interface"> & { readonly interface: string | undefined };

/**
 * Asks the system where it would send: a runtime's socket, or `ip route get`. It minds rules and
 * metrics that no table shows.
 *
 * @returns `"unknown"` where nobody can be asked, undefined where nothing leads there.
 */
export async function askSystem(
  runtime: DiscoveryRuntime,
  toward: string,
  interfaces: readonly InterfaceAddress[],
): Promise<WayOut | undefined | "unknown"> {
  if (runtime.addressToward) {
    const localAddress = await runtime.addressToward(toward);
    if (localAddress === undefined) return undefined;
    const name = interfaces.find(({ address }) => address === localAddress)?.name;
    return { interface: name, gateway: undefined, localAddress };
  }
  if (!isLinux(runtime)) return "unknown";
  try {
    const flag = familyOf(toward) === 4 ? "-4" : "-6";
    return parseIpRouteGet(await runtime.run("ip", [flag, "route", "get", toward])) ?? "unknown";
  } catch {
    return "unknown";
  }
}

/** Addresses to take only where there is no other, and how they were come by. */
export interface FleetingRead {
  /** Canonical, without zones. */
  readonly addresses: ReadonlySet<string>;
  /** Whether files alone were read. */
  readonly isCheap: boolean;
}

/**
 * Which IPv6 addresses are temporary, deprecated or not yet to be used. Programs are only asked
 * where there is something to choose from.
 */
export async function readFleeting(
  runtime: DiscoveryRuntime,
  interfaces: readonly InterfaceAddress[],
): Promise<FleetingRead> {
  const none = { addresses: new Set<string>(), isCheap: true };
  if (isLinux(runtime)) {
    try {
      const text = await runtime.readTextFile("/proc/net/if_inet6");
      return { addresses: parseFleetingAddresses(text), isCheap: true };
    } catch {
      // `ip` may do.
    }
  }
  if (!hasChoice(interfaces)) return none;
  try {
    return { addresses: await askFleeting(runtime), isCheap: false };
  } catch {
    return none;
  }
}

async function askFleeting(runtime: DiscoveryRuntime): Promise<Set<string>> {
  if (isLinux(runtime)) {
    return parseFleetingIpAddr(await runtime.run("ip", ["-6", "addr", "show"]));
  }
  if (runtime.platform !== "win32") {
    const { parseFleetingIfconfig } = await import("./darwin.ts");
    return parseFleetingIfconfig(await runtime.run("ifconfig", []));
  }
  const { NET_ADDRESS_SCRIPT, parseFleetingNetAddresses } = await import("./windows.ts");
  const [command, ...args] = powershell(NET_ADDRESS_SCRIPT);
  return parseFleetingNetAddresses(await runtime.run(command, args));
}

/** Whether an interface has several IPv6 addresses beside link-local ones. */
function hasChoice(interfaces: readonly InterfaceAddress[]): boolean {
  const names = farReaching(interfaces, 6).map(({ name }) => name);
  return new Set(names).size < names.length;
}
