/**
 * A client under test in virtual time, with the simulated gateway at the other end or, where a
 * test hands in bytes of its own, with nobody. What the client sends and tells is written down.
 */
import { SimulatedGateway, type SimulatedGatewayOptions } from "../../../core/gateway/mod.ts";
import { NatPmpClient, type NatPmpEvent } from "../../../core/natpmp/mod.ts";
import { decodeRequest, type NatPmpRequest } from "../../../core/natpmp/codec.ts";
import type { SavedState } from "../../../core/lease/saved.ts";
import type { MappingRequest } from "../../../core/mapping.ts";
import type { Endpoint, Instant } from "../../../core/machine.ts";
import { seededRandom } from "../../../core/random.ts";

export const GATEWAY: Endpoint = { address: "192.168.1.1", port: 5351 };
export const HOST: Endpoint = { address: "192.168.1.2", port: 40_000 };
/** Another host of the same network. */
export const NEIGHBOUR = "192.168.1.77";
export const EXTERNAL = "203.0.113.7";
export const NEW_EXTERNAL = "198.51.100.9";

/** The gateway's epoch at time 0. */
export const EPOCH = 1000;

export interface Sent {
  readonly at: Instant;
  readonly data: Uint8Array;
  readonly request: NatPmpRequest;
}

/** A gateway that booted, and was done announcing it, well before time 0. */
export function newGateway(options: Partial<SimulatedGatewayOptions> = {}): SimulatedGateway {
  const gateway = new SimulatedGateway({
    random: seededRandom(6886),
    externalAddresses: [EXTERNAL],
    protocols: ["nat-pmp"],
    maxLifetimeSeconds: 0xffff_fffe,
    ...options,
  });
  gateway.start(-1000 * EPOCH);
  for (let at: Instant | undefined; (at = gateway.nextTimeout()) !== undefined && at <= 0;) {
    while (gateway.poll());
    gateway.handleTimeout(at);
  }
  return gateway;
}

/** How a rig is set up. */
export interface RigOptions {
  /** Who answers; nobody where left out. */
  readonly gateway?: SimulatedGateway | undefined;
  readonly seed?: number;
  readonly state?: SavedState;
}

export class Rig {
  readonly client: NatPmpClient;
  readonly sent: Sent[] = [];
  readonly events: NatPmpEvent[] = [];
  /** What the gateway said. */
  readonly heard: Uint8Array[] = [];
  now: Instant = 0;
  readonly #gateway: SimulatedGateway | undefined;

  constructor({ gateway, seed = 1, state }: RigOptions = {}) {
    this.#gateway = gateway;
    const options = { gateway: GATEWAY, random: seededRandom(seed) };
    this.client = new NatPmpClient(state ? { ...options, state } : options);
  }

  /** Runs a command of the client, then drains. */
  do<T>(command: (client: NatPmpClient, now: Instant) => T): T {
    const result = command(this.client, this.now);
    this.drain();
    return result;
  }

  /** Lets something happen at the gateway, then drains. */
  scenario(happens: (gateway: SimulatedGateway, now: Instant) => void): void {
    happens(this.#gateway!, this.now);
    this.drain();
  }

  /** The gateway hears nothing from now on, or hears again; what it has to say it says. */
  deafen(isDeaf: boolean = true): void {
    this.#gateway!.setDeaf(isDeaf ? Number.MAX_SAFE_INTEGER : 0, this.now);
  }

  /** The bytes that the gateway announces at this, which do not reach the client. */
  overhear(happens: (gateway: SimulatedGateway, now: Instant) => void): Uint8Array {
    happens(this.#gateway!, this.now);
    const action = this.#gateway!.poll();
    if (action?.type !== "send") throw new Error("the gateway announces nothing");
    return action.data;
  }

  /** Hands in bytes that a test made, then drains. */
  feed(data: Uint8Array, from: Endpoint = GATEWAY): boolean {
    const isMine = this.client.handleDatagram(data, from, "client", this.now);
    this.drain();
    return isMine;
  }

  /** Takes out what client and gateway have to say, until both are silent. */
  drain(): void {
    for (;;) {
      const action = this.client.poll();
      if (action?.type === "event") this.events.push(action.event);
      if (action?.type === "send") this.#carry(action.data);
      const reply = this.#gateway?.poll();
      if (reply?.type === "send") {
        this.heard.push(reply.data);
        this.client.handleDatagram(reply.data, GATEWAY, "client", this.now);
      }
      if (!action && !reply) return;
    }
  }

  #carry(data: Uint8Array): void {
    const request = decodeRequest(data);
    if (typeof request === "string") throw new Error(`the client sent what is ${request}`);
    this.sent.push({ at: this.now, data, request });
    this.#gateway?.handleDatagram(data, HOST, "client", this.now);
  }

  /** Lets time pass until `end`, step by step as the machines ask for it. */
  runTo(end: Instant, maxSteps: number = 100_000): void {
    for (let step = 0;; step++) {
      if (step > maxSteps) throw new Error(`no rest after ${maxSteps} steps at ${this.now}`);
      const due = this.client.nextTimeout() ?? Infinity;
      const gatewayDue = this.#gateway?.nextTimeout() ?? Infinity;
      if (Math.min(due, gatewayDue) > end) break;
      this.now = Math.max(this.now, Math.min(due, gatewayDue));
      if (gatewayDue <= this.now) this.#gateway!.handleTimeout(this.now);
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

/** A client at a gateway. */
export function rigWithGateway(
  options: Partial<SimulatedGatewayOptions> = {},
  rest: Omit<RigOptions, "gateway"> = {},
): { rig: Rig; gateway: SimulatedGateway } {
  const gateway = newGateway(options);
  return { rig: new Rig({ ...rest, gateway }), gateway };
}

/** A client that holds `8080/tcp` at a gateway, 7200 s from time 0. */
export function rigWithMapping(
  request: Partial<MappingRequest> = {},
  options: Partial<SimulatedGatewayOptions> = {},
): { rig: Rig; gateway: SimulatedGateway; id: number } {
  const { rig, gateway } = rigWithGateway(options);
  const id = rig.do((client, now) =>
    client.map(
      { protocol: "tcp", internalPort: 8080, suggestedExternal: { port: 8080 }, ...request },
      now,
    )
  );
  rig.takeSent();
  rig.takeEvents();
  return { rig, gateway, id };
}

/** Another host takes a port, so that a wish for it is answered with another port. */
export function takePort(gateway: SimulatedGateway, port: number, now: Instant): void {
  gateway.addStatic("tcp", port, { address: NEIGHBOUR, port }, now);
  gateway.addStatic("udp", port, { address: NEIGHBOUR, port }, now);
}

/** The only port that the gateway chooses by itself, but for the internal one. */
export function choosing(port: number): Partial<SimulatedGatewayOptions> {
  return { table: { chosenPorts: [{ first: port, last: port }], quarantine: false } };
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
