// A client driven by hand through virtual time, and the simulated gateway at the other end: it
// hears a request when the test hands it over, and what it says reaches the client at once.
import {
  type GatewayDecision,
  type ReplyChange,
  SimulatedGateway,
  type SimulatedGatewayOptions,
} from "../../../core/gateway/mod.ts";
import { familyOf } from "../../../core/ip.ts";
import {
  decodeRequest,
  encodeResponse,
  type PcpMapRequestMessage,
  type PcpPeerRequestMessage,
  type PcpRequest,
} from "../../../core/pcp/codec.ts";
import { PcpClient } from "../../../core/pcp/client.ts";
import type { PcpOption } from "../../../core/pcp/options.ts";
import type { PcpClientOptions, PcpEvent } from "../../../core/pcp/client.ts";
import type { Endpoint, Instant, SendAction } from "../../../core/machine.ts";
import { type RandomSource, seededRandom } from "../../../core/random.ts";
import { claim } from "./support.ts";

export const SERVER: Endpoint = { address: "192.168.1.1", port: 5351 };
export const LOCAL = "192.168.1.100";
/** Where the gateway puts the first mapping that wishes for nothing; the next ports follow. */
export const EXTERNAL: Endpoint = { address: "203.0.113.7", port: 40123 };

/** The gateway's epoch at time 0. */
const EPOCH = 1000;
/** The gateway's socket from which nobody was asked. */
const OTHER_SOCKET: Endpoint = { ...SERVER, port: 5352 };

/** A request of the client, with what it was and when it left. */
export interface Sent {
  readonly at: Instant;
  readonly to: Endpoint;
  readonly data: Uint8Array;
  readonly request: PcpRequest;
}

/** What the gateway's policy does to one answer: it is not what its table says. */
export interface Change {
  readonly lifetimeSeconds?: number;
  readonly external?: Endpoint;
}

/** What a success made by hand says beyond the request. */
export interface Forged extends Change {
  readonly epochSeconds?: number;
  readonly options?: readonly PcpOption[];
}

/**
 * A success made by hand, for what no gateway says: what is forged, what comes from elsewhere,
 * twice or unasked, and what breaks the RFC.
 */
export function forge(request: PcpRequest, forged: Forged = {}): Uint8Array {
  claim(request.kind === "map" || request.kind === "peer", "a mapping request");
  const external = forged.external ?? EXTERNAL;
  const fields = {
    resultCode: 0,
    lifetimeSeconds: forged.lifetimeSeconds ?? request.lifetimeSeconds,
    epochSeconds: forged.epochSeconds ?? EPOCH,
    nonce: request.nonce,
    protocol: request.protocol,
    internalPort: request.internalPort,
    externalPort: external.port,
    externalAddress: external.address,
    options: forged.options ?? request.options.filter(({ type }) => type === "third-party"),
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

/** Ports are searched for from EXTERNAL's on. */
const FROM_EXTERNAL: RandomSource = { u32: () => EXTERNAL.port * 0x1_0000, fill() {} };

/** A gateway that booted, and was done announcing it, well before time 0. */
export function newGateway(
  family: 4 | 6,
  options: Partial<SimulatedGatewayOptions>,
): SimulatedGateway {
  const gateway = new SimulatedGateway({
    random: FROM_EXTERNAL,
    protocols: ["pcp"],
    ...(family === 4 && { externalAddresses: [EXTERNAL.address] }),
    table: { prefersSamePort: false, maxPortsPerClient: 20_000 },
    allowThirdParty: true,
    maxLifetimeSeconds: 0xffff_fffe,
    ...options,
  });
  gateway.start(-1000 * EPOCH);
  for (let at: Instant | undefined; (at = gateway.nextTimeout()) !== undefined && at < 0;) {
    while (gateway.poll());
    gateway.handleTimeout(at);
  }
  return gateway;
}

/** A gateway, and a policy that a test can change. */
class Bench {
  verdict: GatewayDecision;
  readonly gateway: SimulatedGateway;

  constructor(family: 4 | 6, options: Partial<SimulatedGatewayOptions>) {
    this.gateway = newGateway(family, { decide: () => this.verdict, ...options });
  }
}

/** What a rig can be given beside the client's options. */
export interface RigOptions extends Partial<PcpClientOptions> {
  /** How the gateway is set up. */
  readonly gateway?: Partial<SimulatedGatewayOptions>;
  /** The rig whose gateway this one has, too. */
  readonly beside?: Rig;
}

export class Rig {
  readonly client: PcpClient;
  now: Instant;
  readonly events: PcpEvent[] = [];
  readonly sent: Sent[] = [];
  readonly server: Endpoint;
  #bench: Bench;
  readonly #family: 4 | 6;

  constructor(options: RigOptions = {}, seed: number = 1, now: Instant = 0) {
    const { gateway = {}, beside, ...rest } = options;
    this.now = now;
    const settings = {
      servers: [SERVER],
      localAddress: LOCAL,
      random: seededRandom(seed),
      ...rest,
    };
    this.client = new PcpClient(settings);
    this.server = settings.servers[0]!;
    this.#family = familyOf(settings.localAddress);
    this.#bench = beside ? beside.#bench : new Bench(this.#family, gateway);
  }

  /** Another gateway takes the place of the one there was; its epoch runs like the old one's. */
  replaceGateway(options: Partial<SimulatedGatewayOptions>): void {
    this.#bench = new Bench(this.#family, options);
  }

  /** The gateway. */
  get gateway(): SimulatedGateway {
    return this.#bench.gateway;
  }

  /** Lets something happen at the gateway; what it has to say reaches the client. */
  scenario(happens: (gateway: SimulatedGateway, now: Instant) => void): void {
    happens(this.gateway, this.now);
    this.#hearGateway(this.server);
    this.drain();
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
      const at = this.client.nextTimeout() ?? Infinity;
      const gatewayAt = this.gateway.nextTimeout() ?? Infinity;
      if (Math.min(at, gatewayAt) > end) break;
      this.now = Math.max(this.now, Math.min(at, gatewayAt));
      if (gatewayAt <= this.now) {
        this.gateway.handleTimeout(this.now);
        this.#hearGateway(this.server);
      } else this.client.handleTimeout(this.now);
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
    const isTaken = this.client.handleDatagram(data, from, "client", this.now);
    this.drain();
    return isTaken;
  }

  /** The last request of a mapping. */
  get last(): PcpMapRequestMessage | PcpPeerRequestMessage {
    const request = this.sent.at(-1)?.request;
    claim(request?.kind === "map" || request?.kind === "peer", "a mapping request was sent");
    return request;
  }

  /** Hands a request to the gateway; returns what it answers, which goes nowhere. */
  ask(sent: Sent = this.sent.at(-1)!): Uint8Array {
    this.#tellGateway(sent);
    const action = this.gateway.poll();
    claim(action?.type === "send", "the gateway answers");
    return action.data;
  }

  /** Hands a request, the last one by default, to the gateway, and the answer to the client. */
  grant(change: Change = {}, sent: Sent = this.sent.at(-1)!): boolean {
    const { lifetimeSeconds: seconds, external } = change;
    const changes: ReplyChange[] = [];
    if (seconds !== undefined) changes.push({ kind: "lifetime", seconds });
    if (external) {
      changes.push({ kind: "external-port", port: external.port });
      changes.push({ kind: "external-address", address: external.address });
    }
    return this.#judged(changes.length > 0 ? { kind: "reshape", changes } : undefined, sent);
  }

  /** Lets the gateway refuse the last request. */
  refuse(code: number, lifetimeSeconds: number): boolean {
    return this.#judged({ kind: "refuse", code, lifetimeSeconds }, this.sent.at(-1)!);
  }

  #judged(verdict: GatewayDecision, sent: Sent): boolean {
    this.#bench.verdict = verdict;
    this.#tellGateway(sent);
    this.#bench.verdict = undefined;
    const isTaken = this.#hearGateway(sent.to);
    this.drain();
    return isTaken;
  }

  #tellGateway({ data, request }: Sent): void {
    const address = request.clientAddress;
    this.gateway.handleDatagram(data, { address, port: 40_000 }, "server", this.now);
  }

  /** What the gateway says comes from this address; false where the client did not take it all. */
  #hearGateway(server: Endpoint): boolean {
    let isTaken = true;
    for (let action; (action = this.gateway.poll());) {
      if (action.type !== "send") continue;
      const from = action.socket === "server" ? server : OTHER_SOCKET;
      isTaken = this.client.handleDatagram(action.data, from, "client", this.now) && isTaken;
    }
    return isTaken;
  }

  /** The gateway announces itself with this epoch. */
  announce(epochSeconds: number): void {
    this.scenario((gateway, now) => {
      gateway.setEpoch(epochSeconds, now);
      gateway.announce(now);
    });
  }

  /** The types of the events so far; they are taken. */
  heard(): string[] {
    this.drain();
    return this.events.splice(0).map((event) => event.type);
  }

  /** Maps TCP 8080 and has it granted. */
  mapped(request: Partial<Parameters<PcpClient["map"]>[0]> = {}, change: Change = {}): number {
    const id = this.client.map({ protocol: 6, internalPort: 8080, ...request }, this.now);
    this.drain();
    this.grant(change);
    return id;
  }
}
