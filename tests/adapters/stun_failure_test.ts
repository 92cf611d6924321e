import { it } from "node:test";
import { assertEquals } from "@std/assert";
import { describeStunFailure } from "../../adapters/stun_failure.ts";

it("each way in which a STUN server fails has words of its own", () => {
  const kinds = [
    "no-answer",
    "unreachable",
    "network",
    "integrity",
    "bid-down",
    "protocol-violation",
    "closed",
  ] as const;
  assertEquals(kinds.map((kind) => describeStunFailure({ kind })), [
    "no answer",
    "nobody listens there",
    "the connection failed",
    "what answered does not know the password",
    "somebody on the way weakens the authentication",
    "the answer breaks the protocol's rules",
    "closed",
  ]);
  const refused = (reason: string) =>
    describeStunFailure({ kind: "refused", code: 438, reason, unknownAttributes: [] });
  assertEquals([refused("Stale Nonce"), refused("")], [
    "refused with 438 Stale Nonce",
    "refused with 438",
  ]);
});
