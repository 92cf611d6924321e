/**
 * What a simulated gateway tells, and what it counts.
 *
 * @module
 */
import type { Endpoint } from "../machine.ts";
import type { NatPmpServerEvent, NatPmpServerStats } from "../natpmp/server.ts";
import type { PcpServerEvent, PcpServerStats } from "../pcp/server.ts";

/** What a simulated gateway tells when it traces. */
export type GatewayEvent =
  /** Its NAT-PMP server; a change of the table comes in that form, whoever made it. */
  | NatPmpServerEvent
  /** Its PCP server took a request. */
  | (Extract<PcpServerEvent, { type: "request" }> & {
    readonly via: "pcp";
    readonly from: Endpoint;
  })
  /** Its PCP server answered or said something unasked. */
  | (Extract<PcpServerEvent, { type: "response" }> & { readonly via: "pcp" });

/** Counters of a {@linkcode SimulatedGateway}. */
export interface GatewayStats {
  /** Datagrams that no server saw, by reason. */
  readonly dropped: {
    /** Nothing listens. */
    readonly off: number;
    /** Not from the inside. */
    readonly outside: number;
    /** Deaf. */
    readonly deaf: number;
    /** Of a protocol that gets silence. */
    readonly silent: number;
    /** The policy said so. */
    readonly policy: number;
  };
  /** What became of datagrams on their way out. */
  readonly replies: {
    /** Left. */
    readonly sent: number;
    /** Lost on purpose. */
    readonly lost: number;
    /** Lost because too many were on their way. */
    readonly overflowed: number;
    /** On their way. */
    readonly waiting: number;
  };
  /** The NAT-PMP server's. */
  readonly natPmp: NatPmpServerStats;
  /** The PCP server's. */
  readonly pcp: PcpServerStats;
}

/** A PCP server's event as the gateway tells it. */
export function fromPcp(event: PcpServerEvent): GatewayEvent {
  switch (event.type) {
    case "request":
      return { ...event, via: "pcp", from: event.request.from };
    case "response":
      return { ...event, via: "pcp" };
    case "mapping":
      return event;
  }
}
