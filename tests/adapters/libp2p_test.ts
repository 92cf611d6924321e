/**
 * The service for libp2p, on a node that stands in for one: what it maps, and what it tells.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { type GatewayServer, startGateway } from "../../adapters/gateway_server.ts";
import { type Libp2pComponents, portMapping } from "../../adapters/libp2p.ts";

/** What a libp2p node does with addresses, as far as the service sees it. */
class Node {
  readonly confirmed: string[] = [];
  readonly lifetimes: number[] = [];
  readonly errors: unknown[] = [];
  onError = (): void => {};
  listens: string[] = [];
  readonly #mapped: string[] = [];
  readonly #listeners = new Set<() => void>();
  #wake: () => void = () => {};
  readonly components: Libp2pComponents;

  constructor() {
    const text = (
      ...[host, port, address, outside, protocol]: [
        string,
        number,
        string,
        number,
        string,
      ]
    ) => `${host}:${port} as /ip4/${address}/${protocol}/${outside}`;
    this.components = {
      addressManager: {
        getAddressesWithMetadata: () => [
          ...this.listens.map((one) => ({ multiaddr: one, type: "transport", verified: true })),
          ...this.#mapped.map((one) => {
            const multiaddr = one.slice(one.indexOf("/"));
            return { multiaddr, type: "ip-mapping", verified: this.confirmed.includes(multiaddr) };
          }),
        ],
        addPublicAddressMapping: (...mapping) => {
          this.#mapped.push(text(...mapping));
          this.#wake();
        },
        removePublicAddressMapping: (...mapping) => {
          this.#mapped.splice(this.#mapped.indexOf(text(...mapping)), 1);
          this.#wake();
        },
        confirmObservedAddr: (multiaddr, { ttl }) => {
          this.confirmed.push(String(multiaddr));
          this.lifetimes.push(ttl);
        },
      },
      events: {
        addEventListener: (_, listener) => void this.#listeners.add(listener),
        removeEventListener: (_, listener) => void this.#listeners.delete(listener),
      },
      logger: {
        forComponent: () => ({
          error: (_, error) => {
            this.errors.push(error);
            this.onError();
          },
        }),
      },
    };
  }

  get hears(): number {
    return this.#listeners.size;
  }

  listen(...addresses: string[]): void {
    this.listens = addresses;
    for (const listener of [...this.#listeners]) listener();
  }

  /** Waits until so much is mapped as the node knows it. */
  async mapped(...expected: string[]): Promise<void> {
    while (this.#mapped.toSorted().join() !== expected.toSorted().join()) {
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }
}

const ports = (gateway: GatewayServer) =>
  gateway.entries().map(({ protocol, internal }) => `${internal.port}/${protocol}`).sort();

describe("portMapping", () => {
  it("maps each port on which the node listens, and tells where it is reached", async () => {
    const gateway = await startGateway({ listen: "127.0.0.1", port: 0 });
    const node = new Node();
    const service = portMapping({ gateway: gateway.endpoint })(node.components);
    service.start();
    node.listen(
      "/ip4/127.0.0.1/tcp/4001",
      "/ip4/192.168.1.10/tcp/4001",
      "/ip4/192.168.1.10/tcp/4001/ws",
      "/ip4/192.168.1.10/udp/4002/quic-v1/webtransport",
      "/ip4/198.51.100.9/tcp/4003/p2p/QmRelay/p2p-circuit",
      "/dns4/example.org/tcp/4004",
    );
    await node.mapped(
      "192.168.1.10:4001 as /ip4/203.0.113.7/tcp/4001",
      "192.168.1.10:4002 as /ip4/203.0.113.7/udp/4002",
    );
    assertEquals(ports(gateway), ["4001/6", "4002/17"]);
    assertEquals(gateway.entries().map(({ description }) => description), ["libp2p", "libp2p"]);
    assertEquals(node.confirmed, []);

    await gateway.command("external 203.0.113.8");
    await node.mapped(
      "192.168.1.10:4001 as /ip4/203.0.113.8/tcp/4001",
      "192.168.1.10:4002 as /ip4/203.0.113.8/udp/4002",
    );

    node.listen("/ip4/192.168.1.10/udp/4002/quic-v1");
    await node.mapped("192.168.1.10:4002 as /ip4/203.0.113.8/udp/4002");
    await service.stop();
    await node.mapped();
    assertEquals([ports(gateway), node.hears, node.errors], [[], 0, []]);
    await gateway.close();
  });

  it("takes what it told for confirmed only where it is told to", async () => {
    const gateway = await startGateway({ listen: "127.0.0.1", port: 0 });
    const node = new Node();
    node.listens = ["/ip4/192.168.1.10/tcp/4001", "/ip4/192.168.1.10/tcp/4002"];
    const make = portMapping({ gateway: gateway.endpoint, autoConfirmAddress: true });
    const service = make(node.components);
    const dependencies = Symbol.for("@libp2p/service-dependencies");
    const needs = (it: object) => (it as Record<symbol, unknown>)[dependencies];
    assertEquals(needs(service), []);
    assertEquals(needs(portMapping()(node.components)), ["@libp2p/autonat"]);
    service.start();
    service.afterStart();
    await node.mapped(
      "192.168.1.10:4001 as /ip4/203.0.113.7/tcp/4001",
      "192.168.1.10:4002 as /ip4/203.0.113.7/tcp/4002",
    );
    // Each once, and for good.
    assertEquals(node.confirmed.toSorted(), [
      "/ip4/203.0.113.7/tcp/4001",
      "/ip4/203.0.113.7/tcp/4002",
    ]);
    assert(node.lifetimes.every((ms) => ms > 8.6e15), node.lifetimes.join());
    await service.stop();
    await gateway.close();
  });

  it("tells no address behind another NAT, but the one that it is given for it", async () => {
    const gateway = await startGateway({
      listen: "127.0.0.1",
      port: 0,
      external: "100.64.0.5",
    });
    const node = new Node();
    node.listens = ["/ip4/192.168.1.10/tcp/4001"];
    const options = { gateway: gateway.endpoint };
    const outside = { ...options, externalAddress: "198.51.100.20" };
    const service = portMapping(outside)(node.components);
    service.afterStart();
    await node.mapped("192.168.1.10:4001 as /ip4/198.51.100.20/tcp/4001");
    await service.stop();
    await node.mapped();

    const other = portMapping(options)(node.components);
    other.afterStart();
    while (ports(gateway).length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await other.stop();
    await node.mapped();
    assertThrows(
      () => portMapping({ externalAddress: "here" })(node.components),
      TypeError,
      "externalAddress",
    );
    await gateway.close();
  });

  it("tells the address on which the node listens of the family that is mapped", async () => {
    const gateway = await startGateway({ listen: "127.0.0.1", port: 0 });
    const node = new Node();
    const service = portMapping({ gateway: gateway.endpoint, description: "mine" })(
      node.components,
    );
    service.start();
    node.listen("/ip6/2001:db8::5/tcp/4001", "/ip4/192.168.1.10/tcp/4001");
    await node.mapped("192.168.1.10:4001 as /ip4/203.0.113.7/tcp/4001");
    assertEquals(gateway.entries().map(({ description }) => description), ["mine"]);

    // It moves to another address of this host, and the gateway to another one of its own.
    node.listen("/ip4/192.168.1.11/tcp/4001", "/ip4/192.168.1.12/tcp/4001");
    await gateway.command("external 203.0.113.8");
    await node.mapped("192.168.1.11:4001 as /ip4/203.0.113.8/tcp/4001");
    await service.stop();
    await gateway.close();
  });

  it("tries again at the next change where no port could be mapped", async () => {
    const node = new Node();
    const service = portMapping({ gateway: "not an address" })(node.components);
    service.start();
    for (let times = 1; times <= 2; times++) {
      node.listen("/ip4/192.168.1.10/tcp/4001");
      while (node.errors.length < times) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await service.stop();
    node.listen("/ip4/192.168.1.10/tcp/4001");
    assertEquals([node.hears, node.errors.length], [0, 2]);
  });

  it("maps a port on which the node listens again while its first mapping fails", async () => {
    const gateway = await startGateway({ listen: "127.0.0.1", port: 0 });
    const node = new Node();
    const address = "/ip4/192.168.1.10/tcp/4001";
    let opened = 0;
    const service = portMapping({
      get gateway() {
        return opened++ === 0 ? "not an address" : gateway.endpoint;
      },
    })(node.components);
    service.start();
    node.onError = () => {
      node.listen();
      node.listen(address);
    };
    node.listen(address);
    await node.mapped("192.168.1.10:4001 as /ip4/203.0.113.7/tcp/4001");
    await service.stop();
    await node.mapped();
    assertEquals([ports(gateway), node.errors.length], [[], 1]);
    await gateway.close();
  });

  it("leaves what it told as it is where something else has changed", async () => {
    const gateway = await startGateway({ listen: "127.0.0.1", port: 0 });
    const node = new Node();
    let looks = 0;
    const service = portMapping({
      gateway: gateway.endpoint,
      get externalAddress() {
        looks++;
        return "198.51.100.20";
      },
    })(node.components);
    service.start();
    node.listen("/ip4/192.168.1.10/tcp/4001");
    await node.mapped("192.168.1.10:4001 as /ip4/198.51.100.20/tcp/4001");
    const before = looks;
    // Told is not the gateway's own address, but what stands before it.
    await gateway.command("external 203.0.113.8");
    while (looks === before) await new Promise((resolve) => setTimeout(resolve, 5));
    await node.mapped("192.168.1.10:4001 as /ip4/198.51.100.20/tcp/4001");
    await service.stop();
    await gateway.close();
  });

  it("maps for a node that starts again before it has stopped", async () => {
    const gateway = await startGateway({ listen: "127.0.0.1", port: 0 });
    const node = new Node();
    const service = portMapping({ gateway: gateway.endpoint })(node.components);
    service.start();
    node.listen("/ip4/192.168.1.10/tcp/4001");
    await node.mapped("192.168.1.10:4001 as /ip4/203.0.113.7/tcp/4001");
    const stopping = service.stop();
    service.start();
    node.listen("/ip4/192.168.1.10/tcp/4002");
    await stopping;
    await node.mapped("192.168.1.10:4002 as /ip4/203.0.113.7/tcp/4002");
    assertEquals([ports(gateway), node.errors], [["4002/6"], []]);
    await service.stop();
    assertEquals(ports(gateway), []);
    await gateway.close();
  });

  it("leaves the node alone where no port can be mapped", async () => {
    const node = new Node();
    node.listens = ["/ip4/192.168.1.10/tcp/4001"];
    const service = portMapping({ gateway: "not an address" })(node.components);
    service.afterStart();
    while (node.errors.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await service.stop();
    assertEquals(String(node.errors[0]).includes("gateway"), true);
  });
});
