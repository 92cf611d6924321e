/**
 * UPnP's client, which is made when its turn has come, and may be loaded no earlier.
 */
import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import type { Action, SendAction, SocketSpec } from "../../../core/machine.ts";
import type { ClientEvent, ClientOptions, MappingClient } from "../../../core/portmap/client.ts";
import { LateClient } from "../../../core/portmap/late.ts";
import { PortMapper } from "../../../core/portmap/mapper.ts";
import { makeIgdClient } from "../../../core/portmap/upnp.ts";
import { IGD_SEARCH } from "../../../core/portmap/upnp_search.ts";
import { seededRandom } from "../../../core/random.ts";
import type { IgdClientStats } from "../../../core/upnp/client.ts";
import { ScriptedRouter } from "../upnp/scripted_igd.ts";
import { Home, type HomeOptions } from "./home.ts";
import { EXTERNAL, GATEWAY, HOST, told } from "./rig.ts";

const web = { protocol: "tcp", internalPort: 8080, suggestedExternal: { port: 8080 } } as const;
/** What leaves first: to the gateway, and to everybody. */
const BEGINNING = 2;
const CLIENT: ClientOptions = {
  gateway: GATEWAY,
  localAddress: HOST,
  random: seededRandom(1),
  fastStart: true,
  interface: undefined,
  announcements: true,
  isNamed: false,
};
const BROKEN = { kind: "not-loaded", message: "no such file" } as const;

/** A mapper whose UPnP is to be loaded. */
function late(options: HomeOptions = {}): Home {
  return new Home({ ...options, mapper: { upnp: "late", ...options.mapper } });
}

/** The loading is over. */
function load(home: Home, code: Parameters<PortMapper["takeUpnp"]>[0] = makeIgdClient): void {
  home.do((mapper, now) => mapper.takeUpnp(code, now));
}

/** All that comes out. */
function drained(client: LateClient): Action<ClientEvent>[] {
  const actions = [];
  for (let action = client.poll(); action; action = client.poll()) actions.push(action);
  return actions;
}

/** What is told but for the wish to load. */
function takeOthers(home: Home): ReturnType<Home["take"]> {
  return home.take().filter(({ type }) => type !== "upnp-needed");
}

describe("UPnP's client", () => {
  it("is neither made nor asked for where PCP grants within its head start", () => {
    let made = 0;
    const make = (options: ClientOptions) => (made++, makeIgdClient(options));
    for (const upnp of ["late", make] as const) {
      const home = new Home({ datagrams: ["pcp", "nat-pmp"], mapper: { upnp } });
      home.do((mapper, now) => mapper.map(web, now));
      home.run(10_000_000);
      assert(!home.types().includes("upnp-needed"));
      home.do((mapper, now) => mapper.close(now));
      home.run(1000);
      assert(home.mapper.isIdle);
    }
    assertEquals(made, 0);
  });

  it("is asked for once its turn has come, and enters the races that run by then", () => {
    const home = late();
    home.do((mapper, now) => mapper.map(web, now));
    home.do((mapper, now) => mapper.map({ ...web, internalPort: 8081 }, now));
    home.run(29);
    assertEquals(home.types(), []);
    home.run(71);
    assertEquals(home.take(), [{ at: 30, type: "upnp-needed" }]);
    assertEquals(home.mapper.stats.clients["gateway 1 upnp"], {});

    load(home);
    home.run(100);

    const mapped = home.take().map((event) => told(event, "mapped"));
    assertEquals(mapped.map(({ mapping: { via } }) => via), ["upnp", "upnp"]);
    assertEquals(mapped[0]!.mapping.external, { address: EXTERNAL, port: 8080 });
    const searched = home.left.filter(({ what }) => what === "upnp search");
    assertEquals(searched.map(({ at }) => at), [30, 30], "once, and before it was there");
    assertEquals(home.left.find(({ what }) => what === "upnp GET")!.at, 100);
    assert("searches" in home.mapper.stats.clients["gateway 1 upnp"]!);
  });

  it("is there at once for a gateway that is found later", () => {
    const home = late();
    load(home);
    home.do((mapper, now) => mapper.map({ ...web, protocols: ["upnp"] }, now));
    home.run(100);
    assertEquals(told(home.take()[0], "mapped").mapping.via, "upnp");

    home.do((mapper, now) => {
      mapper.networkChanged([], now);
      mapper.networkChanged([{ gateway: { ...GATEWAY, port: 5352 }, localAddress: HOST }], now);
    });
    home.run(5000);
    assert(!home.types().includes("upnp-needed"));
  });

  it("leaves the race to who answers while it is loaded", () => {
    const home = late({ datagrams: ["pcp"], delayMs: 40 });
    home.do((mapper, now) => mapper.map(web, now));
    home.run(100);
    assertEquals(home.types(), ["upnp-needed", "mapped"]);

    load(home);
    home.run(60_000);
    assertEquals(home.router.searches.length, BEGINNING);
    assertEquals(home.mapper.stats.clients["gateway 1 upnp"], {}, "nobody needed it");
  });

  it("goes on with the search that left before it was there, step by step", () => {
    const home = late({ mapper: { protocols: ["upnp"] } });
    home.router.isDead = true;
    home.do((mapper, now) => mapper.map(web, now));
    home.run(220);
    load(home);
    home.run(2100);
    const times = new Set(home.left.map(({ at }) => at));
    assertEquals([...times], [0, 220, 270, 600, 650, 1000, 1050, 1100]);
    assertEquals(told(takeOthers(home)[0], "failed").at, 2300);
  });

  it("hears of what it was too late for: so much, and no more", () => {
    const client = new LateClient("upnp", () => undefined, CLIENT, undefined, IGD_SEARCH);
    const from = GATEWAY;
    client.probe(0);
    const [{ key, local }] = client.sockets() as [SocketSpec];
    assertEquals([client.poll(), local?.address], [undefined, HOST]);
    client.handleSocket(key, { ok: true, local: { address: HOST, port: 4 } }, 0);
    client.handleSocket(key, { ok: true, local: { address: HOST, port: 4 } }, 0);
    const left = drained(client);
    assertEquals(left.map(({ type }) => type), ["send", "send", "event"]);

    const small = new Uint8Array(8192), large = new Uint8Array(8193);
    assert(!client.handleDatagram(small, from, "another", 1));
    assert(!client.handleDatagram(large, from, key, 1));
    const [answer] = new ScriptedRouter().datagram(left[0] as SendAction);
    assert(client.handleDatagram(answer!.data, from, key, 1));
    answer!.data.fill(0);
    for (let i = 1; i < 16; i++) assert(client.handleDatagram(small, from, key, 1));
    assert(!client.handleDatagram(small, from, key, 1));
    client.handleUnreachable(from, key, 1);
    client.codeTold(makeIgdClient, 2);
    const { searches, dropped } = client.stats as IgdClientStats;
    assertEquals([searches, dropped.malformed], [1, 15]);
    assertEquals(client.sockets().map((spec) => spec.key), [key], "it is still open");
    assertEquals(drained(client).map(({ type }) => type), ["request"], "its description");
  });

  it("tells at once of what ICMP, or no socket, said before it was there", () => {
    const loopback = { ...CLIENT, localAddress: "127.0.0.1" };
    const gateway = { address: "127.0.0.1", port: 5000 };
    for (const says of ["unreachable", "no socket"] as const) {
      const options = { ...loopback, gateway };
      const client = new LateClient("upnp", () => undefined, options, undefined, IGD_SEARCH);
      client.probe(0);
      const [{ key, connect }] = client.sockets() as [SocketSpec];
      assertEquals(connect, gateway);
      if (says === "unreachable") {
        client.handleSocket(key, { ok: true, local: { address: "127.0.0.1", port: 4 } }, 0);
        client.handleUnreachable(gateway, key, 1);
      } else {
        const message = "EPERM";
        client.handleSocket(key, { ok: false, code: "permission", message, isOpen: false }, 0);
      }
      drained(client);
      client.codeTold(makeIgdClient, 2);
      const failure = { kind: "unreachable" } as const;
      const event = { type: "external-address-failed", failure } as const;
      assertEquals(drained(client), [{ type: "event", event }], says);
    }
  });

  it("is searched for no more where nobody asks any more, and anew where somebody does", () => {
    const client = new LateClient("upnp", () => undefined, CLIENT, undefined, IGD_SEARCH);
    const keys = () => client.sockets().map(({ key }) => key);
    client.probe(0);
    client.endProbe(1);
    const id = client.map(web, 2);
    const listed = client.list(2);
    client.revoke(id, 3);
    assertEquals([keys(), client.isIdle], [["early search 2"], false]);
    client.abandon(listed, 4);
    assertEquals(keys(), []);
    client.withdraw(client.map(web, 5), 6);
    assertEquals(keys(), []);
    client.probe(7);
    client.networkChanged("192.168.1.77", 8);
    assertEquals(client.sockets()[0]!.local?.address, "192.168.1.77");
    client.endProbe(9);
    assertEquals(drained(client).map(({ type }) => type), ["event"], "revoked");
  });

  it("has failed where it could not be loaded, and is asked for again by the next race", () => {
    const home = late({ datagrams: "unreachable" });
    const tries = () => {
      home.do((mapper, now) => mapper.map(web, now));
      home.run(10);
      assertEquals(home.types(), ["upnp-needed"]);
      load(home, BROKEN);
      const failed = told(home.take()[0], "failed");
      assertEquals(failed.code, "unsupported");
      assertEquals(failed.attempts.map(({ via, outcome }) => `${via} ${outcome}`), [
        "pcp unreachable",
        "nat-pmp unreachable",
        "upnp not loaded (no such file)",
      ]);
      assertEquals(home.mapper.sockets().filter(({ key }) => key.includes("search")), []);
    };
    tries();
    tries();
    home.do((mapper, now) => mapper.map(web, now));
    home.run(10);
    load(home);
    home.run(100);
    assertEquals(takeOthers(home).map(({ type }) => type), ["mapped"]);
  });

  it("takes what was asked before it was there in its order, under the ids that were given out", () => {
    const home = late({ mapper: { protocols: ["upnp"] } });
    home.router.occupy(9000);
    const removal = home.do((mapper, now) => mapper.unmap(web, now));
    const [table, later] = [1, 2].map(() => home.do((mapper, now) => mapper.list(now)));
    home.run(50);
    assertEquals([home.types(), home.mapper.isIdle], [["upnp-needed"], false]);

    load(home);
    home.run(5000);

    const events = home.take();
    assertEquals(told(events.find(({ type }) => type === "unmapped"), "unmapped").id, removal);
    const tables = events.filter(({ type }) => type === "table-told")
      .map((event) => told(event, "table-told"));
    assertEquals(tables.map(({ id, entries }) => [id, entries.length]), [[table, 1], [later, 1]]);
  });

  it("tells of each question and removal that it could not be loaded", () => {
    const home = late({ mapper: { protocols: ["upnp"] } });
    const removal = home.do((mapper, now) => mapper.unmap(web, now));
    const table = home.do((mapper, now) => mapper.list(now));
    const address = home.do((mapper, now) => mapper.askAddresses(undefined, now));
    home.run(10);
    load(home, BROKEN);

    const told = takeOthers(home).map((event) =>
      "id" in event && "attempts" in event
        ? [event.type, event.id, event.attempts.map(({ outcome }) => outcome).join()]
        : event
    );
    const outcome = "not loaded (no such file)";
    assertEquals(
      told.map(String).sort(),
      [
        ["external-addresses-told", address, outcome],
        ["table-told", table, outcome],
        ["unmapped", removal, outcome],
      ].map(String),
    );
    assert(home.mapper.isIdle);
  });

  it("is waited for by nobody where the mapper is closed meanwhile", () => {
    const home = late();
    home.do((mapper, now) => mapper.map(web, now));
    home.run(50);
    home.do((mapper, now) => mapper.close(now));
    home.run(10_000);
    assert(home.mapper.isIdle);

    load(home);
    home.run(10_000);
    assert(home.mapper.isIdle);
    assertEquals(home.router.searches.length, BEGINNING);
  });

  it("is of no mapping that it cannot make, loaded or not", () => {
    const home = late({ mapper: { protocols: ["upnp"] } });
    assertThrows(
      () => home.do((mapper, now) => mapper.map({ ...web, portSet: { size: 4 } }, now)),
      TypeError,
      "'protocols' excludes all that could do this",
    );
  });

  it("sees this host where it has moved to before it was loaded", () => {
    const home = late({ mapper: { protocols: ["upnp"] } });
    home.do((mapper, now) => mapper.map(web, now));
    const localAddress = "192.168.1.77";
    home.do((mapper, now) => {
      mapper.networkChanged([{ gateway: GATEWAY, localAddress }], now);
      const { key } = mapper.sockets()[0]!;
      mapper.handleSocket(key, { ok: true, local: { address: localAddress, port: 5 } }, now);
    });
    load(home);
    home.run(1000);
    assertEquals(told(takeOthers(home)[0], "mapped").mapping.internal.address, localAddress);
    assertEquals(home.router.table(), [`TCP 8080->${localAddress}:8080`]);
  });

  it("is asked for nothing that was taken back before it was there, and is itself told later", () => {
    const calls: unknown[] = [];
    const made = {
      ...{
        isIdle: false,
        map: () => 7,
        withdraw: (id: number) => void calls.push(["withdraw", id]),
      },
      ...{ endProbe: () => void calls.push(["endProbe"]), probe: () => void calls.push(["probe"]) },
    } as unknown as MappingClient;
    const client = new LateClient("upnp", () => undefined, CLIENT, undefined, IGD_SEARCH);
    assert(client.isIdle);
    client.probe(0);
    assert(!client.isIdle);
    client.endProbe(0);
    const early = client.map(web, 0);
    assert(!client.isIdle);
    client.withdraw(early, 0);
    assert(client.isIdle);
    assertEquals(client.sockets(), [], "nobody is searched for any more");
    const given = client.map(web, 0);
    client.revoke(given, 0);
    assertEquals(drained(client), [
      { type: "event", event: { type: "unmapped", id: given, reason: "revoked" } },
    ]);
    assertEquals(client.sockets(), []);

    client.codeTold(() => made, 0);
    const asked = client.map(web, 0);
    client.withdraw(asked, 0);
    assertEquals(calls, [["withdraw", 7]]);
    assert(!client.isIdle);
  });

  it("is spoken by no mapper that was not given it", () => {
    const random = seededRandom(1);
    assertThrows(
      () => new PortMapper({ random, protocols: ["pcp", "upnp"] }),
      TypeError,
      "'protocols' has upnp, which needs the option 'upnp': current value is undefined",
    );
    const without = new PortMapper({ random });
    without.networkChanged([{ gateway: GATEWAY, localAddress: HOST }], 0);
    const { key } = without.sockets()[0]!;
    without.handleSocket(key, { ok: true, local: { address: HOST, port: 4 } }, 0);
    const id = without.list(0);
    const action = without.poll();
    const end = told(action?.type === "event" ? action.event : undefined, "table-told");
    assertEquals([end.id, end.code], [id, "unsupported"]);
  });
});
