/**
 * Deleting what this run did not make: a mapping of an earlier run by the protocol and nonce saved
 * of it, any other by each protocol in turn, or all of a transport. Then, where other gateways in
 * use, or those above, are known to hold it, too, it is deleted there by removals that are parts of
 * it.
 *
 * Where nobody knows by which protocol a mapping was made, the preferred one goes last: miniupnpd's
 * NAT-PMP confirms also what it does not do, and PCP tells whether something is left.
 *
 * @module
 */
import type { Attempt } from "../errors.ts";
import { type Family, familyOf, isSameEndpoint } from "../ip.ts";
import type { Endpoint, Instant } from "../machine.ts";
import {
  describeFailure,
  type Failure,
  type MappingId,
  type MappingKey,
  type Transport,
} from "../mapping.ts";
import { PCP_PORT } from "../pcp/constants.ts";
import { clientRequest, type ManagedMapping, newContender, type PortRequest } from "./managed.ts";
import type { OuterHost, Outers } from "./outer.ts";
import type { Path, Speaker } from "./path.ts";
import { isAbove, type SavedPorts } from "./saved_ports.ts";

/** What removals need of the mapper. */
export interface RemovalHost extends Pick<OuterHost, "pathBeyond"> {
  /** Whether the mapper was closed: nothing goes on elsewhere then. */
  isClosed(): boolean;
  /** A managed mapping, or undefined where it is over. */
  find(id: MappingId): ManagedMapping | undefined;
  /** All ways, those that were left among them. */
  paths(): readonly Path[];
  /** Those in use, without the ones that lead beyond another gateway. */
  own(): readonly Path[];
  /** The best way of a family. */
  pathOf(family: Family): Path | undefined;
  /** The family of a request. */
  familyOf(request: PortRequest): Family;
  /** Why a speaker cannot do it, or undefined. */
  misfit(managed: ManagedMapping, speaker: Speaker): string | undefined;
  /** Makes a managed mapping for it. */
  create(request: PortRequest, now: Instant): ManagedMapping;
  /** Where nothing can be sent, it has failed. */
  failWhereNothingLeaves(managed: ManagedMapping, now: Instant): void;
  /** It is done where it was asked for, or has failed; {@linkcode Removals.goesOn} asks for the rest. */
  unmapped(managed: ManagedMapping, failure: Failure | undefined, now: Instant): void;
}

/** A removal that is done with where it began, and goes on at other gateways. */
interface Elsewhere {
  /** Why it failed there. */
  readonly failure: Failure | undefined;
  /** How many of those have not answered. */
  waiting: number;
  /** What those that have came to. */
  attempts: readonly Attempt[];
  /** Why one of them keeps it. */
  refusal: Failure | undefined;
}

/** The removals of one mapper, and what else it is deleting. */
export class Removals {
  readonly #host: RemovalHost;
  readonly #saved: SavedPorts;
  readonly #outers: Outers;
  /** All that is being deleted, what this run made among it. */
  readonly #leaving: Set<ManagedMapping> = new Set();
  /** Those that wait until a part of something else has been deleted, which has the same port. */
  readonly #behindParts: Set<ManagedMapping> = new Set();
  /** Those that go on at other gateways, and what they come to. */
  readonly #elsewhere: Map<MappingId, Elsewhere> = new Map();

  constructor(saved: SavedPorts, outers: Outers, host: RemovalHost) {
    this.#saved = saved;
    this.#outers = outers;
    this.#host = host;
  }

  // ---- Commands ----------------------------------------------------------------------------

  /** Deletes what this mapper does not hold; a request for port 0 means all of its transport. */
  begin(request: PortRequest, now: Instant): ManagedMapping {
    const managed = this.#host.create(request, now);
    this.#start(managed, now);
    return managed;
  }

  /** One under way that deletes the same: a client deletes a mapping once, and answers for it once. */
  underWay(
    key: MappingKey,
    family: Family,
    gateway: Endpoint | undefined,
  ): ManagedMapping | undefined {
    for (const one of this.#leaving) {
      if (one.key !== key || one.request.internalPort === 0 || one.madeFor !== undefined) continue;
      if (this.#host.familyOf(one.request) !== family) continue;
      const isSame = one.phase === "removing"
        ? isSameEndpoint(one.request.gateway, gateway)
        : isDeletedAt(one, gateway);
      if (isSame) return one;
    }
    return undefined;
  }

  /** What is asked for from here on a removal under way would delete: that one ends. */
  end(key: MappingKey, family: Family, now: Instant): void {
    for (const one of this.#leaving) {
      const isRemoval = one.phase === "removing" && one.request.internalPort > 0 &&
        one.partOf === undefined;
      if (!isRemoval || one.key !== key || this.#host.familyOf(one.request) !== family) continue;
      return this.#host.unmapped(one, { kind: "no-answer" }, now);
    }
  }

  /** The mapper is closing: those that wait for a gateway end. */
  endWaiting(managed: ManagedMapping, now: Instant): void {
    if (!this.#isUnderWay(managed)) this.#host.unmapped(managed, { kind: "no-answer" }, now);
  }

  // ---- What becomes of them ----------------------------------------------------------------

  /** One that this run made is being deleted. */
  revoking(managed: ManagedMapping): void {
    this.#leaving.add(managed);
  }

  /** Whether what is to be deleted at a gateway is asked of it, or about to be. */
  isAsked(gateway: Endpoint): boolean {
    return [...this.#leaving].some(({ phase, request }) =>
      phase === "removing" && isSameEndpoint(request.gateway, gateway)
    );
  }

  /** A gateway can be asked from now on. */
  opened(managed: ManagedMapping, now: Instant): void {
    if (this.#isUnderWay(managed)) return;
    const { request, key } = managed;
    const family = this.#host.familyOf(request);
    const only = request.gateway?.address;
    const saved = this.#saved.ofRequest(key, family, request).find(({ gateway }) =>
      gateway === (only ?? gateway) && this.#pathTo(gateway)
    );
    const at = only ?? saved?.gateway;
    const path = at === undefined ? this.#host.pathOf(family) : this.#pathTo(at);
    if (!path?.local) return;
    if (request.internalPort === 0) return this.#beginAll(managed, path.speakers, now);
    const isAtWork = [...this.#leaving].some((one) =>
      one.phase === "revoking" && one.key === key && isDeletedAt(one, path.gateway)
    );
    if (isAtWork) return void this.#behindParts.add(managed);
    this.#behindParts.delete(managed);
    const able = path.speakers.filter((one) => this.#host.misfit(managed, one) === undefined);
    // Who only asked may not have been the one that made it.
    const maker = able.filter(({ via }) => saved?.external && via === saved.via);
    managed.contenders = (maker.length > 0 ? maker : able.toReversed()).map(newContender);
    if (!askNext(managed, now)) this.#host.unmapped(managed, { kind: "no-answer" }, now);
  }

  /** One protocol has deleted it, or is past asking: the next one's turn, or the end. */
  answered(
    managed: ManagedMapping,
    speaker: Speaker,
    failure: Failure | undefined,
    now: Instant,
  ): void {
    noteRemoval(managed, speaker, failure, now);
    if (!askNext(managed, now)) this.#host.unmapped(managed, failure, now);
  }

  /** A gateway has deleted all mappings of a transport, or is past asking. */
  allAnswered(
    speaker: Speaker,
    protocol: Transport,
    failure: Failure | undefined,
    now: Instant,
  ): void {
    const waiting = speaker.removingAll.get(protocol) ?? [];
    speaker.removingAll.delete(protocol);
    for (const id of waiting) {
      const managed = this.#host.find(id);
      if (!managed) continue;
      noteRemoval(managed, speaker, failure, now);
      this.#host.unmapped(managed, failure, now);
    }
  }

  /** A gateway that was left is waited for no more. */
  left(path: Path, now: Instant): void {
    for (const speaker of path.speakers) {
      for (const protocol of [...speaker.removingAll.keys()]) {
        this.allAnswered(speaker, protocol, { kind: "no-answer" }, now);
      }
    }
  }

  /**
   * Where it began it is done: what other gateways in use, and those above, are known to hold of it
   * is deleted there, too. False where there is none, or where they have been asked.
   *
   * @param failure Why it failed there.
   */
  goesOn(whole: ManagedMapping, failure: Failure | undefined, now: Instant): boolean {
    const { id, contenders } = whole;
    if (this.isElsewhere(whole) || this.#host.isClosed()) return false;
    // Ended before it was answered.
    if (contenders.some((one) => one.id !== undefined)) return false;
    const parts = [...this.#partsBeside(whole), ...this.#partsAbove(whole)];
    if (parts.length === 0) return false;
    this.#elsewhere.set(id, { failure, waiting: parts.length, attempts: [], refusal: undefined });
    for (const request of parts) {
      const part = this.#host.create(request, now);
      part.madeFor = id;
      this.#start(part, now);
    }
    return true;
  }

  /** Whether it is done with where it began. */
  isElsewhere({ id }: ManagedMapping): boolean {
    return this.#elsewhere.has(id);
  }

  /** What it has come to at other gateways. */
  outcomeElsewhere({ id }: ManagedMapping): Pick<Elsewhere, "attempts" | "refusal"> {
    return this.#elsewhere.get(id) ?? { attempts: [], refusal: undefined };
  }

  /** A part of one has been deleted, or is past asking. */
  partOver(
    { partOf, request: { gateway, inner } }: ManagedMapping,
    attempts: readonly Attempt[],
    failure: Failure | undefined,
    now: Instant,
  ): void {
    const path = this.#pathTo(gateway!.address);
    if (path?.behind) this.#outers.leaveUnused(path, now);
    const whole = this.#host.find(partOf!), elsewhere = this.#elsewhere.get(partOf!);
    if (!whole || !elsewhere) return;
    elsewhere.attempts = [...elsewhere.attempts, ...attempts];
    // Above nothing arrives any more: who is silent has most likely gone.
    if (failure?.kind === "refused" || !inner) elsewhere.refusal ??= failure;
    if (--elsewhere.waiting === 0) this.#host.unmapped(whole, elsewhere.failure, now);
  }

  /** It is over. */
  forget(managed: ManagedMapping): void {
    this.#leaving.delete(managed);
    this.#behindParts.delete(managed);
    this.#elsewhere.delete(managed.id);
  }

  /** Something has been deleted: those that waited for it begin. */
  goOn(now: Instant): void {
    for (const one of [...this.#behindParts]) this.opened(one, now);
  }

  // ---- Steps -------------------------------------------------------------------------------

  /** The way in use to a gateway, also to one beyond another. */
  #pathTo(address: string): Path | undefined {
    return this.#host.paths().find(({ gateway, isLeft }) => !isLeft && gateway.address === address);
  }

  /** Whether a gateway is asked. */
  #isUnderWay({ id, contenders }: ManagedMapping): boolean {
    return contenders.length > 0 ||
      this.#host.paths().some(({ speakers }) =>
        speakers.some(({ removingAll }) => [...removingAll.values()].some((all) => all.has(id)))
      );
  }

  #start(managed: ManagedMapping, now: Instant): void {
    managed.phase = "removing";
    this.#leaving.add(managed);
    this.opened(managed, now);
    if (this.#leaving.has(managed)) this.#host.failWhereNothingLeaves(managed, now);
  }

  /** All mappings of a transport that this host has there, by the protocol that can. */
  #beginAll(managed: ManagedMapping, speakers: readonly Speaker[], now: Instant): void {
    const speaker = speakers.find(({ client }) => client.revokeAll !== undefined);
    if (!speaker) return this.#host.unmapped(managed, { kind: "no-answer" }, now);
    const { protocol } = managed.request;
    const waiting = speaker.removingAll.get(protocol);
    // One request on its way answers all who want it.
    if (waiting) return void waiting.add(managed.id);
    speaker.removingAll.set(protocol, new Set([managed.id]));
    speaker.client.revokeAll!(protocol, now);
  }

  #partsBeside({ key, contenders, request }: ManagedMapping): PortRequest[] {
    if (request.gateway) return [];
    const { protocol, internalPort, thirdParty } = request;
    const saved = this.#saved.of(key).filter((one) => !isAbove(one));
    const family = this.#host.familyOf(request);
    return this.#host.own().filter(({ gateway }) =>
      familyOf(gateway.address) === family &&
      saved.some((one) => one.gateway === gateway.address) &&
      !contenders.some(({ speaker: { path } }) => path.gateway === gateway)
    ).map(({ gateway }) => ({
      protocol,
      internalPort,
      ...(thirdParty !== undefined && { thirdParty }),
      gateway,
    }));
  }

  #partsAbove({ contenders, request }: ManagedMapping): PortRequest[] {
    const { protocol, internalPort, thirdParty } = request;
    return this.#saved.above().flatMap(({ inner, gateway, ...saved }) => {
      const isOfIt = saved.protocol === protocol && inner!.internalPort === internalPort &&
        inner!.thirdParty === thirdParty;
      const below = contenders.find(({ speaker: { path } }) =>
        path.gateway.address === inner!.gateway && !path.isLeft
      )?.speaker.path;
      if (!isOfIt || !below) return [];
      const at = { address: gateway, port: PCP_PORT };
      if (!this.#host.pathBeyond(below, inner!.address, at)) return [];
      return { protocol, internalPort: saved.internalPort, gateway: at, inner: inner! };
    });
  }
}

/** Records that one has deleted it, or is past asking. */
export function noteRemoval(
  managed: ManagedMapping,
  speaker: Speaker,
  failure: Failure | undefined,
  now: Instant,
): void {
  managed.note(speaker, failure ? describeFailure(failure) : "unmapped", now);
}

/** Asks the next protocol. False where there is none left. */
function askNext(managed: ManagedMapping, now: Instant): boolean {
  const next = managed.contenders.find(({ state }) => state === "waiting");
  if (!next) return false;
  const { speaker } = next;
  next.state = "asking";
  next.id = speaker.client.unmap(clientRequest(managed, speaker), now);
  speaker.managed.set(next.id, managed.id);
  return true;
}

/** Whether a gateway, this one where one is named, is asked to delete it. */
function isDeletedAt({ contenders }: ManagedMapping, gateway: Endpoint | undefined): boolean {
  return contenders.some(({ id, speaker: { path } }) =>
    id !== undefined && (gateway === undefined || isSameEndpoint(path.gateway, gateway))
  );
}
