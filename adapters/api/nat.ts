/**
 * The long-lived context: this host's gateways, and the mappings held at them.
 *
 * @module
 */
import { checkAddress, checkChoice } from "../../core/check.ts";
import { pickDefined } from "../../core/defined.ts";
import { NatError, type Via } from "../../core/errors.ts";
import { type Family, familyOf } from "../../core/ip.ts";
import type { Endpoint } from "../../core/machine.ts";
import type { Transport } from "../../core/mapping.ts";
import { PCP_PORT } from "../../core/pcp/constants.ts";
import { gatewayText } from "../../core/portmap/claim.ts";
import type { SessionEvent } from "../../core/portmap/events.ts";
import { checkPeerRequest, checkPortRequest } from "../../core/portmap/request.ts";
import type { SavedMapping } from "../../core/portmap/saved.ts";
import type { GatewaySession } from "../../core/portmap/session.ts";
import { systemRuntime } from "../auto.ts";
import { findGateways } from "../discovery/mod.ts";
import type { Runtime } from "../runtime.ts";
import { mergeErrors } from "./attempts_error.ts";
import type { LinkRequest } from "./link_types.ts";
import { watchNetwork } from "./network_watch.ts";
import {
  checkState,
  type MapOptions,
  type NatOptions,
  type NatState,
  parseGateway,
  type PeerOptions,
  toPeerRequest,
  toPortRequest,
  type UnmapOptions,
} from "./options.ts";
import { PortMapping } from "./port_mapping.ts";
import {
  addressByNatPmp,
  addressByPcp,
  type ExternalAddress,
  openSessionLink,
  type SessionLink,
} from "./session_link.ts";
import { firstSuccess } from "./stagger.ts";
import type { WaitOptions } from "./wait.ts";

/** How long the next gateway waits for the one before it, milliseconds. */
const STAGGER_MS = 1000;

/** What is asked of a session, without when and to what end. */
type Job = Pick<LinkRequest<GatewaySession>, "what" | "start">;

/** Who confirmed a deletion. */
export interface UnmapResult {
  /** The protocol. */
  readonly via: Via;
  /** The gateway, as text that starts with its address. */
  readonly gateway: string;
}

/**
 * This host's gateways and the mappings held at them. Keep one for the program's life: it knows the
 * gateways, listens for their announcements and follows changes of the network.
 *
 * @example
 * ```ts
 * import { Nat } from "@natkit/natkit";
 * import { startGateway } from "@natkit/natkit/testing";
 *
 * await using gateway = await startGateway({ listen: "127.0.0.1", port: 0 });
 * await using nat = await Nat.open({ gateway: gateway.endpoint });
 * const [web, game] = await Promise.all([nat.map(8080), nat.map(27015, { protocol: "udp" })]);
 * console.assert(web.external.address === game.external.address);
 * ```
 */
export class Nat implements AsyncDisposable {
  readonly #runtime: Runtime;
  readonly #options: NatOptions;
  readonly #saved: readonly SavedMapping[];
  readonly #links: Map<string, Promise<SessionLink>> = new Map();
  /** What finding the gateways took, milliseconds; the first mapping counts it in. */
  #discoveryMs = 0;
  #gateways: readonly Endpoint[] = [];
  #telling: Promise<unknown> = Promise.resolve();
  #stopWatching: (() => void) | undefined;
  #isClosed = false;

  private constructor(options: NatOptions) {
    this.#runtime = options.runtime ?? systemRuntime();
    this.#options = options;
    this.#saved = checkState(options.state);
  }

  /**
   * Finds the gateways of this host, or takes the one that is named.
   *
   * @throws {TypeError} On a gateway, address or state that is none.
   * @throws {NatError} `gateway-not-found`, or `permission` with the name of what is missing.
   */
  static async open(options: NatOptions = {}): Promise<Nat> {
    options.signal?.throwIfAborted();
    const nat = new Nat(options);
    const since = nat.#runtime.now();
    await nat.#findGateways();
    nat.#discoveryMs = nat.#runtime.now() - since;
    options.signal?.throwIfAborted();
    nat.#stopWatching = watchNetwork(nat.#runtime, () => nat.#onNetworkChange());
    return nat;
  }

  /** The gateways, best first, as text that starts with the address. */
  get gateways(): readonly string[] {
    return this.#gateways.map(gatewayText);
  }

  /**
   * Opens a port: asks the gateway to send what arrives at an external endpoint to `port` of this
   * host.
   *
   * @param port The port that the application listens on, 1…65535.
   * @throws {TypeError | RangeError} On options that no gateway could grant.
   * @throws {NatError} With a `code`, and what was tried by each protocol at each gateway.
   */
  map(port: number, options: MapOptions = {}): Promise<PortMapping> {
    return this.#open(options, () => {
      const request = toPortRequest(port, options);
      checkPortRequest(request, this.#family(options.family));
      return {
        what: `map port ${port}/${request.protocol}`,
        start: (session, now) => session.map(request, now),
      };
    });
  }

  /**
   * Keeps an outbound mapping for one peer open and tells the external endpoint by which the peer
   * sees us (PCP PEER, RFC 6887 §12).
   *
   * @param port The local port, 1…65535.
   * @throws {TypeError | RangeError} On options that no gateway could grant.
   * @throws {NatError} As {@linkcode Nat.map}.
   */
  peer(port: number, remote: Endpoint, options: PeerOptions = {}): Promise<PortMapping> {
    return this.#open({ family: familyOf(remote.address), ...options }, () => {
      const request = toPeerRequest(port, remote, options);
      checkPeerRequest(request, familyOf(remote.address));
      return {
        what: `map port ${port}/${request.protocol} to a peer`,
        start: (session, now) => session.peer(request, now),
      };
    });
  }

  /**
   * Deletes a mapping that this context does not hold: one of an earlier run (hand in its state,
   * PCP wants the nonce), or any of this host's by whatever protocol knows it.
   *
   * @returns Who confirmed it. NAT-PMP confirms also where there was nothing.
   * @throws {TypeError | RangeError} On a port that is none.
   * @throws {NatError} Where nobody did.
   */
  async unmap(port: number, options: UnmapOptions = {}): Promise<UnmapResult[]> {
    const request = toPortRequest(port, { ...options, externalPort: 0 });
    const family = this.#family(options.family);
    checkPortRequest(request, family);
    return await this.#remove(family, options, {
      what: `unmap port ${port}/${request.protocol}`,
      start: (session, now) => session.unmap(request, now),
    });
  }

  /**
   * Deletes all of this host's mappings that can be deleted unseen: by NAT-PMP those of the
   * transport protocol, by PCP those in the state handed in.
   *
   * @throws {NatError} Where nobody confirmed anything.
   */
  async unmapAll(protocol: Transport, options: WaitOptions = {}): Promise<UnmapResult[]> {
    checkChoice("protocol", protocol, ["tcp", "udp"]);
    const family = this.#family(undefined);
    const jobs = this.#saved.filter((saved) =>
      saved.protocol === protocol && saved.kind === "map" && saved.via === "pcp" &&
      familyOf(saved.gateway) === family
    ).map((saved) =>
      this.unmap(saved.internalPort, { ...options, protocol, ...pickDefined(saved, "thirdParty") })
    );
    if (family === 4 && (this.#options.protocols?.includes("nat-pmp") ?? true)) {
      jobs.push(this.#remove(family, options, {
        what: `unmap all ${protocol} ports`,
        start: (session, now) => session.unmapAll(protocol, now),
      }));
    }
    const outcomes = await Promise.allSettled(jobs);
    const done = outcomes.flatMap((outcome) => outcome.status === "fulfilled" ? outcome.value : []);
    const failed = outcomes.find((outcome) => outcome.status === "rejected");
    if (done.length === 0 && failed) throw failed.reason;
    return done;
  }

  /**
   * The external address, by each protocol that tells it.
   *
   * @throws {NatError} Where none does.
   */
  externalAddresses(options: WaitOptions = {}): Promise<ExternalAddress[]> {
    // One at a time: PCP tells it with a mapping of our own port, of which there is one.
    const next = this.#telling.then(() => this.#tellAddresses(options));
    this.#telling = next.catch(() => undefined);
    return next;
  }

  async #tellAddresses(options: WaitOptions): Promise<ExternalAddress[]> {
    const since = this.#runtime.now();
    const family = this.#family(undefined);
    const link = await this.#link(this.#candidates(family)[0]!);
    const speaks = this.#options.protocols ?? ["pcp", "nat-pmp"];
    const jobs: Promise<ExternalAddress>[] = [];
    if (speaks.includes("pcp")) jobs.push(addressByPcp(link, since, options));
    if (speaks.includes("nat-pmp") && family === 4) {
      jobs.push(addressByNatPmp(link, this.#runtime, since, options));
    }
    const outcomes = await Promise.allSettled(jobs);
    const found = outcomes.flatMap((each) => each.status === "fulfilled" ? [each.value] : []);
    if (found.length > 0) return found;
    throw mergeErrors(
      "tell the external address",
      outcomes.map((each) => each.status === "rejected" ? each.reason : undefined),
    );
  }

  /** What a later run needs to adopt or delete the mappings of this one. JSON-safe. */
  async exportState(): Promise<NatState> {
    const mappings = new Map(this.#saved.map((saved) => [JSON.stringify(saved), saved]));
    for (const link of await this.#openLinks()) {
      for (const [key, saved] of mappings) {
        if (saved.gateway === link.gateway.address) mappings.delete(key);
      }
      for (const saved of link.do((session) => session.exportSaved())) {
        mappings.set(JSON.stringify(saved), saved);
      }
    }
    return { version: 1, mappings: [...mappings.values()] };
  }

  /** Deletes all mappings it holds and closes its sockets. Never rejects. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#stopWatching?.();
    await Promise.all((await this.#openLinks()).map((link) => link.close()));
  }

  /** {@linkcode Nat.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #findGateways(): Promise<void> {
    const { gateway, internalAddress } = this.#options;
    const own = internalAddress === undefined
      ? undefined
      : checkAddress("internalAddress", internalAddress);
    const all = gateway === undefined
      ? (await findGateways(this.#runtime)).map(({ address }) => ({ address, port: PCP_PORT }))
      : [parseGateway(gateway)];
    const family = own === undefined ? undefined : familyOf(own);
    const found = all.filter(({ address }) => family === undefined || familyOf(address) === family);
    if (found.length === 0) {
      throw new NatError(
        "gateway-not-found",
        gateway === undefined
          ? "Cannot find a gateway: this host has no default route" +
            (family ? ` for IPv${family}` : "")
          : `Cannot use the gateway: it is not of the family of 'internalAddress' ${own}`,
      );
    }
    this.#gateways = found;
  }

  #family(wanted: Family | undefined): Family {
    if (wanted !== undefined) return wanted;
    return this.#gateways.some(({ address }) => familyOf(address) === 4) ? 4 : 6;
  }

  #candidates(family: Family): Endpoint[] {
    const candidates = this.#gateways.filter(({ address }) => familyOf(address) === family);
    if (candidates.length > 0) return candidates;
    throw new NatError("gateway-not-found", `Cannot find a gateway for IPv${family}`);
  }

  #link(gateway: Endpoint): Promise<SessionLink> {
    if (this.#isClosed) throw new NatError("closed", "Cannot use a Nat: it is closed");
    const key = gatewayText(gateway);
    const known = this.#links.get(key);
    if (known) return known;
    const opening = openSessionLink(this.#runtime, gateway, this.#options, this.#saved);
    this.#links.set(key, opening);
    opening.catch(() => this.#links.delete(key));
    return opening;
  }

  async #openLinks(): Promise<SessionLink[]> {
    const settled = await Promise.allSettled(this.#links.values());
    return settled.flatMap((outcome) => outcome.status === "fulfilled" ? [outcome.value] : []);
  }

  /** Asks the best gateway, and the others each a moment later or once those before failed. */
  async #open(options: MapOptions, prepare: () => Job): Promise<PortMapping> {
    const since = this.#runtime.now() - (this.#links.size === 0 ? this.#discoveryMs : 0);
    const request = { ...prepare(), since, goal: "mapped" as const };
    const ask = (gateway: Endpoint) => async (signal: AbortSignal | undefined) => {
      const link = await this.#link(gateway);
      const held = await link.request(request, {
        ...options,
        ...(signal ? { signal } : {}),
      });
      return new PortMapping(link, held, this.#runtime.now() - since);
    };
    const candidates = this.#candidates(this.#family(options.family));
    if (candidates.length === 1) return await ask(candidates[0]!)(options.signal);
    try {
      return await firstSuccess(this.#runtime, candidates.map(ask), STAGGER_MS, options.signal);
    } catch (errors) {
      throw Array.isArray(errors) ? mergeErrors(request.what, errors) : errors;
    }
  }

  async #remove(family: Family, options: WaitOptions, job: Job): Promise<UnmapResult[]> {
    const request = { ...job, since: this.#runtime.now(), goal: "unmapped" as const };
    const link = await this.#link(this.#candidates(family)[0]!);
    const held = await link.request(request, options);
    const { attempts } = held.last as SessionEvent & { type: "unmapped" };
    return attempts.filter(({ outcome }) => outcome === "unmapped")
      .map(({ via, gateway }) => ({ via, gateway }));
  }

  async #onNetworkChange(): Promise<void> {
    try {
      if (this.#options.gateway === undefined) await this.#findGateways();
    } catch {
      return; // Nothing is connected: the gateways of before may come back.
    }
    const own = new Set(this.#runtime.interfaces().map(({ address }) => address));
    for (const link of await this.#openLinks()) {
      const { gateway } = link;
      const isThere = this.#gateways.some(({ address }) => address === gateway.address);
      if (isThere && own.has(link.localAddress)) continue;
      const next = isThere
        ? gateway
        : this.#gateways.find(({ address }) => familyOf(address) === familyOf(gateway.address));
      if (!next) continue;
      this.#links.delete(gatewayText(gateway));
      this.#links.set(gatewayText(next), Promise.resolve(link));
      await link.moveTo(next).catch(() => undefined);
    }
  }
}
