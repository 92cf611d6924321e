import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import type { Action, Endpoint } from "../../../core/machine.ts";
import { parseCidr } from "../../../core/cidr.ts";
import type { ServerEvent, ServerRequest } from "../../../core/table/server_request.ts";
import { MappingTable } from "../../../core/table/table.ts";
import { seededRandom } from "../../../core/random.ts";
import { allServices, readDescription, readScpd } from "../../../core/upnp/description.ts";
import { encodeResubscribe, encodeSubscribe } from "../../../core/upnp/gena.ts";
import { headerValue } from "../../../core/upnp/header.ts";
import { IGD_DEVICE, IGD_SERVICE } from "../../../core/upnp/igd.ts";
import { IgdServer, type IgdServerOptions } from "../../../core/upnp/server.ts";
import { encodeCall, type SoapArguments } from "../../../core/upnp/soap.ts";
import { encodeSearch } from "../../../core/upnp/ssdp.ts";
import { ALICE, BOB, EXTERNAL, IgdRig, mapping, named, OWN, SSDP } from "./igd_rig.ts";

const V1 = { upnp: { version: 1 } } as const;

describe("IgdServer: description", () => {
  it("has the devices of IGD:2 in each other, each with its services and a UUID of its own", () => {
    const rig = new IgdRig();
    const { device } = rig.describe();
    const [wan] = device.devices, [connection] = wan!.devices;
    assertEquals(
      [device, wan!, connection!].map(({ deviceType, services }) => [
        deviceType,
        services.map(({ serviceType, serviceId }) => [serviceType, serviceId]),
      ]),
      [
        [IGD_DEVICE.GATEWAY_2, [[
          IGD_SERVICE.FORWARDING_1,
          "urn:upnp-org:serviceId:L3Forwarding1",
        ]]],
        [IGD_DEVICE.WAN_2, [[IGD_SERVICE.COMMON_1, "urn:upnp-org:serviceId:WANCommonIFC1"]]],
        [IGD_DEVICE.CONNECTION_2, [
          [IGD_SERVICE.WAN_IP_2, "urn:upnp-org:serviceId:WANIPConn1"],
          [IGD_SERVICE.FIREWALL_1, "urn:upnp-org:serviceId:WANIPv6Firewall1"],
        ]],
      ],
    );
    assertEquals([device.friendlyName, device.manufacturer, device.modelName], [
      "Simulated gateway",
      "natkit",
      "Simulated gateway",
    ]);
    assertEquals(new Set([device, wan, connection].map((one) => one!.udn)).size, 3);
    assert(/^uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(device.udn));
    assertEquals([device, wan, connection].map((one) => one?.presentationUrl), [
      `http://${OWN}:5000/`,
      undefined,
      undefined,
    ]);
  });

  it("is IGD:1 where that is asked for, without a firewall", () => {
    const services = new IgdRig(V1).services().map(({ serviceType }) => serviceType);
    assertEquals(services, [
      IGD_SERVICE.FORWARDING_1,
      IGD_SERVICE.COMMON_1,
      IGD_SERVICE.WAN_IP_1,
    ]);
  });

  it("describes each service at its URL, with the arguments in their order", () => {
    const rig = new IgdRig();
    for (const { scpdUrl, serviceType } of rig.services()) {
      const scpd = readScpd(rig.get(scpdUrl)!.body);
      if (typeof scpd === "string") throw new Error(`${serviceType}: ${scpd}`);
      if (serviceType !== IGD_SERVICE.WAN_IP_2) continue;
      const add = scpd.actions.find(({ name }) => name === "AddPortMapping");
      assertEquals(add?.arguments.map(({ name }) => name), Object.keys(mapping(1)));
      assert(scpd.actions.some(({ name }) => name === "AddAnyPortMapping"));
    }
    const old = readScpd(new IgdRig(V1).get("/scpd/IPConn1")!.body);
    assert(
      typeof old === "object" && !old.actions.some(({ name }) => name === "AddAnyPortMapping"),
    );
  });

  it("has other URLs after each boot where it is peculiar so, all of them, and answers there alone", () => {
    const rig = new IgdRig({ upnp: { habits: { hasRandomPaths: true } } });
    const urls = () => {
      const { location } = rig.search("upnp:rootdevice")[0]!.message;
      const read = readDescription(rig.get(new URL(location!).pathname)!.body);
      if (typeof read === "string") throw new Error(read);
      const services = allServices(read.device);
      return services.map(({ controlUrl, eventUrl, scpdUrl }) => [controlUrl, eventUrl, scpdUrl]);
    };
    const status = (method: string, path: string) =>
      rig.ask({ method, path, headers: [] }).responses[0]!.response.status;
    // 405: there is such a URL, and it does something else.
    const answers = ([control, event, scpd]: readonly string[]) => [
      status("GET", control!),
      status("GET", event!),
      status("GET", scpd!),
    ];
    const first = urls();
    assertEquals(first.map(answers), first.map(() => [405, 405, 200]));
    rig.command("reboot");
    rig.openSockets();
    const second = urls();
    assertEquals(second.map(answers), first.map(() => [405, 405, 200]));
    assertEquals(first.map(answers), first.map(() => [404, 404, 404]));
  });

  it("404 for what is not there, 405 for what a URL does not do", () => {
    const rig = new IgdRig();
    const ask = (method: string, path: string) =>
      rig.ask({ method, path, headers: [] }).responses[0]?.response.status;
    assertEquals(
      [ask("GET", "/none"), ask("GET", "/scpd/Nothing"), ask("GET", "/ctl/IPConn1")],
      [404, 404, 405],
    );
    assertEquals([ask("DELETE", "/scpd/IPConn1"), ask("POST", "/evt/IPConn1")], [405, 405]);
    assertEquals([ask("SUBSCRIBE", "/ctl/IPConn1"), ask("GET", "/evt/IPConn1")], [405, 405]);
    assertEquals(
      new TextDecoder().decode(rig.get("/")?.body),
      "Simulated gateway: 0 port mappings, external address 203.0.113.7\n",
    );
    const head = rig.ask({ method: "HEAD", path: "/rootDesc.xml", headers: [] }).responses[0];
    assertEquals([head?.response.status, head?.response.body.length], [200, 0]);
    // RFC 7230 §3.3.2: the length is what GET would get.
    const { length } = rig.get("/rootDesc.xml")!.body;
    assertEquals(headerValue(head!.response.headers, "Content-Length"), `${length}`);
  });

  it("takes a target with scheme and host, as every server has to (RFC 7230 §5.3.2)", () => {
    const rig = new IgdRig();
    const host = `http://${OWN}:5000`;
    const statuses = [`${host}/rootDesc.xml`, `HTTP://${OWN}/scpd/IPConn1`, host, `${host}/none`]
      .map((path) => rig.get(path)?.status);
    assertEquals(statuses, [200, 200, 200, 404]);
    const path = `${host}/ctl/IPConn1`;
    assertEquals(rig.call("AddPortMapping", mapping(5000), ALICE, IGD_SERVICE.WAN_IP_2, path), {});
  });

  it("answers neither the outside nor a name that leads here (DNS rebinding)", () => {
    const rig = new IgdRig();
    const outside = { address: "198.51.100.1", port: 1000 };
    assertEquals(rig.get("/rootDesc.xml", outside)?.status, 403);
    assertEquals(rig.get("/rootDesc.xml", { address: EXTERNAL, port: 1 })?.status, 403);
    assertEquals(rig.get("/rootDesc.xml", ALICE, [["Host", "evil.example:5000"]])?.status, 400);
    assertEquals(rig.get("/rootDesc.xml", ALICE, [])?.status, 400);
    const two = [["Host", OWN], ["host", "evil.example"]] as const;
    assertEquals(rig.get("/rootDesc.xml", ALICE, two)?.status, 400);
    assertEquals(rig.get("/rootDesc.xml", ALICE, [["HOST", OWN]])?.status, 200);
    const all = new IgdRig({ internalPrefixes: ["0.0.0.0/0"] });
    assertEquals(all.get("/rootDesc.xml", { address: EXTERNAL, port: 1 })?.status, 403);
    assertEquals(all.get("/rootDesc.xml", outside)?.status, 200);
    const { dropped } = rig.gateway.stats.upnp!;
    assertEquals(dropped, { outside: 2, "no-host": 3, policy: 0 });
  });

  it("refuses options that cannot be", () => {
    const table = new MappingTable({ externalAddresses: [EXTERNAL] });
    const random = seededRandom(1), interfaces = [{ address: OWN }];
    assertThrows(() => new IgdServer({ table, random, interfaces: [] }), TypeError, "interfaces");
    assertThrows(() => new IgdServer({ table, random, interfaces: [{ address: "x" }] }), TypeError);
    assertThrows(
      () => new IgdServer({ table, random, interfaces: [{ address: OWN, prefixLength: 33 }] }),
      RangeError,
      "interfaces[0].prefixLength",
    );
    const make = (more: Partial<IgdServerOptions>) =>
      new IgdServer({ table, random, interfaces, ...more });
    const bounds = [
      ["ssdpPort", 0, 65_535],
      ["httpPort", 0, 65_535],
      ["maxAgeSeconds", 60, 86_400],
      ["maxLeaseSeconds", 1, 2 ** 32 - 1],
    ] as const;
    for (const [name, least, most] of bounds) {
      for (const value of [least, most]) make({ [name]: value });
      for (const value of [least - 1, most + 1]) {
        assertThrows(() => make({ [name]: value }), RangeError, `'${name}'`);
      }
    }
    for (const [address, most] of [[OWN, 32], ["2001:db8::1", 128]] as const) {
      for (const prefixLength of [0, most]) make({ interfaces: [{ address, prefixLength }] });
      for (const prefixLength of [-1, most + 1]) {
        assertThrows(() => make({ interfaces: [{ address, prefixLength }] }), RangeError);
      }
    }
    assertThrows(() => make({ pinholes: "open" as "off" }), TypeError, "'pinholes'");
    assertThrows(
      () => new IgdServer({ table, random, interfaces, version: 3 as 2 }),
      RangeError,
      "'version' must be an integer in 1..2: current value is 3",
    );
    assertThrows(
      () => new IgdServer({ table: {} as MappingTable, random, interfaces }),
      TypeError,
      "'table'",
    );
  });
});

describe("IgdServer: calls", () => {
  it("401 for what the service, the URL or the version does not have", () => {
    const rig = new IgdRig();
    assertEquals(rig.call("Nonsense"), 401);
    assertEquals(rig.call("constructor"), 401);
    assertEquals(rig.call("AddPinhole", {}), 401);
    assertEquals(rig.call("GetExternalIPAddress", {}, ALICE, IGD_SERVICE.WAN_PPP_1), 401);
    assertEquals(
      rig.call("GetExternalIPAddress", {}, ALICE, IGD_SERVICE.WAN_IP_2, "/ctl/L3F"),
      401,
    );
    // A version 2 service is called as version 1, too, and is one then.
    assertEquals(rig.call("GetExternalIPAddress", {}, ALICE, IGD_SERVICE.WAN_IP_1), {
      NewExternalIPAddress: EXTERNAL,
    });
    assertEquals(rig.call("AddAnyPortMapping", mapping(80), ALICE, IGD_SERVICE.WAN_IP_1), 401);
    const old = new IgdRig(V1);
    assertEquals(old.call("GetExternalIPAddress"), 401);
  });

  it("402 where an argument is missing or is none", () => {
    const rig = new IgdRig();
    for (const name of Object.keys(mapping(80))) {
      const { [name]: _, ...rest } = mapping(80);
      assertEquals(rig.call("AddPortMapping", rest), 402, name);
    }
    const bad = (more: Parameters<typeof mapping>[1]) => rig.add(80, more);
    assertEquals(
      [
        bad({ protocol: "SCTP" }),
        bad({ internalPort: "x" }),
        bad({ internalPort: -1 }),
        bad({ client: "example.org" }),
        bad({ client: "2001:db8::1" }),
        bad({ remote: "host" }),
        bad({ enabled: "maybe" }),
        bad({ lease: "" }),
        bad({ lease: 2 ** 32 }),
      ],
      Array(9).fill(402),
    );
    assertEquals(rig.add(80, { internalPort: 65_536 }), 601);
    assertEquals(rig.table(), []);
  });

  it("400 for what is no SOAP, 401 without an action", () => {
    const rig = new IgdRig();
    const request = encodeCall(
      { service: IGD_SERVICE.WAN_IP_2, action: "GetExternalIPAddress", args: {} },
      "/ctl/IPConn1",
    );
    const status = (more: object) => rig.ask({ ...request, ...more }).responses[0]?.response.status;
    assertEquals(status({ body: new Uint8Array([1, 2, 3]) }), 400);
    assertEquals(status({ headers: [] }), 500);
    assertEquals(status({ method: "M-POST" }), 200);
    assertEquals(rig.gateway.stats.upnp?.requests.actions, 3);
  });

  it("says nothing back that a client put into SOAPAction", () => {
    const rig = new IgdRig();
    for (const prefix of ["a<b", '"', "ü\u0000", "#", "&", " "]) {
      const call = encodeCall(
        { service: IGD_SERVICE.WAN_IP_1, action: "GetExternalIPAddress", args: {} },
        "/ctl/IPConn1",
      );
      const field = [
        "SOAPAction",
        `"${prefix}:service:WANIPConnection:1#GetExternalIPAddress"`,
      ] as const;
      const headers = [...call.headers.filter(([name]) => name !== "SOAPAction"), field];
      const [answer] = rig.ask({ ...call, headers }).responses;
      assert(
        !new TextDecoder().decode(answer!.response.body).includes(`${prefix}:service:`),
        prefix,
      );
    }
  });

  it("tells address, status, type, line and default connection", () => {
    const rig = new IgdRig();
    rig.now = 90_500;
    assertEquals(rig.call("GetStatusInfo"), {
      NewConnectionStatus: "Connected",
      NewLastConnectionError: "ERROR_NONE",
      NewUptime: "90",
    });
    assertEquals(rig.call("GetConnectionTypeInfo"), {
      NewConnectionType: "IP_Routed",
      NewPossibleConnectionTypes: "IP_Routed",
    });
    assertEquals(rig.call("GetNATRSIPStatus"), { NewRSIPAvailable: "0", NewNATEnabled: "1" });
    const line = rig.call(
      "GetCommonLinkProperties",
      {},
      ALICE,
      IGD_SERVICE.COMMON_1,
      "/ctl/CmnIfCfg",
    );
    assertEquals((line as Record<string, string>)["NewPhysicalLinkStatus"], "Up");
    const forwarding = rig.call(
      "GetDefaultConnectionService",
      {},
      ALICE,
      IGD_SERVICE.FORWARDING_1,
      "/ctl/L3F",
    );
    assert(/:WANConnectionDevice:1,urn:upnp-org:serviceId:WANIPConn1$/.test(
      (forwarding as Record<string, string>)["NewDefaultConnectionService"]!,
    ));
    rig.command("reboot");
    rig.now += 5000;
    assertEquals((rig.call("GetStatusInfo") as SoapArguments)["NewUptime"], "5");
    rig.command("external none");
    assertEquals(rig.call("GetExternalIPAddress"), { NewExternalIPAddress: "" });
    assertEquals(
      (rig.call("GetStatusInfo") as Record<string, string>)["NewConnectionStatus"],
      "Disconnected",
    );
    assertEquals(rig.add(80), 501);
  });

  it("tells of its line what a router has to say, traffic that it does not count as none", () => {
    const rig = new IgdRig();
    const line = (action: string) =>
      rig.call(action, {}, ALICE, IGD_SERVICE.COMMON_1, "/ctl/CmnIfCfg");
    const common = {
      NewWANAccessType: "Ethernet",
      NewLayer1UpstreamMaxBitRate: "100000000",
      NewLayer1DownstreamMaxBitRate: "100000000",
    };
    assertEquals(line("GetCommonLinkProperties"), { ...common, NewPhysicalLinkStatus: "Up" });
    for (const unit of ["Bytes", "Packets"]) {
      for (const way of ["Sent", "Received"]) {
        assertEquals(line(`GetTotal${unit}${way}`), { [`NewTotal${unit}${way}`]: "0" });
      }
    }
    rig.command("external none");
    assertEquals(line("GetCommonLinkProperties"), { ...common, NewPhysicalLinkStatus: "Down" });
    const ppp = new IgdRig({
      upnp: { version: 1, connections: [{ service: IGD_SERVICE.WAN_PPP_1 }] },
    });
    const rates = ppp.call(
      "GetLinkLayerMaxBitRates",
      {},
      ALICE,
      IGD_SERVICE.WAN_PPP_1,
      "/ctl/PPPConn1",
    );
    assertEquals(rates, {
      NewUpstreamMaxBitRate: "100000000",
      NewDownstreamMaxBitRate: "100000000",
    });
  });

  it("tells a client the address that it is mapped to, and of a connection that is not up none", () => {
    const seen = (more: object, from: Endpoint = ALICE) => {
      const rig = new IgdRig({ externalAddresses: [EXTERNAL, "203.0.113.8"], upnp: more });
      const answer = rig.call("GetExternalIPAddress", {}, from) as SoapArguments;
      return answer["NewExternalIPAddress"];
    };
    const of = (connection: object) => seen({ connections: [connection] });
    assertEquals(
      [
        of({}),
        of({ status: "Connected" }),
        of({ status: "Up" }),
        of({ status: "Connecting" }),
        of({ address: "198.51.100.1", status: "Connecting" }),
        of({ address: "" }),
      ],
      [EXTERNAL, EXTERNAL, EXTERNAL, "0.0.0.0", "198.51.100.1", ""],
    );
    const interfaces = [{ address: "2001:db8::1", prefixLength: 64 }];
    assertEquals(seen({ interfaces }, { address: "2001:db8::2", port: 1 }), EXTERNAL);
  });

  it("tells the policy what each call is about", () => {
    const asked: ServerRequest[] = [];
    const rig = new IgdRig({ decide: (request) => void asked.push(request) });
    const about = (action: string, args: SoapArguments, ...more: [string, string] | []) => {
      rig.call(action, args, ALICE, ...more);
      return asked.at(-1);
    };
    const whole = {
      via: "upnp",
      from: ALICE,
      protocol: 0,
      internal: { address: ALICE.address, port: 0 },
      suggested: { address: "0.0.0.0", port: 0 },
      remote: undefined,
      lifetimeSeconds: 0,
      nonce: undefined,
      existing: undefined,
    } as const;
    const wish = mapping(8080, { protocol: "udp", internalPort: 80, lease: 60 });
    const mapped = {
      ...whole,
      operation: "map",
      protocol: 17,
      internal: { address: ALICE.address, port: 80 },
      suggested: { address: "0.0.0.0", port: 8080 },
      lifetimeSeconds: 60,
    } as const;
    assertEquals(about("AddPortMapping", wish), { ...mapped, action: "AddPortMapping" });
    const [existing] = rig.gateway.list(rig.now);
    const again = about("AddAnyPortMapping", { ...wish, NewInternalClient: "" });
    assertEquals(again?.existing?.id, existing?.id);
    assertEquals({ ...again, existing: undefined } as unknown, {
      ...mapped,
      action: "AddAnyPortMapping",
    });
    const foreign = about("AddPortMapping", { ...wish, NewInternalClient: BOB.address });
    assertEquals(foreign?.internal.address, BOB.address);
    assertEquals(about("AddPortMapping", { ...wish, NewLeaseDuration: "x" })?.lifetimeSeconds, 0);
    const deleted = about("DeletePortMapping", named(8080, "UDP"));
    assertEquals([deleted?.operation, deleted?.existing?.id, deleted?.suggested.port], [
      "delete",
      existing?.id,
      8080,
    ]);
    const range = {
      NewStartPort: "1",
      NewEndPort: "2",
      NewProtocol: "TCP",
      NewManage: "0",
    };
    const others: [SoapArguments, ServerRequest["operation"], Partial<ServerRequest>][] = [
      [{}, "address", {}],
      [{}, "read", {}],
      [range, "delete-all", { protocol: 6 }],
    ];
    const actions = ["GetExternalIPAddress", "GetStatusInfo", "DeletePortMappingRange"];
    for (const [i, [args, operation, more]] of others.entries()) {
      const action = actions[i]!;
      assertEquals(about(action, args), { ...whole, ...more, action, operation });
    }
    const firewall: [string, string] = [IGD_SERVICE.FIREWALL_1, "/ctl/IP6FC"];
    const hole = {
      RemoteHost: "",
      RemotePort: "0",
      InternalClient: "2001:db8::2",
      InternalPort: "9000",
      Protocol: "6",
      LeaseTime: "600",
    };
    const opened = about("AddPinhole", hole, ...firewall);
    assertEquals([opened?.operation, opened?.internal, opened?.lifetimeSeconds], [
      "map",
      { address: "2001:db8::2", port: 9000 },
      600,
    ]);
    const longer = about("UpdatePinhole", { UniqueID: "1", NewLeaseTime: "60" }, ...firewall);
    assertEquals([longer?.operation, longer?.lifetimeSeconds], ["map", 60]);
    assertEquals(about("DeletePinhole", { UniqueID: "1" }, ...firewall)?.operation, "delete");
  });

  it("the default connection is the first that is up, by its kind", () => {
    const ppp = { service: IGD_SERVICE.WAN_PPP_1 };
    const seen = (connections: IgdServerOptions["connections"]) => {
      const rig = new IgdRig({ upnp: { connections: connections! } });
      const path = ["/ctl/L3F", IGD_SERVICE.FORWARDING_1] as const;
      const answer = rig.call("GetDefaultConnectionService", {}, ALICE, path[1], path[0]);
      return (answer as SoapArguments)["NewDefaultConnectionService"]!.split(":").at(-1);
    };
    assertEquals(
      [
        seen([{}]),
        seen([ppp]),
        seen([{ ...ppp, status: "Unconfigured" }, {}]),
        seen([{ status: "Disconnected" }, ppp]),
        seen([{ ...ppp, status: "Disconnected" }]),
      ],
      ["WANIPConn1", "WANPPPConn1", "WANIPConn1", "WANPPPConn1", "WANPPPConn1"],
    );
  });

  it("counts what it is asked and how that ends", () => {
    const { upnp } = new IgdRig().gateway.stats;
    assertEquals([upnp?.requests, upnp?.results, upnp?.events], [
      { descriptions: 0, actions: 0, subscriptions: 0, unknown: 0 },
      { done: 0, faults: 0 },
      {
        subscribed: 0,
        renewed: 0,
        unsubscribed: 0,
        refused: 0,
        expired: 0,
        events: 0,
        failed: 0,
      },
    ]);
    const rig = new IgdRig();
    rig.get("/rootDesc.xml");
    rig.get("/scpd/L3F");
    rig.get("/none");
    rig.add(80);
    rig.call("Nonsense");
    rig.add(0);
    rig.ask(encodeSubscribe("/evt/L3F", "http://192.168.1.7/"));
    const after = rig.gateway.stats.upnp!;
    assertEquals([after.requests, after.results], [
      { descriptions: 2, actions: 3, subscriptions: 1, unknown: 1 },
      { done: 1, faults: 2 },
    ]);
    const { ssdp } = new IgdRig().gateway.stats.upnp!;
    assertEquals(ssdp, { searches: 0, answers: 0, announcements: 11, ignored: 0, overflowed: 0 });
  });

  it("lets nobody change or end the connection", () => {
    const rig = new IgdRig();
    assertEquals(rig.call("ForceTermination"), 606);
    assertEquals(rig.call("RequestConnection"), 606);
    assertEquals(rig.call("SetConnectionType", { NewConnectionType: "IP_Bridged" }), 606);
    const set = { NewDefaultConnectionService: "x" };
    assertEquals(
      rig.call("SetDefaultConnectionService", set, ALICE, IGD_SERVICE.FORWARDING_1, "/ctl/L3F"),
      606,
    );
  });
});

describe("IgdServer: mappings", () => {
  it("maps, shows, lists and deletes", () => {
    const rig = new IgdRig();
    assertEquals(rig.add(8080, { internalPort: 80, description: 'a<b>&"c"' }), {});
    assertEquals(rig.table(), ["8080/6→192.168.1.100:80"]);
    rig.now = 1500;
    const shown = {
      NewInternalPort: "80",
      NewInternalClient: ALICE.address,
      NewEnabled: "1",
      NewPortMappingDescription: 'a<b>&"c"',
      NewLeaseDuration: "3599",
    };
    assertEquals(rig.call("GetSpecificPortMappingEntry", named(8080)), shown);
    assertEquals(rig.call("GetGenericPortMappingEntry", { NewPortMappingIndex: "0" }), {
      ...named(8080),
      ...shown,
    });
    assertEquals(rig.call("GetGenericPortMappingEntry", { NewPortMappingIndex: "1" }), 713);
    assertEquals(rig.call("GetSpecificPortMappingEntry", named(8080, "UDP")), 714);
    assertEquals(rig.call("DeletePortMapping", named(8080, "UDP")), 714);
    assertEquals(rig.call("DeletePortMapping", named(8080)), {});
    assertEquals(rig.call("DeletePortMapping", named(8080)), 714);
    assertEquals(rig.table(), []);
  });

  it("keeps a description of 255 characters whole, and cuts what is longer there", () => {
    const rig = new IgdRig();
    const text = `${"x".repeat(254)}yz`;
    for (const [length, kept] of [[254, 254], [255, 255], [256, 255]] as const) {
      rig.add(8080, { description: text.slice(0, length) });
      const shown = rig.call("GetSpecificPortMappingEntry", named(8080)) as SoapArguments;
      assertEquals(shown["NewPortMappingDescription"], text.slice(0, kept));
    }
  });

  it("716 for external port 0, 732 (version 1: 402) for internal port 0", () => {
    const rig = new IgdRig();
    assertEquals(rig.add(0, { internalPort: 80 }), 716);
    assertEquals(rig.add(80, { internalPort: 0 }), 732);
    assertEquals(
      rig.call("AddPortMapping", mapping(80, { internalPort: 0 }), ALICE, IGD_SERVICE.WAN_IP_1),
      402,
    );
    assertEquals(rig.call("GetSpecificPortMappingEntry", named(0)), 716);
    assertEquals(rig.call("DeletePortMapping", named(65_536)), 601);
    assertEquals(rig.add(65_536), 601);
    for (const NewPortMappingIndex of ["x", "-1", "4294967296"]) {
      assertEquals(rig.call("GetGenericPortMappingEntry", { NewPortMappingIndex }), 402);
    }
    const last = { NewPortMappingIndex: "4294967295" };
    assertEquals(rig.call("GetGenericPortMappingEntry", last), 713);
    for (
      const bad of [
        { NewProtocol: "any" },
        { NewExternalPort: "x" },
        { NewRemoteHost: "host" },
      ]
    ) {
      const args = { ...named(80), ...bad } as SoapArguments;
      assertEquals(rig.call("GetSpecificPortMappingEntry", args), 402);
    }
  });

  it("maps, shows and deletes the first port and the last", () => {
    const rig = new IgdRig();
    for (const port of [1, 65_535]) {
      assertEquals(rig.add(port), {});
      assertEquals(typeof rig.call("GetSpecificPortMappingEntry", named(port)), "object");
      assertEquals(rig.call("DeletePortMapping", named(port)), {});
    }
    assertEquals(rig.add(80, { internalPort: 65_535 }), {});
  });

  it("gives no other port than the one asked for", () => {
    const rig = new IgdRig({ protocols: ["nat-pmp", "upnp"] });
    // NAT-PMP keeps the companion's port for Bob.
    const map = Uint8Array.of(0, 1, 0, 0, 0, 90, 0, 90, 0, 0, 0, 200);
    rig.gateway.handleDatagram(map, BOB, "server", 0);
    rig.drain();
    assertEquals(rig.add(90), 718);
    assertEquals(rig.table().length, 1);
    const { NewReservedPort: other } = rig.call("AddAnyPortMapping", mapping(90)) as SoapArguments;
    assert(other !== "90");
  });

  it("501 for a mapping that is to do nothing (RFC 6970 §5.3)", () => {
    const rig = new IgdRig();
    assertEquals(rig.add(80, { enabled: "0" }), 501);
    assertEquals(rig.table(), []);
    assertEquals(rig.add(80, { enabled: "true" }), {});
  });

  it("renews by adding again, and moves the port to another inside of the same host", () => {
    const rig = new IgdRig();
    rig.add(80, { lease: 100 });
    rig.now = 90_000;
    assertEquals(rig.add(80, { lease: 100, description: "again" }), {});
    rig.runTo(189_999);
    assertEquals(rig.table().length, 1);
    const entry = rig.call("GetSpecificPortMappingEntry", named(80)) as Record<string, string>;
    assertEquals(
      [entry["NewPortMappingDescription"], entry["NewLeaseDuration"]],
      ["again", "1"],
    );
    assertEquals(rig.add(80, { internalPort: 81 }), {});
    assertEquals(rig.table(), ["80/6→192.168.1.100:81"]);
    rig.runTo(10_000_000);
    assertEquals(rig.table(), []);
  });

  it("718 where another host has the port, whose mapping stays; the port is free once it is deleted", () => {
    const rig = new IgdRig();
    rig.add(80);
    assertEquals(rig.add(80, {}, BOB), 718);
    assertEquals(rig.table(), ["80/6→192.168.1.100:80"]);
    assertEquals(rig.call("DeletePortMapping", named(80), BOB), 606);
    assertEquals(rig.call("DeletePortMapping", named(80)), {});
    assertEquals(rig.add(80, {}, BOB), {});
  });

  it("maps several external ports to one inside", () => {
    const rig = new IgdRig();
    assertEquals([rig.add(80), rig.add(81, { internalPort: 80 })], [{}, {}]);
    assertEquals(rig.table(), ["80/6→192.168.1.100:80", "81/6→192.168.1.100:80"]);
    assertEquals(rig.call("DeletePortMapping", named(80)), {});
    assertEquals(rig.table(), ["81/6→192.168.1.100:80"]);
  });

  it("maps for the host itself alone: 606, in version 1 718; for others where it is not secure", () => {
    const foreign = { client: BOB.address };
    assertEquals(new IgdRig().add(80, foreign), 606);
    const service = IGD_SERVICE.WAN_IP_1;
    assertEquals(new IgdRig(V1).call("AddPortMapping", mapping(80, foreign), ALICE, service), 718);
    const open = new IgdRig({ upnp: { isSecure: false } });
    assertEquals(open.add(80, foreign), {});
    assertEquals(open.call("DeletePortMapping", named(80)), {});
    // Without a client it is the one that asks.
    assertEquals(new IgdRig().add(80, { client: "" }), {});
  });

  it("grants leases of up to a week, where 0 means a week; in version 1 any, where 0 means for good", () => {
    const lease = (rig: IgdRig, service: string, seconds: number) => {
      rig.call("AddPortMapping", mapping(80, { lease: seconds }), ALICE, service);
      const entry = rig.call("GetSpecificPortMappingEntry", named(80), ALICE, service);
      return (entry as Record<string, string>)["NewLeaseDuration"];
    };
    const two = new IgdRig(), one = new IgdRig(V1);
    assertEquals(
      [1, 604_800, 604_801, 0].map((s) => lease(two, IGD_SERVICE.WAN_IP_2, s)),
      ["1", "604800", "604800", "604800"],
    );
    assertEquals(
      [1, 4_294_967_295, 0].map((s) => lease(one, IGD_SERVICE.WAN_IP_1, s)),
      ["1", "4294967295", "0"],
    );
    one.runTo(1e8);
    assertEquals(one.table().length, 1);
    const short = new IgdRig({ maxLifetimeSeconds: 60 });
    assertEquals(lease(short, IGD_SERVICE.WAN_IP_2, 3600), "60");
  });

  it("gives leases without an end alone, or none of those, where it is peculiar so", () => {
    const seen = (leases: "permanent" | "limited", leaseFault?: number) => {
      const habits = { leases, ...(leaseFault !== undefined && { leaseFault }) };
      const rig = new IgdRig({ upnp: { version: 1, habits } });
      const add = (lease: number) =>
        rig.call("AddPortMapping", mapping(80, { lease }), ALICE, IGD_SERVICE.WAN_IP_1);
      return [add(1), add(0)];
    };
    assertEquals([seen("permanent"), seen("permanent", 501)], [[725, {}], [501, {}]]);
    assertEquals([seen("limited"), seen("limited", 501)], [[{}, 402], [{}, 501]]);
  });

  it("takes a remote host as the mapping's filter, and knows the mapping by it", () => {
    const rig = new IgdRig();
    const remote = "198.51.100.9";
    assertEquals(rig.add(80, { remote }), {});
    const external = { address: EXTERNAL, port: 80 };
    const inside = (address: string) =>
      rig.gateway.lookupInbound(6, external, { address, port: 1 }, rig.now);
    assertEquals(inside(remote)?.address, ALICE.address);
    assertEquals(inside("198.51.100.10"), undefined);
    assertEquals(rig.call("GetSpecificPortMappingEntry", named(80)), 714);
    assertEquals(rig.call("DeletePortMapping", named(80)), 714);
    assertEquals(rig.add(80), 718);
    assertEquals(rig.call("DeletePortMapping", named(80, "TCP", remote)), {});
  });

  it("AddAnyPortMapping gives the port wished for, else another, which it tells", () => {
    const rig = new IgdRig();
    const any = (port: number, from = ALICE, more = {}) => {
      const args = mapping(port, { client: from.address, internalPort: 80, ...more });
      return rig.call("AddAnyPortMapping", args, from) as Record<string, string>;
    };
    assertEquals(any(8080), { NewReservedPort: "8080" });
    assertEquals(any(8080), { NewReservedPort: "8080" });
    // The inside's own number, where that is free.
    assertEquals(any(8080, BOB, { internalPort: 7070 }), { NewReservedPort: "7070" });
    assertEquals(rig.table().length, 2);
    assertEquals(any(0, BOB, { internalPort: 7777 }), { NewReservedPort: "7777" });
    rig.command("exhaust on");
    assertEquals(any(9000) as unknown, 728);
    assertEquals(rig.add(9000), 728);
    assertEquals(rig.call("AddPortMapping", mapping(9000), ALICE, IGD_SERVICE.WAN_IP_1), 501);
    // What is there can be renewed.
    assertEquals(any(8080), { NewReservedPort: "8080" });
  });

  it("is one of several that a mapping serves: each has its remote host, and none is in the way", () => {
    const rig = new IgdRig({ protocols: ["pcp", "upnp"] });
    const filters = [{ prefix: parseCidr("198.51.100.1/32")!, port: 0 }];
    const nonce = new Uint8Array(12);
    const internal = { address: ALICE.address, port: 5000 };
    const common = { protocol: 6, internal, suggestedPort: 5000, nonce, requester: ALICE };
    rig.gateway.table.mapInbound({ origin: "pcp", ...common, filters, expiresAt: 9e6 }, 0);
    assertEquals(rig.call("GetSpecificPortMappingEntry", named(5000)), 714);
    assertEquals(rig.add(5000), {});
    assertEquals(typeof rig.call("GetSpecificPortMappingEntry", named(5000)), "object");
    assertEquals(rig.gateway.list(0)[0]!.filters, []);
    // The other protocol's client counts on its inside.
    assertEquals(rig.add(5000, { internalPort: 5001 }), 729);
    // It is told of moves where it is, not where UPnP's is.
    rig.add(5000, {}, { ...ALICE, port: 1234 });
    assertEquals(rig.gateway.list(0)[0]!.requester, ALICE);

    rig.add(6000);
    const [, own] = [...rig.gateway.table.entries()];
    rig.gateway.table.renew(own!, { by: "pcp", expiresAt: 9e6, nonce, requester: ALICE });
    rig.add(6000, {}, { ...ALICE, port: 1234 });
    assertEquals(own!.requester, ALICE);
    assertEquals(rig.add(6000, { internalPort: 6001 }), 718);
  });

  it("AddAnyPortMapping again gives the port that it gave, for the new lease", () => {
    const rig = new IgdRig();
    rig.add(6000, {}, BOB);
    const any = (port: number, more: Parameters<typeof mapping>[1] = {}) =>
      (rig.call(
        "AddAnyPortMapping",
        mapping(port, { internalPort: 6000, ...more }),
      ) as SoapArguments)["NewReservedPort"];
    const given = any(6000, { lease: 100 });
    rig.runTo(50_000);
    assertEquals([any(6000, { lease: 100 }), any(0, { lease: 100 })], [given, given]);
    rig.runTo(149_000);
    assertEquals(rig.table().length, 2);
    // For another remote host, protocol or inside it is another mapping.
    const others = [{ remote: "198.51.100.9" }, { protocol: "UDP" }, { internalPort: 6001 }];
    assertEquals(others.map((more) => any(0, more) === given), [false, false, false]);
  });

  it("AddAnyPortMapping stays on the address that the host has mappings on", () => {
    const table = { ports: [{ first: 1024, last: 1025 }], maxPortsPerClient: 9 };
    const second = "203.0.113.8";
    const rig = new IgdRig({ externalAddresses: [EXTERNAL, second], table });
    assertEquals([rig.add(1024), rig.add(1025, {}, BOB)], [{}, {}]);
    const any = (from: Endpoint) => {
      const asked = mapping(1025, { internalPort: 7, client: from.address });
      return rig.call("AddAnyPortMapping", asked, from);
    };
    assertEquals(any(ALICE), 728);
    const carol = { address: "192.168.1.102", port: 1 };
    assertEquals(any(carol), { NewReservedPort: "1024" });
    assertEquals(rig.call("GetExternalIPAddress", {}, carol), { NewExternalIPAddress: second });
  });

  it("keeps a mapping whose port cannot be had for another inside", () => {
    const rig = new IgdRig();
    rig.add(5000, { protocol: "UDP" });
    rig.gateway.setExhausted(true, 0);
    assertEquals(rig.add(5000, { protocol: "UDP", internalPort: 6000 }), 728);
    rig.gateway.setExhausted(false, 0);
    const inside = { address: ALICE.address, port: 5000 };
    const remote = { address: "198.51.100.20", port: 443 };
    const request = { protocol: 17, internal: inside, remote, expiresAt: 60_000 };
    rig.gateway.table.mapOutbound({ origin: "pcp", ...request }, 0);
    assertEquals(rig.add(5000, { protocol: "UDP", internalPort: 6000 }), 718);
    assertEquals(rig.table()[0], "5000/17→192.168.1.100:5000");
  });

  it("a table that is silently full renews what is in it", () => {
    const rig = new IgdRig({ upnp: { habits: { silentlyFullAt: 1 } } });
    rig.add(5000, { lease: 100 });
    rig.runTo(50_000);
    assertEquals([rig.add(5000, { lease: 100 }), rig.add(5001, { lease: 100 })], [{}, {}]);
    rig.runTo(149_000);
    assertEquals(rig.table(), ["5000/6→192.168.1.100:5000"]);
  });

  it("lists and deletes ranges, those of others only where it may", () => {
    const rig = new IgdRig();
    for (const port of [100, 101, 102]) rig.add(port);
    rig.add(103, {}, BOB);
    const range = (first: number, last: number, manage = "0") => ({
      NewStartPort: `${first}`,
      NewEndPort: `${last}`,
      NewProtocol: "TCP",
      NewManage: manage,
    });
    const list = (args: object, count = "0") => {
      const answer = rig.call("GetListOfPortMappings", { ...args, NewNumberOfPorts: count });
      if (typeof answer !== "object") return answer;
      return [...answer["NewPortListing"]!.matchAll(/<p:NewExternalPort>(\d+)</g)].map((m) => m[1]);
    };
    assertEquals(list(range(0, 65_535)), ["100", "101", "102"]);
    assertEquals(list(range(0, 65_535, "1")), ["100", "101", "102", "103"]);
    assertEquals(list(range(101, 65_535, "1"), "2"), ["101", "102"]);
    assertEquals([list(range(104, 200)), list(range(5, 4))], [730, 733]);
    assertEquals(rig.call("DeletePortMappingRange", range(101, 103)), {});
    assertEquals(rig.table().map((text) => text.split("/")[0]), ["100", "103"]);
    assertEquals(rig.call("DeletePortMappingRange", range(101, 103)), 730);
    assertEquals(rig.call("DeletePortMappingRange", range(101, 103, "1")), 606);
    assertEquals(rig.call("DeletePortMappingRange", range(3, 2)), 733);
    const bad = (more: object) =>
      rig.call("DeletePortMappingRange", { ...range(100, 200), ...more } as SoapArguments);
    assertEquals(
      [
        bad({ NewStartPort: "x" }),
        bad({ NewEndPort: "" }),
        bad({ NewProtocol: "any" }),
        bad({ NewManage: "2" }),
        bad({ NewStartPort: "65536" }),
      ],
      Array(5).fill(402),
    );
    assertEquals(list(range(100, 100)), ["100"]);
    assertEquals([rig.call("DeletePortMappingRange", range(100, 100)), rig.table().length], [
      {},
      1,
    ]);
  });

  it("a listing says all of a mapping, escaped, and ends before it is too long for a client", () => {
    const rig = new IgdRig();
    const all = { NewStartPort: "1", NewEndPort: "65535", NewProtocol: "TCP", NewManage: "1" };
    const listing = () => {
      const args = { ...all, NewNumberOfPorts: "0" };
      return (rig.call("GetListOfPortMappings", args) as Record<string, string>)["NewPortListing"]!;
    };
    rig.add(80, { description: "a<b" });
    assertEquals(
      listing(),
      '<p:PortMappingList xmlns:p="urn:schemas-upnp-org:gw:WANIPConnection"><p:PortMappingEntry>' +
        "<p:NewRemoteHost></p:NewRemoteHost><p:NewExternalPort>80</p:NewExternalPort>" +
        "<p:NewProtocol>TCP</p:NewProtocol><p:NewInternalPort>80</p:NewInternalPort>" +
        "<p:NewInternalClient>192.168.1.100</p:NewInternalClient><p:NewEnabled>1</p:NewEnabled>" +
        "<p:NewDescription>a&lt;b</p:NewDescription><p:NewLeaseTime>3600</p:NewLeaseTime>" +
        "</p:PortMappingEntry></p:PortMappingList>",
    );
    for (let port = 1000; port < 2000; port++) rig.add(port, { description: "x".repeat(255) });
    const text = listing();
    assert(text.length > 40_000 && text.length < 60_000, `${text.length}`);
    assert(text.endsWith("</p:PortMappingList>"));
  });

  it("shows what others mapped where its words can say it, and nothing else", () => {
    const rig = new IgdRig();
    const { table } = rig.gateway;
    const inside = (port: number) => ({ address: ALICE.address, port });
    const common = { origin: "pcp", expiresAt: 1e9 } as const;
    const remote = { address: "198.51.100.20", port: 443 };
    table.mapOutbound({ ...common, protocol: 6, internal: inside(1), remote }, 0);
    table.mapInbound({ ...common, protocol: 132, internal: inside(2) }, 0);
    table.mapInbound({ ...common, protocol: 6, internal: inside(4), size: 2 }, 0);
    table.mapInbound({ ...common, protocol: 17, internal: inside(0) }, 0);
    const first = { NewPortMappingIndex: "0" };
    assertEquals(rig.call("GetGenericPortMappingEntry", first), 713);
    const internal = { address: BOB.address, port: 8 };
    table.mapInbound({ ...common, kind: "static", protocol: 6, internal }, 0);
    const shown = rig.call("GetGenericPortMappingEntry", first) as SoapArguments;
    assertEquals([shown["NewInternalPort"], shown["NewInternalClient"], shown["NewProtocol"]], [
      "8",
      BOB.address,
      "TCP",
    ]);
    assertEquals(rig.call("GetGenericPortMappingEntry", { NewPortMappingIndex: "1" }), 713);
    for (const { external, protocol, kind } of rig.gateway.list(0)) {
      const args = named(external.port, protocol === 17 ? "UDP" : "TCP");
      const answer = rig.call("GetSpecificPortMappingEntry", args);
      assertEquals(typeof answer, kind === "static" ? "object" : "number");
    }
  });

  it("shows what others have put into the table since it was asked last", () => {
    const rig = new IgdRig();
    const ask = () => rig.call("GetGenericPortMappingEntry", { NewPortMappingIndex: "0" });
    assertEquals([ask(), ask()], [713, 713]);
    const internal = { address: ALICE.address, port: 80 };
    rig.gateway.table.mapInbound({ origin: "pcp", protocol: 6, internal, expiresAt: 3 }, 0);
    assertEquals(typeof ask(), "object");
    rig.now = 3;
    assertEquals(ask(), 713);
  });

  it("renews another protocol's mapping of the same inside, and leaves any other alone", () => {
    const rig = new IgdRig({ protocols: ["nat-pmp", "upnp"] });
    const pmp = (port: number, suggested: number, seconds: number, from = ALICE) =>
      rig.gateway.handleDatagram(
        Uint8Array.of(
          0,
          2,
          0,
          0,
          port >> 8,
          port & 255,
          suggested >> 8,
          suggested & 255,
          0,
          0,
          seconds >> 8,
          seconds & 255,
        ),
        from,
        "server",
        rig.now,
      );
    pmp(80, 80, 60);
    pmp(90, 90, 60, BOB);
    assertEquals(rig.add(80, { lease: 600 }), {});
    assertEquals(rig.add(80, { internalPort: 81 }), 729);
    assertEquals(rig.add(90), 729);
    assertEquals(rig.call("AddPortMapping", mapping(90), ALICE, IGD_SERVICE.WAN_IP_1), 718);
    rig.runTo(500_000);
    assertEquals(rig.table(), ["80/6→192.168.1.100:80"]);
    rig.command("static tcp 7000 192.168.1.100 7000");
    assertEquals(rig.add(7000), 729);
    assertEquals(rig.call("DeletePortMapping", named(7000)), 731);
    assertEquals(rig.call("DeletePortMapping", named(7000), ALICE, IGD_SERVICE.WAN_IP_1), 606);
  });
});

describe("IgdServer: by itself", () => {
  function make(options: Partial<IgdServerOptions> = {}) {
    const table = new MappingTable({ externalAddresses: [EXTERNAL] });
    const interfaces = [{ address: OWN, prefixLength: 24 }];
    const server = new IgdServer({ table, interfaces, random: seededRandom(1), ...options });
    const drain = () => {
      const actions: Action<ServerEvent>[] = [];
      for (let action = server.poll(); action; action = server.poll()) actions.push(action);
      return actions;
    };
    return { table, server, drain };
  }

  const GET = { method: "GET", path: "/rootDesc.xml", headers: [["Host", OWN]] } as const;

  it("lists its sockets while it is on: HTTP, SSDP, and SSDP's group once the port is known", () => {
    const { server } = make({ ssdpPort: 0, httpPort: 8000 });
    assertEquals(server.sockets(), []);
    server.start(0);
    const http = { key: `http ${OWN}`, kind: "http", local: { address: OWN, port: 8000 } };
    const ssdp = { key: `ssdp ${OWN}`, local: { address: OWN, port: 0 }, reuse: true };
    assertEquals(server.sockets() as unknown, [http, ssdp]);
    assertEquals(server.sockets() === server.sockets(), true);
    server.handleSocket(ssdp.key, { ok: true, local: { address: OWN, port: 5555 } }, 0);
    assertEquals(server.sockets() as unknown, [
      http,
      { ...ssdp, local: { address: OWN, port: 5555 } },
      {
        key: `ssdp-group ${OWN}`,
        local: { address: "239.255.255.250", port: 5555 },
        group: "239.255.255.250",
        interface: OWN,
        reuse: true,
      },
    ]);
    server.bye(1);
    assertEquals(server.sockets(), []);
  });

  it("over IPv6 joins the groups of link and site by the interface's name", () => {
    for (
      const [one, name] of [
        [{ address: "2001:db8::1", prefixLength: 64, name: "lan0" }, "lan0"],
        [{ address: "fe80::1%eth7" }, "eth7"],
      ] as const
    ) {
      const { server } = make({ interfaces: [one] });
      server.start(0);
      const groups = server.sockets().filter(({ group }) => group !== undefined);
      assertEquals(groups.map(({ group, interface: joined, local }) => [group, joined, local]), [
        ["ff02::c", name, { address: "ff02::c", port: 1900 }],
        ["ff05::c", name, { address: "ff05::c", port: 1900 }],
      ]);
      server.handleSocket(
        `http ${one.address}`,
        { ok: true, local: { address: one.address, port: 80 } },
        0,
      );
      assertEquals(server.locations, [
        `http://[${one.address.replace(/%.*/, "")}]:80/rootDesc.xml`,
      ]);
      const search = encodeSearch({ host: { address: "ff02::c", port: 1900 }, target: "ssdp:all" });
      const socket = `ssdp ${one.address}`;
      const from = { address: "fe80::5%eth7", port: 4 };
      assertEquals(server.handleDatagram(search, from, socket, 0), true);
    }
  });

  it("does without a link-local place of its own where it has another one", () => {
    const optional = (...addresses: string[]) => {
      const interfaces = addresses.map((address) => ({ address, prefixLength: 8 }));
      const { server } = make({ interfaces });
      server.start(0);
      return server.sockets().filter(({ optional }) => optional).map(({ key }) => key);
    };
    const link = "fe80::1%lan0";
    assertEquals(
      optional(OWN, link),
      ["http", "ssdp", "ssdp-group", "ssdp-group"].map((what, i) =>
        `${what} ${link}${i === 3 ? " site" : ""}`
      ),
    );
    assertEquals([optional(link), optional(OWN, "2001:db8::1")], [[], []]);
  });

  it("answers a link-local searcher where it is, not on the other links whose sockets hear it too", () => {
    const interfaces = [
      { address: "::1", prefixLength: 128, name: "lo" },
      { address: "2001:db8::1", prefixLength: 64, name: "lan0" },
      { address: "2001:db8:1::1", prefixLength: 64, name: "lan1" },
    ];
    const { server } = make({ interfaces });
    server.start(0);
    const host = { address: "ff05::c", port: 1900 };
    const search = encodeSearch({ host, target: "ssdp:all", mx: 1 });
    const hears = (from: string, at: string) =>
      server.handleDatagram(search, { address: from, port: 4 }, `ssdp-group ${at} site`, 0);
    assertEquals([hears("fe80::5%lo", "::1"), hears("fe80::5%lan0", "2001:db8::1")], [false, true]);
    // A global address says itself where it is.
    assertEquals(hears("2001:db8:1::5", "2001:db8::1"), true);
    assertEquals(hears("::1", "::1"), true);
  });

  it("neither answers nor announces before it is started, nor once it has said goodbye", () => {
    const { server, drain } = make();
    const search = encodeSearch({ host: { address: OWN, port: 1900 }, target: "ssdp:all" });
    const ask = (now: number) => {
      server.handleDatagram(search, ALICE, `ssdp ${OWN}`, now);
      server.handleTimeout(now + 10_000);
      return drain().filter(({ type }) => type === "send").length;
    };
    server.announce(0);
    assertEquals(ask(0), 0);
    server.start(20_000);
    for (const { key, local } of server.sockets()) {
      server.handleSocket(key, { ok: true, local: { ...local!, port: local!.port || 80 } }, 20_000);
    }
    assert(ask(20_000) > 0);
    server.bye(40_000);
    drain();
    assertEquals(ask(40_000), 0);
  });

  it("announces itself once HTTP's port is known, and not before; a socket that failed is none", () => {
    const { server, drain } = make();
    server.start(0);
    const failure = { ok: false, code: "network", message: "taken", isOpen: false } as const;
    server.handleSocket(`http ${OWN}`, failure, 0);
    assertEquals([drain(), server.locations], [[], []]);
    server.handleSocket(`ssdp ${OWN}`, { ok: true, local: { address: OWN, port: 1900 } }, 1);
    assertEquals([drain(), server.locations], [[], []]);
    server.handleSocket(`http ${OWN}`, { ok: true, local: { address: OWN, port: 81 } }, 2);
    assertEquals(drain().length, 11);
    assertEquals(server.locations, [`http://${OWN}:81/rootDesc.xml`]);
    server.silence();
    assertEquals([server.locations, server.nextTimeout()], [[], undefined]);
  });

  it("BOOTID grows with each start, and jumps within 31 bits", () => {
    const { server } = make();
    assertEquals(server.bootId, 0);
    server.start(0);
    server.start(1);
    assertEquals(server.bootId, 2);
    server.setBootId(0x7fff_ffff, 2);
    assertEquals(server.bootId, 0x7fff_ffff);
    server.start(3);
    assertEquals(server.bootId, 0);
    server.setBootId(0x8000_0005, 3);
    assertEquals(server.bootId, 5);
  });

  it("tells the table's changes where it is to tell all, and nothing where it is to tell none", () => {
    const told = (trace: IgdServerOptions["trace"]) => {
      const { server, table, drain } = make(trace === undefined ? {} : { trace });
      server.start(0);
      const internal = { address: ALICE.address, port: 80 };
      table.mapInbound({ origin: "admin", protocol: 6, internal, expiresAt: 10 }, 0);
      server.handleRequest(1, GET, ALICE, 1);
      const service = IGD_SERVICE.WAN_IP_1, args = {};
      const call = encodeCall({ service, action: "GetExternalIPAddress", args }, "/ctl/IPConn1");
      server.handleRequest(2, { ...call, headers: [...GET.headers, ...call.headers] }, ALICE, 1);
      server.handleTimeout(10);
      return drain().flatMap((action) =>
        action.type !== "event"
          ? []
          : action.event.type === "mapping"
          ? [action.event.change]
          : [action.event.type]
      );
    };
    const asked = ["request", "response"];
    assertEquals(told(true), [...asked, "added", ...asked, "expired"]);
    assertEquals(told("packets"), [...asked, ...asked]);
    assertEquals([told(false), told(undefined)], [[], []]);
  });

  it("wakes for what is next: an answer, an announcement, a lease, a pinhole, a subscription", () => {
    const { server, table, drain } = make();
    assertEquals([server.nextTimeout(), server.debugTimeout()], [undefined, undefined]);
    server.start(0);
    server.handleSocket(`http ${OWN}`, { ok: true, local: { address: OWN, port: 81 } }, 0);
    assertEquals(server.debugTimeout(), { at: 0, reason: "drain" });
    drain();
    assertEquals(server.debugTimeout(), { at: 250, reason: "announce the device" });
    server.handleTimeout(250);
    server.handleTimeout(750);
    drain();
    assertEquals(server.debugTimeout()?.reason, "announce the device");
    const internal = { address: ALICE.address, port: 80 };
    table.mapInbound({ origin: "admin", protocol: 6, internal, expiresAt: 70_000 }, 0);
    assertEquals(server.debugTimeout(), { at: 70_000, reason: "lease of mapping 1" });
    const callback = encodeSubscribe("/evt/IPConn1", `http://${ALICE.address}/`, 60);
    const headers = [["Host", OWN], ...callback.headers] as const;
    server.handleRequest(1, { ...callback, headers }, ALICE, 1000);
    drain();
    assertEquals(server.debugTimeout(), { at: 61_000, reason: "end a subscription" });
    const search = encodeSearch({ host: SSDP, target: "upnp:rootdevice", mx: 1 });
    server.handleDatagram(search, ALICE, `ssdp-group ${OWN}`, 1000);
    const next = server.debugTimeout();
    assertEquals([next?.reason, next!.at <= 2000, server.nextTimeout()], [
      "answer a search",
      true,
      next?.at,
    ]);
    server.handleUnreachable(ALICE, "ssdp", 1001);
    assertEquals(drain(), []);
  });

  it("tells of a request that is about no mapping with nothing of one", () => {
    const { server, drain } = make({ trace: "packets" });
    server.start(0);
    const subscribe = encodeSubscribe("/evt/IPConn1", `http://${ALICE.address}/`);
    const request = { ...subscribe, headers: [...GET.headers, ...subscribe.headers] };
    server.handleRequest(1, request, ALICE, 0);
    const nowhere = { address: "0.0.0.0", port: 0 };
    const events = () => drain().flatMap((one) => one.type === "event" ? one.event : []);
    assertEquals(drain().filter(({ type }) => type === "event").map((one) => one as unknown), [
      {
        type: "event",
        event: {
          type: "request",
          request: {
            via: "upnp",
            operation: "subscribe",
            action: "SUBSCRIBE",
            from: ALICE,
            protocol: 0,
            internal: { address: ALICE.address, port: 0 },
            suggested: nowhere,
            remote: undefined,
            lifetimeSeconds: 0,
            nonce: undefined,
            existing: undefined,
          },
        },
      },
      {
        type: "event",
        event: {
          type: "response",
          via: "upnp",
          to: ALICE,
          operation: "subscribe",
          action: "SUBSCRIBE",
          resultCode: 0,
          result: "SUCCESS",
          lifetimeSeconds: undefined,
          external: undefined,
          isUnsolicited: false,
        },
      },
    ]);
    const nobodys = encodeResubscribe("/evt/IPConn1", "uuid:nobody's", 60);
    const renewal = { ...nobodys, headers: [...GET.headers, ...nobodys.headers] };
    server.handleRequest(2, renewal, ALICE, 0);
    assertEquals(
      events().map((event) => event.type === "response" && [event.resultCode, event.result]),
      [false, [412, "ERROR_412"]],
    );
  });

  it("takes each call as news of the time: leases end, and what is to leave is due then", () => {
    const { server, table, drain } = make({ trace: true });
    const internal = { address: ALICE.address, port: 80 };
    const outside = { address: "198.51.100.9", port: 1900 };
    const again = (at: number) => {
      table.mapInbound({ origin: "admin", protocol: 6, internal, expiresAt: at }, at - 1);
    };
    server.start(0);
    server.handleSocket(`http ${OWN}`, { ok: true, local: { address: OWN, port: 81 } }, 0);
    const calls: ((now: number) => void)[] = [
      (now) => server.handleUnreachable(ALICE, "ssdp", now),
      (now) => server.handleResponse(99, { ok: false, reason: "failed" }, now),
      (now) => server.handleDatagram(new Uint8Array(1), ALICE, "ssdp", now),
      (now) => server.handleDatagram(new Uint8Array(1), outside, "ssdp", now),
      (now) => server.handleRequest(1, GET, ALICE, now),
      (now) => server.handleSocket("other", { ok: true, local: ALICE }, now),
      (now) => server.handleTimeout(now),
      (now) => server.notice(now),
      (now) => server.announce(now),
      (now) => server.setBootId(5, now),
      (now) => server.forget(now),
      (now) => server.start(now),
      (now) => server.bye(now),
    ];
    let now = 10_000;
    for (const [i, call] of calls.entries()) {
      drain();
      again(now);
      call(now);
      assertEquals(table.size, 0, `call ${i}`);
      const changes = drain().flatMap((one) =>
        one.type === "event" && one.event.type === "mapping" ? one.event.change : []
      );
      // Who says goodbye tells no more.
      const isLast = i === calls.length - 1;
      assertEquals(changes, isLast ? [] : ["added", "expired"], `call ${i}`);
      now += 10_000;
    }
    server.start(now);
    drain();
    server.announce(now + 7);
    assertEquals(server.nextTimeout(), now + 7);
    drain();
    server.silence();
    const search = encodeSearch({ host: SSDP, target: "upnp:rootdevice" });
    assertEquals(server.handleDatagram(search, ALICE, `ssdp ${OWN}`, now + 8), false);
  });

  it("gives each device its own UUID, and the one it is told to its root", () => {
    const udns = (uuid: string) => {
      const { server, drain } = make({ uuid, connections: [{}, {}] });
      server.start(0);
      server.handleRequest(1, GET, ALICE, 0);
      const [answer] = drain();
      const read = answer?.type === "respond" ? readDescription(answer.response.body) : "none";
      if (typeof read === "string") throw new Error(read);
      const all = [read.device];
      for (const one of all) all.push(...one.devices);
      return all.map(({ udn }) => udn);
    };
    const start = "uuid:00000000-0000-4000-8000-0000000000";
    assertEquals(udns("00000000-0000-4000-8000-0000000000fe"), [
      `${start}fe`,
      `${start}ff`,
      `${start}00`,
      `${start}01`,
    ]);
    assertEquals(udns("no-uuid-xy")[1], "uuid:no-uuid-01");
    assertEquals(udns("no-uuid-xy").length, 4);
  });
});
