/**
 * Measuring with tinybench, the same on every runtime: several things side by side, in turns, so
 * that what else the machine does hits them alike.
 *
 * @module
 */
import { Bench } from "tinybench";

/** How long one thing took, milliseconds. */
export interface Timing {
  /** The median, over all rounds. */
  readonly p50: number;
  /** The 99th percentile of the median round. */
  readonly p99: number;
  /** The fastest. */
  readonly min: number;
  /** How many were measured. */
  readonly samples: number;
}

/** What is measured: a plain function, or one that awaits. */
export type Subject = () => unknown;

/** How long to measure. */
export interface MeasureOptions {
  /** For each subject, all rounds together, milliseconds. */
  readonly timeMs: number;
  /** Turns. Default 5. */
  readonly rounds?: number;
  /** The fewest samples a turn. Default 8. */
  readonly iterations?: number;
  /** Whether the subjects return promises. */
  readonly isAsync?: boolean;
}

/**
 * Measures the subjects in turns. A subject may return tinybench's `overriddenDuration` to tell
 * what counts of it.
 *
 * @throws What a subject throws.
 */
export async function measure<K extends string>(
  subjects: Readonly<Record<K, Subject>>,
  { timeMs, rounds = 5, iterations = 8, isAsync = false }: MeasureOptions,
): Promise<Record<K, Timing>> {
  const names = Object.keys(subjects) as K[];
  const turns = new Map<K, Timing[]>(names.map((name) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    const bench = new Bench({
      time: timeMs / rounds,
      iterations,
      warmup: round === 0,
      warmupTime: timeMs / 4,
      warmupIterations: iterations,
      throws: true,
    });
    for (const name of names) bench.add(name, subjects[name], { async: isAsync });
    await bench.run();
    for (const name of names) {
      const result = bench.getTask(name)?.result;
      if (!result || !("latency" in result)) throw new Error(`'${name}' was not measured`);
      const { p50, p99, min, samplesCount } = result.latency;
      turns.get(name)!.push({ p50, p99, min, samples: samplesCount });
    }
  }
  return Object.fromEntries(
    names.map((name) => [name, merge(turns.get(name)!)]),
  ) as Record<K, Timing>;
}

function merge(turns: readonly Timing[]): Timing {
  return {
    p50: median(turns.map(({ p50 }) => p50)),
    p99: median(turns.map(({ p99 }) => p99)),
    min: Math.min(...turns.map(({ min }) => min)),
    samples: turns.reduce((sum, { samples }) => sum + samples, 0),
  };
}

/** The value in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? NaN;
}
