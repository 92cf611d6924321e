import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import { formatEndpoint } from "../../../core/ip.ts";
import type { Endpoint } from "../../../core/machine.ts";
import { decodeResponse, encodeRequest } from "../../../core/pcp/codec.ts";
import { PCP_RESULT } from "../../../core/pcp/constants.ts";
import { type NatOptions, type SimSocket, World } from "../../../core/sim/mod.ts";
import { EXTERNAL, NONCE, OTHER_NONCE } from "./rig.ts";

const GATEWAY: Endpoint = { address: "192.168.1.1", port: 5351 };
const SERVER: Endpoint = { address: "198.51.100.9", port: 7 };
const UDP = 17;

/** What a client may say about what it asks for. */
interface Wish {
  readonly port: number;
  readonly protocol?: number;
  readonly suggested?: number;
  readonly lifetime?: number;
  readonly nonce?: Uint8Array;
  /** Whether it is PEER, for what it sends to the server. */
  readonly isPeer?: boolean;
}

/** A host that sends from any of its ports, and hears what comes for them. */
class Party {
  readonly heard: string[] = [];
  readonly #sockets = new Map<number, SimSocket>();
  readonly #bind: (port: number) => SimSocket;
  readonly address: string;

  constructor(address: string, bind: (port: number) => SimSocket) {
    this.address = address;
    this.#bind = bind;
  }

  socket(port: number): SimSocket {
    let socket = this.#sockets.get(port);
    if (!socket) {
      this.#sockets.set(port, socket = this.#bind(port));
      socket.onDatagram = (_, from) => this.heard.push(`${formatEndpoint(from)} → ${port}`);
    }
    return socket;
  }

  say(port: number, to: Endpoint): void {
    this.socket(port).send(to, Uint8Array.of(1));
  }
}

/** A home whose NAT forwards by the gateway's table and tells it what goes out. */
function home(nat: Partial<Omit<NatOptions, "inside" | "outside">> = {}) {
  const world = new World({ seed: 1 });
  const lan = world.segment("lan"), internet = world.segment("internet");
  const gateway = new SimulatedGateway({
    externalAddresses: [EXTERNAL],
    random: world.fork(),
    announceTo: [],
    table: { maxEntries: 20, chosenPorts: [{ first: 6000, last: 6999 }] },
  });
  const router = world.nat("gateway", {
    inside: [lan, GATEWAY.address],
    outside: [internet, EXTERNAL],
    forwarder: gateway,
    ...nat,
  });
  router.host.run(gateway, { server: GATEWAY }).do((machine, now) => machine.start(now));
  const party = (address: string) => {
    const host = world.host(address);
    host.attach(lan, address, { gateway: GATEWAY.address });
    return new Party(address, (port) => host.bind({ port }));
  };
  const alice = party("192.168.1.100"), bob = party("192.168.1.101");
  const outside = world.host("server");
  outside.attach(internet, SERVER.address);
  const server = new Party(SERVER.address, (port) => outside.bind({ port }));
  server.socket(SERVER.port);
  let asks = 0;
  /** Asks the gateway: result code, external port, lifetime. */
  const ask = (who: Party, wish: Wish): [number, number, number] => {
    const fields = {
      lifetimeSeconds: wish.lifetime ?? 7200,
      clientAddress: who.address,
      nonce: wish.nonce ?? NONCE,
      protocol: wish.protocol ?? UDP,
      internalPort: wish.port,
      suggestedPort: wish.suggested ?? 0,
      suggestedAddress: "0.0.0.0",
      options: [],
    };
    const socket = who.socket(50_000 + asks++);
    let told: [number, number, number] = [-1, -1, -1];
    socket.onDatagram = (data) => {
      const reply = decodeResponse(data);
      if (typeof reply === "string" || (reply.kind !== "map" && reply.kind !== "peer")) return;
      told = [reply.resultCode, reply.externalPort, reply.lifetimeSeconds];
    };
    const peer = { remoteAddress: SERVER.address, remotePort: SERVER.port };
    const request = wish.isPeer
      ? { kind: "peer" as const, ...fields, ...peer }
      : { kind: "map" as const, ...fields };
    socket.send(GATEWAY, encodeRequest(request));
    world.runFor(50);
    return told;
  };
  const say = (who: Party, port: number, to: Endpoint = SERVER) => {
    who.say(port, to);
    world.runFor(50);
  };
  return { world, gateway, nat: router, alice, bob, server, ask, say };
}

/** An endpoint outside. */
const outer = (port: number): Endpoint => ({ address: EXTERNAL, port });

describe("SimulatedGateway, told of what its NAT sends out,", () => {
  it("maps a port that has a flow where the flow is, and the flow goes on (PCP-S-34)", () => {
    const { alice, bob, server, ask, say, gateway } = home();
    say(alice, 7000);
    assertEquals(server.heard, [`${EXTERNAL}:7000 → 7`]);
    assertEquals(ask(alice, { port: 7000, suggested: 9999 }).slice(0, 2), [0, 7000]);
    say(server, 8, outer(7000));
    say(server, 7, outer(7000));
    assertEquals(alice.heard, [`${SERVER.address}:8 → 7000`, `${SERVER.address}:7 → 7000`]);
    assertEquals(ask(bob, { port: 7000, suggested: 7000 })[1] === 7000, false);
    assertEquals(gateway.list(0).filter(({ kind }) => kind === "explicit").length, 2);
  });

  it("gives nobody a port that carries another host's flow, while it lives", () => {
    const { alice, bob, ask, say, world, nat } = home({ timeoutMs: 400_000 });
    say(alice, 7000);
    assertEquals(ask(bob, { port: 80, suggested: 7000 })[1] === 7000, false);
    say(alice, 7000);
    assertEquals(nat.mappings().map(({ external }) => external.port).includes(7000), true);
    world.runFor(399_000);
    assertEquals(ask(bob, { port: 81, suggested: 7000 })[1] === 7000, false);
    world.runFor(2000);
    assertEquals(ask(bob, { port: 82, suggested: 7000 })[1], 7000);
  });

  it("lets a flow's answers through to it where a DMZ takes the rest", () => {
    const { alice, bob, server, ask, say } = home();
    assertEquals(ask(bob, { port: 0, protocol: 0 })[0], 0);
    say(alice, 7000);
    say(server, 7, outer(7000));
    bob.socket(7001);
    say(server, 8, outer(7001));
    assertEquals(alice.heard, [`${SERVER.address}:7 → 7000`]);
    assertEquals(bob.heard, [`${SERVER.address}:8 → 7001`]);
  });

  it("leaves whom a flow lets in to the NAT", () => {
    const { alice, server, say, world } = home({ filtering: "address-and-port-dependent" });
    say(alice, 7000);
    say(server, 8, outer(7000));
    say(server, 7, outer(7000));
    world.runFor(301_000);
    say(server, 7, outer(7000));
    assertEquals(alice.heard, [`${SERVER.address}:7 → 7000`]);
  });

  it("has each flow where a NAT gives one inside several outsides", () => {
    const { alice, bob, server, ask, say } = home({
      mapping: "address-and-port-dependent",
      ports: "contiguous",
    });
    server.socket(9);
    say(alice, 7000);
    say(alice, 7000, { address: SERVER.address, port: 9 });
    const ports = server.heard.map((text) => Number(/:(\d+) →/.exec(text)![1]));
    assertEquals(new Set(ports).size, 2);
    for (const [i, port] of ports.entries()) {
      assertEquals(ask(bob, { port: 90 + i, suggested: port })[1] === port, false);
    }
  });

  it("the first PEER adopts the flow where it is; its nonce guards it from then on (PCP-S-42)", () => {
    const { alice, server, ask, say, world } = home();
    say(alice, 7000);
    const peer = { port: 7000, isPeer: true };
    assertEquals(ask(alice, { ...peer, suggested: 9999, lifetime: 3600 }), [0, 7000, 3600]);
    assertEquals(ask(alice, { ...peer, nonce: OTHER_NONCE })[0], PCP_RESULT.NOT_AUTHORIZED);
    // It outlives the NAT's own time for idle flows.
    world.runFor(1_800_000);
    say(server, 7, outer(7000));
    say(server, 8, outer(7000));
    assertEquals(alice.heard, [`${SERVER.address}:7 → 7000`]);
    say(alice, 7000);
    assertEquals(server.heard.at(-1), `${EXTERNAL}:7000 → 7`);
  });

  it("a deletion leaves a mapping for as long as its traffic would (PCP-S-53)", () => {
    const { alice, bob, server, ask, say, world } = home();
    ask(alice, { port: 7000, suggested: 7000 });
    world.runFor(10_000);
    say(alice, 7000);
    world.runFor(60_000 - 50);
    assertEquals(ask(alice, { port: 7000, lifetime: 0 }), [0, 0, 240]);
    say(server, 8, outer(7000));
    assertEquals(alice.heard.at(-1), `${SERVER.address}:8 → 7000`);
    world.runFor(240_000);
    say(server, 9, outer(7000));
    assertEquals(alice.heard.length, 1);
    assertEquals(ask(bob, { port: 80, suggested: 7000 })[1] === 7000, false);
  });

  it("what traffic made cannot be deleted by MAP (PCP-S-55)", () => {
    const { alice, server, ask, say } = home();
    say(alice, 7000);
    assertEquals(ask(alice, { port: 7000, lifetime: 0 })[0], PCP_RESULT.NOT_AUTHORIZED);
    assertEquals(ask(alice, { port: 7001, lifetime: 0 })[0], 0);
    say(server, 7, outer(7000));
    assertEquals(alice.heard, [`${SERVER.address}:7 → 7000`]);
  });

  it("keeps half of its table for who asks, however many flows there are", () => {
    const { alice, server, ask, say, gateway } = home();
    for (let port = 7000; port < 7030; port++) say(alice, port);
    assertEquals([gateway.list(0).length, server.heard.length], [10, 30]);
    assertEquals(ask(alice, { port: 80 })[0], 0);
  });
});
