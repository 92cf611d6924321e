/**
 * The errors that say what was tried.
 *
 * @module
 */
import { type Attempt, NatError, type NatErrorCode } from "../../core/errors.ts";

/** What a failed request came to. */
export interface RequestFailure {
  readonly code: NatErrorCode;
  readonly attempts: readonly Attempt[];
  readonly message?: string;
  readonly retryAfterSeconds?: number;
}

/**
 * The error of something that came to `failure`.
 *
 * @param what As in `"map port 6000/tcp"`.
 * @param remedy What the user can do about it, to end the message with.
 */
export function attemptsError(
  what: string,
  failure: RequestFailure,
  remedy: string = remedyOf(failure),
): NatError {
  const tried = failure.attempts.map(({ via, gateway, outcome }) =>
    `${via} at ${gateway}: ${outcome}`
  );
  const why = [failure.message, ...tried].filter((text) => text !== undefined).join("; ");
  const message = `Cannot ${what}: ${why || "nothing was tried"}${remedy}`;
  const { attempts, retryAfterSeconds } = failure;
  return new NatError(failure.code, message, {
    attempts,
    ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
  });
}

/** What can be done about a refusal to map or to unmap, where that is known. */
function remedyOf({ attempts, retryAfterSeconds }: RequestFailure): string {
  const says = (name: string) => attempts.some(({ outcome }) => outcome === name);
  if (says("ADDRESS_MISMATCH")) {
    return " (another NAT stands between this host and the gateway: open the port at the inner one)";
  }
  if (says("NOT_AUTHORIZED") || says("CONFLICT")) {
    const wait = retryAfterSeconds === undefined ? "" : `, or wait ${retryAfterSeconds} s`;
    return " (the gateway does not allow it, or an earlier run holds the port: hand in the state " +
      `that it saved${wait})`;
  }
  return "";
}
