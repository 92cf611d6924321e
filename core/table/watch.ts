/**
 * Who wants to know what changes in the table holds a watch and drains it. A watch that nobody
 * drains keeps the newest changes and counts those it dropped.
 *
 * @module
 */
import { snapshotEntry, type TableEntry } from "./entry.ts";

/** What became of an entry. */
export type TableChangeKind =
  /** It is new. */
  | "added"
  /** Its lease was extended, or its nonce, filters or description changed. */
  | "renewed"
  /** Its external endpoint changed. */
  | "moved"
  /** It was deleted. */
  | "removed"
  /** Its lease ended. */
  | "expired";

/** A change of the table. */
export interface TableChange {
  /** What happened. */
  readonly change: TableChangeKind;
  /** The entry after the change, or as it was when it went; a copy. */
  readonly entry: TableEntry;
}

/** A bounded queue of changes, made by `MappingTable.watch`. */
export class TableWatch {
  #changes: TableChange[] = [];
  #head = 0;
  #limit: number;
  /** Changes lost because nobody drained the watch. */
  dropped = 0;

  /**
   * Makes an empty one.
   *
   * @param limit How many changes may wait.
   */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** How many changes wait. */
  get size(): number {
    return this.#changes.length - this.#head;
  }

  /** The oldest change; drain until undefined. */
  next(): TableChange | undefined {
    const change = this.#changes[this.#head];
    if (change === undefined) return undefined;
    this.#head++;
    if (this.#head > 64 && this.#head * 2 > this.#changes.length) {
      this.#changes.splice(0, this.#head);
      this.#head = 0;
    }
    return change;
  }

  /** For the table alone: adds a change. */
  push(change: TableChange): void {
    this.#changes.push(change);
    if (this.size <= this.#limit) return;
    this.next();
    this.dropped++;
  }
}

/** All watches of a table. */
export class Watches {
  #all: TableWatch[] = [];

  /** How many there are. */
  get size(): number {
    return this.#all.length;
  }

  /** Adds one. */
  add(limit: number): TableWatch {
    const watch = new TableWatch(limit);
    this.#all.push(watch);
    return watch;
  }

  /** Takes one away. */
  delete(watch: TableWatch): void {
    this.#all = this.#all.filter((other) => other !== watch);
  }

  /** Tells them all. */
  tell(change: TableChangeKind, entry: TableEntry): void {
    const copy = snapshotEntry(entry);
    for (const watch of this.#all) watch.push({ change, entry: copy });
  }
}
