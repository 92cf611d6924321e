/**
 * Searching for UPnP devices, and hearing of them: SSDP (UPnP Device Architecture 1.1 §1) as a
 * machine, on as many interfaces and of as many families as there are.
 *
 * Each place gets a socket of its own, bound to this host's address there, since a search leaves by
 * one interface. What is searched for goes out one target after the other,
 * three times in all since UDP loses (`place_search.ts`). Whoever answers is told once, by the URL of its
 * description; for which target it answered says nothing, the description does.
 *
 * Answers may come from any port and any address of the local network, since gateways that share an
 * address answer from their own; but the URL has to lead to who answered, or to another address
 * there. What comes otherwise is dropped and counted. One host is told with 8 URLs at most, all
 * together with 64, gateways beyond that.
 *
 * @module
 */
import { checkAddress, checkInteger, checkList } from "../check.ts";
import { classify, contains, parseCidr } from "../cidr.ts";
import { pickDefined } from "../defined.ts";
import { type Family, familyOf, withoutZone, zoneOf } from "../ip.ts";
import type {
  Action,
  DebugTimeout,
  Endpoint,
  Instant,
  Machine,
  SocketResult,
  SocketSpec,
} from "../machine.ts";
import { Outbox } from "../outbox.ts";
import { earliest } from "../timers.ts";
import { checkFieldValue } from "./header.ts";
import { IGD_DEVICE, IGD_SERVICE } from "./igd.ts";
import { PlaceSearch, type SearchStep, STEP_GAP_MS } from "./place_search.ts";
import {
  decodeSsdp,
  deviceOf,
  SSDP_ALL,
  SSDP_PORT,
  SSDP_ROOT_DEVICE,
  ssdpGroup,
  type SsdpMessage,
} from "./ssdp.ts";
import { resolveLocal } from "./url.ts";

/**
 * What finds gateways, whatever they answer: a gateway of version 2 answers for version 1 too, but
 * not each does; some answer for their services or for their root alone.
 */
export const IGD_TARGETS: readonly string[] = [
  IGD_DEVICE.GATEWAY_1,
  IGD_DEVICE.GATEWAY_2,
  IGD_SERVICE.WAN_IP_1,
  IGD_SERVICE.WAN_PPP_1,
  SSDP_ROOT_DEVICE,
];

/** A place to search: one address of this host. */
export interface SearchPlace {
  /** This host's address there, with its zone where it is link-local. */
  readonly local: string;
  /**
   * The prefixes of the network there, as text. By default what is private, unique local or
   * link-local is taken for local.
   */
  readonly networks?: readonly string[];
  /** This host's other addresses there: where devices are to tell of events, some are better. */
  readonly addresses?: readonly string[];
  /** The gateway there: it is asked first, and always heard. */
  readonly gateway?: string;
  /** Where to hear announcements: the interface's name for IPv6; for IPv4 it is the address. */
  readonly interface?: string;
}

/** What to search, and where. */
export interface DeviceSearchOptions {
  /** The places, 16 at most. */
  readonly places: readonly SearchPlace[];
  /** What is searched for, 16 targets at most; default {@linkcode IGD_TARGETS}. */
  readonly targets?: readonly string[];
  /** How long devices may take to answer a group, 1…5 seconds; default 1. */
  readonly mx?: number;
  /**
   * How long a search lasts, milliseconds; by default as long as an answer to its last datagram may
   * take, and a second.
   */
  readonly durationMs?: number;
  /** Whether announcements are heard as well; default true. */
  readonly listen?: boolean;
  /** SSDP's port; default 1900. */
  readonly port?: number;
}

/** A device that was found, by the URL of its description. */
export interface FoundDevice {
  /** The URL as announced. */
  readonly location: string;
  /** Where that leads: an address of the local network. */
  readonly to: Endpoint;
  /** Path and query of the URL. */
  readonly path: string;
  /** Who said so. */
  readonly from: Endpoint;
  /** This host's address there. */
  readonly local: string;
  /** Its UUID, lower case, `uuid:…`; `""` where it gave none. */
  readonly udn: string;
  /** What it said it was, when it was first heard. */
  readonly target: string;
  /** Operating system, UPnP version and product. */
  readonly server?: string;
  /** Grows each time it starts anew. */
  readonly bootId?: number;
}

/** Why a place could not be searched, or not all of it. */
export interface SearchFailure {
  /** This host's address there. */
  readonly local: string;
  /** `permission`: the runtime or the system does not let us. */
  readonly code: "permission" | "network";
  /** The call that failed, and why. */
  readonly message: string;
}

/** What a search tells. */
export type DeviceEvent =
  /** A device that is new. */
  | { readonly type: "found"; readonly device: FoundDevice }
  /** It started anew, and may have forgotten everything: its boot number is another one. */
  | { readonly type: "rebooted"; readonly device: FoundDevice }
  /** It said goodbye, or is to be found elsewhere. */
  | { readonly type: "gone"; readonly device: FoundDevice }
  /** The search is over; announcements are heard on. */
  | {
    readonly type: "searched";
    /** How many devices are known. */
    readonly found: number;
    /** What went wrong at this host. */
    readonly failures: readonly SearchFailure[];
  };

/** Counters of a {@linkcode DeviceSearch}. */
export interface DeviceSearchStats {
  /** Searches sent, each to one address. */
  sent: number;
  /** Answers and announcements that were read. */
  received: number;
  /** Searches of others. */
  searches: number;
  /** No SSDP, or incomplete. */
  malformed: number;
  /** From outside of the local network, of another's device, or to a socket that is not ours. */
  foreign: number;
  /** A URL that is none, or leads elsewhere. */
  badUrl: number;
  /** Announcements of what was not searched for. */
  unwanted: number;
  /** Past the limits. */
  overLimit: number;
  /** ICMP's word that nobody listens. */
  unreachable: number;
}

const MAX_PLACES = 16;
const MAX_TARGETS = 16;
const MAX_DEVICES = 64;
const MAX_DEVICES_OF_HOST = 8;
/** How long an announcement counts that does not say, seconds. */
const MAX_AGE_SECONDS = 1800;
/** Embedded devices have UUIDs of their own. */
const MAX_UDNS = 16;
/** When all targets are sent (again), from the beginning, milliseconds. */
const ROUNDS: readonly number[] = [0, 500, 2000];
/** How long after the last delay that was asked for an answer may come, milliseconds. */
const GRACE_MS = 1000;
const MAX_DURATION_MS = 600_000;

interface Place {
  readonly key: string;
  readonly local: string;
  readonly gateway: string | undefined;
  readonly interface: string | undefined;
  readonly search: PlaceSearch;
  isOpen: boolean;
  /** Its failure, once it has one. */
  failure: SearchFailure | undefined;
}

interface Known {
  /** The key of its place. */
  readonly place: string;
  device: FoundDevice;
  /** What it calls itself and the devices in it. */
  readonly udns: Set<string>;
  /** What it announced that its boot number will be. */
  nextBootId: number | undefined;
  /** Until when what it said counts. */
  expiresAt: Instant;
  /** The search during or after which it was heard last. */
  search: number;
}

/** The key of the search's end among events. */
const END = "end";

/**
 * Searches for devices.
 *
 * @example
 * ```ts
 * import { DeviceSearch } from "@natkit/natkit/upnp";
 * const search = new DeviceSearch({ places: [{ local: "192.168.1.7", gateway: "192.168.1.1" }] });
 * search.search(0);
 * const [socket] = search.sockets();
 * search.handleSocket(socket!.key, { ok: true, local: { address: "192.168.1.7", port: 40000 } }, 0);
 * const first = search.poll();
 * console.assert(first?.type === "send" && first.to.address === "192.168.1.1");
 * ```
 */
export class DeviceSearch implements Machine<DeviceEvent> {
  readonly #targets: readonly string[];
  readonly #steps: readonly SearchStep[];
  readonly #mx: number;
  readonly #durationMs: number;
  readonly #listens: boolean;
  readonly #port: number;
  readonly #out = new Outbox<DeviceEvent>(mergeEvents);
  readonly #known = new Map<string, Known>();
  #places: readonly Place[] = [];
  #sockets: readonly SocketSpec[] = [];
  #endsAt: Instant | undefined;
  /** How many searches have begun. */
  #searches = 0;
  #isClosed = false;
  /** {@inheritDoc Machine.stats} */
  readonly stats: DeviceSearchStats = {
    sent: 0,
    received: 0,
    searches: 0,
    malformed: 0,
    foreign: 0,
    badUrl: 0,
    unwanted: 0,
    overLimit: 0,
    unreachable: 0,
  };

  /**
   * Makes a search that has not begun.
   *
   * @throws {TypeError | RangeError} Where an option is none.
   */
  constructor(options: DeviceSearchOptions) {
    const { targets = IGD_TARGETS, mx = 1, durationMs, listen = true, port = SSDP_PORT } = options;
    checkInteger("targets.length", checkList("targets", targets).length, 1, MAX_TARGETS);
    this.#targets = targets.map((target) => checkFieldValue("targets", target));
    this.#steps = ROUNDS.flatMap((round) =>
      targets.map((target, i) => ({ atMs: round + i * STEP_GAP_MS, target }))
    );
    this.#mx = checkInteger("mx", mx, 1, 5);
    this.#durationMs = durationMs === undefined
      ? this.#steps.at(-1)!.atMs + mx * 1000 + GRACE_MS
      : checkInteger("durationMs", durationMs, 1, MAX_DURATION_MS);
    this.#listens = listen;
    this.#port = checkInteger("port", port, 1, 65535);
    this.#setPlaces(options.places);
  }

  /** The devices that are known, in the order in which they were found. */
  get devices(): readonly FoundDevice[] {
    return [...this.#known.values()].map(({ device }) => device);
  }

  /** Whether a search is under way. */
  get isSearching(): boolean {
    return this.#endsAt !== undefined;
  }

  /**
   * Searches, or starts over. Devices that are known already are not told again.
   *
   * @param durationMs How long; default as at the beginning.
   * @throws {RangeError} Where that is no duration.
   */
  search(now: Instant, durationMs: number = this.#durationMs): void {
    checkInteger("durationMs", durationMs, 1, MAX_DURATION_MS);
    this.#out.touch(now);
    if (this.#isClosed) return;
    this.#searches++;
    this.#endsAt = now + durationMs;
    for (const { search, isOpen } of this.#places) {
      search.stop();
      if (isOpen) search.start(now);
    }
    this.#endIfHopeless();
  }

  /** Ends a search early; announcements are heard on. Does nothing where none is under way. */
  endSearch(now: Instant): void {
    this.#out.touch(now);
    if (this.#endsAt !== undefined) this.#end();
  }

  /**
   * Takes other places for those before; one that stays keeps its socket and its devices. A search
   * that is under way goes on at the new ones.
   *
   * @throws {TypeError | RangeError} Where a place is none.
   */
  setPlaces(places: readonly SearchPlace[], now: Instant): void {
    this.#out.touch(now);
    if (this.#isClosed) return;
    this.#setPlaces(places);
    for (const [key, { place }] of this.#known) {
      if (!this.#places.some((present) => present.key === place)) this.#forget(key);
    }
    for (const place of this.#places) this.#join(place, now);
    this.#endIfHopeless();
  }

  /** Ends everything: no socket is listed any more. */
  close(now: Instant): void {
    this.#out.touch(now);
    this.#isClosed = true;
    this.#endsAt = undefined;
    this.#known.clear();
    this.#places = [];
    this.#sockets = [];
  }

  #setPlaces(places: readonly SearchPlace[]): void {
    checkInteger("places.length", checkList("places", places).length, 0, MAX_PLACES);
    const before = new Map(this.#places.map((place) => [place.key, place]));
    this.#places = places.map((each) => {
      const place = this.#placeOf(each);
      const known = before.get(place.key);
      if (!known) return place;
      const { isOpen, failure } = known;
      // What was asked of another gateway, this one has not heard.
      const search = known.gateway === place.gateway ? known.search : place.search;
      return { ...place, search, isOpen, failure };
    });
    this.#sockets = this.#places.flatMap((place) => this.#specsOf(place));
  }

  #placeOf(place: SearchPlace): Place {
    const local = checkAddress("local", place.local);
    const { gateway: at, interface: name, networks } = place;
    const gateway = at === undefined ? undefined : checkAddress("gateway", at);
    const key = `search ${local}`;
    const search = new PlaceSearch({
      local,
      gateway: gateway === undefined ? undefined : { address: gateway, port: this.#port },
      port: this.#port,
      interface: name,
      networks,
      steps: this.#steps,
      mx: this.#mx,
      send: (to, data) => {
        this.stats.sent++;
        this.#out.send(key, to, data, `${key} ${to.address}`);
      },
    });
    return { key, local, gateway, interface: name, search, isOpen: false, failure: undefined };
  }

  #specsOf({ key, local, interface: name }: Place): readonly SocketSpec[] {
    const search: SocketSpec = { key, local: { address: local, port: 0 } };
    const group = ssdpGroup(familyOf(local));
    // What is announced on IPv6 can be heard by the interface's name only.
    const at = familyOf(local) === 4 ? local : name ?? zoneOf(local);
    if (!this.#listens || at === undefined) return [search];
    return [search, {
      key: `adverts ${local}`,
      local: { address: group, port: this.#port },
      group,
      interface: at,
      reuse: true,
    }];
  }

  /** {@inheritDoc Machine.sockets} */
  readonly sockets = (): readonly SocketSpec[] => this.#sockets;

  /** {@inheritDoc Machine.handleSocket} */
  handleSocket(key: string, result: SocketResult, now: Instant): void {
    this.#out.touch(now);
    const place = this.#places.find((candidate) => candidate.key === key);
    // Announcements are heard where they can be.
    if (!place) return;
    if (result.ok) {
      place.isOpen = true;
      place.failure = undefined;
      this.#join(place, now);
      return;
    }
    const { code, message } = result;
    place.failure = { local: place.local, code, message };
    if (result.isOpen) return;
    place.isOpen = false;
    place.search.stop();
    this.#endIfHopeless();
  }

  /** {@inheritDoc Machine.handleDatagram} */
  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    this.#out.touch(now);
    const place = this.#places.find(({ key, local }) =>
      socket === key || socket === `adverts ${local}`
    );
    if (!place) {
      this.stats.foreign++;
      return false;
    }
    const message = decodeSsdp(data);
    if (typeof message === "string") {
      this.stats.malformed++;
      return false;
    }
    if (message.kind === "search") this.stats.searches++;
    else if (!place.search.isNear(from.address)) this.stats.foreign++;
    else {
      this.stats.received++;
      this.#take(message, from, place, now);
    }
    return true;
  }

  /** {@inheritDoc Machine.handleUnreachable} */
  handleUnreachable(_to: Endpoint, _socket: string, now: Instant): void {
    this.#out.touch(now);
    this.stats.unreachable++;
  }

  /** {@inheritDoc Machine.handleTimeout} */
  handleTimeout(now: Instant): void {
    this.#out.touch(now);
    if (this.#endsAt !== undefined && this.#endsAt <= now) this.#end();
    for (const { search } of this.#places) search.handleTimeout(now);
  }

  /** {@inheritDoc Machine.nextTimeout} */
  nextTimeout(): Instant | undefined {
    return this.debugTimeout()?.at;
  }

  /** {@inheritDoc Machine.debugTimeout} */
  debugTimeout(): DebugTimeout | undefined {
    const at = this.#out.wakeAt();
    if (at !== undefined) return { at, reason: "output waits" };
    const due = (at: Instant | undefined, reason: string) => at === undefined ? at : { at, reason };
    return earliest(
      due(this.#endsAt, "the end of the search"),
      ...this.#places.map(({ search }) => due(search.nextAt(), "the next search")),
    );
  }

  /** {@inheritDoc Machine.poll} */
  poll(): Action<DeviceEvent> | undefined {
    return this.#out.poll();
  }

  /** A place takes part in the search that is under way. */
  #join({ search, isOpen }: Place, now: Instant): void {
    if (this.#endsAt !== undefined && isOpen && !search.hasBegun) search.start(now);
  }

  /** Ends a search that no socket is left for. */
  #endIfHopeless(): void {
    const isHopeless = this.#places.every(({ isOpen, failure }) => !isOpen && failure);
    if (this.#endsAt !== undefined && isHopeless) this.#end();
  }

  #end(): void {
    this.#endsAt = undefined;
    for (const { search } of this.#places) search.stop();
    const failures = this.#places.flatMap(({ failure }) => failure ?? []);
    this.#out.emit({ type: "searched", found: this.#known.size, failures }, END);
  }

  #take(message: SsdpMessage, from: Endpoint, place: Place, now: Instant): void {
    const udn = deviceOf(message.usn);
    if (message.kind === "byebye") return this.#takeGoodbye(udn, from, place);
    const { location } = message;
    if (location === undefined) {
      // An update need not say where.
      if (message.kind === "update") this.#expectBoot(message, from, place);
      else this.stats.badUrl++;
      return;
    }
    const key = `${place.key} ${location}`;
    const known = this.#known.get(key);
    const { maxAgeSeconds = MAX_AGE_SECONDS } = message;
    const heard = { expiresAt: now + 1000 * maxAgeSeconds, search: this.#searches };
    if (known) return this.#takeAgain(key, known, message, from, heard);
    if (message.kind === "update") return;
    const url = resolveLocal(location, "", {
      address: from.address,
      isAllowed: place.search.isNear,
    });
    if (typeof url === "string") {
      this.stats.badUrl++;
      return;
    }
    if (message.kind === "alive" && !this.#wants(message.target)) {
      this.stats.unwanted++;
      return;
    }
    if (message.kind === "alive") this.#takeGoodbye(udn, from, place);
    if (!this.#makeRoom(from, place, now)) {
      this.stats.overLimit++;
      return;
    }
    const device: FoundDevice = {
      location,
      ...url,
      from,
      local: place.local,
      udn,
      target: message.target,
      ...pickDefined(message, "server", "bootId"),
    };
    const udns = new Set([udn]);
    this.#known.set(key, { place: place.key, device, udns, nextBootId: undefined, ...heard });
    this.#out.emit({ type: "found", device }, key);
  }

  #takeAgain(
    key: string,
    known: Known,
    message: SsdpMessage,
    from: Endpoint,
    heard: Pick<Known, "expiresAt" | "search">,
  ): void {
    // Anybody may name another's URL; the host that it leads to speaks for it.
    if (!speaksFor(from, known.device)) {
      this.stats.foreign++;
      return;
    }
    Object.assign(known, heard);
    if (from.address === known.device.to.address) known.device = { ...known.device, from };
    if (known.udns.size < MAX_UDNS) known.udns.add(deviceOf(message.usn));
    const { kind, bootId, nextBootId } = message;
    if (kind === "update") {
      known.nextBootId = nextBootId;
      return;
    }
    const before = known.device.bootId;
    if (bootId === undefined || bootId === before) return;
    known.device = { ...known.device, bootId };
    const isExpected = bootId === known.nextBootId;
    known.nextBootId = undefined;
    if (before !== undefined && !isExpected) {
      this.#out.emit({ type: "rebooted", device: known.device }, key);
    }
  }

  #expectBoot({ usn, nextBootId }: SsdpMessage, from: Endpoint, place: Place): void {
    for (const known of this.#known.values()) {
      if (isOf(known, deviceOf(usn), from, place)) known.nextBootId = nextBootId;
    }
  }

  #takeGoodbye(udn: string, from: Endpoint, place: Place): void {
    for (const [key, known] of this.#known) {
      if (isOf(known, udn, from, place)) this.#forget(key);
    }
  }

  #forget(key: string): void {
    const { device } = this.#known.get(key)!;
    this.#known.delete(key);
    // Nobody has heard of it: the queue does not grow by who comes and goes.
    if (this.#out.pendingEvent(key)?.type === "found") this.#out.unemit(key);
    else this.#out.emit({ type: "gone", device }, key);
  }

  #wants(target: string): boolean {
    return this.#targets.includes(target) || this.#targets.includes(SSDP_ALL);
  }

  /**
   * Whether one more device of a host may be told: nobody crowds out a gateway. Of too many those go
   * that are silent: what they said is over, or they did not answer this search.
   */
  #makeRoom({ address }: Endpoint, { gateway }: Place, now: Instant): boolean {
    const all = [...this.#known];
    const ofHost = all.filter(([, { device }]) => device.from.address === address);
    const isHostFull = ofHost.length >= MAX_DEVICES_OF_HOST;
    if (!isHostFull && (all.length < MAX_DEVICES || address === gateway)) return true;
    const silent = (isHostFull ? ofHost : all).find(([, { expiresAt, search }]) =>
      expiresAt <= now || search < this.#searches
    );
    if (silent) this.#forget(silent[0]);
    return silent !== undefined;
  }
}

/** Whether it is that device, heard of at the same place from a host that speaks for it. */
function isOf(known: Known, udn: string, from: Endpoint, place: Place): boolean {
  return udn !== "" && known.udns.has(udn) && known.place === place.key &&
    speaksFor(from, known.device);
}

function speaksFor({ address }: Endpoint, device: FoundDevice): boolean {
  return address === device.from.address || address === device.to.address;
}

/** Two events of one device that nobody has heard of yet become what they come to. */
function mergeEvents(older: DeviceEvent, newer: DeviceEvent): DeviceEvent {
  if (older.type === "found" && newer.type === "rebooted") return { ...newer, type: "found" };
  if (older.type === "gone" && newer.type === "found") return { ...newer, type: "rebooted" };
  return newer;
}

/** An address of an interface of this host, as runtimes tell it. */
export interface LocalAddress {
  /** The interface's name. */
  readonly name: string;
  /** Canonical address, with the zone where it is link-local. */
  readonly address: string;
  /** 0…32 or 0…128. */
  readonly prefixLength: number;
  /** Whether it is a loopback interface. */
  readonly internal: boolean;
}

/**
 * The places to search of a host: on each interface but loopback one IPv4 address and one link-local
 * IPv6 address, which is the one that multicast leaves by.
 *
 * @param gateways The default gateways, as far as they are known.
 */
export function searchPlaces(
  interfaces: readonly LocalAddress[],
  gateways: readonly string[] = [],
): SearchPlace[] {
  const outside = interfaces.filter(({ internal }) => !internal);
  const names = [...new Set(outside.map(({ name }) => name))];
  return names.flatMap((name) => {
    const own = outside.filter((each) => each.name === name);
    const addresses = own.map(({ address }) => address);
    const networks = own.map((each) => `${withoutZone(each.address)}/${each.prefixLength}`);
    const places = ([4, 6] as const).flatMap((family: Family): SearchPlace[] => {
      const chosen = own.find(({ address }) =>
        familyOf(address) === family &&
        (family === 4 || classify(withoutZone(address)) === "link-local")
      );
      if (!chosen) return [];
      const gateway = gateways.find((address) => isGatewayAt(address, family, name, networks));
      const { address: local } = chosen;
      return [{
        local,
        addresses,
        networks,
        interface: name,
        ...(gateway !== undefined && { gateway }),
      }];
    });
    return places;
  }).slice(0, MAX_PLACES);
}

function isGatewayAt(
  address: string,
  family: Family,
  name: string,
  networks: readonly string[],
): boolean {
  if (familyOf(address) !== family) return false;
  const zone = zoneOf(address);
  if (zone !== undefined) return zone === name;
  return networks.some((network) => contains(parseCidr(network)!, address));
}
