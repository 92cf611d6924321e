/**
 * Gateways above gateways: what is held at a private address is mapped on by the NAT above, where
 * that can be asked through the inner one.
 *
 * It is mostly the first or the last host of the network in which the inner one's external address
 * is, and is to send to the inner one's external endpoint. Each of its mappings is a managed mapping
 * like any other, and has an owner: a watch (`watch.ts`), or the mapping that is told with the
 * endpoint of the outermost gateway (`nested.ts`). A host that is silent, or refuses, is not asked
 * again while nothing changes.
 *
 * @module
 */
import { isPrivate } from "../cidr.ts";
import { familyOf, isSameEndpoint } from "../ip.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { MappingId, Transport } from "../mapping.ts";
import { PCP_PORT } from "../pcp/constants.ts";
import type { ManagedMapping, PortRequest } from "./managed.ts";
import type { Path } from "./path.ts";

/** How long a gateway above another one may take to answer. */
const OUTER_PATIENCE_MS = 15_000;

/** What outer mappings need of the mapper. */
export interface OuterHost {
  /** The way to a gateway that may stand above one whose external address this is. */
  pathBeyond(inner: Path, address: string, gateway: Endpoint): Path | undefined;
  /** Such a way is used no more. */
  leave(path: Path, now: Instant): void;
  /** Makes one; undefined where nothing there could. */
  begin(owner: MappingId, request: PortRequest, now: Instant): ManagedMapping | undefined;
  /** Ends one; {@linkcode Outers.over} follows. */
  end(outer: ManagedMapping, now: Instant): void;
}

interface Outer {
  readonly inner: ManagedMapping;
  /** The inner one's external endpoint. */
  readonly to: Endpoint;
  readonly path: Path;
  readonly managed: ManagedMapping;
  /** When it was asked for. */
  readonly since: Instant;
}

interface Owned {
  outers: readonly Outer[];
  /** Nobody waits for what is left of it. */
  isForgotten: boolean;
  /** Where it was asked for in vain, as texts. */
  readonly vain: Set<string>;
  /** Gateways that have granted one. */
  readonly there: Set<string>;
}

/** The outer mappings of one mapper. */
export class Outers {
  readonly #host: OuterHost;
  readonly #owned: Map<MappingId, Owned> = new Map();

  constructor(host: OuterHost) {
    this.#host = host;
  }

  /** Those of an owner, the ones that are ending among them. */
  of(owner: MappingId): readonly ManagedMapping[] {
    return this.#owned.get(owner)?.outers.map(({ managed }) => managed) ?? [];
  }

  /** Whether a gateway may hold one of an owner's: what never was granted is nobody's matter. */
  mayBeHeld(owner: MappingId): boolean {
    return this.of(owner).some(({ granted }) => granted);
  }

  /** Whether a mapping is for a gateway above another one. */
  has(managed: ManagedMapping): boolean {
    return this.#find(managed) !== undefined;
  }

  /**
   * What these hold at private addresses is mapped on by the gateways above, and nothing else is.
   *
   * @param request The owner's wish.
   */
  reach(
    owner: MappingId,
    request: PortRequest,
    inners: readonly ManagedMapping[],
    now: Instant,
  ): void {
    const held = inners.flatMap((inner) => {
      const to = nestedAt(inner);
      return to ? { inner, at: inner.holder!.speaker.path, to } : [];
    });
    for (const outer of this.#owned.get(owner)?.outers ?? []) {
      const isWanted = held.some(({ inner, to }) =>
        inner === outer.inner && isSameEndpoint(to, outer.to)
      );
      if (!isWanted && outer.managed.phase !== "revoking") this.#host.end(outer.managed, now);
    }
    for (const { inner, at, to } of held) {
      for (const gateway of outerGateways(to.address)) {
        const owned = this.#owned.get(owner) ?? newOwned();
        this.#owned.set(owner, owned);
        const isKnown = owned.outers.some((outer) =>
          isSameEndpoint(outer.path.gateway, gateway) && isSameEndpoint(outer.to, to)
        );
        if (isKnown || owned.vain.has(outerKey(gateway, to))) continue;
        if (this.#isMapped(request.protocol, gateway, to)) continue;
        const path = this.#host.pathBeyond(at, to.address, gateway);
        if (!path) continue;
        const wish = outerRequest(request, at.gateway, gateway, to);
        const managed = this.#host.begin(owner, wish, now);
        if (managed) owned.outers = [...owned.outers, { inner, path, to, since: now, managed }];
        else {
          owned.vain.add(outerKey(gateway, to));
          this.leaveUnused(path, now);
        }
      }
    }
  }

  /** One is granted: where else the gateway might have been, it is not. */
  granted(managed: ManagedMapping, now: Instant): void {
    const found = this.#find(managed);
    if (!found) return;
    const { owned, outer: { inner, path } } = found;
    owned.there.add(path.gateway.address);
    for (const one of owned.outers) {
      if (one.inner === inner && isAsked(one.managed)) this.#giveUp(owned, one, now);
    }
  }

  /** A gateway above another one is not there, or does not map. */
  failed(managed: ManagedMapping, now: Instant): void {
    const found = this.#find(managed);
    if (!found) return;
    const { owned, outer } = found;
    owned.vain.add(outerKey(outer.path.gateway, outer.to));
    this.#drop(owned, outer, now);
  }

  /** One has ended. */
  over(managed: ManagedMapping, now: Instant): void {
    const found = this.#find(managed);
    if (found) this.#drop(found.owned, found.outer, now);
  }

  /** Those that have not answered for long are most likely not there. */
  giveUp(now: Instant): void {
    for (const owned of this.#owned.values()) {
      for (const outer of owned.outers) {
        const isLate = now - outer.since >= OUTER_PATIENCE_MS;
        if (isLate && isOnTrial(owned, outer)) this.#giveUp(owned, outer, now);
      }
    }
  }

  /** When the next one of an owner is given up; undefined where none waits for an answer. */
  giveUpAt(owner: MappingId): Instant | undefined {
    const owned = this.#owned.get(owner);
    const waiting = owned?.outers.filter((outer) => isOnTrial(owned, outer)) ?? [];
    if (waiting.length === 0) return undefined;
    return Math.min(...waiting.map(({ since }) => since)) + OUTER_PATIENCE_MS;
  }

  /** Ends all that an owner has. */
  end(owner: MappingId, now: Instant): void {
    for (const managed of this.of(owner)) {
      if (managed.phase !== "revoking") this.#host.end(managed, now);
    }
  }

  /** An owner is no more; what it had is over, or about to be. */
  forget(owner: MappingId): void {
    const owned = this.#owned.get(owner);
    if (!owned) return;
    owned.isForgotten = true;
    if (owned.outers.length === 0) this.#owned.delete(owner);
  }

  /** A way beyond another gateway that nothing here needs is left. */
  leaveUnused(path: Path, now: Instant): void {
    const isUsed = [...this.#owned.values()].some(({ outers }) =>
      outers.some((one) => one.path === path)
    );
    if (!isUsed) this.#host.leave(path, now);
  }

  /**
   * Whether an endpoint of the gateway below is mapped on already, for another wish: it has given to this
   * one what it gave to that before, and has not said so yet.
   */
  #isMapped(protocol: Transport, gateway: Endpoint, to: Endpoint): boolean {
    return [...this.#owned.values()].some(({ outers }) =>
      outers.some(({ managed, ...one }) =>
        managed.phase !== "revoking" && managed.request.protocol === protocol &&
        isSameEndpoint(one.path.gateway, gateway) && isSameEndpoint(one.to, to)
      )
    );
  }

  #giveUp({ vain }: Owned, { managed, path, to }: Outer, now: Instant): void {
    vain.add(outerKey(path.gateway, to));
    this.#host.end(managed, now);
  }

  #find(managed: ManagedMapping): { owned: Owned; outer: Outer } | undefined {
    const owned = this.#owned.get(managed.partOf ?? -1);
    const outer = owned?.outers.find((one) => one.managed === managed);
    return owned && outer && { owned, outer };
  }

  #drop(owned: Owned, outer: Outer, now: Instant): void {
    owned.outers = owned.outers.filter((one) => one !== outer);
    if (owned.isForgotten && owned.outers.length === 0) this.#owned.delete(outer.managed.partOf!);
    this.leaveUnused(outer.path, now);
  }
}

/** Where a mapping is held, if that is an address behind another NAT that may be asked. */
export function nestedAt({ granted, phase }: ManagedMapping): Endpoint | undefined {
  if (phase !== "held" || !granted) return undefined;
  const { external } = granted;
  return familyOf(external.address) === 4 && isPrivate(external.address) ? external : undefined;
}

function newOwned(): Owned {
  return { outers: [], isForgotten: false, vain: new Set(), there: new Set() };
}

/** Whether nobody may be there: a gateway that has granted before comes back, as any other does. */
function isOnTrial({ there }: Owned, { managed, path }: Outer): boolean {
  return isAsked(managed) && !there.has(path.gateway.address);
}

/** Whether a mapping is asked for, and was never granted. */
export function isAsked({ granted, phase }: ManagedMapping): boolean {
  return !granted && phase === "racing";
}

/** The wish as the gateway above is asked it: for whom it is a mapping of the inner one's. */
function outerRequest(
  { suggestedExternal: named, thirdParty, nonce: _nonce, mode: _mode, ...request }: PortRequest,
  below: Endpoint,
  gateway: Endpoint,
  to: Endpoint,
): PortRequest {
  const port = named?.port || to.port;
  const inner = {
    gateway: below.address,
    address: to.address,
    internalPort: request.internalPort,
    ...(thirdParty !== undefined && { thirdParty }),
  };
  return { ...request, gateway, internalPort: to.port, suggestedExternal: { port }, inner };
}

function outerKey(gateway: Endpoint, to: Endpoint): string {
  return `${gateway.address} ${to.address} ${to.port}`;
}

/**
 * Where a gateway mostly is in whose network an address is: at the first host of its /24, or at the
 * last.
 */
function outerGateways(address: string): Endpoint[] {
  const network = address.slice(0, address.lastIndexOf("."));
  return ["1", "254"].map((host) => `${network}.${host}`).filter((one) => one !== address)
    .map((one) => ({ address: one, port: PCP_PORT }));
}
