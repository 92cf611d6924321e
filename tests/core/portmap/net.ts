/**
 * A mapper among several gateways, each answered for by a simulated one, by hand.
 *
 * @module
 */
import { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import type { Endpoint, Instant, SendAction } from "../../../core/machine.ts";
import type { MapperEvent } from "../../../core/portmap/managed.ts";
import type { PortMapper, PortMapperOptions } from "../../../core/portmap/mapper.ts";
import type { NetworkPath } from "../../../core/portmap/path.ts";
import { seededRandom } from "../../../core/random.ts";
import { BY_DATAGRAM, newMapper } from "./rig.ts";

export const web = { protocol: "tcp", internalPort: 8080 } as const;
export const A: NetworkPath = {
  gateway: { address: "192.168.1.1", port: 5351 },
  localAddress: "192.168.1.100",
};
export const B: NetworkPath = {
  gateway: { address: "192.168.2.1", port: 5351 },
  localAddress: "192.168.2.100",
};
export const SIX: NetworkPath = {
  gateway: { address: "fe80::1%eth0", port: 5351 },
  localAddress: "2001:db8::100",
};

/** A gateway above A, which gives A its external address. */
export const OUTER: NetworkPath = { gateway: { address: "10.0.0.1", port: 5351 } };
/** A's external address there. */
export const BETWEEN = "10.0.0.2";

/** A mapper and the gateways that answer it, by their addresses. */
export class Net {
  readonly mapper: PortMapper;
  readonly gateways: Map<string, SimulatedGateway> = new Map();
  readonly events: MapperEvent[] = [];
  readonly sent: SendAction[] = [];
  /** Gateways of which nothing comes back. */
  readonly silent: Set<string> = new Set();
  now: Instant = 0;
  /** From where each gateway sees the mapper. */
  readonly #locals: Map<string, Endpoint> = new Map();
  readonly #open: Map<string, string> = new Map();

  constructor(options: Partial<PortMapperOptions> = {}) {
    this.mapper = newMapper({ protocols: BY_DATAGRAM, ...options });
  }

  /** Puts a gateway there that booted well before. */
  add(path: NetworkPath, external: string, options: object = {}): SimulatedGateway {
    const gateway = new SimulatedGateway({
      ...(path === SIX ? {} : { externalAddresses: [external] }),
      random: seededRandom(2),
      announceTo: [],
      ...options,
    });
    gateway.start(-100_000);
    this.gateways.set(path.gateway.address, gateway);
    return gateway;
  }

  /** Tells the mapper its network; `opens` says in which order sockets open, or not. */
  connect(paths: readonly NetworkPath[], opens: readonly NetworkPath[] = paths): void {
    this.mapper.networkChanged(paths, this.now);
    for (const { gateway } of opens) {
      const spec = this.mapper.sockets().find(({ connect }) =>
        connect?.address === gateway.address
      );
      if (!spec) continue;
      const text = JSON.stringify(spec);
      if (this.#open.get(spec.key) === text) continue;
      this.#open.set(spec.key, text);
      const local = { address: spec.local!.address, port: 40_000 };
      this.#locals.set(gateway.address, local);
      this.mapper.handleSocket(spec.key, { ok: true, local }, this.now);
    }
    this.settle();
  }

  /** Opens the socket to a gateway that the mapper found itself, which sees another source. */
  open(gateway: Endpoint, seenAs: string): void {
    const spec = this.mapper.sockets().find(({ connect }) => connect?.address === gateway.address);
    if (!spec) throw new Error(`no socket to ${gateway.address} is wanted`);
    this.#locals.set(gateway.address, { address: seenAs, port: 40_001 });
    const local = { address: A.localAddress!, port: 40_001 };
    this.mapper.handleSocket(spec.key, { ok: true, local }, this.now);
    this.settle();
  }

  /** Opens the sockets to where a gateway may stand above A. */
  openAbove(): void {
    for (const address of ["10.0.0.254", OUTER.gateway.address]) {
      this.open({ address, port: 5351 }, BETWEEN);
    }
  }

  do<T>(command: (mapper: PortMapper, now: Instant) => T): T {
    const result = command(this.mapper, this.now);
    this.settle();
    return result;
  }

  /** Carries what is sent to the gateways and back, until all are silent. */
  settle(): void {
    for (let action = this.mapper.poll(); action; action = this.mapper.poll()) {
      if (action.type === "event") this.events.push(action.event);
      if (action.type !== "send") continue;
      this.sent.push(action);
      this.deliver(action);
    }
  }

  /** Hands a request to its gateway, and the answer back. */
  deliver({ to, data, socket }: SendAction): void {
    const gateway = this.gateways.get(to.address);
    if (!gateway || this.silent.has(to.address)) return;
    gateway.handleDatagram(data, this.#locals.get(to.address)!, "server", this.now);
    for (let reply = gateway.poll(); reply; reply = gateway.poll()) {
      if (reply.type === "send") this.mapper.handleDatagram(reply.data, to, socket, this.now);
    }
  }

  run(ms: number): void {
    const end = this.now + ms;
    for (;;) {
      const at = this.mapper.nextTimeout() ?? Infinity;
      if (at > end) break;
      this.now = Math.max(this.now, at);
      this.mapper.handleTimeout(this.now);
      this.settle();
    }
    this.now = end;
  }

  takeTypes(): string[] {
    return this.events.splice(0).map(({ type }) => type);
  }

  /** External ports in a gateway's table. */
  ports(path: NetworkPath): number[] {
    const entries = this.gateways.get(path.gateway.address)!.list(this.now);
    return entries.map(({ external }) => external.port);
  }
}
