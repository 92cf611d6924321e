/**
 * The epoch rules of RFC 6886 §3.6 and RFC 6887 §8.5, written down a second time, to judge what the
 * clients make of the packets that reach them.
 *
 * @module
 */
import type { Endpoint, Instant } from "../../core/machine.ts";
import * as natPmp from "../../core/natpmp/codec.ts";
import * as pcp from "../../core/pcp/codec.ts";

/** What the rules say about one client's packets. */
export class EpochReference {
  #last: { readonly epoch: number; readonly at: Instant } | undefined;
  #hasLost = false;

  /** A client that starts anew has heard nothing. */
  reset(): void {
    this.#last = undefined;
  }

  /** Whether a loss of state was to be seen since this was asked last. */
  takeVerdict(): boolean {
    const hasLost = this.#hasLost;
    this.#hasLost = false;
    return hasLost;
  }

  /** A datagram from the gateway's address reached a NAT-PMP client. */
  hearNatPmp(data: Uint8Array, from: Endpoint, now: Instant): void {
    const response = natPmp.decodeResponse(data);
    if (typeof response === "string" || response.epochSeconds === undefined) return;
    if (from.port !== natPmp.NATPMP_PORT && response.kind !== "address") return;
    const epoch = response.epochSeconds, last = this.#last;
    this.#last = { epoch, at: now };
    // "If the SSSOE in the newly received packet is less than the client's conservative estimate
    // by more than 2 seconds": the client's clock counts for 7/8.
    if (last && epoch < last.epoch + (now - last.at) / 1000 * 0.875 - 2) this.#hasLost = true;
  }

  /** A PCP client took a datagram as an answer or announcement. */
  hearPcp(data: Uint8Array, now: Instant): void {
    const response = pcp.decodeResponse(data);
    if (typeof response === "string" || response.kind === "unsupported-version") return;
    const epoch = response.epochSeconds, last = this.#last;
    this.#last = { epoch, at: now };
    if (!last) return;
    const client = Math.floor((now - last.at) / 1000), server = epoch - last.epoch;
    const isBack = epoch < last.epoch - 1;
    const isAhead = client + 2 < server - Math.floor(server / 16);
    const isBehind = server + 2 < client - Math.floor(client / 16);
    if (isBack || isAhead || isBehind) this.#hasLost = true;
  }
}
