/**
 * The race with UPnP in it.
 */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { PROTOCOLS } from "../../../core/portmap/protocols.ts";
import { PortMapper } from "../../../core/portmap/mapper.ts";
import { makeIgdClient } from "../../../core/portmap/upnp.ts";
import { seededRandom } from "../../../core/random.ts";
import { IGD_DEVICE } from "../../../core/upnp/igd.ts";
import { NEIGHBOUR, ScriptedRouter } from "../upnp/scripted_igd.ts";
import { Home } from "./home.ts";
import { EXTERNAL, GATEWAY, HOST, openMapper, told } from "./rig.ts";

const web = { protocol: "tcp", internalPort: 8080, suggestedExternal: { port: 8080 } } as const;

describe("a question for the table", () => {
  it("at a gateway that is left is told as unanswered", () => {
    const home = new Home();
    home.router.datagram = () => [];
    home.do((mapper, now) => mapper.list(now));
    home.do((mapper, now) => mapper.networkChanged([], now));
    home.run(2000);
    assertEquals(told(home.take()[0], "table-told").code, "no-answer");
    assertEquals([home.mapper.sockets(), home.mapper.isIdle], [[], true]);
  });
});

describe("a race of three protocols", () => {
  it("is over after one round trip where PCP is there, and UPnP's search never begins", () => {
    const home = new Home({ datagrams: ["pcp", "nat-pmp"] });
    home.do((mapper, now) => mapper.map(web, now));
    home.run(10_000);
    const mapped = told(home.take()[0], "mapped");
    assertEquals([mapped.at, mapped.mapping.via], [1, "pcp"]);
    assertEquals(home.kinds(), ["pcp", "nat-pmp"]);
    assertEquals([home.router.asked, home.router.searches], [[], []]);
  });

  it("leaves nothing at the gateway where it fails, though PCP had granted it unheard", () => {
    const refuse = () => 606;
    const router = new ScriptedRouter({ acts: { AddPortMapping: refuse } });
    const home = new Home({ datagrams: ["pcp"], router });
    // What the gateway says is lost.
    const poll = home.gateway!.poll.bind(home.gateway);
    home.gateway!.poll = () => {
      while (poll()?.type === "send");
      return undefined;
    };
    home.do((mapper, now) => mapper.map(web, now));
    home.run(10_000);
    assertEquals(home.types(), ["failed"]);
    assertEquals([home.gateway!.list(home.now), home.mapper.isIdle], [[], true]);
  });

  it("leaves NAT-PMP alone to map where only that one answers", () => {
    const home = new Home({ datagrams: ["nat-pmp"] });
    home.do((mapper, now) => mapper.map(web, now));
    home.run(10_000);
    assertEquals(told(home.take()[0], "mapped").mapping.via, "nat-pmp");
    assertEquals(home.router.searches, []);
  });

  it("begins with UPnP when PCP and NAT-PMP had two round trips in silence: 30 ms", () => {
    const home = new Home();
    home.do((mapper, now) => mapper.map(web, now));
    home.run(1000);
    assertEquals(home.left.find(({ what }) => what === "upnp search")!.at, 30);
    const mapped = told(home.take()[0], "mapped");
    assertEquals(mapped.mapping.via, "upnp");
    assertEquals(mapped.mapping.external, { address: EXTERNAL, port: 8080 });
    assertEquals(mapped.mapping.internal, { address: HOST, port: 8080 });
    assertEquals(home.mapper.stats.wrongSource, 0);
    assert(mapped.at < 70, `mapped after ${mapped.at} ms`);
    assertEquals(home.router.table(), [`TCP 8080->${HOST}:8080`]);
  });

  it("maps by UPnP as soon as that is found: PCP and NAT-PMP had all of its round trips", () => {
    const home = new Home({ delayMs: 20 });
    home.do((mapper, now) => mapper.map(web, now));
    home.run(1000);
    const asked = home.left.filter(({ what }) => what.startsWith("upnp ")).map(({ at }) => at);
    // Search, description, address; whose the port is, the mapping, and the mapping read back.
    assertEquals([...new Set(asked)].slice(0, 6), [30, 50, 70, 90, 110, 130]);
    assertEquals(told(home.take()[0], "mapped").at, 130);
  });

  it("leaves it to NAT-PMP to map that has answered when UPnP is found, for a second", () => {
    const home = new Home({ datagrams: ["nat-pmp"], datagramsDelayMs: 80, delayMs: 20 });
    home.do((mapper, now) => mapper.map(web, now));
    home.run(100);
    assert(home.router.asked.length > 0, "it was found");
    home.run(900);
    const mapped = told(home.take()[0], "mapped");
    assertEquals([mapped.at, mapped.mapping.via], [160, "nat-pmp"]);
    assertEquals(home.router.rows, []);

    const slow = new Home({ datagrams: ["nat-pmp"], datagramsDelayMs: 80, delayMs: 20 });
    slow.do((mapper, now) => mapper.map(web, now));
    slow.run(79);
    slow.datagrams = "silence";
    slow.run(2000);
    const [late] = slow.take();
    assertEquals([told(late, "mapped").at, told(late, "mapped").mapping.via], [1120, "upnp"]);
  });

  it("maps by UPnP, as soon as that is found, what NAT-PMP has lost", () => {
    const home = new Home({ datagrams: ["nat-pmp"] });
    home.do((mapper, now) => mapper.map(web, now));
    home.run(1000);
    home.datagrams = "silence";
    home.take();
    home.run(7_200_000);
    const [lost, back] = home.take();
    const found = home.left.find(({ what }) => what === "upnp GET")!.at;
    assertEquals([lost?.type, found], ["lost", lost!.at + 31]);
    // Description, address; whose the port is, the mapping.
    const { at, mapping } = told(back, "recovered");
    assertEquals([at, mapping.via], [found + 4, "upnp"]);
  });

  it("begins with UPnP at once where ICMP says that the others are not spoken", () => {
    const home = new Home({ datagrams: "unreachable" });
    home.do((mapper, now) => mapper.map(web, now));
    home.run(1000);
    assertEquals(home.left.find(({ what }) => what === "upnp search")!.at, 1);
    // A search and four HTTP round trips.
    assertEquals(told(home.take()[0], "mapped").at, 6);
  });

  it("begins with UPnP at once where nothing else is wanted", () => {
    const home = new Home({ datagrams: ["pcp"] });
    home.do((mapper, now) => mapper.map({ ...web, protocols: ["upnp"] }, now));
    home.run(1000);
    const mapped = told(home.take()[0], "mapped");
    assertEquals([mapped.at, mapped.mapping.via], [5, "upnp"]);
    assert(!home.kinds().includes("pcp"));
  });

  it("searches for UPnP at SSDP's port, and at another one where the gateway is at no usual one", () => {
    for (const [port, searched] of [[5351, 1900], [6000, 6000]] as const) {
      const mapper = openMapper({ protocols: ["upnp"] }, HOST, { ...GATEWAY, port });
      mapper.map(web, 0);
      assertEquals(mapper.sockets().slice(1).map(({ local }) => local?.address), [HOST]);
      for (const { key } of mapper.sockets().slice(1)) {
        mapper.handleSocket(key, { ok: true, local: { address: HOST, port: 40_001 } }, 0);
      }
      const ports = new Set<number>();
      for (let action = mapper.poll(); action; action = mapper.poll()) {
        if (action.type === "send" && action.to.address === GATEWAY.address) {
          ports.add(action.to.port);
        }
      }
      assertEquals([...ports], [searched]);
    }
  });

  it("knows which refusals of each protocol leave it to another", () => {
    assertEquals(
      Object.entries(PROTOCOLS).map(([via, { waysAround }]) => [via, waysAround]),
      [
        // UNSUPP_VERSION, NOT_AUTHORIZED, MALFORMED_REQUEST, UNSUPP_OPCODE.
        ["pcp", [1, 2, 3, 4]],
        ["nat-pmp", []],
        // A bare 500; Invalid Action, Invalid Args, Action Failed, Optional Action Not Implemented,
        // Action not authorized.
        ["upnp", [0, 401, 402, 501, 602, 606]],
      ],
    );
  });

  it("takes the better one's mapping where that answers while UPnP searches", () => {
    const router = new ScriptedRouter({ answers: (st) => st === IGD_DEVICE.GATEWAY_1 });
    const home = new Home({ router, datagrams: ["pcp"], delayMs: 40 });
    home.do((mapper, now) => mapper.map(web, now));
    home.run(10_000);
    const [first, ...more] = home.take();
    assertEquals(told(first, "mapped").mapping.via, "pcp");
    assertEquals(more, []);
    assertEquals(router.calls.filter(({ action }) => action.startsWith("Add")), []);
  });

  it("falls back to UPnP where PCP does not let us", () => {
    const home = new Home({ datagrams: ["pcp"] });
    home.gateway!.setRefusal(2, 0);
    home.do((mapper, now) => mapper.map(web, now));
    home.run(1000);
    assertEquals(told(home.take()[0], "mapped").mapping.via, "upnp");
  });

  it("takes a no of UPnP's for what it is, and lists all that was tried", () => {
    const router = new ScriptedRouter();
    router.occupy(8080);
    const home = new Home({ router, datagrams: "unreachable" });
    home.do((mapper, now) => mapper.map({ ...web, preferFailure: true }, now));
    home.run(1000);
    const failed = told(home.take()[0], "failed");
    assertEquals(failed.code, "refused");
    assertEquals(failed.attempts.map(({ via, outcome }) => `${via} ${outcome}`), [
      "pcp unreachable",
      "upnp ConflictInMappingEntry",
    ]);
    assertEquals(router.table(), [`TCP 8080->${NEIGHBOUR}:8080`]);
  });

  it("says that nobody is there when the last one has been waited for", () => {
    const router = new ScriptedRouter();
    router.isDead = true;
    const home = new Home({ router, datagrams: "unreachable" });
    home.do((mapper, now) => mapper.map(web, now));
    home.run(2000);
    assertEquals(home.types(), []);
    home.run(1000);
    const failed = told(home.take()[0], "failed");
    assertEquals(failed.attempts.map(({ via, outcome }) => `${via} ${outcome}`), [
      "pcp unreachable",
      "nat-pmp unreachable",
      "upnp no answer",
    ]);
  });

  it("tells a refusal though who was asked after it was not there: that says more", () => {
    const home = new Home({ datagrams: ["pcp"] });
    home.router.isDead = true;
    home.gateway!.setRefusal(2, 0);
    home.do((mapper, now) => mapper.map(web, now));
    home.run(5000);
    const failed = told(home.take()[0], "failed");
    assertEquals(failed.code, "refused");
    assertEquals(failed.attempts.at(-1)?.outcome, "no answer");
  });

  it("moves what UPnP made to this host's new address", () => {
    const home = new Home({ mapper: { protocols: ["upnp"] } });
    home.do((mapper, now) => mapper.map(web, now));
    home.run(1000);
    const localAddress = "192.168.1.77";
    home.do((mapper, now) => {
      mapper.networkChanged([{ gateway: GATEWAY, localAddress }], now);
      const { key } = mapper.sockets()[0]!;
      mapper.handleSocket(key, { ok: true, local: { address: localAddress, port: 5 } }, now);
    });
    home.run(60_000);
    assert(home.router.table().some((row) => row.endsWith(`->${localAddress}:8080`)));
  });

  it("answers a request of nobody's that it is not found", () => {
    const mapper = openMapper({ protocols: ["pcp", "upnp"] });
    const request = { method: "NOTIFY", path: "/x", headers: [], body: new Uint8Array(0) };
    mapper.handleRequest(7, request, GATEWAY, 0);
    const action = mapper.poll();
    const response = { status: 404, headers: [], body: new Uint8Array(0) };
    assertEquals([action, mapper.poll()], [{ type: "respond", id: 7, response }, undefined]);
  });

  it("renews, deletes and saves what UPnP made", () => {
    const home = new Home();
    const id = home.do((mapper, now) => mapper.map(web, now));
    home.run(3_600_100);
    assertEquals(home.types(), ["mapped", "renewed"]);
    const saved = home.do((mapper) => mapper.exportSaved());
    assertEquals(saved.map(({ via, external }) => [via, external?.port]), [["upnp", 8080]]);
    home.do((mapper, now) => mapper.revoke(id, now));
    home.run(1000);
    assertEquals(told(home.take()[0], "unmapped").failure, undefined);
    assertEquals(home.router.rows, []);
    assert(home.mapper.isIdle);
  });

  it("deletes by UPnP alone what its earlier run made by UPnP, at whatever port", () => {
    const home = new Home();
    home.router.occupy(8080);
    home.do((mapper, now) => mapper.map(web, now));
    home.run(1000);
    const { external } = told(home.take()[0], "mapped").mapping;
    assert(external.port !== 8080);
    const saved = home.do((mapper) => mapper.exportSaved());
    const later = new Home({ router: home.router, mapper: { saved } });
    later.do((mapper, now) => mapper.unmap({ protocol: "tcp", internalPort: 8080 }, now));
    later.run(1000);
    const unmapped = told(later.take()[0], "unmapped");
    assertEquals(unmapped.attempts.map(({ via, outcome }) => `${via} ${outcome}`), [
      "upnp unmapped",
    ]);
    assertEquals(home.router.table(), [`TCP 8080->${NEIGHBOUR}:8080`]);
  });

  it("looks at UPnP's table when another protocol says that the gateway began anew", () => {
    const home = new Home({ mapper: { protocols: ["upnp"], announcements: true } });
    home.do((mapper, now) => mapper.map(web, now));
    home.run(1000);
    home.take();
    home.router.rows.length = 0;
    const key = home.mapper.sockets().find(({ local }) => local?.port === 5350)!.key;
    const announcement = Uint8Array.from({ length: 24 }, (_, i) => [2, 0x80][i] ?? 0);
    home.do((mapper, now) => mapper.handleDatagram(announcement, GATEWAY, key, now));
    home.run(5100);
    assertEquals(home.types(), ["gateway-restarted", "renewed"]);
    assertEquals(home.router.table(), [`TCP 8080->${HOST}:8080`]);
  });

  it("tells the gateway's table, everybody's", () => {
    const home = new Home();
    home.router.occupy(22);
    home.router.occupy(53, "UDP");
    const id = home.do((mapper, now) => mapper.list(now));
    home.run(100);
    const table = home.take().find(({ type }) => type === "table-told");
    const { entries, ...rest } = told(table, "table-told");
    assertEquals([rest.id, rest.code], [id, undefined]);
    assertEquals(
      entries.map(({ protocol, externalPort, internalClient }) =>
        `${protocol} ${externalPort} ${internalClient}`
      ),
      [`tcp 22 ${NEIGHBOUR}`, `udp 53 ${NEIGHBOUR}`],
    );
  });

  it("tells that nobody can tell the table, and why it was not told", () => {
    const none = new Home({ mapper: { protocols: ["pcp", "nat-pmp"] } });
    const id = none.do((mapper, now) => mapper.list(now));
    const { code, entries, attempts, id: of } = told(none.take()[0], "table-told");
    assertEquals([of, code, entries, attempts], [id, "unsupported", [], []]);

    const silent = new Home({ router: new ScriptedRouter({ answers: () => false }) });
    const ids = [1, 2].map(() => silent.do((mapper, now) => mapper.list(now)));
    silent.run(60_000);
    const ends = silent.take().map((event) => told(event, "table-told"));
    assertEquals(ends.map((end) => end.id), ids);
    for (const end of ends) {
      assertEquals([end.code, end.entries, end.attempts.length], ["no-answer", [], 1]);
      const [{ via, gateway, outcome, elapsedMs }] = end.attempts as [typeof end.attempts[0]];
      assertEquals([via, gateway, outcome], ["upnp", "192.168.1.1", "no answer"]);
      assert(elapsedMs > 0 && elapsedMs < 60_000);
    }
  });

  it("asks for the table as soon as a gateway is open, and tells where none can be reached", () => {
    const options = { random: seededRandom(1), announcements: false, upnp: makeIgdClient };
    const mapper = new PortMapper(options);
    const id = mapper.list(0);
    assertEquals(mapper.poll(), undefined);
    mapper.networkChanged([{ gateway: GATEWAY, localAddress: HOST }], 0);
    assertEquals(mapper.poll(), undefined);
    const failure = { ok: false, code: "permission", message: "no", isOpen: false } as const;
    mapper.handleSocket(mapper.sockets()[0]!.key, failure, 5);
    const action = mapper.poll();
    const why = { code: "permission", message: "no", attempts: [] } as const;
    const table = { gateway: GATEWAY, entries: [], isCut: false };
    const end = action?.type === "event" ? action.event : undefined;
    assertEquals(end, { type: "table-told", id, ...table, ...why });
  });

  it("tells the external address by each that knows it", () => {
    const home = new Home({ datagrams: ["pcp", "nat-pmp"] });
    home.do((mapper, now) => mapper.askAddresses(undefined, now));
    home.run(1000);
    const events = home.take();
    const vias = events.flatMap((event) => event.type === "external-address" ? [event.via] : []);
    assertEquals(vias.sort(), ["nat-pmp", "pcp", "upnp"]);
    assertEquals(events.at(-1)!.type, "external-addresses-told");
  });
});

describe("a place where nobody answers", () => {
  /** A mapping that was held at home, in a café; what its searches are from then on. */
  function inCafe() {
    const home = new Home({ datagrams: ["pcp"] });
    home.do((mapper, now) => mapper.map(web, now));
    home.run(1000);
    assertEquals(home.types(), ["mapped"]);
    home.datagrams = "silence";
    home.router.datagram = () => [];
    const cafe = { gateway: { address: "192.168.1.254", port: 5351 }, localAddress: HOST };
    home.do((mapper, now) => mapper.networkChanged([cafe], now));
    const searches = (ms: number) =>
      home.left.filter(({ at, what }) => what === "upnp search" && at > home.now - ms).length;
    return { home, cafe, searches };
  }

  it("is searched for UPnP ever more seldom", () => {
    const { home, searches } = inCafe();
    home.run(60_000);
    const once = searches(60_000);
    assert(once > 0);
    home.run(3_600_000);
    // Past a quarter of an hour between two.
    assert(searches(1_800_000) <= 2 * once, `${searches(1_800_000)} datagrams in half an hour`);
    home.run(4 * 3_600_000);
    assert(searches(3_600_000) >= 3 * once, "and no more seldom than that");
    assertEquals(home.types(), ["lost"]);
  });

  it("is searched at once where the network has changed", () => {
    const { home, cafe, searches } = inCafe();
    home.run(3_600_000);
    home.do((mapper, now) => mapper.networkChanged([cafe], now));
    home.run(1000);
    assert(searches(1000) > 0);
  });

  it("is searched no more often for who watches because its gateway answers looks", () => {
    const home = new Home({ datagrams: ["pcp"] });
    home.router.datagram = () => [];
    const watch = (internalPort: number) =>
      home.do((mapper, now) => mapper.watch({ protocol: "tcp", internalPort }, now));
    const searches = (ms: number) => {
      home.left.length = 0;
      home.run(ms);
      return home.left.filter(({ what }) => what === "upnp search").length;
    };
    watch(8080);
    assertEquals(searches(1000), 0);
    home.gateway!.setRefusal(2, home.now); // NOT_AUTHORIZED, half an hour
    watch(80);
    assert(searches(5000) > 0);
    home.gateway!.setRefusal(undefined, home.now);
    assertEquals(searches(1_500_000), 0);
    home.run(600_000);
    assertEquals(home.mapper.exportSaved().map(({ internalPort }) => internalPort), [8080, 80]);
  });

  it("is searched no more often for who watches because others are answered", () => {
    const home = new Home({ datagrams: ["nat-pmp"] });
    home.router.datagram = () => [];
    home.datagrams = "unreachable";
    home.do((mapper, now) => mapper.watch({ ...web, internalPort: 80 }, now));
    // The third race after the first one went without it.
    home.run(240_000);
    const { gateway } = home, handle = gateway!.handleDatagram.bind(gateway);
    // NAT-PMP's question is answered; no request is.
    gateway!.handleDatagram = (data, ...rest) => data.length === 2 && handle(data, ...rest);
    home.datagrams = ["nat-pmp"];
    home.left.length = 0;
    home.do((mapper, now) => mapper.map({ ...web, protocols: ["nat-pmp"] }, now));
    home.run(30_000);
    assertEquals(home.kinds().filter((kind) => kind.startsWith("upnp")), []);
  });

  it("is searched at once where a gateway gives a sign of life to who watches", () => {
    const home = new Home({ datagrams: "unreachable" });
    home.router.datagram = () => [];
    home.do((mapper, now) => mapper.watch(web, now));
    const searches = (ms: number) => {
      home.left.length = 0;
      home.run(ms);
      return home.left.filter(({ what }) => what === "upnp search").length;
    };
    // The third race after the first one goes without it.
    assert(searches(60_000) > 0 && searches(60_000) > 0 && searches(70_000) > 0);
    assertEquals(searches(50_000), 0);
    const announcement = Uint8Array.from({ length: 24 }, (_, i) => [2, 0x80][i] ?? 0);
    home.do((mapper, now) =>
      mapper.handleDatagram(announcement, GATEWAY, mapper.sockets()[0]!.key, now)
    );
    assert(searches(100) > 0);
  });

  it("is not searched anew because of a sign of life, while PCP is asked there all along", () => {
    const home = new Home();
    home.router.datagram = () => [];
    home.do((mapper, now) => mapper.watch(web, now));
    home.run(10_000);
    home.left.length = 0;
    const announcement = Uint8Array.from({ length: 24 }, (_, i) => [2, 0x80][i] ?? 0);
    const key = "announcements 1";
    home.do((mapper, now) => mapper.handleDatagram(announcement, GATEWAY, key, now));
    home.run(10_000);
    assert(!home.kinds().includes("upnp search"));
  });

  it("is searched ever more seldom, too, where the device itself is what is gone", () => {
    const home = new Home({ mapper: { protocols: ["upnp"] } });
    home.do((mapper, now) => mapper.map(web, now));
    home.run(1000);
    assertEquals(home.types(), ["mapped"]);
    home.router.datagram = () => [];
    home.router.http = () => ({ ok: false, reason: "failed" });
    home.run(4 * 3_600_000);
    const late = home.left.filter(({ at, what }) =>
      what === "upnp search" && at > home.now - 3_600_000
    );
    assert(late.length <= 60, `${late.length} datagrams in an hour`);
    assertEquals(home.types().at(-1), "lost");
  });
});
