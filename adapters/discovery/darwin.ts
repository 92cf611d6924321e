/**
 * The routing table of macOS and the BSDs as text, `netstat -rn` and `route -n get default`, and
 * the flags of IPv6 addresses in `ifconfig`.
 *
 * @module
 */
import { canonicalAddress, type Family, familyOf } from "../../core/ip.ts";
import { makeRoute, prefixToward, type Route, routeLines } from "./route.ts";

/**
 * The routes of `netstat -rn` that lead to an address. The system lists the default route in use
 * first; one that only holds for sockets bound to its interface (flag `I`) comes after all others.
 */
export function parseNetstat(text: string, toward: string): Route[] {
  const family = familyOf(toward);
  const routes: Route[] = [];
  let nameColumn = 3;
  let section: Family | undefined;
  for (const line of routeLines(text)) {
    const words = line.trim().split(/\s+/);
    const title = /^Internet(6?):/.exec(line);
    if (title) section = title[1] === "6" ? 6 : 4;
    if (words[0] === "Destination") {
      // Older systems have Refs and Use, some have Mtu and Prio, before the interface.
      nameColumn = words.findIndex((title) => /^(Netif|Iface|Interface)$/i.test(title));
    }
    const [destination, gateway, flags] = words;
    if (!flags?.includes("U") || flags.includes("H")) continue;
    if (/[RB]/.test(flags)) continue;
    if ((section ?? familyOf(gateway!)) !== family) continue;
    const prefixLength = prefixOf(destination!, toward);
    if (prefixLength === undefined) continue;
    const metric = routes.length + (flags.includes("I") ? 1000 : 0);
    const name = words[nameColumn];
    routes.push(makeRoute(family, prefixLength, flags.includes("G") ? gateway! : "", name, metric));
  }
  return routes;
}

/**
 * Destinations leave out zeros at the end: `128.0/1`. A network's without a length is no way out, nor
 * one with a zone: both are no prefixes.
 */
function prefixOf(destination: string, toward: string): number | undefined {
  if (destination === "default") return 0;
  const [address, length] = destination.split("/");
  const missing = address!.includes(":") ? 0 : 4 - address!.split(".").length;
  return prefixToward(`${address}${".0".repeat(Math.max(0, missing))}/${length}`, toward);
}

/** The route of `route -n get default` or `route -n get -inet6 default`, as a list of at most one. */
export function parseRouteGet(text: string, family: Family): Route[] {
  const gateway = /^\s*gateway:\s*(\S+)/m.exec(text)?.[1];
  const name = /^\s*interface:\s*(\S+)/m.exec(text)?.[1];
  return name === undefined ? [] : [makeRoute(family, 0, gateway ?? "", name, 0)];
}

/** The IPv6 addresses in `ifconfig` that are a poor choice for a mapping that shall last. */
export function parseFleetingIfconfig(text: string): Set<string> {
  const fleeting = new Set<string>();
  for (const line of routeLines(text)) {
    const flags =
      /^\s+inet6 ([^\s%]+)\S* .*\b(temporary|deprecated|tentative|detached|duplicated)\b/;
    const address = canonicalAddress(flags.exec(line)?.[1] ?? "");
    if (address !== undefined) fleeting.add(address);
  }
  return fleeting;
}
