/**
 * Journeys: programs with a mapper on a host that is carried from network to network, among several
 * gateways of both families, with separate tables, silent and dumb ones; with sleep, crashes, new
 * addresses, prefixes and default routes. What a mapper owes wherever it is is judged by each program
 * itself (`traveller.ts`); here is judged what the gateways hold in the end.
 *
 * - Nothing of another program is gone.
 * - What is wanted is held, as it was told, by a gateway that can; what arrives there gets through.
 * - Nothing is left that was made and is not wanted.
 * - A watched port is mapped at every gateway that can, and told as it is there.
 * - A network that is in order is found and used within seconds.
 *
 * @module
 */
import { describeDatagram } from "../../adapters/packets.ts";
import type { GatewayProtocol } from "../../core/gateway/profile.ts";
import { familyOf, formatEndpoint } from "../../core/ip.ts";
import type { Assignment, PortRequest } from "../../core/portmap/managed.ts";
import type { NetworkPath } from "../../core/portmap/path.ts";
import { below, type RandomSource } from "../../core/random.ts";
import {
  type Host,
  type Segment,
  type SimSocket,
  SimulationError,
  World,
} from "../../core/sim/mod.ts";
import { Place, type Router, type RouterPlan } from "./place.ts";
import { drawLink, pick, scriptRandom } from "./scenario.ts";
import { type Errand, Traveller } from "./traveller.ts";

/** How long a leg lasts at most, and how many there are at most. */
const LEG_MS = 2_400_000, LEGS = 4;
/** Lets the longest lease and the longest hold run out, and those who waited for it ask again. */
const SETTLE_MS = (900 + 1800 + 900) * 1000;
/** For how long nothing but renewals may happen. */
const QUIET_MS = 1_500_000;
/** Until a network in order is used: a socket, gateways a second apart, and a few round trips. */
const MOVE_MS = 5000;
/** Until a change at a gateway is heard of, or found by who looks once a minute. */
const CHECK_MS = 75_000;
const DELETION_MS = 5000;
const GIVING_UP_MS = 200_000;
const PEER = { 4: "198.51.100.1", 6: "2001:db8:ffff::1" } as const;

/** What a journey came to. */
export interface JourneyReport {
  readonly packets: number;
  readonly virtualHours: number;
  readonly events: Readonly<Record<string, number>>;
}

/** Runs the journey of a seed. */
export function runJourney(
  seed: number,
  options: { readonly traceSize?: number; readonly onWorld?: (world: World) => void } = {},
): JourneyReport {
  const journey = new Journey(seed, options.traceSize ?? 0);
  options.onWorld?.(journey.world);
  journey.run();
  const events: Record<string, number> = {};
  for (const { counts } of journey.travellers) {
    for (const [name, count] of Object.entries(counts)) events[name] = (events[name] ?? 0) + count;
  }
  const { world } = journey;
  return { packets: world.stats.packets, virtualHours: world.now / 3_600_000, events };
}

class Journey {
  readonly world: World;
  readonly travellers: Traveller[] = [];
  readonly #random: RandomSource;
  readonly #internet: Segment;
  readonly #peer: Host;
  readonly #senders: { readonly 4: SimSocket; readonly 6: SimSocket };
  readonly #places: readonly Place[];
  readonly #host: Host;
  /** Whether addresses are bound to, as the user named them, or are the system's choice. */
  readonly #bindsSource: boolean;
  /** Where the host is. */
  #here: readonly Place[] = [];
  /** Its addresses, by place and family; the last one is the one in use. */
  #addresses: { place: Place; family: 4 | 6; address: string }[] = [];
  /** The routers that discovery finds, in this order. */
  #found: readonly Router[] = [];
  #isCalm = false;
  /** Programs that watch a port, until all has been at rest. */
  readonly #watchers: Traveller[] = [];
  /** Routers that are off for good. */
  readonly #dead = new Set<Router>();

  constructor(seed: number, traceSize: number) {
    const random = this.#random = scriptRandom(seed + 0x10_0000_0000);
    this.world = new World({
      seed: seed + 0x1000_0000,
      trace: {
        size: traceSize,
        decode: (data, { from, protocol }) =>
          protocol === "udp" ? describeDatagram(data, from.port) : undefined,
      },
    });
    this.#internet = this.world.segment("internet", { delayMs: 10 });
    this.#peer = this.world.host("peer");
    this.#peer.attach(this.#internet, [PEER[4], PEER[6]]);
    this.#senders = {
      4: this.#peer.bind({ address: PEER[4], port: 9 }),
      6: this.#peer.bind({ address: PEER[6], port: 9 }),
    };
    const count = 2 + below(random, 3);
    const isTwins = below(random, 4) === 0;
    // Drawn apart, so that all else is as it would be without.
    const pinholes = scriptRandom(seed + 0x20_0000_0000);
    this.#places = Array.from({ length: count }, (_, i) =>
      new Place(this.world, this.#internet, {
        name: ["home", "cafe", "office", "hotel"][i]!,
        index: i + 1,
        // Half the world's home networks have the same addresses.
        number: isTwins ? 1 : i + 1,
        routers: drawRouters(random, i === 0, pinholes),
        link: { delayMs: pick(random, [0, 1, 5]) },
      }));
    for (const place of this.#places) {
      if (below(random, 2) === 0) continue;
      for (const router of place.of(4)) {
        for (let port = 5000; port < 5008; port += 1 + below(random, 3)) {
          router.plantNeighbour(`192.168.${place.number}.9`, port);
        }
      }
    }
    this.#host = this.world.host("laptop");
    this.#bindsSource = below(random, 2) === 0;
    const programs = pick(random, [1, 1, 2]);
    for (let i = 0; i < programs; i++) {
      const spoken = pick(random, [undefined, undefined, ["pcp", "nat-pmp"] as const]);
      const first = 5000 + 1000 * i;
      const traveller = new Traveller(this.world, `program${i}`, this.#host, first, spoken);
      this.travellers.push(traveller);
      if (below(random, 6) === 0) this.#watchers.push(traveller);
    }
  }

  run(): void {
    const random = this.#random;
    this.world.note(this.#places.map(describe).join("; "));
    this.#arrive([this.#places[0]!], pick(random, [0, 0, 2000]));
    for (const traveller of this.travellers) {
      const count = 1 + below(random, 4);
      for (let i = 0; i < count; i++) {
        this.world.after(i === 0 ? 0 : below(random, LEG_MS), () => this.#want(traveller));
      }
    }
    for (const traveller of this.#watchers) {
      this.world.after(below(random, LEG_MS), () => this.#watch(traveller));
    }
    const legs = 1 + below(random, LEGS);
    for (let i = 0; i < legs; i++) {
      const turns = below(random, 6);
      for (let k = 0; k < turns; k++) {
        this.world.after(below(random, LEG_MS), () => this.#turn());
      }
      this.world.runFor(pick(random, [1000, 60_000, 600_000, LEG_MS, LEG_MS]));
      this.#judgeForeign();
      if (i + 1 < legs) this.#roam();
    }
    this.world.runFor(LEG_MS);
    this.#calm();
    this.world.runFor(SETTLE_MS);
    this.#judgeRest("at rest", true);
    this.#judgeWatches();
    this.#judgeTraffic();
    this.#judgeQuiet();
    this.#judgeChange();
    this.#judgeRoutes();
    this.#judgeMoves();
    this.world.runFor(SETTLE_MS);
    this.#judgeRest("at rest after the moves", true);
    this.#judgeEnd();
  }

  // ---- Where the host is -------------------------------------------------------------------

  /** Carries the host to these places; what discovery finds is told after a while. */
  #arrive(places: readonly Place[], discoveryMs: number): void {
    this.world.note(`to ${places.map(({ name }) => name).join(" and ")}`);
    for (const attached of [...this.#host.interfaces]) this.#host.detach(attached);
    this.#here = places;
    for (const place of places) {
      const addresses = ([4, 6] as const)
        .filter((family) => place.of(family).length > 0)
        .map((family) => this.#lastAddress(place, family) ?? this.#newAddress(place, family));
      this.#host.attach(place.lan, addresses);
      this.#plant(place);
    }
    this.#found = places.flatMap(({ routers }) => routers);
    this.#tellSoon(discoveryMs);
  }

  #lastAddress(place: Place, family: 4 | 6): string | undefined {
    return this.#addresses.findLast((one) => one.place === place && one.family === family)?.address;
  }

  #newAddress(place: Place, family: 4 | 6): string {
    const index = 1 + this.#places.indexOf(place);
    const address = place.freeAddress(family, index, () => below(this.#random, 0x1000));
    this.#addresses.push({ place, family, address });
    return address;
  }

  /** Other programs of the host have mappings, too. */
  #plant(place: Place): void {
    for (const router of place.routers) {
      const address = this.#lastAddress(place, router.family);
      if (address !== undefined) router.plantForeign(address, this.#places.indexOf(place));
    }
  }

  #tellSoon(ms: number): void {
    if (ms === 0) this.#tell();
    else this.world.after(ms, () => this.#tell());
  }

  /** What discovery finds is told; a host that sleeps finds nothing. */
  #tell(): void {
    if (this.#host.isSuspended) return;
    const paths = this.#paths();
    this.world.note(`discovery finds ${paths.map(({ gateway }) => gateway.address).join(", ")}`);
    for (const traveller of this.travellers) traveller.tellNetwork(paths);
  }

  #paths(): NetworkPath[] {
    return this.#found.map((router): NetworkPath => {
      const place = this.#here.find(({ routers }) => routers.includes(router))!;
      const localAddress = this.#lastAddress(place, router.family)!;
      // What the system would choose may be another one, where an old one is there still.
      const way = this.#host.addressToward(router.address) ?? "none";
      return { gateway: router.endpoint, ...(this.#bindsSource ? { localAddress } : { way }) };
    });
  }

  #roam(): void {
    const random = this.#random;
    const places = this.#places.filter((one) => !this.#here.includes(one));
    const next = [pick(random, places.length > 0 ? places : this.#places)];
    const other = pick(random, this.#places);
    const isBoth = other.number !== next[0]!.number && below(random, 4) === 0;
    const sleeps = below(random, 3) === 0;
    const ms = pick(random, [0, 50, 2000, 20_000]);
    if (!sleeps) return this.#arrive(isBoth ? [...next, other] : next, ms);
    this.world.note("sleeps on the way");
    this.#host.suspend();
    this.#arrive(isBoth ? [...next, other] : next, Infinity);
    this.world.runFor(pick(random, [5000, 600_000, 3 * 3_600_000]));
    this.#wake();
  }

  #wake(): void {
    if (!this.#host.isSuspended) return;
    this.world.note("wakes up");
    this.#host.resume();
    this.#tellSoon(pick(this.#random, [0, 1000]));
  }

  // ---- What happens ------------------------------------------------------------------------

  #turn(): void {
    if (this.#isCalm) return;
    const random = this.#random;
    const routers = this.#here.flatMap((place) => place.routers);
    switch (below(random, 5)) {
      case 0:
      case 1:
        return this.#routerTurn(pick(random, routers));
      case 2:
        return this.#networkTurn(pick(random, this.#here));
      default:
        if (!this.#host.isSuspended) this.#programTurn(pick(random, this.travellers));
    }
  }

  #routerTurn(router: Router): void {
    const random = this.#random;
    const isOn = () => pick(random, ["on", "off"]);
    const turns: readonly (() => void)[] = [
      () => router.scenario("reboot"),
      () => router.scenario("reboot"),
      () => router.scenario("forget"),
      () => router.scenario(`epoch ${pick(random, [0, 100, 100_000])}`),
      () => router.scenario(`exhaust ${isOn()}`),
      () => router.scenario(`refuse ${pick(random, [2, 3, 4, 8, 12, "off"])}`),
      () => router.scenario(`delay ${pick(random, [0, 100, 700, 5000])}`),
      () => router.scenario(`loss ${pick(random, [0, 0.2, 0.9])}`),
      () => router.scenario(`deaf ${pick(random, [1, 5, 40])}`),
      () => router.scenario(`duplicate ${isOn()}`),
      () => router.scenario("announce"),
      () => router.power(below(random, 2) === 0),
      () => router.power(below(random, 2) === 0),
      () => router.setProtocol(pick(random, ["pcp", "nat-pmp", "upnp"]), below(random, 2) === 0),
      () => {
        for (const { address } of this.#addresses) {
          router.scenario(`client ${address} ${pick(random, ["allow", "deny"])}`);
        }
      },
      () => {
        if (router.family === 4) router.changeExternal(this.#newExternal());
      },
    ];
    if (router.servers.length === 0) return;
    pick(random, turns)();
  }

  #networkTurn(place: Place): void {
    const random = this.#random;
    switch (below(random, 6)) {
      case 0:
        return place.lan.link.set({ ...CLEAN, ...drawLink(random) });
      case 1:
      case 2:
        return this.#renumber(place, 4);
      case 3:
        return this.#renumber(place, 6);
      case 4: {
        // Another default route: the order of the gateways changes, or there are others.
        const found = this.#here.flatMap(({ routers }) => routers);
        const from = below(random, found.length);
        const turned = [...found.slice(from), ...found.slice(0, from)];
        this.#found = turned.slice(0, 1 + below(random, turned.length));
        return this.#tellSoon(pick(random, [0, 1000]));
      }
      default: {
        // A new router, or the old one with another address: the host gets one, too.
        const [router] = place.of(4);
        const address = `192.168.${place.number}.${250 + below(random, 4)}`;
        if (!router || router.plan.igd || place.lan.lookup(address)) return;
        router.changeInside(address);
        if (below(random, 2) === 0) this.#renumber(place, 4);
        else this.#tellSoon(pick(random, [0, 20_000]));
      }
    }
  }

  /** A WAN address that no router has. */
  #newExternal(): string {
    for (;;) {
      const address = `203.0.113.${10 + below(this.#random, 200)}`;
      if (!this.#internet.lookup(address)) return address;
    }
  }

  /** The host gets another address; over IPv6 the old one may stay for a while. */
  #renumber(place: Place, family: 4 | 6): void {
    const before = this.#lastAddress(place, family);
    if (before === undefined) return;
    const attached = this.#host.interfaces.find(({ addresses }) => addresses.includes(before));
    const address = this.#newAddress(place, family);
    this.world.note(`${before} is ${address} from here on`);
    attached?.addAddress(address);
    if (family === 4 || below(this.#random, 2) === 0) attached?.removeAddress(before);
    // The host's other programs move along with it.
    for (const router of place.of(family)) router.forgetForeign(before);
    this.#plant(place);
    this.#tellSoon(pick(this.#random, [0, 50, 2000, 20_000]));
  }

  #programTurn(traveller: Traveller): void {
    const random = this.#random;
    const errands = traveller.wanted();
    const errand = errands[below(random, Math.max(1, errands.length))];
    const { world } = this;
    switch (below(random, 12)) {
      case 0:
      case 1:
        return this.#want(traveller);
      case 2:
        return errand && traveller.revoke(errand);
      case 3:
        return errand && traveller.renew(errand);
      case 4:
        return traveller.askAddresses();
      case 5: {
        const hasState = below(random, 3) > 0;
        world.note(`${traveller.name} crashes${hasState ? ", and knows what it had" : ""}`);
        return traveller.restart(hasState);
      }
      case 6: {
        world.note(`${traveller.name} closes`);
        traveller.close();
        const hasState = below(random, 2) === 0;
        return world.after(pick(random, [0, 100, 1000, 60_000]), () => {
          if (!traveller.isClosed || this.#isCalm) return;
          traveller.restart(hasState);
          this.#want(traveller);
        });
      }
      case 7:
        return errand && below(random, 3) === 0 ? traveller.abandon(errand) : undefined;
      case 8:
        return traveller.unmap(this.#draw(traveller));
      case 9: {
        // Both at once, or nearly.
        if (!errand) return;
        world.note(`${traveller.name} renews and revokes ${errand.name}`);
        traveller.renew(errand);
        return world.after(pick(random, [0, 1, 100]), () => {
          if (!this.#host.isSuspended && !errand.isOver) traveller.revoke(errand);
        });
      }
      default: {
        const ms = pick(random, [1000, 60_000, 3_600_000]);
        world.note(`sleeps for ${ms / 1000} s`);
        this.#host.suspend();
        return world.after(ms, () => this.#wake());
      }
    }
  }

  #want(traveller: Traveller): void {
    if (this.#host.isSuspended || this.#isCalm) return;
    const request = this.#draw(traveller);
    this.world.note(`${traveller.name} wants ${request.internalPort}/${request.protocol}`);
    traveller.want(request);
  }

  #watch(traveller: Traveller): void {
    if (this.#host.isSuspended || this.#isCalm) return;
    const random = this.#random;
    const family = pick(random, [undefined, undefined, 4, 6] as const);
    traveller.want({
      protocol: pick(random, ["tcp", "udp"] as const),
      internalPort: traveller.firstPort + 500,
      lifetimeSeconds: pick(random, [120, 900]),
      ...(family !== undefined && { family }),
    }, true);
  }

  #draw({ firstPort, protocols = EVERY }: Traveller): PortRequest {
    const random = this.#random;
    const protocol = pick(random, ["tcp", "udp"] as const);
    // Those of a family, and those of whichever there is, keep to themselves.
    const family = pick(random, [undefined, undefined, 4, 6] as const);
    const internalPort = firstPort + below(random, 4) + (family === undefined ? 0 : 4);
    const common: PortRequest = {
      protocol,
      internalPort,
      lifetimeSeconds: pick(random, [120, 300, 600, 900]),
      ...(family !== undefined && { family }),
    };
    switch (below(random, 10)) {
      case 0:
      case 5:
        // Few ports, so that several want the same.
        return { ...common, suggestedExternal: { port: 6000 + below(random, 4) } };
      case 1:
        return { ...common, mode: pick(random, ["once", 2, 3]) };
      case 2:
        return {
          ...common,
          filters: [{
            prefix: family === 6
              ? { address: "2001:db8:ffff::", prefixLength: 48, family: 6 }
              : { address: "198.51.100.0", prefixLength: 24, family: 4 },
            port: 0,
          }],
          family: family ?? 4,
          internalPort: firstPort + 4 + below(random, 4),
        };
      case 3:
        return {
          ...common,
          protocols: [pick(random, protocols)],
          family: 4,
          internalPort: firstPort + 4 + below(random, 4),
        };
      case 4:
        return this.#drawForPcp(common, firstPort);
      default:
        return common;
    }
  }

  /** What PCP alone can do, each with ports of its own. */
  #drawForPcp({ protocol, lifetimeSeconds }: PortRequest, firstPort: number): PortRequest {
    const random = this.#random;
    const common = { protocol, lifetimeSeconds: lifetimeSeconds!, family: 4 } as const;
    const first = firstPort + 100 + below(random, 3);
    switch (below(random, 3)) {
      case 0:
        return { ...common, internalPort: first, remote: { address: PEER[4], port: 9 } };
      case 1: {
        const { number } = pick(random, this.#places);
        return { ...common, internalPort: first + 10, thirdParty: thirdPartyAt(number) };
      }
      default:
        return {
          ...common,
          internalPort: firstPort + 120 + 8 * (first % 3),
          portSet: { size: 2 + below(random, 6) },
        };
    }
  }

  // ---- Judgement ---------------------------------------------------------------------------

  /** Puts everything right. */
  #calm(): void {
    this.world.note("all is put right");
    this.#isCalm = true;
    for (const place of this.#places) {
      place.lan.link.set({ ...CLEAN, ...place.link });
      // One of several may be off all the same.
      const isOneDead = place.of(4).length > 1 && below(this.#random, 3) === 0;
      if (isOneDead) this.#dead.add(pick(this.#random, place.of(4)));
      for (const router of place.routers) {
        router.power(!this.#dead.has(router));
        if (router.servers.length === 0) continue;
        for (const line of CALMING) router.scenario(line);
        for (const protocol of router.plan.protocols) router.setProtocol(protocol, true);
        for (const { address } of this.#addresses) router.scenario(`client ${address} allow`);
      }
    }
    this.#host.resume();
    for (const traveller of this.travellers) if (traveller.isClosed) traveller.restart(true);
    this.#found = this.#here.flatMap(({ routers }) => routers);
    this.#tell();
  }

  #judgeForeign(): void {
    for (const place of this.#places) place.judgeForeign();
  }

  /** What can hold an errand here, by its family and protocols. */
  #able(traveller: Traveller, { request, told, granted }: Errand): Router[] {
    const has4 = this.#found.some(({ family }) => family === 4);
    // Where none is named it is IPv4's, if there is a gateway; what is held already stays.
    const isHeldBySix = told === "held" && granted!.gateway.address.includes(":");
    const family = request.family ?? (has4 && !isHeldBySix ? 4 : 6);
    return this.#found.filter((router) => {
      const { number } = this.#here.find(({ routers }) => routers.includes(router))!;
      const { thirdParty } = request;
      return router.family === family && !this.#dead.has(router) &&
        (thirdParty === undefined || thirdParty === thirdPartyAt(number)) &&
        protocolsFor(traveller, request, router).length > 0;
    });
  }

  /** `isLong`: whatever could not be deleted has run out by now. */
  #judgeRest(when: string, isLong: boolean): void {
    this.#judgeForeign();
    const routers = this.#here.flatMap((place) => place.routers);
    for (const router of routers) router.tidy();
    for (const traveller of this.travellers) {
      for (const errand of traveller.wanted()) this.#judgeErrand(traveller, errand, when);
    }
    if (isLong) this.#judgeLeft(routers, when);
  }

  #judgeErrand(traveller: Traveller, errand: Errand, when: string): void {
    const { request, told, granted, name } = errand;
    if ((request.mode ?? "keep-alive") !== "keep-alive") return;
    const able = this.#able(traveller, errand);
    // A device may be another router's than the gateway's, and of one that is no way out.
    const isByDevice = told === "held" && granted!.via === "upnp";
    if (able.length === 0 && !isByDevice) {
      if (told === "held") fail(traveller, when, `holds ${name}, which nobody here grants`);
      return;
    }
    if (told !== "held") fail(traveller, when, `${name} is ${told}`);
    const { gateway, via, external, internal } = granted!;
    const routers = isByDevice
      ? this.#here.flatMap((place) => place.routers)
      : able.filter((one) => one.address === gateway.address);
    if (routers.length === 0) {
      fail(traveller, when, `${name} is told as held at ${gateway.address}`);
    }
    if (request.thirdParty === undefined && !this.#host.hasAddress(internal.address)) {
      fail(traveller, when, `${name} leads to ${internal.address}, where this host is no more`);
    }
    // An outbound mapping is the traffic's, too.
    if (request.remote) return;
    const held = routers.flatMap((one) =>
      one.externals(via, request.protocol, internal.address, request.internalPort)
    ).map(formatEndpoint);
    const here = formatEndpoint(external);
    if (held.includes(here)) return;
    fail(
      traveller,
      when,
      `${name} is told as ${here} by ${via}, is ${held.join(", ") || "nothing"}`,
    );
  }

  /** Of what a gateway holds somebody has to know. */
  #judgeLeft(routers: readonly Router[], when: string): void {
    const wanted = this.travellers.flatMap((one) => one.errands.filter(({ isOver }) => !isOver));
    const hosts = [
      ...this.#addresses.map(({ address }) => address),
      ...this.#places.map(({ number }) => thirdPartyAt(number)),
    ];
    for (const router of routers) {
      for (const address of hosts) {
        for (const { internal, protocol, external } of router.entriesOf(address)) {
          const errand = wanted.find(({ request, granted }) =>
            internal.port >= request.internalPort &&
            internal.port < request.internalPort + (request.portSet?.size ?? 1) &&
            (request.thirdParty === undefined || request.thirdParty === address) &&
            (protocol === 6) === (request.protocol === "tcp") &&
            (granted === undefined || ((granted.via === "upnp" ||
              granted.gateway.address === router.address) &&
              granted.internal.address === address &&
              granted.external.port - granted.internal.port ===
                external.port - internal.port))
          );
          if (errand) continue;
          const what = `${internal.port} of ${address} as ${formatEndpoint(external)}`;
          throw new SimulationError(`${when}: ${router.name} holds ${what}, which nobody wants`);
        }
      }
    }
  }

  /** What is watched is mapped at each gateway that can, and told so; then nobody watches any more. */
  #judgeWatches(): void {
    for (const traveller of this.#watchers) {
      for (const errand of traveller.watched()) {
        const told = traveller.judgeWatched(errand);
        this.#judgeSet(traveller, errand, told);
        traveller.revoke(errand);
      }
    }
  }

  #judgeSet(traveller: Traveller, { request, name }: Errand, told: readonly Assignment[]): void {
    const { family, protocol, internalPort } = request;
    const addresses = this.#host.interfaces.flatMap((one) => one.addresses);
    const local = addresses.filter((one) => family === undefined || familyOf(one) === family);
    const shown = told.filter(({ via }) => via === "local").map(({ address }) => address);
    if (shown.toSorted().join() !== local.toSorted().join()) {
      fail(traveller, "at rest", `tells ${shown} for ${name}, the host is at ${local}`);
    }
    const routers = this.#here.flatMap((place) => place.routers);
    const held = (some: readonly Router[], via: string) =>
      some.flatMap((one) =>
        addresses.flatMap((owner) => one.externals(via, protocol, owner, internalPort))
      ).map(formatEndpoint);
    for (const one of told) {
      if (one.via === "local" || held(routers, one.via).includes(formatEndpoint(one))) continue;
      fail(
        traveller,
        "at rest",
        `tells ${formatEndpoint(one)} by ${one.via} for ${name}: nobody's`,
      );
    }
    for (const router of this.#found) {
      const isMeant = family === undefined || router.family === family;
      const able = isMeant && !this.#dead.has(router)
        ? protocolsFor(traveller, request, router)
        : [];
      // A device may be taken for another gateway's.
      if (able.length === 0 || !able.some((via) => via !== "upnp")) continue;
      const isTold = told.some(({ via, ...one }) =>
        held([router], via).includes(formatEndpoint(one))
      );
      if (!isTold) fail(traveller, "at rest", `tells nothing of ${router.name} for ${name}`);
    }
  }

  /** What a peer on the Internet sends to an external endpoint arrives at the program. */
  #judgeTraffic(): void {
    for (const traveller of this.travellers) {
      for (const { granted, told, name, request } of traveller.wanted()) {
        if (told !== "held" || request.protocol !== "udp" || request.mode) continue;
        if (request.thirdParty !== undefined || request.remote) continue;
        const { external, internal } = granted!;
        let arrived = 0;
        const socket = this.#host.bind({ port: request.internalPort, address: internal.address });
        socket.onDatagram = () => arrived++;
        this.#senders[external.address.includes(":") ? 6 : 4].send(external, new Uint8Array(1));
        this.world.runFor(1000);
        socket.close();
        if (arrived !== 1) fail(traveller, "at rest", `${name} is not reached`);
      }
    }
  }

  /** Where all is in order and nobody asks for anything, there are renewals and nothing else. */
  #judgeQuiet(): void {
    const before = this.travellers.map(({ counts }) => ({ ...counts }));
    let allowed = 200;
    for (const traveller of this.travellers) {
      traveller.sent = 0;
      for (const errand of traveller.wanted()) {
        const isAble = this.#able(traveller, errand).length > 0;
        const seconds = errand.granted?.lifetimeSeconds ?? errand.request.lifetimeSeconds!;
        allowed += isAble ? 4 * QUIET_MS / 1000 / seconds : QUIET_MS / 10_000;
      }
    }
    this.world.runFor(QUIET_MS);
    this.travellers.forEach((traveller, i) => {
      for (const name of ["mapped", "moved", "lost", "recovered", "renewal-failed"]) {
        if ((traveller.counts[name] ?? 0) === (before[i]![name] ?? 0)) continue;
        fail(traveller, "in quiet hours", `tells ${name}`);
      }
      if (traveller.sent > allowed) {
        fail(traveller, "in quiet hours", `has sent ${traveller.sent} datagrams`);
      }
    });
    this.#judgeRest("after quiet hours", true);
  }

  /** A router begins anew, or has another WAN address: that is heard of, or found, soon. */
  #judgeChange(): void {
    for (const router of this.#here.flatMap((place) => place.routers)) {
      if (this.#dead.has(router) || router.servers.length === 0) continue;
      if (below(this.#random, 2) === 0) router.scenario("reboot");
      else if (router.family === 4) {
        router.changeExternal(this.#newExternal());
      }
    }
    this.world.runFor(CHECK_MS);
    this.#judgeRest(AFTER_CHANGE, false);
  }

  /** The default route goes elsewhere, or is gone for a moment; no gateway keeps what it left. */
  #judgeRoutes(): void {
    const all = this.#here.flatMap(({ routers }) => routers);
    const gone = pick(this.#random, all);
    const some = all.filter((router) => router !== gone);
    this.world.note("the default route goes elsewhere");
    this.#found = some;
    this.#tell();
    this.world.runFor(pick(this.#random, [100, 1000, MOVE_MS]));
    if (some.length > 0) {
      this.world.runFor(MOVE_MS);
      this.#judgeRest("by another route", false);
    }
    this.#found = all;
    this.#tell();
    this.world.runFor(MOVE_MS);
    this.#judgeRest("by the first route again", false);
  }

  /** To each of the other places and back. */
  #judgeMoves(): void {
    const [first] = this.#here;
    const others = this.#places.filter((one) => !this.#here.includes(one));
    for (const place of [...others, first!]) {
      // Who comes to other gateways with the same addresses cannot know that they are others.
      const isTwin = this.#here.some(({ number }) => number === place.number);
      this.#arrive([place], 0);
      this.world.runFor(isTwin ? SETTLE_MS : MOVE_MS);
      this.#judgeRest(`at ${place.name}`, false);
      this.world.runFor(pick(this.#random, [0, 60_000, 600_000]));
    }
  }

  /** All is deleted, each id has ended, and nobody goes on. */
  #judgeEnd(): void {
    for (const traveller of this.travellers) traveller.close();
    this.world.runFor(DELETION_MS);
    this.#judgeForeign();
    const routers = this.#here.flatMap((place) => place.routers);
    for (const router of routers) router.tidy();
    for (const router of routers) {
      for (const { address } of this.#addresses) {
        const [left] = router.entriesOf(address);
        if (!left) continue;
        const what = `${left.internal.port} of ${address}`;
        throw new SimulationError(`${router.name} holds ${what} after the end`);
      }
    }
    this.world.runFor(GIVING_UP_MS);
    for (const traveller of this.travellers) traveller.judgeEnded();
  }
}

const AFTER_CHANGE = "after a change at the gateway";
const CLEAN = { delayMs: 1, jitterMs: 0, loss: 0, duplicate: 0, reorder: 0 } as const;
const EVERY: readonly GatewayProtocol[] = ["pcp", "nat-pmp", "upnp"];
const CALMING = [
  "exhaust off",
  "refuse off",
  "delay 0",
  "loss 0",
  "deaf 0",
  "duplicate off",
] as const;

/** AddAnyPortMapping takes a port that is free; the actions of version 1 may take another host's. */
function drawDevice(random: RandomSource): Pick<RouterPlan, "igd" | "overwrites"> {
  return below(random, 2) === 0 ? { igd: 2 } : { igd: 1, overwrites: below(random, 4) > 0 };
}

/** The routers of a place: one or two of IPv4, and perhaps a firewall, with pinholes or without. */
function drawRouters(random: RandomSource, isHome: boolean, pinholes: RandomSource): RouterPlan[] {
  const kind = below(random, 10);
  const plain = (protocols: readonly GatewayProtocol[], isSplit = false): RouterPlan => ({
    family: 4,
    protocols,
    isSplit,
    isSilent: false,
    ...(protocols.includes("upnp") && drawDevice(random)),
  });
  const both = ["pcp", "nat-pmp"] as const;
  const common = () =>
    pick<readonly GatewayProtocol[]>(random, [
      both,
      ["pcp"],
      ["nat-pmp"],
      ["upnp"],
      ["upnp"],
      EVERY,
    ]);
  const routers: RouterPlan[] = [];
  if (isHome || kind < 3) routers.push(plain(common()));
  else if (kind === 3) routers.push(plain(common()), plain(common()));
  else if (kind === 4) routers.push(plain(both, true));
  else if (kind === 5) routers.push({ ...plain([]), isSilent: true });
  else if (kind === 6) routers.push(plain([]));
  else if (kind === 7) routers.push(plain(["pcp"]), plain(["nat-pmp"]));
  else routers.push(plain(pick(random, [["upnp"], ["nat-pmp", "upnp"], ["pcp", "upnp"], EVERY])));
  if (isHome && below(random, 4) === 0) routers.push(plain(both, below(random, 2) === 0));
  if (below(random, 3) === 0) {
    const spoken = pick<readonly GatewayProtocol[]>(pinholes, [
      ["pcp"],
      ["pcp"],
      ["upnp"],
      ["pcp", "upnp"],
    ]);
    const firewall: RouterPlan = {
      family: 6,
      protocols: spoken,
      isSplit: false,
      isSilent: false,
      ...(spoken.includes("upnp") && { igd: 2, overwrites: below(pinholes, 2) === 0 }),
    };
    // A network may have no IPv4 at all.
    if (below(random, 6) === 0) return [firewall];
    routers.push(firewall);
  }
  return routers;
}

/** By what a program can have it done by a router. */
function protocolsFor(
  { protocols = EVERY }: Traveller,
  request: PortRequest,
  router: Router,
): readonly GatewayProtocol[] {
  return router.spoken.filter((protocol) =>
    protocols.includes(protocol) && (request.protocols?.includes(protocol) ?? true) &&
    (protocol === "pcp" || !isForPcp(request))
  );
}

/** Whether PCP alone can do it: who may come in is its to say, but for single hosts. */
function isForPcp({ filters, remote, thirdParty, portSet }: PortRequest): boolean {
  return filters !== undefined || remote !== undefined || thirdParty !== undefined ||
    portSet !== undefined;
}

/** Another host of a network, for which a program may ask. */
function thirdPartyAt(number: number): string {
  return `192.168.${number}.10`;
}

function describe({ name, routers }: Place): string {
  const plans = routers.map(({ plan }) =>
    `IPv${plan.family} ${plan.protocols.join(plan.isSplit ? " | " : "+") || "dumb"}` +
    (plan.isSilent ? " silent" : "")
  );
  return `${name}: ${plans.join(", ")}`;
}

function fail(traveller: Traveller, when: string, what: string): never {
  throw new SimulationError(`${traveller.name} ${when}: ${what}`);
}
