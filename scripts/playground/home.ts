/**
 * The playground's network: a home with a gateway and two hosts, a friend behind a second NAT, and a
 * server on the Internet between them. It is `World` with the machines of `core/` in it, driven by a
 * scenario: nothing of a protocol is written here, and no clock is read.
 *
 *   laptop ─┐                      ┌─ server (STUN; knocks at open ports)
 *           ├─ gateway ── Internet ┤
 *   desktop ┘                      └─ nat ── friend
 *
 * @module
 */
import { duration, viaName } from "../../adapters/cli/text.ts";
import { SimulatedGateway } from "../../core/gateway/gateway.ts";
import { IceAgent, type IceEvent } from "../../core/ice/agent.ts";
import type { PublicRendezvous } from "../../core/ice/ticket.ts";
import { formatEndpoint } from "../../core/ip.ts";
import type { Endpoint, Instant } from "../../core/machine.ts";
import { describeFailure, type MappingId } from "../../core/mapping.ts";
import type { MapperEvent } from "../../core/portmap/managed.ts";
import { PortMapper } from "../../core/portmap/mapper.ts";
import { makeIgdClient } from "../../core/portmap/upnp.ts";
import type { Host } from "../../core/sim/host.ts";
import type { Nat } from "../../core/sim/nat.ts";
import type { Packet, Verdict } from "../../core/sim/packet.ts";
import type { Process } from "../../core/sim/process.ts";
import type { Segment } from "../../core/sim/segment.ts";
import { World } from "../../core/sim/world.ts";
import { StunServer, type StunServerEvent } from "../../core/stun/server.ts";
import type { ServerEvent } from "../../core/table/server_request.ts";
import {
  type Deed,
  describeDeed,
  MAX_DEEDS,
  MAX_MS,
  NAT_KINDS,
  type Scenario,
  SPEAKS,
  type TimedDeed,
  USUAL,
} from "./scenario.ts";

/** The hosts of the network. */
export type NodeName = "laptop" | "desktop" | "gateway" | "server" | "nat" | "friend";
/** Its segments. */
export type SegmentName = "home" | "internet" | "away";
/** The hosts that have a program with a port. */
export type ClientName = "laptop" | "desktop";

/** A packet on its way over one link, or the end of it at a host that did not take it. */
export interface Sighting {
  /** Its number, which grows. */
  readonly id: number;
  /** When it left, or ended; milliseconds. */
  readonly at: Instant;
  readonly packet: Packet;
  readonly from: NodeName;
  /** Where it goes; where it ended that is `from`. */
  readonly to: NodeName;
  /** The segment; undefined where it ended at a host. */
  readonly segment: SegmentName | undefined;
  readonly verdict: Verdict;
  /** When it is there; where it gets lost, when it would be. */
  readonly arrivesAt: Instant;
}

/** Something that was done or told, in words. */
export interface Telling {
  readonly at: Instant;
  /** Whom it is about; undefined where it is a deed. */
  readonly who: NodeName | undefined;
  readonly text: string;
  readonly mood: "good" | "bad" | "plain";
}

/** A host's port, as its own mapper sees it. */
export interface PortView {
  readonly state: "closed" | "asking" | "open" | "lost" | "failed";
  /** Where others reach it. */
  readonly external?: string;
  readonly via?: string;
  readonly lifetimeSeconds?: number;
  /** When the mapper does something next, and what. */
  readonly next?: { readonly at: Instant; readonly reason: string };
}

/** How the laptop and the friend stand. */
export interface PunchView {
  readonly state: "none" | "gathering" | "checking" | "connected" | "failed";
  /** The two ends, as each is seen by the other. */
  readonly ends?: readonly [laptop: string, friend: string];
  readonly elapsedMs?: number;
  readonly reason?: string;
}

/** A row of the gateway's table. */
export interface TableRow {
  readonly protocol: string;
  readonly external: string;
  readonly internal: string;
  /** By which protocol it was made; `"traffic"`: by a packet that went out. */
  readonly by: string;
  readonly expiresAt: Instant;
}

/** The program's port at both hosts. */
export const PORT = 27_015;
const GATEWAY = "192.168.1.1";
const CLIENTS: Readonly<Record<ClientName, string>> = {
  laptop: "192.168.1.20",
  desktop: "192.168.1.30",
};
const FRIEND = "192.168.2.20";
const SERVER = ["198.51.100.1", "198.51.100.2"] as const;
const KNOCKER_PORT = 40_000;
/** The restart of a gateway that is only seconds old cannot be told (RFC 6887 §8.5): it is a day old. */
const UPTIME_MS = 86_400_000;
/** How long two people take to hand each other their tickets, milliseconds. */
const HANDING_OVER_MS = 300;
const LAN_MS = 4;
const INTERNET_MS = 20;
/** How many packets are remembered. */
const MAX_SIGHTINGS = 2000;
const MAX_TELLINGS = 200;
/** More steps than this without a packet are no step. */
const MAX_STEPS = 10_000;

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

/** A host at home that may have its port mapped. */
interface Client {
  readonly host: Host;
  readonly mapper: Process<MapperEvent, PortMapper>;
  id: MappingId | undefined;
  port: PortView;
}

/** The two agents of a punch. */
interface Meeting {
  readonly agents: readonly [laptop: Agent, friend: Agent];
  view: PunchView;
}

interface Agent {
  readonly process: Process<IceEvent, IceAgent>;
  ticket: PublicRendezvous | undefined;
  mapped: Endpoint | undefined;
}

/** The network at some time of a scenario. */
export class Home {
  /** Packets, the oldest first; as many as are remembered. */
  readonly sightings: Sighting[] = [];
  /** What was done and told, the oldest first. */
  readonly tellings: Telling[] = [];
  /** What stands of what can be chosen, by the deed's first word. */
  readonly chosen: { home: string; away: string; speaks: string; loss: string } = { ...USUAL };
  readonly #seed: number;
  readonly #world: World;
  readonly #segments: Readonly<Record<SegmentName, Segment>>;
  readonly #gateway: Process<ServerEvent, SimulatedGateway>;
  readonly #clients: Readonly<Record<ClientName, Client>>;
  readonly #friend: Host;
  readonly #knock: (to: Endpoint) => void;
  #nats: { home: Nat; away: Nat };
  #meeting: Meeting | undefined;
  #done: TimedDeed[] = [];
  #pending: TimedDeed[];
  #seen = 0;

  /** Builds the network as it is before the first deed. */
  constructor({ seed, deeds }: Scenario) {
    this.#seed = seed;
    this.#pending = [...deeds];
    const world = this.#world = new World({ seed, trace: { size: MAX_SIGHTINGS } });
    const home = world.segment("home", { delayMs: LAN_MS });
    const internet = world.segment("internet", { delayMs: INTERNET_MS });
    const away = world.segment("away", { delayMs: LAN_MS });
    this.#segments = { home, internet, away };
    this.#nats = {
      home: world.nat("gateway", {
        ...NAT_KINDS[USUAL.home]!,
        inside: [home, GATEWAY],
        outside: [internet, "203.0.113.7"],
      }),
      away: world.nat("nat", {
        ...NAT_KINDS[USUAL.away]!,
        inside: [away, "192.168.2.1"],
        outside: [internet, "192.0.2.44"],
      }),
    };
    const gateway = new SimulatedGateway({
      random: world.fork(),
      externalAddresses: ["203.0.113.7"],
      protocols: SPEAKS[USUAL.speaks]!.protocols,
      internalPrefixes: ["192.168.1.0/24"],
      listen: { address: GATEWAY, port: 5351 },
      upnp: { interfaces: [{ address: GATEWAY, prefixLength: 24 }] },
    });
    this.#nats.home.forwarder = gateway;
    bootLongAgo(gateway);
    this.#gateway = this.#nats.home.host.run<ServerEvent, SimulatedGateway>(gateway, {}, {
      onEvent: () => {},
    });
    const server = world.host("server");
    server.attach(internet, [...SERVER]);
    server.run<StunServerEvent, StunServer>(
      new StunServer({
        listen: { address: SERVER[0], port: 3478 },
        alternate: { address: SERVER[1], port: 3479 },
        tcp: false,
      }),
      {},
      { onEvent: () => {} },
    );
    const knocker = server.bind({ address: SERVER[0], port: KNOCKER_PORT });
    knocker.onDatagram = (_, from) =>
      this.#tell("server", `${formatEndpoint(from)} answers`, "good");
    this.#knock = (to) => knocker.send(to, bytes("knock"));
    this.#clients = { laptop: this.#client("laptop"), desktop: this.#client("desktop") };
    this.#friend = world.host("friend");
    this.#friend.attach(away, FRIEND, { gateway: "192.168.2.1" });
  }

  /** Virtual time, milliseconds. */
  get now(): Instant {
    return this.#world.now;
  }

  /** What has been done so far, and what still is to be; as a link holds it. */
  get scenario(): Scenario {
    return { seed: this.#seed, deeds: [...this.#done, ...this.#pending] };
  }

  /** When the next deed of the scenario is done, or a packet arrives, or a machine wakes. */
  nextAt(): Instant | undefined {
    const next = Math.min(this.#world.nextAt() ?? Infinity, this.#pending[0]?.at ?? Infinity);
    return next <= MAX_MS ? next : undefined;
  }

  /** Whether the longest run is over. */
  get isOver(): boolean {
    return this.now >= MAX_MS;
  }

  /** The packets under way. */
  flying(): Sighting[] {
    return this.sightings.filter(({ segment, at, arrivesAt }) =>
      segment !== undefined && at <= this.now && arrivesAt > this.now
    );
  }

  /** Lets all up to `time` happen, deeds of the scenario included. */
  advanceTo(time: Instant): void {
    const end = Math.min(time, MAX_MS);
    for (let next = this.#pending[0]; next && next.at <= end; next = this.#pending[0]) {
      this.#doNext(next);
    }
    this.#world.runUntil(end);
    this.#look();
  }

  /** Goes to where the next packet leaves or arrives, or the next deed is done; false at the end. */
  step(): boolean {
    const { stats } = this.#world;
    const arrived = stats.packets, last = this.sightings.at(-1);
    for (let i = 0; i < MAX_STEPS; i++) {
      const at = this.nextAt();
      if (at === undefined) return false;
      const deed = this.#pending[0];
      // A deed comes after all else of its time, as in `do`.
      if (deed && deed.at < (this.#world.nextAt() ?? Infinity)) {
        this.#doNext(deed);
        this.#look();
        return true;
      }
      this.#world.step();
      this.#look();
      if (stats.packets !== arrived || this.sightings.at(-1) !== last) return true;
    }
    return true;
  }

  /**
   * Does something now, at the next whole millisecond; false where a scenario holds no more. What it
   * had still to do is dropped: from here on it is another one.
   */
  do(deed: Deed): boolean {
    const at = Math.ceil(this.now);
    if (this.#done.length >= MAX_DEEDS || at >= MAX_MS) return false;
    this.#pending = [{ at, deed }];
    this.advanceTo(at);
    return true;
  }

  /** What a host's mapper says of its port. */
  port(name: ClientName): PortView {
    const { port, mapper } = this.#clients[name];
    const next = port.state === "closed" ? undefined : mapper.machine.debugTimeout();
    return { ...port, ...(next && { next }) };
  }

  /** How the laptop and the friend stand. */
  get punch(): PunchView {
    return this.#meeting?.view ?? { state: "none" };
  }

  /** The gateway's address outside. */
  get externalAddress(): string {
    return this.#nats.home.external[0]!;
  }

  /** The second NAT's. */
  get awayAddress(): string {
    return this.#nats.away.external[0]!;
  }

  /** Seconds since the start of the gateway's epoch. */
  get epochSeconds(): number {
    return this.#gateway.machine.epochSeconds("pcp", this.now);
  }

  /** The gateway's mappings: those that were asked for, then those that packets made. */
  table(): TableRow[] {
    const { now } = this;
    const asked = [...this.#gateway.machine.table.entries()]
      .filter(({ kind, expiresAt }) => kind !== "outbound" && expiresAt > now)
      .map(({ protocol, external, internal, origin, expiresAt }): TableRow => ({
        protocol: protocol === 6 ? "TCP" : protocol === 17 ? "UDP" : `${protocol}`,
        external: formatEndpoint(external),
        internal: formatEndpoint(internal),
        by: origin === "admin" || origin === "traffic" ? origin : viaName(origin),
        expiresAt,
      }));
    return [...asked, ...this.flows("home")];
  }

  /** What packets that went out have made at a NAT. */
  flows(which: "home" | "away"): TableRow[] {
    return this.#nats[which].mappings().map(({ protocol, external, internal, expiresAt }) => ({
      protocol: protocol.toUpperCase(),
      external: formatEndpoint(external),
      internal: formatEndpoint(internal),
      by: "traffic",
      expiresAt,
    }));
  }

  #client(name: ClientName): Client {
    const address = CLIENTS[name];
    const host = this.#world.host(name);
    host.attach(this.#segments.home, address, { gateway: GATEWAY });
    const program = host.bind({ port: PORT });
    program.onDatagram = (_, from) => {
      this.#tell(name, `${formatEndpoint(from)} got in`, "good");
      program.send(from, bytes("welcome"));
    };
    const machine = new PortMapper({
      random: this.#world.fork(),
      protocols: ["pcp", "nat-pmp", "upnp"],
      upnp: makeIgdClient,
    });
    const mapper = host.run<MapperEvent, PortMapper>(machine, {}, {
      onEvent: (event) => this.#hear(name, event),
    });
    mapper.do((one, now) =>
      one.networkChanged([
        { gateway: { address: GATEWAY, port: 5351 }, localAddress: address },
      ], now)
    );
    return { host, mapper, id: undefined, port: { state: "closed" } };
  }

  #hear(name: ClientName, event: MapperEvent): void {
    const client = this.#clients[name];
    if (!("id" in event) || event.id !== client.id) return;
    switch (event.type) {
      case "mapped":
      case "renewed":
      case "moved":
      case "recovered": {
        const { external, via, lifetimeSeconds } = event.mapping;
        const endpoint = formatEndpoint(external);
        client.port = { state: "open", external: endpoint, via: viaName(via), lifetimeSeconds };
        const words = {
          mapped: `Port open at ${endpoint} by ${viaName(via)}`,
          renewed: `Granted again, ${duration(lifetimeSeconds)}`,
          moved: `Moved to ${endpoint}`,
          recovered: `Recovered at ${endpoint}`,
        };
        return this.#tell(name, words[event.type], "good");
      }
      case "lost":
        client.port = { state: "lost" };
        return this.#tell(name, `Port lost: ${describeFailure(event.failure)}`, "bad");
      case "renewal-failed":
        return this.#tell(name, `Not renewed: ${describeFailure(event.failure)}`, "bad");
      case "failed":
        client.id = undefined;
        client.port = { state: "failed" };
        return this.#tell(name, `No port: ${event.message ?? event.code}`, "bad");
      case "unmapped":
        client.id = undefined;
        client.port = { state: "closed" };
        return this.#tell(name, "Port closed", "plain");
    }
  }

  #doNext(next: TimedDeed): void {
    this.#world.runUntil(next.at);
    this.#pending.shift();
    this.#done.push(next);
    this.#tell(undefined, describeDeed(next.deed), "plain");
    this.#perform(next.deed);
  }

  #perform(deed: Deed): void {
    const [what, value = ""] = deed.split(/-(.*)/);
    switch (what) {
      case "map":
        return this.#map(value as ClientName);
      case "unmap":
        return this.#unmap(value as ClientName);
      case "knock":
        return this.#knockAll();
      case "punch":
        return this.#punch();
      case "hang":
        return this.#hangUp();
      case "reboot":
        this.#nats.home.reboot();
        return this.#gateway.do((gateway, now) => gateway.reboot(now));
      case "address":
        return this.#changeAddress();
      case "home":
      case "away":
        return this.#changeNat(what, value);
      case "speaks":
        return this.#speak(value);
      case "loss":
        this.chosen.loss = value;
        for (const { link } of Object.values(this.#segments)) {
          link.set({ loss: Number(value) / 100 });
        }
    }
  }

  #map(name: ClientName): void {
    const client = this.#clients[name];
    if (client.id !== undefined) return;
    client.port = { state: "asking" };
    const request = { protocol: "udp", internalPort: PORT, description: name } as const;
    client.mapper.do((mapper, now) => client.id = mapper.map(request, now));
  }

  #unmap(name: ClientName): void {
    const { id, mapper } = this.#clients[name];
    if (id !== undefined) mapper.do((one, now) => one.revoke(id, now));
  }

  /** Whoever is on the Internet tries the ports it was told; where there is none, the usual one. */
  #knockAll(): void {
    const open = Object.values(this.#clients).flatMap(({ id, mapper }) => {
      const mapping = id === undefined ? undefined : mapper.machine.mapping(id);
      return mapping ? [mapping.external] : [];
    });
    const usual = { address: this.externalAddress, port: PORT };
    for (const to of open.length > 0 ? open : [usual]) this.#knock(to);
  }

  #punch(): void {
    if (this.#meeting && this.#meeting.view.state !== "failed") return;
    this.#hangUp();
    const agent = (host: Host, address: string, onEvent: (event: IceEvent) => void): Agent => ({
      process: host.run<IceEvent, IceAgent>(
        new IceAgent({
          random: this.#world.fork(),
          hosts: [address],
          servers: [{ address: SERVER[0], port: 3478 }],
        }),
        {},
        { onEvent },
      ),
      ticket: undefined,
      mapped: undefined,
    });
    const meeting: Meeting = this.#meeting = {
      agents: [
        agent(this.#clients.laptop.host, CLIENTS.laptop, (event) => this.#meet(meeting, 0, event)),
        agent(this.#friend, FRIEND, (event) => this.#meet(meeting, 1, event)),
      ],
      view: { state: "gathering" },
    };
    for (const { process } of meeting.agents) process.do((one, now) => one.gather(now));
  }

  #meet(meeting: Meeting, which: 0 | 1, event: IceEvent): void {
    const { agents } = meeting;
    const agent = agents[which];
    const who = which === 0 ? "laptop" : "friend";
    switch (event.type) {
      case "gathered": {
        agent.ticket = event.rendezvous;
        const told = event.rendezvous.candidates.map(formatEndpoint).join(", ");
        this.#tell(who, `Ticket ready: ${told}`, "plain");
        const [a, b] = agents.map(({ ticket }) => ticket);
        if (!a || !b) return;
        return this.#world.after(HANDING_OVER_MS, () => {
          if (this.#meeting !== meeting) return;
          meeting.view = { state: "checking" };
          agents[0].process.do((one, now) => one.setRemote(b, now));
          agents[1].process.do((one, now) => one.setRemote(a, now));
        });
      }
      case "connected": {
        agent.mapped = event.mapped;
        const remote = formatEndpoint(event.remote);
        this.#tell(who, `Connected to ${remote} in ${Math.round(event.elapsedMs)} ms`, "good");
        this.#world.after(0, () => {
          if (this.#meeting === meeting) {
            agent.process.do((one, now) => one.send(bytes("hello"), now));
          }
        });
        const [a, b] = agents.map(({ mapped }) => mapped);
        if (!a || !b) return;
        meeting.view = {
          state: "connected",
          ends: [formatEndpoint(a), formatEndpoint(b)],
          elapsedMs: event.elapsedMs,
        };
        return;
      }
      case "failed":
        meeting.view = { state: "failed", reason: event.message };
        return this.#tell(who, `Not connected: ${event.message}`, "bad");
      case "lost":
        meeting.view = { state: "failed", reason: "the peer answers no more" };
        return this.#tell(who, "The peer answers no more", "bad");
    }
  }

  #hangUp(): void {
    for (const { process } of this.#meeting?.agents ?? []) process.stop();
    this.#meeting = undefined;
  }

  #changeAddress(): void {
    const before = this.externalAddress;
    const [, last] = /\.(\d+)$/.exec(before)!;
    const after = `203.0.113.${7 + (Number(last) - 6) % 200}`;
    this.#nats.home.changeExternal(before, after);
    this.#gateway.do((gateway, now) => gateway.setExternalAddresses([after], now));
  }

  #changeNat(which: "home" | "away", kind: string): void {
    this.chosen[which] = kind;
    const { host, inside, outside, forwarder } = this.#nats[which];
    host.routers.splice(0);
    this.#nats[which] = this.#world.natOn(host, {
      ...NAT_KINDS[kind]!,
      inside,
      outside,
      ...(forwarder && { forwarder }),
    });
  }

  #speak(what: string): void {
    this.chosen.speaks = what;
    const { protocols } = SPEAKS[what]!;
    this.#gateway.do((gateway, now) => {
      for (const protocol of ["pcp", "nat-pmp", "upnp"] as const) {
        gateway.setProtocol(protocol, protocols.includes(protocol), now);
      }
    });
  }

  #tell(who: NodeName | undefined, text: string, mood: Telling["mood"]): void {
    this.tellings.push({ at: this.now, who, text, mood });
    if (this.tellings.length > MAX_TELLINGS) this.tellings.shift();
  }

  /** Takes what the trace has recorded since it was looked at last. */
  #look(): void {
    const { trace } = this.#world;
    const entries = trace.entries();
    const all = trace.forgotten + entries.length;
    const known = Math.max(0, this.#seen - trace.forgotten);
    for (const [i, entry] of entries.slice(known).entries()) {
      if (!("packet" in entry)) continue;
      const { at, packet, verdict, crossing, where } = entry;
      const from = (crossing?.from ?? where) as NodeName;
      const segment = crossing && where as SegmentName;
      const [arrivesAt = at + (segment ? this.#segments[segment].link.conditions.delayMs : 0)] =
        crossing?.arrivals ?? [];
      const to = (crossing?.to ?? where) as NodeName;
      const id = trace.forgotten + known + i + 1;
      this.sightings.push({ id, at, packet, from, to, segment, verdict, arrivesAt });
    }
    this.#seen = all;
    const tooMany = this.sightings.length - MAX_SIGHTINGS;
    if (tooMany > 0) this.sightings.splice(0, tooMany);
  }
}

/** Boots a gateway before time begins; what it announces then nobody is there to hear. */
function bootLongAgo(gateway: SimulatedGateway): void {
  gateway.start(-UPTIME_MS);
  for (let at = gateway.nextTimeout(); at !== undefined && at < 0; at = gateway.nextTimeout()) {
    gateway.handleTimeout(at);
    while (gateway.poll());
  }
}

/** A quiet time of up to this is shortened, milliseconds. */
const SHORTENED_MS = 15_000;
/** It gets over with so fast, milliseconds of real time for 63 % of what is left. */
const SHORTENING_MS = 120;

/**
 * How far virtual time goes while `realMs` pass: as fast as `speed` says, and faster through a short
 * quiet time, in which nothing flies.
 *
 * @param quietMs Until something happens; undefined where packets fly or quiet times are kept.
 */
export function pace(realMs: number, speed: number, quietMs: number | undefined): number {
  const usual = realMs * speed;
  if (quietMs === undefined || quietMs > SHORTENED_MS) return usual;
  return Math.max(usual, quietMs * Math.min(1, realMs / SHORTENING_MS));
}
