/**
 * What the command line tells: with `--json` each event is one line on standard output.
 *
 * @module
 */
import type { Attempt, Via } from "../../core/errors.ts";
import type { Endpoint } from "../../core/machine.ts";
import type { Transport } from "../../core/mapping.ts";
import type { NatBehaviourResult } from "../../core/stun/behaviour.ts";
import type { Diagnosis } from "../../core/portmap/diagnosis.ts";
import type { Assignment } from "../../core/portmap/managed.ts";
import type { Argument, Device } from "../../core/upnp/description.ts";

/** What `mapped` carries, and everything that happens to the mapping afterwards. */
export interface MappingFields {
  /** The transport protocol. */
  readonly protocol: Transport;
  /** The protocol that made it. */
  readonly via: Via;
  /** The gateway, as text that starts with its address. */
  readonly gateway: string;
  /** Where packets arrive on this side. */
  readonly internal: Endpoint;
  /** Where others send to. */
  readonly external: Endpoint;
  /** What the gateway gave, where the one above it maps that on to `external`. */
  readonly gatewayExternal?: Endpoint;
  /** The peer of an outbound mapping. */
  readonly remote?: Endpoint;
  /** Granted lifetime, seconds. */
  readonly lifetimeSeconds: number;
  /** From the start of the operation, discovery included, milliseconds. */
  readonly elapsedMs: number;
}

/** One line of `--json`. */
export type CliEvent =
  | { readonly event: "mapped" | "renewed" | "moved" } & MappingFields
  | { readonly event: "lost"; readonly reason: string } & MappingFields
  | {
    readonly event: "unmapped";
    readonly protocol: Transport;
    readonly via: Via;
    readonly gateway: string;
    /** Absent where all mappings were deleted at once; without an address where it is not known. */
    readonly internal?: { readonly address?: string; readonly port: number };
    readonly external?: Endpoint;
    readonly reason: "revoked" | "expired";
    readonly elapsedMs: number;
  }
  | {
    readonly event: "address";
    readonly via: Via;
    readonly address: string;
    readonly gateway: string;
  }
  | {
    readonly event: "address";
    readonly via: "stun";
    /** How the server sees this host. */
    readonly address: string;
    readonly port: number;
    /** What was asked from. */
    readonly local: Endpoint;
    /** Who answered, as text that starts with its address. */
    readonly server: string;
    readonly elapsedMs: number;
  }
  | { readonly event: "nat-type"; readonly elapsedMs: number } & NatBehaviourResult
  | {
    readonly event: "listening";
    readonly address: string;
    readonly port: number;
    /** The other address and port, where there are. */
    readonly alternate?: Endpoint;
    /** Whether TCP connections are taken too. */
    readonly tcp: boolean;
  }
  | {
    readonly event: "assignments";
    /** All of them, `via` a protocol, `"local"` or `"stun"`. */
    readonly assignments: readonly Omit<Assignment, "family">[];
  }
  | { readonly event: "report" } & Diagnosis
  | {
    readonly event: "service";
    readonly serviceType: string;
    readonly serviceId: string;
    readonly device: Omit<Device, "services" | "devices">;
    /** The host that it is on. */
    readonly address: string;
    /** The URL of the description that it was found in. */
    readonly location: string;
  }
  | {
    readonly event: "action";
    readonly action: string;
    readonly arguments: readonly Argument[];
  }
  | {
    readonly event: "result";
    readonly action: string;
    readonly serviceType: string;
    readonly address: string;
    /** What was returned, by name. */
    readonly values: Readonly<Record<string, string>>;
    readonly elapsedMs: number;
  }
  | {
    readonly event: "error";
    /**
     * A NatError's code, or one of the command line's own: `usage`; `interrupted`; `address-in-use`
     * (a gateway's port); `state-file` (it is not natkit's); `in-use` (a natkit that runs holds the
     * mapping); `not-found` (a UPnP service); `other-protocol` (one that `--via` does not name made it); `internal`.
     */
    readonly code: string;
    readonly message: string;
    readonly attempts: readonly Attempt[];
    /** The port that it is about, where it is about one of several, or about one that was mapped. */
    readonly protocol?: Transport;
    readonly internal?: { readonly address?: string; readonly port: number };
    /** Seconds for which the gateway asks not to be bothered with this again. */
    readonly retryAfterSeconds?: number;
  }
  | {
    readonly event: "ticket";
    /** One line for the peer's natkit; absent with `--sdp`. */
    readonly ticket?: string;
    /** Lines for any ICE stack, with `--sdp`. */
    readonly sdp?: readonly string[];
  }
  | {
    readonly event: "punched";
    readonly protocol: Transport;
    readonly local: Endpoint;
    /** How the peer sees this host. */
    readonly mapped: Endpoint;
    readonly remote: Endpoint;
    /** From the peer's ticket to the path, milliseconds. */
    readonly elapsedMs: number;
  }
  /** What the peer sent: text where it is that, else base64. */
  | { readonly event: "data"; readonly text: string }
  | { readonly event: "data"; readonly base64: string }
  /** An entry of the gateway's table, as UPnP lists it. */
  | {
    readonly event: "mapping";
    readonly via: "upnp";
    readonly gateway: string;
    readonly protocol: Transport;
    readonly external: { readonly port: number };
    readonly internal: Endpoint;
    /** Who alone may send. */
    readonly remote?: { readonly address: string };
    /** `false` where it is not in force. */
    readonly enabled?: boolean;
    /** What is left of its lease, seconds; 0: without an end, or not told. */
    readonly lifetimeSeconds: number;
    readonly description: string;
  }
  | { readonly event: "help"; readonly text: string }
  | { readonly event: "completion"; readonly shell: string; readonly text: string }
  | { readonly event: "version"; readonly version: string }
  | GatewayCliEvent;

/** What `natkit gateway` tells. */
export type GatewayCliEvent =
  | {
    readonly event: "listening";
    readonly address: string;
    readonly port: number;
    readonly external: readonly string[];
    readonly protocols: readonly Via[];
    readonly profile?: string;
    /** The URLs of UPnP's description, one an interface. */
    readonly descriptions?: readonly string[];
    /** The port on which UPnP's searches are answered. */
    readonly ssdpPort?: number;
  }
  | {
    readonly event: "request" | "response" | "mapping";
    readonly gateway?: never;
    readonly [field: string]: unknown;
  }
  | {
    readonly event: "scenario";
    readonly command: string;
    readonly message: string;
    /** The table, as `list` tells it. */
    readonly mappings?: readonly Readonly<Record<string, unknown>>[];
    readonly [field: string]: unknown;
  };
