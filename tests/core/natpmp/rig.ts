/**
 * A client under test with its virtual time: what it sends and tells is written down, and a
 * gateway of a few lines answers where a test wants one.
 */
import { NatPmpClient, type NatPmpEvent } from "../../../core/natpmp/mod.ts";
import {
  decodeRequest,
  encodeAddressResponse,
  encodeMapResponse,
  type NatPmpRequest,
} from "../../../core/natpmp/codec.ts";
import type { NatPmpClientState } from "../../../core/natpmp/mod.ts";
import type { Endpoint, Instant } from "../../../core/machine.ts";
import { seededRandom } from "../../../core/random.ts";

export const GATEWAY: Endpoint = { address: "192.168.1.1", port: 5351 };
export const EXTERNAL = "203.0.113.7";

export interface Sent {
  readonly at: Instant;
  readonly data: Uint8Array;
  readonly request: NatPmpRequest;
}

/** Answers a request, or does not. */
export type Answerer = (request: NatPmpRequest, now: Instant) => Uint8Array | undefined;

/** A gateway that grants what it is asked for and knows no table. */
export class ObligingGateway {
  /** When its epoch began. */
  startedAt: Instant = -1_000_000;
  externalAddress: string = EXTERNAL;
  /** The result code of mapping requests. */
  resultCode = 0;
  /** The most it grants. */
  maxLifetimeSeconds = 0xffff_ffff;
  /** Which port it gives, where another one than suggested. */
  port: ((request: NatPmpRequest & { kind: "map" }) => number) | undefined;

  epoch(now: Instant): number {
    return Math.floor((now - this.startedAt) / 1000);
  }

  announcement(now: Instant): Uint8Array {
    return encodeAddressResponse({
      resultCode: 0,
      epochSeconds: this.epoch(now),
      externalAddress: this.externalAddress,
    });
  }

  answer: Answerer = (request, now) => {
    if (request.kind === "address") return this.announcement(now);
    if (request.kind !== "map") return undefined;
    const isGranted = this.resultCode === 0 && request.lifetimeSeconds > 0;
    const { suggestedExternalPort, internalPort } = request;
    const port = this.port?.(request) ?? (suggestedExternalPort || 40000 + internalPort % 10000);
    return encodeMapResponse({
      protocol: request.protocol,
      resultCode: this.resultCode,
      epochSeconds: this.epoch(now),
      internalPort,
      externalPort: isGranted ? port : 0,
      lifetimeSeconds: isGranted ? Math.min(request.lifetimeSeconds, this.maxLifetimeSeconds) : 0,
    });
  };
}

/** Nobody answers. */
export const SILENT: Answerer = () => undefined;

export class Rig {
  readonly client: NatPmpClient;
  readonly sent: Sent[] = [];
  readonly events: NatPmpEvent[] = [];
  now: Instant = 0;
  /** Half a round trip in one: from a send to its answer, milliseconds. */
  latencyMs = 0;
  answerer: Answerer;
  #coming: { at: Instant; data: Uint8Array }[] = [];

  constructor(answerer: Answerer = SILENT, seed: number = 1, state?: NatPmpClientState) {
    this.answerer = answerer;
    const options = { gateway: GATEWAY, random: seededRandom(seed) };
    this.client = new NatPmpClient(state ? { ...options, state } : options);
  }

  /** Runs a command, then drains. */
  do<T>(command: (client: NatPmpClient, now: Instant) => T): T {
    const result = command(this.client, this.now);
    this.drain();
    return result;
  }

  /** Feeds a datagram, then drains. */
  feed(data: Uint8Array, from: Endpoint = GATEWAY): boolean {
    const isMine = this.client.handleDatagram(data, from, this.now);
    this.drain();
    return isMine;
  }

  drain(): void {
    for (let action = this.client.poll(); action; action = this.client.poll()) {
      if (action.type === "event") this.events.push(action.event);
      if (action.type !== "send") continue;
      const request = decodeRequest(action.data);
      if (typeof request === "string") throw new Error(`the client sent what is ${request}`);
      this.sent.push({ at: this.now, data: action.data, request });
      const data = this.answerer(request, this.now);
      if (!data) continue;
      if (this.latencyMs > 0) this.#coming.push({ at: this.now + this.latencyMs, data });
      else this.client.handleDatagram(data, GATEWAY, this.now);
    }
  }

  /** Lets time pass until `end`, step by step as the machine asks for it. */
  runTo(end: Instant, maxSteps: number = 100_000): void {
    for (let step = 0;; step++) {
      if (step > maxSteps) throw new Error(`no rest after ${maxSteps} steps at ${this.now}`);
      const due = this.client.nextTimeout() ?? Infinity;
      const coming = this.#coming[0]?.at ?? Infinity;
      if (Math.min(due, coming) > end) break;
      this.now = Math.max(this.now, Math.min(due, coming));
      if (coming <= due) this.client.handleDatagram(this.#coming.shift()!.data, GATEWAY, this.now);
      else this.client.handleTimeout(this.now);
      this.drain();
    }
    this.now = Math.max(this.now, end);
  }

  run(ms: number): void {
    this.runTo(this.now + ms);
  }

  /** Takes what was sent so far. */
  takeSent(): Sent[] {
    return this.sent.splice(0);
  }

  /** Takes what was told so far. */
  takeEvents(): NatPmpEvent[] {
    return this.events.splice(0);
  }

  /** The times of what was sent so far, and forgets it. */
  takeTimes(): Instant[] {
    return this.takeSent().map((sent) => sent.at);
  }

  /** Takes the types of what was told so far. */
  takeTypes(): string[] {
    return this.takeEvents().map((event) => event.type);
  }
}

/** A client that holds `8080/tcp` at an obliging gateway, 7200 s from time 0. */
export function rigWithMapping(
  request: Partial<Parameters<NatPmpClient["map"]>[0]> = {},
): { rig: Rig; gateway: ObligingGateway; id: number } {
  const gateway = new ObligingGateway();
  const rig = new Rig(gateway.answer);
  const id = rig.do((client, now) =>
    client.map(
      { protocol: "tcp", internalPort: 8080, suggestedExternalPort: 8080, ...request },
      now,
    )
  );
  rig.takeSent();
  rig.takeEvents();
  return { rig, gateway, id };
}

/** The schedule of nine attempts, and its end 64 s after the last (RFC 6886 §3.1). */
export const NINE_ATTEMPTS: readonly number[] = [
  0,
  250,
  750,
  1750,
  3750,
  7750,
  15750,
  31750,
  63750,
];
export const GIVE_UP_AT = 127_750;
