/**
 * What a PCP server's answers are made of.
 *
 * @module
 */
import { familyOf, withoutZone } from "../ip.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { TableEntry } from "../table/mod.ts";
import type { PcpOption } from "./options.ts";
import type { PcpServerRequest } from "./server_options.ts";
import type { KnownRequest } from "./server_request.ts";

/** The lifetime that stands for "without end" in an answer (PCP-S-29). */
const FOREVER_SECONDS = 0xffff_ffff;

/** Whole seconds until the lease ends. */
export function remainingSeconds(entry: TableEntry, now: Instant): number {
  if (entry.expiresAt === Infinity) return FOREVER_SECONDS;
  return Math.max(0, Math.ceil((entry.expiresAt - now) / 1000));
}

/** What an option says in the answer about that mapping: nothing, where it was not granted. */
export function granted(option: PcpOption, entry: TableEntry): PcpOption[] {
  if (option.type === "port-set") {
    if (entry.size === 1) return [];
    return [{
      type: "port-set",
      size: entry.size,
      firstInternalPort: entry.internal.port,
      parity: option.parity,
    }];
  }
  return option.type === "description" && entry.kind === "static" ? [] : [option];
}

/** The options that a mapping update has to carry. */
export function updateOptions(entry: TableEntry): PcpOption[] {
  const { internal, requester, filters, size } = entry;
  const options: PcpOption[] = [];
  if (withoutZone(requester!.address) !== internal.address) {
    options.push({ type: "third-party", internalAddress: internal.address });
  }
  for (const { prefix, port } of filters) {
    options.push({
      type: "filter",
      prefixLength: prefix.family === 4 ? prefix.prefixLength + 96 : prefix.prefixLength,
      remotePort: port,
      remoteAddress: prefix.address,
    });
  }
  // Without it nobody could tell which ports the set has.
  if (size > 1) {
    const parity = (internal.port & 1) === (entry.external.port & 1);
    options.push({ type: "port-set", size, firstInternalPort: internal.port, parity });
  }
  return options;
}

/** A request as the policy and the trace see it. */
export function describe(request: KnownRequest, from: Endpoint, address: string): PcpServerRequest {
  const { kind, lifetimeSeconds } = request;
  if (kind === "announce") {
    const nothing = { address: familyOf(address) === 4 ? "0.0.0.0" : "::", port: 0 };
    return {
      kind,
      from,
      lifetimeSeconds,
      protocol: 0,
      internal: { address, port: 0 },
      suggested: nothing,
    };
  }
  return {
    kind,
    from,
    lifetimeSeconds,
    protocol: request.protocol,
    internal: { address, port: request.internalPort },
    suggested: { address: request.suggestedAddress, port: request.suggestedPort },
    ...kind === "peer"
      ? { remote: { address: request.remoteAddress, port: request.remotePort } }
      : undefined,
  };
}
