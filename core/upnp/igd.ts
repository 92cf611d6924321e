/**
 * The words of Internet gateway devices (IGD:1 and IGD:2): types of devices and services, error codes,
 * limits. Their actions are in `igd_scpd.ts`.
 *
 * @module
 */

/** Types of devices. */
export const IGD_DEVICE = {
  /** An Internet gateway, version 1. */
  GATEWAY_1: "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
  /** An Internet gateway, version 2. */
  GATEWAY_2: "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
  /** Its side towards the Internet, version 1. */
  WAN_1: "urn:schemas-upnp-org:device:WANDevice:1",
  /** Its side towards the Internet, version 2. */
  WAN_2: "urn:schemas-upnp-org:device:WANDevice:2",
  /** One of its connections there, version 1. */
  CONNECTION_1: "urn:schemas-upnp-org:device:WANConnectionDevice:1",
  /** One of its connections there, version 2. */
  CONNECTION_2: "urn:schemas-upnp-org:device:WANConnectionDevice:2",
} as const;

/** Types of services. */
export const IGD_SERVICE = {
  /** Mappings of a connection that is routed, version 1. */
  WAN_IP_1: "urn:schemas-upnp-org:service:WANIPConnection:1",
  /** Mappings of a connection that is routed, version 2. */
  WAN_IP_2: "urn:schemas-upnp-org:service:WANIPConnection:2",
  /** Mappings of a connection over PPP. */
  WAN_PPP_1: "urn:schemas-upnp-org:service:WANPPPConnection:1",
  /** IPv6 pinholes. */
  FIREWALL_1: "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1",
  /** The line itself. */
  COMMON_1: "urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1",
  /** Which connection is the default route. */
  FORWARDING_1: "urn:schemas-upnp-org:service:Layer3Forwarding:1",
} as const;

/** What kind of service it is, whoever's namespace it is called in. */
export type IgdServiceKind =
  | "WANIPConnection"
  | "WANPPPConnection"
  | "WANIPv6FirewallControl"
  | "WANCommonInterfaceConfig"
  | "Layer3Forwarding";

const KINDS: readonly IgdServiceKind[] = [
  "WANIPConnection",
  "WANPPPConnection",
  "WANIPv6FirewallControl",
  "WANCommonInterfaceConfig",
  "Layer3Forwarding",
];

/**
 * Which of the services of a gateway a type names, and in which version; undefined for others.
 * Gateways of `urn:dslforum-org:` and of makers' own namespaces have the same.
 */
export function igdService(
  serviceType: string,
): { readonly kind: IgdServiceKind; readonly version: number } | undefined {
  const [, name, version] = /:service:(\w+):(\d{1,3})$/.exec(serviceType) ?? [];
  const kind = KINDS.find((candidate) => candidate === name);
  return kind && { kind, version: Number(version) };
}

/** Error codes of every service (UPnP Device Architecture §3.2.2). */
export const UPNP_ERROR = {
  /** No such action. */
  InvalidAction: 401,
  /** Arguments that are missing, too many, of the wrong type or in the wrong order. */
  InvalidArgs: 402,
  /** No such variable. */
  InvalidVar: 404,
  /** It cannot now: what many devices say to whatever they do not like. */
  ActionFailed: 501,
  /** A value that is none. */
  ArgumentValueInvalid: 600,
  /** A value out of range. */
  ArgumentValueOutOfRange: 601,
  /** The device does not have this action. */
  OptionalActionNotImplemented: 602,
  /** No memory for it. */
  OutOfMemory: 603,
  /** Somebody has to do something at the device. */
  HumanInterventionRequired: 604,
  /** A text that is too long. */
  StringArgumentTooLong: 605,
  /** Not this control point's to ask. */
  ActionNotAuthorized: 606,
} as const;

/** Error codes of WANIPConnection and WANPPPConnection. */
export const IGD_ERROR = {
  /** Past the last entry. */
  SpecifiedArrayIndexInvalid: 713,
  /** No such mapping. */
  NoSuchEntryInArray: 714,
  /** A remote host has to be named. */
  WildCardNotPermittedInSrcIP: 715,
  /** An external port has to be named. */
  WildCardNotPermittedInExtPort: 716,
  /** Another host has the port. */
  ConflictInMappingEntry: 718,
  /** Only external ports that equal the internal one. */
  SamePortValuesRequired: 724,
  /** Only lease 0. */
  OnlyPermanentLeasesSupported: 725,
  /** No remote host may be named. */
  RemoteHostOnlySupportsWildcard: 726,
  /** No external port may be named. */
  ExternalPortOnlySupportsWildcard: 727,
  /** No port is free (version 2). */
  NoPortMapsAvailable: 728,
  /** Something else has the port (version 2). */
  ConflictWithOtherMechanisms: 729,
  /** No mapping in that range (version 2). */
  PortMappingNotFound: 730,
  /** It cannot be changed (version 2). */
  ReadOnly: 731,
  /** An internal port has to be named (version 2). */
  WildCardNotPermittedInIntPort: 732,
  /** Values that do not fit together, as a range that ends before its start (version 2). */
  InconsistentParameters: 733,
} as const;

/** Error codes of WANIPv6FirewallControl. */
export const FIREWALL_ERROR = {
  /** No pinhole more. */
  PinholeSpaceExhausted: 701,
  /** There is no firewall: nothing has to be opened. */
  FirewallDisabled: 702,
  /** Pinholes are switched off. */
  InboundPinholeNotAllowed: 703,
  /** No such pinhole. */
  NoSuchEntry: 704,
  /** Not for this protocol. */
  ProtocolNotSupported: 705,
  /** An internal port has to be named. */
  InternalPortWildcardingNotAllowed: 706,
  /** A protocol has to be named. */
  ProtocolWildcardingNotAllowed: 707,
  /** A remote host has to be named. */
  PinholeWildCardNotPermittedInSrcIP: 708,
  /** Nothing went through the pinhole. */
  NoTrafficReceived: 709,
} as const;

const ERROR_NAMES: ReadonlyMap<number, string> = new Map(
  [UPNP_ERROR, IGD_ERROR, FIREWALL_ERROR].flatMap((codes) =>
    Object.entries(codes).map(([name, code]) => [code, name] as const)
  ),
);

/** The name of a gateway's error code; `"ERROR_n"` where it has none. */
export function upnpErrorName(code: number): string {
  return ERROR_NAMES.get(code) ?? `ERROR_${code}`;
}

/** The longest lease of version 2, seconds; lease 0 means this there (a week). */
export const IGD2_MAX_LEASE_SECONDS = 604_800;
/** The longest lease of a pinhole, seconds (a day); there is no pinhole for good. */
export const PINHOLE_MAX_LEASE_SECONDS = 86_400;
/** The namespace of the list that GetListOfPortMappings returns as a text. */
export const PORT_LISTING_NAMESPACE = "urn:schemas-upnp-org:gw:WANIPConnection";
