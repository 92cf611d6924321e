/**
 * UPnP's client, which is made when its turn has come, and may be loaded no earlier.
 */
import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import type { ClientOptions } from "../../../core/portmap/client.ts";
import { PortMapper } from "../../../core/portmap/mapper.ts";
import { makeIgdClient } from "../../../core/portmap/upnp.ts";
import { seededRandom } from "../../../core/random.ts";
import { Home, type HomeOptions } from "./home.ts";
import { EXTERNAL, GATEWAY, HOST, told } from "./rig.ts";

const web = { protocol: "tcp", internalPort: 8080, suggestedExternal: { port: 8080 } } as const;
const BROKEN = { kind: "not-loaded", message: "no such file" } as const;

/** A mapper whose UPnP is to be loaded. */
function late(options: HomeOptions = {}): Home {
  return new Home({ ...options, mapper: { upnp: "late", ...options.mapper } });
}

/** The loading is over. */
function load(home: Home, code: Parameters<PortMapper["takeUpnp"]>[0] = makeIgdClient): void {
  home.do((mapper, now) => mapper.takeUpnp(code, now));
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
    assertEquals(home.left.find(({ what }) => what === "upnp search")!.at, 100);
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
    assertEquals(home.router.searches, []);
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
      assertEquals(home.router.searches, []);
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
    assertEquals(home.router.searches, []);
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
