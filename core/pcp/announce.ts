/**
 * The ANNOUNCE of a client, in flight or not: it asks for the server's epoch and changes nothing
 * there (PCP-C-50). It ends with its answer or, a question being no wish for a mapping, after four
 * attempts at each address.
 *
 * @module
 */
import { withoutZone } from "../ip.ts";
import type { Instant } from "../machine.ts";
import type { RandomSource } from "../random.ts";
import { encodeRequest } from "./codec.ts";
import { NO_OPTIONS } from "./options.ts";
import { Request, Retransmission } from "./transport.ts";

/** The owner of the ANNOUNCE and its key in output; mappings count from 1. */
export const ANNOUNCE = 0;

/** How often each address is asked where the client sets no limit. */
const ATTEMPTS = 4;

/** The ANNOUNCE of one client. */
export class Announce {
  readonly #random: RandomSource;
  readonly #isFast: boolean;
  readonly #maxAttempts: number;
  #request: Request | undefined;

  /** @param maxAttempts How often each address is asked, 0 for the default of four. */
  constructor(random: RandomSource, isFast: boolean, maxAttempts: number) {
    this.#random = random;
    this.#isFast = isFast;
    this.#maxAttempts = maxAttempts || ATTEMPTS;
  }

  /** The request that waits for its answer. */
  get request(): Request | undefined {
    return this.#request;
  }

  /** Whether it waits for its answer. */
  get isInFlight(): boolean {
    return this.#request !== undefined;
  }

  /** Whether the address in use has been asked often enough. */
  get isExhausted(): boolean {
    return this.#request!.sends >= this.#maxAttempts;
  }

  /** Makes the request. */
  begin(localAddress: string): void {
    const packet = encodeRequest({
      kind: "announce",
      lifetimeSeconds: 0,
      clientAddress: withoutZone(localAddress),
      options: NO_OPTIONS,
    });
    this.#request = new Request(ANNOUNCE, packet, new Retransmission(this.#isFast));
  }

  /** Starts over, at another address of the server. */
  beginAnew(): void {
    const request = this.#request!;
    request.sends = 0;
    request.retransmission = new Retransmission(this.#isFast);
  }

  /** Counts a sending; when the next is due. */
  sent(now: Instant): Instant {
    const request = this.#request!;
    request.sends++;
    return request.retransmission!.next(this.#random, now);
  }

  /** It is over. */
  end(): void {
    this.#request = undefined;
  }
}
