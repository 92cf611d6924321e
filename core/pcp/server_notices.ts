/**
 * What a PCP server says unasked: announcements after a restart (RFC 6887 §14.1.3) and mapping
 * updates (§14.2).
 *
 * Theory of operation. An announcement goes out at once and up to nine times more, 250 ms later,
 * then after twice as long each time; a newer one starts the series again (PCP-S-49, 50). A
 * mapping update goes out at once, 250 ms later and another 500 ms later, unless the client
 * refreshes the mapping before (PCP-S-51). Each copy is made when it is sent, so that its epoch
 * and lifetime are true then. One that is late is sent once, and the rest keep their distance.
 *
 * @module
 */
import type { DebugTimeout, Instant } from "../machine.ts";
import { Timers } from "../timers.ts";
import type { TableEntry } from "../table/mod.ts";

const FIRST_GAP_MS = 250;
const UPDATE_COPIES = 3;
const ANNOUNCE = "announce";

/** A mapping update under way. */
export interface MappingUpdate {
  /** The mapping: live, or a copy where it is gone. */
  readonly entry: TableEntry;
  /** `SUCCESS`, or why the mapping is no more. */
  readonly resultCode: number;
}

interface Update extends MappingUpdate {
  sent: number;
}

/** A notice that is due. */
export type DueNotice = "announce" | MappingUpdate;

/** Which mapping a request or an update is about. */
export function noticeKey(
  protocol: number,
  address: string,
  port: number,
  remote?: { readonly address: string; readonly port: number },
): string {
  const key = `${protocol} ${address} ${port}`;
  return remote ? `${key} ${remote.address} ${remote.port}` : key;
}

/** The schedule of what is said unasked. */
export class Notices {
  #timers = new Timers<string>();
  #updates = new Map<string, Update>();
  #announced = 0;
  #copies: number;

  /** @param copies How often an announcement is sent, 0…10. */
  constructor(copies: number) {
    this.#copies = copies;
  }

  /** How many mapping updates are under way. */
  get updates(): number {
    return this.#updates.size;
  }

  /** Starts a series of announcements. */
  announce(now: Instant): void {
    this.#announced = 0;
    if (this.#copies > 0) this.#timers.set(ANNOUNCE, now, "announce");
  }

  /** Starts a mapping update; of one under way for the same mapping the newer one counts. */
  update(update: MappingUpdate, now: Instant): void {
    const { protocol, internal, remote } = update.entry;
    const key = noticeKey(protocol, internal.address, internal.port, remote);
    this.#updates.set(key, { ...update, sent: 0 });
    this.#timers.set(key, now, "mapping update");
  }

  /** The client has refreshed, deleted or asked anew for the mapping: no more about it. */
  settle(key: string): void {
    if (this.#updates.delete(key)) this.#timers.delete(key);
  }

  /** Forgets all. */
  clear(): void {
    this.#timers.clear();
    this.#updates.clear();
  }

  /** The next notice that is due at `now`; call until undefined. */
  popDue(now: Instant): DueNotice | undefined {
    const key = this.#timers.popDue(now);
    if (key === undefined) return undefined;
    if (key === ANNOUNCE) {
      const gap = FIRST_GAP_MS * 2 ** this.#announced++;
      if (this.#announced < this.#copies) this.#timers.set(ANNOUNCE, now + gap, "announce");
      return "announce";
    }
    const update = this.#updates.get(key)!;
    const gap = FIRST_GAP_MS * 2 ** update.sent++;
    if (update.sent < UPDATE_COPIES) this.#timers.set(key, now + gap, "mapping update");
    else this.#updates.delete(key);
    return update;
  }

  /** When the next one is due. */
  nextAt(): Instant | undefined {
    return this.#timers.nextAt();
  }

  /** {@linkcode Notices.nextAt} with its reason. */
  next(): DebugTimeout | undefined {
    const next = this.#timers.next();
    return next && { at: next.at, reason: next.reason };
  }
}
