/**
 * Why a STUN request came to nothing, for people.
 *
 * @module
 */
import type { StunFailure } from "../core/stun/client.ts";

/** What went wrong, in a few words. */
export function describeStunFailure(failure: StunFailure): string {
  switch (failure.kind) {
    case "no-answer":
      return "no answer";
    case "unreachable":
      return "nobody listens there";
    case "network":
      return "the connection failed";
    case "refused":
      return `refused with ${failure.code} ${failure.reason}`.trimEnd();
    case "integrity":
      return "what answered does not know the password";
    case "bid-down":
      return "somebody on the way weakens the authentication";
    case "protocol-violation":
      return "the answer breaks the protocol's rules";
    case "closed":
      return "closed";
  }
}
