/**
 * The claims of one session, found by their own ids and by those of the protocols' clients, and
 * what was saved of an earlier run.
 *
 * @module
 */
import { toHex } from "../bytes.ts";
import type { Attempt, Via } from "../errors.ts";
import { familyOf } from "../ip.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { MappingId } from "../mapping.ts";
import type { RandomSource } from "../random.ts";
import { type Claim, gatewayText } from "./claim.ts";
import { needsPcp, type PeerRequest, type PortRequest } from "./request.ts";
import { savedKey, type SavedMapping, toSaved } from "./saved.ts";

/** What claims are made with. */
export interface ClaimBookOptions {
  readonly gateway: Endpoint;
  readonly speaks: readonly Via[];
  readonly random: RandomSource;
  readonly saved: readonly SavedMapping[];
}

/** All claims of one session. */
export class ClaimBook {
  /** By the id of the mapping in the PCP client. */
  readonly byPcp: Map<MappingId, Claim> = new Map();
  /** By the id of the mapping in the NAT-PMP client. */
  readonly byNatPmp: Map<MappingId, Claim> = new Map();
  /** Mappings of an earlier run, by {@linkcode savedKey}. */
  readonly saved: Map<string, SavedMapping>;
  /** The address from which packets to the gateway leave. */
  localAddress: string;
  readonly #options: ClaimBookOptions;
  readonly #byId: Map<MappingId, Claim> = new Map();
  /** The claims that are wanted, by {@linkcode savedKey}: each port has one. */
  readonly #wanted: Map<string, Claim> = new Map();
  #nextId: MappingId = 1;

  constructor(localAddress: string, options: ClaimBookOptions) {
    this.localAddress = localAddress;
    this.#options = options;
    this.saved = new Map(options.saved.map((mapping) => [savedKey(mapping), mapping]));
  }

  /** How many there are. */
  get size(): number {
    return this.#byId.size;
  }

  /** All of them, safe against changes while they are walked. */
  all(): Claim[] {
    return [...this.#byId.values()];
  }

  /** The claim with this id. */
  get(id: MappingId): Claim | undefined {
    return this.#byId.get(id);
  }

  /**
   * Makes the claim, with the nonce and the wish of an earlier run where one was saved.
   *
   * @throws {TypeError} Where another claim of the port is wanted.
   */
  create(request: PortRequest | PeerRequest, phase: Claim["phase"], now: Instant): Claim {
    const key = savedKey(request);
    if (this.#wanted.has(key)) {
      const port = `${request.internalPort}/${request.protocol}`;
      throw new TypeError(`Cannot ${phase === "removing" ? "unmap" : "map"} ${port}: it is held`);
    }
    const saved = this.saved.get(key);
    const nonce = new Uint8Array(12);
    if (!saved?.nonce) this.#options.random.fill(nonce);
    const claim: Claim = {
      id: this.#nextId++,
      request,
      nonce: saved?.nonce ?? toHex(nonce),
      phase,
      since: now,
      attempts: [],
      pcp: undefined,
      pcpSince: now,
      isPcpNext: false,
      natPmp: undefined,
      isProbeAnswered: false,
      wish: saved?.external,
      granted: undefined,
      isLost: false,
      isTold: false,
    };
    this.#byId.set(claim.id, claim);
    if (phase !== "removing") this.#wanted.set(key, claim);
    return claim;
  }

  /** The port is free for another claim, though this one may still be deleted at the gateway. */
  unwant(claim: Claim): void {
    const key = savedKey(claim.request);
    if (this.#wanted.get(key) === claim) this.#wanted.delete(key);
  }

  /** Strikes the claim out. */
  delete(claim: Claim): void {
    this.unwant(claim);
    if (claim.pcp !== undefined) this.byPcp.delete(claim.pcp);
    if (claim.natPmp !== undefined) this.byNatPmp.delete(claim.natPmp);
    this.#byId.delete(claim.id);
  }

  /** The protocols that could do the request. */
  vias(request: PortRequest | PeerRequest): Via[] {
    const isPcpOnly = needsPcp(request) || familyOf(this.localAddress) === 6;
    return this.#options.speaks.filter((via) =>
      (via === "pcp" || (via === "nat-pmp" && !isPcpOnly)) &&
      (request.protocols?.includes(via) ?? true)
    );
  }

  /** Records what a protocol came to. */
  note(claim: Claim, via: Via, outcome: string, now: Instant): void {
    const elapsedMs = now - claim.since;
    const gateway = gatewayText(this.#options.gateway);
    const attempt = { via, gateway, outcome, elapsedMs };
    const at = claim.attempts.findIndex((other) => other.via === via);
    // `concat` and `map` make arrays without room to spare: they are kept for each mapping.
    claim.attempts = at < 0
      ? claim.attempts.concat(attempt)
      : claim.attempts.map((other, i) => i === at ? attempt : other);
  }

  /** What each protocol has come to; the silent ones are listed as `"no answer"`. */
  attempts(claim: Claim, now: Instant): Attempt[] {
    for (const via of this.vias(claim.request)) {
      const isNoted = claim.attempts.some((attempt) => attempt.via === via);
      if (!isNoted) this.note(claim, via, "no answer", now);
    }
    return [...claim.attempts];
  }

  /** What a later run needs to adopt or delete what is held, and what is left of earlier ones. */
  exportSaved(): SavedMapping[] {
    const kept = new Map(this.saved);
    for (const claim of this.#byId.values()) {
      if (claim.granted) kept.set(savedKey(claim.request), toSaved(claim, claim.granted));
    }
    return [...kept.values()];
  }
}
