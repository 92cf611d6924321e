/**
 * STUN over TCP: messages follow each other without further framing (RFC 8489 §6.2.2).
 *
 * @module
 */
import { copyBytes, u16 } from "../bytes.ts";
import { isStunHeader, STUN_HEADER_LENGTH } from "./codec.ts";

/** Cuts one stream into messages. It holds no more than one message, 64 KiB. */
export class StunFramer {
  /** The beginning of a message whose rest is on its way. */
  #part = new Uint8Array(STUN_HEADER_LENGTH);
  #length = 0;
  #isBroken = false;

  /** Whether what came is no STUN: the stream is of no use any more. */
  get isBroken(): boolean {
    return this.#isBroken;
  }

  /** Takes what came, and gives copies of the messages that it completes. */
  push(data: Uint8Array): Uint8Array[] {
    const messages: Uint8Array[] = [];
    for (let at = 0; at < data.length && !this.#isBroken;) {
      const wanted = this.#wanted();
      const taken = data.subarray(at, at + wanted - this.#length);
      if (this.#part.length < wanted) {
        const longer = new Uint8Array(wanted);
        longer.set(this.#part);
        this.#part = longer;
      }
      this.#part.set(taken, this.#length);
      this.#length += taken.length;
      at += taken.length;
      if (this.#length < STUN_HEADER_LENGTH) break;
      if (!isStunHeader(this.#part, 0)) this.#isBroken = true;
      else if (this.#length === this.#wanted()) {
        messages.push(copyBytes(this.#part.subarray(0, this.#length)));
        this.#length = 0;
      }
    }
    return messages;
  }

  /** How long what is being read will be, as far as that is known. */
  #wanted(): number {
    return this.#length < STUN_HEADER_LENGTH
      ? STUN_HEADER_LENGTH
      : STUN_HEADER_LENGTH + u16(this.#part, 2);
  }
}
