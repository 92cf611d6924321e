/**
 * The actions of Internet gateway devices with their arguments, in the order that devices and control
 * points insist on: what a gateway's own descriptions are written from.
 *
 * @module
 */
import type { Argument, Scpd, ServiceAction, StateVariable } from "./description.ts";
import type { IgdServiceKind } from "./igd.ts";

/** `NAME` or `NAME=VARIABLE`, where the variable is called otherwise than the argument without "New". */
type ArgumentText = string;

/** An action of a gateway's service. */
export interface IgdAction {
  /** The arguments that are given, in this order. */
  readonly in: readonly ArgumentText[];
  /** The arguments that are returned. */
  readonly out: readonly ArgumentText[];
  /** The version of the service that brought it; default 1. */
  readonly since?: 2;
}

const MAPPING = [
  "NewRemoteHost",
  "NewExternalPort",
  "NewProtocol=PortMappingProtocol",
];
const TARGET = [
  "NewInternalPort",
  "NewInternalClient",
  "NewEnabled=PortMappingEnabled",
  "NewPortMappingDescription",
  "NewLeaseDuration=PortMappingLeaseDuration",
];
const RANGE = [
  "NewStartPort=ExternalPort",
  "NewEndPort=ExternalPort",
  "NewProtocol=PortMappingProtocol",
  "NewManage=A_ARG_TYPE_Manage",
];
const PINHOLE = [
  "RemoteHost=A_ARG_TYPE_IPv6Address",
  "RemotePort=A_ARG_TYPE_Port",
  "InternalClient=A_ARG_TYPE_IPv6Address",
  "InternalPort=A_ARG_TYPE_Port",
  "Protocol=A_ARG_TYPE_Protocol",
];
const UNIQUE_ID = "UniqueID=A_ARG_TYPE_UniqueID";

const CONNECTION_ACTIONS = {
  SetConnectionType: { in: ["NewConnectionType"], out: [] },
  GetConnectionTypeInfo: { in: [], out: ["NewConnectionType", "NewPossibleConnectionTypes"] },
  RequestConnection: { in: [], out: [] },
  ForceTermination: { in: [], out: [] },
  GetStatusInfo: {
    in: [],
    out: ["NewConnectionStatus", "NewLastConnectionError", "NewUptime"],
  },
  GetNATRSIPStatus: { in: [], out: ["NewRSIPAvailable", "NewNATEnabled"] },
  GetGenericPortMappingEntry: {
    in: ["NewPortMappingIndex=PortMappingNumberOfEntries"],
    out: [...MAPPING, ...TARGET],
  },
  GetSpecificPortMappingEntry: { in: MAPPING, out: TARGET },
  AddPortMapping: { in: [...MAPPING, ...TARGET], out: [] },
  DeletePortMapping: { in: MAPPING, out: [] },
  GetExternalIPAddress: { in: [], out: ["NewExternalIPAddress"] },
  DeletePortMappingRange: { in: RANGE, out: [], since: 2 },
  GetListOfPortMappings: {
    in: [...RANGE, "NewNumberOfPorts=PortMappingNumberOfEntries"],
    out: ["NewPortListing=A_ARG_TYPE_PortListing"],
    since: 2,
  },
  AddAnyPortMapping: {
    in: [...MAPPING, ...TARGET],
    out: ["NewReservedPort=ExternalPort"],
    since: 2,
  },
} as const satisfies Record<string, IgdAction>;

/** The actions of each service of a gateway. */
export const IGD_ACTIONS: Readonly<Record<IgdServiceKind, Readonly<Record<string, IgdAction>>>> = {
  WANIPConnection: CONNECTION_ACTIONS,
  WANPPPConnection: {
    ...CONNECTION_ACTIONS,
    GetLinkLayerMaxBitRates: { in: [], out: ["NewUpstreamMaxBitRate", "NewDownstreamMaxBitRate"] },
  },
  WANIPv6FirewallControl: {
    GetFirewallStatus: {
      in: [],
      out: ["FirewallEnabled", "InboundPinholeAllowed"],
    },
    GetOutboundPinholeTimeout: {
      in: PINHOLE,
      out: ["OutboundPinholeTimeout=A_ARG_TYPE_OutboundPinholeTimeout"],
    },
    AddPinhole: { in: [...PINHOLE, "LeaseTime=A_ARG_TYPE_LeaseTime"], out: [UNIQUE_ID] },
    UpdatePinhole: { in: [UNIQUE_ID, "NewLeaseTime=A_ARG_TYPE_LeaseTime"], out: [] },
    DeletePinhole: { in: [UNIQUE_ID], out: [] },
    GetPinholePackets: { in: [UNIQUE_ID], out: ["PinholePackets=A_ARG_TYPE_PinholePackets"] },
    CheckPinholeWorking: { in: [UNIQUE_ID], out: ["IsWorking=A_ARG_TYPE_Boolean"] },
  },
  WANCommonInterfaceConfig: {
    GetCommonLinkProperties: {
      in: [],
      out: [
        "NewWANAccessType",
        "NewLayer1UpstreamMaxBitRate",
        "NewLayer1DownstreamMaxBitRate",
        "NewPhysicalLinkStatus",
      ],
    },
    GetTotalBytesSent: { in: [], out: ["NewTotalBytesSent"] },
    GetTotalBytesReceived: { in: [], out: ["NewTotalBytesReceived"] },
    GetTotalPacketsSent: { in: [], out: ["NewTotalPacketsSent"] },
    GetTotalPacketsReceived: { in: [], out: ["NewTotalPacketsReceived"] },
  },
  Layer3Forwarding: {
    SetDefaultConnectionService: { in: ["NewDefaultConnectionService"], out: [] },
    GetDefaultConnectionService: { in: [], out: ["NewDefaultConnectionService"] },
  },
};

/** The names of an action's arguments alone. */
export function argumentNames(texts: readonly ArgumentText[]): readonly string[] {
  return texts.map((text) => text.split("=")[0]!);
}

/** The variables that are no text, by type. */
const TYPES: Readonly<Record<string, readonly string[]>> = {
  ui2: [
    "ExternalPort",
    "InternalPort",
    "PortMappingNumberOfEntries",
    "A_ARG_TYPE_Port",
    "A_ARG_TYPE_Protocol",
    "A_ARG_TYPE_UniqueID",
  ],
  ui4: [
    "PortMappingLeaseDuration",
    "Uptime",
    "SystemUpdateID",
    "UpstreamMaxBitRate",
    "DownstreamMaxBitRate",
    "Layer1UpstreamMaxBitRate",
    "Layer1DownstreamMaxBitRate",
    "TotalBytesSent",
    "TotalBytesReceived",
    "TotalPacketsSent",
    "TotalPacketsReceived",
    "A_ARG_TYPE_LeaseTime",
    "A_ARG_TYPE_PinholePackets",
    "A_ARG_TYPE_OutboundPinholeTimeout",
  ],
  boolean: [
    "PortMappingEnabled",
    "RSIPAvailable",
    "NATEnabled",
    "FirewallEnabled",
    "InboundPinholeAllowed",
    "A_ARG_TYPE_Manage",
    "A_ARG_TYPE_Boolean",
  ],
};

/** Variables whose changes are told to who subscribes. */
const EVENTED = [
  "PossibleConnectionTypes",
  "ConnectionStatus",
  "ExternalIPAddress",
  "PortMappingNumberOfEntries",
  "SystemUpdateID",
  "PhysicalLinkStatus",
  "DefaultConnectionService",
  "FirewallEnabled",
  "InboundPinholeAllowed",
];

const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  PortMappingProtocol: ["TCP", "UDP"],
  ConnectionStatus: [
    "Unconfigured",
    "Connecting",
    "Connected",
    "PendingDisconnect",
    "Disconnecting",
    "Disconnected",
  ],
  PhysicalLinkStatus: ["Up", "Down", "Initializing", "Unavailable"],
};

/** The description of a gateway's service, as its version has it. */
export function igdScpd(kind: IgdServiceKind, version: number): Scpd {
  const variables = new Map<string, StateVariable>();
  const add = (name: string): string => {
    const allowedValues = ALLOWED[name];
    variables.set(name, {
      name,
      type: Object.keys(TYPES).find((type) => TYPES[type]!.includes(name)) ?? "string",
      isEvented: EVENTED.includes(name),
      ...(allowedValues && { allowedValues }),
    });
    return name;
  };
  const describe = (direction: "in" | "out") => (text: ArgumentText): Argument => {
    const [name = "", variable = name.replace(/^New/, "")] = text.split("=");
    const relatedVariable = add(variable);
    const { type, allowedValues } = variables.get(variable)!;
    return { name, direction, relatedVariable, type, ...(allowedValues && { allowedValues }) };
  };
  const actions = Object.entries(IGD_ACTIONS[kind])
    .filter(([, { since = 1 }]) => version >= since)
    .map(([name, action]): ServiceAction => ({
      name,
      arguments: [...action.in.map(describe("in")), ...action.out.map(describe("out"))],
    }));
  if (kind === "WANIPConnection" && version >= 2) add("SystemUpdateID");
  return { actions, variables: [...variables.values()] };
}
