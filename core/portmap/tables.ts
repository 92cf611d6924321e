/**
 * Questions for a gateway's table of port mappings, everybody's: put to the first protocol that tells
 * it (UPnP), as soon as the gateway is open.
 *
 * @module
 */
import type { Instant } from "../machine.ts";
import { codeOf, describeFailure, type Failure, type MappingId } from "../mapping.ts";
import type { ClientEvent } from "./client.ts";
import { gatewayText } from "./gateway.ts";
import type { MapperEvent } from "./managed.ts";
import type { Path, PathFailure, Speaker } from "./path.ts";

/** What questions for tables need of the mapper. */
export interface TableHost {
  /** The best way, open or not. */
  bestPath(): Path | undefined;
  /** Tells the application. */
  tell(event: MapperEvent, key: string): void;
}

/** A table as far as it was read. */
type Table = Pick<ClientEvent & { type: "table-told" }, "entries" | "isCut">;

interface Question {
  readonly id: MappingId;
  readonly since: Instant;
  /** Whom it was put to; undefined while no gateway is open. */
  speaker: Speaker | undefined;
  /** Its number there. */
  asked: MappingId;
}

/** What is told where nothing is. */
const NO_TABLE: Table = { entries: [], isCut: false };

/** The questions of one mapper. */
export class TableQuestions {
  readonly #host: TableHost;
  readonly #open: Set<Question> = new Set();

  constructor(host: TableHost) {
    this.#host = host;
  }

  /** How many are open. */
  get size(): number {
    return this.#open.size;
  }

  /** Asks at the best gateway. */
  ask(id: MappingId, now: Instant): void {
    this.#open.add({ id, since: now, speaker: undefined, asked: 0 });
    this.pathChanged(now);
  }

  /** A gateway is open, or its socket failed: asks there, or tells that nothing leaves. */
  pathChanged(now: Instant): void {
    for (const question of [...this.#open]) {
      if (question.speaker) continue;
      const path = this.#host.bestPath();
      if (path && !path.local && !path.failure) continue;
      question.speaker = path?.speakers.find(({ client }) => client.list !== undefined);
      if (question.speaker) question.asked = question.speaker.client.list!(now);
      else if (path) {
        this.#end(question, path, NO_TABLE, { kind: "unreachable" }, now, path.failure);
      }
    }
  }

  /** A speaker goes on reading. */
  read(speaker: Speaker, event: ClientEvent & { type: "table-read" }): void {
    const question = this.#find(speaker, event.id);
    if (question) this.#host.tell({ ...event, id: question.id }, keyOf(question));
  }

  /** A speaker has read it, or cannot. */
  told(
    speaker: Speaker,
    { id, entries, isCut, failure }: ClientEvent & { type: "table-told" },
    now: Instant,
  ): void {
    const question = this.#find(speaker, id);
    if (question) this.#end(question, speaker.path, { entries, isCut }, failure, now);
  }

  /** A gateway that was left is waited for no more. */
  left(path: Path, now: Instant): void {
    for (const question of [...this.#open]) {
      if (question.speaker?.path !== path) continue;
      this.#end(question, path, NO_TABLE, { kind: "no-answer" }, now);
    }
  }

  /** Takes all back: nothing more is told. */
  endAll(): void {
    this.#open.clear();
  }

  #find(speaker: Speaker, asked: MappingId): Question | undefined {
    for (const one of this.#open) {
      if (one.speaker === speaker && one.asked === asked) return one;
    }
    return undefined;
  }

  #end(
    question: Question,
    { gateway }: Path,
    table: Table,
    failure: Failure | undefined,
    now: Instant,
    blocked?: PathFailure,
  ): void {
    this.#open.delete(question);
    const { id, since, speaker } = question;
    const attempts = speaker && failure
      ? [{
        via: speaker.via,
        gateway: gatewayText(gateway),
        outcome: describeFailure(failure),
        elapsedMs: now - since,
      }]
      : [];
    const told = { type: "table-told", id, gateway, ...table, attempts } as const;
    const why = blocked ?? (failure && { code: codeOf(failure) });
    this.#host.tell({ ...told, ...why }, keyOf(question));
  }
}

function keyOf({ id }: Question): string {
  return `table ${id}`;
}
