/**
 * What makes a gateway peculiar, as data over the simulated gateway's hooks.
 *
 * @module
 */
import type { Via } from "../errors.ts";
import type { NatPmpServerOptions } from "../natpmp/server_options.ts";
import type { PcpServerOptions } from "../pcp/server_options.ts";
import type { IgdServerOptions } from "../upnp/server_options.ts";
import type { HttpRule, HttpStrictness } from "./http.ts";
import type { RequestRule } from "./policy.ts";
import type { ReplyRule } from "./reshape.ts";

/** The protocols that a simulated gateway can speak. */
export type GatewayProtocol = Via;

/** A gateway's peculiarities. What is left out is as the RFCs have it. */
export interface Profile {
  /** How it is asked for: `"fritzbox-6360"`. */
  readonly name: string;
  /** The device or software on which it was seen. */
  readonly device: string;
  /** Who saw it. */
  readonly source: string;
  /** What a client sees. */
  readonly summary: string;
  /** What it speaks; PCP and NAT-PMP where left out. */
  readonly protocols?: readonly GatewayProtocol[];
  /** How its NAT-PMP server is set up. */
  readonly natPmp?: Pick<
    NatPmpServerOptions,
    | "maxLifetimeSeconds"
    | "portChoice"
    | "deletes"
    | "deleteAll"
    | "takesOver"
    | "announceCopies"
    | "announcesStart"
  >;
  /** How its PCP server is set up. */
  readonly pcp?: Pick<
    PcpServerOptions,
    | "minLifetimeSeconds"
    | "maxLifetimeSeconds"
    | "minPeerLifetimeSeconds"
    | "announceCopies"
    | "mapEnabled"
    | "peerEnabled"
    | "allowPreferFailure"
    | "allowWildcards"
    | "maxDescriptionBytes"
    | "maxPortSetSize"
  >;
  /** How its Internet gateway device (UPnP) is set up. */
  readonly upnp?: Pick<
    IgdServerOptions,
    | "version"
    | "connections"
    | "hasFirewall"
    | "pinholes"
    | "uuid"
    | "friendlyName"
    | "manufacturer"
    | "modelName"
    | "isSecure"
    | "maxAgeSeconds"
    | "httpPort"
    | "habits"
  >;
  /** How strict it is with UPnP's calls. */
  readonly strictness?: readonly HttpStrictness[];
  /** What becomes of UPnP's answers by HTTP; every fitting rule counts, in order. */
  readonly answers?: readonly HttpRule[];
  /** What becomes of the text of what it says by SSDP: each first one is the second. */
  readonly ssdpTexts?: readonly (readonly [from: string, to: string])[];
  /** What becomes of requests; the first fitting rule counts. */
  readonly requests?: readonly RequestRule[];
  /** What becomes of replies and announcements; every fitting rule counts, in order. */
  readonly replies?: readonly ReplyRule[];
  /** Ports to which announcements go, beside the gateway's own choice. */
  readonly extraAnnouncePorts?: readonly number[];
  /** PCP's version byte leads to silence, as if the packet had been lost. */
  readonly isDeafToPcp?: boolean;
  /**
   * A PCP request of less than 24 bytes, or no multiple of 4, is answered with these four bytes,
   * the epoch where PCP has it and zeros; by the RFC the first is dropped, the second malformed.
   */
  readonly illSizedReply?: readonly [number, number, number, number];
  /** A new external address restarts NAT-PMP's epoch, too; PCP's restarts by the RFC. */
  readonly resetsEpochOnNewAddress?: boolean;
  /** It loses its table in silence every so often, where it has more mappings than that. */
  readonly forgets?: { readonly everySeconds: number; readonly above: number };
  /**
   * Nothing listens on its port: ICMP says port unreachable. A machine cannot send that: whoever
   * runs it looks at `SimulatedGateway.isListening` and opens no socket.
   */
  readonly isUnreachable?: boolean;
  /**
   * It is not the default route but the far end of a tunnel, with this address. For whoever lays
   * out the network; the gateway itself is the same.
   */
  readonly tunnelAddress?: string;
  /**
   * Its UPnP is at this address of its own, not at the one that is the default route (CARP, VRRP). For
   * whoever lays out the network, likewise.
   */
  readonly ownAddress?: string;
}
