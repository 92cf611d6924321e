/**
 * Finding the Internet gateway device behind a gateway: SSDP search, the descriptions that it leads
 * to, and which of a device's connections is up.
 *
 * *Search* (`igd_search.ts`). One search target first, the others where nobody has answered: some
 * devices answer only one of them (quirks 17, 20, 24). What the answer says that it answers is not
 * looked at: the description decides (quirk 22). A gateway that was named is asked faster: whoever
 * named one that is not there hears of it in two thirds of the time.
 *
 * *Whom to believe.* Answers from addresses that are not on this host's link are dropped, and a
 * description, and what it leads to, is only asked of the address that announced it. An answer of
 * another address than the gateway's waits for a second: it may be the gateway's under another name
 * (quirk 19), or another router's (quirk 25).
 *
 * *Which connection.* Where a device has several, the one that says that it is up (quirks 31, 32);
 * where none says anything, the one that is the default route first.
 *
 * @module
 */
import { classify } from "../cidr.ts";
import { canonicalAddress, familyOf, formatEndpoint, withoutZone } from "../ip.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { Failure } from "../mapping.ts";
import {
  callAction,
  type CallQueue,
  type Ending,
  type ServiceAt,
  type Steps,
  unanswered,
} from "./calls.ts";
import {
  allServices,
  type Description,
  DESCRIPTION_MAX_BYTES,
  readDescription,
  type Service,
} from "./description.ts";
import { headerValue } from "./header.ts";
import { igdService } from "./igd.ts";
import { type IgdPlace, igdSearchAt, igdSearchLastsMs, onlyPeerAt } from "./igd_search.ts";
import type { PlaceSearch } from "./place_search.ts";
import { decodeSsdp, deviceOf, type SsdpMessage } from "./ssdp.ts";
import { resolveInDescription, resolveLocal, type UrlOwner } from "./url.ts";

/** A device that can be asked for mappings. */
export interface Igd {
  /** Where its answer came from. */
  readonly address: string;
  /** Where its description is. */
  readonly location: string;
  /** `uuid:…` in lower case, by which its announcements are known; `""` where it has none. */
  readonly udn: string;
  /** What it told of how often it has booted. */
  readonly bootId: number | undefined;
  /** What it calls itself. */
  readonly name: string;
  /** The connection that is up: port mappings over IPv4. */
  readonly connection: ServiceAt | undefined;
  /** Pinholes in the IPv6 firewall. */
  readonly firewall: ServiceAt | undefined;
}

/** What a finder needs of the client. */
export interface FinderHost {
  /** Sends a datagram by the search socket. */
  send(to: Endpoint, data: Uint8Array): void;
  /** The present. */
  now(): Instant;
  /** One was found, with the external address that it tells, or its refusal to. */
  found(igd: Igd, externalAddress: string | Failure): void;
  /** None was found. */
  failed(failure: Failure): void;
  /** What a device's no comes to. */
  refusal(code: number): Failure;
  /** Whether a device will do that refuses to tell its address. */
  doesWithoutAddress(): boolean;
  /** An answer was dropped. */
  dropped(reason: "malformed" | "off-link" | "too-many" | "bad-url" | "bad-description"): void;
}

/** Where to look. */
export interface FinderOptions extends IgdPlace {
  /** Whether an address is another gateway's of this host: what answers there is not this one's. */
  readonly isOtherGateway?: ((address: string) => boolean) | undefined;
}

/** How long answers of others than the gateway wait. */
const OTHERS_AFTER_MS = 1000;
/** How many descriptions are looked at in one search. */
const MAX_CANDIDATES = 16;
/** How long a description may take, milliseconds. */
const DESCRIPTION_MS = 5000;
/** How often a description may send elsewhere on its device. */
const MAX_REDIRECTS = 2;
/** UPnP's word and that of some devices (quirk 61). */
const UP = ["connected", "up"];

/** The device is there, and has no way out. */
export const NOT_CONNECTED = "not connected";
/** How long a device that is not connected is left alone, milliseconds. */
const NOT_CONNECTED_MS = 30_000;

/** A description that was read, and where from. */
interface Described extends Description {
  readonly url: string;
}

interface Candidate {
  readonly location: string;
  readonly address: string;
  readonly message: SsdpMessage;
  state: "waiting" | "queued" | "done";
}

/** The search for one gateway's device. */
export class IgdFinder {
  readonly #options: FinderOptions;
  readonly #queue: CallQueue;
  readonly #host: FinderHost;
  readonly #search: PlaceSearch;
  /** How long it lasts where nothing is found. */
  readonly #lastsMs: number;
  #startedAt: Instant | undefined;
  #candidates: Candidate[] = [];
  /** Why the best that was found cannot be used. */
  #failure: Failure | undefined;
  /** Nobody is at the gateway's port. */
  #isRefused = false;

  constructor(options: FinderOptions, queue: CallQueue, host: FinderHost) {
    this.#options = options;
    this.#queue = queue;
    this.#host = host;
    this.#lastsMs = igdSearchLastsMs(options);
    this.#search = igdSearchAt(options, (to, data) => host.send(to, data));
  }

  /** Whether it is searching. */
  get isSearching(): boolean {
    return this.#startedAt !== undefined;
  }

  /**
   * Begins, unless it has. The socket must be open.
   *
   * @param begunAt When its first step left, where that has been done.
   */
  start(begunAt?: Instant): void {
    if (this.isSearching) return;
    this.#startedAt = begunAt ?? this.#host.now();
    this.#candidates = [];
    this.#failure = undefined;
    this.#isRefused = false;
    if (begunAt === undefined) this.#search.start(this.#startedAt);
    else this.#search.goOn(begunAt);
  }

  /** Ends it, without a word. */
  stop(): void {
    this.#startedAt = undefined;
    this.#search.stop();
    this.#candidates = [];
  }

  /** When it is to be called next. */
  nextAt(): Instant | undefined {
    const startedAt = this.#startedAt;
    if (startedAt === undefined) return undefined;
    const hasWaiting = this.#candidates.some(({ state }) => state === "waiting");
    const end = startedAt + this.#lastsMs;
    const at = Math.min(
      this.#search.nextAt() ?? Infinity,
      hasWaiting ? startedAt + OTHERS_AFTER_MS : Infinity,
      // What is being looked at has its own end.
      this.#isLooking && this.#host.now() >= end ? Infinity : end,
    );
    return at === Infinity ? undefined : at;
  }

  /** Does what is due. */
  handleTimeout(): void {
    if (!this.isSearching) return;
    const now = this.#host.now();
    this.#search.handleTimeout(now);
    if (now >= this.#startedAt! + OTHERS_AFTER_MS) this.#lookAtOthers();
    this.#check();
  }

  /** ICMP says that nobody is there, where nobody else could answer. */
  handleUnreachable(): void {
    if (!this.isSearching || !onlyPeerAt(this.#options)) return;
    this.#isRefused = true;
    this.#check();
  }

  /** Takes an answer; false where it is none. */
  handleDatagram(data: Uint8Array, from: Endpoint): boolean {
    const message = decodeSsdp(data);
    if (typeof message === "string") {
      this.#host.dropped("malformed");
      return false;
    }
    if (message.kind !== "response" || message.location === undefined) return false;
    if (!this.isOnLink(from.address) || this.#isAnother(from.address)) {
      this.#host.dropped("off-link");
      return false;
    }
    if (!this.isSearching || this.#options.isOtherGateway?.(from.address)) return true;
    const { location } = message;
    const isKnown = this.#candidates.some((one) =>
      one.location === location && one.address === from.address
    );
    if (isKnown) return true;
    if (this.#candidates.length >= MAX_CANDIDATES) {
      this.#host.dropped("too-many");
      return true;
    }
    const candidate: Candidate = { location, address: from.address, message, state: "waiting" };
    this.#candidates.push(candidate);
    if (this.#mayBeGateway(from.address)) this.#look(candidate);
    else if (this.#host.now() - this.#startedAt! >= OTHERS_AFTER_MS) this.#lookAtOthers();
    return true;
  }

  /** Whether it is not the gateway that was named. */
  #isAnother(address: string): boolean {
    return this.#options.isNamed === true && !this.#mayBeGateway(address);
  }

  /** Whether an address is one of this host's neighbours, for all that can be known here. */
  isOnLink(address: string): boolean {
    return this.#search.isNear(address);
  }

  // ---- Steps -------------------------------------------------------------------------------

  #lookAtOthers(): void {
    for (const one of this.#candidates) if (one.state === "waiting") this.#look(one);
  }

  #look(candidate: Candidate): void {
    candidate.state = "queued";
    this.#queue.add({
      name: `look at ${candidate.location}`,
      needsNoDevice: true,
      run: () => this.#examine(candidate),
      fail: () => {},
    });
  }

  get #isLooking(): boolean {
    return this.#candidates.some(({ state }) => state === "queued");
  }

  /** Ends the search where nothing is to come. */
  #check(): void {
    if (!this.isSearching || this.#isLooking) return;
    const isOver = this.#isRefused || this.#host.now() - this.#startedAt! >= this.#lastsMs;
    const others = this.#candidates.some(({ state }) => state === "waiting");
    if (others && isOver) return this.#lookAtOthers();
    if (!isOver) return;
    const failure: Failure = this.#failure ??
      { kind: this.#isRefused ? "unreachable" : "no-answer" };
    this.stop();
    this.#host.failed(failure);
  }

  *#examine(candidate: Candidate): Steps<Ending> {
    const isWanted = () => this.isSearching && this.#candidates.includes(candidate);
    if (!isWanted()) return "done";
    const found = yield* this.#read(candidate);
    candidate.state = "done";
    if (!isWanted()) return "done";
    if (found && "igd" in found) {
      this.stop();
      this.#host.found(found.igd, found.externalAddress);
      return "done";
    }
    if (found) this.#failure = found;
    this.#check();
    return "done";
  }

  /** The device that an answer leads to; undefined where it is none for us. */
  *#read(
    { location, address, message }: Candidate,
  ): Steps<
    { readonly igd: Igd; readonly externalAddress: string | Failure } | Failure | undefined
  > {
    const owner = { address, isAllowed: (host: string) => this.#mayAsk(host) };
    const described = yield* this.#describe(location, owner);
    if (!described || "kind" in described) return described;
    const { device, urlBase } = described;
    const services = allServices(device);
    const { localAddress } = this.#options;
    const at = ({ serviceId: id, serviceType, controlUrl, eventUrl }: Service): ServiceAt[] => {
      const resolve = (url: string) => resolveInDescription(url, urlBase, described.url, owner);
      const url = resolve(controlUrl);
      if (typeof url === "string") {
        this.#host.dropped("bad-url");
        return [];
      }
      const events = eventUrl === "" ? "bad-url" : resolve(eventUrl);
      const eventPath = typeof events === "string" ? undefined : events.path;
      return [{ id, serviceType, to: url.to, path: url.path, eventPath }];
    };
    const of = (...kinds: readonly string[]) =>
      services.filter(({ serviceType }) => {
        const named = igdService(serviceType);
        return named && kinds.includes(named.kind) && isCallable(serviceType);
      });
    const mapping = of("WANIPConnection", "WANPPPConnection");
    const connections = mapping.flatMap(at).sort((a, b) => rank(a) - rank(b));
    const [firewall] = of("WANIPv6FirewallControl").flatMap(at);
    const igd = {
      address,
      location,
      udn: deviceOf(message.usn || device.udn),
      bootId: message.bootId,
      name: device.friendlyName,
      firewall,
    };
    if (familyOf(localAddress) === 6) {
      if (!firewall) return undefined;
      return { igd: { ...igd, connection: undefined }, externalAddress: localAddress };
    }
    if (connections.length === 0) {
      return mapping.length > 0 ? violation("its control URL leads elsewhere") : undefined;
    }
    const [forwarding] = of("Layer3Forwarding").flatMap(at);
    const up = yield* this.#choose(connections, forwarding);
    if ("kind" in up) return up;
    const externalAddress = up.address;
    return { igd: { ...igd, connection: up.connection }, externalAddress };
  }

  *#describe(
    location: string,
    owner: UrlOwner,
  ): Steps<Described | Failure | undefined> {
    let at = location;
    for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
      const url = resolveLocal(at, at, owner);
      if (typeof url === "string") {
        this.#host.dropped("bad-url");
        return violation("its LOCATION leads elsewhere");
      }
      const result = yield {
        to: url.to,
        request: { method: "GET", path: url.path, headers: [["Accept", "text/xml"]] },
        maxBytes: DESCRIPTION_MAX_BYTES,
        timeoutMs: DESCRIPTION_MS,
      };
      if (!result.ok) return undefined;
      const own = `http://${formatEndpoint(url.to)}${url.path}`;
      const next = headerValue(result.headers, "location");
      if (result.status >= 300 && result.status < 400 && next !== undefined) {
        const to = resolveLocal(next, own, owner);
        at = typeof to === "string" ? next : `http://${formatEndpoint(to.to)}${to.path}`;
        continue;
      }
      const described = readDescription(result.body);
      if (typeof described === "string") {
        this.#host.dropped("bad-description");
        return undefined;
      }
      return { ...described, url: own };
    }
    return undefined;
  }

  /**
   * The connection that is up, and its external address. One that refuses to tell that keeps what it
   * has granted, and may renew it.
   */
  *#choose(
    connections: readonly ServiceAt[],
    forwarding: ServiceAt | undefined,
  ): Steps<{ readonly connection: ServiceAt; readonly address: string | Failure } | Failure> {
    let order = connections;
    if (connections.length > 1) {
      const up: ServiceAt[] = [], unknown: ServiceAt[] = [];
      for (const connection of connections) {
        const outcome = yield* callAction(connection, "GetStatusInfo");
        if (outcome.type !== "done") unknown.push(connection);
        else if (UP.includes((outcome.args["NewConnectionStatus"] ?? "").toLowerCase())) {
          up.push(connection);
          break;
        }
      }
      order = [...up, ...unknown];
      if (order.length > 1 && up.length === 0 && forwarding) {
        const first = yield* defaultConnection(forwarding);
        order = order.toSorted((a, b) => Number(b.id === first) - Number(a.id === first));
      }
    }
    let refusing: { readonly connection: ServiceAt; readonly address: Failure } | undefined;
    let failure: Failure | undefined;
    for (const connection of order) {
      const outcome = yield* callAction(connection, "GetExternalIPAddress");
      const address = outcome.type === "done" ? externalAddressOf(outcome.args) : undefined;
      if (address !== undefined) return { connection, address };
      if (outcome.type === "done") failure = notConnected(this.#host.now());
      else if (outcome.type === "error") {
        refusing ??= { connection, address: this.#host.refusal(outcome.code) };
      } else failure ??= unanswered(outcome);
    }
    if (!refusing) return failure ?? notConnected(this.#host.now());
    return this.#host.doesWithoutAddress() ? refusing : refusing.address;
  }

  /** Whether an answer is the gateway's: over IPv6 that has several addresses. */
  #mayBeGateway(address: string): boolean {
    const { gateway } = this.#options;
    return familyOf(gateway.address) === 6 || address === gateway.address;
  }

  /** Whether another host than the one that announced it may be asked. */
  #mayAsk(host: string): boolean {
    if (withoutZone(host) === withoutZone(this.#options.gateway.address)) return true;
    // Over IPv6 a device has several addresses of one link, and answers from any.
    return familyOf(host) === 6 && this.isOnLink(host);
  }
}

/** The id of the connection that a device takes for its default route, where it says so. */
function* defaultConnection(forwarding: ServiceAt): Steps<string | undefined> {
  const outcome = yield* callAction(forwarding, "GetDefaultConnectionService");
  if (outcome.type !== "done") return undefined;
  // `uuid:…:WANConnectionDevice:1,urn:upnp-org:serviceId:WANIPConn1`
  return outcome.args["NewDefaultConnectionService"]?.split(",")[1]?.trim();
}

/** The external address in an answer; undefined where there is none (UPNP-C-11). */
export function externalAddressOf(args: Readonly<Record<string, string>>): string | undefined {
  const text = args["NewExternalIPAddress"]?.trim();
  const address = text === undefined ? undefined : canonicalAddress(text);
  if (address === undefined || familyOf(address) !== 4) return undefined;
  const kind = classify(address);
  return kind === "wildcard" || kind === "loopback" ? undefined : address;
}

/** The failure of a device that is there, and has no way out. */
export function notConnected(now: Instant): Failure {
  return { kind: "refused", code: 0, name: NOT_CONNECTED, retryAt: now + NOT_CONNECTED_MS };
}

function violation(clause: string): Failure {
  return { kind: "protocol-violation", clause };
}

/** WANIPConnection before WANPPPConnection, the newer version first. */
function rank({ serviceType }: ServiceAt): number {
  const { kind, version } = igdService(serviceType)!;
  return (kind === "WANIPConnection" ? 0 : 1000) - version;
}

/** Whether a type can stand in a request: it comes from the network. */
function isCallable(serviceType: string): boolean {
  return /^[\x21-\x7e]+$/.test(serviceType) && !/["<>&#]/.test(serviceType);
}
