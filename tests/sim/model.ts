/**
 * The reference model of one client: what the application wants and commands, what is sent and
 * received, and what is told. It judges every packet and every event, and breaks off at the first
 * that no rule allows, or that is missing.
 *
 * Per wished mapping:
 *
 *   nothing told → mapped → held ⇄ lost → … → over
 *   held: renewed (same endpoint), moved (another endpoint); lost: recovered
 *
 * What the packets come to is kept by protocol (`pcp_deeds.ts`, `natpmp_deeds.ts`). A client of one
 * protocol has to tell what they come to, word for word; of a session, which may take a mapping
 * from one protocol to another, the model learns by what it tells which protocol holds it.
 *
 * @module
 */
import type { Endpoint, Instant } from "../../core/machine.ts";
import { NatPmpDeeds } from "./natpmp_deeds.ts";
import { PcpDeeds } from "./pcp_deeds.ts";
import {
  breach,
  type External,
  isPcpOnly,
  isSame,
  isSameMapping,
  nameOf,
  newWish,
  show,
  type SubjectEvent,
  type Watch,
  type Wish,
  type WishFields,
} from "./wish.ts";

/** How long a session may take to ask by NAT-PMP for what PCP lost: what is on its way, and a rest. */
const OTHER_PROTOCOL_MS = 200_000;

/** What the model needs to know of a client. */
export interface ModelOptions {
  readonly name: string;
  readonly kind: "nat-pmp" | "pcp" | "session";
  readonly gateway: Endpoint;
  readonly localAddress: string;
  readonly nonces: Map<string, object>;
}

/** The model of one client. */
export class ClientModel {
  readonly name: string;
  readonly wishes: Wish[] = [];
  readonly counts: Record<string, number> = {};
  readonly watch: Watch;
  readonly #options: ModelOptions;
  #pcp: PcpDeeds | undefined;
  #natPmp: NatPmpDeeds | undefined;
  #localAddress: string;
  readonly #byId = new Map<number, Wish>();
  readonly #addresses = new Set<string>();
  /** Sessions: what PCP lost without a refusal is asked for by NAT-PMP, too. */
  readonly #lostAt = new Map<Wish, Instant>();

  constructor(options: ModelOptions) {
    this.#options = options;
    this.name = options.name;
    this.#localAddress = options.localAddress;
    this.watch = {
      name: `${options.name} (${options.kind})`,
      isSession: options.kind === "session",
      nonces: options.nonces,
      reasonAt: -Infinity,
      unreachableAt: -Infinity,
      natPmpHeardAt: -Infinity,
      restUntil: -Infinity,
      recreations: [],
    };
    this.#begin();
  }

  #begin(): void {
    const { kind, gateway } = this.#options;
    if (kind !== "nat-pmp") {
      this.#pcp = new PcpDeeds(this.watch, gateway, this.#localAddress, this.wishes);
    }
    const isIPv4 = !gateway.address.includes(":");
    if (kind !== "pcp" && isIPv4) {
      this.#natPmp = new NatPmpDeeds(this.watch, gateway.address, this.wishes);
    }
  }

  /** The wishes that hold. */
  wanted(): Wish[] {
    return this.wishes.filter(({ isRevoked }) => !isRevoked);
  }

  /** A nonce that the client has sent, as who listens on the network knows it. */
  nonceInUse(): string | undefined {
    for (const wish of this.wishes) {
      const nonce = this.#pcp?.of(wish)?.nonce;
      if (nonce !== undefined) return nonce;
    }
    return undefined;
  }

  // ---- Commands ----------------------------------------------------------------------------

  /** The application wants a mapping. */
  want(fields: WishFields): Wish {
    const made = newWish(fields);
    // A session remembers what an earlier wish for it was granted, unless it was deleted.
    if (this.watch.isSession) {
      for (const wish of this.wishes) {
        if (!isSameMapping(wish, made)) continue;
        made.remembered = wish.granted ?? wish.remembered;
        made.history.push(...wish.history);
      }
    }
    this.wishes.push(made);
    return made;
  }

  /** The application asks for it; the client is about to know it by an id. */
  asks(wish: Wish, now: Instant): void {
    this.watch.reasonAt = now;
    if (wish.told === "over") wish.told = "nothing";
    // What was adopted is there already.
    const adopted = this.#pcp?.of(wish), mapping = this.#natPmp?.of(wish);
    if (this.watch.isSession || (!adopted && !mapping)) return this.#asksAnew(wish, now);
    if (adopted) this.#pcp!.claimed(adopted);
    if (mapping) this.#natPmp!.claimed(wish, now);
    if (adopted?.isGranted || mapping?.until !== undefined) {
      wish.owed = {
        types: ["mapped"],
        external: wish.granted!,
        isOptional: true,
        why: "what was adopted was claimed",
      };
    }
  }

  #asksAnew(wish: Wish, now: Instant): void {
    this.#pcp?.wanted(wish, now);
    if (this.#natPmp && !isPcpOnly(wish)) this.#natPmp.wanted(wish, now);
  }

  /** The client knows the wish by this id. */
  named(wish: Wish, id: number): void {
    wish.id = id;
    this.#byId.set(id, wish);
  }

  renews(wish: Wish, now: Instant): void {
    this.watch.reasonAt = now;
    const mapping = this.#pcp?.of(wish);
    const isHeldBy = (via: string) => !this.watch.isSession || wish.via === via;
    if (mapping && isHeldBy("pcp")) this.#pcp!.renewed(mapping, now);
    if (isHeldBy("nat-pmp")) this.#natPmp?.renewed(wish, now);
  }

  revokes(wish: Wish, now: Instant): void {
    this.watch.reasonAt = now;
    this.#lostAt.delete(wish);
    const mapping = this.#pcp?.of(wish);
    if (mapping) this.#pcp!.revoked(mapping, now);
    this.#natPmp?.revoked(wish, now);
  }

  abandons(wish: Wish, now: Instant): void {
    this.watch.reasonAt = now;
    this.#leave(wish, now);
  }

  #leave(wish: Wish, now: Instant): void {
    this.#lostAt.delete(wish);
    const mapping = this.#pcp?.of(wish);
    if (mapping && mapping.phase !== "deleting") this.#pcp!.abandoned(mapping, now);
    if (this.#natPmp?.of(wish)?.phase !== "deleting") this.#natPmp?.abandoned(wish);
  }

  asksAddress(now: Instant): void {
    this.watch.reasonAt = now;
    // PCP has no such question; it asks for an announcement.
    if (this.#natPmp) this.#natPmp.askAddress(now);
    else this.#pcp?.announce(now);
  }

  networkChanges(localAddress: string, now: Instant): void {
    this.watch.reasonAt = now;
    this.#localAddress = localAddress;
    this.#pcp?.networkChanged(localAddress, now);
    this.#natPmp?.networkChanged(now);
  }

  closes(now: Instant): void {
    this.watch.reasonAt = now;
    for (const wish of this.wishes) this.revokes(wish, now);
    this.#pcp?.close();
  }

  wakesUp(now: Instant): void {
    this.watch.restUntil = now + 1000;
    this.#pcp?.woke(now);
    this.#natPmp?.woke(now);
  }

  /**
   * The program is killed and started again, with what it saved or without: ids start over, what
   * was told counts no more, and what was saved is known by its nonce and port.
   */
  restarts(hasState: boolean, now: Instant): void {
    this.#byId.clear();
    this.#lostAt.clear();
    this.watch.reasonAt = now;
    const pcp = this.#pcp;
    this.#begin();
    for (const wish of this.wishes) {
      const mapping = pcp?.of(wish);
      this.#restartsWish(wish, mapping?.nonce, hasState, now);
    }
  }

  #restartsWish(
    wish: Wish,
    nonce: string | undefined,
    hasState: boolean,
    now: Instant,
  ): void {
    const { told, granted } = wish;
    const wasKnown = wish.id !== undefined && !wish.isRevoked;
    const wasHeld = told === "held" || told === "lost";
    const { isSession } = this.watch;
    wish.id = undefined;
    wish.told = "nothing";
    wish.external = undefined;
    wish.owed = undefined;
    if (!hasState) {
      wish.savedNonce = wish.granted = wish.remembered = undefined;
      wish.history.length = 0;
      return;
    }
    if (isSession) {
      // A session saves what it holds, and what is left of what was saved before.
      if (wasHeld) wish.savedNonce = wish.via === "pcp" ? nonce : undefined;
      wish.remembered = granted ?? wish.remembered;
      if (!wasHeld) wish.granted = undefined;
      return;
    }
    wish.savedNonce = wasKnown ? nonce : undefined;
    if (!wasKnown) return;
    if (this.#pcp) this.#pcp.wanted(wish, now, true);
    else this.#natPmp?.wanted(wish, now, true);
  }

  // ---- Packets -----------------------------------------------------------------------------

  /** A datagram leaves. */
  sends(data: Uint8Array, to: Endpoint, now: Instant): void {
    if (data[0] === 2 && this.#pcp) return this.#pcp.sends(data, to, now);
    if (data[0] === 0 && this.#natPmp) {
      this.#natPmp.sends(data, to, now);
      this.#lostAt.clear();
      return;
    }
    breach(this.watch, `sends version ${data[0]}, which it does not speak`, now);
  }

  /** A datagram reaches the client. */
  receives(data: Uint8Array, from: Endpoint, now: Instant): void {
    this.watch.reasonAt = now;
    this.#pcp?.receives(data, from, now);
    this.#natPmp?.receives(data, from, now);
    // What PCP has refused meanwhile waits for PCP.
    for (const wish of this.#lostAt.keys()) {
      if ((this.#pcp?.of(wish)?.refusedUntil ?? 0) > now) this.#lostAt.delete(wish);
    }
    const { address } = this.#natPmp ?? {};
    if (address !== undefined) this.#addresses.add(address);
  }

  /** ICMP says that nothing listens at the gateway. */
  unreachable(now: Instant): void {
    this.watch.reasonAt = this.watch.unreachableAt = now;
    this.#pcp?.unreachable(now);
    this.#natPmp?.unreachable(now);
  }

  // ---- Events ------------------------------------------------------------------------------

  /** The client tells something; breaks off where it must not. */
  tells(event: SubjectEvent, now: Instant): void {
    this.counts[event.type] = (this.counts[event.type] ?? 0) + 1;
    if (event.type === "gateway-restarted") return this.#tellsRestart(now);
    if (event.type === "external-address") {
      this.#require(this.#addresses.has(event.address), event, now, "nobody confirmed the address");
      // What was told of a mapping before is complete by this.
      for (const { external } of this.wishes) if (external) external.address ??= event.address;
      return;
    }
    const wish = this.#byId.get(event.id);
    if (!wish) return this.#require(false, event, now, "nobody knows this id");
    this.#hearsOfTime(wish, event, now);
    this.#judgeOrder(wish, event, now);
    this.#judgeCause(wish, event, now);
    switch (event.type) {
      case "failed":
        return this.#tellsFailure(wish, now);
      case "lost":
        wish.told = "lost";
        if (this.watch.isSession) this.#losesInSession(wish, event.isRefused, now);
        return;
      case "unmapped":
        return this.#tellsUnmapped(wish, event, now);
      default:
        wish.told = "held";
        wish.external = { ...event.external };
        wish.via = event.via;
        if (this.watch.isSession) this.#holds(wish, now);
    }
  }

  #hearsOfTime(wish: Wish, event: SubjectEvent, now: Instant): void {
    const isGrant = "external" in event;
    if (isGrant && this.watch.isSession) return;
    this.#pcp?.tells(wish, event.type, now);
    this.#natPmp?.tells(wish, event.type, now);
  }

  #tellsRestart(now: Instant): void {
    const { isSession } = this.watch;
    const isDue = (this.#pcp?.owesRestart ?? false) || (this.#natPmp?.owesRestart ?? false);
    if (!isSession && !isDue) {
      breach(this.watch, "tells that the gateway lost its state, the epoch does not say so", now);
    }
    if (!isSession) {
      if (this.#pcp) this.#pcp.owesRestart = false;
      if (this.#natPmp) this.#natPmp.owesRestart = false;
      return;
    }
    this.watch.reasonAt = now;
    this.#pcp?.restarted(now);
    this.#natPmp?.restarted(now);
    if (this.#pcp) this.#pcp.owesRestart = false;
    if (this.#natPmp) this.#natPmp.owesRestart = false;
  }

  /** Which event may follow which. */
  #judgeOrder(wish: Wish, event: SubjectEvent, now: Instant): void {
    const { told } = wish;
    const { type } = event;
    const after = `after ${told}`;
    if (type === "mapped") this.#require(told === "nothing", event, now, after);
    if (type === "renewed" || type === "moved") {
      this.#require(told === "held", event, now, after);
      const isHere = isSame(wish.external!, (event as { external: External }).external);
      if (type === "renewed") this.#require(isHere, event, now, "it moved");
      // Where the address was not known there is a difference that does not show.
      else if (isHere) {
        this.#require(wish.external?.address === undefined, event, now, "it did not");
      }
    }
    if (type === "recovered") this.#require(told === "lost", event, now, after);
    if (type === "lost") this.#require(told === "held", event, now, after);
    if (type === "failed") this.#require(told === "nothing" || told === "lost", event, now, after);
    if (type === "unmapped") this.#require(told !== "over", event, now, "twice");
  }

  /** Whether packets, commands or time have led to the event. */
  #judgeCause(wish: Wish, event: SubjectEvent, now: Instant): void {
    if ("external" in event) {
      const { external, via } = event;
      if (via === "pcp" && this.watch.isSession) {
        const mapping = this.#pcp?.of(wish);
        const isGranted = mapping?.pending
          ? isSame(mapping.pending.external, external)
          : mapping?.isGranted && isSame(wish.granted!, external);
        this.#require(isGranted === true, event, now, "nobody confirmed it");
        wish.via = via;
        this.#pcp!.tells(wish, "granted", now);
        return;
      }
      if (this.watch.isSession) {
        const isGranted = this.#natPmp?.hasConfirmed(wish, external) === true &&
          (external.address === undefined || this.#addresses.has(external.address));
        this.#require(isGranted, event, now, "nobody confirmed it");
        return;
      }
      if (!wish.owed) {
        // NAT-PMP tells of a new external address for what it holds.
        const isMoved = event.type === "moved" && external.port === wish.external?.port &&
          external.address === this.#natPmp?.address;
        return this.#require(isMoved, event, now, "nobody confirmed it");
      }
    }
    if (this.watch.isSession) return;
    const { owed } = wish;
    wish.owed = undefined;
    if (!("external" in event) && now === this.watch.unreachableAt) return;
    if (!owed) return this.#require(false, event, now, "nothing has led to it");
    const external = "external" in event ? event.external : undefined;
    const isOwed = owed.types.includes(event.type);
    this.#require(isOwed, event, now, `due is ${owed.types.join("/")}, as ${owed.why}`);
    if (external && owed.external) {
      const isRight = isSame(owed.external, external);
      this.#require(isRight, event, now, `confirmed is ${show(owed.external)}`);
    }
  }

  #tellsFailure(wish: Wish, now: Instant): void {
    const pcp = this.#pcp?.of(wish), natPmp = this.#natPmp?.of(wish);
    // A session fails for good; a client goes on where it is asked to.
    if (!this.watch.isSession && (pcp || natPmp)) return;
    this.#leave(wish, now);
    this.#end(wish);
    if (wish.told !== "lost") wish.told = "nothing";
  }

  #tellsUnmapped(wish: Wish, event: SubjectEvent, now: Instant): void {
    const mayEnd = wish.isRevoked || wish.mode !== "keep-alive";
    this.#require(mayEnd, event, now, "nobody wished it");
    const pcp = this.#pcp?.of(wish), natPmp = this.#natPmp?.of(wish);
    const isPcpDue = wish.via === "pcp" && pcp?.phase === "deleting" && pcp.next !== undefined &&
      pcp.next.to !== Infinity;
    const isNatPmpDue = wish.via === "nat-pmp" && natPmp?.phase === "deleting" &&
      natPmp.next?.to !== Infinity;
    if (this.watch.isSession && (isPcpDue || isNatPmpDue)) {
      this.#require(false, event, now, "its deletion is on its way");
    }
    wish.savedNonce = undefined;
    if (pcp) this.#pcp!.abandoned(pcp, now);
    this.#natPmp?.abandoned(wish);
    this.#end(wish);
    wish.told = "over";
  }

  /** The client knows the id no more. */
  #end(wish: Wish): void {
    if (wish.id !== undefined) this.#byId.delete(wish.id);
    wish.remembered = this.watch.isSession ? wish.granted ?? wish.remembered : undefined;
    wish.granted = undefined;
  }

  /** One protocol holds it: the other one has left it. */
  #holds(wish: Wish, now: Instant): void {
    this.#lostAt.delete(wish);
    wish.granted = wish.external;
    wish.history.push(wish.external!);
    wish.remembered = undefined;
    if (wish.via === "pcp") return this.#natPmp?.abandoned(wish);
    wish.savedNonce = undefined;
    const mapping = this.#pcp?.of(wish);
    if (mapping) this.#pcp!.abandoned(mapping, now);
  }

  #losesInSession(wish: Wish, isRefused: boolean, now: Instant): void {
    this.watch.reasonAt = now;
    if (wish.via === "pcp") this.#pcp?.lost(wish, now);
    if (!this.#natPmp || isPcpOnly(wish) || isRefused) return;
    this.#natPmp.abandoned(wish);
    if (wish.via === "pcp") this.#lostAt.set(wish, now);
  }

  // ---- Rest --------------------------------------------------------------------------------

  /** The client rests: everything that is due has been done and told. */
  settle(now: Instant): void {
    this.#pcp?.settle(now);
    this.#natPmp?.settle(now);
    if (this.watch.isSession) return this.#settleSession(now);
    if (now < this.watch.restUntil) return;
    for (const wish of this.wishes) {
      const { owed } = wish;
      if (!owed) continue;
      wish.owed = undefined;
      if (owed.isOptional) continue;
      const due = owed.types.join("/");
      breach(this.watch, `does not tell ${due} of ${nameOf(wish)}, as ${owed.why}`, now);
    }
    const deeds = this.#pcp ?? this.#natPmp;
    if (!deeds?.owesRestart) return;
    breach(this.watch, "does not tell that the gateway lost its state, the epoch says so", now);
  }

  #settleSession(now: Instant): void {
    if (this.#pcp) this.#pcp.owesRestart = false;
    if (this.#natPmp) this.#natPmp.owesRestart = false;
    for (const wish of this.wishes) wish.owed = undefined;
    if (now < this.watch.restUntil) return;
    for (const [wish, lostAt] of this.#lostAt) {
      if (now - lostAt <= OTHER_PROTOCOL_MS) continue;
      const what = `lost ${nameOf(wish)} by PCP ${((now - lostAt) / 1000).toFixed(0)} s ago`;
      breach(this.watch, `${what} and has not tried NAT-PMP`, now);
    }
  }

  /** What the client's own list says of a wish must be what it has told of it. */
  compare(wish: Wish, external: External | undefined, now: Instant): void {
    if (wish.told === "held") {
      if (!external && wish.isRevoked) return;
      if (!external) this.#breach(`holds nothing for ${nameOf(wish)} and told of it`, now);
      if (isSame(external, wish.external!)) return;
      this.#breach(`has ${show(external)} and told ${show(wish.external)}`, now);
    }
    if (external) this.#breach(`has ${show(external)} and told nothing of it (${wish.told})`, now);
  }

  #require(holds: boolean, event: SubjectEvent, now: Instant, why: string): void {
    if (!holds) this.#breach(`tells ${JSON.stringify(event)}: ${why}`, now);
  }

  #breach(what: string, now: Instant): never {
    breach(this.watch, what, now);
  }
}
