/**
 * The routing table of macOS and the BSDs as text: `netstat -rn` and `route -n get default`.
 *
 * @module
 */
import { type DefaultRoute, makeRoute, routeLines } from "./route.ts";

/**
 * The default routes of `netstat -rn`. The system lists the one in use first; one that only holds
 * for sockets bound to its interface (flag `I`) comes after all others.
 */
export function parseNetstat(text: string): DefaultRoute[] {
  const routes: DefaultRoute[] = [];
  let nameColumn = 3;
  for (const line of routeLines(text)) {
    const words = line.trim().split(/\s+/);
    if (words[0] === "Destination") {
      // Older systems have Refs and Use, some have Mtu and Prio, before the interface.
      nameColumn = words.findIndex((title) => /^(Netif|Iface|Interface)$/i.test(title));
    }
    const [destination, gateway, flags] = words;
    if (!/^(default|0\.0\.0\.0\/0|::\/0)$/.test(destination!) || !flags?.includes("G")) continue;
    const isScoped = flags.includes("I");
    const route = makeRoute(gateway!, words[nameColumn], routes.length + (isScoped ? 1000 : 0));
    if (route) routes.push(route);
  }
  return routes;
}

/** The route of `route -n get default` or `route -n get -inet6 default`, as a list of at most one. */
export function parseRouteGet(text: string): DefaultRoute[] {
  const gateway = /^\s*gateway:\s*(\S+)/m.exec(text)?.[1];
  const name = /^\s*interface:\s*(\S+)/m.exec(text)?.[1];
  const route = gateway === undefined ? undefined : makeRoute(gateway, name, 0);
  return route ? [route] : [];
}
