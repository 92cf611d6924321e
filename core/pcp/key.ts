/**
 * What a mapping stands for, as text: two with the same key are the same to a server.
 *
 * @module
 */
import { formatEndpoint } from "../ip.ts";
import type { PcpMapResponseMessage, PcpPeerResponseMessage } from "./codec.ts";
import type { Wish } from "./request.ts";

/** The key of a wish, or of what a response answers (PCP-C-16, PCP-C-17). */
export function keyOf(subject: Wish | PcpMapResponseMessage | PcpPeerResponseMessage): string {
  if ("mode" in subject) {
    const { remote } = subject;
    return text(subject, subject.thirdParty, remote?.address, remote?.port);
  }
  let thirdParty: string | undefined;
  for (const option of subject.options) {
    if (option.type === "third-party") thirdParty = option.internalAddress;
  }
  return subject.kind === "peer"
    ? text(subject, thirdParty, subject.remoteAddress, subject.remotePort)
    : text(subject, thirdParty, undefined, undefined);
}

function text(
  fields: { kind: string; protocol: number; internalPort: number },
  thirdParty: string | undefined,
  remoteAddress: string | undefined,
  remotePort: number | undefined,
): string {
  const base = `${fields.kind} ${fields.protocol}/${fields.internalPort}`;
  if (thirdParty === undefined && remoteAddress === undefined) return base;
  return `${base} ${thirdParty ?? ""} ${remoteAddress ?? ""} ${remotePort ?? ""}`;
}

/** The internal side of a wish for people. */
export function internalOf(wish: Wish): string {
  const port = `internal port ${wish.internalPort} of protocol ${wish.protocol}`;
  const owner = wish.thirdParty === undefined ? "" : ` of ${wish.thirdParty}`;
  return wish.remote ? `${port}${owner} to ${formatEndpoint(wish.remote)}` : `${port}${owner}`;
}

/** Whether two inbound wishes share an internal port (RFC 7753 §6.4 forbids it for sets). */
export function overlaps(a: Wish, b: Wish): boolean {
  if (a.protocol !== b.protocol || a.thirdParty !== b.thirdParty) return false;
  return a.internalPort <= lastPort(b) && b.internalPort <= lastPort(a);
}

function lastPort(wish: Wish): number {
  return Math.min(65535, wish.internalPort + (wish.portSet?.size ?? 1) - 1);
}
