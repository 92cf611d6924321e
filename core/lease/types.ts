/**
 * The types that the signatures of every client machine name, for the entry points that have one.
 *
 * @module
 */
export type * from "../machine.ts";
export type {
  Failure,
  GrantedPortSet,
  GrantEvent,
  MappingEvent,
  MappingId,
  MappingMode,
  MappingRequest,
  MappingState,
  PortSetRequest,
  RemoteFilter,
  SuggestedExternal,
  Transport,
} from "../mapping.ts";
export type { LeaseClient, LeaseEvent } from "./client.ts";
export type { InnerMapping, SavedMapping, SavedState } from "./saved.ts";
export type { RandomSource } from "../random.ts";
