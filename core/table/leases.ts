/**
 * When each lease ends. Deadlines are moved lazily: one that comes too early, because its lease
 * was renewed meanwhile, is moved when its turn comes. So renewals, which are most of a server's
 * work, cost nothing here.
 *
 * @module
 */
import type { DebugTimeout, Instant } from "../machine.ts";
import { Timers } from "../timers.ts";
import type { Entry } from "./binding.ts";

/** The leases of a table. */
export class Leases {
  #timers = new Timers<Entry>();

  /** Sets when the entry's lease ends; `Infinity` for never. */
  set(entry: Entry, expiresAt: Instant): void {
    entry.expiresAt = expiresAt;
    if (expiresAt >= entry.wakeAt || expiresAt === Infinity) return;
    entry.wakeAt = expiresAt;
    this.#timers.set(entry, expiresAt, "lease");
  }

  /** Forgets the entry. */
  delete(entry: Entry): void {
    this.#timers.delete(entry);
    entry.wakeAt = Infinity;
  }

  /** Takes out an entry whose lease is over at `now`; call until undefined. */
  popDue(now: Instant): Entry | undefined {
    for (let entry = this.#timers.popDue(now); entry; entry = this.#timers.popDue(now)) {
      entry.wakeAt = Infinity;
      if (entry.expiresAt <= now) return entry;
      this.set(entry, entry.expiresAt);
    }
    return undefined;
  }

  /** When the next lease ends. */
  nextAt(): Instant | undefined {
    this.#settle();
    return this.#timers.nextAt();
  }

  /** {@linkcode Leases.nextAt} with its reason. */
  next(): DebugTimeout | undefined {
    this.#settle();
    const next = this.#timers.next();
    return next && { at: next.at, reason: `${next.reason} of mapping ${next.key.id}` };
  }

  /** Moves deadlines that come too early, until the next one is true. */
  #settle(): void {
    for (let entry = this.#timers.nextKey(); entry; entry = this.#timers.nextKey()) {
      const { expiresAt } = entry;
      if (expiresAt === entry.wakeAt) return;
      this.delete(entry);
      this.set(entry, expiresAt);
    }
  }
}
