import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { readScpd, writeScpd } from "../../../core/upnp/description.ts";
import { IGD_SERVICE, igdService, upnpErrorName } from "../../../core/upnp/igd.ts";
import { argumentNames, IGD_ACTIONS, igdScpd } from "../../../core/upnp/igd_scpd.ts";

describe("igdService()", () => {
  it("tells services and versions, whoever's namespace it is (quirk 29)", () => {
    const told = Object.values(IGD_SERVICE).map((type) => Object.values(igdService(type) ?? {}));

    assertEquals(told, [
      ["WANIPConnection", 1],
      ["WANIPConnection", 2],
      ["WANPPPConnection", 1],
      ["WANIPv6FirewallControl", 1],
      ["WANCommonInterfaceConfig", 1],
      ["Layer3Forwarding", 1],
    ]);
    assertEquals(
      igdService("urn:dslforum-org:service:WANPPPConnection:1")?.kind,
      "WANPPPConnection",
    );
    for (
      const other of [
        "urn:schemas-upnp-org:service:ContentDirectory:1",
        "urn:schemas-upnp-org:service:WANIPConnection",
        "urn:schemas-upnp-org:service:WANIPConnection:x",
        "urn:schemas-upnp-org:device:WANIPConnection:1",
        "WANIPConnection:1",
        "",
      ]
    ) {
      assertEquals(igdService(other), undefined, other);
    }
  });
});

describe("upnpErrorName()", () => {
  it("names the codes of all services", () => {
    assertEquals([402, 606, 718, 725, 704].map(upnpErrorName), [
      "InvalidArgs",
      "ActionNotAuthorized",
      "ConflictInMappingEntry",
      "OnlyPermanentLeasesSupported",
      "NoSuchEntry",
    ]);
    assertEquals([0, 799, 900].map(upnpErrorName), ["ERROR_0", "ERROR_799", "ERROR_900"]);
  });
});

describe("IGD_ACTIONS", () => {
  const names = (kind: keyof typeof IGD_ACTIONS, action: string) => {
    const { in: given = [], out = [] } = IGD_ACTIONS[kind][action] ?? {};
    return [argumentNames(given).join(" "), argumentNames(out).join(" ")];
  };

  it("has arguments in the order that devices insist on", () => {
    const key = "NewRemoteHost NewExternalPort NewProtocol";
    const target = "NewInternalPort NewInternalClient NewEnabled NewPortMappingDescription " +
      "NewLeaseDuration";
    const range = "NewStartPort NewEndPort NewProtocol NewManage";

    for (const kind of ["WANIPConnection", "WANPPPConnection"] as const) {
      assertEquals(names(kind, "AddPortMapping"), [`${key} ${target}`, ""]);
      assertEquals(names(kind, "AddAnyPortMapping"), [`${key} ${target}`, "NewReservedPort"]);
      assertEquals(names(kind, "DeletePortMapping"), [key, ""]);
      assertEquals(names(kind, "DeletePortMappingRange"), [range, ""]);
      assertEquals(names(kind, "GetSpecificPortMappingEntry"), [key, target]);
      assertEquals(names(kind, "GetGenericPortMappingEntry"), [
        "NewPortMappingIndex",
        `${key} ${target}`,
      ]);
      assertEquals(names(kind, "GetListOfPortMappings"), [
        `${range} NewNumberOfPorts`,
        "NewPortListing",
      ]);
      assertEquals(names(kind, "GetExternalIPAddress"), ["", "NewExternalIPAddress"]);
    }
  });

  it("has no New before a pinhole's arguments, but in one", () => {
    const pinhole = "RemoteHost RemotePort InternalClient InternalPort Protocol";

    assertEquals(names("WANIPv6FirewallControl", "AddPinhole"), [
      `${pinhole} LeaseTime`,
      "UniqueID",
    ]);
    assertEquals(names("WANIPv6FirewallControl", "UpdatePinhole"), ["UniqueID NewLeaseTime", ""]);
    assertEquals(names("WANIPv6FirewallControl", "GetOutboundPinholeTimeout"), [
      pinhole,
      "OutboundPinholeTimeout",
    ]);
  });
});

describe("igdScpd()", () => {
  const actions = (kind: keyof typeof IGD_ACTIONS, version: number) =>
    igdScpd(kind, version).actions.map(({ name }) => name);

  it("leaves out what a version does not have", () => {
    const second = ["DeletePortMappingRange", "GetListOfPortMappings", "AddAnyPortMapping"];

    assertEquals(
      actions("WANIPConnection", 2).filter((name) => !actions("WANIPConnection", 1).includes(name)),
      second,
    );
    const variable = igdScpd("WANIPConnection", 2).variables.map(({ name }) => name);
    assertEquals(variable.includes("SystemUpdateID"), true);
    const first = igdScpd("WANIPConnection", 1).variables.map(({ name }) => name);
    assertEquals(first.some((name) => /SystemUpdateID|A_ARG_TYPE/.test(name)), false);
  });

  it("tells a type for each argument, by a variable that it lists", () => {
    for (const kind of Object.keys(IGD_ACTIONS) as (keyof typeof IGD_ACTIONS)[]) {
      const scpd = igdScpd(kind, 2);
      const types = new Map(scpd.variables.map(({ name, type }) => [name, type]));
      for (
        const { name, direction, relatedVariable, type } of scpd.actions.flatMap((a) => a.arguments)
      ) {
        assertEquals(types.get(relatedVariable), type, `${kind} ${direction} ${name}`);
      }
      assertEquals(readScpd(writeScpd(scpd)), scpd);
    }
  });

  it("tells numbers from text, and what a protocol may be", () => {
    const add = igdScpd("WANIPConnection", 1).actions.find(({ name }) => name === "AddPortMapping");

    assertEquals(add?.arguments.map(({ type }) => type), [
      "string",
      "ui2",
      "string",
      "ui2",
      "string",
      "boolean",
      "string",
      "ui4",
    ]);
    assertEquals(add?.arguments[2]?.allowedValues, ["TCP", "UDP"]);
    const pinhole = igdScpd("WANIPv6FirewallControl", 1).actions.find(({ name }) =>
      name === "AddPinhole"
    );
    assertEquals(pinhole?.arguments.map(({ type }) => type), [
      "string",
      "ui2",
      "string",
      "ui2",
      "ui2",
      "ui4",
      "ui2",
    ]);
  });
});
