/**
 * What holding many mappings costs a gateway: the requests that it gets in an hour, against the
 * fewest that keep the leases by the protocol's own schedule. In virtual time, so that the figures
 * are the same on every machine.
 *
 * @module
 */
import type { Via } from "../../core/errors.ts";
import { SimulatedGateway } from "../../core/gateway/gateway.ts";
import { PortMapper } from "../../core/portmap/mapper.ts";
import { makeIgdClient } from "../../core/portmap/upnp.ts";
import { World } from "../../core/sim/mod.ts";
import type { Context } from "./context.ts";
import { atMost, type Row, show } from "./report.ts";

interface Held {
  readonly what: string;
  readonly via: Via;
  readonly igd?: 1 | 2;
  /** When a renewal is due on average, as a part of the lifetime. */
  readonly renewsAt: number;
  /** What one renewal takes. */
  readonly requests: number;
  readonly note: string;
}

const HELD: readonly Held[] = [
  {
    what: "PCP",
    via: "pcp",
    renewsAt: 9 / 16,
    requests: 1,
    note: "renewed between 1/2 and 5/8 of the lifetime (RFC 6887 §11.2.1)",
  },
  {
    what: "NAT-PMP",
    via: "nat-pmp",
    renewsAt: 1 / 2,
    requests: 1,
    note: "renewed at 1/2 (RFC 6886 §3.3)",
  },
  {
    what: "UPnP, IGD:2",
    via: "upnp",
    igd: 2,
    renewsAt: 1 / 2,
    requests: 1,
    note: "renewed at 1/2",
  },
  {
    what: "UPnP, IGD:1",
    via: "upnp",
    igd: 1,
    renewsAt: 1 / 2,
    requests: 2,
    note:
      "renewed at 1/2, each after a look whose the port is: some of these give away what others have",
  },
];
const LIFETIME_SECONDS = 7200;
const HOUR_MS = 3_600_000;
/** How many requests more than the fewest may be. */
const LIMIT = 1.1;
const GATEWAY = "192.168.1.1";
const EXTERNAL = "203.0.113.7";

/** Runs the topic. */
export async function* packets({ isQuick }: Context): AsyncGenerator<Row> {
  const mappings = isQuick ? 50 : 1000;
  const hours = isQuick ? 2 : 10;
  for (const held of HELD) {
    const { hourly, events } = holdAll(held, mappings, hours);
    const least = mappings * held.requests * 3600 / (LIFETIME_SECONDS * held.renewsAt);
    yield atMost(LIMIT, {
      what: `${held.what}: ${mappings.toLocaleString("en-US")} mappings, against the fewest`,
      on: "virtual time",
      value: hourly / least,
      unit: "×",
      note: `${show(hourly, "")} requests an hour${
        events > 0 ? `, ${show(events, "")} events told` : ""
      }; ${held.note}`,
    });
  }
}

/** What a gateway gets, and tells, in an hour of a mapper that holds so many mappings. */
function holdAll(
  { via, igd }: Held,
  mappings: number,
  hours: number,
): { readonly hourly: number; readonly events: number } {
  const world = new World({ seed: 1 });
  const lan = world.segment("lan");
  const gateway = new SimulatedGateway({
    random: world.fork(),
    externalAddresses: [EXTERNAL],
    protocols: [via],
    listen: { address: GATEWAY, port: 5351 },
    ...igd && { upnp: { version: igd, interfaces: [{ address: GATEWAY, prefixLength: 24 }] } },
  });
  const router = world.host("router");
  router.attach(lan, GATEWAY);
  const served = router.run(gateway);
  served.do((machine, now) => machine.start(now));
  const laptop = world.host("laptop");
  laptop.attach(lan, "192.168.1.2");
  const options = { random: world.fork(), protocols: [via], upnp: makeIgdClient };
  const held = laptop.run(new PortMapper(options));
  const path = { gateway: { address: GATEWAY, port: 5351 }, localAddress: "192.168.1.2" };
  held.do((mapper, now) => mapper.networkChanged([path], now));
  for (let i = 0; i < mappings; i++) {
    world.runFor(1000);
    held.do((mapper, now) =>
      mapper.map(
        { protocol: "tcp", internalPort: 10_000 + i, lifetimeSeconds: LIFETIME_SECONDS },
        now,
      )
    );
  }
  world.runFor(HOUR_MS);
  const entries = gateway.list(world.now).length;
  if (entries !== mappings) throw new Error(`Expected ${mappings} mappings: ${entries} are held`);
  const before = countsOf(gateway);
  world.runFor(hours * HOUR_MS);
  const after = countsOf(gateway);
  return {
    hourly: (after.requests - before.requests) / hours,
    events: (after.events - before.events) / hours,
  };
}

/** All that a gateway was asked by whatever protocol, and what it told who had subscribed. */
function countsOf(
  { stats: { pcp, natPmp, upnp } }: SimulatedGateway,
): { readonly requests: number; readonly events: number } {
  const sum = (counts: object = {}) =>
    Object.values(counts as Record<string, number>).reduce((all, count) => all + count, 0);
  return {
    requests: sum(pcp.requests) + sum(natPmp.requests) + sum(upnp?.requests) +
      (upnp?.ssdp.searches ?? 0),
    events: upnp?.events.events ?? 0,
  };
}
