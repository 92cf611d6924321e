// The client against the simulated gateway, over a link that loses, delays, doubles and reorders.
import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { SimulatedGateway } from "../../../core/gateway/mod.ts";
import type { Endpoint, Instant, SendAction } from "../../../core/machine.ts";
import { PcpClient } from "../../../core/pcp/client.ts";
import type { PcpEvent } from "../../../core/pcp/client.ts";
import { below, type RandomSource, seededRandom, uniform } from "../../../core/random.ts";
import { LOCAL, SERVER } from "./harness.ts";
import { claim } from "./support.ts";

const CLIENT = { address: LOCAL, port: 40_000 };
const MINUTE = 60_000, HOUR = 3_600_000;

interface Flight {
  readonly at: Instant;
  readonly toGateway: boolean;
  readonly data: Uint8Array;
}

/** A client and its gateway, and what is on its way between them. */
class Street {
  now: Instant = 0;
  lossPercent = 0;
  maxDelayMs = 5;
  packets = 0;
  readonly events: PcpEvent[] = [];
  readonly gateway: SimulatedGateway;
  readonly client: PcpClient;
  readonly told = new Map<number, Endpoint | undefined>();
  #flights: Flight[] = [];
  readonly #random: RandomSource;

  constructor(seed: number) {
    this.#random = seededRandom(seed);
    this.gateway = new SimulatedGateway({
      random: seededRandom(seed + 1),
      externalAddresses: ["203.0.113.7"],
      protocols: ["pcp"],
    });
    this.client = new PcpClient({
      servers: [SERVER],
      localAddress: LOCAL,
      random: seededRandom(seed + 2),
    });
    this.gateway.start(0);
    this.drain();
  }

  drain(): void {
    for (let action; (action = this.client.poll());) {
      if (action.type === "send") this.#launch(action, true);
      if (action.type === "event") this.#hear(action.event);
    }
    for (let action; (action = this.gateway.poll());) {
      if (action.type === "send") this.#launch(action, false);
    }
  }

  #hear(event: PcpEvent): void {
    this.events.push(event);
    if (!("id" in event)) return;
    if ("mapping" in event) this.told.set(event.id, event.mapping.external);
    else this.told.delete(event.id);
  }

  #launch({ data }: SendAction, toGateway: boolean): void {
    if (toGateway) this.packets++;
    const copies = this.lossPercent === 0 ? 1 : 1 + (below(this.#random, 10) === 0 ? 1 : 0);
    for (let i = 0; i < copies; i++) {
      if (below(this.#random, 100) < this.lossPercent) continue;
      const at = this.now + uniform(this.#random, 1, this.maxDelayMs);
      this.#flights.push({ at, toGateway, data });
    }
  }

  run(ms: number): void {
    const end = this.now + ms;
    for (let steps = 0;; steps++) {
      claim(steps < 200_000, "time goes on");
      this.drain();
      this.#flights.sort((a, b) => a.at - b.at);
      const flight = this.#flights[0];
      const at = Math.min(
        flight?.at ?? Infinity,
        this.client.nextTimeout() ?? Infinity,
        this.gateway.nextTimeout() ?? Infinity,
      );
      if (at > end) break;
      this.now = Math.max(this.now, at);
      if (flight && flight.at <= this.now) {
        this.#flights.shift();
        if (flight.toGateway) this.gateway.handleDatagram(flight.data, CLIENT, "server", this.now);
        else this.client.handleDatagram(flight.data, SERVER, "client", this.now);
      } else {
        this.gateway.handleTimeout(this.now);
        this.client.handleTimeout(this.now);
      }
    }
    this.now = end;
  }

  /** What the client holds, and what the gateway does, as text to compare. */
  views(): { client: string[]; gateway: string[] } {
    const client = this.client.mappings().filter(({ external }) => external)
      .map((m) => `${m.kind} ${m.protocol}/${m.internal.port} ${m.external!.port}`);
    const gateway = this.gateway.list(this.now).map((entry) =>
      `${
        entry.kind === "outbound" ? "peer" : "map"
      } ${entry.protocol}/${entry.internal.port} ${entry.external.port}`
    );
    return { client: client.sort(), gateway: gateway.sort() };
  }
}

/** Maps, revokes and renews at random while the gateway reboots, moves and the link is bad. */
function live(seed: number): Street {
  const random = seededRandom(seed), street = new Street(seed * 7);
  const ids: number[] = [];
  for (let step = 0; step < 30; step++) {
    street.lossPercent = below(random, 3) * 15;
    street.maxDelayMs = 5 + below(random, 3) * 200;
    const { now } = street;
    switch (below(random, 7)) {
      case 0:
        street.gateway.reboot(now);
        break;
      case 1:
        street.gateway.setExternalAddresses([`203.0.113.${1 + below(random, 200)}`], now);
        break;
      case 2:
        if (ids.length > 0) street.client.renew(ids[below(random, ids.length)]!, undefined, now);
        break;
      case 3:
        if (ids.length > 1) street.client.revoke(ids.splice(below(random, ids.length), 1)[0]!, now);
        break;
      default: {
        const internalPort = 1000 + below(random, 6);
        if (street.client.mappings().some(({ internal }) => internal.port === internalPort)) break;
        const lifetimeSeconds = 120 + below(random, 3600);
        ids.push(street.client.map({ protocol: 6, internalPort, lifetimeSeconds }, now));
      }
    }
    street.run(below(random, 2) === 0 ? below(random, 5000) : below(random, 20 * MINUTE));
  }
  return street;
}

describe("PcpClient and SimulatedGateway", () => {
  it("hold the same mappings when the link is good again, for 60 seeds", () => {
    for (let seed = 1; seed <= 60; seed++) {
      const street = live(seed);
      street.lossPercent = 0;
      street.maxDelayMs = 5;
      street.run(3 * HOUR);
      const { client, gateway } = street.views();
      assertEquals(client, gateway, `seed ${seed}`);
      for (const { id, external } of street.client.mappings()) {
        assertEquals(street.told.get(id), external, `seed ${seed}: what was told of ${id}`);
      }
    }
  });

  it("come back to each other within 15 s of a reboot, in few packets", () => {
    for (let seed = 1; seed <= 20; seed++) {
      const street = new Street(seed);
      for (let port = 1; port <= 20; port++) {
        street.client.map({ protocol: 17, internalPort: port }, 0);
      }
      street.run(10 * MINUTE);
      const before = street.packets;
      street.gateway.reboot(street.now);
      assertEquals(street.gateway.list(street.now), []);
      street.run(15_000);
      const { client, gateway } = street.views();
      assertEquals(gateway.length, 20);
      assertEquals(client, gateway);
      assertEquals(street.packets - before, 20);
    }
  });

  it("leave nothing behind when the client closes", () => {
    const street = live(5);
    street.lossPercent = 0;
    street.run(HOUR);
    street.client.close(street.now);
    street.run(MINUTE);
    assertEquals(street.views(), { client: [], gateway: [] });
    claim(street.client.isIdle === true);
  });

  it("tell a lost state that nobody announced with the next answer", () => {
    const street = new Street(3);
    for (let port = 1; port <= 5; port++) street.client.map({ protocol: 6, internalPort: port }, 0);
    street.run(HOUR / 10);
    street.gateway.forget(street.now);
    street.run(2 * HOUR);
    const { client, gateway } = street.views();
    assertEquals([client, gateway.length], [gateway, 5]);
  });
});
