/**
 * The port mapper: mappings at this host's gateways by whatever protocol they speak.
 *
 * @module
 */
export type {
  Assignment,
  GrantedMapping,
  MapperEvent,
  PortRequest,
  SavedPort,
  WatchRequest,
} from "./managed.ts";
export {
  type DetourReport,
  diagnose,
  type Diagnosis,
  type DiagnosisFacts,
  type Finding,
  type FindingCode,
  type GatewayReport,
  type NatReport,
  type ProtocolReport,
  type ReflexiveReport,
} from "./diagnosis.ts";
export type { PortMappingEntry } from "../upnp/client.ts";
export type { BegunSearch } from "../upnp/igd_search.ts";
export type {
  ClientEvent,
  ClientMapping,
  ClientOptions,
  MakeClient,
  MappingClient,
} from "./client.ts";
export type { PairRequest } from "./pair.ts";
export type { NetworkPath } from "./path.ts";
export { makeIgdClient } from "./upnp.ts";
export { PortMapper, type PortMapperOptions, type PortMapperStats } from "./mapper.ts";
