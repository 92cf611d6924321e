/**
 * Descriptions (UPnP Device Architecture §2): what a device is and which services it has, and what
 * actions a service has (its SCPD). Read from anything that resembles one, written to the letter.
 *
 * Devices and services are told by their lists alone, whatever their namespace; an entry that lacks
 * what it is for is left out, and what is good beside it stays.
 *
 * @module
 */
import { child, childText, escapeXml, findElement, parseXml } from "./xml.ts";
import type { XmlElement, XmlFault, XmlLimits } from "./xml.ts";

/** A service of a device. URLs stand as the device wrote them. */
export interface Service {
  /** `urn:schemas-upnp-org:service:WANIPConnection:1`. */
  readonly serviceType: string;
  /** `urn:upnp-org:serviceId:WANIPConn1`. */
  readonly serviceId: string;
  /** Where actions are called. */
  readonly controlUrl: string;
  /** Where events are subscribed to; `""` where there are none. */
  readonly eventUrl: string;
  /** Where its own description is; `""` where it has none. */
  readonly scpdUrl: string;
}

/** A device, with the devices in it. */
export interface Device {
  /** `urn:schemas-upnp-org:device:InternetGatewayDevice:1`. */
  readonly deviceType: string;
  /** Its name for people. */
  readonly friendlyName: string;
  /** Who made it. */
  readonly manufacturer: string;
  /** What it is called by who made it. */
  readonly modelName: string;
  /** `uuid:…`; there are devices whose UUID is none. */
  readonly udn: string;
  /** The URL of its page for people, as the device wrote it, where it has one. */
  readonly presentationUrl?: string;
  /** Its services. */
  readonly services: readonly Service[];
  /** The devices in it. */
  readonly devices: readonly Device[];
}

/** The largest description that is taken, bytes. */
export const DESCRIPTION_MAX_BYTES = 262_144;

/** A description. */
export interface Description {
  /** The root device. */
  readonly device: Device;
  /** What URLs are relative to where it is not the description's own URL (UPnP 1.0). */
  readonly urlBase: string;
}

/** Why bytes are no description. */
export type DescriptionFault =
  | XmlFault
  /** XML without a device. */
  | "no-device"
  /** XML that describes no service. */
  | "no-service";

/** An argument of an action. */
export interface Argument {
  /** `NewExternalPort`. */
  readonly name: string;
  /** Whether it is given or returned. */
  readonly direction: "in" | "out";
  /** The state variable that tells its type. */
  readonly relatedVariable: string;
  /** UPnP's name of its data type: `ui2`, `string`, `boolean`…; `""` where it is not told. */
  readonly type: string;
  /** The values that it may have, where they are listed. */
  readonly allowedValues?: readonly string[];
}

/** An action of a service. */
export interface ServiceAction {
  /** `AddPortMapping`. */
  readonly name: string;
  /** In the order in which they are to be given. */
  readonly arguments: readonly Argument[];
}

/** A state variable of a service. */
export interface StateVariable {
  /** `ExternalIPAddress`. */
  readonly name: string;
  /** UPnP's name of its data type. */
  readonly type: string;
  /** Whether its changes are told to who subscribes. */
  readonly isEvented: boolean;
  /** The values that it may have, where they are listed. */
  readonly allowedValues?: readonly string[];
  /** What it is at first. */
  readonly defaultValue?: string;
}

/** A service's own description. */
export interface Scpd {
  /** What it can be asked. */
  readonly actions: readonly ServiceAction[];
  /** What it knows. */
  readonly variables: readonly StateVariable[];
}

/**
 * Reads a device description.
 *
 * @example
 * ```ts
 * import { allServices, readDescription } from "@natkit/natkit/upnp";
 * const text = `<root><device><UDN>uuid:1</UDN><serviceList><service>
 *   <serviceType>urn:x:service:A:1</serviceType><controlURL>/ctl</controlURL>
 * </service></serviceList></device></root>`;
 * const description = readDescription(new TextEncoder().encode(text));
 * if (typeof description === "string") throw new Error(description);
 * console.assert(allServices(description.device)[0]?.controlUrl === "/ctl");
 * ```
 */
export function readDescription(
  bytes: Uint8Array,
  limits: XmlLimits = {},
): Description | DescriptionFault {
  const root = parseXml(bytes, limits);
  if (typeof root === "string") return root;
  const device = findElement(root, "device");
  if (!device) return "no-device";
  return { device: readDevice(device), urlBase: childText(root, "URLBase") };
}

function readDevice(element: XmlElement): Device {
  const text = (name: string) => childText(element, name);
  const presentationUrl = text("presentationURL");
  return {
    deviceType: text("deviceType"),
    friendlyName: text("friendlyName"),
    manufacturer: text("manufacturer"),
    modelName: text("modelName"),
    udn: text("UDN"),
    ...presentationUrl !== "" && { presentationUrl },
    services: listed(element, "serviceList", "service").map(readService)
      .filter(({ serviceType, controlUrl }) => serviceType !== "" && controlUrl !== ""),
    devices: listed(element, "deviceList", "device").map(readDevice),
  };
}

function readService(element: XmlElement): Service {
  return {
    serviceType: childText(element, "serviceType"),
    serviceId: childText(element, "serviceId"),
    controlUrl: childText(element, "controlURL"),
    eventUrl: childText(element, "eventSubURL"),
    scpdUrl: childText(element, "SCPDURL"),
  };
}

/** The entries of all lists of that name: there are devices that open a list for each. */
function listed(element: XmlElement, list: string, entry: string): readonly XmlElement[] {
  return element.children.filter(({ name }) => name === list)
    .flatMap(({ children }) => children.filter(({ name }) => name === entry));
}

/** All services of a device and of those in it, the device's own first. */
export function allServices(device: Device): readonly Service[] {
  return [...device.services, ...device.devices.flatMap(allServices)];
}

/** Reads a service description. */
export function readScpd(bytes: Uint8Array, limits: XmlLimits = {}): Scpd | DescriptionFault {
  const root = parseXml(bytes, limits);
  if (typeof root === "string") return root;
  if (!findElement(root, "actionList") && !findElement(root, "serviceStateTable")) {
    return "no-service";
  }
  const variables = listed(root, "serviceStateTable", "stateVariable").map(readVariable)
    .filter(({ name }) => name !== "");
  const byName = new Map(variables.map((variable) => [variable.name, variable]));
  const actions = listed(root, "actionList", "action").map((action) => ({
    name: childText(action, "name"),
    arguments: listed(action, "argumentList", "argument").map((argument) =>
      readArgument(argument, byName)
    ).filter(({ name }) => name !== ""),
  })).filter(({ name }) => name !== "");
  return { actions, variables };
}

function readVariable(element: XmlElement): StateVariable {
  const allowed = child(element, "allowedValueList");
  const initial = child(element, "defaultValue");
  const sends = element.attributes.find(([name]) => name === "sendEvents")?.[1];
  return {
    name: childText(element, "name"),
    type: childText(element, "dataType"),
    isEvented: sends?.toLowerCase() !== "no",
    ...(allowed && { allowedValues: allowed.children.map(({ text }) => text) }),
    ...(initial && { defaultValue: initial.text }),
  };
}

function readArgument(
  element: XmlElement,
  variables: ReadonlyMap<string, StateVariable>,
): Argument {
  const relatedVariable = childText(element, "relatedStateVariable");
  const variable = variables.get(relatedVariable);
  return {
    name: childText(element, "name"),
    direction: childText(element, "direction").toLowerCase() === "out" ? "out" : "in",
    relatedVariable,
    type: variable?.type ?? "",
    ...(variable?.allowedValues && { allowedValues: variable.allowedValues }),
  };
}

function tag(name: string, text: string): string {
  return `<${name}>${escapeXml(text)}</${name}>`;
}

function list(name: string, entries: readonly string[]): string {
  return entries.length === 0 ? "" : `<${name}>${entries.join("")}</${name}>`;
}

function document(text: string): Uint8Array {
  return new TextEncoder().encode(`<?xml version="1.0"?>\n${text}\n`);
}

/**
 * Writes a device description.
 *
 * @param urlBase What URLs are relative to; left out where they are to the description's own.
 */
export function writeDescription({ device, urlBase }: Description): Uint8Array {
  const base = urlBase === "" ? "" : tag("URLBase", urlBase);
  return document(
    '<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major>' +
      `<minor>0</minor></specVersion>${base}${deviceText(device)}</root>`,
  );
}

function deviceText(device: Device): string {
  return [
    "<device>",
    tag("deviceType", device.deviceType),
    tag("friendlyName", device.friendlyName),
    tag("manufacturer", device.manufacturer),
    tag("modelName", device.modelName),
    tag("UDN", device.udn),
    list("serviceList", device.services.map(serviceText)),
    list("deviceList", device.devices.map(deviceText)),
    device.presentationUrl === undefined ? "" : tag("presentationURL", device.presentationUrl),
    "</device>",
  ].join("");
}

function serviceText(service: Service): string {
  return [
    "<service>",
    tag("serviceType", service.serviceType),
    tag("serviceId", service.serviceId),
    tag("SCPDURL", service.scpdUrl),
    tag("controlURL", service.controlUrl),
    tag("eventSubURL", service.eventUrl),
    "</service>",
  ].join("");
}

/** Writes a service description. */
export function writeScpd({ actions, variables }: Scpd): Uint8Array {
  return document(
    '<scpd xmlns="urn:schemas-upnp-org:service-1-0"><specVersion><major>1</major>' +
      "<minor>0</minor></specVersion>" +
      list("actionList", actions.map(actionText)) +
      list("serviceStateTable", variables.map(variableText)) + "</scpd>",
  );
}

function actionText({ name, arguments: all }: ServiceAction): string {
  const entries = all.map(({ name, direction, relatedVariable }) =>
    `<argument>${tag("name", name)}${tag("direction", direction)}` +
    `${tag("relatedStateVariable", relatedVariable)}</argument>`
  );
  return `<action>${tag("name", name)}${list("argumentList", entries)}</action>`;
}

function variableText({ name, type, isEvented, allowedValues, defaultValue }: StateVariable) {
  const allowed = (allowedValues ?? []).map((value) => tag("allowedValue", value));
  return `<stateVariable sendEvents="${isEvented ? "yes" : "no"}">${tag("name", name)}` +
    tag("dataType", type) +
    (defaultValue === undefined ? "" : tag("defaultValue", defaultValue)) +
    `${list("allowedValueList", allowed)}</stateVariable>`;
}
