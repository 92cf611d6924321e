/**
 * What a NAT-PMP server does to the table at a client's wish: make, renew and delete mappings.
 *
 * @module
 */
import type { Endpoint, Instant } from "../machine.ts";
import { PROTOCOL_NUMBER, type Transport } from "../mapping.ts";
import type { TableEntry, TableFault } from "../table/entry.ts";
import { NATPMP_RESULT, type NatPmpMapFields } from "./codec.ts";
import type { NatPmpServerSettings } from "./server_options.ts";

/** What a mapping request comes to. */
export interface MapOutcome {
  /** RFC 6886 §3.5. */
  readonly resultCode: number;
  /** 0 where nothing was made. */
  readonly externalPort: number;
  /** 0 where nothing was made. */
  readonly lifetimeSeconds: number;
}

/** Nothing was made, or what was there is deleted (result 0). */
export function failed(resultCode: number): MapOutcome {
  return { resultCode, externalPort: 0, lifetimeSeconds: 0 };
}

/** Serves a mapping request; `existing` is the inbound mapping of its internal endpoint. */
export function serveMapping(
  settings: NatPmpServerSettings,
  request: NatPmpMapFields,
  from: Endpoint,
  existing: TableEntry | undefined,
  now: Instant,
): MapOutcome {
  if (request.lifetimeSeconds > 0) return map(settings, request, from, existing, now);
  return failed(
    request.internalPort > 0
      ? deleteOne(settings, existing, now)
      : deleteAll(settings, request.protocol, from.address, now),
  );
}

function map(
  settings: NatPmpServerSettings,
  request: NatPmpMapFields,
  from: Endpoint,
  existing: TableEntry | undefined,
  now: Instant,
): MapOutcome {
  const { table } = settings, { internalPort } = request;
  // Internal port 0 would be a mapping of all ports, which NAT-PMP cannot ask for.
  if (internalPort === 0) return failed(NATPMP_RESULT.NOT_AUTHORIZED);
  const address = table.externalAddressFor(from.address);
  if (address === undefined) return failed(NATPMP_RESULT.NETWORK_FAILURE);
  const lifetimeSeconds = Math.min(request.lifetimeSeconds, settings.maxLifetimeSeconds);
  const expiresAt = now + 1000 * lifetimeSeconds;
  const granted = (entry: TableEntry): MapOutcome => ({
    resultCode: NATPMP_RESULT.SUCCESS,
    // The port may be one of a set of adjoining ports.
    externalPort: entry.external.port + internalPort - entry.internal.port,
    lifetimeSeconds,
  });
  if (existing && !isTakenOver(settings, existing)) {
    // What another protocol made is not shortened: that protocol's client counts on it.
    const isOwn = existing.origin === "nat-pmp";
    const until = isOwn ? expiresAt : Math.max(expiresAt, existing.expiresAt);
    table.renew(existing, { expiresAt: until, requester: from });
    return granted(existing);
  }
  const wish = existing ? existing.external.port : request.suggestedExternalPort;
  if (existing) table.remove(existing, now);
  const wanted: Wanted = {
    number: PROTOCOL_NUMBER[request.protocol],
    internalPort,
    address,
    from,
    expiresAt,
  };
  const entry = create(settings, wanted, wish, now);
  return typeof entry === "string" ? failed(NATPMP_RESULT.OUT_OF_RESOURCES) : granted(entry);
}

function isTakenOver({ takesOver }: NatPmpServerSettings, existing: TableEntry): boolean {
  return takesOver && existing.kind === "explicit" && existing.origin !== "nat-pmp" &&
    existing.size === 1;
}

interface Wanted {
  readonly number: number;
  readonly internalPort: number;
  readonly address: string;
  readonly from: Endpoint;
  readonly expiresAt: Instant;
}

function create(
  { table, portChoice }: NatPmpServerSettings,
  { number, internalPort, address, from, expiresAt }: Wanted,
  wish: number,
  now: Instant,
): TableEntry | TableFault {
  const attempt = (suggestedPort: number, isExact: boolean): TableEntry | TableFault =>
    table.mapInbound({
      origin: "nat-pmp",
      protocol: number,
      internal: { address: from.address, port: internalPort },
      suggestedAddress: address,
      suggestedPort,
      isExact,
      requester: from,
      reserveCompanion: true,
      expiresAt,
    }, now);
  // A flow that went out already has its external endpoint, wherever that is (PMP-S-16).
  if (table.outbounds(number, from.address, internalPort).length > 0) return attempt(wish, false);
  // "Exactly this address" is what keeps the mapping on the one address that the client knows.
  if (portChoice === "any") {
    const entry = wish === 0 ? "external-unavailable" : attempt(wish, true);
    return entry === "external-unavailable" ? attempt(0, true) : entry;
  }
  const first = wish || internalPort;
  for (let i = 0; i < 65535; i++) {
    const entry = attempt((first - 1 + i) % 65535 + 1, true);
    if (entry !== "external-unavailable") return entry;
  }
  return "no-resources";
}

/** The result code. */
function deleteOne(
  { table, deletes }: NatPmpServerSettings,
  existing: TableEntry | undefined,
  now: Instant,
): number {
  if (!existing) return NATPMP_RESULT.SUCCESS;
  if (existing.kind === "static") return NATPMP_RESULT.NOT_AUTHORIZED;
  if (deletes === "own" && existing.origin !== "nat-pmp") return NATPMP_RESULT.SUCCESS;
  // One port of a set cannot go alone, and NAT-PMP did not make the set.
  if (existing.size > 1) return NATPMP_RESULT.NOT_AUTHORIZED;
  table.remove(existing, now);
  return NATPMP_RESULT.SUCCESS;
}

/** The result code. */
function deleteAll(
  settings: NatPmpServerSettings,
  protocol: Transport,
  client: string,
  now: Instant,
): number {
  let isComplete = true;
  for (const entry of settings.table.entriesOf(client)) {
    const isAsked = settings.deleteAll === "both" || entry.protocol === PROTOCOL_NUMBER[protocol];
    if (!isAsked || entry.kind === "outbound") continue;
    if (entry.kind === "static") isComplete = false;
    else if (settings.deletes === "all" || entry.origin === "nat-pmp") {
      settings.table.remove(entry, now);
    }
  }
  return isComplete ? NATPMP_RESULT.SUCCESS : NATPMP_RESULT.NOT_AUTHORIZED;
}
