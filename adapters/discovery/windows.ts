/**
 * Windows' routing table as text: PowerShell's `Get-NetRoute` as JSON, and `route print`.
 *
 * Windows spells zones as interface indexes.
 *
 * @module
 */
import { type DefaultRoute, makeRoute, routeLines } from "./route.ts";

/** The PowerShell script whose output {@linkcode parseNetRoute} reads; words, not a table, so that
 * no language and no column width matters. */
export const NET_ROUTE_SCRIPT: string =
  "Get-NetRoute -DestinationPrefix '0.0.0.0/0','::/0' -ErrorAction SilentlyContinue | " +
  "Select-Object NextHop,InterfaceAlias,InterfaceIndex,RouteMetric,InterfaceMetric | " +
  "ConvertTo-Json -Compress";

/** The default routes that {@linkcode NET_ROUTE_SCRIPT} prints: one object, or an array of them. */
export function parseNetRoute(text: string): DefaultRoute[] {
  let parsed: unknown;
  try {
    // PowerShell may begin with a byte order mark.
    parsed = JSON.parse(text.replace(/^\uFEFF/, ""));
  } catch {
    return [];
  }
  const routes: DefaultRoute[] = [];
  for (const entry of Array.isArray(parsed) ? parsed : [parsed]) {
    const { NextHop, InterfaceAlias, InterfaceIndex, RouteMetric, InterfaceMetric } = Object(entry);
    if (typeof NextHop !== "string") continue;
    const name = typeof InterfaceAlias === "string" ? InterfaceAlias : undefined;
    const metric = Number(RouteMetric ?? 0) + Number(InterfaceMetric ?? 0);
    const zone = InterfaceIndex === undefined ? undefined : String(InterfaceIndex);
    const route = makeRoute(NextHop, name, metric, zone);
    if (route) routes.push(route);
  }
  return routes;
}

/**
 * The default routes of `route print`. Titles depend on the system's language, so lines are known
 * by their shape: IPv4 has five columns (a persistent route has four), IPv6 begins with the
 * interface's index and may continue on the next line.
 */
export function parseRoutePrint(text: string): DefaultRoute[] {
  const routes: DefaultRoute[] = [];
  let wrapped: RegExpExecArray | null = null;
  for (const line of routeLines(text)) {
    const v4 = /^\s*0\.0\.0\.0\s+0\.0\.0\.0\s+([\d.]+)\s+([\d.]+)\s+(\d+)$/.exec(line);
    if (v4) {
      const route = makeRoute(v4[1]!, undefined, Number(v4[3]));
      if (route) routes.push({ ...route, localAddress: v4[2]! });
    }
    const v6 = /^\s*(\d+)\s+(\d+)\s+::\/0(?:\s+(\S+))?$/.exec(line);
    const gateway = v6?.[3] ?? (wrapped && /^\s+([0-9a-f:]+)$/i.exec(line)?.[1]);
    const row: RegExpExecArray | null = v6 ?? wrapped;
    wrapped = v6 && v6[3] === undefined ? v6 : null;
    if (!row || !gateway) continue;
    const route = makeRoute(gateway, undefined, Number(row[2]), row[1]);
    if (route) routes.push(route);
  }
  return routes;
}
