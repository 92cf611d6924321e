/**
 * A client that asks a server for as much as it gives: a window of requests is kept under way,
 * and each answer sends the next one.
 *
 * @module
 */
import { encodeAddressRequest, encodeMapRequest } from "../../../core/natpmp/codec.ts";
import { encodeRequest } from "../../../core/pcp/codec.ts";
import { encodeStun, STUN_METHOD } from "../../../core/stun/codec.ts";
import { bareSocket } from "./bare_udp.ts";

/** What `load` takes. */
export interface LoadOptions {
  readonly address: string;
  readonly port: number;
  /** Where requests leave from: PCP has it in them. */
  readonly local: string;
  /** `echo` sends what `pcp` sends. */
  readonly what: "echo" | "pcp" | "nat-pmp" | "address" | "stun";
  readonly timeMs: number;
  /** How many requests are under way. */
  readonly window: number;
  /** How many mappings are renewed in turn. */
  readonly mappings: number;
}

/** What `load` measures. */
export interface LoadResult {
  readonly perSecond: number;
  readonly answers: number;
  /** Answers that say no. */
  readonly refused: number;
  /** Requests that had to be sent again since nothing came. */
  readonly lost: number;
}

/** So long nothing comes before the window counts as lost. */
const STALLED_MS = 200;

/** The task. */
export async function load(options: LoadOptions): Promise<LoadResult> {
  const { address, port, local, what, timeMs, window } = options;
  const requests = Array.from({ length: options.mappings }, (_, i) => request(what, local, i));
  let sent = 0, answers = 0, refused = 0, lost = 0, seen = 0;
  let isOver = false;
  const send = () => socket.send(requests[sent++ % requests.length]!, port, address);
  const socket = await bareSocket((data) => {
    if (isOver) return;
    answers++;
    if (what === "stun" ? data[0] !== 1 || data[1] !== 1 : what !== "echo" && data[3] !== 0) {
      refused++;
    }
    send();
  }, local);
  const from = performance.now();
  for (let i = 0; i < window; i++) send();
  const watch = setInterval(() => {
    if (answers === seen) {
      lost += window;
      for (let i = 0; i < window; i++) send();
    }
    seen = answers;
  }, STALLED_MS);
  await new Promise((resolve) => setTimeout(resolve, timeMs));
  isOver = true;
  const elapsed = performance.now() - from;
  clearInterval(watch);
  socket.close();
  return { perSecond: answers * 1000 / elapsed, answers, refused, lost };
}

function request(what: LoadOptions["what"], local: string, number: number): Uint8Array {
  const ports = { internalPort: 6000 + number, lifetimeSeconds: 7200 };
  if (what === "address") return encodeAddressRequest();
  if (what === "stun") {
    const transactionId = Uint8Array.from({ length: 12 }, (_, i) => number + i);
    return encodeStun({ class: "request", method: STUN_METHOD.BINDING, transactionId });
  }
  if (what === "nat-pmp") {
    const suggestedExternalPort = ports.internalPort;
    return encodeMapRequest({ ...ports, protocol: "udp", suggestedExternalPort });
  }
  return encodeRequest({
    ...ports,
    kind: "map",
    clientAddress: local,
    nonce: Uint8Array.from({ length: 12 }, (_, i) => number + i),
    protocol: 17,
    suggestedPort: ports.internalPort,
    suggestedAddress: "0.0.0.0",
    options: [],
  });
}
