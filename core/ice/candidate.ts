/**
 * ICE candidates (RFC 8445 §5.1): what they are, their priorities and foundations, the `a=candidate`
 * line of SDP (RFC 8839 §5.1, RFC 6544 §4.5), and where a check may go at all.
 *
 * @module
 */
import { classify } from "../cidr.ts";
import { canonicalAddress, familyOf, isSameEndpoint, withoutZone } from "../ip.ts";
import type { Endpoint } from "../machine.ts";
import type { Transport } from "../mapping.ts";

/**
 * How an endpoint was found: it is this host's own; a server saw it (a gateway's mapping counts as
 * that); the peer's check came from it; a relay lends it.
 */
export type CandidateType = "host" | "srflx" | "prflx" | "relay";

/** Who connects: we, the peer, or both at once (RFC 6544 §4.1). */
export type TcpType = "active" | "passive" | "so";

/** An endpoint at which one may be reached. */
export interface Candidate extends Endpoint {
  /** Same for candidates of one kind, base and server: what works for one may for the other. */
  readonly foundation: string;
  /** What flows over it. */
  readonly transport: Transport;
  /** 1…2³¹ − 1, the larger the better. */
  readonly priority: number;
  /** How it was found. */
  readonly type: CandidateType;
  /** Who connects; on TCP only. */
  readonly tcpType?: TcpType;
  /** Where it comes from: the base of a reflexive one, as far as that is told. */
  readonly related?: Endpoint;
}

/** The type preference of a candidate that a gateway mapped (RFC 6544 §4.2: NAT-assisted). */
export const NAT_ASSISTED_PREFERENCE = 105;

/** RFC 8445 §5.1.2.2. */
const TYPE_PREFERENCE: Readonly<Record<CandidateType, number>> = {
  host: 126,
  prflx: 110,
  srflx: 100,
  relay: 0,
};

/** The type preference that is recommended, 0…126. */
export function typePreference(type: CandidateType): number {
  return TYPE_PREFERENCE[type];
}

/**
 * The priority of a candidate of the one component that there is: 2²⁴ · type preference + 2⁸ · local
 * preference + 256 − component (RFC 8445 §5.1.2.1).
 *
 * @param typePreference 0…126.
 * @param localPreference 0…65535, the larger the better; unique among candidates of one type.
 */
export function candidatePriority(typePreference: number, localPreference: number): number {
  return typePreference * 2 ** 24 + localPreference * 2 ** 8 + 255;
}

/** RFC 6544 §4.2: what a host's or a relay's endpoint is best at, and what a reflexive one is. */
const DIRECTION: Readonly<Record<TcpType, readonly [own: number, reflexive: number]>> = {
  active: [6, 4],
  passive: [4, 2],
  so: [2, 6],
};

/**
 * The local preference of a TCP candidate: 2¹³ · direction + other (RFC 6544 §4.2).
 *
 * @param other 0…8191, the larger the better.
 */
export function tcpLocalPreference(type: CandidateType, tcpType: TcpType, other: number): number {
  const isOwn = type === "host" || type === "relay";
  return DIRECTION[tcpType][isOwn ? 0 : 1] * 2 ** 13 + other;
}

/**
 * The priority of a pair: 2³² · min(G, D) + 2 · max(G, D) + (G > D ? 1 : 0), the same on both sides
 * (RFC 8445 §6.1.2.3).
 */
export function pairPriority(controlling: number, controlled: number): bigint {
  const low = BigInt(Math.min(controlling, controlled));
  const high = BigInt(Math.max(controlling, controlled));
  return (low << 32n) + 2n * high + (controlling > controlled ? 1n : 0n);
}

/** Gives out foundations (RFC 8445 §5.1.1.3): one a type, transport, base address and server. */
export class Foundations {
  readonly #known = new Map<string, string>();

  /** The foundation of a candidate. */
  of(type: CandidateType, transport: Transport, base: string, server: string = ""): string {
    const key = `${type} ${transport} ${base} ${server}`;
    const known = this.#known.get(key) ?? String(this.#known.size + 1);
    this.#known.set(key, known);
    return known;
  }
}

/** Why no check may go to an endpoint; undefined where one may. */
export function whyUnreachable({ address, port }: Endpoint): string | undefined {
  if (port < 1 || port > 65535) return `port ${port} is none`;
  const kind = classify(withoutZone(address));
  switch (kind) {
    case "wildcard":
    case "multicast":
    case "broadcast":
      return `${address} is a ${kind} address`;
    case "reserved":
      return `${address} is a reserved address`;
    default:
      return undefined;
  }
}

/**
 * Whether a check may go from one address to another: within a family; what leads nowhere else (an
 * IPv6 link, this host) only to its own kind (RFC 8445 §6.1.2.2).
 */
export function canPair(local: string, remote: string): boolean {
  if (familyOf(local) !== familyOf(remote)) return false;
  const [from, to] = [classify(withoutZone(local)), classify(withoutZone(remote))];
  const isTied = (kind: string, family: 4 | 6) =>
    kind === "loopback" || (kind === "link-local" && family === 6);
  const family = familyOf(local);
  if (from === "wildcard") return !isTied(to, family);
  return (!isTied(from, family) && !isTied(to, family)) || from === to;
}

/** Whether two TCP candidates can meet (RFC 6544 §6.2). */
export function canMeet(local: TcpType, remote: TcpType): boolean {
  return local === "so" ? remote === "so" : local !== remote && remote !== "so";
}

/** Whether two candidates say the same of the same endpoint. */
export function isSameCandidate(a: Candidate, b: Candidate): boolean {
  return isSameEndpoint(a, b) && a.transport === b.transport && a.tcpType === b.tcpType;
}

/** RFC 8839 §5.1: where nothing is told of the base. */
const DISCARD_PORT = 9;

/** The `a=candidate` line, without the `a=` and the end of line. */
export function formatCandidate(candidate: Candidate): string {
  const { foundation, transport, priority, address, type, tcpType, related } = candidate;
  // An active candidate has no port of its own (RFC 6544 §4.5).
  const port = tcpType === "active" ? DISCARD_PORT : candidate.port;
  const words = [
    `candidate:${foundation} 1 ${transport.toUpperCase()} ${priority} ${
      withoutZone(address)
    } ${port}`,
    `typ ${type}`,
  ];
  if (type !== "host") {
    const base = related ?? { address: familyOf(address) === 4 ? "0.0.0.0" : "::", port: 9 };
    words.push(`raddr ${withoutZone(base.address)} rport ${base.port}`);
  }
  if (tcpType !== undefined) words.push(`tcptype ${tcpType}`);
  return words.join(" ");
}

const TYPES: readonly string[] = ["host", "srflx", "prflx", "relay"] satisfies CandidateType[];
const TCP_TYPES: readonly string[] = ["active", "passive", "so"] satisfies TcpType[];
const LINE =
  /^candidate:([A-Za-z0-9+/]{1,32}) ([0-9]{1,5}) (\S+) ([0-9]{1,10}) (\S+) ([0-9]{1,5}) typ (\S+)((?: \S+ \S+)*)\s*$/i;

/**
 * Reads an `a=candidate` line, with or without the `a=`. Undefined for what is no such line, and
 * for a candidate that is to be ignored (RFC 8839 §5.1): of another component or transport, of an
 * unknown type, with a name in the place of an address.
 */
export function parseCandidate(line: string): Candidate | undefined {
  const match = LINE.exec(line.replace(/^a=/, ""));
  if (!match) return undefined;
  const [, foundation, component, transportText, priorityText, addressText, portText, type, rest] =
    match as unknown as string[];
  const transport = transportText!.toLowerCase();
  const address = canonicalAddress(addressText!);
  const priority = Number(priorityText);
  if (component !== "1" || address === undefined || !TYPES.includes(type!)) return undefined;
  if (priority < 1 || priority > 0x7fff_ffff || Number(portText) > 65535) return undefined;
  const words = rest!.trim().split(" ");
  const extra = new Map<string, string>();
  for (let i = 0; i + 1 < words.length; i += 2) extra.set(words[i]!, words[i + 1]!);
  const tcpType = extra.get("tcptype");
  if (transport === "tcp" ? !TCP_TYPES.includes(tcpType ?? "") : transport !== "udp") {
    return undefined;
  }
  const raddr = canonicalAddress(extra.get("raddr") ?? "");
  const rport = extra.get("rport") ?? "";
  return {
    foundation: foundation!,
    transport: transport as Transport,
    priority,
    address,
    port: Number(portText),
    type: type as CandidateType,
    ...(transport === "tcp" && { tcpType: tcpType as TcpType }),
    ...(raddr !== undefined && /^[0-9]{1,5}$/.test(rport) &&
      { related: { address: raddr, port: Number(rport) } }),
  };
}
