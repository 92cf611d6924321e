/**
 * Pinholes in an IPv6 firewall (WANIPv6FirewallControl:1), over the mapping table. The table has one
 * entry an internal endpoint, whose filters say who may come in; a pinhole is for one remote
 * endpoint or for all, and there may be several for one internal endpoint. So UPnP's lease of the
 * entry lasts as long as the last of them, and lets in whom any of them lets in. Where that lease is
 * gone, since another protocol deleted the mapping or the host's address is another's by now, so
 * are they.
 *
 * @module
 */
import { hostPrefix, parseCidr } from "../cidr.ts";
import { isSameEndpoint } from "../ip.ts";
import type { DebugTimeout, Endpoint, Instant } from "../machine.ts";
import type { RemoteFilter } from "../mapping.ts";
import type { TableEntry, TableFault } from "../table/entry.ts";
import type { MappingTable } from "../table/table.ts";
import { Timers } from "../timers.ts";

/** A pinhole wanted. */
export interface PinholeRequest {
  /** IANA's protocol number. */
  readonly protocol: number;
  /** The inside. */
  readonly internal: Endpoint;
  /** Who may come in: address `""` for everybody, port 0 for any. */
  readonly remote: Endpoint;
  /** Where the request came from. */
  readonly requester: Endpoint;
  /** When it ends. */
  readonly expiresAt: Instant;
}

/** A pinhole. */
export interface Pinhole extends PinholeRequest {
  /** 0…65535. */
  readonly id: number;
  /** Packets that came in by it. */
  packets: number;
  /** When it ends. */
  expiresAt: Instant;
}

/** As many ids as there are. */
const MAX_PINHOLES = 65_536;
const EVERYBODY = parseCidr("::/0")!;

/** The pinholes of a firewall. */
export class Pinholes {
  readonly #table: MappingTable;
  readonly #all = new Map<number, Pinhole>();
  readonly #ends = new Timers<number>();
  #lastId = 0;

  /** There are none at first. */
  constructor(table: MappingTable) {
    this.#table = table;
  }

  /** How many there are. */
  get size(): number {
    return this.#all.size;
  }

  /** The pinhole of that id. */
  get(id: number): Pinhole | undefined {
    const pinhole = this.#all.get(id);
    if (pinhole) this.#forgetLost([pinhole]);
    return this.#all.get(id);
  }

  /** Opens one; the same one again lasts until the new end. */
  open(request: PinholeRequest, now: Instant): Pinhole | TableFault {
    this.#forgetLost(this.#of(request));
    const same = this.#of(request).find(({ remote }) => isSameEndpoint(remote, request.remote));
    if (same) {
      this.#extend(same, request.expiresAt, now);
      return same;
    }
    if (this.#all.size >= MAX_PINHOLES) return "no-resources";
    const pinhole: Pinhole = { ...request, id: this.#freeId(), packets: 0 };
    this.#all.set(pinhole.id, pinhole);
    const entry = this.#settle(pinhole, now);
    if (typeof entry === "string") {
      this.#all.delete(pinhole.id);
      return entry;
    }
    this.#ends.set(pinhole.id, pinhole.expiresAt, "close a pinhole");
    return pinhole;
  }

  /** Lets one last until `expiresAt`. */
  update(pinhole: Pinhole, expiresAt: Instant, now: Instant): void {
    this.#extend(pinhole, expiresAt, now);
  }

  /** Closes one. */
  close(pinhole: Pinhole, now: Instant): void {
    this.#all.delete(pinhole.id);
    this.#ends.delete(pinhole.id);
    this.#settle(pinhole, now);
  }

  /** Notes that a packet from `remote` came in. */
  notePacket(protocol: number, internal: Endpoint, remote: Endpoint): void {
    for (const pinhole of this.#all.values()) {
      if (pinhole.protocol !== protocol || !isSameEndpoint(pinhole.internal, internal)) continue;
      const { address, port } = pinhole.remote;
      if (address !== "" && address !== remote.address) continue;
      if (port === 0 || port === remote.port) pinhole.packets++;
    }
  }

  /** Closes what is over. */
  handleTimeout(now: Instant): void {
    for (let id = this.#ends.popDue(now); id !== undefined; id = this.#ends.popDue(now)) {
      const pinhole = this.#all.get(id)!;
      this.#forgetLost(this.#of(pinhole));
      this.#all.delete(id);
      this.#settle(pinhole, now);
    }
  }

  /** Forgets those whose entry the table has lost, as a boot does with all. */
  prune(): void {
    this.#forgetLost([...this.#all.values()]);
  }

  /** When one ends next. */
  nextAt(): Instant | undefined {
    return this.#ends.nextAt();
  }

  /** {@linkcode Pinholes.nextAt} with its reason. */
  next(): DebugTimeout | undefined {
    const next = this.#ends.next();
    return next && { at: next.at, reason: next.reason };
  }

  #forgetLost(pinholes: readonly Pinhole[]): void {
    for (const pinhole of pinholes) {
      const entry = this.#entryOf(pinhole);
      if (entry && (entry.kind === "static" || this.#table.leaseOf(entry, "upnp"))) continue;
      this.#all.delete(pinhole.id);
      this.#ends.delete(pinhole.id);
    }
  }

  #extend(pinhole: Pinhole, expiresAt: Instant, now: Instant): void {
    pinhole.expiresAt = expiresAt;
    this.#ends.set(pinhole.id, expiresAt, "close a pinhole");
    this.#settle(pinhole, now);
  }

  #of({ protocol, internal }: PinholeRequest): Pinhole[] {
    return [...this.#all.values()].filter((other) =>
      other.protocol === protocol && isSameEndpoint(other.internal, internal)
    );
  }

  #entryOf({ protocol, internal: { address, port } }: PinholeRequest): TableEntry | undefined {
    return this.#table.inbound(protocol, address, port);
  }

  /** Makes the table's entry what the pinholes of that internal endpoint say. */
  #settle(pinhole: PinholeRequest, now: Instant): TableEntry | TableFault | undefined {
    const { protocol, internal, requester } = pinhole;
    const all = this.#of(pinhole), entry = this.#entryOf(pinhole);
    if (all.length === 0) {
      if (entry) this.#table.release(entry, "upnp", now);
      return undefined;
    }
    const expiresAt = Math.max(...all.map((one) => one.expiresAt));
    const filters = all.some(isOpen) ? [] : all.map(filterOf);
    if (!entry) {
      const request = {
        origin: "upnp" as const,
        protocol,
        internal,
        requester,
        expiresAt,
        filters,
      };
      return this.#table.mapInbound(request, now);
    }
    this.#table.renew(entry, { by: "upnp", expiresAt, filters });
    return entry;
  }

  #freeId(): number {
    do this.#lastId = (this.#lastId + 1) % MAX_PINHOLES; while (this.#all.has(this.#lastId));
    return this.#lastId;
  }
}

function isOpen({ remote }: Pinhole): boolean {
  return remote.address === "" && remote.port === 0;
}

function filterOf({ remote: { address, port } }: Pinhole): RemoteFilter {
  return { prefix: address === "" ? EVERYBODY : hostPrefix(address), port };
}
