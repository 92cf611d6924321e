/**
 * UPnP: searching for devices (SSDP), their descriptions, calling their actions (SOAP), events (GENA).
 *
 * @example What a gateway is asked, and what it answers
 * ```ts
 * import { decodeResult, encodeCall, encodeResult, IGD_SERVICE } from "@natkit/natkit/upnp";
 * const service = IGD_SERVICE.WAN_IP_1;
 * const action = "GetExternalIPAddress";
 * const request = encodeCall({ service, action, args: {} }, "/ctl/IPConn");
 * console.assert(request.method === "POST");
 * const answer = encodeResult({ service, action, args: { NewExternalIPAddress: "203.0.113.7" } });
 * const result = decodeResult(answer);
 * console.assert(typeof result === "object" && result.ok);
 * ```
 *
 * @module
 */
export * from "./ssdp.ts";
export * from "./url.ts";
export * from "./description.ts";
export * from "./soap.ts";
export * from "./gena.ts";
export * from "./igd.ts";
export * from "./xml.ts";
export * from "./search.ts";
export {
  IgdClient,
  type IgdClientOptions,
  type IgdClientStats,
  type IgdEvent,
  type IgdMapping,
  type PortMappingEntry,
} from "./client.ts";
export type { BegunSearch } from "./igd_search.ts";
export * from "./control_point.ts";
export type * from "../lease/types.ts";
