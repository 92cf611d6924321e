/**
 * What the actions of an Internet gateway device do (specs of WANIPConnection:1 and :2,
 * WANIPv6FirewallControl:1, WANCommonInterfaceConfig:1, Layer3Forwarding:1), over the mapping table
 * that PCP and NAT-PMP work on, too.
 *
 * A UPnP mapping is known by its external port and protocol; the host that has it may change and
 * renew it by adding it again. Another protocol's mapping of the same inside lasts longer by that;
 * any other is in the way (718, in version 2 729). A remote host becomes the mapping's filter: one
 * remote host a port, as with miniupnpd.
 *
 * @module
 */
import { hostPrefix } from "../cidr.ts";
import { canonicalAddress, familyOf, withoutZone } from "../ip.ts";
import type { Endpoint, Instant } from "../machine.ts";
import { PROTOCOL_NUMBER, type RemoteFilter, secondsUntil } from "../mapping.ts";
import type { InboundRequest, TableEntry, TableFault } from "../table/entry.ts";
import type { ServerRequest } from "../table/server_request.ts";
import type { MappingTable } from "../table/table.ts";
import { readNumber } from "./header.ts";
import {
  FIREWALL_ERROR,
  IGD2_MAX_LEASE_SECONDS,
  IGD_ERROR,
  type IgdServiceKind,
  PINHOLE_MAX_LEASE_SECONDS,
  PORT_LISTING_NAMESPACE,
  UPNP_ERROR,
} from "./igd.ts";
import { type Pinhole, Pinholes } from "./pinholes.ts";
import type { ConnectionSettings, IgdHabits, IgdSettings } from "./server_options.ts";
import type { SoapArguments } from "./soap.ts";
import { escapeXml } from "./xml.ts";

/** A call that the device has read. */
export interface ActionCall {
  /** The kind of service. */
  readonly kind: IgdServiceKind;
  /** The service's version as it was called. */
  readonly version: number;
  /** The action. */
  readonly action: string;
  /** Its arguments: all that it has. */
  readonly args: SoapArguments;
  /** The connection that it is about, where it is about one. */
  readonly connection: ConnectionSettings | undefined;
  /** Who asks. */
  readonly from: Endpoint;
}

/** What an action came to. */
export type ActionOutcome =
  /** What it returns, and for the trace what it granted. */
  | {
    readonly args: SoapArguments;
    readonly external?: Endpoint | undefined;
    readonly lifetimeSeconds?: number | undefined;
  }
  /** An error code. */
  | number
  /** Silence. */
  | "drop";

/** What the actions need to know that the table does not. */
export interface ActionFacts {
  /** The mappings that UPnP shows, the oldest first. */
  readonly entries: () => readonly TableEntry[];
  /** Seconds since the boot. */
  readonly uptimeSeconds: (now: Instant) => number;
  /** The default connection, as Layer3Forwarding tells it. */
  readonly defaultConnection: string;
}

/** A mapping wanted. */
interface Wanted {
  readonly protocol: number;
  readonly externalPort: number;
  readonly internal: Endpoint;
  readonly remoteHost: string;
  readonly description: string;
  readonly leaseSeconds: number;
}

const DONE: ActionOutcome = { args: {} };
const MAX_PORT = 65535;
const MAX_U32 = 0xffff_ffff;
/** A longer description is cut. */
const MAX_DESCRIPTION = 255;
/** A longer list of mappings than a control point takes ends before. */
const MAX_LISTING = 48_000;
/** From this port on a host may open pinholes for itself. */
const MIN_PINHOLE_PORT = 1024;
/** IANA's number of all protocols, as pinholes have it. */
const ANY_PROTOCOL = 65535;
/** UDP, TCP, DCCP, SCTP and UDP-Lite have ports. */
const PORT_PROTOCOLS = [6, 17, 33, 132, 136];
/** What the table takes for a flow that nobody uses any more (RFC 5382, RFC 4787). */
const IDLE_SECONDS: Readonly<Record<number, number>> = { 6: 7440, 17: 120 };
const ACTIONS_THAT_MAP = ["AddPortMapping", "AddAnyPortMapping", "AddPinhole", "UpdatePinhole"];
const ACTIONS_THAT_DELETE = ["DeletePortMapping", "DeletePinhole"];
/** How many of the mappings that were added again are remembered. */
const MAX_REPEATED = 1024;
const NO_ENDPOINT: Endpoint = { address: "0.0.0.0", port: 0 };

/** Whether UPnP can show a mapping: one external port of TCP or UDP that leads to an IPv4 host. */
export function isListed({ kind, protocol, size, internal }: TableEntry): boolean {
  return kind !== "outbound" && (protocol === 6 || protocol === 17) && size === 1 &&
    internal.port !== 0 && familyOf(internal.address) === 4;
}

/** The actions of one device. */
export class IgdActions {
  readonly #settings: IgdSettings;
  readonly #habits: IgdHabits;
  readonly #table: MappingTable;
  readonly #pinholes: Pinholes;
  readonly #facts: ActionFacts;
  /** Mappings added more than once, where that matters. */
  readonly #repeated = new Set<number>();

  /** The device's own. */
  constructor(settings: IgdSettings, facts: ActionFacts) {
    this.#settings = settings;
    this.#habits = settings.habits;
    this.#table = settings.table;
    this.#pinholes = new Pinholes(settings.table);
    this.#facts = facts;
  }

  /** The pinholes. */
  get pinholes(): Pinholes {
    return this.#pinholes;
  }

  /** The call as a policy sees it. */
  describe({ action, args, from }: ActionCall): ServerRequest {
    const address = withoutZone(from.address);
    const protocol = readProtocol(args["NewProtocol"] ?? args["Protocol"] ?? "") ?? 0;
    const externalPort = readNumber(args["NewExternalPort"], MAX_PORT) ?? 0;
    const internalPort = args["NewInternalPort"] ?? args["InternalPort"];
    const client = args["NewInternalClient"] || args["InternalClient"] || address;
    const isMapping = ACTIONS_THAT_MAP.includes(action);
    const external = this.#table.externalAddressFor(address);
    const existing = protocol !== 0 && external !== undefined && externalPort !== 0
      ? this.#table.external(protocol, external, externalPort)
      : undefined;
    const lease = args["NewLeaseDuration"] ?? args["LeaseTime"] ?? args["NewLeaseTime"];
    return {
      via: "upnp",
      action,
      operation: isMapping
        ? "map"
        : ACTIONS_THAT_DELETE.includes(action)
        ? "delete"
        : action === "DeletePortMappingRange"
        ? "delete-all"
        : action === "GetExternalIPAddress"
        ? "address"
        : "read",
      from,
      protocol,
      internal: {
        address: canonicalAddress(client) ?? address,
        port: readNumber(internalPort, MAX_PORT) ?? 0,
      },
      suggested: externalPort === 0 ? NO_ENDPOINT : { address: "0.0.0.0", port: externalPort },
      remote: undefined,
      lifetimeSeconds: isMapping ? readNumber(lease, MAX_U32) ?? 0 : 0,
      nonce: undefined,
      existing,
    };
  }

  /** Does it. */
  perform(call: ActionCall, now: Instant): ActionOutcome {
    const { action, kind } = call;
    const fault = this.#habits.faults?.[action];
    if (fault !== undefined) return fault;
    if (kind === "WANIPConnection" || kind === "WANPPPConnection") {
      return this.#connection(call, call.connection!, now);
    }
    if (kind === "WANIPv6FirewallControl") return this.#firewall(call, now);
    if (action === "GetDefaultConnectionService") {
      return { args: { NewDefaultConnectionService: this.#facts.defaultConnection } };
    }
    return this.#line(action);
  }

  /** The variables of a connection that are told to who subscribes. */
  connectionValues(connection: ConnectionSettings): Record<string, string> {
    return {
      PossibleConnectionTypes: "IP_Routed",
      ConnectionStatus: this.#status(connection),
      ExternalIPAddress: this.#externalAddress(connection, ""),
      PortMappingNumberOfEntries: `${this.#facts.entries().length}`,
    };
  }

  /** The line's status, likewise. */
  linkStatus(): string {
    return this.#table.externalAddresses.some((address) => familyOf(address) === 4) ? "Up" : "Down";
  }

  /** The firewall's variables, likewise. */
  firewallValues(): Record<string, string> {
    const { pinholes } = this.#settings;
    return {
      FirewallEnabled: pinholes === "off" ? "0" : "1",
      InboundPinholeAllowed: pinholes === "allowed" ? "1" : "0",
    };
  }

  #connection(call: ActionCall, connection: ConnectionSettings, now: Instant): ActionOutcome {
    const { action, args, from } = call;
    switch (action) {
      case "GetStatusInfo":
        return {
          args: {
            NewConnectionStatus: this.#status(connection),
            NewLastConnectionError: "ERROR_NONE",
            NewUptime: `${this.#facts.uptimeSeconds(now)}`,
          },
        };
      case "GetConnectionTypeInfo":
        return {
          args: { NewConnectionType: "IP_Routed", NewPossibleConnectionTypes: "IP_Routed" },
        };
      case "GetNATRSIPStatus":
        return { args: { NewRSIPAvailable: "0", NewNATEnabled: "1" } };
      case "GetLinkLayerMaxBitRates":
        return {
          args: { NewUpstreamMaxBitRate: "100000000", NewDownstreamMaxBitRate: "100000000" },
        };
      case "GetExternalIPAddress": {
        const address = this.#externalAddress(connection, withoutZone(from.address));
        const external = address === "" ? undefined : { address, port: 0 };
        return { args: { NewExternalIPAddress: address }, external };
      }
      case "AddPortMapping":
        return this.#add(call, connection, false, now);
      case "AddAnyPortMapping":
        return this.#add(call, connection, true, now);
      case "DeletePortMapping":
        return this.#delete(call, now);
      case "DeletePortMappingRange":
        return this.#deleteRange(call, now);
      case "GetSpecificPortMappingEntry": {
        const entry = this.#named(call);
        if (typeof entry === "number") return entry;
        const { NewRemoteHost: _r, NewExternalPort: _e, NewProtocol: _p, ...target } = this
          .#entryArguments(entry, now);
        return { args: target };
      }
      case "GetGenericPortMappingEntry": {
        const index = readNumber(args["NewPortMappingIndex"], MAX_U32);
        if (index === undefined) return UPNP_ERROR.InvalidArgs;
        const entry = this.#facts.entries()[index];
        if (!entry) return IGD_ERROR.SpecifiedArrayIndexInvalid;
        return { args: this.#entryArguments(entry, now) };
      }
      case "GetListOfPortMappings":
        return this.#list(call, now);
      default:
        // What would end the connection, or change it for everybody.
        return UPNP_ERROR.ActionNotAuthorized;
    }
  }

  #status({ status }: ConnectionSettings): string {
    return status ?? (this.linkStatus() === "Up" ? "Connected" : "Disconnected");
  }

  #externalAddress({ address, status }: ConnectionSettings, client: string): string {
    if (address !== undefined) return address;
    if (status !== undefined && status !== "Connected" && status !== "Up") return "0.0.0.0";
    const own = client === "" || client.includes(":")
      ? this.#table.externalAddresses.find((one) => familyOf(one) === 4)
      : this.#table.externalAddressFor(client);
    return own ?? "";
  }

  #add(
    call: ActionCall,
    connection: ConnectionSettings,
    isAny: boolean,
    now: Instant,
  ): ActionOutcome {
    const isV2 = call.version >= 2;
    const wanted = this.#readWanted(call, isAny);
    if (typeof wanted !== "object") return wanted;
    const { internal } = wanted;
    const address = this.#table.externalAddressFor(internal.address);
    if (address === undefined || this.#status(connection) === "Disconnected") {
      return UPNP_ERROR.ActionFailed;
    }
    const isFull = this.#table.size >= (this.#habits.silentlyFullAt ?? Infinity);
    const { leaseSeconds, protocol, externalPort: port } = wanted;
    const granted = (externalPort: number, on = address): ActionOutcome => ({
      args: isAny ? { NewReservedPort: `${externalPort}` } : {},
      external: { address: on, port: externalPort },
      lifetimeSeconds: Number.isFinite(leaseSeconds) ? leaseSeconds : 0,
    });
    if (isFull && !this.#table.external(protocol, address, port)) {
      return granted(port || internal.port);
    }
    const made = port === 0
      ? IGD_ERROR.ConflictInMappingEntry
      : this.#addAt(wanted, address, call, now);
    if (typeof made !== "number") return granted(port);
    const isTaken = made === IGD_ERROR.ConflictInMappingEntry ||
      made === IGD_ERROR.ConflictWithOtherMechanisms || made === this.#habits.conflictFault;
    if (!isAny || !isTaken) return made;
    // Who asks again, since the answer got lost or the lease is half over, has its port already.
    const own = this.#ownMapping(wanted, address);
    if (own) {
      const again = this.#addAt({ ...wanted, externalPort: own.external.port }, address, call, now);
      return typeof again === "number" ? again : granted(again.external.port);
    }
    const request = mappingRequest({ ...wanted, externalPort: 0 }, address, call.from, now);
    // A host with mappings knows their address, a new one gets any that has a port for it.
    const isExact = this.#table.entriesOf(internal.address).length > 0;
    const other = this.#table.mapInbound({ ...request, isExact }, now);
    if (typeof other !== "string") return granted(other.external.port, other.external.address);
    return this.#faultOf(other === "external-unavailable" ? "no-resources" : other, isV2);
  }

  /** The mapping that UPnP made for that inside on that address. */
  #ownMapping(
    { protocol, internal, remoteHost }: Wanted,
    address: string,
  ): TableEntry | undefined {
    return this.#table.entriesOf(internal.address).find((entry) =>
      entry.origin === "upnp" && entry.kind === "explicit" && entry.size === 1 &&
      entry.protocol === protocol && entry.internal.port === internal.port &&
      entry.external.address === address && this.#remoteHostOf(entry) === remoteHost
    );
  }

  /** Makes, changes or renews the mapping of exactly that external port. */
  #addAt(
    wanted: Wanted,
    address: string,
    { from, version }: ActionCall,
    now: Instant,
  ): TableEntry | number {
    const { protocol, externalPort, internal, description } = wanted;
    const isV2 = version >= 2;
    const existing = this.#table.external(protocol, address, externalPort);
    const isOwn = existing !== undefined && existing.internal.address === internal.address;
    const isSame = isOwn && existing.internal.port === internal.port;
    if (isOwn && this.#habits.repeatFault !== undefined) {
      if (this.#repeated.size >= MAX_REPEATED) this.#repeated.clear();
      this.#repeated.add(existing.id);
      return this.#habits.repeatFault;
    }
    if (existing?.kind === "explicit" && existing.size === 1) {
      const expiresAt = now + 1000 * wanted.leaseSeconds;
      const isNew = this.#table.leaseOf(existing, "upnp") === undefined;
      const isSameHost = this.#remoteHostOf(existing) === wanted.remoteHost;
      if (isSame && (isNew || isSameHost)) {
        const isMaker = existing.origin === "upnp";
        const ends = this.#habits.ignoresRenewal && !isNew ? existing.expiresAt : expiresAt;
        this.#table.renew(existing, {
          by: "upnp",
          expiresAt: ends,
          filters: filtersFor(wanted.remoteHost),
          ...isMaker && { description },
          // A PCP client wants to be told of a move where that client is.
          ...isMaker && existing.nonce === undefined && { requester: from },
        });
        return existing;
      }
      const mayReplace = isOwn && !isNew && isSameHost &&
        !this.#table.isSharedBeside(existing, "upnp");
      if (!mayReplace && !this.#habits.overwrites) return this.#conflict(existing, isV2);
    } else if (existing && !(existing.kind === "outbound" && isSame)) {
      return this.#conflict(existing, isV2);
    }
    const request = mappingRequest(wanted, address, from, now);
    const made = existing?.kind === "explicit"
      ? this.#table.replaceInbound(existing, request, now)
      : this.#table.mapInbound(request, now);
    return typeof made === "string" ? this.#faultOf(made, isV2) : made;
  }

  #conflict({ origin }: TableEntry, isV2: boolean): number {
    if (this.#habits.conflictFault !== undefined) return this.#habits.conflictFault;
    return isV2 && origin !== "upnp"
      ? IGD_ERROR.ConflictWithOtherMechanisms
      : IGD_ERROR.ConflictInMappingEntry;
  }

  #faultOf(fault: TableFault, isV2: boolean): number {
    switch (fault) {
      case "no-resources":
      case "over-quota":
        return this.#habits.fullFault ??
          (isV2 ? IGD_ERROR.NoPortMapsAvailable : UPNP_ERROR.ActionFailed);
      case "external-unavailable":
      case "already-mapped":
        return this.#habits.conflictFault ?? IGD_ERROR.ConflictInMappingEntry;
      case "not-entirely-available":
        return UPNP_ERROR.ActionFailed;
    }
  }

  #readWanted({ args, from, version }: ActionCall, isAny: boolean): Wanted | number | "drop" {
    const isV2 = version >= 2;
    const { wantsUpperCase, isRemoteHostWildcard, samePort } = this.#habits;
    const client = withoutZone(from.address);
    const text = args["NewProtocol"]!;
    const protocol = readProtocol(text);
    if (protocol === undefined || (wantsUpperCase && text !== text.toUpperCase())) {
      return UPNP_ERROR.InvalidArgs;
    }
    const internalPort = readNumber(args["NewInternalPort"], MAX_U32);
    let externalPort = readNumber(args["NewExternalPort"], MAX_U32);
    const lease = readNumber(args["NewLeaseDuration"], MAX_U32);
    const remoteHost = readHost(args["NewRemoteHost"]!);
    const internalClient = args["NewInternalClient"] === ""
      ? client
      : readHost(args["NewInternalClient"]!);
    const isEnabled = readBoolean(args["NewEnabled"]!);
    if (internalPort === undefined || externalPort === undefined || lease === undefined) {
      return UPNP_ERROR.InvalidArgs;
    }
    if (remoteHost === undefined || !internalClient || isEnabled === undefined) {
      return UPNP_ERROR.InvalidArgs;
    }
    if (internalPort > MAX_PORT || externalPort > MAX_PORT) {
      return UPNP_ERROR.ArgumentValueOutOfRange;
    }
    if (internalPort === 0) {
      return isV2 ? IGD_ERROR.WildCardNotPermittedInIntPort : UPNP_ERROR.InvalidArgs;
    }
    if (externalPort === 0 && !isAny) return IGD_ERROR.WildCardNotPermittedInExtPort;
    if (remoteHost !== "" && isRemoteHostWildcard) return IGD_ERROR.RemoteHostOnlySupportsWildcard;
    // RFC 6970 §5.3: a mapping that is there and does nothing cannot be had.
    if (!isEnabled) return UPNP_ERROR.ActionFailed;
    if (familyOf(internalClient) !== 4) return UPNP_ERROR.InvalidArgs;
    if (this.#settings.isSecure && internalClient !== client) {
      return this.#habits.foreignFault ??
        (isV2 ? UPNP_ERROR.ActionNotAuthorized : IGD_ERROR.ConflictInMappingEntry);
    }
    const low = this.#refusePort(internalPort) ??
      (externalPort === 0 ? undefined : this.#refusePort(externalPort));
    if (low !== undefined) return low;
    if (samePort === "required" && externalPort !== internalPort && externalPort !== 0) {
      return IGD_ERROR.SamePortValuesRequired;
    }
    if (samePort === "assumed") externalPort = internalPort;
    const leaseSeconds = this.#grant(lease, isV2);
    if (leaseSeconds === undefined) return this.#leaseFault();
    return {
      protocol,
      externalPort,
      internal: { address: internalClient, port: internalPort },
      remoteHost,
      description: args["NewPortMappingDescription"]!.slice(0, MAX_DESCRIPTION),
      leaseSeconds,
    };
  }

  #refusePort(port: number): number | "drop" | undefined {
    const { minPort = 1, minPortFault = UPNP_ERROR.ActionNotAuthorized } = this.#habits;
    return port < minPort ? minPortFault : undefined;
  }

  #leaseFault(): number {
    const { leases, leaseFault } = this.#habits;
    if (leaseFault !== undefined) return leaseFault;
    return leases === "permanent" ? IGD_ERROR.OnlyPermanentLeasesSupported : UPNP_ERROR.InvalidArgs;
  }

  /** The lease granted, seconds, `Infinity` for one without end; undefined where it is refused. */
  #grant(lease: number, isV2: boolean): number | undefined {
    const { leases, fixedLeaseSeconds, minLeaseSeconds = 0 } = this.#habits;
    if (leases === "permanent" && lease !== 0) return undefined;
    if (leases === "limited" && lease === 0) return undefined;
    if (fixedLeaseSeconds !== undefined) return fixedLeaseSeconds;
    const max = this.#settings.maxLeaseSeconds ?? (isV2 ? IGD2_MAX_LEASE_SECONDS : undefined);
    if (lease === 0) return isV2 && leases !== "permanent" ? max! : Infinity;
    return Math.min(Math.max(lease, minLeaseSeconds), max ?? Infinity);
  }

  /** The mapping that remote host, external port and protocol name, or the code. */
  #named({ args, from }: ActionCall): TableEntry | number {
    const text = args["NewProtocol"]!;
    const protocol = readProtocol(text);
    const port = readNumber(args["NewExternalPort"], MAX_U32);
    const remoteHost = readHost(args["NewRemoteHost"]!);
    const isShouted = text === text.toUpperCase() || !this.#habits.wantsUpperCase;
    if (protocol === undefined || port === undefined || remoteHost === undefined || !isShouted) {
      return UPNP_ERROR.InvalidArgs;
    }
    if (port > MAX_PORT) return UPNP_ERROR.ArgumentValueOutOfRange;
    if (port === 0) return IGD_ERROR.WildCardNotPermittedInExtPort;
    for (const address of this.#ownAddresses(from)) {
      const entry = this.#table.external(protocol, address, port);
      if (entry && isListed(entry) && this.#remoteHostOf(entry) === remoteHost) return entry;
    }
    return IGD_ERROR.NoSuchEntryInArray;
  }

  /** The remote host that a mapping is for, `""` for all. */
  #remoteHostOf(entry: TableEntry): string {
    const [first] = (this.#table.leaseOf(entry, "upnp") ?? entry).filters;
    return first?.prefix.address ?? "";
  }

  /** The external addresses, the client's own first. */
  #ownAddresses({ address }: Endpoint): readonly string[] {
    const own = this.#table.externalAddressFor(withoutZone(address));
    const rest = this.#table.externalAddresses.filter((other) => other !== own);
    return own === undefined ? rest : [own, ...rest];
  }

  #delete(call: ActionCall, now: Instant): ActionOutcome {
    const entry = this.#named(call);
    if (typeof entry === "number") {
      const isNothing = entry === IGD_ERROR.NoSuchEntryInArray && this.#habits.deletesNothing;
      return isNothing ? DONE : entry;
    }
    if (this.#habits.losesRepeated && this.#repeated.has(entry.id)) {
      return IGD_ERROR.NoSuchEntryInArray;
    }
    const fault = this.#mayDelete(entry, call);
    if (fault !== undefined) return fault;
    this.#table.remove(entry, now);
    return DONE;
  }

  #mayDelete(entry: TableEntry, { from, version }: ActionCall): number | undefined {
    if (entry.kind === "static") {
      return version >= 2 ? IGD_ERROR.ReadOnly : UPNP_ERROR.ActionNotAuthorized;
    }
    const isOwn = entry.internal.address === withoutZone(from.address);
    return this.#settings.isSecure && !isOwn ? UPNP_ERROR.ActionNotAuthorized : undefined;
  }

  #deleteRange(call: ActionCall, now: Instant): ActionOutcome {
    const range = readRange(call.args);
    if (typeof range === "number") return range;
    const inside = this.#facts.entries().filter((entry) => isInRange(entry, range));
    const own = inside.filter((entry) =>
      range.isManaged || entry.internal.address === withoutZone(call.from.address)
    );
    if (own.length === 0) return IGD_ERROR.PortMappingNotFound;
    const mine = own.filter((entry) => this.#mayDelete(entry, call) === undefined);
    if (mine.length === 0) return UPNP_ERROR.ActionNotAuthorized;
    for (const entry of mine) this.#table.remove(entry, now);
    return DONE;
  }

  #list(call: ActionCall, now: Instant): ActionOutcome {
    const range = readRange(call.args);
    const count = readNumber(call.args["NewNumberOfPorts"], MAX_U32);
    if (typeof range === "number") return range;
    if (count === undefined || (this.#habits.listsFromOne && range.first === 0)) {
      return UPNP_ERROR.InvalidArgs;
    }
    let text = "", listed = 0;
    for (const entry of this.#facts.entries()) {
      const isOwn = entry.internal.address === withoutZone(call.from.address);
      if (!isInRange(entry, range) || !(range.isManaged || isOwn)) continue;
      if ((count > 0 && listed >= count) || text.length > MAX_LISTING) break;
      listed++;
      text += this.#listedEntry(entry, now);
    }
    if (listed === 0) return IGD_ERROR.PortMappingNotFound;
    const listing = `<p:PortMappingList xmlns:p="${PORT_LISTING_NAMESPACE}">${text}` +
      "</p:PortMappingList>";
    return { args: { NewPortListing: listing } };
  }

  #listedEntry(entry: TableEntry, now: Instant): string {
    const {
      NewPortMappingDescription: NewDescription = "",
      NewLeaseDuration: NewLeaseTime = "",
      ...rest
    } = this.#entryArguments(entry, now);
    const fields = Object.entries({ ...rest, NewDescription, NewLeaseTime });
    const inside = fields.map(([name, value]) => `<p:${name}>${escapeXml(value)}</p:${name}>`);
    return `<p:PortMappingEntry>${inside.join("")}</p:PortMappingEntry>`;
  }

  #entryArguments(entry: TableEntry, now: Instant): Record<string, string> {
    const left = secondsUntil(entry.expiresAt, now);
    const isTold = Number.isFinite(left) && !this.#habits.hidesLease;
    return {
      NewRemoteHost: this.#remoteHostOf(entry),
      NewExternalPort: `${entry.external.port}`,
      NewProtocol: entry.protocol === PROTOCOL_NUMBER.tcp ? "TCP" : "UDP",
      NewInternalPort: `${entry.internal.port}`,
      NewInternalClient: entry.internal.address,
      NewEnabled: "1",
      NewPortMappingDescription: entry.description ?? "",
      NewLeaseDuration: isTold ? `${left}` : "0",
    };
  }

  #line(action: string): ActionOutcome {
    switch (action) {
      case "GetCommonLinkProperties":
        return {
          args: {
            NewWANAccessType: "Ethernet",
            NewLayer1UpstreamMaxBitRate: "100000000",
            NewLayer1DownstreamMaxBitRate: "100000000",
            NewPhysicalLinkStatus: this.linkStatus(),
          },
        };
      case "GetTotalBytesSent":
      case "GetTotalBytesReceived":
      case "GetTotalPacketsSent":
      case "GetTotalPacketsReceived":
        return { args: { [action.replace("Get", "New")]: "0" } };
      default:
        return UPNP_ERROR.ActionNotAuthorized;
    }
  }

  #firewall(call: ActionCall, now: Instant): ActionOutcome {
    const { action, args } = call;
    const { pinholes } = this.#settings;
    if (action === "GetFirewallStatus") return { args: this.firewallValues() };
    if (pinholes === "off") return FIREWALL_ERROR.FirewallDisabled;
    if (pinholes === "closed") return FIREWALL_ERROR.InboundPinholeNotAllowed;
    if (action === "AddPinhole") return this.#addPinhole(call, now);
    if (action === "GetOutboundPinholeTimeout") {
      const protocol = readNumber(args["Protocol"], MAX_PORT);
      if (protocol === undefined) return UPNP_ERROR.InvalidArgs;
      return { args: { OutboundPinholeTimeout: `${IDLE_SECONDS[protocol] ?? 120}` } };
    }
    const pinhole = this.#ownPinhole(call);
    if (typeof pinhole === "number") return pinhole;
    switch (action) {
      case "UpdatePinhole": {
        const lease = readNumber(args["NewLeaseTime"], MAX_U32);
        if (!isPinholeLease(lease)) return UPNP_ERROR.InvalidArgs;
        this.#pinholes.update(pinhole, now + 1000 * lease!, now);
        return { args: {}, external: pinhole.internal, lifetimeSeconds: lease };
      }
      case "DeletePinhole":
        this.#pinholes.close(pinhole, now);
        return DONE;
      case "GetPinholePackets":
        return { args: { PinholePackets: `${pinhole.packets % (MAX_U32 + 1)}` } };
      case "CheckPinholeWorking":
        return pinhole.packets > 0
          ? { args: { IsWorking: "1" } }
          : FIREWALL_ERROR.NoTrafficReceived;
      default:
        return UPNP_ERROR.InvalidAction;
    }
  }

  #addPinhole({ args, from }: ActionCall, now: Instant): ActionOutcome {
    const numbers = ["RemotePort", "InternalPort", "Protocol", "LeaseTime"]
      .map((name) => readNumber(args[name], MAX_U32));
    if (numbers.includes(undefined)) return UPNP_ERROR.InvalidArgs;
    const [remotePort, internalPort, protocol, lease] = numbers as [number, number, number, number];
    const remoteHost = args["RemoteHost"] === "" ? "" : canonicalAddress(args["RemoteHost"]!);
    const client = canonicalAddress(args["InternalClient"]!);
    if (remoteHost === undefined || client === undefined || familyOf(client) !== 6) {
      return UPNP_ERROR.InvalidArgs;
    }
    if (remoteHost !== "" && familyOf(remoteHost) !== 6) return UPNP_ERROR.InvalidArgs;
    const isPort = Math.max(remotePort, internalPort, protocol) <= MAX_PORT;
    if (!isPort || !isPinholeLease(lease)) return UPNP_ERROR.InvalidArgs;
    if (client !== withoutZone(from.address) && this.#settings.isSecure) {
      return UPNP_ERROR.ActionNotAuthorized;
    }
    if (protocol === ANY_PROTOCOL) return FIREWALL_ERROR.ProtocolWildcardingNotAllowed;
    if (!PORT_PROTOCOLS.includes(protocol)) return FIREWALL_ERROR.ProtocolNotSupported;
    if (internalPort === 0) return FIREWALL_ERROR.InternalPortWildcardingNotAllowed;
    if (internalPort < (this.#habits.minPort ?? MIN_PINHOLE_PORT)) {
      return UPNP_ERROR.ActionNotAuthorized;
    }
    const internal = { address: client, port: internalPort };
    const opened = this.#pinholes.open({
      protocol,
      internal,
      remote: { address: remoteHost, port: remotePort },
      requester: from,
      expiresAt: now + 1000 * lease,
    }, now);
    if (typeof opened === "string") return FIREWALL_ERROR.PinholeSpaceExhausted;
    return { args: { UniqueID: `${opened.id}` }, external: internal, lifetimeSeconds: lease };
  }

  /** The pinhole that the call names, where it is the caller's, or the code. */
  #ownPinhole({ args, from }: ActionCall): Pinhole | number {
    const id = readNumber(args["UniqueID"], MAX_PORT);
    if (id === undefined) return UPNP_ERROR.InvalidArgs;
    const pinhole = this.#pinholes.get(id);
    if (!pinhole) return FIREWALL_ERROR.NoSuchEntry;
    const isOwn = pinhole.internal.address === withoutZone(from.address);
    return this.#settings.isSecure && !isOwn ? UPNP_ERROR.ActionNotAuthorized : pinhole;
  }
}

interface Range {
  readonly first: number;
  readonly last: number;
  readonly protocol: number;
  readonly isManaged: boolean;
}

function readRange(args: SoapArguments): Range | number {
  const first = readNumber(args["NewStartPort"], MAX_PORT);
  const last = readNumber(args["NewEndPort"], MAX_PORT);
  const protocol = readProtocol(args["NewProtocol"]!);
  const isManaged = readBoolean(args["NewManage"]!);
  if (first === undefined || last === undefined || isManaged === undefined || !protocol) {
    return UPNP_ERROR.InvalidArgs;
  }
  return first > last ? IGD_ERROR.InconsistentParameters : { first, last, protocol, isManaged };
}

function isInRange({ external, protocol }: TableEntry, range: Range): boolean {
  const { port } = external;
  return protocol === range.protocol && port >= range.first && port <= range.last;
}

/** What the table is asked for: on the one address that the client is told of. */
function mappingRequest(
  { protocol, internal, externalPort, remoteHost, description, leaseSeconds }: Wanted,
  suggestedAddress: string,
  requester: Endpoint,
  now: Instant,
): InboundRequest & { readonly suggestedPort: number } {
  return {
    origin: "upnp",
    protocol,
    internal,
    suggestedAddress,
    suggestedPort: externalPort,
    isExact: true,
    isAdditional: true,
    namesAddress: false,
    requester,
    description,
    filters: filtersFor(remoteHost),
    expiresAt: now + 1000 * leaseSeconds,
  };
}

/** Who may come in where the mapping is for that remote host, `""` for all. */
function filtersFor(remoteHost: string): readonly RemoteFilter[] {
  return remoteHost === "" ? [] : [{ prefix: hostPrefix(remoteHost), port: 0 }];
}

function readProtocol(text: string): number | undefined {
  const name = text.toLowerCase();
  return name === "tcp" || name === "udp" ? PROTOCOL_NUMBER[name] : undefined;
}

/** `""` for everybody; undefined where it is no address: names are not looked up. */
function readHost(text: string): string | undefined {
  if (text === "" || text === "*" || text === "0.0.0.0") return "";
  const address = canonicalAddress(text);
  return address !== undefined && familyOf(address) === 4 ? address : undefined;
}

function readBoolean(text: string): boolean | undefined {
  switch (text.toLowerCase()) {
    case "1":
    case "true":
    case "yes":
      return true;
    case "0":
    case "false":
    case "no":
      return false;
    default:
      return undefined;
  }
}

function isPinholeLease(seconds: number | undefined): boolean {
  return seconds !== undefined && seconds >= 1 && seconds <= PINHOLE_MAX_LEASE_SECONDS;
}
