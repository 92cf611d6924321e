/**
 * Questions for the external addresses: each protocol tells what it knows as it answers, by its
 * probe, or where only a mapping tells it (PCP), by a short one of the socket's own port, which
 * surely nobody else uses (PCP-C-34) and which is deleted when it has told.
 *
 * @module
 */
import type { Attempt, NatErrorCode, Via } from "../errors.ts";
import type { Family } from "../ip.ts";
import type { Endpoint, Instant } from "../machine.ts";
import { codeOf, describeFailure, type Failure, type MappingId } from "../mapping.ts";
import { PROTOCOLS } from "./protocols.ts";
import type { MapperEvent } from "./managed.ts";
import { gatewayText } from "./gateway.ts";
import type { Path, Speaker } from "./path.ts";

/** What questions need of the mapper. */
export interface AddressHost {
  /** The best way of a family, or that to the gateway which is named; open or not. */
  pathOf(family: Family, gateway: Endpoint | undefined): Path | undefined;
  /** Makes the mapping by which a speaker tells the address, unless there is one. */
  mapForAddress(speaker: Speaker, now: Instant): void;
  /** Nobody waits for what a speaker tells any more. */
  stopTelling(speaker: Speaker, now: Instant): void;
  /** Tells the application. */
  tell(event: MapperEvent, key: string): void;
}

interface Question {
  readonly id: MappingId;
  readonly since: Instant;
  readonly family: Family;
  readonly gateway: Endpoint | undefined;
  readonly protocols: readonly Via[] | undefined;
  /** Who has not answered; undefined while no gateway can be asked. */
  waiting: Set<Speaker> | undefined;
  attempts: Attempt[];
  failure: Failure | undefined;
}

/** The questions of one mapper. */
export class AddressQuestions {
  readonly #host: AddressHost;
  readonly #open: Map<MappingId, Question> = new Map();

  constructor(host: AddressHost) {
    this.#host = host;
  }

  /** How many are open. */
  get size(): number {
    return this.#open.size;
  }

  /** Whether anybody waits for what a speaker tells. */
  isWanted(speaker: Speaker): boolean {
    for (const { waiting } of this.#open.values()) if (waiting?.has(speaker)) return true;
    return false;
  }

  /** Asks at the best gateway of a family, or at the one that is named, as soon as that is open. */
  ask(
    id: MappingId,
    family: Family,
    gateway: Endpoint | undefined,
    protocols: readonly Via[] | undefined,
    now: Instant,
  ): void {
    const question: Question = {
      id,
      since: now,
      family,
      gateway,
      protocols,
      waiting: undefined,
      attempts: [],
      failure: undefined,
    };
    this.#open.set(id, question);
    this.#begin(question, now);
  }

  /** A gateway is open, or the best one, or its socket failed: asks there, or tells that nothing leaves. */
  pathChanged(now: Instant): void {
    for (const question of [...this.#open.values()]) this.#begin(question, now);
  }

  /** A gateway is this host's no more: who waits for it asks at the next one, as soon as that is open. */
  left(path: Path, now: Instant): void {
    for (const question of [...this.#open.values()]) {
      const { waiting } = question;
      for (const speaker of waiting ?? []) if (speaker.path === path) waiting!.delete(speaker);
      if (waiting && waiting.size > 0) continue;
      question.waiting = undefined;
      this.#begin(question, now);
    }
  }

  /** Takes a question back: nothing more is told of it. */
  end(id: MappingId, now: Instant): void {
    const waiting = this.#open.get(id)?.waiting ?? [];
    this.#open.delete(id);
    for (const speaker of waiting) this.#stop(speaker, now);
  }

  /** Takes all back. */
  endAll(now: Instant): void {
    for (const id of [...this.#open.keys()]) this.end(id, now);
  }

  /** Whose answer a question waits for. */
  waitsFor(id: MappingId): Via[] {
    return [...this.#open.get(id)?.waiting ?? []].map(({ via }) => via);
  }

  /** What each has come to; undefined where there is no such question. */
  attempts(id: MappingId, now: Instant): Attempt[] | undefined {
    const question = this.#open.get(id);
    if (!question) return undefined;
    const silent = [...question.waiting ?? []].map(({ via, path }) => ({
      via,
      gateway: gatewayText(path.gateway),
      outcome: "no answer",
      elapsedMs: now - question.since,
    }));
    return [...question.attempts, ...silent];
  }

  /** A speaker knows the address. */
  told(speaker: Speaker, address: string, now: Instant): void {
    const { via, path: { gateway } } = speaker;
    for (const question of [...this.#open.values()]) {
      if (!question.waiting?.delete(speaker)) continue;
      const { id } = question;
      this.#host.tell({ type: "external-address", id, via, gateway, address }, `${id} ${via}`);
      if (question.waiting.size === 0) this.#finish(question, undefined, now);
    }
    this.#stop(speaker, now);
  }

  /** A speaker does not tell it. */
  notTold(speaker: Speaker, failure: Failure, now: Instant): void {
    const { via, path } = speaker;
    for (const question of [...this.#open.values()]) {
      if (!question.waiting?.delete(speaker)) continue;
      const elapsedMs = now - question.since;
      const outcome = describeFailure(failure);
      question.attempts.push({ via, gateway: gatewayText(path.gateway), outcome, elapsedMs });
      question.failure = failure.kind === "refused" ? failure : question.failure ?? failure;
      if (question.waiting.size === 0) this.#finish(question, undefined, now);
    }
  }

  #begin(question: Question, now: Instant): void {
    const { family, gateway } = question, path = this.#host.pathOf(family, gateway);
    if (gateway && !path) {
      const message = `${gatewayText(gateway)} is no gateway of this host`;
      return this.#finish(question, { code: "gateway-not-found", message }, now);
    }
    if (path?.failure) return this.#finish(question, path.failure, now);
    if (question.waiting || !path?.local) return;
    const asked = path.speakers.filter(({ via }) => question.protocols?.includes(via) ?? true);
    question.waiting = new Set(asked);
    for (const speaker of asked) {
      if (PROTOCOLS[speaker.via]!.tellsAddressBy === "probe") speaker.probe(now);
      else this.#host.mapForAddress(speaker, now);
    }
    if (asked.length > 0) return;
    const message = `none of the protocols is spoken at ${gatewayText(path.gateway)}`;
    this.#finish(question, { code: "unsupported", message }, now);
  }

  #finish(
    question: Question,
    why: { readonly code: NatErrorCode; readonly message: string } | undefined,
    now: Instant,
  ): void {
    const { id, attempts, failure } = question;
    const code = codeOf(failure ?? { kind: "no-answer" });
    const told = { type: "external-addresses-told", id, attempts, code, ...why } as const;
    this.#host.tell(told, `${id} told`);
    this.end(id, now);
  }

  #stop(speaker: Speaker, now: Instant): void {
    if (!this.isWanted(speaker)) this.#host.stopTelling(speaker, now);
  }
}
