/**
 * Two peers behind NATs of their own, a STUN server on the internet between them, and tickets that
 * are carried by hand.
 *
 * @module
 */
import { IceAgent, type IceAgentOptions, type IceEvent } from "../../../core/ice/agent.ts";
import { formatTicket, parseTicket } from "../../../core/ice/ticket.ts";
import type { Endpoint } from "../../../core/machine.ts";
import { seededRandom } from "../../../core/random.ts";
import type { Nat } from "../../../core/sim/nat.ts";
import type { Process } from "../../../core/sim/process.ts";
import type { Host } from "../../../core/sim/host.ts";
import type { Segment } from "../../../core/sim/segment.ts";
import { type NatBoxOptions, World } from "../../../core/sim/world.ts";
import { decodeStun, encodeStun } from "../../../core/stun/codec.ts";

/** How a NAT behaves. */
export type NatBehaviour = Omit<NatBoxOptions, "inside" | "outside">;

/** The server's two addresses and two ports. */
export const SERVER = { addresses: ["198.51.100.1", "198.51.100.2"], ports: [3478, 3479] } as const;
/** Where agents ask. */
export const STUN: Endpoint = { address: SERVER.addresses[0], port: SERVER.ports[0] };

/** How the two stand. */
export interface RigOptions {
  readonly seed?: number;
  /** The NAT before each; without one the peer is on the internet. */
  readonly nats?: readonly [NatBehaviour | undefined, NatBehaviour | undefined];
  /** Another NAT before each of those: its provider's. */
  readonly outer?: readonly [NatBehaviour | undefined, NatBehaviour | undefined];
  /** One NAT before both. */
  readonly shared?: NatBehaviour;
  /** From one peer to the other, one way, milliseconds. Default 20. */
  readonly delayMs?: number;
  readonly loss?: number;
  /** Whether the server knows RFC 5780. Default true. */
  readonly tellsOther?: boolean;
  readonly servers?: readonly Endpoint[];
  readonly agents?: readonly [Partial<IceAgentOptions>, Partial<IceAgentOptions>];
  readonly trace?: number;
}

/** One of the two. */
export interface Peer {
  readonly host: Host;
  readonly process: Process<IceEvent, IceAgent>;
  readonly nat: Nat | undefined;
}

/** Answers Binding requests as RFC 5780's server does, without CHANGE-REQUEST. */
export function addServer(world: World, segment: Segment, tellsOther = true): void {
  const host = world.host("stun");
  host.attach(segment, [...SERVER.addresses]);
  for (const address of SERVER.addresses) {
    for (const port of SERVER.ports) {
      const socket = host.bind({ address, port });
      const other = {
        address: SERVER.addresses.find((one) => one !== address)!,
        port: SERVER.ports.find((one) => one !== port)!,
      };
      socket.onDatagram = (data, from) => {
        const message = decodeStun(data);
        if (typeof message === "string" || message.class !== "request") return;
        const { method, transactionId } = message;
        const attributes = {
          xorMappedAddress: from,
          ...(tellsOther && { otherAddress: other }),
        };
        socket.send(from, encodeStun({ class: "success", method, transactionId, attributes }));
      };
    }
  }
}

/** The two peers in their world, gathered. */
export class Rig {
  readonly world: World;
  readonly peers: readonly [Peer, Peer];

  /** @param addMore Puts more onto the internet. */
  constructor(options: RigOptions = {}, addMore?: (world: World, internet: Segment) => void) {
    const { seed = 1, nats = [undefined, undefined], shared, delayMs = 20, loss = 0 } = options;
    this.world = new World({ seed, trace: { size: options.trace ?? 0 } });
    const internet = this.world.segment("internet", { delayMs, loss });
    addServer(this.world, internet, options.tellsOther);
    addMore?.(this.world, internet);
    const lan = shared && this.world.segment("lan");
    if (shared) {
      this.world.nat("nat", {
        ...shared,
        inside: [lan!, "192.168.0.1"],
        outside: [internet, "203.0.113.1"],
      });
    }
    this.peers = [0, 1].map((i): Peer => {
      const name = "ab"[i]!;
      const host = this.world.host(name);
      const behaviour = nats[i];
      let address = `203.0.113.${11 + i}`;
      let nat: Nat | undefined;
      if (shared) {
        address = `192.168.0.${2 + i}`;
        host.attach(lan!, address, { gateway: "192.168.0.1" });
      } else if (behaviour) {
        const own = this.world.segment(`lan ${name}`, { delayMs: 0 });
        address = `192.168.${1 + i}.2`;
        const outer = options.outer?.[i];
        const between = outer && this.world.segment(`provider ${name}`, { delayMs: 0 });
        if (outer) {
          this.world.nat(`outer ${name}`, {
            ...outer,
            inside: [between!, `100.64.${i}.1`],
            outside: [internet, `203.0.113.${1 + i}`],
          });
        }
        nat = this.world.nat(`nat ${name}`, {
          ...behaviour,
          inside: [own, `192.168.${1 + i}.1`],
          outside: between ? [between, `100.64.${i}.2`] : [internet, `203.0.113.${1 + i}`],
          ...(between && { gateway: `100.64.${i}.1` }),
        });
        host.attach(own, address, { gateway: `192.168.${1 + i}.1` });
      } else {
        host.attach(internet, address);
      }
      const agent = new IceAgent({
        random: seededRandom(seed * 1000 + i),
        hosts: [address],
        servers: options.servers ?? [STUN],
        ...options.agents?.[i],
      });
      return { host, process: host.run<IceEvent, IceAgent>(agent), nat };
    }) as unknown as [Peer, Peer];
    for (const { process } of this.peers) process.do((agent, now) => agent.gather(now));
    this.world.runFor(5000);
  }

  /** Carries the tickets; the second peer gets its one `skewMs` later. */
  exchange(skewMs = 0): void {
    const tickets = this.peers.map(({ process }) => formatTicket(process.machine.rendezvous!));
    const give = (i: 0 | 1) =>
      this.peers[i].process.do((agent, now) => agent.setRemote(parseTicket(tickets[1 - i]!), now));
    give(0);
    if (skewMs > 0) this.world.runFor(skewMs);
    give(1);
  }

  /** The last event of a kind at each peer. */
  last<T extends IceEvent["type"]>(type: T): (IceEvent & { type: T } | undefined)[] {
    return this.peers.map(({ process }) =>
      process.events.map(({ event }) => event).findLast((event) => event.type === type)
    ) as (IceEvent & { type: T } | undefined)[];
  }

  /** When both had agreed, since the tickets; undefined where they have not. */
  connectedAfter(since: number): number | undefined {
    const times = this.peers.map(({ process }) =>
      process.events.find(({ event }) => event.type === "connected")?.at
    );
    return times.some((at) => at === undefined)
      ? undefined
      : Math.max(...times as number[]) - since;
  }

  /** Runs until both have come to an end, or so long. */
  settle(ms = 60_000): void {
    const until = this.world.now + ms;
    const isOver = () =>
      this.peers.every(({ process }) =>
        process.events.some(({ event }) => event.type === "connected" || event.type === "failed")
      );
    while (!isOver() && this.world.now < until && this.world.step());
  }
}
