/**
 * The simulated gateway's events in the words of the command line: endpoints, plain names, no
 * bytes.
 *
 * @module
 */
import { formatCidr, isWildcard } from "../../../core/cidr.ts";
import { dropUndefined } from "../../../core/defined.ts";
import type { GatewayEvent } from "../../../core/gateway/gateway.ts";
import type { Endpoint, Instant } from "../../../core/machine.ts";
import { PROTOCOL_NUMBER } from "../../../core/mapping.ts";
import type { TableEntry } from "../../../core/table/entry.ts";
import type { GatewayCliEvent } from "../events.ts";

const PCP_OPERATIONS = ["announce", "map", "peer"] as const;

/** `"tcp"`, `"udp"`, or IANA's number of another protocol. */
function protocolName(protocol: number): "tcp" | "udp" | number {
  if (protocol === PROTOCOL_NUMBER.tcp) return "tcp";
  return protocol === PROTOCOL_NUMBER.udp ? "udp" : protocol;
}

/** What is suggested, without what is not. */
function suggestion({ address, port }: Endpoint): object | undefined {
  const fields = dropUndefined({
    address: isWildcard(address) ? undefined : address,
    port: port === 0 ? undefined : port,
  });
  return Object.keys(fields).length === 0 ? undefined : fields;
}

/** A mapping of the table; `lifetimeSeconds` is what is left of it, absent where it is static. */
export function entryFields(entry: TableEntry, now: Instant): Record<string, unknown> {
  const { kind, origin, protocol, internal, external, size, remote, description, filters } = entry;
  const left = Math.max(0, Math.ceil((entry.expiresAt - now) / 1000));
  return dropUndefined({
    kind,
    via: origin,
    protocol: protocolName(protocol),
    internal,
    external,
    size: size === 1 ? undefined : size,
    remote,
    lifetimeSeconds: Number.isFinite(left) ? left : undefined,
    description,
    filters: filters.length === 0
      ? undefined
      : filters.map(({ prefix, port }) => ({ prefix: formatCidr(prefix), port })),
  });
}

/** An event as the command line tells it. */
export function toCliEvent(event: GatewayEvent, now: Instant): GatewayCliEvent {
  switch (event.type) {
    case "mapping":
      return { event: "mapping", change: event.change, ...entryFields(event.entry, now) };
    case "request":
      return { event: "request", via: event.via, from: event.from, ...requestFields(event) };
    case "response":
      return { event: "response", via: event.via, to: event.to, ...responseFields(event) };
  }
}

function requestFields(event: GatewayEvent & { type: "request" }): Record<string, unknown> {
  if (event.via === "pcp") {
    const { kind, protocol, internal, suggested, remote, lifetimeSeconds } = event.request;
    if (kind === "announce") return { operation: kind };
    return dropUndefined({
      operation: kind,
      protocol: protocolName(protocol),
      internal,
      suggested: suggestion(suggested),
      remote,
      lifetimeSeconds,
    });
  }
  const { kind: operation, ...rest } = event.request;
  if (event.request.kind !== "map") return { operation, ...rest };
  const { protocol, internalPort, suggestedExternalPort, lifetimeSeconds } = event.request;
  return dropUndefined({
    operation,
    protocol,
    internal: { address: event.from.address, port: internalPort },
    suggested: suggestedExternalPort === 0 ? undefined : { port: suggestedExternalPort },
    lifetimeSeconds,
  });
}

function responseFields(event: GatewayEvent & { type: "response" }): Record<string, unknown> {
  if (event.via === "pcp") {
    const { opcode, result, resultCode, external, lifetimeSeconds, epochSeconds } = event;
    return dropUndefined({
      operation: PCP_OPERATIONS[opcode] ?? opcode,
      result,
      resultCode,
      external,
      lifetimeSeconds,
      epochSeconds,
      isUnsolicited: event.isUnsolicited || undefined,
    });
  }
  const { response, request } = event;
  const { resultName: result, resultCode, lifetimeSeconds, epochSeconds } = response;
  return dropUndefined({
    operation: event.isUnsolicited ? "announce" : request.kind,
    result,
    resultCode,
    address: response.externalAddress,
    external: response.externalPort ? { port: response.externalPort } : undefined,
    lifetimeSeconds,
    epochSeconds,
    isUnsolicited: event.isUnsolicited || undefined,
  });
}
