/**
 * How a machine joins the contract test: each part of the library describes its machines by a
 * case, and one table of tests holds them all to core/machine.ts's rules.
 *
 * @module
 */
import { assert } from "@std/assert";
import type {
  Action,
  Endpoint,
  Instant,
  Machine,
  RequestAction,
  RespondAction,
  SendAction,
  StreamAction,
} from "../../core/machine.ts";
import type { RandomSource } from "../../core/random.ts";

/** What a machine wants done beside datagrams. */
export type WorldAction = RequestAction | RespondAction | StreamAction;

/** One machine at its beginning, and what sets it to work. */
export interface MachineUnderTest {
  /** The machine. */
  readonly machine: Machine<unknown>;
  /** Starts enough work to have timers and output. */
  begin(now: number): void;
  /** What the other side answers to a datagram that left at `now`, if anything. */
  reply(sent: SendAction, now: Instant): { data: Uint8Array; from: Endpoint } | undefined;
  /** Feeds `machine` (this one, or what stands before it) what a driver would; false for nothing. */
  perform?(action: WorldAction, machine: Machine<unknown>, now: Instant): boolean;
  /** On machines that hand out ids. */
  readonly ids?: IdsUnderTest;
}

/** How to bring a machine that hands out ids into every corner, at random. */
export interface IdsUnderTest {
  /** Gives a command that hands out an id; undefined where the machine refuses it. */
  begin(random: RandomSource, now: Instant): number | undefined;
  /**
   * Gives a command about an id, which may be over: revoke, renew… Returns `"given up"` where
   * nothing is to be told of it afterwards, not even its end.
   */
  turn(random: RandomSource, id: number, now: Instant): "given up" | void;
  /** Lets something go wrong around the machine, or right again. */
  disturb(random: RandomSource, now: Instant, ids: readonly number[]): void;
  /** Whether an event is the last of its id. */
  isFinal(event: unknown): boolean;
  /** Ends the machine. */
  close(now: Instant): void;
}

/** A machine of one kind. */
export interface MachineCase {
  /** Names it in the test's report. */
  readonly name: string;
  /** Makes one; the same seed gives the same. */
  create(seed: number): MachineUnderTest;
}

/** Drains a machine. */
export function drain(machine: Machine<unknown>): Action<unknown>[] {
  const actions: Action<unknown>[] = [];
  for (let action = machine.poll(); action; action = machine.poll()) actions.push(action);
  return actions;
}

/** A machine held to rule 3 at each call that begins to have output: that waits since its now. */
export function timed<M extends Machine<unknown>>(machine: M): M {
  const outputAt = (): Instant | undefined => {
    const due = machine.debugTimeout();
    return due?.reason === "output waits" || due?.reason === "drain" ? due.at : undefined;
  };
  return new Proxy(machine, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name, target);
      if (typeof member !== "function") return member;
      return (...args: unknown[]) => {
        const before = outputAt();
        const result: unknown = member.apply(target, args);
        const at = before === undefined ? outputAt() : undefined;
        if (at !== undefined) {
          assert(args.includes(at), `${String(name)}(${args}) waits since ${at}`);
        }
        return result;
      };
    },
  });
}
