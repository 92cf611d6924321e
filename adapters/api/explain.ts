/**
 * What a request to a single-protocol client came to, as {@linkcode NatError} tells it.
 *
 * @module
 */
import type { Via } from "../../core/errors.ts";
import type { Endpoint, Instant } from "../../core/machine.ts";
import { describeFailure, type Failure } from "../../core/mapping.ts";
import { codeOf, gatewayText, retryAfter } from "../../core/portmap/claim.ts";
import type { RequestFailure } from "./link_types.ts";

/** Makes the `explain` of a link whose machine speaks one protocol. */
export function explainFailure(
  via: Via,
  gateway: Endpoint,
): (machine: unknown, id: number, event: unknown, since: Instant, now: Instant) => RequestFailure {
  return (_machine, _id, event, since, now) => {
    const failure = (event as { failure?: Failure } | undefined)?.failure ??
      { kind: "no-answer" } as const;
    const outcome = describeFailure(failure);
    const attempts = [{ via, gateway: gatewayText(gateway), outcome, elapsedMs: now - since }];
    return { code: codeOf(failure), attempts, ...retryAfter(failure, now) };
  };
}
