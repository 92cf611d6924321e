import { timed } from "../machine_case.ts";
import { assertEquals } from "@std/assert";
import type { Endpoint, Instant, SendAction } from "../../../core/machine.ts";
import {
  decodeResponse,
  encodeRequest,
  type PcpMapRequestMessage,
  type PcpMapResponseMessage,
  type PcpPeerRequestMessage,
  type PcpPeerResponseMessage,
  type PcpResponse,
} from "../../../core/pcp/codec.ts";
import type { PcpOption } from "../../../core/pcp/options.ts";
import { PcpServer, type PcpServerOptions } from "../../../core/pcp/server.ts";
import {
  MappingTable,
  type MappingTableOptions,
  type ServerEvent,
} from "../../../core/table/mod.ts";
import { claim } from "./support.ts";

export const TCP = 6;
export const UDP = 17;
export const ALICE: Endpoint = { address: "192.168.1.100", port: 40_000 };
export const BOB: Endpoint = { address: "192.168.1.101", port: 41_000 };
export const EVE6: Endpoint = { address: "2001:db8::100", port: 42_000 };
export const WAN = "203.0.113.7";
export const WAN2 = "203.0.113.8";
export const PEER: Endpoint = { address: "198.51.100.20", port: 443 };

/** Twelve bytes, all the same. */
export function nonceOf(byte: number): Uint8Array {
  return new Uint8Array(12).fill(byte);
}

/** A MAP or PEER request with all the fields that a test does not care about filled in. */
export interface Wish {
  from?: Endpoint;
  clientAddress?: string;
  lifetimeSeconds?: number;
  nonce?: Uint8Array;
  protocol?: number;
  internalPort?: number;
  suggestedPort?: number;
  suggestedAddress?: string;
  options?: readonly PcpOption[];
  remote?: Endpoint;
}

function fields(wish: Wish) {
  const from = wish.from ?? ALICE;
  return {
    lifetimeSeconds: wish.lifetimeSeconds ?? 3600,
    clientAddress: wish.clientAddress ?? from.address,
    nonce: wish.nonce ?? nonceOf(1),
    protocol: wish.protocol ?? TCP,
    internalPort: wish.internalPort ?? 8080,
    suggestedPort: wish.suggestedPort ?? 0,
    suggestedAddress: wish.suggestedAddress ?? (from.address.includes(":") ? "::" : "0.0.0.0"),
    options: wish.options ?? [],
  };
}

/** The bytes of a MAP request. */
export function mapBytes(wish: Wish = {}): Uint8Array {
  const request: PcpMapRequestMessage = { kind: "map", ...fields(wish) };
  return encodeRequest(request);
}

/** The bytes of a PEER request. */
export function peerBytes(wish: Wish = {}): Uint8Array {
  const { address, port } = wish.remote ?? PEER;
  const request: PcpPeerRequestMessage = {
    kind: "peer",
    ...fields({ internalPort: 50_000, ...wish }),
    remoteAddress: address,
    remotePort: port,
  };
  return encodeRequest(request);
}

/** The bytes of an ANNOUNCE request. */
export function announceBytes(
  from: Endpoint = ALICE,
  options: readonly PcpOption[] = [],
): Uint8Array {
  const { address: clientAddress } = from;
  return encodeRequest({ kind: "announce", lifetimeSeconds: 0, clientAddress, options });
}

/** A server over a table of its own, driven by hand. */
export class Rig {
  readonly table: MappingTable;
  readonly server: PcpServer;
  now: Instant = 0;
  readonly events: ServerEvent[] = [];

  constructor(
    options: Partial<PcpServerOptions> = {},
    table: MappingTableOptions = {},
  ) {
    this.table = options.table ?? new MappingTable({ externalAddresses: [WAN], ...table });
    this.server = timed(new PcpServer({ ...options, table: this.table }));
  }

  /** What waits to be sent. */
  drain(): SendAction[] {
    const sent: SendAction[] = [];
    for (let action = this.server.poll(); action; action = this.server.poll()) {
      if (action.type === "send") {
        assertEquals(action.socket, "server");
        sent.push(action);
      } else if (action.type === "event") {
        this.events.push(action.event);
      }
    }
    return sent;
  }

  /** Sends bytes and gives back what comes out. */
  raw(data: Uint8Array, from: Endpoint = ALICE): SendAction[] {
    this.server.handleDatagram(data, from, "server", this.now);
    return this.drain();
  }

  /** Sends bytes and gives back the one answer. */
  ask(data: Uint8Array, from: Endpoint = ALICE): PcpResponse {
    const sent = this.raw(data, from);
    assertEquals(sent.length, 1, "there is one answer");
    assertEquals(sent[0]!.to, from);
    const response = decodeResponse(sent[0]!.data);
    claim(typeof response === "object", `a response, not ${JSON.stringify(response)}`);
    return response;
  }

  /** Asks for an inbound mapping. */
  map(wish: Wish = {}): PcpMapResponseMessage {
    const response = this.ask(mapBytes(wish), wish.from);
    claim(response.kind === "map", `a MAP response, not ${response.kind}`);
    return response;
  }

  /** Asks for an outbound mapping. */
  peer(wish: Wish = {}): PcpPeerResponseMessage {
    const response = this.ask(peerBytes(wish), wish.from);
    claim(response.kind === "peer", `a PEER response, not ${response.kind}`);
    return response;
  }

  /** Lets time pass; gives back what is sent meanwhile, with when. */
  runTo(until: Instant): { at: Instant; sent: SendAction }[] {
    const all: { at: Instant; sent: SendAction }[] = [];
    for (const sent of this.drain()) all.push({ at: this.now, sent });
    for (let at = this.server.nextTimeout(); at !== undefined && at <= until;) {
      this.now = Math.max(this.now, at);
      this.server.handleTimeout(this.now);
      for (const sent of this.drain()) all.push({ at: this.now, sent });
      at = this.server.nextTimeout();
    }
    this.now = until;
    return all;
  }

  /** The whole table as plain data, to see that nothing changed. */
  snapshot(): string {
    return JSON.stringify([...this.table.entries()].map((e) => ({
      ...{ id: e.id, kind: e.kind, external: e.external, internal: e.internal },
      ...{ expiresAt: e.expiresAt, filters: e.filters, description: e.description },
      nonce: e.nonce && [...e.nonce],
    })));
  }
}
