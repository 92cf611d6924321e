/**
 * The simulated gateway's events in the words of the command line: endpoints, plain names, no
 * bytes.
 *
 * @module
 */
import { formatCidr, isWildcard } from "../../../core/cidr.ts";
import { dropUndefined } from "../../../core/defined.ts";
import type { Endpoint, Instant } from "../../../core/machine.ts";
import { PROTOCOL_NUMBER, secondsUntil } from "../../../core/mapping.ts";
import { NATPMP_OPCODE } from "../../../core/natpmp/codec.ts";
import type { TableEntry } from "../../../core/table/entry.ts";
import type { ServerEvent, ServerRequest } from "../../../core/table/server_request.ts";
import type { GatewayCliEvent } from "../events.ts";

/** What opcodes ask for. */
const OPERATIONS = { pcp: ["announce", "map", "peer"], "nat-pmp": ["address", "map", "map"] };

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
  const left = secondsUntil(entry.expiresAt, now);
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
export function toCliEvent(event: ServerEvent, now: Instant): GatewayCliEvent {
  switch (event.type) {
    case "mapping":
      return { event: "mapping", change: event.change, ...entryFields(event.entry, now) };
    case "request": {
      const { via, from } = event.request;
      return { event: "request", via, from, ...requestFields(event.request) };
    }
    case "response":
      return { event: "response", via: event.via, to: event.to, ...responseFields(event) };
  }
}

function requestFields(request: ServerRequest): Record<string, unknown> {
  const { via, operation, protocol, internal, suggested, remote, lifetimeSeconds } = request;
  if (via === "upnp") return upnpRequestFields(request);
  if (operation === "address" || operation === "announce") return { operation };
  return dropUndefined({
    // A deletion is the same request with lifetime 0.
    operation: remote ? "peer" : "map",
    protocol: protocolName(protocol),
    internal,
    suggested: suggestion(suggested),
    remote,
    lifetimeSeconds,
  });
}

function upnpRequestFields(request: ServerRequest): Record<string, unknown> {
  const { operation, action, protocol, internal, suggested, lifetimeSeconds } = request;
  return dropUndefined({
    operation,
    action,
    protocol: protocol === 0 ? undefined : protocolName(protocol),
    internal: internal.port !== 0 ? internal : undefined,
    suggested: suggestion(suggested),
    lifetimeSeconds: operation === "map" ? lifetimeSeconds : undefined,
  });
}

function responseFields(event: ServerEvent & { type: "response" }): Record<string, unknown> {
  if (event.via === "upnp") {
    const { operation, action, result, resultCode, external, lifetimeSeconds } = event;
    const isAddress = operation === "address";
    return dropUndefined({
      operation,
      action,
      result,
      resultCode,
      address: isAddress ? external?.address : undefined,
      external: isAddress ? undefined : external,
      lifetimeSeconds,
    });
  }
  const { via, opcode, result, resultCode, external, lifetimeSeconds, epochSeconds } = event;
  const isAddress = via === "nat-pmp" && opcode === NATPMP_OPCODE.ADDRESS;
  return dropUndefined({
    operation: isAddress && event.isUnsolicited ? "announce" : OPERATIONS[via][opcode] ?? opcode,
    result,
    resultCode,
    address: isAddress ? external?.address : undefined,
    external: isAddress ? undefined : external,
    lifetimeSeconds,
    epochSeconds,
    isUnsolicited: event.isUnsolicited || undefined,
  });
}
