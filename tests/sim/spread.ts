/**
 * Whether the random delays after a loss of state are spread over 0…5 s, as RFC 6886 §3.7 and
 * RFC 6887 §14.1.3 want it: what one run cannot tell, many can.
 *
 * @module
 */
import { SimulationError } from "../../core/sim/mod.ts";
import type { RunReport } from "./run.ts";
import type { Via } from "./wish.ts";
import { RECREATION_MS } from "./windows.ts";

/** So many delays are judged at a time; that a fifth of the range is missed has a chance of 10⁻¹⁹. */
const ENOUGH = 200;
const PARTS = 5;

/** The delays of many runs. */
export class Spread {
  readonly #delays: Record<Via, number[]> = { "pcp": [], "nat-pmp": [] };

  add(recreations: RunReport["recreations"]): void {
    for (const { via, delayMs } of recreations) this.#delays[via].push(delayMs);
  }

  /**
   * Judges what there is, where it is enough.
   *
   * @param seed The seed of the run added last.
   * @throws {SimulationError} Where a part of the range is never taken.
   */
  judge(seed: number): void {
    for (const via of ["pcp", "nat-pmp"] as const) {
      const delays = this.#delays[via];
      if (delays.length < ENOUGH) continue;
      const counts = new Array<number>(PARTS).fill(0);
      for (const ms of delays) {
        const part = Math.min(PARTS - 1, Math.floor(ms / RECREATION_MS * PARTS));
        counts[part] = counts[part]! + 1;
      }
      delays.length = 0;
      if (!counts.includes(0)) continue;
      throw new SimulationError(
        `Seed ${seed}: the delays of ${via} after a loss of state are not spread over 0…5 s: ` +
          `${counts.join(", ")} of ${ENOUGH} in each second`,
      );
    }
  }
}
