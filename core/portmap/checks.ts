/**
 * Looking whether gateways still do what they granted, for the watches that promise to tell.
 *
 * A gateway that begins anew without the protocol that holds a mapping does not say so, and the
 * lease of an hour may have just begun. So while a port is watched, who holds one is asked every
 * ten seconds for something that changes nothing. Where nothing comes back within two seconds, or
 * ICMP says twice, a second or two apart, that nobody listens (once, and it may be restarting), its
 * mappings are taken for lost: it is asked for them again, and the other protocols are. One that is
 * silent to such questions and grants all the same (not every PCP server answers ANNOUNCE) is not
 * asked again.
 *
 * @module
 */
import type { Instant } from "../machine.ts";
import type { Failure, MappingId } from "../mapping.ts";
import type { Timers } from "../timers.ts";
import { PROTOCOLS } from "./protocols.ts";
import type { Speaker } from "./path.ts";

/** No mapping has this id. */
export const CHECKS: MappingId = 0;

const CHECK_EVERY_MS = 10_000;
const PATIENCE_MS = 2000;
/** A gateway that restarts listens again within this. */
const RESTART_MS = 1000;

/** What checks need of the mapper. */
export interface CheckHost {
  readonly timers: Timers<MappingId>;
  /** Who holds a watched port. */
  holders(): Iterable<Speaker>;
  /** What a speaker holds of watches is lost. */
  lost(speaker: Speaker, now: Instant): void;
}

/** The checks of one mapper. */
export class Checks {
  readonly #host: CheckHost;
  readonly #asked: Set<Speaker> = new Set();
  /** Where nobody listened, and another look is due. */
  readonly #unreachable: Set<Speaker> = new Set();
  /** Whether answers are waited for, not the next round. */
  #isWaiting = false;
  /** Who was silent, and has not granted anything since. */
  readonly #silent: WeakSet<Speaker> = new WeakSet();
  readonly #left: WeakSet<Speaker> = new WeakSet();

  constructor(host: CheckHost) {
    this.#host = host;
  }

  /** A port is watched. */
  begin(now: Instant): void {
    const { timers } = this.#host;
    if (timers.at(CHECKS) === undefined) timers.set(CHECKS, now + CHECK_EVERY_MS, "check");
  }

  /** No port is watched any more. */
  end(now: Instant): void {
    this.#host.timers.delete(CHECKS);
    for (const speaker of this.#asked) speaker.endProbe(now);
    this.#asked.clear();
    this.#unreachable.clear();
    this.#isWaiting = false;
  }

  /** It is time to ask, or to have been answered. */
  due(now: Instant): void {
    const { timers } = this.#host;
    const isRound = !this.#isWaiting;
    for (const speaker of [...this.#asked]) {
      this.#silent.add(speaker);
      speaker.endProbe(now);
      this.#lost(speaker, now);
    }
    for (const speaker of this.#host.holders()) {
      if (!isRound && !this.#unreachable.has(speaker)) continue;
      if (PROTOCOLS[speaker.via]!.checksItself || this.#left.has(speaker)) continue;
      // Where it is being asked already the answer to that will do.
      speaker.probe(now);
      this.#asked.add(speaker);
    }
    for (const speaker of this.#unreachable) {
      if (!this.#asked.has(speaker)) this.#unreachable.delete(speaker);
    }
    this.#isWaiting = this.#asked.size > 0;
    const rest = isRound ? CHECK_EVERY_MS : CHECK_EVERY_MS - PATIENCE_MS;
    timers.set(CHECKS, now + (this.#isWaiting ? PATIENCE_MS : rest), "check");
  }

  /** A speaker is there; whether that was looked at. */
  answered(speaker: Speaker): boolean {
    this.#unreachable.delete(speaker);
    return this.#asked.delete(speaker);
  }

  /** A speaker's probe came to nothing. */
  failed(speaker: Speaker, failure: Failure, now: Instant): void {
    if (!this.#asked.has(speaker)) return;
    // A refusal is an answer, too.
    if (failure.kind === "refused" || failure.kind === "protocol-violation") {
      return void this.answered(speaker);
    }
    const isFirst = !this.#unreachable.has(speaker);
    if (failure.kind !== "unreachable" || !isFirst) return this.#lost(speaker, now);
    this.#asked.delete(speaker);
    this.#unreachable.add(speaker);
    if (this.#asked.size === 0) this.#host.timers.set(CHECKS, now + RESTART_MS, "check");
  }

  /** A speaker has granted something. */
  granted(speaker: Speaker): void {
    if (this.#silent.delete(speaker)) this.#left.add(speaker);
  }

  #lost(speaker: Speaker, now: Instant): void {
    this.answered(speaker);
    this.#host.lost(speaker, now);
  }
}
