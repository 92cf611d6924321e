/**
 * Networks to roam between: each a segment with its gateways, which are NATs or IPv6 firewalls that
 * run the simulated gateway. A gateway may keep its protocols' tables apart, may be silent or have
 * no protocol at all, and other programs have mappings there that nobody else may touch.
 *
 * @module
 */
import { SimulatedGateway } from "../../core/gateway/gateway.ts";
import type { GatewayProtocol } from "../../core/gateway/profile.ts";
import type { Action, DebugTimeout, Endpoint, Instant, Machine } from "../../core/machine.ts";
import { PROTOCOL_NUMBER, type Transport } from "../../core/mapping.ts";
import {
  type LinkOptions,
  type Nat,
  type Process,
  type Segment,
  SimulationError,
  StrictMachine,
  type World,
} from "../../core/sim/mod.ts";
import type { MappingOrigin, TableEntry } from "../../core/table/entry.ts";
import type { ServerEvent } from "../../core/table/server_request.ts";
import { execute } from "./gateway.ts";

/** PCP's and NAT-PMP's port. */
const PORT = 5351;
/** The ports of other programs' mappings: none of a traveller's. */
const OTHERS_PORT = 9000;

/** What a router is like. */
export interface RouterPlan {
  readonly family: 4 | 6;
  /** What it speaks; none: ICMP says that nothing listens. */
  readonly protocols: readonly GatewayProtocol[];
  /** Each protocol has a table of its own. */
  readonly isSplit: boolean;
  /** Whether requests are met with silence, where nothing listens. */
  readonly isSilent: boolean;
  /** The Internet gateway device that it is, where it speaks UPnP. */
  readonly igd?: 1 | 2;
  /** It lets a host have by UPnP what another one has; a firewall, change it. */
  readonly overwrites?: boolean;
}

/** A mapping of another program. */
interface Foreign {
  readonly table: SimulatedGateway["table"];
  readonly protocol: number;
  readonly internal: Endpoint;
  readonly origin: MappingOrigin;
  /** The external port that it wants; any where left out. */
  readonly port?: number;
}

/** A gateway: one box with one table, or with one for each protocol. */
export class Router {
  readonly name: string;
  readonly family: 4 | 6;
  /** The simulated gateways on it: PCP's before NAT-PMP's where they are two. */
  readonly servers: readonly SimulatedGateway[];
  readonly nat: Nat;
  readonly plan: RouterPlan;
  /** Its address inside. */
  address: string;
  readonly #world: World;
  readonly #machine: Machine<ServerEvent>;
  readonly #stricts: readonly StrictMachine<ServerEvent, SimulatedGateway>[];
  #process: Process<ServerEvent> | undefined;
  #foreign: Foreign[] = [];

  constructor(world: World, plan: RouterPlan, at: {
    readonly name: string;
    readonly lan: Segment;
    readonly internet: Segment;
    readonly inside: string;
    readonly outside: string;
    readonly prefix: string;
  }) {
    this.#world = world;
    this.name = at.name;
    this.plan = plan;
    this.family = plan.family;
    this.address = at.inside;
    const [prefix, length] = at.prefix.split("/");
    this.nat = world.nat(at.name, {
      inside: [at.lan, at.inside],
      outside: [at.internet, at.outside],
      ...(plan.family === 6 && {
        ports: "untranslated" as const,
        prefix: { address: prefix!, prefixLength: Number(length), family: 6 as const },
      }),
    });
    const spoken = plan.isSplit ? plan.protocols.map((one) => [one]) : [plan.protocols];
    this.servers = spoken.map((protocols) =>
      new SimulatedGateway({
        random: world.fork(),
        protocols,
        internalPrefixes: [at.prefix],
        allowThirdParty: true,
        ...(plan.family === 4 && { externalAddresses: [at.outside] }),
        // Who speaks UPnP lists its sockets.
        ...(plan.igd !== undefined && {
          listen: { address: at.inside, port: PORT },
          upnp: {
            version: plan.igd,
            // Hosts behind a firewall are not on a link of its own address.
            interfaces: [{
              address: at.inside,
              ...(plan.family === 4 && { prefixLength: 24 }),
            }],
            ...(plan.overwrites &&
              (plan.family === 6 ? { isSecure: false } : { habits: { overwrites: true } })),
          },
        }),
      })
    );
    this.nat.forwarder = {
      lookupInbound: (...asked) => first(this.servers, (one) => one.lookupInbound(...asked)),
      lookupOutbound: (...asked) => first(this.servers, (one) => one.lookupOutbound(...asked)),
      holds: (...asked) => this.servers.some((one) => one.holds(...asked)),
      noteOutbound: (...noted) => this.servers.forEach((one) => one.noteOutbound(...noted)),
    };
    this.#stricts = this.servers.map((one) => new StrictMachine(one));
    this.#machine = this.#stricts.length === 1
      ? this.#stricts[0]!
      : new ByVersion(this.#stricts[0]!, this.#stricts[1]!);
    if (plan.isSilent) this.nat.host.sendsUnreachable = false;
    this.scenario("boot");
  }

  /** Where it takes requests. */
  get endpoint(): Endpoint {
    return { address: this.address, port: PORT };
  }

  /** What it speaks at present. */
  get spoken(): readonly GatewayProtocol[] {
    return this.servers.flatMap(({ protocols }) => protocols);
  }

  /** Puts a scenario command to it. */
  scenario(line: string): void {
    this.#world.note(`${this.name}: ${line}`);
    const { now } = this.#world;
    for (const strict of this.#stricts) {
      strict.command((gateway) => execute(gateway, line, now), now);
    }
    this.#settle();
    if (line === "reboot" || line === "forget") this.#plantAgain();
  }

  /** Switches a protocol that it speaks by nature. */
  setProtocol(protocol: GatewayProtocol, isOn: boolean): void {
    const { protocols } = this.plan;
    if (!protocols.includes(protocol)) return;
    this.#world.note(`${this.name}: ${protocol} ${isOn ? "on" : "off"}`);
    const i = this.plan.isSplit ? protocols.indexOf(protocol) : 0;
    this.#stricts[i]!.command((gateway, now) => {
      gateway.setProtocol(protocol, isOn, now);
    }, this.#world.now);
    this.#settle();
  }

  /** Pulls its plug, or puts it in again: then its table is empty. */
  power(isOn: boolean): void {
    if (isOn === !this.nat.host.isSuspended) return;
    this.#world.note(`${this.name}: power ${isOn ? "on" : "off"}`);
    if (!isOn) return this.nat.host.suspend();
    this.nat.host.resume();
    this.scenario("reboot");
    this.nat.reboot();
  }

  /** Gives it another address inside. */
  changeInside(address: string): void {
    this.#world.note(`${this.name}: its address is ${address}`);
    this.nat.host.changeAddress(this.address, address);
    this.address = address;
    this.#process?.stop();
    this.#process = undefined;
    this.#settle();
  }

  /** Gives it another WAN address. */
  changeExternal(address: string): void {
    this.nat.changeExternal(this.nat.external[0]!, address);
    this.scenario(`external ${address}`);
  }

  /** Another program of the host at `address` has mappings here, by each protocol that there is. */
  plantForeign(address: string, spread: number): void {
    this.#foreign = this.#foreign.filter(({ internal }) => internal.address !== address);
    for (const gateway of this.servers) {
      for (const [i, origin] of gateway.protocols.entries()) {
        const protocol = PROTOCOL_NUMBER[i === 0 ? "tcp" : "udp"];
        const internal = { address, port: OTHERS_PORT + spread };
        this.#foreign.push({ table: gateway.table, protocol, internal, origin });
      }
    }
    this.#plantAgain();
  }

  /** Another host has a port that travellers want, too. */
  plantNeighbour(address: string, port: number): void {
    for (const { table } of this.servers) {
      const internal = { address, port };
      this.#foreign.push({ table, protocol: PROTOCOL_NUMBER.tcp, internal, origin: "upnp", port });
    }
    this.#plantAgain();
  }

  /** What of others' mappings is gone. */
  missingForeign(): string | undefined {
    for (const { table, protocol, internal } of this.#foreign) {
      if (table.inbound(protocol, internal.address, internal.port)) continue;
      return `${internal.address}:${internal.port} at ${this.name}`;
    }
    return undefined;
  }

  /** The host at an address is gone for good: so are its other programs. */
  forgetForeign(address: string): void {
    this.#foreign = this.#foreign.filter(({ internal }) => internal.address !== address);
  }

  /** The external endpoints of an internal one that it holds by a protocol. */
  externals(via: string, protocol: Transport, owner: string, port: number): Endpoint[] {
    return this.servers.flatMap(({ protocols, table }) =>
      protocols.includes(via as GatewayProtocol) ? table.entriesOf(owner) : []
    ).filter(({ kind, protocol: number, internal, size }) =>
      kind === "explicit" && number === PROTOCOL_NUMBER[protocol] && internal.port <= port &&
      port < internal.port + size
    ).map(({ external, internal }) => ({
      address: external.address,
      port: external.port + port - internal.port,
    }));
  }

  /**
   * All that clients have made for a host, others' programs left out, and what has no end: where a
   * device grants nothing else, it outlives who made it.
   */
  entriesOf(address: string): TableEntry[] {
    return this.servers.flatMap(({ table }) =>
      table.entriesOf(address).filter(({ kind, internal, expiresAt }) =>
        kind === "explicit" && internal.port < OTHERS_PORT && expiresAt !== Infinity
      )
    );
  }

  /** Lets what has run out go. */
  tidy(): void {
    for (const gateway of this.servers) gateway.list(this.#world.now);
  }

  #plantAgain(): void {
    const { now } = this.#world;
    for (const { table, protocol, internal, origin, port } of this.#foreign) {
      if (table.inbound(protocol, internal.address, internal.port)) continue;
      const isFull = table.isExhausted;
      table.isExhausted = false;
      const made = table.mapInbound({
        origin,
        protocol,
        internal,
        expiresAt: Infinity,
        ...(port !== undefined && { suggestedPort: port }),
        ...(origin === "pcp" && { nonce: new Uint8Array(12).fill(0xb5) }),
      }, now);
      table.isExhausted = isFull;
      // A WAN that is down gives nobody anything.
      if (typeof made === "string") this.forgetForeign(internal.address);
    }
  }

  #settle(): void {
    const listsSockets = this.plan.igd !== undefined;
    const isListening = listsSockets || this.servers.some((one) => one.isListening);
    if (isListening && !this.#process) {
      const server = { address: this.address, port: PORT };
      this.#process = this.nat.host.run<ServerEvent, Machine<ServerEvent>>(
        this.#machine,
        listsSockets ? {} : { server, other: { address: this.address, port: 5999 } },
        { name: this.name, onEvent: () => {} },
      );
    } else if (!isListening && this.#process) {
      this.#process.stop();
      this.#process = undefined;
    }
    this.#process?.do(() => {});
  }
}

/** Two gateways behind one socket: PCP's requests go to the one, all others to the other. */
class ByVersion implements Machine<ServerEvent> {
  readonly stats = {};
  readonly #both: readonly [Machine<ServerEvent>, Machine<ServerEvent>];

  constructor(pcp: Machine<ServerEvent>, natPmp: Machine<ServerEvent>) {
    this.#both = [pcp, natPmp];
  }

  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    return this.#both[data[0] === 2 ? 0 : 1].handleDatagram(data, from, socket, now);
  }

  handleUnreachable(to: Endpoint, socket: string, now: Instant): void {
    for (const one of this.#both) one.handleUnreachable(to, socket, now);
  }

  handleTimeout(now: Instant): void {
    for (const one of this.#both) one.handleTimeout(now);
  }

  nextTimeout(): Instant | undefined {
    return this.debugTimeout()?.at;
  }

  debugTimeout(): DebugTimeout | undefined {
    const [a, b] = this.#both.map((one) => one.debugTimeout());
    return a && b ? a.at <= b.at ? a : b : a ?? b;
  }

  poll(): Action<ServerEvent> | undefined {
    return this.#both[0].poll() ?? this.#both[1].poll();
  }
}

/** A network. */
export class Place {
  readonly name: string;
  readonly lan: Segment;
  readonly routers: readonly Router[];
  /** The third number of its IPv4 addresses, and of its IPv6 prefix. */
  readonly number: number;
  /** What link it has in good times. */
  readonly link: LinkOptions;
  readonly #used = new Set<string>();

  constructor(world: World, internet: Segment, options: {
    readonly name: string;
    /** What makes it different from all others. */
    readonly index: number;
    /** Two places may have the same addresses inside. */
    readonly number: number;
    readonly routers: readonly RouterPlan[];
    readonly link: LinkOptions;
  }) {
    const { name, index, number } = options;
    this.name = name;
    this.number = number;
    this.link = options.link;
    this.lan = world.segment(name, options.link);
    this.routers = options.routers.map((plan, i) =>
      new Router(world, plan, {
        name: `${name}-${i}`,
        lan: this.lan,
        internet,
        inside: plan.family === 4 ? `192.168.${number}.${1 + i}` : `fd00:${number}::${1 + i}`,
        outside: plan.family === 4 ? `203.0.${110 + index}.${7 + i}` : `2001:db8:eeee:${index}::1`,
        prefix: plan.family === 4 ? `192.168.${number}.0/24` : `2001:db8:${index}::/48`,
      })
    );
  }

  /** An address that nobody has or had here. */
  freeAddress(family: 4 | 6, index: number, draw: () => number): string {
    for (;;) {
      const n = draw();
      const address = family === 4
        ? `192.168.${this.number}.${20 + n % 200}`
        : `2001:db8:${index}:${1 + n % 3}::${(0x100 + n % 0x800).toString(16)}`;
      if (this.#used.has(address) || this.lan.lookup(address)) continue;
      this.#used.add(address);
      return address;
    }
  }

  /** The routers of a family. */
  of(family: 4 | 6): readonly Router[] {
    return this.routers.filter((one) => one.family === family);
  }

  /** The router that has an address. */
  router(gateway: string): Router | undefined {
    return this.routers.find(({ address }) => address === gateway);
  }

  /** Breaks off where a mapping that is nobody's here to delete was deleted. */
  judgeForeign(): void {
    for (const router of this.routers) {
      const missing = router.missingForeign();
      if (missing) {
        throw new SimulationError(`Another program's mapping was deleted: ${missing}`);
      }
    }
  }
}

function first<T, R>(list: readonly T[], look: (one: T) => R | undefined): R | undefined {
  for (const one of list) {
    const found = look(one);
    if (found !== undefined) return found;
  }
  return undefined;
}
