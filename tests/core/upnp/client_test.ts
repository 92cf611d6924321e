import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { seededRandom } from "../../../core/random.ts";
import { IgdClient } from "../../../core/upnp/client.ts";
import { Rig, told } from "./rig.ts";
import { EXTERNAL, GATEWAY, HOST, NEIGHBOUR, ROUTER, ScriptedRouter } from "./scripted_igd.ts";

/** Maps 8080/tcp; what was told and asked until then is forgotten. */
function held(router = new ScriptedRouter(), request = {}): Rig {
  const rig = new Rig({ router });
  rig.map(request);
  router.takeActions();
  rig.take();
  return rig;
}

describe("IgdClient", () => {
  it("maps at an IGD:1 within four HTTP round trips of the answer to its search", () => {
    const rig = new Rig();
    rig.map();
    assertEquals(rig.router.asked.slice(0, 1), ["GET /desc.xml"]);
    const { asked, calls } = rig.router;
    assertEquals(calls.map(({ action }) => action).slice(0, 3), [
      "GetExternalIPAddress",
      "GetSpecificPortMappingEntry",
      "AddPortMapping",
    ]);
    const [address, mapped, ...more] = rig.take();
    assertEquals(told(address, "external-address").address, EXTERNAL);
    const { mapping } = told(mapped, "mapped");
    assertEquals([mapping.external, mapping.lifetimeSeconds, mapping.state], [
      { address: EXTERNAL, port: 8080 },
      7200,
      "running",
    ]);
    assertEquals(more, []);
    // The fifth reads back.
    assertEquals([calls.length, calls.at(-1)!.action], [4, "GetSpecificPortMappingEntry"]);
    assertEquals(asked.slice(0, 5).filter((line) => line.startsWith("SUBSCRIBE")), []);
    assertEquals(rig.router.table(), [`TCP 8080->${HOST}:8080`]);
  });

  it("maps at an IGD:2 by AddAnyPortMapping, once it has looked whose the port is", () => {
    const router = new ScriptedRouter({ version: 2 });
    const rig = new Rig({ router });
    rig.map();
    assertEquals(router.calls.map(({ action }) => action), [
      "GetExternalIPAddress",
      "GetSpecificPortMappingEntry",
      "AddAnyPortMapping",
      "GetSpecificPortMappingEntry",
    ]);
    assertEquals(rig.types(), ["external-address", "mapped"]);
  });

  it("sends the arguments in the order that devices insist on, and of this host", () => {
    const rig = new Rig();
    rig.map({
      suggestedExternal: { port: 18_080 },
      lifetimeSeconds: 600,
      description: "a <web> ✓",
    });
    const { args, service, path } = rig.router.calls.find(({ action }) =>
      action === "AddPortMapping"
    )!;
    assertEquals(Object.entries(args), [
      ["NewRemoteHost", ""],
      ["NewExternalPort", "18080"],
      ["NewProtocol", "TCP"],
      ["NewInternalPort", "8080"],
      ["NewInternalClient", HOST],
      ["NewEnabled", "1"],
      ["NewPortMappingDescription", "a <web> ?"],
      ["NewLeaseDuration", "600"],
    ]);
    assertEquals([service, path], ["urn:schemas-upnp-org:service:WANIPConnection:1", "/ctl/ip"]);
  });

  it("renews at half of the lease by the same request, and does not delete (1d #17, #1, #2)", () => {
    const rig = held();
    for (let period = 1; period <= 10; period++) {
      rig.runTo(period * 3_600_000 + 1);
      const actions = rig.router.takeActions();
      assertEquals(actions.filter((action) => action === "AddPortMapping").length, 1);
      assert(!actions.includes("DeletePortMapping"));
      assertEquals(rig.types(), ["renewed"]);
    }
    assertEquals(rig.router.rows.length, 1);
  });

  it("renews at an IGD:2, which gives nobody what another has, by one request", () => {
    const rig = new Rig({ router: new ScriptedRouter({ version: 2 }) });
    rig.map();
    rig.event(rig.router.event({ ExternalIPAddress: EXTERNAL }));
    // The first renewal shows whether it extends the lease.
    rig.runTo(3_700_000);
    rig.router.calls.length = 0;
    rig.runTo(4 * 3_600_000 + 60_000);
    const { calls } = rig.router;
    const renewals = calls.filter(({ action }) => action === "AddPortMapping");
    assertEquals(renewals.length, 3);
    for (const { at } of renewals) {
      assertEquals(calls.filter((call) => call.at === at).length, 1);
    }
    // By 718 it says that the port is another's by now, where no look has told before.
    rig.runTo(renewals.at(-1)!.at + 3_600_000 - 1);
    rig.take();
    rig.router.occupy(8080);
    rig.run(1000);
    assert(told(rig.take()[0], "moved").mapping.external?.port !== 8080);
    assertEquals(rig.router.table()[0], `TCP 8080->${NEIGHBOUR}:8080`);
    assertEquals(rig.router.rows.length, 2);
  });

  it("replaces at an IGD:2 what is its own and in its way (quirk 47)", () => {
    const rig = new Rig({ router: new ScriptedRouter({ version: 2 }) });
    rig.map();
    rig.runTo(3_700_000);
    rig.take();
    rig.router.options = {
      version: 2,
      acts: {
        AddPortMapping: (args, now, router) =>
          router.find(args) ? 718 : router.AddPortMapping(args, now),
      },
    };
    rig.runTo(2 * 3_600_000 + 1000);
    assertEquals(rig.types(), ["renewed"]);
    assertEquals(rig.router.table(), [`TCP 8080->${HOST}:8080`]);
  });

  it("fetches the description once (1d #20)", () => {
    const rig = held();
    rig.runTo(20 * 3_600_000);
    assertEquals(rig.router.asked.filter((line) => line.startsWith("GET")).length, 1);
  });

  it("asks one thing at a time (UPNP-C-12)", () => {
    const rig = new Rig();
    for (let port = 8000; port < 8020; port++) rig.map({ internalPort: port });
    rig.holds = true;
    for (let port = 8020; port < 8040; port++) rig.map({ internalPort: port });
    while (rig.held.length > 0) rig.release(1);
    assertEquals(rig.mostAtOnce, 1);
    assertEquals(rig.router.rows.length, 40);
    assertEquals([...new Set(rig.types())], ["external-address", "mapped"]);
  });

  it("deletes what it made, and looks first whose it is (UPNP-C-08)", () => {
    const rig = held();
    rig.do((client, now) => client.close(now));
    assertEquals(rig.router.takeActions(), ["GetSpecificPortMappingEntry", "DeletePortMapping"]);
    assertEquals(told(rig.take()[0], "unmapped").failure, undefined);
    assertEquals(rig.router.rows, []);
    assert(rig.client.isIdle);
    assertEquals(rig.client.nextTimeout(), undefined);
  });

  it("leaves at its end what another host has by then", () => {
    const rig = held();
    rig.router.rows.length = 0;
    rig.router.occupy(8080);
    rig.do((client, now) => client.close(now));
    assertEquals(rig.router.takeActions(), ["GetSpecificPortMappingEntry"]);
    assertEquals(rig.types(), ["unmapped"]);
    assertEquals(rig.router.rows.length, 1);
  });

  // By the letter of WANIPConnection:2 a device replaces what the same host has at the port.
  it("takes no port that another of its own mappings has, whether the table shows or not", () => {
    for (const version of [1, 2] as const) {
      for (const hides of [false, true]) {
        const acts = hides && { acts: { GetSpecificPortMappingEntry: () => 401 } };
        const router = new ScriptedRouter({ version, overwrites: true, ...acts });
        const rig = new Rig({ router });
        for (const internalPort of [8080, 8081]) {
          rig.map({ internalPort, suggestedExternal: { port: 9000 } });
        }
        assertEquals(router.table(), [`TCP 9000->${HOST}:8080`, `TCP 8081->${HOST}:8081`]);
      }
    }
  });

  it("takes no port that another program of this host has", () => {
    for (const version of [1, 2] as const) {
      const router = new ScriptedRouter({ version, overwrites: true });
      router.occupy(9000, "TCP", HOST);
      const rig = new Rig({ router });
      rig.map({ suggestedExternal: { port: 9000 } });
      assertEquals(router.table(), [`TCP 9000->${HOST}:9000`, `TCP 8080->${HOST}:8080`]);
    }
  });

  it("finds out within minutes that another has its port, and takes another one", () => {
    const rig = held();
    rig.router.occupy(8080);
    rig.run(120_000);
    assertEquals(rig.types(), ["lost", "recovered"]);
    assertEquals(rig.router.rows.length, 2);
    assertEquals(rig.router.rows[0]!.description, "other");
  });

  it("deletes at its end what it could not ask for again at a router that is not connected", () => {
    const rig = held();
    rig.router.options = {
      bootId: 2,
      acts: { GetExternalIPAddress: () => ({ NewExternalIPAddress: "0.0.0.0" }) },
    };
    rig.notice("alive", { bootId: 2 });
    rig.run(10_000);
    assertEquals(rig.types(), ["gateway-restarted", "lost"]);
    rig.router.options = { bootId: 2 };
    rig.do((client, now) => client.close(now));
    assertEquals(rig.router.rows, []);
  });

  it("deletes what a request made that was given up as unanswered", () => {
    const router = new ScriptedRouter({
      acts: {
        AddPortMapping: (args, now, self) => {
          self.AddPortMapping(args, now);
          return undefined;
        },
      },
    });
    const rig = new Rig({ router });
    rig.map({ mode: "once" });
    assertEquals(rig.types(), ["external-address", "failed"]);
    assertEquals([router.rows, rig.client.isIdle], [[], true]);
  });

  it("refuses what UPnP cannot do before anything is sent", () => {
    const client = new IgdClient({ gateway: GATEWAY, localAddress: HOST, random: seededRandom(1) });
    const web = { protocol: "tcp", internalPort: 80 } as const;
    const remote = { address: "198.51.100.1", port: 80 };
    for (
      const [request, words] of [
        [{ ...web, protocol: 47, internalPort: 0 }, "'protocol'"],
        [{ ...web, remote }, "'remote'"],
        [{ ...web, thirdParty: "192.168.1.5" }, "'thirdParty'"],
        [{ ...web, portSet: { size: 2 } }, "'portSet'"],
        [{ ...web, suggestedExternal: { address: EXTERNAL } }, "'suggestedExternal.address'"],
      ] as const
    ) {
      assertThrows(() => client.map(request, 0), TypeError, words);
      assert(client.unfit(request)?.includes(words));
    }
    assertEquals(client.unfit(web), undefined);
    assertEquals([client.sockets(), client.poll()], [[], undefined]);
  });

  it("says that nobody answers in two and a half seconds, and asks again later", () => {
    const rig = new Rig();
    rig.router.isDead = true;
    rig.do((client, now) => client.probe(now));
    rig.runTo(2200);
    assertEquals(rig.types(), []);
    rig.runTo(2500);
    const failed = told(rig.take()[0], "external-address-failed");
    assertEquals(failed.failure, { kind: "no-answer" });
    assertEquals([rig.client.nextTimeout(), rig.client.sockets()], [undefined, []]);
    rig.router.isDead = false;
    rig.do((client, now) => client.probe(now));
    assertEquals(rig.types(), ["external-address"]);
  });

  it("searches by unicast first, then by multicast, and listens no longer than it must", () => {
    const rig = new Rig();
    rig.do((client, now) => client.probe(now));
    assertEquals(rig.router.searches.map(({ to, mx }) => [to.address, to.port, mx]), [
      [ROUTER, 1900, undefined],
      ["239.255.255.250", 1900, 1],
    ]);
    assertEquals(rig.client.sockets(), []);
  });

  it("searches the link of a link-local gateway by the interface, or by its address's zone", () => {
    for (const [name, zone] of [["en7", "en7"], [undefined, "eth0"]] as const) {
      const rig = new Rig({
        gateway: { address: "fe80::1%eth0", port: 1900 },
        localAddress: "2001:db8::100",
        ...(name !== undefined && { interface: name }),
      });
      rig.do((client, now) => client.probe(now));
      assertEquals(rig.router.searches.slice(0, 2).map(({ to }) => to), [
        { address: "fe80::1%eth0", port: 1900 },
        { address: `ff02::c%${zone}`, port: 1900 },
      ]);
    }
  });
});
