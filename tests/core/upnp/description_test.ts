import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import {
  allServices,
  type Description,
  type Device,
  readDescription,
  readScpd,
  type Service,
  writeDescription,
  writeScpd,
} from "../../../core/upnp/description.ts";
import { IGD_DEVICE, IGD_SERVICE } from "../../../core/upnp/igd.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

function read(text: string): Description {
  const description = readDescription(bytes(text));
  if (typeof description === "string") throw new Error(description);
  return description;
}

const types = (text: string) => allServices(read(text).device).map((each) => each.serviceType);

const service = (serviceType: string, name: string): Service => ({
  serviceType,
  serviceId: `urn:upnp-org:serviceId:${name}`,
  controlUrl: `/ctl/${name}`,
  eventUrl: `/evt/${name}`,
  scpdUrl: `/${name}.xml`,
});

const device = (deviceType: string, rest: Partial<Device>): Device => ({
  deviceType,
  friendlyName: "Router",
  manufacturer: "A & B",
  modelName: "<1>",
  udn: "uuid:00000000-0000-0000-0000-000000000001",
  services: [],
  devices: [],
  ...rest,
});

const GATEWAY = device(IGD_DEVICE.GATEWAY_1, {
  services: [service(IGD_SERVICE.FORWARDING_1, "L3F")],
  devices: [
    device(IGD_DEVICE.WAN_1, {
      services: [service(IGD_SERVICE.COMMON_1, "CmnIfCfg")],
      devices: [
        device(IGD_DEVICE.CONNECTION_1, { services: [service(IGD_SERVICE.WAN_IP_1, "IPConn")] }),
      ],
    }),
  ],
});

describe("readDescription() and writeDescription()", () => {
  it("are each other's reverse", () => {
    for (const urlBase of ["", "http://192.168.1.1:5000"]) {
      const description = { device: GATEWAY, urlBase };
      assertEquals(readDescription(writeDescription(description)), description);
    }
  });

  it("writes what control points expect: version, namespace, elements in UDA's order", () => {
    const one = device("urn:x:device:A:1", { services: [service("urn:x:service:B:1", "C")] });

    assertEquals(
      new TextDecoder().decode(writeDescription({ device: one, urlBase: "" })),
      '<?xml version="1.0"?>\n<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion>' +
        "<major>1</major><minor>0</minor></specVersion><device>" +
        "<deviceType>urn:x:device:A:1</deviceType><friendlyName>Router</friendlyName>" +
        "<manufacturer>A &amp; B</manufacturer><modelName>&lt;1&gt;</modelName>" +
        "<UDN>uuid:00000000-0000-0000-0000-000000000001</UDN><serviceList><service>" +
        "<serviceType>urn:x:service:B:1</serviceType>" +
        "<serviceId>urn:upnp-org:serviceId:C</serviceId><SCPDURL>/C.xml</SCPDURL>" +
        "<controlURL>/ctl/C</controlURL><eventSubURL>/evt/C</eventSubURL>" +
        "</service></serviceList></device></root>\n",
    );
  });
});

describe("readDescription()", () => {
  const wrap = (inside: string, root = "root") => `<${root}><device>${inside}</device></${root}>`;
  const entry = (type: string, url = "/c") =>
    `<service><serviceType>${type}</serviceType><controlURL>${url}</controlURL></service>`;

  it("lists the services of all devices, the outer ones first", () => {
    assertEquals(allServices(GATEWAY).map(({ serviceType }) => serviceType), [
      IGD_SERVICE.FORWARDING_1,
      IGD_SERVICE.COMMON_1,
      IGD_SERVICE.WAN_IP_1,
    ]);
  });

  it("takes devices and services of any namespace (quirk 29)", () => {
    const type = "urn:dslforum-org:service:WANIPConnection:1";
    const text = wrap(
      "<deviceType>urn:dslforum-org:device:InternetGatewayDevice:1</deviceType>" +
        `<serviceList>${entry(type)}</serviceList>`,
    );

    assertEquals(read(text).device.deviceType, "urn:dslforum-org:device:InternetGatewayDevice:1");
    assertEquals(types(text), [type]);
  });

  it("lives with lists that are empty, missing, or there twice (quirk 30)", () => {
    assertEquals(types(wrap("")), []);
    assertEquals(types(wrap("<serviceList/><deviceList></deviceList>")), []);
    assertEquals(
      types(wrap("<serviceList>\n</serviceList><deviceList><device/></deviceList>")),
      [],
    );
    const twice = `<serviceList>${entry("a")}</serviceList><serviceList>${
      entry("b")
    }</serviceList>`;
    assertEquals(types(wrap(twice)), ["a", "b"]);
  });

  it("finds several connections, in their order (quirks 31, 32)", () => {
    const connection = (type: string, url: string) =>
      `<device><serviceList>${entry(type, url)}</serviceList></device>`;
    const text = wrap(
      `<deviceList>${connection(IGD_SERVICE.WAN_IP_1, "/ip")}` +
        `${connection(IGD_SERVICE.WAN_PPP_1, "/ppp")}</deviceList>`,
    );

    const found = allServices(read(text).device).map((each) => [each.serviceType, each.controlUrl]);
    assertEquals(found, [[IGD_SERVICE.WAN_IP_1, "/ip"], [IGD_SERVICE.WAN_PPP_1, "/ppp"]]);
  });

  it("leaves out a service that cannot be called, and keeps its neighbours", () => {
    const broken = "<service><serviceType>x</serviceType></service>" +
      "<service><controlURL>/x</controlURL></service><service/>";

    assertEquals(types(wrap(`<serviceList>${broken}${entry("a")}</serviceList>`)), ["a"]);
  });

  it("needs no description of a service, nor events (quirk 34)", () => {
    const [only] = allServices(read(wrap(`<serviceList>${entry("a")}</serviceList>`)).device);

    assertEquals(only, {
      serviceType: "a",
      serviceId: "",
      controlUrl: "/c",
      eventUrl: "",
      scpdUrl: "",
    });
  });

  it("takes prefixes, attributes, odd UUIDs and white space (quirks 33, 37, 38)", () => {
    const text =
      '<d:root xmlns:d="urn:x"><d:device x="1"><d:UDN dt:dt="string">\n uuid:zz \n</d:UDN>' +
      `<d:serviceList>${entry("\n a \n", " /c?x&y ")}</d:serviceList></d:device></d:root>`;

    assertEquals(read(text).device.udn, "uuid:zz");
    assertEquals(allServices(read(text).device)[0]?.controlUrl, "/c?x&y");
    assertEquals(types(text), ["a"]);
  });

  it("keeps what a body that stops in the middle still tells (quirk 22)", () => {
    const whole = wrap(`<serviceList>${entry("a")}${entry("b")}</serviceList>`);

    assertEquals(types(whole.slice(0, whole.indexOf("</service></serviceList>"))), ["a", "b"]);
    assertEquals(types(whole.slice(0, whole.lastIndexOf("<controlURL>"))), ["a"]);
  });

  it("names what is none", () => {
    const fault = (text: string) => readDescription(bytes(text));

    assertEquals(fault("<html><body>Not Found</body></html>"), "no-device");
    assertEquals(fault(""), "not-xml");
    assertEquals(fault(`<root>${"x".repeat(262_144)}</root>`), "too-long");
    assertEquals(fault("<device><deviceList>".repeat(20)), "too-deep");
    assertEquals(readDescription(bytes(wrap("")), { maxBytes: 10 }), "too-long");
  });
});

describe("readScpd() and writeScpd()", () => {
  const SCPD = {
    actions: [
      { name: "Reset", arguments: [] },
      {
        name: "SetVolume",
        arguments: [
          {
            name: "Channel",
            direction: "in",
            relatedVariable: "A_Channel",
            type: "string",
            allowedValues: ["Left", "Right"],
          },
          { name: "Old", direction: "out", relatedVariable: "Volume", type: "ui2" },
        ],
      },
    ],
    variables: [
      { name: "A_Channel", type: "string", isEvented: false, allowedValues: ["Left", "Right"] },
      { name: "Volume", type: "ui2", isEvented: true, defaultValue: "5" },
    ],
  } as const;

  it("are each other's reverse", () => assertEquals(readScpd(writeScpd(SCPD)), SCPD));

  it("writes to the letter", () => {
    const [reset] = SCPD.actions;
    const [channel] = SCPD.variables;

    assertEquals(
      new TextDecoder().decode(writeScpd({ actions: [reset], variables: [channel] })),
      '<?xml version="1.0"?>\n<scpd xmlns="urn:schemas-upnp-org:service-1-0"><specVersion>' +
        "<major>1</major><minor>0</minor></specVersion><actionList><action><name>Reset</name>" +
        '</action></actionList><serviceStateTable><stateVariable sendEvents="no">' +
        "<name>A_Channel</name><dataType>string</dataType><allowedValueList>" +
        "<allowedValue>Left</allowedValue><allowedValue>Right</allowedValue></allowedValueList>" +
        "</stateVariable></serviceStateTable></scpd>\n",
    );
  });

  it("takes one without namespace, types or order, and leaves out what has no name (quirk 38)", () => {
    const text = "<scpd><serviceStateTable><stateVariable/></serviceStateTable><actionList>" +
      "<action><name>A</name><argumentList><argument/><argument><name>X</name>" +
      "<direction>OUT</direction></argument><argument><name>Y</name></argument></argumentList>" +
      "</action><action/></actionList></scpd>";

    assertEquals(readScpd(bytes(text)), {
      actions: [{
        name: "A",
        arguments: [
          { name: "X", direction: "out", relatedVariable: "", type: "" },
          { name: "Y", direction: "in", relatedVariable: "", type: "" },
        ],
      }],
      variables: [],
    });
  });

  it("takes a variable for evented unless it says no", () => {
    const text = (attributes: string) =>
      `<scpd><serviceStateTable><stateVariable ${attributes}><name>A</name></stateVariable>` +
      "</serviceStateTable></scpd>";
    const isEvented = (attributes: string) => {
      const scpd = readScpd(bytes(text(attributes)));
      return typeof scpd === "object" && scpd.variables[0]?.isEvented;
    };

    assertEquals(["", 'sendEvents="yes"', 'sendEvents="NO"'].map(isEvented), [true, true, false]);
  });

  it("names what is none", () => {
    assertEquals(readScpd(bytes("<scpd/>")), "no-service");
    assertEquals(readScpd(bytes("")), "not-xml");
  });
});
