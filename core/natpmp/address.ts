/**
 * The gateway's external address, as far as one client knows it: asked for at the application's
 * wish, heard unasked in announcements (PMP-C-16), and from then on kept true, since mappings are
 * told with it and an announcement of its change may get lost. What an announcement says is believed
 * on its source address alone (PMP-C-15): the protocol has nothing more to go by, and a question
 * to make sure would be answered by whoever can take that address.
 *
 * @module
 */
import type { Instant } from "../machine.ts";
import type { Failure } from "../mapping.ts";
import type { NatPmpResponse } from "./codec.ts";
import type { RequestQueue } from "./queue.ts";

/** What is told of the external address. */
export type AddressEvent =
  /** The external address: the answer to a question, or a change that was noticed. */
  | { readonly type: "external-address"; readonly address: string; readonly epochSeconds: number }
  /** The question for the external address came to nothing. */
  | { readonly type: "external-address-failed"; readonly failure: Failure };

/** The external address at one gateway. */
export class ExternalAddress {
  /** What the gateway told last. */
  known: string | undefined;
  readonly #queue: RequestQueue;
  readonly #tell: (event: AddressEvent) => void;
  #heardAt: Instant = -Infinity;
  #isWanted = false;

  /** Knows nothing yet. */
  constructor(queue: RequestQueue, tell: (event: AddressEvent) => void) {
    this.#queue = queue;
    this.#tell = tell;
  }

  /** Asks at the application's wish: it is told what comes of it. */
  ask(now: Instant): void {
    this.#isWanted = true;
    this.#enqueue(false, now);
  }

  /** Takes the question back, and repeats it no more. */
  cancel(): void {
    this.#isWanted = false;
    const job = this.#queue.addressJob;
    if (job) this.#queue.takeBack(job);
  }

  /** Asks again, quietly, where what is known is older than this; only one that answered once. */
  refresh(ageMs: number, now: Instant): void {
    if (!this.#isWanted || this.known === undefined) return;
    if (now - this.#heardAt > ageMs) this.#enqueue(true, now);
  }

  /**
   * Takes what an address packet says; a quiet answer and an announcement tell only a change.
   *
   * @returns Whether it is another address than before.
   */
  heard(response: NatPmpResponse & { kind: "address" }, isAsked: boolean, now: Instant): boolean {
    const { externalAddress: address, epochSeconds } = response;
    if (address === undefined || epochSeconds === undefined) return false;
    if (address === "0.0.0.0") {
      // D-08: a gateway without an address has none to tell.
      if (isAsked) this.failed({ kind: "protocol-violation", clause: "D-08" });
      return false;
    }
    this.#heardAt = now;
    const isOther = address !== this.known;
    if (isOther || isAsked) this.#tell({ type: "external-address", address, epochSeconds });
    if (!isOther) return false;
    this.#isWanted = true;
    this.known = address;
    return true;
  }

  /** The question came to nothing. */
  failed(failure: Failure): void {
    this.#tell({ type: "external-address-failed", failure });
  }

  #enqueue(quiet: boolean, now: Instant): void {
    const waiting = this.#queue.addressJob;
    if (waiting) waiting.quiet &&= quiet;
    else this.#queue.add({ kind: "address", quiet, queuedAt: now });
  }
}
