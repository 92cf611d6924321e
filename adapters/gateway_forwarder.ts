/**
 * The simulated gateway's data path in user space: what arrives at a mapped port is relayed to the
 * mapping's inside, so that a port can be seen open without a NAT, a second machine or root.
 *
 * TCP is relayed byte by byte, each side's end of stream passed on to the other. UDP gets a socket of
 * its own for each remote endpoint, so that answers find back. The program inside sees the gateway's
 * address where a NAT would show the remote one. How much is open at once is bounded, and all of it
 * ends with the mapping.
 *
 * @module
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { isLoopback } from "../core/cidr.ts";
import { familyOf, formatEndpoint, isSameEndpoint, withoutZone } from "../core/ip.ts";
import type { Endpoint } from "../core/machine.ts";
import { PROTOCOL_NUMBER, type RemoteFilter, type Transport } from "../core/mapping.ts";
import { isAdmitted, type TableEntry } from "../core/table/entry.ts";
import type { Runtime, UdpSocket } from "./runtime.ts";
import { listenAt, socketEndpoint } from "./streams.ts";

/** How many ports are open at once. */
const MAX_PORTS = 1024;
/** How many TCP connections are relayed at once. */
const MAX_CONNECTIONS = 256;
/** How many remote endpoints of a UDP port are told apart. */
const MAX_FLOWS = 256;
/** How long a connection inwards may take, milliseconds. */
const CONNECT_MS = 10_000;

/** A port that is open: where it leads, and for whom. */
interface Wanted {
  readonly protocol: Transport;
  readonly at: Endpoint;
  readonly to: Endpoint;
  readonly filters: readonly RemoteFilter[];
}

interface OpenPort {
  wanted: Wanted;
  /** Ends what goes through it. */
  end(): void;
  /** Ends it and what goes through it. */
  close(): void;
}

/** Relays what arrives at mapped ports. */
export class GatewayForwarder {
  readonly #runtime: Runtime;
  readonly #onError: (error: unknown) => void;
  readonly #listen: string;
  readonly #ports = new Map<string, OpenPort>();
  #connections = 0;
  #work: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  /**
   * @param listen Where ports are opened whose external address is none of this host's.
   * @param onError Gets why a port cannot be opened.
   */
  constructor(runtime: Runtime, listen: string, onError: (error: unknown) => void) {
    this.#runtime = runtime;
    this.#listen = listen;
    this.#onError = onError;
  }

  /** Where a mapping's external endpoint is opened on this host. */
  place({ address, port }: Endpoint): Endpoint {
    return { address: isOfHost(this.#runtime, address) ? address : this.#listen, port };
  }

  /** Opens and closes ports, so that they are what the table says. */
  sync(entries: readonly TableEntry[]): Promise<void> {
    const wanted = new Map(this.#wantedOf(entries).map((one) => [keyOf(one), one]));
    const next = this.#work.then(async () => {
      for (const [key, port] of this.#ports) {
        const still = this.#isClosed ? undefined : wanted.get(key);
        if (still) {
          // Whoever is inside from now on knows nothing of what was begun with another.
          if (!isSameEndpoint(still.to, port.wanted.to)) port.end();
          port.wanted = still;
          continue;
        }
        this.#ports.delete(key);
        port.close();
      }
      for (const [key, one] of wanted) {
        if (this.#isClosed || this.#ports.has(key)) continue;
        try {
          await this.#open(key, one);
        } catch (error) {
          this.#onError(error);
        }
      }
    });
    this.#work = next.catch(() => {});
    return next;
  }

  /** Ends everything. */
  close(): Promise<void> {
    this.#isClosed = true;
    return this.sync([]);
  }

  #wantedOf(entries: readonly TableEntry[]): Wanted[] {
    const wanted: Wanted[] = [];
    for (const { kind, protocol, internal, external, size, filters } of entries) {
      const transport = protocol === PROTOCOL_NUMBER.tcp
        ? "tcp"
        : protocol === PROTOCOL_NUMBER.udp
        ? "udp"
        : undefined;
      if (kind === "outbound" || !transport || internal.port === 0) continue;
      for (let i = 0; i < size && wanted.length < MAX_PORTS; i++) {
        const at = this.place({ address: external.address, port: external.port + i });
        const to = { address: internal.address, port: internal.port + i };
        wanted.push({ protocol: transport, at, to, filters });
      }
    }
    return wanted;
  }

  #open(key: string, wanted: Wanted): Promise<void> {
    return wanted.protocol === "tcp" ? this.#openTcp(key, wanted) : this.#openUdp(key, wanted);
  }

  async #openTcp(key: string, wanted: Wanted): Promise<void> {
    const sockets = new Set<Socket>();
    const end = (): void => {
      for (const socket of sockets) socket.destroy();
    };
    const port: OpenPort = { wanted, end, close: end };
    const server: Server = createServer({ allowHalfOpen: true }, (outside) => {
      outside.on("error", () => outside.destroy());
      const remote = socketEndpoint(outside.remoteAddress, outside.remotePort);
      const { filters, to } = port.wanted;
      if (!remote || !isAdmitted(filters, remote) || this.#connections >= MAX_CONNECTIONS) {
        return void outside.destroy();
      }
      this.#relay(outside, to, sockets);
    });
    const listener = await listenAt(server, wanted.at, "what is forwarded");
    port.close = () => {
      listener.close();
      end();
    };
    this.#ports.set(key, port);
  }

  #relay(outside: Socket, to: Endpoint, sockets: Set<Socket>): void {
    const inside = connect({
      host: withoutZone(to.address),
      port: to.port,
      family: familyOf(to.address),
      allowHalfOpen: true,
    });
    const end = (): void => {
      if (!sockets.delete(inside)) return;
      sockets.delete(outside);
      this.#connections--;
      stop();
      outside.destroy();
      inside.destroy();
    };
    const stop = this.#runtime.setTimer(CONNECT_MS, () => inside.connecting && end(), false);
    this.#connections++;
    sockets.add(inside).add(outside);
    for (const socket of [inside, outside]) {
      socket.on("error", end);
      socket.on("close", () => {
        // The other one may still have to send what it got.
        if (inside.destroyed && outside.destroyed) end();
      });
    }
    outside.pipe(inside);
    inside.pipe(outside);
  }

  async #openUdp(key: string, wanted: Wanted): Promise<void> {
    const flows = new Map<string, Promise<UdpSocket>>();
    const end = (): void => {
      for (const flow of flows.values()) closeFlow(flow);
      flows.clear();
    };
    const port: OpenPort = { wanted, end, close: end };
    const outside = await this.#runtime.openUdp({ local: wanted.at }, {
      onDatagram: (data, from) => {
        const { filters, to } = port.wanted;
        if (!isAdmitted(filters, from)) return;
        const copy = new Uint8Array(data);
        this.#flow(flows, outside, from, to).then((socket) => socket.send(copy, to))
          .catch((error) => this.#onError(error));
      },
      onUnreachable: () => {},
      onError: () => {},
    });
    port.close = () => {
      outside.close();
      end();
    };
    this.#ports.set(key, port);
  }

  /** The flow of a remote endpoint, with a socket of its own towards the inside. */
  #flow(
    flows: Map<string, Promise<UdpSocket>>,
    outside: UdpSocket,
    remote: Endpoint,
    to: Endpoint,
  ): Promise<UdpSocket> {
    const key = formatEndpoint(remote);
    const known = flows.get(key);
    if (known) {
      // The one used last is the last to go.
      flows.delete(key);
      flows.set(key, known);
      return known;
    }
    this.#makeRoom(flows);
    const flow = this.#runtime.openUdp({}, {
      onDatagram: (data, from) => {
        if (isSameEndpoint(from, to)) outside.send(new Uint8Array(data), remote);
      },
      onUnreachable: () => {},
      onError: () => {},
    });
    flows.set(key, flow);
    flow.catch(() => flows.delete(key));
    return flow;
  }

  /** The flow that was used least lately goes where there are too many. */
  #makeRoom(flows: Map<string, Promise<UdpSocket>>): void {
    for (const [key, flow] of flows) {
      if (flows.size < MAX_FLOWS) return;
      flows.delete(key);
      closeFlow(flow);
    }
  }
}

/** What has failed to open, which its datagram tells of, needs no closing. */
function closeFlow(flow: Promise<UdpSocket>): void {
  flow.then((socket) => socket.close(), () => {});
}

function keyOf({ protocol, at }: Wanted): string {
  return `${protocol} ${formatEndpoint(at)}`;
}

/** Whether an address is one of this host's, as all of 127.0.0.0/8 are. */
export function isOfHost(runtime: Runtime, address: string): boolean {
  return isLoopback(address) ||
    runtime.interfaces().some((one) => withoutZone(one.address) === address);
}
