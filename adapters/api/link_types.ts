/**
 * What a {@linkcode Link} asks of the machine it runs, and of those who use it.
 *
 * @module
 */
import type { Attempt, NatErrorCode } from "../../core/errors.ts";
import type { Endpoint, Instant, Machine } from "../../core/machine.ts";
import type { MappingEvent, MappingId } from "../../core/mapping.ts";
import type { Runtime } from "../runtime.ts";

/** What every mapping machine tells about one mapping; why one failed each tells in its own way. */
export type MappingUpdate<T> =
  | Exclude<MappingEvent<T>, { readonly type: "failed" }>
  | { readonly type: "failed"; readonly id: MappingId };

/** What a machine must offer to be driven by a {@linkcode Link}. */
export interface MappingMachine extends Machine<unknown> {
  /** Nothing held, asked for or still to be told. */
  readonly isIdle: boolean;
  renew(id: MappingId, lifetimeSeconds: number | undefined, now: Instant): void;
  revoke(id: MappingId, now: Instant): void;
  abandon(id: MappingId, now: Instant): void;
  close(now: Instant): void;
}

/** What a failed request came to. */
export interface RequestFailure {
  readonly code: NatErrorCode;
  readonly attempts: readonly Attempt[];
  readonly retryAfterSeconds?: number;
}

/** What the link must know of its machine. */
export interface LinkMachine<M extends MappingMachine> {
  /** Makes the machine, for the address from which packets to the gateway leave. */
  create(localAddress: string, gateway: Endpoint): M;
  /** The host has another address towards the gateway. */
  networkChanged(machine: M, localAddress: string, now: Instant): void;
  /** What came of a request that failed; `event` is absent where the caller's time was up. */
  explain(machine: M, id: MappingId, event: unknown, since: Instant, now: Instant): RequestFailure;
}

/** Where a link goes, and from where. */
export interface LinkOptions {
  readonly runtime: Runtime;
  readonly gateway: Endpoint;
  /** The local address to bind. Default: the system's choice for the gateway. */
  readonly bindAddress?: string;
  /** Whether to listen for the gateway's announcements. Default true. */
  readonly announcements?: boolean;
}

/** A request to a machine. */
export interface LinkRequest<M> {
  /** What is wanted, for the message of an error: `"map port 6000/tcp"`. */
  readonly what: string;
  /** When the caller's operation began, which may be before the link was opened. */
  readonly since: Instant;
  /** Whether it is granted by a mapping or by the deletion of one. */
  readonly goal: "mapped" | "unmapped";
  /** Makes it; called again where the gateway changes. */
  start(machine: M, now: Instant): MappingId;
}
