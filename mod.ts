/**
 * natkit makes a program behind a NAT reachable: it opens ports on the home gateway by PCP,
 * NAT-PMP and UPnP, keeps them open through reboots, sleep and network changes, tells the program its
 * addresses, and punches holes between two NATs. Deno, Node and Bun.
 *
 * @example Open a port
 * ```ts
 * import { openPort } from "@natkit/natkit";
 * import { startGateway } from "@natkit/natkit/testing";
 *
 * // A simulated gateway stands in for the one at home: leave `gateway` out and yours is found.
 * await using gateway = await startGateway({ listen: "127.0.0.1", port: 0 });
 * await using port = await openPort(25565, { gateway: gateway.endpoint });
 * console.log(`${port.external.address}:${port.external.port} via ${port.via}`);
 * ```
 *
 * {@linkcode Nat} is the long-lived context for many ports, {@linkcode PcpClient} and
 * {@linkcode NatPmpClient} speak one protocol alone, and `@natkit/natkit/core` has the state
 * machines that all of them run, for event loops of your own.
 *
 * ## What happens when a port is opened
 *
 * PCP's MAP and NAT-PMP's two-byte address request leave at the same moment, on one socket. Probes
 * race, mappings never do: one table may stand behind both protocols. A PCP grant ends it after one
 * round trip; an answer that says "no PCP here", in any of the forms seen in the field, starts
 * NAT-PMP at once; silence does after two round trips, but no sooner than 30 and no later than 40 ms.
 * First requests are sent again after 250 and 750 ms, then on the RFC's schedule. Leases are
 * renewed between 1/2 and 5/8 of what was granted, with the same nonce and the port that was
 * assigned; a restarted gateway is known by its announcement or its epoch, and gets every mapping
 * back. An IPv6 gateway is asked by PCP for a pinhole to this host's global address.
 *
 * UPnP's search begins when the other two have had two round trips, 30 ms, without a grant, or are
 * known not to be spoken: where PCP is there, nothing is searched for. From the answer to the
 * search to the mapping it is four HTTP requests (three at an IGD:2). natkit looks who has the port
 * before it asks for it, takes nothing from another host, and reads back what the router made of
 * it; a router that gives no leases but permanent ones gets one, which natkit deletes. Over IPv6
 * UPnP opens a pinhole.
 *
 * natkit never touches what other hosts mapped, never asks for other hosts unless told to
 * (`thirdParty`), and speaks to nobody but the gateway and the servers and peers that you name.
 * Where a watched port's gateway has a private address itself, a second gateway stands above it:
 * that is asked as well, at the first and the last address of its network, and what it gives is in
 * the set.
 *
 * @module
 */
export { openPort } from "./adapters/api/open_port.ts";
export {
  type AddressOptions,
  type ExternalAddress,
  Nat,
  type PortMappingTable,
  type UnmapResult,
} from "./adapters/api/nat.ts";
export { type PortEvent, PortMapping } from "./adapters/api/port_mapping.ts";
export type { DiagnoseOptions } from "./adapters/api/diagnose.ts";
export { MappedTcpServer, MappedUdpSocket, PortWatch } from "./adapters/api/port_watch.ts";
export type { BoundSocket, TcpConnection, TcpServer } from "./adapters/api/bound_socket.ts";
export type { MappingUpdate } from "./adapters/api/connection.ts";
export type { WaitOptions } from "./adapters/api/wait.ts";
export type {
  BindOptions,
  MapBothOptions,
  MapOptions,
  MappingOptions,
  NatOptions,
  NatState,
  PeerOptions,
  UnmapOptions,
  WatchOptions,
} from "./adapters/api/options.ts";
export {
  natBehaviour,
  type NatBehaviourSearch,
  type ReflexiveAddress,
  reflexiveAddress,
  type ReflexiveAddressOptions,
} from "./adapters/api/stun.ts";
export type {
  NatBehaviourResult,
  NatBehaviourServer,
  NatBindingLifetime,
  NatDependence,
  NatHairpinning,
  NatPorts,
  NatType,
} from "./core/stun/behaviour.ts";
export type { StunCredentials, StunFailure } from "./core/stun/client.ts";
export type { UdpChannel } from "./adapters/api/punch.ts";
export type { PunchedTcp } from "./adapters/api/punch_tcp.ts";
export type {
  MappedPort,
  PortOpener,
  PunchOptions,
  RendezvousOptions,
  TurnServer,
} from "./adapters/api/rendezvous.ts";
export type { IceRole } from "./core/ice/agent.ts";
export { PcpClient, type PcpClientOptions } from "./adapters/api/pcp_client.ts";
export { NatPmpClient, type NatPmpClientOptions } from "./adapters/api/nat_pmp_client.ts";
export { MappingHandle } from "./adapters/api/mapping_handle.ts";
export type { PortContext } from "./adapters/api/port_context.ts";
export type { SingleClient } from "./adapters/api/single_client.ts";
export {
  type Attempt,
  NatError,
  type NatErrorCode,
  type NatErrorOptions,
  type Via,
} from "./core/errors.ts";
export type { Endpoint } from "./core/machine.ts";
export type {
  InterfaceAddress,
  Runtime,
  UdpHandlers,
  UdpOptions,
  UdpSocket,
} from "./adapters/runtime.ts";
export {
  bestInterfaceAddress,
  findGateways,
  type GatewayCandidate,
  type GatewaySource,
  interfaceAddresses,
} from "./adapters/api/gateways.ts";
export type {
  Failure,
  MappingMode,
  MappingState,
  RemoteFilter,
  Transport,
} from "./core/mapping.ts";
export type { Assignment, GrantedMapping, SavedPort } from "./core/portmap/managed.ts";
export type { PortMappingEntry } from "./core/upnp/client.ts";
export type {
  DetourReport,
  Diagnosis,
  DiagnosisFacts,
  Finding,
  FindingCode,
  GatewayReport,
  NatReport,
  ProtocolReport,
  ReflexiveReport,
} from "./core/portmap/diagnosis.ts";
export { canonicalAddress, type Family, familyOf } from "./core/ip.ts";
export {
  type AddressKind,
  type Cidr,
  classify,
  contains,
  isBehindAnotherNat,
  isLoopback,
  isPrivate,
  isWildcard,
  parseCidr,
} from "./core/cidr.ts";
