/**
 * What is sent to find the device behind a gateway, when, and by which socket: apart from what comes
 * of the answers (`finder.ts`), which is many times larger, so that a search can leave while that is
 * loaded.
 *
 * @module
 */
import { isLoopback } from "../cidr.ts";
import { zoneOf } from "../ip.ts";
import type { Endpoint, Instant, SocketSpec } from "../machine.ts";
import { IGD_DEVICE, IGD_SERVICE } from "./igd.ts";
import { PlaceSearch, type SearchStep, STEP_GAP_MS } from "./place_search.ts";
import { SSDP_ROOT_DEVICE } from "./ssdp.ts";

/** Where to look. */
export interface IgdPlace {
  /** The gateway, and where it answers searches. */
  readonly gateway: Endpoint;
  /** This host's address towards it. */
  readonly localAddress: string;
  /** The name of the interface towards it, which multicast over IPv6 needs. */
  readonly interface?: string | undefined;
  /** Whether it was named: then nobody else's answer will do. */
  readonly isNamed?: boolean | undefined;
}

/** A search that was begun for a client before there was one. */
export interface BegunSearch {
  /** Its socket, which the client wants on. */
  readonly socket: SocketSpec;
  /** When the first step left; undefined where its socket is not open yet. */
  readonly at: Instant | undefined;
}

/** How long a device may take its time with an answer, seconds. */
const MX = 1;
/** What is searched for, and when: a v2 device answers to v1, too. */
const STEPS: readonly SearchStep[] = [
  { atMs: 0, target: IGD_DEVICE.GATEWAY_1 },
  { atMs: 200, target: IGD_DEVICE.GATEWAY_1 },
  { atMs: 250, target: IGD_DEVICE.GATEWAY_2 },
  { atMs: 600, target: IGD_DEVICE.GATEWAY_2 },
  { atMs: 650, target: SSDP_ROOT_DEVICE },
  { atMs: 1000, target: IGD_SERVICE.WAN_IP_1 },
  { atMs: 1050, target: IGD_SERVICE.WAN_PPP_1 },
  { atMs: 1100, target: IGD_SERVICE.WAN_IP_2 },
];
/**
 * The same where the gateway was named: no slower device's turn is to be waited for, so that they
 * leave as close as devices bear, and those most likely to be heard again at the end.
 */
const NAMED_STEPS: readonly SearchStep[] = [
  IGD_DEVICE.GATEWAY_1,
  IGD_DEVICE.GATEWAY_2,
  SSDP_ROOT_DEVICE,
  IGD_SERVICE.WAN_IP_1,
  IGD_SERVICE.WAN_PPP_1,
  IGD_SERVICE.WAN_IP_2,
  IGD_DEVICE.GATEWAY_1,
  IGD_DEVICE.GATEWAY_2,
].map((target, i) => ({ atMs: i * STEP_GAP_MS, target }));
/**
 * How long after its last step a search is over: an answer to the group may take MX, whose least is
 * a second (UPnP Device Architecture 1.1 §1.3.2), and its way. Silence cannot be told any earlier.
 */
const LAST_ANSWER_MS = 1000 * MX + 200;

const stepsFor = ({ isNamed }: IgdPlace) => isNamed ? NAMED_STEPS : STEPS;

/** How long a search lasts where nothing is found, milliseconds. */
export function igdSearchLastsMs(place: IgdPlace): number {
  return stepsFor(place).at(-1)!.atMs + LAST_ANSWER_MS;
}

/** Where searches are sent alone, where nothing else can answer: on loopback. */
export function onlyPeerAt({ gateway }: IgdPlace): Endpoint | undefined {
  return isLoopback(gateway.address) ? gateway : undefined;
}

/** The search at a place, which has not begun. */
export function igdSearchAt(
  place: IgdPlace,
  send: (to: Endpoint, data: Uint8Array) => void,
): PlaceSearch {
  const { localAddress: local, gateway, interface: name } = place;
  return new PlaceSearch({
    local,
    gateway,
    interface: name ?? zoneOf(gateway.address),
    steps: stepsFor(place),
    mx: MX,
    isAlone: onlyPeerAt(place) !== undefined,
    send,
  });
}

/** The socket of a search. */
export function igdSearchSocket(place: IgdPlace, key: string): SocketSpec {
  const connect = onlyPeerAt(place);
  const local = { address: place.localAddress, port: 0 };
  return { key, local, ...(connect && { connect }) };
}
