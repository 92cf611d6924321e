/**
 * Windows' routing table as text, PowerShell's `Get-NetRoute` as JSON and `route print`, and the
 * states of its IPv6 addresses.
 *
 * Windows spells zones as interface indexes.
 *
 * @module
 */
import { canonicalAddress, familyOf, parseIp, withoutZone } from "../../core/ip.ts";
import { makeRoute, prefixToward, type Route, routeLines } from "./route.ts";

/** The PowerShell script whose output {@linkcode parseNetRoute} reads; words, not a table, so that
 * no language and no column width matters. Default routes, and what tunnels lay over them. */
export const NET_ROUTE_SCRIPT: string =
  "Get-NetRoute -DestinationPrefix '0.0.0.0/0','0.0.0.0/1','128.0.0.0/1','::/0','::/1'," +
  "'8000::/1','2000::/3','2000::/4' -ErrorAction SilentlyContinue | " +
  "Select-Object DestinationPrefix,NextHop,InterfaceAlias,InterfaceIndex,RouteMetric," +
  "InterfaceMetric | ConvertTo-Json -Compress";

/** The PowerShell script whose output {@linkcode parseFleetingNetAddresses} reads. */
export const NET_ADDRESS_SCRIPT: string =
  "Get-NetIPAddress -AddressFamily IPv6 -ErrorAction SilentlyContinue | " +
  "Select-Object IPAddress,@{n='State';e={\"$($_.AddressState)\"}}," +
  "@{n='Suffix';e={\"$($_.SuffixOrigin)\"}} | ConvertTo-Json -Compress";

/** What PowerShell printed as JSON: one object, or an array of them. */
function entries(text: string): Record<string, unknown>[] {
  try {
    // PowerShell may begin with a byte order mark.
    const parsed: unknown = JSON.parse(text.replace(/^\uFEFF/, ""));
    return (Array.isArray(parsed) ? parsed : [parsed]).map(Object);
  } catch {
    return [];
  }
}

/** The routes that {@linkcode NET_ROUTE_SCRIPT} prints and that lead to an address. */
export function parseNetRoute(text: string, toward: string): Route[] {
  const family = familyOf(toward);
  const routes: Route[] = [];
  for (const entry of entries(text)) {
    const { DestinationPrefix, NextHop, InterfaceAlias, InterfaceIndex } = entry;
    if (typeof NextHop !== "string" || typeof DestinationPrefix !== "string") continue;
    const prefixLength = prefixToward(DestinationPrefix, toward);
    if (prefixLength === undefined) continue;
    const name = typeof InterfaceAlias === "string" ? InterfaceAlias : undefined;
    const metric = Number(entry.RouteMetric ?? 0) + Number(entry.InterfaceMetric ?? 0);
    const zone = InterfaceIndex === undefined ? undefined : String(InterfaceIndex);
    routes.push(makeRoute(family, prefixLength, NextHop, name, metric, zone));
  }
  return routes;
}

/**
 * The IPv6 addresses that {@linkcode NET_ADDRESS_SCRIPT} prints and that are a poor choice for a
 * mapping that shall last: those not (or no more) preferred, and those with a random suffix.
 */
export function parseFleetingNetAddresses(text: string): Set<string> {
  const fleeting = new Set<string>();
  for (const { IPAddress, State, Suffix } of entries(text)) {
    if (typeof IPAddress !== "string" || (State === "Preferred" && Suffix !== "Random")) continue;
    const address = canonicalAddress(withoutZone(IPAddress));
    if (address !== undefined) fleeting.add(address);
  }
  return fleeting;
}

/**
 * The routes of `route print` that lead to an address. Titles and "On-link" depend on the system's
 * language, so lines are known by their shape: IPv4 has five columns (a persistent route has four),
 * IPv6 begins with the interface's index and may continue on the next line.
 */
export function parseRoutePrint(text: string, toward: string): Route[] {
  const family = familyOf(toward);
  const routes: Route[] = [];
  let wrapped: RegExpExecArray | null = null;
  for (const line of routeLines(text)) {
    const v4 = /^\s*([\d.]+)\s+([\d.]+)\s+(\S.*?)\s+([\d.]+)\s+(\d+)$/.exec(line);
    if (v4 && family === 4) {
      const prefixLength = prefixToward(`${v4[1]}/${maskLength(v4[2]!)}`, toward);
      if (prefixLength === undefined) continue;
      const route = makeRoute(4, prefixLength, v4[3]!, undefined, Number(v4[5]));
      routes.push({ ...route, localAddress: v4[4]! });
    }
    if (family === 4) continue;
    const v6 = /^\s*(\d+)\s+(\d+)\s+([0-9a-f:]+\/\d+)(?:\s+(\S.*))?$/i.exec(line);
    const gateway = v6?.[4] ?? (wrapped && /^\s+(\S.*)$/i.exec(line)?.[1]);
    const row: RegExpExecArray | null = v6 ?? wrapped;
    wrapped = v6 && v6[4] === undefined ? v6 : null;
    const prefixLength = row && gateway ? prefixToward(row[3]!, toward) : undefined;
    if (!row || !gateway || prefixLength === undefined) continue;
    routes.push(makeRoute(6, prefixLength, gateway, undefined, Number(row[2]), row[1]));
  }
  return routes;
}

function maskLength(mask: string): number {
  const bytes = parseIp(mask) ?? [];
  return [...bytes].reduce((sum, byte) => sum + byte.toString(2).replaceAll("0", "").length, 0);
}
