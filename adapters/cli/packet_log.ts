/**
 * Each packet in a line on standard error, for `--verbose`.
 *
 * @module
 */
import { formatEndpoint } from "../../core/ip.ts";
import { describeDatagram, describeRequest, describeResponse } from "../packets.ts";
import type { Passing, Runtime } from "../runtime.ts";
import { printable } from "./text.ts";

/** What is shown of one packet, characters. */
const MAX_LINE = 500;

/**
 * The runtime with a log of what passes.
 *
 * @param elapsedMs Milliseconds since the start of the operation.
 */
export function withPacketLog(
  runtime: Runtime,
  elapsedMs: () => number,
  write: (line: string) => void,
): Runtime {
  return { ...runtime, tap: (passing) => write(`${elapsedMs()} ms ${describePassing(passing)}`) };
}

/** What passes, in one line: where from or to, what it says, and why it was dropped. */
export function describePassing(passing: Passing): string {
  const plain = printable(text(passing));
  return plain.length > MAX_LINE ? `${plain.slice(0, MAX_LINE)}…` : plain;
}

function text(passing: Passing): string {
  switch (passing.type) {
    case "sent":
    case "received": {
      const { type, data, local, peer, dropped } = passing;
      const isSent = type === "sent";
      const here = local === undefined ? undefined : formatEndpoint(local);
      const own = here === undefined ? "" : isSent ? ` from ${here}` : ` at ${here}`;
      const way = isSent ? `to ${formatEndpoint(peer)}` : `from ${formatEndpoint(peer)}`;
      const what = describeDatagram(data, isSent ? local?.port : peer.port) ??
        `${data.length} bytes`;
      const fate = dropped === undefined ? "" : ` (${isSent ? "not sent" : "dropped"}: ${dropped})`;
      return `${type} ${way}${own}: ${what}${fate}`;
    }
    case "unreachable":
      return `received for ${formatEndpoint(passing.peer)}: icmp port unreachable`;
    case "failed":
      return `failed: ${passing.message}`;
    case "asked":
      return `sent to ${formatEndpoint(passing.peer)}: ${describeRequest(passing.request)}`;
    case "was-asked":
      return `received from ${formatEndpoint(passing.peer)}: ${describeRequest(passing.request)}`;
    case "answered": {
      const { result } = passing;
      return `received from ${whom(passing)}: ` +
        (result.ok ? describeResponse(result) : `no answer by http: ${result.reason}`);
    }
    case "responded":
      return `sent to ${whom(passing)}: ${describeResponse(passing.response)}`;
  }
}

function whom({ peer }: Passing & { readonly type: "answered" | "responded" }): string {
  return peer === undefined ? "somebody" : formatEndpoint(peer);
}
