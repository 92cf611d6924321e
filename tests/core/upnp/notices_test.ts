/**
 * What devices tell unasked: announcements (SSDP) and events (GENA); and what nobody tells.
 */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { holding, Rig, told } from "./rig.ts";
import { EXTERNAL, HOST, NEIGHBOUR, ScriptedRouter, UUID } from "./scripted_igd.ts";

const OTHER = "198.51.100.9";

describe("announcements", () => {
  it("are heard as long as something is held, on SSDP's port beside others", () => {
    const rig = new Rig();
    assertEquals(rig.client.sockets(), []);
    const id = rig.map();
    const socket = rig.client.sockets().find(({ group }) => group !== undefined)!;
    assertEquals(socket, {
      key: socket.key,
      local: { address: "239.255.255.250", port: 1900 },
      group: "239.255.255.250",
      reuse: true,
      interface: HOST,
    });
    rig.do((client, now) => client.revoke(id, now));
    assertEquals(rig.client.sockets(), []);
  });

  it("are heard from when something is asked for: a device may begin anew as it has granted", () => {
    const rig = new Rig();
    const listens = () => rig.client.sockets().some(({ key }) => key.startsWith("notices"));
    rig.holds = true;
    rig.map();
    while (!rig.router.asked.includes("POST /ctl/ip")) rig.release(1);
    assert(!listens(), "its address is asked for");
    while (rig.router.rows.length === 0) rig.release(1);
    assertEquals([rig.types().includes("mapped"), listens()], [false, true]);

    const other = new Rig();
    other.holds = true;
    other.do((client, now) => client.unmap({ protocol: "tcp", internalPort: 8080 }, now));
    for (let i = 0; i < 20; i++) {
      assert(!other.client.sockets().some(({ key }) => key.startsWith("notices")));
      other.release(1);
    }
  });

  it("are not heard on loopback, where the port is everybody's; events are", () => {
    const address = "127.0.0.1";
    const router = new ScriptedRouter({
      location: `http://${address}:5000/desc.xml`,
      from: { address, port: 1900 },
    });
    const elsewhere = new ScriptedRouter({ answers: () => false });
    const rig = new Rig({
      router: elsewhere,
      others: [{ address, router }],
      gateway: { address, port: 6000 },
      localAddress: address,
    });
    rig.map();
    assertEquals(rig.types(), ["external-address", "mapped"]);
    const sockets = rig.client.sockets().map(({ kind, group }) => [kind, group]);
    assertEquals(sockets, [["http", undefined]]);
    assertEquals(router.subscription!.callback.hostname, address);
  });

  it("of the same boot change nothing", () => {
    const rig = holding();
    for (let i = 0; i < 20; i++) rig.notice("alive");
    rig.run(6000);
    assertEquals([rig.types(), rig.router.takeActions()], [[], []]);
  });

  it("of another boot: all is made anew within five seconds, once however often it is said", () => {
    const rig = holding();
    rig.router.rows.length = 0;
    rig.router.options = { bootId: 2 };
    for (let i = 0; i < 20; i++) rig.notice("alive", { bootId: 2 });
    rig.run(5000);
    assertEquals(rig.types(), ["gateway-restarted", "renewed"]);
    assertEquals(rig.router.table(), [`TCP 8080->${HOST}:8080`]);
    assertEquals(rig.client.stats.restarts, 1);
  });

  it("after a goodbye, also of a device that does not count its boots", () => {
    const rig = holding();
    rig.router.rows.length = 0;
    rig.notice("byebye");
    rig.run(10_000);
    assertEquals(rig.types(), []);
    rig.client.handleDatagram(
      new TextEncoder().encode(
        "NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nNT: upnp:rootdevice\r\n" +
          `NTS: ssdp:alive\r\nUSN: ${UUID}::upnp:rootdevice\r\nLOCATION: http://192.168.1.1:5000/d\r\n\r\n`,
      ),
      { address: "192.168.1.1", port: 1900 },
      rig.noticeKey,
      rig.now,
    );
    rig.settle();
    rig.run(5000);
    assertEquals(rig.types(), ["gateway-restarted", "renewed"]);
  });

  it("of an update: the boot number that comes is none that says so of a restart", () => {
    const rig = holding();
    rig.notice("update", { bootId: 1, nextBootId: 7 });
    rig.notice("alive", { bootId: 7 });
    rig.run(6000);
    assertEquals(rig.types(), []);
  });

  it("of other devices, from elsewhere, and broken ones are dropped", () => {
    const rig = holding();
    rig.notice("alive", { usn: "uuid:television::upnp:rootdevice", bootId: 9 });
    rig.notice("alive", { bootId: 9 }, "203.0.113.99");
    rig.client.handleDatagram(
      new Uint8Array(40),
      { address: "192.168.1.1", port: 1900 },
      rig.noticeKey,
      rig.now,
    );
    rig.run(6000);
    assertEquals(rig.types(), []);
    const { malformed, "off-link": offLink } = rig.client.stats.dropped;
    assertEquals([malformed, offLink], [1, 1]);
  });

  it("bring on what silence has put off", () => {
    const rig = holding();
    rig.router.isDead = true;
    rig.runTo(7_200_000 + 60_000);
    assertEquals(rig.types()[0], "lost");
    rig.router.isDead = false;
    const { now } = rig;
    rig.notice("alive");
    rig.run(5100);
    const types = rig.take();
    told(types.find(({ type }) => type === "recovered"), "recovered");
    assert(rig.now - now < 6000);
  });
});

describe("events", () => {
  it("are subscribed to when something is held, renewed, and ended with it", () => {
    const rig = new Rig();
    const id = rig.map();
    const { callback } = rig.router.subscription!;
    assertEquals(callback.hostname, HOST);
    assert(/^\/[0-9a-f]{16}$/.test(callback.pathname), callback.pathname);
    rig.runTo(3_600_000 * 3);
    const asked = rig.router.asked.filter((line) => line.startsWith("SUBSCRIBE"));
    assertEquals(asked.length, 1 + 3 * 4);
    rig.do((client, now) => client.revoke(id, now));
    assertEquals([rig.router.subscription, rig.router.asked.at(-1)], [
      undefined,
      "UNSUBSCRIBE /ctl/ip/events",
    ]);
    assert(rig.client.isIdle);
    assertEquals(rig.client.sockets(), []);
  });

  it("are ended at once where the last mapping is not to be held on", () => {
    const rig = new Rig();
    const id = rig.map();
    rig.do((client, now) => client.withdraw(id, now));
    assertEquals(rig.router.asked.at(-1), "UNSUBSCRIBE /ctl/ip/events");
  });

  it("tell another address at once, and the mapping has moved", () => {
    const rig = holding();
    assertEquals(rig.event(rig.router.event({ ExternalIPAddress: EXTERNAL })), 200);
    assertEquals(rig.types(), []);
    assertEquals(rig.event(rig.router.event({ ExternalIPAddress: OTHER })), 200);
    const [moved, address] = rig.take();
    assertEquals(told(moved, "moved").mapping.external, { address: OTHER, port: 8080 });
    assertEquals(told(address, "external-address").address, OTHER);
    for (const none of ["", "0.0.0.0", "nonsense"]) {
      rig.event(rig.router.event({ ExternalIPAddress: none }));
    }
    assertEquals(rig.types(), []);
  });

  it("tell that there is no address: the next one is asked for until it is there", () => {
    const rig = holding();
    rig.router.options = { external: "0.0.0.0" };
    rig.event(rig.router.event({ ExternalIPAddress: "0.0.0.0" }));
    rig.run(10_000);
    assertEquals(rig.types(), []);
    rig.router.options = { external: OTHER };
    rig.run(3100);
    assertEquals(rig.types(), ["moved", "external-address"]);
    rig.router.takeActions();
    rig.run(50_000);
    assertEquals(rig.router.takeActions(), []);
  });

  it("that tell an address are doubted once: the device may have told nobody of the next one", () => {
    const rig = holding();
    const asked = () => rig.router.takeActions().filter((one) => one === "GetExternalIPAddress");
    rig.event(rig.router.event({ PortMappingNumberOfEntries: "1" }));
    asked();
    // As this host took that, the first one, the address changed.
    rig.router.options = { external: OTHER };
    rig.run(2999);
    assertEquals([rig.types(), asked()], [[], []]);
    rig.run(1);
    assertEquals([rig.types(), asked().length], [["moved", "external-address"], 1]);

    rig.event(rig.router.event({ Uptime: "1" }));
    rig.run(50_000);
    assertEquals(asked(), [], "no word of an address");

    for (let ms = 0; ms < 9010; ms += 10) {
      rig.event(rig.router.event({ ExternalIPAddress: ms % 20 === 0 ? EXTERNAL : OTHER }));
      rig.run(10);
    }
    assertEquals(asked().length, 3, "no storm of questions after a storm of events");
    rig.run(3000);
    assertEquals(asked().length, 1);
    rig.take();

    rig.event(rig.router.event({ ExternalIPAddress: EXTERNAL }));
    rig.router.options = { external: "0.0.0.0" };
    rig.run(3000);
    rig.router.options = { external: OTHER };
    rig.run(3100);
    const known = rig.take().at(-1);
    assertEquals(told(known, "external-address").address, OTHER, "it had none meanwhile");
  });

  it("that tell an address are doubted by nobody who holds nothing any more", () => {
    const rig = holding();
    rig.event(rig.router.event({ ExternalIPAddress: EXTERNAL }));
    rig.do((client, now) => client.close(now));
    rig.router.takeActions();
    rig.run(10_000);
    assertEquals(rig.router.takeActions(), []);
    assert(rig.client.isIdle);
  });

  it("are given up where the answer to the subscription comes when nothing is held any more", () => {
    const rig = new Rig();
    rig.holds = true;
    const id = rig.map();
    for (let i = 0; i < 20 && !rig.router.subscription; i++) rig.release(1);
    assert(rig.router.subscription !== undefined);
    rig.do((client, now) => client.revoke(id, now));
    rig.holds = false;
    rig.release();
    assertEquals([rig.router.subscription, rig.client.isIdle], [undefined, true]);
    assertEquals(rig.router.rows, []);
  });

  it("may come before the answer to the subscription", () => {
    const rig = new Rig();
    rig.holds = true;
    rig.map();
    for (let i = 0; i < 20 && !rig.router.subscription; i++) rig.release(1);
    assertEquals(rig.event(rig.router.event({ ExternalIPAddress: OTHER })), 200);
    rig.release();
    assertEquals(rig.event(rig.router.event({ ExternalIPAddress: EXTERNAL })), 200);
  });

  it("with a wrong id, an old number, of elsewhere or of another path are refused and counted", () => {
    const rig = holding();
    const { router } = rig;
    const change = { ExternalIPAddress: OTHER };
    rig.event(router.event({}));
    const wrong = router.event(change, { sid: "uuid:other" });
    router.subscription!.sequence--;
    const old = router.event(change, { sequence: 0 });
    router.subscription!.sequence--;
    const good = router.event(change);
    assertEquals(
      [
        rig.event(wrong),
        rig.event(old),
        rig.event(good, NEIGHBOUR),
        rig.event({ ...good, path: "/other" }),
        rig.event({ ...good, method: "GET" }),
        rig.event({ ...good, body: new TextEncoder().encode("<a") }),
      ].map((status) => status >= 400),
      new Array(6).fill(true),
    );
    assertEquals(rig.client.stats.dropped.unsolicited, 6);
    assertEquals(rig.types(), []);
    assertEquals(rig.event(good), 200);
    assertEquals(rig.types(), ["moved", "external-address"]);
  });

  it("of which one is missing are taken, and the table is looked at", () => {
    const rig = holding();
    rig.event(rig.router.event({ ExternalIPAddress: EXTERNAL }));
    rig.router.rows.length = 0;
    rig.router.subscription!.sequence += 3;
    rig.event(rig.router.event({ Uptime: "1" }));
    rig.run(5100);
    assertEquals(rig.types(), ["gateway-restarted", "renewed"]);
  });

  it("tell that the table has shrunk", () => {
    const rig = holding();
    rig.router.rows.length = 0;
    rig.event(rig.router.event({ PortMappingNumberOfEntries: "0" }));
    rig.run(5100);
    assertEquals(rig.types(), ["gateway-restarted", "renewed"]);
  });

  it("are not asked for again where the device has none", () => {
    const rig = holding({ hasEvents: false });
    rig.runTo(3_000_000);
    assertEquals(rig.router.asked.filter((line) => line.startsWith("SUB")).length, 1);
    assertEquals(rig.client.sockets().filter(({ kind }) => kind === "http"), []);
  });

  it("go where they can be heard, also after a restart", () => {
    const rig = holding();
    const { host } = rig.router.subscription!.callback;
    rig.router.rows.length = 0;
    rig.router.subscription = undefined;
    rig.router.options = { bootId: 2 };
    rig.notice("byebye");
    rig.notice("alive", { bootId: 2 });
    rig.run(5000);
    assertEquals(rig.types(), ["gateway-restarted", "renewed"]);
    const after = (rig.router as ScriptedRouter).subscription!.callback.host;
    assert(after !== host, after);
    assertEquals(rig.router.asked.filter((line) => line.startsWith("SUB")).length, 2);
    rig.event((rig.router as ScriptedRouter).event({ ExternalIPAddress: OTHER }));
    assertEquals(rig.types(), ["moved", "external-address"]);
  });

  it("are subscribed to anew where only the table tells that the device began anew", () => {
    const rig = holding();
    rig.event(rig.router.event({ ExternalIPAddress: EXTERNAL }));
    rig.router.rows.length = 0;
    rig.router.subscription = undefined;
    rig.run(66_000);
    assertEquals(rig.types(), ["gateway-restarted", "renewed"]);
    rig.event((rig.router as ScriptedRouter).event({ ExternalIPAddress: OTHER }));
    assertEquals(rig.types(), ["moved", "external-address"]);
  });

  it("are asked for anew where the subscription has run out there", () => {
    const rig = holding();
    rig.router.subscription = undefined;
    rig.run(910_000);
    assert(rig.router.subscription !== undefined);
    rig.event((rig.router as ScriptedRouter).event({ ExternalIPAddress: OTHER }));
    assertEquals(rig.types(), ["moved", "external-address"]);
  });
});

describe("what nobody tells", () => {
  it("is looked for at once where something says that the device may have begun anew", () => {
    const rig = holding();
    for (let i = 0; i < 3; i++) rig.do((client, now) => client.check(now));
    assertEquals(rig.router.takeActions(), [
      "GetExternalIPAddress",
      "GetSpecificPortMappingEntry",
      "GetExternalIPAddress",
      "GetSpecificPortMappingEntry",
      "GetExternalIPAddress",
      "GetSpecificPortMappingEntry",
    ]);
    assertEquals(rig.types(), []);
    rig.router.rows.length = 0;
    rig.do((client, now) => client.check(now));
    rig.run(5000);
    assertEquals(rig.types(), ["gateway-restarted", "renewed"]);
    const idle = new Rig();
    idle.do((client, now) => client.check(now));
    assertEquals([idle.client.isIdle, idle.client.sockets()], [true, []]);
  });

  for (const said of ["before", "after"] as const) {
    it(`a restart just after the grant, heard of ${said} the table was read back, costs no rest`, () => {
      const rig = new Rig();
      rig.holds = true;
      rig.map();
      while (rig.router.rows.length === 0) rig.release(1);
      rig.router.rows.length = 0;
      if (said === "before") rig.do((client, now) => client.check(now));
      rig.holds = false;
      rig.release();
      assert(rig.types().includes("lost"));
      if (said === "after") rig.do((client, now) => client.check(now));
      rig.run(5000);
      assertEquals(rig.types(), ["recovered"]);
      assertEquals(rig.router.rows.length, 1);
    });
  }

  it("another address is found within a minute, and by an event's socket that failed, too", () => {
    const rig = holding({ hasEvents: false });
    rig.router.options = { external: OTHER };
    rig.run(61_000);
    assertEquals(rig.types(), ["moved", "external-address"]);
  });

  it("is asked for once a minute, one mapping in turn, whatever the number", () => {
    const rig = holding({ hasEvents: false });
    for (let port = 1000; port < 1050; port++) rig.map({ internalPort: port });
    rig.router.takeActions();
    rig.run(600_000);
    const actions = rig.router.takeActions();
    assertEquals(actions.filter((action) => action === "GetExternalIPAddress").length, 10);
    assertEquals(actions.length, 20);
    rig.router.rows.splice(3, 1);
    rig.run(60_000 * 51 + 6000);
    assertEquals(rig.router.rows.length, 51);
    assert(rig.types().includes("gateway-restarted"));
  });
});
