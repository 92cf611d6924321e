/**
 * UPnP: a client for the services of any device, and what it is made of: searching (SSDP),
 * descriptions, calling actions (SOAP), events (GENA), the words of gateways.
 *
 * @example Every service of every device of this network
 * ```ts ignore
 * import { UpnpClient } from "@natkit/natkit/upnp";
 *
 * await using client = await UpnpClient.open();
 * for await (const service of client.services()) {
 *   console.log(service.device.friendlyName, service.serviceType);
 * }
 * ```
 *
 * @module
 */
export {
  type FollowOptions,
  type ScanOptions,
  UpnpClient,
  type UpnpClientOptions,
  UpnpError,
  type UpnpProperties,
  UpnpService,
} from "./api/upnp_client.ts";
export type { WaitOptions } from "./api/wait.ts";
export type * from "./runtime.ts";
export type { RandomSource } from "../core/random.ts";
export {
  type Attempt,
  NatError,
  type NatErrorCode,
  type NatErrorOptions,
  type Via,
} from "../core/errors.ts";
export * from "../core/upnp/mod.ts";
