/**
 * What kind of NAT stands between this host and the internet (RFC 5780), as one machine: mapping,
 * filtering, hairpinning, which ports it gives, how long it keeps a binding that is not used, and
 * whether it rewrites addresses in packets. Several servers may be asked; one with a second address
 * is needed for mapping and filtering.
 *
 * It lists sockets of its own, at random ports that no earlier packet has left from (RFC 5780 §4.1),
 * begins no more than ten transactions a second (§5), and ends with one event. What it finds holds
 * now, for these ports: a NAT may be worse under load.
 *
 * @module
 */
import { checkAddress, checkInteger } from "../check.ts";
import { classify } from "../cidr.ts";
import { familyOf, isSameEndpoint } from "../ip.ts";
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
import { below, type RandomSource } from "../random.ts";
import { earliest, Timers } from "../timers.ts";
import { StunClient, type StunClientEvent, type StunFailure, type StunRequest } from "./client.ts";
import { decodeStun, encodeStun, STUN_METHOD, transactionKey } from "./codec.ts";

/** What part of a remote endpoint counts for a mapping or a filter (RFC 4787 §4.1, §5). */
export type NatDependence =
  /** None of it: one mapping for all; anybody may send. */
  | "endpoint-independent"
  /** The address. */
  | "address-dependent"
  /** Address and port. */
  | "address-and-port-dependent";

/** What becomes of a packet from inside to an external endpoint of the NAT (RFC 4787 §6). */
export type NatHairpinning =
  /** It does not come through. */
  | "none"
  /** It comes from the sender's internal address. */
  | "internal-source"
  /** It comes from the sender's external address, as REQ-9 wants. */
  | "external-source";

/** Which external ports it gives (RFC 4787 §4.2). */
export type NatPorts =
  /** The internal one, where that is free. */
  | "preserving"
  /** One a little above the one before: the next can be guessed. */
  | "contiguous"
  /** Any. */
  | "random";

/** The names that people know from RFC 3489. */
export type NatType =
  /** No server answered over UDP. */
  | "blocked"
  /** No NAT, and anybody may send. */
  | "open"
  /** No NAT, but who was not sent to may not send. */
  | "firewall"
  | "full-cone"
  | "restricted-cone"
  | "port-restricted-cone"
  | "symmetric"
  /** The servers cannot tell: none has a second address. */
  | "unknown";

/** How one server answered. */
export interface NatBehaviourServer {
  /** The server. */
  readonly server: Endpoint;
  /** How it saw us; undefined where it did not answer. */
  readonly external: Endpoint | undefined;
  /** Its other address and port, where it told one. */
  readonly other: Endpoint | undefined;
  /** Milliseconds; undefined where a request was sent twice. */
  readonly roundTripMs: number | undefined;
  /** Why it did not answer. */
  readonly failure: StunFailure | undefined;
}

/** What was found; what could not be found out is undefined. */
export interface NatBehaviourResult {
  /** In one word. */
  readonly type: NatType;
  /** Whether there is a NAT at all. */
  readonly isTranslated: boolean | undefined;
  /** The socket from which mapping was tried. */
  readonly local: Endpoint;
  /** How the first server that answered saw it. */
  readonly external: Endpoint | undefined;
  /**
   * Which remotes share a mapping. Where no server has a second address but several were asked and
   * saw different endpoints it is the worse of the two that it can be.
   */
  readonly mapping: NatDependence | undefined;
  /** Which remotes a mapping lets in. */
  readonly filtering: NatDependence | undefined;
  /** Whether hosts inside reach each other by external endpoints. */
  readonly hairpin: NatHairpinning | undefined;
  /** Which external ports it gives. */
  readonly ports: NatPorts | undefined;
  /** Where they are contiguous: from one to the next. */
  readonly portDelta: number | undefined;
  /** How long a binding lives that is not used, where that was asked for. */
  readonly lifetime: NatBindingLifetime | undefined;
  /** Whether something on the way rewrites addresses in packets (an ALG). */
  readonly rewritesAddresses: boolean;
  /** What each server said, in the order in which they were given. */
  readonly servers: readonly NatBehaviourServer[];
}

/** Bounds on the life of a binding that is not used. */
export interface NatBindingLifetime {
  /** It lives so long at least, seconds. */
  readonly atLeastSeconds: number;
  /** It is gone by then, seconds; undefined where it lived as long as was tried. */
  readonly atMostSeconds: number | undefined;
}

/** What {@linkcode NatBehaviour} takes. */
export interface NatBehaviourOptions {
  /** One to eight servers of one address family; the first that answers with OTHER-ADDRESS serves. */
  readonly servers: readonly Endpoint[];
  /** The address of this host from which packets to them leave. */
  readonly localAddress: string;
  /** Unguessable in earnest. */
  readonly random: RandomSource;
  /**
   * Looks for the life of a binding up to this, 4…3600 seconds; that takes about as long. Default: it
   * is not looked for. Needs a server that takes RESPONSE-PORT.
   */
  readonly maxLifetimeSeconds?: number;
}

/** What it tells: one event, at the end. */
export type NatBehaviourEvent =
  | { readonly type: "found"; readonly result: NatBehaviourResult }
  /** No socket could be opened. */
  | { readonly type: "failed"; readonly code: "permission" | "network"; readonly message: string };

type Answered = Extract<StunClientEvent, { type: "answered" }>;
type Then = (answer: Answered | StunFailure, now: Instant) => void;

/** A socket of a purpose. */
interface Role {
  key: string;
  local: Endpoint;
  isOpen: boolean;
  tries: number;
}

/** An external port as it was first seen, by the order of what was sent. */
interface PortSeen {
  readonly order: number;
  readonly isFirstOfSocket: boolean;
  readonly local: number;
  readonly external: number;
}

/** A binding that is left alone for a while. */
interface Rest {
  readonly role: string;
  readonly forMs: number;
  isAlive: boolean | undefined;
}

/** The ports that RFC 5780 §4.1 recommends. */
const FIRST_PORT = 32_768;
/** How often another port is tried where one is taken. */
const MAX_TRIES = 5;
/** Between two transactions, milliseconds: ten a second (RFC 5780 §5). */
const PACE_MS = 100;
/** How often one is sent: silence is an answer here, and is waited for. */
const PATIENCE = { maxSends: 5, lastWait: 5, followsRedirects: false } as const;
/** So long at least servers are waited for that are not needed, milliseconds. */
const PATIENCE_MS = 1000;
/** A packet to oneself is sent at these times, milliseconds, and given up at the last. */
const HAIRPIN_AT_MS = [0, 250, 750, 1750] as const;
/** External ports that follow each other are no further apart than this. */
const MAX_PORT_DELTA = 16;
/** Rests of the first round, as parts of the longest. */
const FIRST_ROUND = [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1] as const;
/** How many rests of the further rounds. */
const ROUND = 4;
/** Bounds this near to each other are near enough: a second, or a tenth. */
const NEAR_MS = 1000, NEAR_PART = 0.1;

/** The machine; see the head of this file. */
export class NatBehaviour implements Machine<NatBehaviourEvent> {
  /** Counters. */
  readonly stats: { readonly dropped: { unknown: number }; readonly client: StunClient["stats"] };
  readonly #servers: readonly Endpoint[];
  readonly #localAddress: string;
  readonly #random: RandomSource;
  readonly #maxLifetimeMs: number | undefined;
  readonly #client: StunClient;
  readonly #outbox = new Outbox<NatBehaviourEvent>();
  readonly #timers = new Timers<string>();
  readonly #roles = new Map<string, Role>();
  #sockets: readonly SocketSpec[] = [];
  #state: "new" | "running" | "over" = "new";

  /** What waits for its turn, and what waits for an answer. */
  readonly #queue: { readonly request: StunRequest; readonly then: Then }[] = [];
  readonly #asked = new Map<number, Then>();
  #lastAskedAt: Instant = -Infinity;
  #patientUntil: Instant = 0;
  #order = 0;
  /** Tests under way; at zero it is over. */
  #open = 0;

  readonly #answers: (NatBehaviourServer | undefined)[];
  /** The server that is asked for everything else, and its other address and port. */
  #server: Endpoint | undefined;
  #other: Endpoint | undefined;
  #external: Endpoint | undefined;
  #mapping: NatDependence | undefined;
  #filtering: NatDependence | undefined;
  #hairpin: NatHairpinning | undefined;
  #rewrites = false;
  readonly #ports: PortSeen[] = [];
  #hairpinExternal: Endpoint | undefined;
  #hairpinKey: string | undefined;
  #hairpinSends = 0;
  #hairpinData: Uint8Array = new Uint8Array(0);
  readonly #rests: Rest[] = [];
  #bounds: { low: number; high: number | undefined } | undefined;

  /**
   * Makes the machine; {@linkcode NatBehaviour.start} sets it to work.
   *
   * @throws {TypeError | RangeError} Where an option cannot be.
   */
  constructor(options: NatBehaviourOptions) {
    this.#localAddress = checkAddress("localAddress", options.localAddress);
    checkInteger("servers.length", options.servers.length, 1, 8);
    const family = familyOf(this.#localAddress);
    this.#servers = options.servers.map(({ address, port }) => ({
      address: checkAddress("servers.address", address, family),
      port: checkInteger("servers.port", port, 1, 65535),
    }));
    const { maxLifetimeSeconds: most } = options;
    this.#maxLifetimeMs = most === undefined
      ? undefined
      : 1000 * checkInteger("maxLifetimeSeconds", most, 4, 3600);
    this.#random = options.random;
    this.#client = new StunClient({ random: options.random });
    this.#answers = this.#servers.map(() => undefined);
    this.stats = { dropped: { unknown: 0 }, client: this.#client.stats };
  }

  /** Begins. A second call does nothing. */
  start(now: Instant): void {
    this.#outbox.touch(now);
    if (this.#state !== "new") return;
    this.#state = "running";
    for (const role of ["mapping", "filtering", "hairpin"]) this.#openRole(role);
  }

  /** Ends it without a word. */
  close(now: Instant): void {
    this.#outbox.touch(now);
    this.#end(now);
  }

  /** The sockets that it wants at present. */
  readonly sockets = (): readonly SocketSpec[] => this.#sockets;

  /** Takes that one is open, or another port where it is not. */
  handleSocket(key: string, result: SocketResult, now: Instant): void {
    this.#outbox.touch(now);
    const entry = [...this.#roles].find(([, role]) => role.key === key);
    if (!entry || this.#state !== "running") return;
    const [name, role] = entry;
    if (result.ok) {
      if (role.isOpen) return;
      role.isOpen = true;
      role.local = { address: role.local.address, port: result.local.port };
      this.#opened(name, now);
    } else if (!result.isOpen) {
      const isLost = role.isOpen || role.tries >= MAX_TRIES;
      // What was found before the life of a binding was looked for is no less found.
      if (isLost && this.#rests.length > 0) return this.#finish(now);
      if (isLost) {
        const { code, message } = result;
        this.#end(now);
        this.#outbox.emit({ type: "failed", code, message });
      } else {
        this.#openRole(name, role.tries);
      }
    }
    this.#turn(now);
  }

  /** Takes a datagram; false where it is not this machine's. */
  handleDatagram(data: Uint8Array, from: Endpoint, socket: string, now: Instant): boolean {
    this.#outbox.touch(now);
    const isMine = this.#client.handleDatagram(data, from, socket, now) ||
      this.#returned(data, from, socket);
    if (!isMine) this.stats.dropped.unknown++;
    this.#turn(now);
    return isMine;
  }

  /** Takes what ICMP says. */
  handleUnreachable(to: Endpoint, socket: string, now: Instant): void {
    this.#outbox.touch(now);
    this.#client.handleUnreachable(to, socket, now);
    this.#turn(now);
  }

  /** Does what is due. */
  handleTimeout(now: Instant): void {
    this.#outbox.touch(now);
    this.#client.handleTimeout(now);
    for (const key of this.#timers.takeDue(now)) {
      if (key === "hairpin") this.#sendHairpin(now);
      else if (key !== "pace" && key !== "patience") this.#wakeRest(key);
    }
    this.#turn(now);
  }

  /** When {@linkcode NatBehaviour.handleTimeout} is due. */
  nextTimeout(): Instant | undefined {
    return this.debugTimeout()?.at;
  }

  /** The same with its reason. */
  debugTimeout(): DebugTimeout | undefined {
    const at = this.#outbox.wakeAt();
    if (at !== undefined) return { at, reason: "output waits" };
    return earliest(this.#client.debugTimeout(), this.#timers.next());
  }

  /** The next action. */
  poll(): Action<NatBehaviourEvent> | undefined {
    return this.#outbox.poll();
  }

  // ---------------------------------------------------------------------------------- sockets ---

  #openRole(name: string, tries: number = 0): void {
    const port = FIRST_PORT + below(this.#random, 65_536 - FIRST_PORT);
    this.#roles.set(name, {
      // One that failed is not tried again while its key is listed.
      key: tries === 0 ? name : `${name} ${tries + 1}`,
      local: { address: this.#localAddress, port },
      isOpen: false,
      tries: tries + 1,
    });
    this.#list();
  }

  #closeRole(name: string): void {
    this.#roles.delete(name);
    this.#list();
  }

  #list(): void {
    this.#sockets = [...this.#roles.values()].map(({ key, local }) => ({ key, local }));
  }

  #opened(name: string, now: Instant): void {
    const first = ["mapping", "filtering", "hairpin"];
    if (first.includes(name)) {
      if (!first.every((role) => this.#roles.get(role)?.isOpen)) return;
      this.#patientUntil = now + PACE_MS * this.#servers.length + PATIENCE_MS;
      this.#servers.forEach((server, i) =>
        this.#ask("mapping", { server }, (answer) => this.#served(i, answer))
      );
    } else if (name !== "asker") {
      this.#leaveAlone(name);
    }
  }

  // --------------------------------------------------------------------------------- requests ---

  #ask(role: string, request: StunRequest, then: Then): void {
    const { key, local } = this.#roles.get(role)!;
    const order = ++this.#order;
    this.#open++;
    this.#queue.push({
      request: { ...PATIENCE, ...request, socket: key },
      then: (answer, now) => {
        this.#open--;
        const external = externalOf(answer);
        if (external && request.attributes?.responsePort === undefined) {
          this.#see(order, local.port, external.port);
        }
        const { mappedAddress } = "attributes" in answer ? answer.attributes : {};
        if (external && mappedAddress && !isSameEndpoint(external, mappedAddress)) {
          this.#rewrites = true;
        }
        then(answer, now);
      },
    });
  }

  #see(order: number, local: number, external: number): void {
    if (this.#ports.some((seen) => seen.local === local && seen.external === external)) return;
    const isFirstOfSocket = !this.#ports.some((seen) => seen.local === local);
    this.#ports.push({ order, isFirstOfSocket, local, external });
  }

  /** Asks what is to be asked, takes what the client has, and ends when nothing is left to do. */
  #turn(now: Instant): void {
    for (;;) {
      const action = this.#client.poll();
      if (action?.type === "send") {
        this.#outbox.send(action.socket, action.to, action.data);
      } else if (action?.type === "event") {
        const { event } = action;
        const then = this.#asked.get(event.id);
        this.#asked.delete(event.id);
        then?.(event.type === "answered" ? event : event.failure, now);
      } else if (!this.#askNext(now)) break;
    }
    if (this.#state !== "running") return;
    const silent = this.#answers.filter((answer) => !answer).length;
    // Where one server has told all, those that are silent yet are not waited for much longer.
    const isSettled = silent === 0 || this.#other !== undefined;
    if (!isSettled || this.#open > silent) return;
    if (silent === 0 || now >= this.#patientUntil) return this.#finishOrMeasure(now);
    this.#timers.set("patience", this.#patientUntil, "wait for other servers");
  }

  #askNext(now: Instant): boolean {
    if (this.#queue.length === 0 || this.#state !== "running") return false;
    const at = this.#lastAskedAt + PACE_MS;
    if (now < at) {
      this.#timers.set("pace", at, "begin the next transaction");
      return false;
    }
    this.#lastAskedAt = now;
    const { request, then } = this.#queue.shift()!;
    this.#asked.set(this.#client.request(request, now), then);
    return true;
  }

  // --------------------------------------------------------------------- mapping, filtering ---

  #served(index: number, answer: Answered | StunFailure): void {
    const server = this.#servers[index]!;
    const external = externalOf(answer);
    const told = "attributes" in answer
      ? answer.attributes.otherAddress ?? answer.attributes.changedAddress
      : undefined;
    const other = told && isOther(server, told) ? told : undefined;
    this.#answers[index] = {
      server,
      external,
      other,
      roundTripMs: "attributes" in answer ? answer.roundTripMs : undefined,
      failure: "attributes" in answer ? undefined : answer,
    };
    if (this.#server) return;
    if (external && other) return this.#choose(server, external, other);
    if (!this.#answers.every((each) => each)) return;
    const first = this.#answers.find((each) => each?.external);
    if (first) this.#choose(first.server, first.external!, undefined);
  }

  /** Goes on with a server that answered. */
  #choose(server: Endpoint, external: Endpoint, other: Endpoint | undefined): void {
    this.#server = server;
    this.#other = other;
    this.#external = external;
    if (other) {
      this.#ask("filtering", { server }, () => this.#tryFiltering());
      const second = { address: other.address, port: server.port };
      if (this.#isTranslated) {
        this.#ask("mapping", { server: second }, (answer) => this.#triedSecond(answer));
      } else {
        this.#mapping = "endpoint-independent";
      }
    }
    if (this.#isTranslated) {
      this.#ask("hairpin", { server }, (answer, now) => {
        this.#hairpinExternal = externalOf(answer);
        if (this.#hairpinExternal) this.#beginHairpin(now);
      });
    }
  }

  get #isTranslated(): boolean {
    return !isSameEndpoint(this.#external, this.#roles.get("mapping")?.local);
  }

  /** RFC 5780 §4.3, test II. */
  #triedSecond(second: Answered | StunFailure): void {
    const seen = externalOf(second);
    if (!seen) return;
    if (isSameEndpoint(seen, this.#external)) {
      this.#mapping = "endpoint-independent";
      return;
    }
    this.#ask("mapping", { server: this.#other! }, (third) => {
      const last = externalOf(third);
      if (!last) return;
      this.#mapping = isSameEndpoint(last, seen)
        ? "address-dependent"
        : "address-and-port-dependent";
    });
  }

  /** RFC 5780 §4.4, tests II and III side by side: neither opens the way for the other. */
  #tryFiltering(): void {
    const server = this.#server!;
    let both: boolean | undefined, port: boolean | undefined;
    const judge = (): void => {
      if (both === true) this.#filtering = "endpoint-independent";
      else if (both === false && port !== undefined) {
        this.#filtering = port ? "address-dependent" : "address-and-port-dependent";
      }
    };
    this.#ask(
      "filtering",
      { server, attributes: { changeRequest: { address: true, port: true } } },
      (
        answer,
      ) => {
        both = cameThrough(
          answer,
          ({ address, port }) => address !== server.address && port !== server.port,
        );
        judge();
      },
    );
    this.#ask("filtering", {
      server,
      attributes: { changeRequest: { address: false, port: true } },
    }, (
      answer,
    ) => {
      port = cameThrough(answer, (from) => from.port !== server.port);
      judge();
    });
  }

  // --------------------------------------------------------------------------------- hairpin ---

  /** Sends from one socket to the external endpoint of another (RFC 4787 §6). */
  #beginHairpin(now: Instant): void {
    const transactionId = new Uint8Array(12);
    this.#random.fill(transactionId);
    this.#hairpinKey = transactionKey(transactionId);
    const method = STUN_METHOD.BINDING;
    this.#hairpinData = encodeStun({ class: "request", method, transactionId });
    this.#open++;
    this.#sendHairpin(now);
  }

  #sendHairpin(now: Instant): void {
    const [mapping, hairpin] = [this.#roles.get("mapping"), this.#roles.get("hairpin")];
    if (this.#hairpinKey === undefined || !mapping || !hairpin) return;
    const sends = this.#hairpinSends++;
    const next = HAIRPIN_AT_MS[sends + 1];
    if (next === undefined) {
      this.#hairpin = "none";
      return this.#endHairpin();
    }
    // The filter of the one that waits must know the other one: this is about the way, not about it.
    const transactionId = new Uint8Array(12);
    this.#random.fill(transactionId);
    const opener = { class: "indication", method: STUN_METHOD.BINDING, transactionId } as const;
    this.#outbox.send(mapping.key, this.#hairpinExternal!, encodeStun(opener));
    this.#outbox.send(hairpin.key, this.#external!, this.#hairpinData);
    this.#timers.set("hairpin", now + next - HAIRPIN_AT_MS[sends]!, "try the way back again");
  }

  /** Takes our own packet, if it is one. */
  #returned(data: Uint8Array, from: Endpoint, socket: string): boolean {
    const message = decodeStun(data);
    if (typeof message === "string") return false;
    if (transactionKey(message.transactionId) !== this.#hairpinKey) return false;
    if (socket !== this.#roles.get("mapping")?.key) return false;
    this.#hairpin = from.address === this.#hairpinExternal!.address
      ? "external-source"
      : "internal-source";
    this.#endHairpin();
    return true;
  }

  #endHairpin(): void {
    this.#hairpinKey = undefined;
    this.#timers.delete("hairpin");
    this.#open--;
  }

  // -------------------------------------------------------------------------------- lifetime ---

  /** All else is done: looks for the life of a binding, or is over. */
  #finishOrMeasure(now: Instant): void {
    const longest = this.#maxLifetimeMs;
    if (longest === undefined || this.#server === undefined || !this.#isTranslated) {
      return this.#finish(now);
    }
    if (this.#rests.length > 0) {
      if (this.#rests.some(({ isAlive }) => isAlive === undefined)) return;
      return this.#judgeRound(now);
    }
    if (this.#bounds === undefined) {
      // Whether the server answers to another port at all.
      this.#openRole("asker");
      this.#beginRound([0]);
    }
  }

  #beginRound(waits: readonly number[]): void {
    for (const role of this.#rests.splice(0).map((rest) => rest.role)) this.#closeRole(role);
    waits.forEach((forMs, i) => {
      const role = `rest ${++this.#order} ${i}`;
      this.#rests.push({ role, forMs, isAlive: undefined });
    });
    for (const { role } of this.#rests) this.#openRole(role);
  }

  /** Makes a binding, and lets it be. */
  #leaveAlone(role: string): void {
    const rest = this.#rests.find((each) => each.role === role);
    if (!rest) return;
    this.#ask(role, { server: this.#server! }, (answer, now) => {
      const external = externalOf(answer);
      if (!external) return this.#settleRest(rest, false);
      this.#timers.set(`${role}:${external.port}`, now + rest.forMs, "see whether a binding lives");
    });
  }

  /** Has the server answer to a binding that was left alone (RFC 5780 §4.6). */
  #wakeRest(key: string): void {
    const [role, port] = key.split(":");
    const rest = this.#rests.find((each) => each.role === role);
    if (!rest || rest.isAlive !== undefined) return;
    const socket = this.#roles.get(role!)?.key;
    const request = { server: this.#server!, attributes: { responsePort: Number(port) } };
    this.#ask(
      "asker",
      request,
      (answer) => this.#settleRest(rest, "attributes" in answer && answer.socket === socket),
    );
  }

  #settleRest(rest: Rest, isAlive: boolean): void {
    rest.isAlive ??= isAlive;
    if (isAlive) return;
    // Those that rest longer are no news.
    for (const other of this.#rests) if (other.forMs > rest.forMs) other.isAlive ??= false;
  }

  #judgeRound(now: Instant): void {
    const rests = [...this.#rests].sort((a, b) => a.forMs - b.forMs);
    const longest = this.#maxLifetimeMs!;
    if (this.#bounds === undefined) {
      if (!rests[0]!.isAlive) return this.#finish(now);
      this.#bounds = { low: 0, high: undefined };
      return this.#beginRound(FIRST_ROUND.map((part) => part * longest));
    }
    const firstDead = rests.findIndex(({ isAlive }) => !isAlive);
    const alive = firstDead < 0 ? rests : rests.slice(0, firstDead);
    const low = Math.max(this.#bounds.low, alive.at(-1)?.forMs ?? 0);
    const high = firstDead < 0 ? this.#bounds.high : rests[firstDead]!.forMs;
    this.#bounds = { low, high };
    const isNear = high === undefined || high - low <= Math.max(NEAR_MS, NEAR_PART * high);
    if (isNear) return this.#finish(now);
    const step = (high - low) / (ROUND + 1);
    this.#beginRound(Array.from({ length: ROUND }, (_, i) => low + (i + 1) * step));
  }

  // ------------------------------------------------------------------------------------- end ---

  #finish(now: Instant): void {
    const local = this.#roles.get("mapping")!.local;
    const servers = this.#answers.map((answer, i): NatBehaviourServer =>
      answer ?? {
        server: this.#servers[i]!,
        external: undefined,
        other: undefined,
        roundTripMs: undefined,
        failure: { kind: "no-answer" },
      }
    );
    const isTranslated = this.#external && this.#isTranslated;
    const mapping = this.#mapping ?? mappingOf(servers);
    const filtering = this.#filtering;
    const bounds = this.#bounds;
    const result: NatBehaviourResult = {
      type: typeOf(isTranslated, mapping, filtering),
      isTranslated,
      local,
      external: this.#external,
      mapping,
      filtering,
      // Where the way back is by another mapping, its filter may be what stopped it.
      hairpin: this.#hairpin === "none" && mapping !== "endpoint-independent"
        ? undefined
        : this.#hairpin,
      ...(isTranslated ? portsOf(this.#ports) : { ports: undefined, portDelta: undefined }),
      lifetime: bounds && {
        atLeastSeconds: bounds.low / 1000,
        atMostSeconds: bounds.high === undefined ? undefined : bounds.high / 1000,
      },
      rewritesAddresses: this.#rewrites,
      servers,
    };
    this.#end(now);
    this.#outbox.emit({ type: "found", result });
  }

  #end(now: Instant): void {
    this.#state = "over";
    this.#roles.clear();
    this.#list();
    this.#queue.length = 0;
    this.#asked.clear();
    this.#timers.clear();
    this.#rests.length = 0;
    this.#hairpinKey = undefined;
    this.#client.close(now);
    while (this.#client.poll());
  }
}

function externalOf(answer: Answered | StunFailure): Endpoint | undefined {
  if (!("attributes" in answer)) return undefined;
  return answer.attributes.xorMappedAddress ?? answer.attributes.mappedAddress;
}

/**
 * Whether the answer to a CHANGE-REQUEST came through; undefined where that cannot be told, because
 * the server refused, or answered from where it was asked, as those do that know no such thing.
 */
function cameThrough(
  answer: Answered | StunFailure,
  isElsewhere: (from: Endpoint) => boolean,
): boolean | undefined {
  if (!("attributes" in answer)) return answer.kind === "no-answer" ? false : undefined;
  return isElsewhere(answer.from) ? true : undefined;
}

/** Whether a server's other address is one to which anything may be sent. */
function isOther(server: Endpoint, other: Endpoint): boolean {
  if (other.address === server.address || other.port === server.port || other.port === 0) {
    return false;
  }
  if (familyOf(other.address) !== familyOf(server.address)) return false;
  switch (classify(other.address)) {
    case "wildcard":
    case "multicast":
    case "broadcast":
      return false;
    case "loopback":
      return classify(server.address) === "loopback";
    default:
      return true;
  }
}

/** What several servers without a second address tell of the mapping. */
function mappingOf(servers: readonly NatBehaviourServer[]): NatDependence | undefined {
  const seen = servers.filter(({ external }) => external);
  const addresses = new Set(seen.map(({ server }) => server.address));
  if (addresses.size < 2) return undefined;
  return seen.every(({ external }) => isSameEndpoint(external, seen[0]!.external))
    ? "endpoint-independent"
    : "address-and-port-dependent";
}

function typeOf(
  isTranslated: boolean | undefined,
  mapping: NatDependence | undefined,
  filtering: NatDependence | undefined,
): NatType {
  if (isTranslated === undefined) return "blocked";
  if (!isTranslated) {
    return filtering === undefined
      ? "unknown"
      : filtering === "endpoint-independent"
      ? "open"
      : "firewall";
  }
  if (mapping === undefined) return "unknown";
  if (mapping !== "endpoint-independent") return "symmetric";
  switch (filtering) {
    case "endpoint-independent":
      return "full-cone";
    case "address-dependent":
      return "restricted-cone";
    case "address-and-port-dependent":
      return "port-restricted-cone";
    default:
      return "unknown";
  }
}

/** What the ports tell that were seen. */
function portsOf(seen: readonly PortSeen[]): Pick<NatBehaviourResult, "ports" | "portDelta"> {
  const none = { ports: undefined, portDelta: undefined };
  if (seen.length < 2) return none;
  const firsts = seen.filter(({ isFirstOfSocket }) => isFirstOfSocket);
  if (firsts.every(({ local, external }) => local === external)) {
    return { ...none, ports: "preserving" };
  }
  const ordered = [...seen].sort((a, b) => a.order - b.order).map(({ external }) => external);
  const deltas = ordered.slice(1).map((port, i) => port - ordered[i]!);
  if (deltas.every((delta) => delta > 0 && delta <= MAX_PORT_DELTA)) {
    return { ports: "contiguous", portDelta: Math.min(...deltas) };
  }
  return { ...none, ports: "random" };
}
