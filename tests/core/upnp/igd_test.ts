import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { readScpd, writeScpd } from "../../../core/upnp/description.ts";
import {
  IGD2_MAX_LEASE_SECONDS,
  IGD_DEVICE,
  IGD_SERVICE,
  igdService,
  PINHOLE_MAX_LEASE_SECONDS,
  PORT_LISTING_NAMESPACE,
  upnpErrorName,
} from "../../../core/upnp/igd.ts";
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
    const names: Record<number, string> = {
      401: "InvalidAction",
      402: "InvalidArgs",
      404: "InvalidVar",
      501: "ActionFailed",
      600: "ArgumentValueInvalid",
      601: "ArgumentValueOutOfRange",
      602: "OptionalActionNotImplemented",
      603: "OutOfMemory",
      604: "HumanInterventionRequired",
      605: "StringArgumentTooLong",
      606: "ActionNotAuthorized",
      701: "PinholeSpaceExhausted",
      702: "FirewallDisabled",
      703: "InboundPinholeNotAllowed",
      704: "NoSuchEntry",
      705: "ProtocolNotSupported",
      706: "InternalPortWildcardingNotAllowed",
      707: "ProtocolWildcardingNotAllowed",
      708: "PinholeWildCardNotPermittedInSrcIP",
      709: "NoTrafficReceived",
      713: "SpecifiedArrayIndexInvalid",
      714: "NoSuchEntryInArray",
      715: "WildCardNotPermittedInSrcIP",
      716: "WildCardNotPermittedInExtPort",
      718: "ConflictInMappingEntry",
      724: "SamePortValuesRequired",
      725: "OnlyPermanentLeasesSupported",
      726: "RemoteHostOnlySupportsWildcard",
      727: "ExternalPortOnlySupportsWildcard",
      728: "NoPortMapsAvailable",
      729: "ConflictWithOtherMechanisms",
      730: "PortMappingNotFound",
      731: "ReadOnly",
      732: "WildCardNotPermittedInIntPort",
      733: "InconsistentParameters",
    };

    for (let code = 0; code < 1000; code++) {
      assertEquals(upnpErrorName(code), names[code] ?? `ERROR_${code}`);
    }
  });
});

describe("constants", () => {
  it("are the specifications'", () => {
    assertEquals(Object.values(IGD_SERVICE), [
      "urn:schemas-upnp-org:service:WANIPConnection:1",
      "urn:schemas-upnp-org:service:WANIPConnection:2",
      "urn:schemas-upnp-org:service:WANPPPConnection:1",
      "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1",
      "urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1",
      "urn:schemas-upnp-org:service:Layer3Forwarding:1",
    ]);
    const device = (name: string) => `urn:schemas-upnp-org:device:${name}`;
    assertEquals(Object.values(IGD_DEVICE), [
      device("InternetGatewayDevice:1"),
      device("InternetGatewayDevice:2"),
      device("WANDevice:1"),
      device("WANDevice:2"),
      device("WANConnectionDevice:1"),
      device("WANConnectionDevice:2"),
    ]);
    assertEquals([IGD2_MAX_LEASE_SECONDS, PINHOLE_MAX_LEASE_SECONDS], [604_800, 86_400]);
    assertEquals(PORT_LISTING_NAMESPACE, "urn:schemas-upnp-org:gw:WANIPConnection");
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

  it("has the types of the specifications, and tells the changes that they say", () => {
    const kinds = Object.keys(IGD_ACTIONS) as (keyof typeof IGD_ACTIONS)[];
    const all = kinds.flatMap((kind) => igdScpd(kind, 2).variables);
    const ofType = (type: string) =>
      [...new Set(all.filter((each) => each.type === type).map(({ name }) => name))].sort().join(
        " ",
      );

    assertEquals(
      ofType("ui2"),
      "A_ARG_TYPE_Port A_ARG_TYPE_Protocol A_ARG_TYPE_UniqueID ExternalPort InternalPort " +
        "PortMappingNumberOfEntries",
    );
    assertEquals(
      ofType("ui4"),
      "A_ARG_TYPE_LeaseTime A_ARG_TYPE_OutboundPinholeTimeout A_ARG_TYPE_PinholePackets " +
        "DownstreamMaxBitRate Layer1DownstreamMaxBitRate Layer1UpstreamMaxBitRate " +
        "PortMappingLeaseDuration SystemUpdateID TotalBytesReceived TotalBytesSent " +
        "TotalPacketsReceived TotalPacketsSent UpstreamMaxBitRate Uptime",
    );
    assertEquals(
      ofType("boolean"),
      "A_ARG_TYPE_Boolean A_ARG_TYPE_Manage FirewallEnabled InboundPinholeAllowed NATEnabled " +
        "PortMappingEnabled RSIPAvailable",
    );
    assertEquals(
      ofType("string"),
      "A_ARG_TYPE_IPv6Address A_ARG_TYPE_PortListing ConnectionStatus ConnectionType " +
        "DefaultConnectionService ExternalIPAddress InternalClient LastConnectionError " +
        "PhysicalLinkStatus PortMappingDescription PortMappingProtocol PossibleConnectionTypes " +
        "RemoteHost WANAccessType",
    );
    const evented = new Set(all.filter(({ isEvented }) => isEvented).map(({ name }) => name));
    assertEquals(
      [...evented].sort().join(" "),
      "ConnectionStatus DefaultConnectionService ExternalIPAddress FirewallEnabled " +
        "InboundPinholeAllowed PhysicalLinkStatus PortMappingNumberOfEntries " +
        "PossibleConnectionTypes SystemUpdateID",
    );
    const allowed = new Map(
      all.flatMap(({ name, allowedValues: values = [] }) =>
        values.length > 0 ? [[name, values.join(" ")] as const] : []
      ),
    );
    assertEquals([...allowed].sort(), [
      [
        "ConnectionStatus",
        "Unconfigured Connecting Connected PendingDisconnect Disconnecting Disconnected",
      ],
      ["PhysicalLinkStatus", "Up Down Initializing Unavailable"],
      ["PortMappingProtocol", "TCP UDP"],
    ]);
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
