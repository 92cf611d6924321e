/**
 * A host with a gateway, or several, in virtual time: what its sockets send reaches a simulated gateway in the
 * next microtask, and so do the answers. What goes wrong is set by hand.
 */
import { setImmediate } from "node:timers";
import type { NatError, Via } from "../../../core/errors.ts";
import { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import { runCommand } from "../../../core/gateway/run_command.ts";
import { parseCommand } from "../../../core/gateway/scenario.ts";
import type { Endpoint } from "../../../core/machine.ts";
import { seededRandom } from "../../../core/random.ts";
import { SSDP_PORT } from "../../../core/upnp/ssdp.ts";
import { loadUpnp } from "../../../adapters/api/upnp_code.ts";
import type { UdpHandlers, UdpOptions, UdpSocket } from "../../../adapters/runtime.ts";
import { FakeRuntime } from "../fake_runtime.ts";

export const GATEWAY: Endpoint = { address: "192.0.2.1", port: 5351 };

/** A request as it left. */
export interface Sent {
  readonly via: Via;
  /** PCP's opcode, or NAT-PMP's. */
  readonly opcode: number;
  /** Undefined where the request has none. */
  readonly lifetimeSeconds: number | undefined;
  readonly data: Uint8Array;
}

export class FakeNetwork extends FakeRuntime {
  readonly gateway: SimulatedGateway;
  readonly #gateways: Map<string, SimulatedGateway> = new Map<string, SimulatedGateway>();
  /** What is lost on its way to the gateway. */
  readonly silent: Set<Via> = new Set<Via>();
  /** As whom a gateway sees this host, where another one translates on the way to it. */
  readonly seenAs: Map<string, string> = new Map<string, string>();
  /** What the system says to each datagram that is to leave. */
  sendError: NatError | undefined;
  /** What the system says to each socket that is to be opened. */
  openError: NatError | undefined;
  /** The requests that left, the oldest first. */
  readonly requests: Sent[] = [];
  /** The gateways of its IPv4 default routes, the best first. */
  defaultRoutes: readonly string[] = [GATEWAY.address];
  /** More lines of `/proc/net/route`. */
  moreRoutes = "";
  /** Before time passes, what is loaded at need is there: it would come in real time. */
  loadsFirst = true;
  /** Set while the system takes its time to say what the routes are. */
  reading: Promise<void> | undefined;

  constructor(protocols: readonly Via[] = ["pcp", "nat-pmp"]) {
    super();
    this.gateway = this.addGateway(GATEWAY.address, "203.0.113.7", protocols);
  }

  /** One more gateway, on PCP's port. */
  addGateway(
    address: string,
    external: string,
    protocols: readonly Via[] = ["pcp", "nat-pmp"],
  ): SimulatedGateway {
    const gateway = new SimulatedGateway({
      externalAddresses: [external],
      announceTo: [],
      random: seededRandom(2),
      protocols: protocols as readonly ("pcp" | "nat-pmp")[],
    });
    gateway.start(this.time);
    this.#gateways.set(address, gateway);
    return gateway;
  }

  override async openUdp(options: UdpOptions, handlers: UdpHandlers): Promise<UdpSocket> {
    if (this.openError) throw this.openError;
    const socket = await super.openUdp(options, handlers);
    return {
      ...socket,
      send: (data, to) => this.#send(socket, handlers, data, to),
      close: () => socket.close(),
    };
  }

  override async readTextFile(path: string): Promise<string> {
    if (path !== "/proc/net/route") return await super.readTextFile(path);
    await this.reading;
    const rows = this.defaultRoutes.map((gateway, i) =>
      `eth${i} 00000000 ${routeHex(gateway)} 0003 0 0 ${i} 00000000 0 0 0\n`
    );
    return `${ROUTE_TITLES}\n${rows.join("")}${this.moreRoutes}`;
  }

  /** Carries out a scenario command. */
  command(line: string): void {
    const parsed = parseCommand(line);
    if (!parsed.ok) throw new TypeError(parsed.message);
    runCommand(this.gateway, parsed.command, this.time);
  }

  /** The internal ports that the gateway maps. */
  ports(): number[] {
    return this.gateway.list(this.time).map(({ internal }) => internal.port);
  }

  /** Lets time pass in steps, and what is sent on the way be answered. */
  async pass(ms: number, stepMs = 50): Promise<void> {
    if (this.loadsFirst) await loadUpnp();
    for (let left = ms; left > 0; left -= stepMs) {
      this.advance(Math.min(stepMs, left));
      await turn();
    }
  }

  #send(socket: UdpSocket, handlers: UdpHandlers, data: Uint8Array, to: Endpoint): void {
    const error = this.sendError;
    if (error) return queueMicrotask(() => handlers.onError(error, to));
    // Nobody here speaks UPnP.
    if (to.port === SSDP_PORT) return;
    const sent = readRequest(data);
    this.requests.push(sent);
    const gateway = this.#gateways.get(to.address);
    if (!gateway || this.silent.has(sent.via)) return;
    queueMicrotask(() => {
      const address = this.seenAs.get(to.address) ?? socket.local.address;
      gateway.handleDatagram(data, { ...socket.local, address }, "server", this.time);
      for (let reply = gateway.poll(); reply; reply = gateway.poll()) {
        if (reply.type === "send") handlers.onDatagram(reply.data, to);
      }
    });
  }
}

const ROUTE_TITLES = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT";

/** An IPv4 address as `/proc/net/route` has it. */
export function routeHex(address: string): string {
  const bytes = address.split(".").reverse();
  return bytes.map((byte) => Number(byte).toString(16).padStart(2, "0")).join("").toUpperCase();
}

function readRequest(data: Uint8Array): Sent {
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  const isPcp = data[0] === 2;
  const at = isPcp ? 4 : data.length >= 12 ? 8 : undefined;
  return {
    via: isPcp ? "pcp" : "nat-pmp",
    opcode: data[1]!,
    lifetimeSeconds: at === undefined ? undefined : view.getUint32(at),
    data: data.slice(),
  };
}

/** Lets all that is about to happen happen. */
export function turn(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}

/** What no type lets through, as a program without types hands it in. */
// deno-lint-ignore no-explicit-any
export const any = (value: unknown): any => value;
