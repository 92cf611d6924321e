/**
 * The errors that say what was tried.
 *
 * @module
 */
import { pickDefined } from "../../core/defined.ts";
import { NatError } from "../../core/errors.ts";
import type { RequestFailure } from "./link_types.ts";

/** The error of something that came to `failure`; `what` as in `"map port 6000/tcp"`. */
export function attemptsError(what: string, failure: RequestFailure): NatError {
  const tried = failure.attempts.map(({ via, gateway, outcome }) =>
    `${via} at ${gateway}: ${outcome}`
  );
  const message = `Cannot ${what}: ${tried.join("; ") || "nothing was tried"}`;
  return new NatError(failure.code, message, failure);
}

/** One error of several: what was tried is put together, and a refusal tells the most. */
export function mergeErrors(what: string, errors: readonly unknown[]): unknown {
  const known = errors.filter((error) => error instanceof NatError);
  const other = errors.find((error) => !(error instanceof NatError));
  if (other !== undefined || known.length === 0) return other;
  const main = known.find(({ code }) => code === "refused") ?? known[0]!;
  const attempts = known.flatMap((error) => error.attempts);
  return attemptsError(what, {
    code: main.code,
    attempts,
    ...pickDefined(main as RequestFailure, "retryAfterSeconds"),
  });
}
