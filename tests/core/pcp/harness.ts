// A client driven by hand through virtual time, and the answers a server would give it.
import {
  decodeRequest,
  encodeErrorResponse,
  encodeResponse,
  type PcpMapRequestMessage,
  type PcpPeerRequestMessage,
  type PcpRequest,
} from "../../../core/pcp/codec.ts";
import { PcpClient } from "../../../core/pcp/client.ts";
import type { PcpOption } from "../../../core/pcp/options.ts";
import type { PcpClientOptions, PcpEvent } from "../../../core/pcp/types.ts";
import type { Endpoint, Instant, SendAction } from "../../../core/machine.ts";
import { seededRandom } from "../../../core/random.ts";
import { claim } from "./support.ts";

export const SERVER: Endpoint = { address: "192.168.1.1", port: 5351 };
export const LOCAL = "192.168.1.100";
export const EXTERNAL: Endpoint = { address: "203.0.113.7", port: 40123 };

/** A request of the client, with what it was and when it left. */
export interface Sent {
  readonly at: Instant;
  readonly to: Endpoint;
  readonly data: Uint8Array;
  readonly request: PcpRequest;
}

/** What a grant says beyond the request. */
export interface Grant {
  readonly lifetimeSeconds?: number;
  readonly epochSeconds?: number;
  readonly external?: Endpoint;
  readonly options?: readonly PcpOption[];
}

/** A success for a MAP or PEER request. */
export function success(request: PcpRequest, grant: Grant = {}): Uint8Array {
  claim(request.kind === "map" || request.kind === "peer", "a mapping request");
  const external = grant.external ?? EXTERNAL;
  const isDelete = request.lifetimeSeconds === 0;
  const fields = {
    resultCode: 0,
    lifetimeSeconds: grant.lifetimeSeconds ?? request.lifetimeSeconds,
    epochSeconds: grant.epochSeconds ?? 1000,
    nonce: request.nonce,
    protocol: request.protocol,
    internalPort: request.internalPort,
    externalPort: isDelete ? 0 : external.port,
    externalAddress: isDelete ? request.suggestedAddress : external.address,
    options: grant.options ?? request.options.filter(({ type }) => type === "third-party"),
  };
  return encodeResponse(
    request.kind === "map" ? { kind: "map", ...fields } : {
      kind: "peer",
      ...fields,
      remotePort: request.remotePort,
      remoteAddress: request.remoteAddress,
    },
  );
}

export class Rig {
  readonly client: PcpClient;
  now: Instant;
  readonly events: PcpEvent[] = [];
  readonly sent: Sent[] = [];
  readonly server: Endpoint;

  constructor(options: Partial<PcpClientOptions> = {}, seed: number = 1, now: Instant = 0) {
    this.now = now;
    this.client = new PcpClient({
      servers: [SERVER],
      localAddress: LOCAL,
      random: seededRandom(seed),
      ...options,
    });
    this.server = (options.servers ?? [SERVER])[0]!;
  }

  /** Takes out what waits; returns the requests among it. */
  drain(): Sent[] {
    const first = this.sent.length;
    for (let action; (action = this.client.poll());) {
      if (action.type === "event") this.events.push(action.event);
      if (action.type === "send") this.#note(action);
    }
    return this.sent.slice(first);
  }

  #note(action: SendAction): void {
    const request = decodeRequest(action.data);
    claim(typeof request === "object", "a well-formed request");
    this.sent.push({ at: this.now, to: action.to, data: action.data, request });
  }

  /** Lets time pass, stopping at each deadline; returns the requests that left meanwhile. */
  advance(ms: number): Sent[] {
    const end = this.now + ms, first = this.sent.length;
    this.drain();
    for (let steps = 0;; steps++) {
      claim(steps < 100_000, "time goes on");
      const at = this.client.nextTimeout();
      if (at === undefined || at > end) break;
      this.now = Math.max(this.now, at);
      this.client.handleTimeout(this.now);
      this.drain();
    }
    this.now = end;
    return this.sent.slice(first);
  }

  /** Comes back only after `ms`, as after a sleep; returns the requests that leave then. */
  sleep(ms: number): Sent[] {
    this.now += ms;
    this.client.handleTimeout(this.now);
    return this.drain();
  }

  /** Hands a datagram in, and takes out what it leads to. */
  receive(data: Uint8Array, from: Endpoint = this.server): boolean {
    const isTaken = this.client.handleDatagram(data, from, this.now);
    this.drain();
    return isTaken;
  }

  /** The last request of a mapping. */
  get last(): PcpMapRequestMessage | PcpPeerRequestMessage {
    const request = this.sent.at(-1)?.request;
    claim(request?.kind === "map" || request?.kind === "peer", "a mapping request was sent");
    return request;
  }

  /** The epoch of a server that runs on: 1000 at the beginning. */
  get epoch(): number {
    return 1000 + Math.floor(this.now / 1000);
  }

  /** Grants the last request. */
  grant(grant: Grant = {}): boolean {
    return this.receive(success(this.last, { epochSeconds: this.epoch, ...grant }));
  }

  /** Refuses the last request. */
  refuse(resultCode: number, lifetimeSeconds: number, epochSeconds: number = this.epoch): boolean {
    const { data } = this.sent.at(-1)!;
    return this.receive(encodeErrorResponse(data, { resultCode, lifetimeSeconds, epochSeconds }));
  }

  /** An announcement with this epoch. */
  announce(epochSeconds: number, from: Endpoint = this.server): boolean {
    const fields = { resultCode: 0, lifetimeSeconds: 0, epochSeconds, options: [] };
    return this.receive(encodeResponse({ kind: "announce", ...fields }), from);
  }

  /** The types of the events so far; they are taken. */
  heard(): string[] {
    this.drain();
    return this.events.splice(0).map((event) => event.type);
  }

  /** Maps TCP 8080 and has it granted. */
  mapped(request: Partial<Parameters<PcpClient["map"]>[0]> = {}, grant: Grant = {}): number {
    const id = this.client.map({ protocol: 6, internalPort: 8080, ...request }, this.now);
    this.drain();
    this.grant(grant);
    return id;
  }
}
