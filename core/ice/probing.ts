/**
 * Where ICE alone does not reach: one side's NAT gives each destination another port, so that the
 * port it has for the peer is not the one that a server saw. Then two natkits guess.
 *
 * - *Prediction:* ports that a NAT hands out in steps are tried in those steps.
 * - *Birthday:* the hard side opens many sockets towards the peer, the other one tries random ports.
 *   With 256 of 64,512 ports open a thousand tries hit one of them 98 times in 100.
 * - *Both hard, both in steps:* the n-th new destination of one side gets its n-th port from now on,
 *   so each sends its n-th probe to the other's n-th port.
 *
 * @module
 */
import { below, type RandomSource } from "../random.ts";
import { isSameEndpoint } from "../ip.ts";
import type { Endpoint } from "../machine.ts";
import type { MappingBehaviour, NatHint } from "./ticket.ts";

/** What this side does. */
export type ProbingRole =
  /** Nothing: checks suffice, or nothing helps. */
  | "none"
  /** It sends to many ports of the peer. */
  | "probe"
  /** It sends from many sockets to the peer. */
  | "open"
  /** Both sides send to where the other's ports go on. */
  | "meet";

/** What both tickets together say. */
export interface ProbingPlan {
  /** What this side does first. */
  readonly role: ProbingRole;
  /**
   * What it does when half of its time is over: where only one of two hard NATs can be the one that
   * opens, its filter decides, and nobody knows that.
   */
  readonly then: ProbingRole;
  /** The step in which the peer's NAT hands out ports, after `lastPort`; 0 where it is at random. */
  readonly step: number;
  /** The last port that the peer's socket is known to have got. */
  readonly lastPort: number;
  /** Whether the peer's n-th port is for our n-th; else it is one of the next few for all of ours. */
  readonly isInTurn: boolean;
}

/** A NAT whose ports are further apart than this is taken for one that draws them. */
const MAX_STEP = 16;

/** Whether a NAT gives each destination, or each address, another port. */
export function isHard(hint: NatHint | undefined): boolean {
  return hint?.mapping === "address-dependent" || hint?.mapping === "address-and-port-dependent";
}

/** The step in which ports follow each other; 0 where they do not. */
export function stepOf(ports: readonly number[]): number {
  if (ports.length < 2) return 0;
  const step = ports[1]! - ports[0]!;
  const isSteady = ports.every((port, i) => i === 0 || port - ports[i - 1]! === step);
  return isSteady && Math.abs(step) <= MAX_STEP ? step : 0;
}

/** Who does what; both sides come to halves of one plan. */
export function planProbing(
  own: NatHint | undefined,
  peer: NatHint | undefined,
  isControlling: boolean,
): ProbingPlan {
  const [isOwnHard, isPeerHard] = [isHard(own), isHard(peer)];
  const step = isPeerHard ? stepOf(peer!.ports) : 0;
  const plan = (role: ProbingRole, then = role): ProbingPlan => ({
    role,
    then,
    step,
    lastPort: peer?.ports.at(-1) ?? 0,
    isInTurn: ![own, peer].some((hint) => hint?.mapping === "address-dependent"),
  });
  if (!own || !peer || !(isOwnHard || isPeerHard)) return plan("none");
  if (!isOwnHard) return plan("probe");
  if (!isPeerHard) return plan("open");
  if (step !== 0 && stepOf(own.ports) !== 0) return plan("meet");
  // A port for each address is the same for all ports of the peer: that side opens first.
  const [mayOwn, mayPeer] = [own, peer].map(({ mapping }) => mapping === "address-dependent");
  if (!mayOwn && !mayPeer) return plan("none");
  return mayOwn && (isControlling || !mayPeer) ? plan("open", "probe") : plan("probe", "open");
}

const FIRST_PORT = 1024;
const PORTS = 65536 - FIRST_PORT;
/** How many ports ahead are tried where they follow each other. */
export const AHEAD = 32;

/** The ports to try: those that are likely, then all others at random, each once. */
export class PortSequence {
  readonly #likely: number[] = [];
  readonly #tried = new Set<number>();
  readonly #start: number;
  readonly #stride: number;
  #drawn = 0;

  /** Makes the sequence for a plan. */
  constructor({ step, lastPort }: ProbingPlan, random: RandomSource) {
    for (let n = 1; step !== 0 && n <= AHEAD; n++) this.#likely.push(wrap(lastPort + n * step));
    this.#start = below(random, PORTS);
    // Without a common factor with their number (2^10 · 3^2 · 7) it comes to all of them.
    let stride = 0;
    while (stride % 2 === 0 || stride % 3 === 0 || stride % 7 === 0) stride = below(random, PORTS);
    this.#stride = stride;
  }

  /** The next port; undefined after the last. */
  next(): number | undefined {
    for (;;) {
      const port = this.#likely.shift() ?? this.#draw();
      if (port === undefined || !this.#tried.has(port)) {
        if (port !== undefined) this.#tried.add(port);
        return port;
      }
    }
  }

  #draw(): number | undefined {
    if (this.#drawn === PORTS) return undefined;
    return FIRST_PORT + (this.#start + this.#stride * this.#drawn++) % PORTS;
  }
}

/** A port beyond the last one goes on at the first. */
export function wrap(port: number): number {
  return FIRST_PORT + (((port - FIRST_PORT) % PORTS) + PORTS) % PORTS;
}

/** What a server saw of a socket. */
export interface Observation {
  /** Who was asked. */
  readonly server: Endpoint;
  /** What it saw, at last. */
  mapped: Endpoint;
}

/** What mappings depend on, by what servers saw of one socket. */
export function behaviourOf(
  seen: readonly Observation[],
  local: Endpoint | undefined,
): MappingBehaviour {
  const [first] = seen;
  if (!first) return "unknown";
  if (isSameEndpoint(first.mapped, local)) return "endpoint-independent";
  if (seen.length < 2) return "unknown";
  if (seen.every(({ mapped }) => isSameEndpoint(mapped, first.mapped))) {
    return "endpoint-independent";
  }
  const twins = seen.flatMap((one, i) =>
    seen.slice(i + 1).filter(({ server }) => server.address === one.server.address)
      .map((other) => isSameEndpoint(one.mapped, other.mapped))
  );
  return twins.length > 0 && twins.every((isSame) => isSame)
    ? "address-dependent"
    : "address-and-port-dependent";
}
