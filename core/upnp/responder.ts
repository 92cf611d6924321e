/**
 * The device's side of SSDP: answers searches and announces the device, on each interface with the
 * address by which that interface's clients reach it.
 *
 * Theory of operation. What is said is a list of adverts: for the root device, for each device in it
 * by its UUID and by its type, and for each service. A search gets those it fits. To a multicast
 * search each answer leaves after a random part of the time that the searcher gave (MX), so that a
 * whole network does not answer at once; to a unicast one it leaves at once. An answer that waits
 * for a searcher stands for every copy of its search, since a search comes several times over. How
 * many may wait is bounded.
 *
 *   silent ──start──▶ announced, anew before each announcement runs out ──bye / silence──▶ silent
 *
 * @module
 */
import { type Cidr, classify, contains, isLoopback } from "../cidr.ts";
import { familyOf, withoutZone } from "../ip.ts";
import type { DebugTimeout, Endpoint, Instant } from "../machine.ts";
import { type RandomSource, uniform } from "../random.ts";
import { Repeats } from "../table/repeats.ts";
import { Timers } from "../timers.ts";
import type { Device } from "./description.ts";
import {
  decodeSsdp,
  encodeAdvert,
  encodeSearchResponse,
  SSDP_ALL,
  SSDP_MAX_MX,
  SSDP_ROOT_DEVICE,
  ssdpGroup,
  type SsdpMessage,
} from "./ssdp.ts";

/** Where a device is on the network: its own address there and who else is. */
export interface SsdpInterface {
  /** The device's address, without its zone. */
  readonly address: string;
  /** Whose searches are answered with that address. */
  readonly prefix: Cidr;
  /** The key of the socket that answers and announces, and hears unicast searches. */
  readonly socket: string;
  /** What the keys of the sockets that hear multicast searches begin with. */
  readonly groupSocket: string;
  /** The port of both; also the group's. */
  port: number;
}

/** What makes a responder peculiar; by default it does what UPnP asks for. */
export interface SsdpHabits {
  /** Which searches it hears; both by default. */
  readonly hears?: "multicast" | "unicast";
  /** The only targets that it answers, whatever else it is; all that fit by default. */
  readonly answersOnly?: readonly string[];
  /** What it answers a search for all with: as another device it has, and nothing else. */
  readonly answersAllAs?: string;
  /** It hears a search only where each line ends with CRLF, the last one is empty, MAN in capitals. */
  readonly isStrict?: boolean;
  /** The root device's advert goes before each answer. */
  readonly rootFirst?: boolean;
  /** It answers from another port than the one that was asked. */
  readonly answersElsewhere?: boolean;
  /** It answers with the version it has instead of the one asked for. */
  readonly tellsOwnVersion?: boolean;
  /** It answers so many searches, then no more until it boots. */
  readonly tiresAfter?: number;
  /** It answers one of several searches that come within so many milliseconds. */
  readonly busyMs?: number;
  /** It announces nothing. */
  readonly isQuiet?: boolean;
}

/** What a responder needs. */
export interface ResponderOptions {
  /** The device. */
  readonly device: Device;
  /** Where it is. */
  readonly interfaces: readonly SsdpInterface[];
  /** For how long an announcement counts, seconds. */
  readonly maxAgeSeconds: number;
  /** Operating system, UPnP version and product. */
  readonly server: string;
  /** The description's URL for clients of an interface; undefined while nobody can fetch it. */
  readonly location: (own: SsdpInterface) => string | undefined;
  /** Decides when an answer leaves. */
  readonly random: RandomSource;
  /** Sends. */
  readonly send: (socket: string, to: Endpoint, data: Uint8Array) => void;
  /** Peculiarities. */
  readonly habits: SsdpHabits;
}

/** What a responder has done. */
export interface SsdpStats {
  /** Searches that were answered. */
  searches: number;
  /** Answers that left. */
  answers: number;
  /** Datagrams that announced something. */
  announcements: number;
  /** Datagrams that were no search, or none that is answered. */
  ignored: number;
  /** Answers that were dropped since too many waited. */
  overflowed: number;
}

/** What became of a datagram. */
export type Heard =
  /** It is answered, at once or later, with this many adverts. */
  | { readonly kind: "search"; readonly target: string; readonly answers: number }
  /** It is no search, or none that is answered. */
  | { readonly kind: "ignored" };

interface Advert {
  readonly target: string;
  readonly usn: string;
}

interface Answer extends Advert {
  readonly own: SsdpInterface;
  /** The key of the socket that it leaves by. */
  readonly by: string;
  readonly to: Endpoint;
}

type Kind = "alive" | "byebye" | "update";

/** How many answers may wait. */
const MAX_WAITING = 1024;
/** How often an announcement is made (UDA 1.1 §1.2.2: not more than three times). */
const COPIES = 3;
/** From that part of an announcement's life on it is made anew. */
const RENEWAL_FRACTION = 0.45;
const ANNOUNCEMENT = "announcement";
const IGNORED: Heard = { kind: "ignored" };

/** The device's side of SSDP. */
export class SsdpResponder {
  readonly #options: ResponderOptions;
  readonly #adverts: readonly Advert[];
  readonly #waiting = new Map<string, Answer>();
  readonly #due = new Timers<string>();
  readonly #repeats = new Repeats<Kind>();
  #renewAt: Instant | undefined;
  #isOn = false;
  #answered = 0;
  #busyUntil: Instant = -Infinity;
  /** Grows with each boot (UDA 1.1 §1.2): who sees another one asks for its mappings anew. */
  bootId: number;
  /** What happened. */
  readonly stats: SsdpStats = {
    searches: 0,
    answers: 0,
    announcements: 0,
    ignored: 0,
    overflowed: 0,
  };

  /** Makes one that is silent. */
  constructor(options: ResponderOptions, bootId: number) {
    this.#options = options;
    this.#adverts = advertsOf(options.device);
    this.bootId = bootId;
  }

  /** Announces the device and answers from now on. */
  start(now: Instant): void {
    this.#isOn = true;
    this.#answered = 0;
    this.#waiting.clear();
    this.#due.clear();
    this.announce(now);
  }

  /** Announces that the device is there, three times. */
  announce(now: Instant): void {
    if (!this.#isOn || this.#options.habits.isQuiet) return;
    this.#repeats.start(ANNOUNCEMENT, "alive", COPIES, "announce", now);
    this.#repeat(now);
  }

  /** Says that its boot number changes to `next` while it stays there; then it has changed. */
  update(next: number): void {
    if (this.#isOn && !this.#options.habits.isQuiet) this.#sayAll("update", next);
    this.bootId = next;
  }

  /** Says that the device goes, and is silent. */
  bye(): void {
    if (this.#isOn && !this.#options.habits.isQuiet) this.#sayAll("byebye");
    this.silence();
  }

  /** Is silent, without a word. */
  silence(): void {
    this.#isOn = false;
    this.#renewAt = undefined;
    this.#repeats.clear();
    this.#waiting.clear();
    this.#due.clear();
  }

  /**
   * Takes what came by a socket. One that is none of the interfaces' is another's that takes unicast
   * searches as well; what came there is answered from there.
   */
  hear(data: Uint8Array, from: Endpoint, socket: string, now: Instant): Heard {
    const message = decodeSsdp(data);
    const own = this.#interfaceOf(from, socket);
    if (typeof message === "string" || message.kind !== "search" || !own || !this.#isOn) {
      this.stats.ignored++;
      return IGNORED;
    }
    const isMulticast = this.#options.interfaces.some((one) => isOfGroup(one, socket));
    const { habits } = this.#options;
    // UDA 1.1 §1.3.3: a multicast search without MX is not answered.
    const isUnheard = habits.hears === (isMulticast ? "unicast" : "multicast") ||
      (isMulticast && message.mx === undefined) || (habits.isStrict && !isExact(data)) ||
      this.#answered >= (habits.tiresAfter ?? Infinity) || now < this.#busyUntil;
    const adverts = isUnheard ? [] : this.#fitting(message);
    if (adverts.length === 0) {
      this.stats.ignored++;
      return IGNORED;
    }
    this.stats.searches++;
    this.#answered++;
    if (habits.busyMs !== undefined) this.#busyUntil = now + habits.busyMs;
    for (const advert of adverts) {
      const spread = isMulticast ? 1000 * Math.min(message.mx!, SSDP_MAX_MX) : 0;
      const by = isMulticast || socket === own.socket ? own.socket : socket;
      this.#answerAt({ ...advert, own, by, to: from }, spread, now);
    }
    return { kind: "search", target: message.target, answers: adverts.length };
  }

  /** Does what is due. */
  handleTimeout(now: Instant): void {
    for (let key = this.#due.popDue(now); key !== undefined; key = this.#due.popDue(now)) {
      const answer = this.#waiting.get(key)!;
      this.#waiting.delete(key);
      this.#answer(answer);
    }
    this.#repeat(now);
    if (this.#renewAt !== undefined && this.#renewAt <= now) this.announce(now);
  }

  /** When something is due. */
  nextAt(): Instant | undefined {
    const at = Math.min(
      this.#due.nextAt() ?? Infinity,
      this.#repeats.nextAt() ?? Infinity,
      this.#renewAt ?? Infinity,
    );
    return at === Infinity ? undefined : at;
  }

  /** {@linkcode SsdpResponder.nextAt} with its reason. */
  next(): DebugTimeout | undefined {
    const at = this.nextAt();
    if (at === undefined) return undefined;
    return { at, reason: at === this.#due.nextAt() ? "answer a search" : "announce the device" };
  }

  /**
   * Where the searcher is: systems hand a multicast to every socket of its group, whichever
   * interface it came by.
   */
  #interfaceOf({ address }: Endpoint, socket: string): SsdpInterface | undefined {
    const { interfaces } = this.#options;
    const fitting = interfaces.filter((own) => isNear(own, address));
    const isAt = (own: SsdpInterface) => own.socket === socket || isOfGroup(own, socket);
    // A link-local address has the zone of the socket that heard it, be that right or not.
    const isOthers = isLinkLocal(address)
      ? interfaces.some(isAt)
      : interfaces.some((own) => own.socket === socket);
    return fitting.find(isAt) ?? (isOthers ? undefined : fitting[0]);
  }

  #fitting({ target }: SsdpMessage): Advert[] {
    const { habits } = this.#options;
    if (habits.answersOnly && !habits.answersOnly.includes(target)) return [];
    if (target === SSDP_ALL && habits.answersAllAs !== undefined) {
      const other = habits.answersAllAs;
      return [{ target: other, usn: `${this.#options.device.udn}::${other}` }];
    }
    const found = this.#find(target);
    const root = habits.rootFirst ? this.#find(SSDP_ROOT_DEVICE) : [];
    return [...(found.length > 0 ? root : []), ...found];
  }

  #find(target: string): Advert[] {
    if (target === SSDP_ALL) return [...this.#adverts];
    const exact = this.#adverts.find((advert) => advert.target === target);
    if (exact) return [exact];
    // UDA 1.1 §1.3.3: a device of a higher version answers as the one that was asked for.
    const asked = versionOf(target);
    const higher = asked && this.#adverts.find((advert) => {
      const own = versionOf(advert.target);
      return own && own.type === asked.type && own.version > asked.version && asked.version >= 1;
    });
    if (!higher) return [];
    if (this.#options.habits.tellsOwnVersion) return [higher];
    return [{ target, usn: higher.usn.replace(higher.target, target) }];
  }

  #answerAt(answer: Answer, spreadMs: number, now: Instant): void {
    if (spreadMs === 0) return this.#answer(answer);
    const key = `${answer.to.address} ${answer.to.port} ${answer.usn}`;
    if (this.#waiting.has(key)) return;
    if (this.#waiting.size >= MAX_WAITING) {
      this.stats.overflowed++;
      return;
    }
    this.#waiting.set(key, answer);
    this.#due.set(key, now + uniform(this.#options.random, 0, spreadMs), "answer");
  }

  #answer({ own, by, to, target, usn }: Answer): void {
    const advert = this.#advert(own, { target, usn });
    if (!advert) return;
    this.stats.answers++;
    const socket = this.#options.habits.answersElsewhere ? "other" : by;
    this.#options.send(socket, to, encodeSearchResponse(advert));
  }

  #repeat(now: Instant): void {
    if (this.#repeats.popDue(now) === undefined) return;
    this.#sayAll("alive");
    this.#renewAt = now + 1000 * this.#options.maxAgeSeconds * RENEWAL_FRACTION;
  }

  #sayAll(kind: Kind, nextBootId?: number): void {
    for (const own of this.#options.interfaces) {
      const group = ssdpGroup(familyOf(own.address));
      const host = { address: group, port: own.port };
      for (const each of this.#adverts) {
        const advert = this.#advert(own, each);
        if (!advert) continue;
        this.stats.announcements++;
        const next = nextBootId === undefined ? {} : { nextBootId };
        this.#options.send(own.socket, host, encodeAdvert(kind, host, { ...advert, ...next }));
      }
    }
  }

  #advert(own: SsdpInterface, { target, usn }: Advert) {
    const location = this.#options.location(own);
    if (location === undefined) return undefined;
    const { maxAgeSeconds, server } = this.#options;
    return {
      target,
      usn,
      location,
      maxAgeSeconds,
      server,
      bootId: this.bootId,
      configId: 1,
      ...(own.port >= 49152 && { searchPort: own.port }),
    };
  }
}

/** What a device and those in it announce (UDA 1.1 §1.2.2). */
function advertsOf(root: Device): readonly Advert[] {
  const adverts: Advert[] = [{ target: SSDP_ROOT_DEVICE, usn: `${root.udn}::${SSDP_ROOT_DEVICE}` }];
  const add = (device: Device): void => {
    adverts.push({ target: device.udn, usn: device.udn });
    const types = [device.deviceType, ...device.services.map(({ serviceType }) => serviceType)];
    for (const target of new Set(types)) adverts.push({ target, usn: `${device.udn}::${target}` });
    for (const inner of device.devices) add(inner);
  };
  add(root);
  return adverts.filter(({ usn }, i) => adverts.findIndex((other) => other.usn === usn) === i);
}

/** Whether who has the address may be a client there: of its prefix, or on the link. */
export function isNear({ prefix }: Pick<SsdpInterface, "prefix">, address: string): boolean {
  if (contains(prefix, withoutZone(address))) return true;
  return prefix.family === 6 && !isLoopback(prefix.address) && isLinkLocal(address);
}

/** Whether an address of IPv6 is of one link alone. */
function isLinkLocal(address: string): boolean {
  return familyOf(address) === 6 && classify(withoutZone(address)) === "link-local";
}

function isOfGroup({ groupSocket }: SsdpInterface, socket: string): boolean {
  return socket === groupSocket || socket === `${groupSocket} site`;
}

function isExact(data: Uint8Array): boolean {
  const text = new TextDecoder().decode(data);
  return text.includes('\r\nMAN: "ssdp:discover"\r\n') && text.endsWith("\r\n\r\n") &&
    !/[^\r]\n/.test(text);
}

function versionOf(
  target: string,
): { readonly type: string; readonly version: number } | undefined {
  const colon = target.lastIndexOf(":");
  const text = target.slice(colon + 1);
  if (!/^[0-9]{1,3}$/.test(text)) return undefined;
  return { type: target.slice(0, colon), version: Number(text) };
}
