/**
 * The routers of peers.md §3, rows 16 to 64, as an IGD client meets them, one by one; and the defects
 * of other clients (§1d) that concern UPnP. Rows that are HTTP's alone are tested with the adapter.
 */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import type { HttpResult } from "../../../core/machine.ts";
import { describeFailure } from "../../../core/mapping.ts";
import { IGD_DEVICE, IGD_SERVICE } from "../../../core/upnp/igd.ts";
import { encodeFault } from "../../../core/upnp/soap.ts";
import { encodeSearch } from "../../../core/upnp/ssdp.ts";
import { writeDescription } from "../../../core/upnp/description.ts";
import { Rig, told } from "./rig.ts";
import {
  EXTERNAL,
  GATEWAY,
  gatewayDevice,
  HOST,
  NEIGHBOUR,
  plain,
  PORT,
  ROUTER,
  type RouterOptions,
  ScriptedRouter,
  SERVICES,
  UUID,
} from "./scripted_igd.ts";

const GROUP = "239.255.255.250";
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** A router with these quirks and a client that maps 8080/tcp there. */
function met(options: RouterOptions, request = {}, ms = 5000): Rig {
  const rig = new Rig({ router: new ScriptedRouter(options) });
  rig.map(request);
  rig.runTo(ms);
  return rig;
}

/** Asserts that the mapping was made, and tells it. */
function assertMapped(rig: Rig) {
  const mapped = rig.take().find(({ type }) => type === "mapped");
  return told(mapped, "mapped").mapping;
}

/** The description of the usual gateway, as text. */
const described = (services = [SERVICES.ip1]) =>
  text(writeDescription({ device: gatewayDevice(services), urlBase: "" }));

const adds = (rig: Rig) => rig.router.calls.filter(({ action }) => action === "AddPortMapping");

describe("SSDP", () => {
  it("16 Eero: answers multicast only", () => {
    assertMapped(met({ answers: (st, to) => to.address === GROUP && st === IGD_DEVICE.GATEWAY_1 }));
  });

  it("17 Sagemcom FAST3890V3: ssdp:all is answered by something else, and is not asked", () => {
    const rig = met({ answers: () => false });
    const targets = rig.router.searches.map(({ target }) => target);
    assert(targets.length > 8 && !targets.includes("ssdp:all"), targets.join());
  });

  it("18 TP-Link ER605: answers from another port, wants UDP in upper case, no port below 1024", () => {
    const rig = new Rig({
      router: new ScriptedRouter({
        from: { address: ROUTER, port: 50_123 },
        acts: {
          AddPortMapping(args, now, router) {
            if (Number(args["NewExternalPort"]) < 1024) return 501;
            return args["NewProtocol"] === "UDP" ? router.AddPortMapping(args, now) : 402;
          },
        },
      }),
    });
    rig.map({ protocol: "udp", suggestedExternal: { port: 80 } });
    const { external } = assertMapped(rig);
    assert(external!.port >= 1024, String(external!.port));
  });

  it("19 pfSense with CARP: answers from an address beside the gateway's", () => {
    const carp = new ScriptedRouter({
      from: { address: "192.168.1.3", port: 1900 },
      location: `http://192.168.1.3:${PORT}/desc.xml`,
    });
    const dead = new ScriptedRouter();
    dead.isDead = true;
    const rig = new Rig({ router: dead, others: [{ address: "192.168.1.3", router: carp }] });
    rig.map();
    rig.runTo(900);
    assertEquals([carp.asked, rig.types()], [[], []]);
    rig.runTo(1100);
    assertEquals(assertMapped(rig).external, { address: EXTERNAL, port: 8080 });
  });

  it("20 routers with WANIPConnection:2 alone, that answer for version 2 alone", () => {
    const rig = met({ version: 2, answers: (st) => st === IGD_DEVICE.GATEWAY_2 });
    assertMapped(rig);
    assertEquals(rig.router.calls.at(-1)!.service, IGD_SERVICE.WAN_IP_2);
  });

  it("21 searches have MAN in quotes, and CRLF", () => {
    const rig = new Rig();
    rig.client.probe(0);
    const [socket] = rig.client.sockets();
    rig.client.handleSocket(socket!.key, { ok: true, local: { address: HOST, port: 1 } }, 0);
    for (let sent = rig.client.poll(); sent?.type === "send"; sent = rig.client.poll()) {
      const search = text(sent.data);
      assert(search.startsWith("M-SEARCH * HTTP/1.1\r\nHOST: "), search);
      assert(
        search.includes('\r\nMAN: "ssdp:discover"\r\n') && search.endsWith("\r\n\r\n"),
        search,
      );
      assert(!/[^\r]\n/.test(search), search);
    }
  });

  it("22 Archer C8: answers as a root device first, is described on port 1900, and cuts it short", () => {
    const whole = described();
    const rig = met({
      answers: (st) => st !== "never",
      location: `http://${ROUTER}:1900/desc.xml`,
      port: 1900,
      description: whole.slice(0, whole.indexOf("</service>", whole.indexOf("WANIPConn")) + 20),
    });
    assertMapped(rig);
  });

  it("23 Fritz!Box: one target goes first, alone", () => {
    const rig = met({});
    assertEquals([...new Set(rig.router.searches.map(({ target }) => target))], [
      IGD_DEVICE.GATEWAY_1,
    ]);
  });

  it("24 some answer as a root device alone", () => {
    assertMapped(met({ answers: (st) => st === "upnp:rootdevice" }));
  });

  it("25 miniupnpd falls silent to searches: what is held is renewed all the same", () => {
    const rig = met({});
    rig.router.options = { answers: () => false };
    rig.take();
    rig.runTo(4 * 3_600_000);
    assertEquals([...new Set(rig.types())], ["renewed"]);
  });

  it("25 several gateways on one LAN: the one that is asked for is taken", () => {
    const router = new ScriptedRouter();
    const old = new ScriptedRouter({
      external: "198.51.100.9",
      from: { address: "192.168.1.2", port: 1900 },
      location: `http://192.168.1.2:${PORT}/desc.xml`,
    });
    const rig = new Rig({ router, others: [{ address: "192.168.1.2", router: old }] });
    rig.map();
    assertEquals(assertMapped(rig).external!.address, EXTERNAL);
    assertEquals(old.asked, []);
  });

  it("a gateway that was named is silent after the least that its last answer may take", () => {
    const rig = new Rig({ router: new ScriptedRouter({ answers: () => false }), isNamed: true });
    rig.map({ mode: "once" });
    const heard = [...new Set(rig.router.searches.map(({ mx }) => mx))];
    assertEquals(heard, [undefined, 1]);
    rig.runTo(350);
    const last = rig.router.searches.length;
    // Each target by itself and with the group, the first two twice.
    assertEquals([last, new Set(rig.router.searches.map(({ target }) => target)).size], [16, 6]);
    rig.runTo(1549);
    assertEquals([rig.types(), rig.router.searches.length], [[], last]);
    rig.runTo(1550);
    assertEquals(rig.types(), ["failed"]);
  });

  it("a gateway that was named is taken by the last target, and as late as MX lets it answer", () => {
    const router = new ScriptedRouter({ answers: () => false });
    const rig = new Rig({ router, isNamed: true });
    rig.map();
    rig.runTo(1500);
    assertEquals(rig.types(), []);
    const [search] = rig.client.sockets();
    router.options = { answers: () => true };
    const data = encodeSearch({ host: GATEWAY, target: IGD_DEVICE.GATEWAY_2 });
    const [answer] = router.datagram({ type: "send", socket: "", to: GATEWAY, data });
    rig.do((client, now) => client.handleDatagram(answer!.data, answer!.from, search!.key, now));
    assertMapped(rig);
  });

  it("a gateway that was named is asked alone: no other device is taken for it", () => {
    const dead = new ScriptedRouter({ answers: () => false });
    const other = new ScriptedRouter({
      from: { address: "192.168.1.3", port: 1900 },
      location: `http://192.168.1.3:${PORT}/desc.xml`,
    });
    for (const isNamed of [false, true]) {
      const others = [{ address: "192.168.1.3", router: other }];
      const rig = new Rig({ router: dead, others, isNamed });
      rig.map();
      rig.runTo(5000);
      assertEquals(rig.take().map(({ type }) => type).includes("mapped"), !isNamed);
    }
    const rig = new Rig({
      router: new ScriptedRouter({ answers: (_, to) => to.address === GROUP }),
      isNamed: true,
    });
    rig.map();
    rig.runTo(5000);
    assertMapped(rig);
  });

  it("25 a device at another gateway of this host is that one's, also where it is the only one", () => {
    const router = new ScriptedRouter({ answers: () => false });
    const other = new ScriptedRouter({
      from: { address: "192.168.1.2", port: 1900 },
      location: `http://192.168.1.2:${PORT}/desc.xml`,
    });
    const gateways: string[] = [];
    const rig = new Rig({
      router,
      others: [{ address: "192.168.1.2", router: other }],
      isOtherGateway: (address) => gateways.includes(address),
    });
    rig.map();
    rig.runTo(5000);
    assertMapped(rig);
    // Now it is known to be another gateway: what was mapped there is no more this client's.
    gateways.push("192.168.1.2");
    other.asked.length = 0;
    rig.take();
    rig.runTo(120_000);
    assertEquals(other.asked, []);
    assertEquals(rig.types()[0], "lost");
  });

  it("26 firewalls that drop answers to multicast: unicast goes first", () => {
    const rig = met({ answers: (_, to) => to.address === ROUTER });
    assertMapped(rig);
    assertEquals(rig.router.searches[0]!.to.address, ROUTER);
  });

  it("27 hosts with several interfaces: the search leaves by the gateway's", () => {
    const rig = new Rig();
    rig.client.probe(0);
    assertEquals(rig.client.sockets()[0]!.local, { address: HOST, port: 0 });
  });

  it("28 an answer over IPv6 to a search over IPv4 is dropped, and counted", () => {
    const rig = met({ from: { address: "2001:db8::1", port: 1900 } });
    assertEquals(told(rig.take()[0], "failed").failure, { kind: "no-answer" });
    assert(rig.client.stats.dropped["off-link"] > 0);
  });
});

describe("descriptions and URLs", () => {
  const typed = (serviceType: string) => ({ ...SERVICES.ip1, serviceType });

  it("29 Huawei HG531: services of the DSL forum's are called by the name that they have", () => {
    const serviceType = "urn:dslforum-org:service:WANIPConnection:1";
    const rig = met({ device: gatewayDevice([typed(serviceType)]) });
    assertMapped(rig);
    assertEquals([...new Set(rig.router.calls.map(({ service }) => service))], [serviceType]);
  });

  it("30 an empty or a missing list of services is no gateway, and no harm", () => {
    for (const list of ["<serviceList/>", "<serviceList></serviceList>", ""]) {
      const description = described([]).replaceAll(/<serviceList>.*?<\/serviceList>/g, list);
      const failed = told(met({ description }).take()[0], "failed");
      assertEquals(failed.failure, { kind: "no-answer" });
    }
  });

  it("31 MikroTik CHR: of several connections the one that is up", () => {
    const down = { ...SERVICES.ip1, controlUrl: "/ctl/down" };
    const rig = new Rig({
      router: new ScriptedRouter({
        device: gatewayDevice([down, SERVICES.ip1]),
        acts: {
          GetStatusInfo: (_args, _now, _router, path) => ({
            NewConnectionStatus: path === "/ctl/ip" ? "Connected" : "Disconnected",
          }),
        },
      }),
    });
    rig.map();
    assertMapped(rig);
    assertEquals([...new Set(adds(rig).map(({ path }) => path))], ["/ctl/ip"]);
  });

  it("31 of connections that say nothing of their status the one with an address", () => {
    const rig = new Rig({
      router: new ScriptedRouter({
        device: gatewayDevice([{ ...SERVICES.ip1, controlUrl: "/ctl/down" }, SERVICES.ip1]),
        acts: {
          GetStatusInfo: () => 401,
          GetExternalIPAddress: (_args, _now, _router, path) =>
            path === "/ctl/ip"
              ? { NewExternalIPAddress: EXTERNAL }
              : { NewExternalIPAddress: "0.0.0.0" },
        },
      }),
    });
    rig.map();
    assertEquals(assertMapped(rig).external!.address, EXTERNAL);
    assertEquals(adds(rig)[0]!.path, "/ctl/ip");
  });

  it("31 of connections that say nothing of their status the default route first", () => {
    const other = { ...SERVICES.ip1, serviceId: "urn:upnp-org:serviceId:Other" };
    const rig = met({
      device: gatewayDevice([{ ...other, controlUrl: "/ctl/other" }, SERVICES.ip1]),
      acts: {
        GetStatusInfo: () => 401,
        GetDefaultConnectionService: () => ({
          NewDefaultConnectionService: `${UUID}:WANConnectionDevice:1,${SERVICES.ip1.serviceId}`,
        }),
      },
    });
    assertMapped(rig);
    assertEquals(adds(rig)[0]!.path, "/ctl/ip");
  });

  it("32 WANIP and WANPPP both: a type is never called at the other's URL", () => {
    const rig = new Rig({
      router: new ScriptedRouter({
        device: gatewayDevice([SERVICES.ip1, SERVICES.ppp]),
        acts: {
          GetStatusInfo: (_args, _now, _router, path) => ({
            NewConnectionStatus: path === "/ctl/ppp" ? "Connected" : "Unconfigured",
          }),
        },
      }),
    });
    rig.map();
    assertMapped(rig);
    for (const { service, path } of rig.router.calls) {
      assertEquals(path === "/ctl/ppp", service === IGD_SERVICE.WAN_PPP_1);
    }
    assertEquals(adds(rig)[0]!.path, "/ctl/ppp");
  });

  it("33 WANPPPConnection, and attributes on elements", () => {
    const description = described([SERVICES.ppp]).replaceAll(
      "<service>",
      '<service dt:x="1" id="a">',
    )
      .replaceAll("<controlURL>", '<controlURL xml:space="preserve">');
    assertMapped(met({ description }));
  });

  it("34 Pace PX5001: a service's own description, which may be missing, is not asked for", () => {
    const rig = met({});
    assertMapped(rig);
    assertEquals(rig.router.asked.filter((line) => line.startsWith("GET")), ["GET /desc.xml"]);
  });

  it("35 a control URL keeps its query", () => {
    const controlUrl = "/upnp/control?WANIPConnection";
    const rig = met({ device: gatewayDevice([{ ...SERVICES.ip1, controlUrl }]) });
    assertMapped(rig);
    assertEquals(rig.router.calls[0]!.path, controlUrl);
  });

  it("36 URLs relative to a base, to a base that leads elsewhere, without a slash, and long ones", () => {
    const long = `/${"x".repeat(1500)}`;
    for (
      const [urlBase, controlUrl, path] of [
        [`http://${ROUTER}:${PORT}/base/`, "ctl", "/base/ctl"],
        ["http://203.0.113.99/", "/ctl/ip", "/ctl/ip"],
        ["http://router.local/", "ctl", "/ctl"],
        ["", "ctl", "/ctl"],
        ["", `http://${ROUTER}:${PORT}/abs`, "/abs"],
        ["", long, long],
      ] as const
    ) {
      const rig = met({ urlBase, device: gatewayDevice([{ ...SERVICES.ip1, controlUrl }]) });
      assertMapped(rig);
      assertEquals(rig.router.calls[0]!.path, path);
    }
  });

  it("36 random URLs that a restarted router has no more are looked for anew", () => {
    const controlUrl = "/ctl/a1";
    const rig = met({ device: gatewayDevice([{ ...SERVICES.ip1, controlUrl }]) });
    rig.take();
    const old = rig.router.http.bind(rig.router);
    rig.router.http = (to, request, now) =>
      request.path === controlUrl ? plain(404) : old(to, request, now);
    rig.router.options = { device: gatewayDevice([{ ...SERVICES.ip1, controlUrl: "/ctl/b2" }]) };
    rig.runTo(3_700_000);
    assertEquals(rig.types(), ["renewed"]);
    assertEquals(rig.router.calls.at(-1)!.path, "/ctl/b2");
  });

  it("37 BT HomeHub 5: a UDN that is no UUID", () => {
    const description = described().replaceAll(UUID, "uuid:not a uuid at all");
    assertMapped(met({ description }));
  });

  it("38 Huawei: prefixes that nobody declares", () => {
    const description = described().replaceAll(
      /<(\/?)(service|serviceType|controlURL)>/g,
      "<$1m:$2>",
    );
    assertMapped(met({ description }));
  });

  it("39 CDATA, and a character set that is none", () => {
    const description = described().replace(/<controlURL>([^<]*ip)</, "<controlURL><![CDATA[$1]]><")
      .replace("?>", ' encoding="bogus-8"?>');
    const rig = met({ description });
    assertMapped(rig);
    assertEquals(rig.router.calls[0]!.path, "/ctl/ip");
  });

  it("41 a link-local LOCATION is asked by the zone of who announced it", () => {
    const router = new ScriptedRouter({
      from: { address: "fe80::1%eth0", port: 1900 },
      location: `http://[fe80::1]:${PORT}/desc.xml`,
      device: gatewayDevice([SERVICES.firewall]),
    });
    const rig = new Rig({
      router,
      gateway: { address: "fe80::1%eth0", port: 1900 },
      localAddress: "2001:db8::100",
      others: [{ address: "fe80::1%eth0", router }],
    });
    rig.map();
    assertMapped(rig);
    assertEquals(router.requests.map(({ to }) => to.address), [
      "fe80::1%eth0",
      "fe80::1%eth0",
    ]);
  });
});

describe("SOAP", () => {
  /** Refuses leases with a code, or with an answer that is no fault. */
  const noLeases = (how: number | HttpResult): Rig => {
    const rig: Rig = new Rig({
      router: new ScriptedRouter({
        acts: {
          AddPortMapping: (args, now, router) =>
            args["NewLeaseDuration"] === "0" ? router.AddPortMapping(args, now) : how,
        },
      }),
    });
    return rig;
  };
  const leases = (rig: Rig) => adds(rig).map(({ args }) => args["NewLeaseDuration"]);

  for (
    const [name, how] of [
      ["42 MikroTik: 725 to a lease", 725],
      ["42 a bare 500 to a lease", plain(500)],
      ["43 ARRIS NVG578LX: 402 to a lease", 402],
      ["43 501 to a lease", 501],
    ] as const
  ) {
    it(`${name}: one without end, which is renewed, and deleted at the end (1d #3)`, () => {
      const rig = noLeases(how);
      rig.map();
      assertEquals(assertMapped(rig).lifetimeSeconds, 0xffff_ffff);
      assertEquals(leases(rig), ["7200", "0"]);
      rig.runTo(10 * 3_600_000);
      assertEquals(leases(rig).slice(2), new Array(10).fill("0"));
      assertEquals([...new Set(rig.types())], ["renewed"]);
      rig.do((client, now) => client.close(now));
      assertEquals(rig.router.rows, []);
    });
  }

  it("42 a mapping without end that is wanted for a time is deleted when that is over", () => {
    const rig = noLeases(725);
    rig.map({ mode: 1, lifetimeSeconds: 600 });
    rig.runTo(599_000);
    assertEquals(rig.router.rows.length, 1);
    rig.runTo(601_000);
    assertEquals(rig.router.rows, []);
    assertEquals(rig.types(), ["external-address", "mapped", "unmapped"]);
  });

  it("44 a lease that the router cuts to a week is told as such, and renewed by that", () => {
    const rig = new Rig({
      router: new ScriptedRouter({
        acts: {
          AddPortMapping: (args, now, router) =>
            args["NewLeaseDuration"] === "0" ? 402 : router.AddPortMapping({
              ...args,
              NewLeaseDuration: String(Math.min(604_800, Number(args["NewLeaseDuration"]))),
            }, now),
        },
      }),
    });
    const id = rig.map({ lifetimeSeconds: 1_209_600 });
    assertEquals(rig.types(), ["external-address", "mapped", "renewed"]);
    assertEquals(rig.client.mapping(id)!.expiresAt, 604_800_000);
  });

  it("45 Technicolor: a day whatever is asked, or no lease shown: as was asked", () => {
    for (const shown of ["86400", "0"]) {
      const rig = new Rig({
        router: new ScriptedRouter({
          acts: {
            GetSpecificPortMappingEntry: (args, now, router) => {
              const entry = router.GetSpecificPortMappingEntry(args, now);
              return typeof entry === "number" ? entry : { ...entry, NewLeaseDuration: shown };
            },
          },
        }),
      });
      const id = rig.map();
      assertEquals(rig.types(), ["external-address", "mapped"]);
      assertEquals(rig.client.mapping(id)!.expiresAt, 7_200_000);
    }
  });

  it("46 Fritz!Box: a short lease that is raised is renewed as if it were not", () => {
    const rig = new Rig({
      router: new ScriptedRouter({
        acts: {
          AddPortMapping: (args, now, router) =>
            router.AddPortMapping({
              ...args,
              NewLeaseDuration: String(Math.max(120, Number(args["NewLeaseDuration"]))),
            }, now),
        },
      }),
    });
    rig.map({ lifetimeSeconds: 60 });
    rig.take();
    rig.runTo(31_000);
    assertEquals(rig.types(), ["renewed"]);
    // It is deleted also where the lease that was asked for is over.
    rig.router.isDead = true;
    rig.runTo(91_500);
    rig.router.isDead = false;
    rig.do((client, now) => client.close(now));
    rig.run(3000);
    assertEquals(rig.router.takeActions().at(-1), "DeletePortMapping");
    assertEquals(rig.router.rows, []);
  });

  it("46 Fritz!Box: a fault without a text", () => {
    const fault = text(encodeFault(718, "x").body).replace(/<faultstring>.*<\/faultstring>/, "")
      .replace(/<errorDescription>.*<\/errorDescription>/, "");
    const rig = met({ acts: { AddPortMapping: () => plain(500, fault) } }, {
      suggestedExternal: { port: 8080 },
      preferFailure: true,
      mode: "once",
    });
    const failed = told(rig.take().find(({ type }) => type === "failed"), "failed");
    assert(failed.failure.kind === "refused" && failed.failure.code === 718);
  });

  it("47 ZTE F670L: 718 to the renewal of what is ours: it is made anew", () => {
    const rig = new Rig({
      router: new ScriptedRouter({
        acts: {
          AddPortMapping: (args, now, router) =>
            router.find(args) ? 718 : router.AddPortMapping(args, now),
        },
      }),
    });
    rig.map();
    rig.take();
    rig.router.takeActions();
    rig.runTo(3_539_999);
    rig.router.takeActions();
    rig.runTo(3_600_001);
    assertEquals(rig.types(), ["renewed"]);
    assertEquals(rig.router.table(), [`TCP 8080->${HOST}:8080`]);
    assertEquals(rig.router.takeActions().slice(-5), [
      "GetSpecificPortMappingEntry",
      "AddPortMapping",
      "DeletePortMapping",
      "AddPortMapping",
      "GetSpecificPortMappingEntry",
    ]);
  });

  it("47 TP-Link W8951ND: 718 to the renewal, and 714 when one looks: another port", () => {
    const rig = met({});
    rig.take();
    rig.router.rows.length = 0;
    rig.router.options = {
      acts: {
        AddPortMapping: (args, now, router) =>
          args["NewExternalPort"] === "8080" ? 718 : router.AddPortMapping(args, now),
      },
    };
    rig.runTo(3_600_001);
    const moved = told(rig.take().find(({ type }) => type === "moved"), "moved");
    assert(moved.mapping.external!.port !== 8080);
  });

  for (const code of [718, 729, 501]) {
    it(`48 ${code} is answered by another port, ten times at most, or told where one insists`, () => {
      const rig = new Rig({
        router: new ScriptedRouter({
          acts: {
            AddPortMapping: (args, now, router) =>
              Number(args["NewExternalPort"]) <= 8090 ? code : router.AddPortMapping(args, now),
          },
        }),
      });
      rig.map({ suggestedExternal: { port: 8090 } });
      const { external } = assertMapped(rig);
      assert(external!.port > 8090);
      rig.map({
        internalPort: 8081,
        suggestedExternal: { port: 8081 },
        preferFailure: true,
        mode: "once",
      });
      const failed = told(rig.take()[0], "failed");
      assert(failed.failure.kind === "refused" && failed.failure.code === code);
      const full = met({ acts: { AddPortMapping: () => code } }, { mode: "once" });
      told(full.take().find(({ type }) => type === "failed"), "failed");
      assert(adds(full).length <= 12, `${adds(full).length} requests`);
    });
  }

  it("48 TomP2P's router: it says yes, and its table is full", () => {
    const rig = met({ acts: { AddPortMapping: () => ({}) } });
    const [, mapped, lost] = rig.take();
    told(mapped, "mapped");
    const { failure } = told(lost, "lost");
    assert(failure.kind === "refused" && failure.code === 714);
    assert(rig.router.calls.length < 20, "it is left alone for a while");
  });

  it("49 port 0 is never sent", () => {
    const rig = new Rig();
    rig.map({ suggestedExternal: { port: 0 } });
    rig.map({ internalPort: 8081 });
    rig.do((client, now) => client.unmap({ protocol: "tcp", internalPort: 8082 }, now));
    rig.do((client, now) => client.close(now));
    for (const { args } of rig.router.calls) {
      assert(args["NewExternalPort"] !== "0" && args["NewInternalPort"] !== "0");
    }
  });

  it("50 Orange FunBox 6: 724 gets the internal port, which is never another one than asked", () => {
    const rig = new Rig({
      router: new ScriptedRouter({
        acts: {
          AddPortMapping: (args, now, router) =>
            args["NewExternalPort"] === args["NewInternalPort"]
              ? router.AddPortMapping(args, now)
              : 724,
        },
      }),
    });
    rig.map({ suggestedExternal: { port: 18_080 } });
    assertEquals(assertMapped(rig).external!.port, 8080);
    assertEquals([...new Set(adds(rig).map(({ args }) => args["NewInternalPort"]))], ["8080"]);
    rig.map({
      internalPort: 8081,
      suggestedExternal: { port: 18_081 },
      preferFailure: true,
      mode: "once",
    });
    assertEquals(rig.types(), ["failed"]);
  });

  it("51 miniupnpd before 2.3.5: AddAnyPortMapping answers by another name", () => {
    const rig = new Rig({
      router: new ScriptedRouter({
        version: 2,
        acts: {
          AddAnyPortMapping(args, now, router) {
            const port = "9999";
            router.AddPortMapping({ ...args, NewExternalPort: port }, now);
            return { NewExternalPort: port };
          },
        },
      }),
    });
    rig.map();
    assertEquals(assertMapped(rig).external!.port, 9999);
  });

  it("51 AddAnyPortMapping that hangs, or that nobody has, is left for AddPortMapping", () => {
    for (const how of [undefined, 401, 602, plain(400)]) {
      const rig = met({ version: 2, acts: { AddAnyPortMapping: () => how } }, {}, 60_000);
      assertMapped(rig);
      assertEquals(rig.router.table(), [`TCP 8080->${HOST}:8080`]);
      rig.map({ internalPort: 8081 });
      const tries = rig.router.calls.filter(({ action }) => action === "AddAnyPortMapping");
      assertEquals(tries.length, 1);
    }
  });

  it("52, 53, 54, 55 requests are to the letter: no white space, types in quotes, header in order", () => {
    const rig = met({});
    for (
      const { request } of rig.router.requests.filter(({ request }) => request.method === "POST")
    ) {
      const body = text(request.body!);
      assert(
        body.startsWith(
          '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"',
        ),
      );
      assert(!/\s<|>\s|\n/.test(body), body);
      const [type, action] = request.headers;
      assertEquals(type, ["Content-Type", 'text/xml; charset="utf-8"']);
      assertEquals(action![0], "SOAPAction");
      assert(/^"urn:schemas-upnp-org:service:WANIPConnection:1#\w+"$/.test(action![1]));
    }
  });

  it("56 a result in a namespace that is none", () => {
    const body = "<s:Envelope xmlns:s='http://schemas.xmlsoap.org/soap/envelope/'><s:Body>" +
      "<u:DeletePortMappingResponse xmlns:u='DeletePortMapping'/></s:Body></s:Envelope>";
    const rig = met({ acts: { DeletePortMapping: () => plain(200, body) } });
    rig.take();
    rig.do((client, now) => client.close(now));
    assertEquals(told(rig.take()[0], "unmapped").failure, undefined);
  });

  it("57 quotes in a description are not written as entities, which some do not read", () => {
    const rig = met({}, { description: `"a" & 'b'` });
    const add = rig.router.requests.map(({ request }) => text(request.body ?? new Uint8Array(0)))
      .find((body) => body.includes("AddPortMapping"))!;
    assert(
      add.includes(`<NewPortMappingDescription>"a" &amp; 'b'</NewPortMappingDescription>`),
      add,
    );
  });

  it("58 ZTE F680: hangs up on who asks for a port below 1024: another one", () => {
    const rig = new Rig({
      router: new ScriptedRouter({
        acts: {
          AddPortMapping: (args, now, router) =>
            Number(args["NewExternalPort"]) < 1024
              ? { ok: false, reason: "failed" }
              : router.AddPortMapping(args, now),
        },
      }),
    });
    rig.map({ internalPort: 443, suggestedExternal: { port: 443 } });
    assert(assertMapped(rig).external!.port >= 1024);
  });

  it("58 who is asked for no more while the table is looked into is asked for no other port", () => {
    const rig = new Rig({
      router: new ScriptedRouter({
        acts: { AddPortMapping: () => ({ ok: false, reason: "failed" }) },
      }),
    });
    rig.holds = true;
    const id = rig.map({ internalPort: 443, suggestedExternal: { port: 443 } });
    const actions = () => rig.router.calls.map(({ action }) => action);
    while (!actions().includes("AddPortMapping")) rig.release(1);
    rig.release(1);
    assertEquals(actions().at(-1), "GetSpecificPortMappingEntry");
    rig.do((client, now) => client.revoke(id, now));
    while (rig.held.length > 0) rig.release(1);
    const ports = rig.router.calls.flatMap(({ args }) => args["NewExternalPort"] ?? []);
    assertEquals([...new Set(ports)], ["443"]);
  });

  it("59 miniupnpd's secure mode: requests are of the address that they map, and 606 is told", () => {
    const rig = met({ acts: { AddPortMapping: () => 606 } }, { mode: "once" });
    const failed = told(rig.take().find(({ type }) => type === "failed"), "failed");
    assertEquals(describeFailure(failed.failure), "ActionNotAuthorized");
    assertEquals(adds(rig).map(({ args }) => args["NewInternalClient"]), [HOST]);
  });

  for (
    const [name, answer] of [
      ["60 miniupnpd with a private WAN: no address", { NewExternalIPAddress: "" }],
      ["61 the address 0.0.0.0", { NewExternalIPAddress: "0.0.0.0" }],
      ["61 no address in the answer", {}],
    ] as const
  ) {
    it(`${name}: it is not connected`, () => {
      const rig = met({ acts: { GetExternalIPAddress: () => answer } }, { mode: "once" });
      const { failure } = told(rig.take()[0], "failed");
      assertEquals(describeFailure(failure), "not connected");
      assertEquals(adds(rig), []);
    });
  }

  for (
    const [code, name] of [[501, "ActionFailed"], [606, "ActionNotAuthorized"]] as const
  ) {
    it(`60 the address refused by ${code}: that is told, and nothing is made`, () => {
      const rig = met({ acts: { GetExternalIPAddress: () => code } }, { mode: "once" });
      const { failure } = told(rig.take()[0], "failed");
      assertEquals([failure.kind, "code" in failure && failure.code], ["refused", code]);
      assertEquals(describeFailure(failure), name);
      assertEquals(adds(rig), []);
    });

    it(`60 the address refused by ${code} later: what is held stays, also at another port`, () => {
      const rig = met({});
      rig.take();
      rig.router.options = { acts: { GetExternalIPAddress: () => code } };
      rig.run(3 * 3_600_000);
      rig.router.options = {
        ...rig.router.options,
        port: PORT + 1,
        location: `http://${ROUTER}:${PORT + 1}/desc.xml`,
      };
      rig.run(9 * 3_600_000);
      assertEquals([...new Set(rig.types())], ["renewed"]);
      assertEquals(rig.router.table(), [`TCP 8080->${HOST}:8080`]);
      rig.do((client, now) => client.probe(now));
      const { failure } = told(rig.take()[0], "external-address-failed");
      assertEquals(describeFailure(failure), name);
    });
  }

  it('61 a status of "Up" is up', () => {
    const rig = new Rig({
      router: new ScriptedRouter({
        device: gatewayDevice([SERVICES.ip1, SERVICES.ppp]),
        acts: {
          GetStatusInfo: (_args, _now, _router, path) => ({
            NewConnectionStatus: path === "/ctl/ppp" ? "Up" : "Down",
          }),
        },
      }),
    });
    rig.map();
    assertMapped(rig);
    assertEquals(adds(rig)[0]!.path, "/ctl/ppp");
  });

  it("62 a repeated AddPortMapping that extends nothing: deleted and made anew, once that shows", () => {
    const rig = new Rig({
      router: new ScriptedRouter({
        acts: {
          AddPortMapping: (args, now, router) =>
            router.find(args) ? {} : router.AddPortMapping(args, now),
        },
      }),
    });
    const id = rig.map();
    rig.take();
    for (let hour = 1; hour <= 12; hour++) {
      rig.runTo(hour * 3_600_000);
      assertEquals(rig.router.rows.length, 1, `hour ${hour}`);
    }
    assert(rig.router.rows[0]!.endsAt >= rig.client.mapping(id)!.expiresAt! - 1000);
    assertEquals([...new Set(rig.types())], ["renewed"]);
  });

  it("62 idle mappings that the router removes are there again within a minute or so (12, too)", () => {
    const rig = met({});
    rig.take();
    rig.router.rows.length = 0;
    rig.run(70_000);
    assertEquals(rig.types(), ["gateway-restarted", "renewed"]);
    assertEquals(rig.router.table(), [`TCP 8080->${HOST}:8080`]);
  });

  it("63 entries are counted off: GetListOfPortMappings has its own first port in each, and ends some", () => {
    const router = new ScriptedRouter({ version: 2 });
    router.occupy(22);
    router.occupy(53, "UDP");
    const rig = new Rig({ router });
    rig.do((client, now) => client.list(now));
    const events = rig.take();
    const { entries, isCut, failure } = told(events.at(-1), "table-told");
    assertEquals([failure, isCut], [undefined, false]);
    assertEquals(
      entries.map((entry) => [entry.protocol, entry.externalPort, entry.internalClient]),
      [["tcp", 22, NEIGHBOUR], ["udp", 53, NEIGHBOUR]],
    );
    const asked = router.calls.map(({ action }) => action).filter((name) =>
      /List|Generic/.test(name)
    );
    assertEquals(asked, Array(3).fill("GetGenericPortMappingEntry"));
  });

  it("64 nothing is said that a router could take for a client of its own kind", () => {
    const rig = met({});
    for (const { request } of rig.router.requests) {
      const names = request.headers.map(([name]) => name.toLowerCase());
      assert(!names.includes("user-agent") && !names.includes("host"), names.join());
    }
  });
});

describe("defects of others (1d)", () => {
  it("#5, #15 nobody answers: told when the search is over, and PCP is not held up", () => {
    const rig = met({ answers: () => false }, { mode: "once" }, 2400);
    assertEquals(rig.types(), ["failed"]);
  });

  it("#6 a first answer of something else leads on to the next", () => {
    const router = new ScriptedRouter({ answers: () => true });
    const television = plain(200, "<root><device><UDN>uuid:tv</UDN></device></root>");
    router.options = {
      answers: (_st, to) => {
        const name = router.searches.length === 1 ? "tv" : to.address;
        router.options = { ...router.options, location: `http://${ROUTER}:${PORT}/${name}` };
        return true;
      },
      get: (path) => path === "/tv" ? television : undefined,
    };
    const rig = new Rig({ router });
    rig.map();
    rig.runTo(3000);
    assertMapped(rig);
    assertEquals(router.asked[0], "GET /tv");
  });

  it("#12 a pinhole is asked of the firewall's own service", () => {
    const router = new ScriptedRouter({
      version: 2,
      from: { address: "2001:db8::1", port: 1900 },
      location: `http://[2001:db8::1]:${PORT}/desc.xml`,
      device: gatewayDevice([SERVICES.ip2, SERVICES.firewall], 2),
    });
    const rig = new Rig({
      router,
      gateway: { address: "fe80::1%eth0", port: 1900 },
      localAddress: "2001:db8::100",
      others: [{ address: "2001:db8::1", router }],
    });
    rig.map();
    assertEquals(router.calls.map(({ service, path, action }) => [service, path, action]), [
      [IGD_SERVICE.FIREWALL_1, "/ctl/fw", "AddPinhole"],
    ]);
  });

  it("#13 what is deleted is what was assigned: its external port and its protocol", () => {
    const router = new ScriptedRouter();
    router.occupy(8080);
    const rig = new Rig({ router });
    rig.map();
    const { external } = assertMapped(rig);
    rig.do((client, now) => client.close(now));
    const { args } = router.calls.find(({ action }) => action === "DeletePortMapping")!;
    assertEquals(Object.values(args), ["", String(external!.port), "TCP"]);
    assertEquals(router.table(), [`TCP 8080->${NEIGHBOUR}:8080`]);
  });

  it("#14 version 1 and version 2 are both taken", () => {
    for (const version of [1, 2] as const) assertMapped(met({ version }));
  });
});

it("a gateway at a port of its own is searched there", () => {
  const rig = new Rig({ gateway: { address: ROUTER, port: 5352 } });
  rig.do((client, now) => client.probe(now));
  assertEquals(rig.router.searches[0]!.to, { address: ROUTER, port: 5352 });
  assert(GATEWAY.port === 1900);
});
