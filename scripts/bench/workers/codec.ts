/**
 * Decoding a PCP MAP response, against reading the same fields by hand.
 *
 * @module
 */
import { decodeResponse, encodeResponse, PCP_RESULT } from "../../../core/pcp/codec.ts";
import { measure, type Timing } from "../measure.ts";
import { heapUsed } from "./heap.ts";

/** What `codec` takes. */
export interface CodecOptions {
  readonly timeMs: number;
}

/** What `codec` measures. */
export interface CodecResult {
  /** Of `BATCH` decodes each. */
  readonly timings: Record<"natkit" | "byHand", Timing>;
  readonly batch: number;
  /** Heap for one decode, bytes; undefined where the runtime does not tell it exactly. */
  readonly bytes?: Record<"natkit" | "byHand", number>;
}

const BATCH = 1000;

/** The fields of a MAP response and nothing else: no checks, no options. */
function readByHand(bytes: Uint8Array): object {
  return {
    kind: "map",
    resultCode: bytes[3]!,
    lifetimeSeconds: (bytes[4]! << 24 | bytes[5]! << 16 | bytes[6]! << 8 | bytes[7]!) >>> 0,
    epochSeconds: (bytes[8]! << 24 | bytes[9]! << 16 | bytes[10]! << 8 | bytes[11]!) >>> 0,
    nonce: bytes.subarray(24, 36),
    protocol: bytes[36]!,
    internalPort: bytes[40]! << 8 | bytes[41]!,
    externalPort: bytes[42]! << 8 | bytes[43]!,
    externalAddress: `${bytes[56]}.${bytes[57]}.${bytes[58]}.${bytes[59]}`,
    options: NONE,
  };
}

const NONE: readonly never[] = [];

/** The task. */
export async function codec({ timeMs }: CodecOptions): Promise<CodecResult> {
  const packets = makePackets();
  let kept: unknown;
  const all = (read: (bytes: Uint8Array) => unknown) => () => {
    for (const packet of packets) kept = read(packet);
    return kept === undefined;
  };
  const subjects = { natkit: all(decodeResponse), byHand: all(readByHand) };
  const timings = await measure(subjects, { timeMs });
  const isExact = !("Bun" in globalThis);
  const bytes = isExact
    ? { natkit: bytesEach(subjects.natkit), byHand: bytesEach(subjects.byHand) }
    : undefined;
  return { timings, batch: BATCH, ...(bytes && { bytes }) };
}

/** All different, so that no cache of a result helps either side. */
function makePackets(): Uint8Array[] {
  return Array.from({ length: BATCH }, (_, i) =>
    encodeResponse({
      kind: "map",
      resultCode: PCP_RESULT.SUCCESS,
      lifetimeSeconds: 3600 + i,
      epochSeconds: i,
      nonce: Uint8Array.from({ length: 12 }, (_, k) => i + k),
      protocol: 6,
      internalPort: 1024 + i,
      externalPort: 2048 + i,
      externalAddress: `203.0.${i >> 8}.${i & 255}`,
      options: [],
    }));
}

/** The least growth of the heap in several short runs: one with a collection in it is no growth. */
function bytesEach(subject: () => unknown): number {
  let least = Infinity;
  for (let i = 0; i < 20; i++) {
    const before = heapUsed();
    subject();
    const grown = heapUsed() - before;
    if (grown > 0) least = Math.min(least, grown);
  }
  return least / BATCH;
}
