/**
 * How a machine joins the contract test: each part of the library describes its machines by a
 * case, and one table of tests holds them all to core/machine.ts's rules.
 *
 * @module
 */
import type { Endpoint, Instant, Machine, SendAction } from "../../core/machine.ts";

/** One machine at its beginning, and what sets it to work. */
export interface MachineUnderTest {
  /** The machine. */
  readonly machine: Machine<unknown>;
  /** Starts enough work to have timers and output. */
  begin(now: number): void;
  /** What the other side answers to a datagram that left at `now`, if anything. */
  reply(sent: SendAction, now: Instant): { data: Uint8Array; from: Endpoint } | undefined;
}

/** A machine of one kind. */
export interface MachineCase {
  /** Names it in the test's report. */
  readonly name: string;
  /** Makes one; the same seed gives the same. */
  create(seed: number): MachineUnderTest;
}
