import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import { IGD_PROFILES } from "../../../core/gateway/igd_profiles.ts";
import { profileNamed, PROFILES } from "../../../core/gateway/profiles.ts";
import type { Endpoint, HttpResponse } from "../../../core/machine.ts";
import { seededRandom } from "../../../core/random.ts";
import { type Process, World } from "../../../core/sim/mod.ts";
import type { ServerEvent } from "../../../core/table/server_request.ts";
import { IgdClient, type IgdEvent } from "../../../core/upnp/client.ts";
import { allServices, readDescription } from "../../../core/upnp/description.ts";
import { IGD_DEVICE, IGD_SERVICE } from "../../../core/upnp/igd.ts";
import { encodeCall, type SoapArguments } from "../../../core/upnp/soap.ts";
import { encodeSearch } from "../../../core/upnp/ssdp.ts";
import { ALICE, BOB, IgdRig, mapping, named, OWN, SSDP } from "../upnp/igd_rig.ts";

const CLIENT = "192.168.1.2", ROUTER = "192.168.1.1";
const V1 = IGD_SERVICE.WAN_IP_1;
const CONTROL = "/ctl/IPConn1";

function rigOf(profile: string): IgdRig {
  const { upnp } = profileNamed(profile);
  const rig = new IgdRig({ profile, upnp: { ...upnp } });
  rig.drain();
  rig.runTo(10_000);
  return rig;
}

/** Adds a mapping as version 1 has it; the code, or `"ok"`. */
function add(
  rig: IgdRig,
  port: number,
  more: Parameters<typeof mapping>[1] = {},
  from: Endpoint = ALICE,
): unknown {
  const args = mapping(port, { client: from.address, ...more });
  const result = rig.call("AddPortMapping", args, from, V1);
  return typeof result === "object" ? "ok" : result;
}

function entry(rig: IgdRig, port: number): SoapArguments {
  return rig.call("GetSpecificPortMappingEntry", named(port), ALICE, V1) as SoapArguments;
}

function targets(rig: IgdRig, target: string, mx?: number): string[] {
  return rig.search(target, mx === undefined ? {} : { mx }).map(({ message }) => message.target);
}

function text(rig: IgdRig, path: string): string {
  return new TextDecoder().decode(rig.get(path)?.body);
}

/** The answer to a call as bytes. */
function answer(rig: IgdRig, action: string, args: SoapArguments, path = CONTROL): string {
  const { responses } = rig.ask(encodeCall({ service: V1, action, args }, path));
  return new TextDecoder().decode(responses[0]?.response.body);
}

/** The status of a call that is not as strict gateways want it; of a fault its code. */
function sloppily(
  rig: IgdRig,
  edit: (call: { body: string; headers: [string, string][] }) => void,
): number | undefined {
  const request = encodeCall(
    { service: V1, action: "AddPortMapping", args: mapping(80) },
    "/ctl/IPConn1",
  );
  const call = {
    body: new TextDecoder().decode(request.body),
    headers: [["Host", `${OWN}:5000`], ...request.headers.map((one) => [...one])] as [
      string,
      string,
    ][],
  };
  call.headers.push(["Content-Length", `${request.body!.length}`]);
  edit(call);
  const { headers } = call, body = new TextEncoder().encode(call.body);
  const response = rig.ask({ ...request, headers, body }, ALICE, []).responses[0]?.response;
  const code = /<errorCode>([0-9]+)</.exec(new TextDecoder().decode(response?.body))?.[1];
  return code === undefined ? response?.status : Number(code);
}

/** The values of a field. */
function valuesOf({ headers }: HttpResponse, field: string): string[] {
  return headers.flatMap(([name, value]) => name === field ? [value] : []);
}

const REPLACE = (from: string, to: string) => (call: { body: string }) => {
  call.body = call.body.replace(from, to);
};
const FIELD = (name: string, value: string | undefined) =>
(
  call: { headers: [string, string][] },
) => {
  call.headers = call.headers.flatMap(([key, old]): [string, string][] =>
    key !== name ? [[key, old]] : value === undefined ? [] : [[key, value]]
  );
};

/** What a client sees of the quirk, one test a profile. */
const SEEN: Readonly<Record<string, () => void>> = {
  "igd-1": () => {
    const rig = rigOf("igd-1");
    assertEquals([add(rig, 80, { lease: 0 }), entry(rig, 80)["NewLeaseDuration"]], ["ok", "0"]);
    assertEquals(targets(rig, IGD_DEVICE.GATEWAY_2), []);
  },
  "igd-2": () => {
    const rig = rigOf("igd-2");
    assertEquals(rig.call("AddPortMapping", mapping(80, { lease: 0 })), {});
    assertEquals(entry(rig, 80)["NewLeaseDuration"], "604800");
    assertEquals(targets(rig, IGD_DEVICE.GATEWAY_1), [IGD_DEVICE.GATEWAY_1]);
  },
  "eero": () => {
    const rig = rigOf("eero");
    assertEquals([targets(rig, "upnp:rootdevice"), targets(rig, "upnp:rootdevice", 1).length], [
      [],
      1,
    ]);
  },
  "sagemcom-fast3890v3": () => {
    const rig = rigOf("sagemcom-fast3890v3");
    assertEquals(targets(rig, "ssdp:all"), ["urn:schemas-wifialliance-org:device:WFADevice:1"]);
    assertEquals(targets(rig, IGD_DEVICE.GATEWAY_1), [IGD_DEVICE.GATEWAY_1]);
  },
  "tp-link-er605": () => {
    const rig = rigOf("tp-link-er605");
    assertEquals(rig.search("upnp:rootdevice").map(({ socket }) => socket), ["other"]);
    assert(rig.gateway.sockets!().some(({ key }) => key === "other"));
    assertEquals([add(rig, 2000, { protocol: "udp" }), add(rig, 2000, { protocol: "UDP" })], [
      402,
      "ok",
    ]);
    assertEquals([add(rig, 1023, { internalPort: 1024 }), add(rig, 1024, { internalPort: 1023 })], [
      606,
      606,
    ]);
  },
  "pfsense-carp": () => assertEquals(PROFILES["pfsense-carp"]!.ownAddress, "192.168.1.3"),
  "igd-2-only": () => {
    const rig = rigOf("igd-2-only");
    assertEquals(rig.services().map(({ serviceType }) => serviceType), [
      IGD_SERVICE.FORWARDING_1,
      IGD_SERVICE.COMMON_1,
      IGD_SERVICE.WAN_IP_2,
    ]);
    assertEquals([targets(rig, IGD_DEVICE.GATEWAY_1), targets(rig, V1)], [[], []]);
    assertEquals(targets(rig, IGD_DEVICE.GATEWAY_2), [IGD_DEVICE.GATEWAY_2]);
  },
  "strict-ssdp": () => {
    const rig = rigOf("strict-ssdp");
    const search = encodeSearch({ host: SSDP, target: "upnp:rootdevice" });
    const hear = (from: string, to: string) => {
      const data = new TextEncoder().encode(new TextDecoder().decode(search).replaceAll(from, to));
      return rig.gateway.handleDatagram(data, ALICE, `ssdp ${OWN}`, rig.now);
    };
    assertEquals(
      [hear("", ""), hear("\r\n", "\n"), hear("MAN", "Man"), hear("\r\n\r\n", "\r\n")],
      [true, false, false, false],
    );
  },
  "archer-c8": () => {
    const rig = rigOf("archer-c8");
    assertEquals(targets(rig, IGD_DEVICE.GATEWAY_1), ["upnp:rootdevice", IGD_DEVICE.GATEWAY_1]);
    assert(!text(rig, "/rootDesc.xml").includes("</root>"));
    assert(text(rig, "/scpd/IPConn1").endsWith("</scpd>\n"), "the description alone is cut");
    const http = rig.gateway.sockets!().find(({ kind }) => kind === "http");
    assert(http !== undefined && PROFILES["archer-c8"]!.upnp?.httpPort === 1900);
  },
  "fritzbox-busy": () => {
    const rig = rigOf("fritzbox-busy");
    const hear = () =>
      rig.gateway.handleDatagram(
        encodeSearch({ host: SSDP, target: "upnp:rootdevice" }),
        ALICE,
        `ssdp ${OWN}`,
        rig.now,
      );
    assertEquals([hear(), hear()], [true, false]);
    rig.now += 100;
    assertEquals(hear(), true);
  },
  "root-only": () => {
    const rig = rigOf("root-only");
    assertEquals([targets(rig, IGD_DEVICE.GATEWAY_1), targets(rig, "ssdp:all")], [[], []]);
    assertEquals(targets(rig, "upnp:rootdevice"), ["upnp:rootdevice"]);
  },
  "miniupnpd-tired": () => {
    const rig = rigOf("miniupnpd-tired");
    assertEquals([1, 2, 3, 4, 5, 6].map(() => targets(rig, "upnp:rootdevice").length), [
      1,
      1,
      1,
      1,
      1,
      0,
    ]);
    rig.command("reboot");
    assertEquals([rig.drain().sent, targets(rig, "upnp:rootdevice").length], [[], 1]);
  },
  "huawei-hg531": () => {
    const rig = rigOf("huawei-hg531");
    const service = "urn:dslforum-org:service:WANIPConnection:1";
    assertEquals(rig.services().at(-1)?.serviceType, service);
    assertEquals(
      rig.describe().device.deviceType,
      "urn:dslforum-org:device:InternetGatewayDevice:1",
    );
    assertEquals(rig.call("AddPortMapping", mapping(80), ALICE, service), {});
    assertEquals([targets(rig, "ssdp:all"), targets(rig, "upnp:rootdevice")], [[], [
      "upnp:rootdevice",
    ]]);
  },
  "empty-service-list": () => {
    const rig = rigOf("empty-service-list");
    assertEquals(text(rig, "/rootDesc.xml").match(/<serviceList\/?>/g), [
      "<serviceList/>",
      "<serviceList>",
    ]);
    assertEquals(rig.services().map(({ serviceType }) => serviceType), [V1]);
  },
  "mikrotik-chr": () => {
    const rig = rigOf("mikrotik-chr");
    const ask = (path: string) => rig.call("GetExternalIPAddress", {}, ALICE, V1, path);
    assertEquals(
      [ask("/ctl/IPConn1"), ask("/ctl/IPConn2")].map((one) =>
        (one as SoapArguments)["NewExternalIPAddress"]
      ),
      ["0.0.0.0", "203.0.113.7"],
    );
    const status = rig.call("GetStatusInfo", {}, ALICE, V1, "/ctl/IPConn1") as SoapArguments;
    assertEquals(status["NewConnectionStatus"], "Disconnected");
    assertEquals(add(rig, 80), 501);
    assertEquals(rig.call("AddPortMapping", mapping(80), ALICE, V1, "/ctl/IPConn2"), {});
  },
  "ip-and-ppp": () => {
    const rig = rigOf("ip-and-ppp");
    const types = rig.services().map(({ serviceType }) => serviceType);
    assertEquals(types.slice(-2), [IGD_SERVICE.WAN_PPP_1, V1]);
    const status = rig.call("GetStatusInfo", {}, ALICE, IGD_SERVICE.WAN_PPP_1, "/ctl/PPPConn1");
    assertEquals((status as SoapArguments)["NewConnectionStatus"], "Unconfigured");
    assertEquals(rig.call("GetStatusInfo", {}, ALICE, V1, "/ctl/PPPConn1"), 401);
  },
  "ppp-attributes": () => {
    const rig = rigOf("ppp-attributes");
    const description = text(rig, "/rootDesc.xml");
    assert(description.includes('<serviceType xml:space="preserve">urn:'));
    assert(description.includes('" dt:dt="string">/ctl/'));
    const { serviceType, controlUrl } = rig.services().at(-1)!;
    assertEquals([serviceType, controlUrl], [IGD_SERVICE.WAN_PPP_1, "/ctl/PPPConn1"]);
    const ask = (action: string, args: SoapArguments) => {
      const call = encodeCall({ service: serviceType, action, args }, controlUrl);
      return new TextDecoder().decode(rig.ask(call).responses[0]!.response.body);
    };
    assert(ask("GetExternalIPAddress", {}).includes('Address xsi:type="string">203.0.113.7<'));
    assert(ask("DeletePortMapping", named(80)).includes('<errorCode dt="ui4">714<'));
  },
  "pace-px5001": () => assertEquals(rigOf("pace-px5001").get("/scpd/IPConn1")?.status, 404),
  "dd-wrt": () => {
    const rig = rigOf("dd-wrt");
    const { controlUrl } = rig.services().at(-1)!;
    assertEquals(controlUrl, "/upnp/control?ctl/IPConn1");
    assertEquals(rig.call("AddPortMapping", mapping(80), ALICE, V1, controlUrl), {});
  },
  "presentation-url": () => {
    const rig = rigOf("presentation-url");
    assert(text(rig, "/rootDesc.xml").includes("<presentationURL>http://198.51.100.99/"));
    assertEquals(rig.services().at(-1)?.controlUrl, "ctl/IPConn1");
    assertEquals(add(rig, 80), "ok");
  },
  "bt-voyager-210": () => {
    const rig = rigOf("bt-voyager-210");
    const { controlUrl } = rig.services().at(-1)!;
    assert(controlUrl.length > 300);
    assertEquals(rig.call("AddPortMapping", mapping(80), ALICE, V1, controlUrl), {});
  },
  "random-urls": () => {
    const rig = rigOf("random-urls");
    const before = rig.gateway.locations[0]!;
    rig.command("reboot");
    const after = rig.gateway.locations[0]!;
    assert(before !== after);
    assertEquals([before, after].map((url) => rig.get(new URL(url).pathname)?.status), [404, 200]);
  },
  "bt-homehub-5": () => {
    const udn = rigOf("bt-homehub-5").describe().device.udn;
    assertEquals(udn, "uuid:UPnP-BTHomeHub5.0A-1_00-0000000000001");
  },
  "huawei-prefixes": () => {
    const result = answer(rigOf("huawei-prefixes"), "AddPortMapping", mapping(80));
    assert(result.includes("<m:AddPortMappingResponse") && !result.includes("xmlns:m"), result);
    assert(result.includes("</m:AddPortMappingResponse>") && !result.includes("u:"), result);
    const scpd = text(rigOf("huawei-prefixes"), "/scpd/IPConn1");
    assert(/<scpd>\s*<specVersion>/.test(scpd), scpd.slice(0, 200));
  },
  "linksys-wag200g": () => {
    const rig = rigOf("linksys-wag200g");
    assert(text(rig, "/rootDesc.xml").includes("<![CDATA[/ctl/IPConn1]]>"));
    assert(text(rig, "/rootDesc.xml").includes("<![CDATA[WAG200G – Gateway]]>"));
    for (const path of ["/rootDesc.xml", "/scpd/IPConn1"]) {
      assertEquals(valuesOf(rig.get(path)!, "Content-Type"), ["text/html; charset=utf-16"]);
    }
  },
  "chunked": () => {
    const rig = rigOf("chunked");
    const call = encodeCall({ service: V1, action: "AddPortMapping", args: mapping(80) }, CONTROL);
    const { response } = rig.ask(call).responses[0]!;
    for (const answer of [rig.get("/rootDesc.xml")!, response]) {
      assertEquals(valuesOf(answer, "Transfer-Encoding"), ["chunked"]);
    }
  },
  "wants-host-port": () => {
    const rig = rigOf("wants-host-port");
    assertEquals(
      [sloppily(rig, FIELD("Host", OWN)), sloppily(rig, FIELD("Host", `${OWN}:5000`))],
      [400, 200],
    );
    assertEquals(PROFILES["wants-host-port"]!.upnp?.httpPort, 49_000);
  },
  "mikrotik-routeros": () => {
    const rig = rigOf("mikrotik-routeros");
    assertEquals([add(rig, 80), add(rig, 80, { lease: 0 })], [725, "ok"]);
  },
  "bare-500": () => {
    const rig = rigOf("bare-500");
    assertEquals([answer(rig, "AddPortMapping", mapping(80)), sloppily(rig, () => {})], ["", 500]);
    assertEquals(add(rig, 80, { lease: 0 }), "ok");
    assert(answer(rig, "GetExternalIPAddress", {}).includes(">203.0.113.7<"));
  },
  "arris-nvg578lx": () => {
    const rig = rigOf("arris-nvg578lx");
    assertEquals([add(rig, 80), add(rig, 80, { lease: 0 })], [402, "ok"]);
  },
  "no-permanent-lease": () => {
    const rig = rigOf("no-permanent-lease");
    assertEquals([add(rig, 80, { lease: 0 }), add(rig, 80, { lease: 604_801 })], [402, "ok"]);
    assertEquals(entry(rig, 80)["NewLeaseDuration"], "604800");
    assertEquals([add(rig, 80, { lease: 1 }), entry(rig, 80)["NewLeaseDuration"]], ["ok", "1"]);
  },
  "technicolor": () => {
    const rig = rigOf("technicolor");
    assertEquals([add(rig, 80, { lease: 60 }), entry(rig, 80)["NewLeaseDuration"]], ["ok", "0"]);
    const madeAt = rig.now;
    rig.runTo(madeAt + 86_399_999);
    assertEquals(rig.table().length, 1);
    rig.runTo(madeAt + 86_400_000);
    assertEquals(rig.table().length, 0);
  },
  "fritzbox-7490": () => {
    const rig = rigOf("fritzbox-7490");
    for (const [lease, shown] of [[1, "120"], [121, "121"]] as const) {
      assertEquals([add(rig, 80, { lease }), entry(rig, 80)["NewLeaseDuration"]], ["ok", shown]);
    }
    assert(!answer(rig, "DeletePortMapping", named(81)).includes("faultstring"));
  },
  "windows-ics": () => {
    const rig = rigOf("windows-ics");
    assertEquals([add(rig, 80), add(rig, 80)], ["ok", 718]);
    assertEquals(rig.call("DeletePortMapping", named(80), ALICE, V1), {});
  },
  "tp-link-w8951nd": () => {
    const rig = rigOf("tp-link-w8951nd");
    assertEquals([add(rig, 80), add(rig, 80)], ["ok", 718]);
    assertEquals(rig.call("DeletePortMapping", named(80), ALICE, V1), 714);
  },
  "conflict-729": () => {
    const rig = rigOf("conflict-729");
    assertEquals([add(rig, 80), add(rig, 80, {}, BOB)], ["ok", 729]);
  },
  "conflict-501": () => {
    const rig = rigOf("conflict-501");
    assertEquals([add(rig, 80), add(rig, 80, {}, BOB)], ["ok", 501]);
    rig.command("exhaust on");
    assertEquals(add(rig, 81), 501);
  },
  "silently-full": () => {
    const rig = rigOf("silently-full");
    for (let port = 1; port <= 12; port++) assertEquals(add(rig, port), "ok");
    assertEquals(rig.table().length, 10);
  },
  "overwrites": () => {
    const rig = rigOf("overwrites");
    assertEquals([add(rig, 80), add(rig, 80, {}, BOB)], ["ok", "ok"]);
    assertEquals(rig.table(), [`80/6→${BOB.address}:80`]);
  },
  "orange-funbox-6": () => {
    const rig = rigOf("orange-funbox-6");
    assertEquals([add(rig, 8000, { internalPort: 80 }), rig.table()], [
      "ok",
      [`80/6→${ALICE.address}:80`],
    ]);
  },
  "same-port-only": () => {
    const rig = rigOf("same-port-only");
    assertEquals([add(rig, 8000, { internalPort: 80 }), add(rig, 80)], [724, "ok"]);
  },
  "miniupnpd-2.3.4": () => {
    const rig = rigOf("miniupnpd-2.3.4");
    assertEquals(rig.call("AddAnyPortMapping", mapping(80)), { NewExternalPort: "80" });
  },
  "mikrotik-5.26": () => {
    const rig = rigOf("mikrotik-5.26");
    assertEquals(
      [sloppily(rig, REPLACE("<?xml", " <?xml")), sloppily(rig, () => {})],
      [400, 200],
    );
  },
  "draytek-vigor2900": () => {
    const rig = rigOf("draytek-vigor2900");
    assertEquals([sloppily(rig, REPLACE("?>", "?>\n")), sloppily(rig, () => {})], [501, 200]);
  },
  "strict-content-type": () => {
    const rig = rigOf("strict-content-type");
    assertEquals(
      [sloppily(rig, FIELD("Content-Type", "text/xml")), sloppily(rig, () => {})],
      [415, 200],
    );
  },
  "strict-envelope": () => {
    const rig = rigOf("strict-envelope");
    assertEquals(
      [
        sloppily(rig, REPLACE("envelope/", "envelope")),
        sloppily(rig, REPLACE("xmlns:u=", "xmlns=")),
        sloppily(rig, () => {}),
      ],
      [402, 500, 200],
    );
  },
  "technicolor-homeware": () => {
    const rig = rigOf("technicolor-homeware");
    assertEquals(
      [
        sloppily(rig, (call) => call.headers.reverse()),
        sloppily(rig, FIELD("SOAPAction", `${V1}#AddPortMapping`)),
        sloppily(rig, FIELD("Content-Length", undefined)),
        sloppily(rig, REPLACE("<NewRemoteHost></NewRemoteHost>", "")),
        sloppily(rig, () => {}),
      ],
      [400, 401, 411, 402, 200],
    );
  },
  "wrong-namespace": () => {
    const result = answer(rigOf("wrong-namespace"), "AddPortMapping", mapping(80));
    assert(result.includes('xmlns:u="DeletePortMapping"'), result);
  },
  "no-quote-entities": () => {
    const rig = rigOf("no-quote-entities");
    assertEquals([sloppily(rig, REPLACE("test", "&quot;")), sloppily(rig, () => {})], [402, 200]);
    assertEquals(add(rig, 80, { description: `"'` }), "ok");
  },
  "zte-f680": () => {
    const rig = rigOf("zte-f680");
    assertEquals([add(rig, 1023), add(rig, 1024)], [undefined, "ok"]);
  },
  "no-pinholes": () => {
    const rig = rigOf("no-pinholes");
    const args = {
      RemoteHost: "",
      RemotePort: "0",
      InternalClient: "2001:db8::2",
      InternalPort: "8080",
      Protocol: "6",
      LeaseTime: "60",
    };
    assertEquals(rig.call("AddPinhole", args, ALICE, IGD_SERVICE.FIREWALL_1, "/ctl/IP6FC"), 606);
  },
  "miniupnpd-private-wan": () => {
    const rig = rigOf("miniupnpd-private-wan");
    assertEquals(rig.call("GetExternalIPAddress"), { NewExternalIPAddress: "" });
    assertEquals([add(rig, 80), rig.call("AddAnyPortMapping", mapping(80))], [501, 501]);
  },
  "zero-address": () => {
    const rig = rigOf("zero-address");
    assertEquals(rig.call("GetExternalIPAddress", {}, ALICE, V1), {
      NewExternalIPAddress: "0.0.0.0",
    });
    assertEquals(add(rig, 80), "ok");
  },
  "livebox-not-connected": () => {
    const rig = rigOf("livebox-not-connected");
    const status = rig.call("GetStatusInfo", {}, ALICE, V1) as SoapArguments;
    assertEquals([status["NewConnectionStatus"], add(rig, 80)], ["Disconnected", 501]);
  },
  "status-up": () => {
    const rig = rigOf("status-up");
    const status = rig.call("GetStatusInfo", {}, ALICE, V1) as SoapArguments;
    assertEquals([status["NewConnectionStatus"], add(rig, 80)], ["Up", "ok"]);
  },
  "no-lease-extension": () => {
    const rig = rigOf("no-lease-extension");
    add(rig, 80, { lease: 100 });
    rig.now += 60_000;
    assertEquals([add(rig, 80, { lease: 100 }), entry(rig, 80)["NewLeaseDuration"]], ["ok", "40"]);
  },
  "lists-from-one": () => {
    const rig = rigOf("lists-from-one");
    rig.add(80);
    const list = (first: string) =>
      typeof rig.call("GetListOfPortMappings", {
        NewStartPort: first,
        NewEndPort: "65535",
        NewProtocol: "TCP",
        NewManage: "0",
        NewNumberOfPorts: "0",
      });
    assertEquals([list("0"), list("1")], ["number", "object"]);
  },
};

/** What natkit's own client comes to where that is not: mapped as wished, kept for hours, deleted. */
const OTHERWISE: Readonly<Record<string, Partial<Lived>>> = {
  "mikrotik-routeros": { lifetimeSeconds: 2 ** 32 - 1 },
  "arris-nvg578lx": { lifetimeSeconds: 2 ** 32 - 1 },
  "bare-500": { lifetimeSeconds: 2 ** 32 - 1 },
  // What cannot be renewed is made anew elsewhere, and cannot be deleted.
  "tp-link-w8951nd": { keeps: "moved", held: 2, left: 1 },
  "miniupnpd-private-wan": { first: "failed: not connected", keeps: "failed", held: 0 },
  "zero-address": { first: "failed: not connected", keeps: "failed", held: 0 },
  "livebox-not-connected": { first: "failed: not connected", keeps: "failed", held: 0 },
};

interface Lived {
  /** What is told first. */
  readonly first: string;
  readonly lifetimeSeconds: number;
  /** What is told within the three hours after. */
  readonly keeps: string;
  /** How many mappings there are then. */
  readonly held: number;
  /** What is told at last. */
  readonly last: string;
  /** How many mappings are left behind. */
  readonly left: number;
}

/** A client of natkit's, and a gateway of that profile, for three hours. */
function live(name: string): Lived {
  const profile = profileNamed(name);
  const world = new World({ seed: 3 });
  const lan = world.segment("lan", { delayMs: 1 });
  const router = world.host("router"), laptop = world.host("laptop");
  const own = profile.ownAddress ?? ROUTER;
  router.attach(lan, [...new Set([ROUTER, own])]);
  laptop.attach(lan, CLIENT, { gateway: ROUTER });
  const gateway = router.run<ServerEvent, SimulatedGateway>(
    new SimulatedGateway({
      externalAddresses: ["203.0.113.7"],
      random: seededRandom(5),
      profile,
      listen: { address: own, port: 5351 },
    }),
  );
  gateway.do((machine, now) => machine.start(now));
  world.runFor(2000);
  const client: Process<IgdEvent, IgdClient> = laptop.run(
    new IgdClient({
      gateway: { address: ROUTER, port: 1900 },
      localAddress: CLIENT,
      random: seededRandom(7),
    }),
  );
  const heard = () =>
    client.takeEvents().map(({ event }) => event).filter(({ type }) =>
      type !== "external-address" && type !== "external-address-failed"
    );
  const size = () => gateway.machine.list(world.now).length;
  const id = client.do((machine, now) =>
    machine.map({ protocol: "tcp", internalPort: 8080, lifetimeSeconds: 3600 }, now)
  );
  world.runFor(30_000);
  const [first] = heard();
  world.runFor(3 * 3_600_000);
  const later = heard(), held = size();
  client.do((machine, now) => machine.revoke(id, now));
  world.runFor(60_000);
  const isMapped = first?.type === "mapped";
  return {
    first: isMapped
      ? `mapped ${first.mapping.external?.address}:${first.mapping.external?.port}`
      : first?.type === "failed"
      ? `failed: ${"name" in first.failure ? first.failure.name : first.failure.kind}`
      : `${first?.type}`,
    lifetimeSeconds: isMapped ? first.mapping.lifetimeSeconds : 3600,
    keeps: [...new Set(later.map(({ type }) => type))].join(" "),
    held,
    last: `${heard().at(-1)?.type}`,
    left: size(),
  };
}

describe("profiles of Internet gateway devices", () => {
  for (const { name, summary } of IGD_PROFILES) {
    it(`${name}: ${summary}`, () => {
      assert(SEEN[name], "every profile has a test");
      SEEN[name]!();
    });

    it(`${name}: what natkit's client makes of it`, () => {
      const expected: Lived = {
        first: "mapped 203.0.113.7:8080",
        lifetimeSeconds: 3600,
        keeps: "renewed",
        held: 1,
        last: "unmapped",
        left: 0,
        ...OTHERWISE[name],
      };
      assertEquals(live(name), expected);
    });
  }

  it("are at least forty, of all protocols, with names of their own", () => {
    assert(Object.keys(PROFILES).length >= 40);
    assertEquals(new Set(IGD_PROFILES.map(({ name }) => name)).size, IGD_PROFILES.length);
  });

  it("each has a description that reads, whatever is wrong with it, and tells its version", () => {
    const second: string[] = [];
    for (const { name } of IGD_PROFILES) {
      const rig = rigOf(name);
      const path = new URL(rig.gateway.locations[0]!).pathname;
      const description = readDescription(rig.get(path)!.body);
      if (typeof description === "string") throw new Error(`${name}: ${description}`);
      assert(allServices(description.device).length > 0, name);
      const isSecond = description.device.deviceType.endsWith(":2");
      if (isSecond) second.push(name);
      assertEquals(profileNamed(name).upnp?.version, isSecond ? 2 : 1, name);
    }
    assertEquals(second, [
      "igd-2",
      "pfsense-carp",
      "igd-2-only",
      "fritzbox-busy",
      "miniupnpd-tired",
      "random-urls",
      "fritzbox-7490",
      "conflict-729",
      "miniupnpd-2.3.4",
      "no-pinholes",
      "miniupnpd-private-wan",
      "lists-from-one",
    ]);
  });
});
