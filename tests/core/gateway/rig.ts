/**
 * A simulated gateway driven by hand, and what its clients send and get, taken apart.
 *
 * @module
 */
import type { Endpoint, Instant, SendAction } from "../../../core/machine.ts";
import { SimulatedGateway, type SimulatedGatewayOptions } from "../../../core/gateway/gateway.ts";
import { type CommandOutcome, runCommand } from "../../../core/gateway/run_command.ts";
import { parseCommand } from "../../../core/gateway/scenario.ts";
import * as natPmp from "../../../core/natpmp/codec.ts";
import * as pcp from "../../../core/pcp/codec.ts";
import type { PcpOption } from "../../../core/pcp/options.ts";
import { seededRandom } from "../../../core/random.ts";
import type { ServerEvent } from "../../../core/table/server_request.ts";

export const ALICE: Endpoint = { address: "192.168.1.100", port: 40001 };
export const BOB: Endpoint = { address: "192.168.1.101", port: 40002 };
export const ALICE6: Endpoint = { address: "2001:db8::100", port: 40001 };
export const EXTERNAL = "203.0.113.7";
export const NONCE: Uint8Array = Uint8Array.of(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);
export const OTHER_NONCE: Uint8Array = new Uint8Array(12).fill(7);

/** What may be said about a mapping request. */
export interface Ask {
  readonly from?: Endpoint;
  readonly protocol?: "tcp" | "udp";
  readonly suggested?: number;
  readonly suggestedAddress?: string;
  readonly lifetime?: number;
  readonly nonce?: Uint8Array;
  readonly options?: readonly PcpOption[];
}

/** A NAT-PMP mapping request. */
export function natPmpMap(internalPort: number, ask: Ask = {}): Uint8Array {
  return natPmp.encodeMapRequest({
    protocol: ask.protocol ?? "tcp",
    internalPort,
    suggestedExternalPort: ask.suggested ?? 0,
    lifetimeSeconds: ask.lifetime ?? 7200,
  });
}

/** A PCP MAP request. */
export function pcpMap(internalPort: number, ask: Ask = {}): Uint8Array {
  const { address } = ask.from ?? ALICE;
  return pcp.encodeRequest({
    kind: "map",
    lifetimeSeconds: ask.lifetime ?? 7200,
    clientAddress: address,
    nonce: ask.nonce ?? NONCE,
    protocol: ask.protocol === "udp" ? 17 : 6,
    internalPort,
    suggestedPort: ask.suggested ?? 0,
    suggestedAddress: ask.suggestedAddress ?? (address.includes(":") ? "::" : "0.0.0.0"),
    options: ask.options ?? [],
  });
}

/** A PCP PEER request. */
export function pcpPeer(internalPort: number, ask: Ask = {}): Uint8Array {
  const { address } = ask.from ?? ALICE, is6 = address.includes(":");
  return pcp.encodeRequest({
    kind: "peer",
    lifetimeSeconds: ask.lifetime ?? 7200,
    clientAddress: address,
    nonce: ask.nonce ?? NONCE,
    protocol: 6,
    internalPort,
    suggestedPort: 0,
    suggestedAddress: is6 ? "::" : "0.0.0.0",
    remotePort: 443,
    remoteAddress: is6 ? "2001:db8:ffff::1" : "198.51.100.20",
    options: [],
  });
}

/** A PCP ANNOUNCE request. */
export function pcpAnnounce(from: Endpoint = ALICE): Uint8Array {
  return pcp.encodeRequest({
    kind: "announce",
    lifetimeSeconds: 0,
    clientAddress: from.address,
    options: [],
  });
}

/** NAT-PMP's address request. */
export const ADDRESS_REQUEST: Uint8Array = natPmp.encodeAddressRequest();

/** A gateway that has booted, and been drained, at 0. */
export class Rig {
  readonly gateway: SimulatedGateway;
  readonly events: ServerEvent[] = [];
  now: Instant = 0;

  constructor(options: Partial<SimulatedGatewayOptions> = {}, isFirewall: boolean = false) {
    this.gateway = new SimulatedGateway({
      ...isFirewall ? undefined : { externalAddresses: [EXTERNAL] },
      random: seededRandom(1),
      ...options,
    });
  }

  /** Boots and throws away what was said. */
  start(): this {
    this.gateway.start(this.now);
    this.drain();
    return this;
  }

  drain(): SendAction[] {
    const sent: SendAction[] = [];
    for (let action = this.gateway.poll(); action; action = this.gateway.poll()) {
      if (action.type === "send") sent.push(action);
      else if (action.type === "event") this.events.push(action.event);
    }
    return sent;
  }

  /** Feeds a request, and returns what leaves at once. */
  feed(request: Uint8Array, from: Endpoint = ALICE): SendAction[] {
    this.gateway.handleDatagram(request, from, "server", this.now);
    return this.drain();
  }

  /** The bytes of the one reply; empty where there is none, or more than one. */
  ask(request: Uint8Array, from: Endpoint = ALICE): Uint8Array {
    const sent = this.feed(request, from);
    return sent.length === 1 ? sent[0]!.data : new Uint8Array();
  }

  /** Runs the timers up to `until`, and returns what left with its time. */
  runTo(until: Instant): { at: Instant; action: SendAction }[] {
    const sent: { at: Instant; action: SendAction }[] = [];
    for (;;) {
      const at = this.gateway.nextTimeout();
      if (at === undefined || at > until) break;
      this.now = Math.max(this.now, at);
      this.gateway.handleTimeout(this.now);
      for (const action of this.drain()) sent.push({ at: this.now, action });
    }
    this.now = until;
    return sent;
  }

  /** A scenario command's answer; what was sent meanwhile is lost. */
  command(line: string): CommandOutcome {
    const parsed = parseCommand(line);
    const outcome = parsed.ok
      ? runCommand(this.gateway, parsed.command, this.now)
      : { isDone: false, message: parsed.message };
    this.drain();
    return outcome;
  }

  /** A NAT-PMP mapping: result code, external port and lifetime. */
  mapNatPmp(port: number, ask: Ask = {}): [number, number, number] | undefined {
    const reply = natPmp.decodeResponse(this.ask(natPmpMap(port, ask), ask.from ?? ALICE));
    return typeof reply === "object" && reply.kind === "map"
      ? [reply.resultCode, reply.externalPort, reply.lifetimeSeconds]
      : undefined;
  }

  /** A PCP mapping: result code, external port and lifetime. */
  mapPcp(port: number, ask: Ask = {}): [number, number, number] | undefined {
    const reply = pcp.decodeResponse(this.ask(pcpMap(port, ask), ask.from ?? ALICE));
    return typeof reply === "object" && reply.kind === "map"
      ? [reply.resultCode, reply.externalPort, reply.lifetimeSeconds]
      : undefined;
  }

  /** The external address by NAT-PMP, or the result code. */
  address(): string | number | undefined {
    const reply = natPmp.decodeResponse(this.ask(ADDRESS_REQUEST));
    if (typeof reply === "string" || reply.kind !== "address") return undefined;
    return reply.externalAddress ?? reply.resultCode;
  }

  /** Both epochs, as answers carry them. */
  epochs(): [number | undefined, number | undefined] {
    const a = natPmp.decodeResponse(this.ask(ADDRESS_REQUEST));
    const b = pcp.decodeResponse(this.ask(pcpAnnounce()));
    return [
      typeof a === "object" ? a.epochSeconds : undefined,
      typeof b === "object" ? b.epochSeconds : undefined,
    ];
  }
}

/** Whether it goes to 224.0.0.1:5350, and by which protocol. */
export function announcedBy({ to, data }: SendAction): "nat-pmp" | "pcp" | undefined {
  if (to.address !== "224.0.0.1" || to.port !== 5350) return undefined;
  return data[0] === 2 ? "pcp" : "nat-pmp";
}
