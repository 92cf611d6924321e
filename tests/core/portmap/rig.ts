/**
 * A host with a port mapper and a simulated gateway on one virtual LAN, 1 ms apart.
 *
 * @module
 */
import { SimulatedGateway, type SimulatedGatewayOptions } from "../../../core/gateway/gateway.ts";
import type { Endpoint } from "../../../core/machine.ts";
import type { MapperEvent } from "../../../core/portmap/managed.ts";
import { PortMapper, type PortMapperOptions } from "../../../core/portmap/mapper.ts";
import { makeIgdClient } from "../../../core/portmap/upnp.ts";
import type { Process } from "../../../core/sim/process.ts";
import type { Host } from "../../../core/sim/host.ts";
import type { Segment } from "../../../core/sim/segment.ts";
import { seededRandom } from "../../../core/random.ts";
import { SimSocket } from "../../../core/sim/socket.ts";
import { StrictMachine } from "../../../core/sim/strict.ts";
import { World } from "../../../core/sim/world.ts";
import { timed } from "../machine_case.ts";
import type { ServerEvent } from "../../../core/table/server_request.ts";

export const GATEWAY: Endpoint = { address: "192.168.1.1", port: 5351 };
export const HOST = "192.168.1.100";
export const EXTERNAL = "203.0.113.7";
/** Who races in tests that are not about UPnP. */
export const BY_DATAGRAM = ["pcp", "nat-pmp"] as const;

/** What {@linkcode rig} takes. */
export interface RigOptions {
  readonly seed?: number;
  readonly mapper?: Partial<PortMapperOptions>;
  readonly gateway?: Partial<SimulatedGatewayOptions>;
  /** Whether a gateway runs at all. Default true. */
  readonly isThere?: boolean;
  /** Whether the gateway's host answers closed ports by ICMP. Default true. */
  readonly sendsUnreachable?: boolean;
}

/** One home network. */
export class Rig {
  readonly world: World;
  readonly lan: Segment;
  readonly box: Host;
  readonly host: Host;
  /** Every datagram that the mapper sent. */
  readonly sent: { at: number; data: Uint8Array }[] = [];
  /** The process that the mapper is. */
  readonly process: Process<MapperEvent, StrictMachine<MapperEvent, PortMapper>>;
  #passes: (data: Uint8Array) => boolean = () => true;
  readonly #gateway:
    | Process<ServerEvent, StrictMachine<ServerEvent, SimulatedGateway>>
    | undefined;

  constructor(options: RigOptions = {}) {
    this.world = new World({ seed: options.seed ?? 1 });
    this.lan = this.world.segment("lan", { delayMs: 1 });
    this.box = this.world.host("gateway", { sendsUnreachable: options.sendsUnreachable ?? true });
    this.box.attach(this.lan, GATEWAY.address);
    if (options.isThere ?? true) {
      const machine = new SimulatedGateway({
        externalAddresses: [EXTERNAL],
        random: this.world.fork(),
        ...options.gateway,
      });
      this.#gateway = this.box.run<ServerEvent, StrictMachine<ServerEvent, SimulatedGateway>>(
        new StrictMachine<ServerEvent, SimulatedGateway>(machine),
        { server: { port: GATEWAY.port } },
      );
      this.gateway((gateway, now) => gateway.start(now));
    }
    this.host = this.world.host("host");
    this.host.attach(this.lan, HOST);
    const mapper = new PortMapper({
      random: this.world.fork(),
      upnp: makeIgdClient,
      protocols: BY_DATAGRAM,
      ...options.mapper,
    });
    this.process = this.host.run<MapperEvent, StrictMachine<MapperEvent, PortMapper>>(
      new StrictMachine<MapperEvent, PortMapper>(mapper),
      {},
    );
    this.mapper((machine, now) => machine.networkChanged([{ gateway: GATEWAY }], now));
    this.#watch();
  }

  /** The socket to the gateway. */
  get socket(): SimSocket {
    return this.process.listed(this.mapper((mapper) => mapper.sockets()[0]!.key))!;
  }

  /** Lets through only the mapper's datagrams that pass; those are recorded. */
  filter(passes: (data: Uint8Array) => boolean): void {
    this.#passes = passes;
  }

  #watch(): void {
    const { socket } = this;
    socket.send = (to, data) => {
      if (!this.#passes(data)) return;
      this.sent.push({ at: this.world.now, data });
      SimSocket.prototype.send.call(socket, to, data);
    };
  }

  /** Lets through only the announcements that pass. */
  filterAnnouncements(passes: (data: Uint8Array) => boolean): void {
    const socket = this.#gateway!.sockets.server!;
    socket.send = (to, data) => {
      const isAnnouncement = to.address === "224.0.0.1";
      if (!isAnnouncement || passes(data)) SimSocket.prototype.send.call(socket, to, data);
    };
  }

  /** Gives the mapper a command. */
  mapper<T>(command: (mapper: PortMapper, now: number) => T): T {
    return this.process.do((machine, now) => machine.command(command, now));
  }

  /** Gives the gateway a command. */
  gateway<T>(command: (gateway: SimulatedGateway, now: number) => T): T {
    return this.#gateway!.do((machine, now) => machine.command(command, now));
  }

  /** Takes the mapper's events. */
  events(): (MapperEvent & { at: number })[] {
    return this.process.takeEvents().map(({ at, event }) => ({ at, ...event }));
  }

  /** Takes the mapper's events, their types alone. */
  types(): string[] {
    return this.events().map(({ type }) => type);
  }

  /** External ports in the gateway's table, sorted. */
  ports(): number[] {
    const entries = this.gateway((gateway, now) => gateway.list(now));
    return entries.map(({ external }) => external.port).sort((a, b) => a - b);
  }
}

/** Makes one. */
export function rig(options: RigOptions = {}): Rig {
  return new Rig(options);
}

/** A mapper that knows no network yet. */
export function newMapper(options: Partial<PortMapperOptions>): PortMapper {
  const random = seededRandom(1);
  return timed(new PortMapper({ random, announcements: false, upnp: makeIgdClient, ...options }));
}

/** A mapper whose one gateway is open, without a network around it. */
export function openMapper(
  options: Partial<PortMapperOptions> = {},
  localAddress: string = HOST,
  gateway: Endpoint = GATEWAY,
): PortMapper {
  const mapper = newMapper({ protocols: BY_DATAGRAM, ...options });
  mapper.networkChanged([{ gateway, localAddress }], 0);
  const local = { address: localAddress, port: 40_000 };
  mapper.handleSocket(mapper.sockets()[0]!.key, { ok: true, local }, 0);
  return mapper;
}

/** The protocol of a datagram by its first byte. */
export const versions = (sent: readonly { data: Uint8Array }[]): string =>
  sent.map(({ data }) => data[0] === 2 ? "pcp" : "nat-pmp").join(" ");

/** The event, which must be of this type. */
export function told<E extends { readonly type: string }, T extends E["type"]>(
  event: E | undefined,
  type: T,
): Extract<E, { readonly type: T }> {
  if (event?.type !== type) {
    throw new Error(`Expected an event "${type}": current value is ${JSON.stringify(event)}`);
  }
  return event as Extract<E, { readonly type: T }>;
}
