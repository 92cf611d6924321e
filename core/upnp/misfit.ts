/**
 * What UPnP cannot do: known without the client, which is far larger.
 *
 * @module
 */
import { misfitOfPort } from "../lease/client.ts";
import type { Wanted } from "../mapping.ts";

/** Why UPnP cannot make a mapping for an address of a family, in words; undefined where it can. */
export function misfitOfIgd(wanted: Wanted, family: 4 | 6): string | undefined {
  return misfitOfPort(wanted) ?? misfitOf(wanted, family);
}

/** What UPnP cannot do of a port's mapping, in words. */
function misfitOf(wanted: Wanted, family: 4 | 6): string | undefined {
  const { filters, internalPort, suggestedPort } = wanted;
  if (family === 6 && wanted.preferFailure && suggestedPort !== internalPort) {
    return `'suggestedExternal.port' must be the internal one in a firewall: current value is ${suggestedPort}`;
  }
  if (filters.length > 1) {
    return `'filters' must hold one host: current length is ${filters.length}`;
  }
  const [filter] = filters;
  if (!filter) return undefined;
  const { prefix } = filter;
  if (prefix.prefixLength < (prefix.family === 4 ? 32 : 128)) {
    return `'filters.prefix' must be one host: current value is ${prefix.address}/${prefix.prefixLength}`;
  }
  return family === 4 && filter.port !== 0
    ? `'filters.port' must be 0: current value is ${filter.port}`
    : undefined;
}
