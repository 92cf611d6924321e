/**
 * Writing and reading STUN Binding messages, without integrity.
 *
 * @module
 */
import { decodeStun, encodeStun } from "../../../core/stun/codec.ts";
import { measure, type Timing } from "../measure.ts";

/** What `stun-codec` takes. */
export interface StunCodecOptions {
  readonly timeMs: number;
}

/** What is measured. */
export type StunCodecSubject =
  | "request encoded"
  | "request decoded"
  | "response encoded"
  | "response decoded";

/** What `stun-codec` measures. */
export interface StunCodecResult {
  /** Of `batch` messages each. */
  readonly timings: Record<StunCodecSubject, Timing>;
  readonly batch: number;
}

const BATCH = 1000;

/** The task. */
export async function stunCodec({ timeMs }: StunCodecOptions): Promise<StunCodecResult> {
  // All different, so that no cache of a result helps.
  const messages = Array.from({ length: BATCH }, (_, i) => ({
    method: 1,
    transactionId: crypto.getRandomValues(new Uint8Array(12)),
    attributes: {
      xorMappedAddress: { address: `203.0.${i >> 8}.${i & 255}`, port: 1024 + i },
    },
  }));
  const requests = messages.map(({ method, transactionId }) => (
    { class: "request", method, transactionId } as const
  ));
  const responses = messages.map((message) => ({ class: "success", ...message } as const));
  const requestBytes = requests.map((request) => encodeStun(request));
  const responseBytes = responses.map((response) => encodeStun(response));
  let kept: unknown;
  const all = <T>(list: readonly T[], act: (item: T) => unknown) => () => {
    for (const item of list) kept = act(item);
    return kept === undefined;
  };
  const timings = await measure({
    "request encoded": all(requests, (request) => encodeStun(request)),
    "request decoded": all(requestBytes, (bytes) => decodeStun(bytes)),
    "response encoded": all(responses, (response) => encodeStun(response)),
    "response decoded": all(responseBytes, (bytes) => decodeStun(bytes)),
  }, { timeMs });
  return { timings, batch: BATCH };
}
