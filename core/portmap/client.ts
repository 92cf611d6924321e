/**
 * What the mapper needs of a protocol. A client of one protocol is a machine that fills in
 * {@linkcode MappingClient}; nothing in this folder but the table (`protocols.ts`) knows which
 * protocol it is.
 *
 * @module
 */
import type { Via } from "../errors.ts";
import type { Endpoint, Instant, Machine } from "../machine.ts";
import type {
  Failure,
  GrantedPortSet,
  MappingEvent,
  MappingId,
  MappingRequest,
  Transport,
} from "../mapping.ts";
import type { RandomSource } from "../random.ts";
import type { BegunSearch } from "../upnp/igd_search.ts";
import type { PortMappingEntry } from "../upnp/client.ts";

/** A mapping as every client can tell it. */
export interface ClientMapping {
  /** Its id within the client. */
  readonly id: MappingId;
  /** Where others send to; undefined while the gateway holds nothing, or its address is unknown. */
  readonly external: Endpoint | undefined;
  /** What the gateway granted, seconds. */
  readonly lifetimeSeconds: number;
  /** The text as the gateway stored it. */
  readonly description?: string;
  /** The set of ports that it mapped. */
  readonly portSet?: GrantedPortSet;
}

/** What the mapper hears of a client. Clients may tell more. */
export type ClientEvent =
  /** What becomes of a mapping. */
  | MappingEvent<ClientMapping>
  /** The gateway lost its table; its mappings are being made anew. */
  | { readonly type: "gateway-restarted" }
  /** A probe was answered, with the external address; or that was heard unasked. */
  | { readonly type: "external-address"; readonly address: string }
  /** A probe was answered by a protocol that tells no address so. */
  | { readonly type: "announced" }
  /** A probe came to nothing. */
  | {
    readonly type: "external-address-failed" | "announce-failed";
    readonly failure: Failure;
  }
  /** All mappings of a transport were deleted, or that failed. */
  | { readonly type: "all-unmapped"; readonly protocol: Transport; readonly failure?: Failure }
  /** So many entries of the gateway's table were read; it goes on. */
  | { readonly type: "table-read"; readonly id: MappingId; readonly count: number }
  /** The gateway's table, or why it is not told. */
  | {
    readonly type: "table-told";
    readonly id: MappingId;
    readonly entries: readonly PortMappingEntry[];
    /** Whether it is longer than what was read. */
    readonly isCut: boolean;
    readonly failure?: Failure;
  }
  /** The server answers from another address. */
  | { readonly type: "server-changed" }
  /** It is not loaded: that is wanted by now. */
  | { readonly type: "code-needed" };

/** A client of one protocol at one gateway. */
export interface MappingClient extends Machine<ClientEvent> {
  /** The protocol. */
  readonly via: Via;
  /** Nothing held, asked for or still to be told to the gateway. */
  readonly isIdle: boolean;
  /** Why this protocol cannot do it, or undefined where it can. */
  unfit(request: MappingRequest): string | undefined;
  /** Asks something that changes nothing at the gateway. */
  probe(now: Instant): void;
  /** Takes the question back. */
  endProbe(now: Instant): void;
  /** The nonce of one of its own, 24 hexadecimal digits, where the protocol has nonces. */
  nonceOf?(id: MappingId): string | undefined;
  /** Whether its gateway may know that nonce: a request has left with it, or may have earlier. */
  hasAsked?(id: MappingId): boolean;
  /** How many nonces of its own choice requests have left with, or are about to. */
  readonly nonces?: number;
  /** Asks for a mapping. */
  map(request: MappingRequest, now: Instant): MappingId;
  /** Deletes a mapping that need not be its own. */
  unmap(request: MappingRequest, now: Instant): MappingId;
  /** Renews early; the answer carries the number that is returned. */
  renew(id: MappingId, lifetimeSeconds: number | undefined, now: Instant): number;
  /** Deletes one of its own. */
  revoke(id: MappingId, now: Instant): void;
  /** Asks no more for one, but tells if it is granted after all. */
  withdraw(id: MappingId, now: Instant): void;
  /** Forgets one: no packet, no event. */
  abandon(id: MappingId, now: Instant): void;
  /** Deletes all mappings of this host and a transport, other programs' among them. */
  revokeAll?(protocol: Transport, now: Instant): void;
  /**
   * Looks whether what it holds is there still, where its probe's answer does not tell that by
   * itself.
   */
  check?(now: Instant): void;
  /** The path of the HTTP requests that are for it. */
  readonly callbackPath?: string | undefined;
  /** Asks for the gateway's table, everybody's mappings. */
  list?(now: Instant): MappingId;
  /** This host has another address towards the gateway. */
  networkChanged(localAddress: string, now: Instant): void;
  /** The code for which it has asked by `code-needed`, or why that could not be had. */
  codeTold?(code: MakeClient | Failure, now: Instant): void;
}

/** What a client is made of. */
export interface ClientOptions {
  /** The gateway. */
  readonly gateway: Endpoint;
  /** This host's address towards it. */
  readonly localAddress: string;
  /** Nonces and jitter. */
  readonly random: RandomSource;
  /** Whether first requests are sent again after 250 and 750 ms. */
  readonly fastStart: boolean;
  /** The name of the interface towards it. */
  readonly interface: string | undefined;
  /** Whether to listen for announcements. */
  readonly announcements: boolean;
  /** Whether the application named the gateway: then nobody else is taken for it. */
  readonly isNamed: boolean;
  /** Whether an address is another gateway's of this host. */
  readonly isOtherGateway?: (address: string) => boolean;
  /** The search that was begun for it, where it is made late. */
  readonly search?: BegunSearch | undefined;
}

/** Makes a client of a protocol; undefined where the gateway's family is not its own. */
export type MakeClient = (options: ClientOptions) => MappingClient | undefined;

/** A protocol, as the race goes by it. */
export interface Protocol {
  /**
   * Makes its client.
   *
   * @param code What makes UPnP's, where that is loaded.
   */
  make(options: ClientOptions, code: MakeClient | undefined): MappingClient | undefined;
  /**
   * What it begins with: `"map"` where its request may be made before anything is known, `"probe"`
   * where another protocol's table may stand behind it, so that only the winner maps.
   */
  readonly begins: "map" | "probe";
  /**
   * For how many round trips the preferred ones go alone: who is granted within them never hears of
   * this one, nor does the network.
   */
  readonly headStartRoundTrips: number;
  /** Result codes that say "not this way" rather than "no": another protocol may still do it. */
  readonly waysAround: readonly number[];
  /** What of a learnt external endpoint its requests can suggest. */
  readonly suggests: "endpoint" | "port";
  /** How the external address is had: by its probe, or only with a mapping. */
  readonly tellsAddressBy: "probe" | "mapping";
  /** Whether its requests may pass a NAT on their way to an outer gateway. */
  readonly crossesNat?: boolean;
  /** Whether its client finds out by itself, within a minute, that a gateway began anew. */
  readonly checksItself?: boolean;
  /** Whether a datagram may be the gateway's word that it has begun anew, whoever hears it. */
  isAnnouncement?(data: Uint8Array): boolean;
}
