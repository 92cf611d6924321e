/**
 * The change listener: one port, asked for at every gateway of this host, and the set of all the
 * addresses by which it can be reached.
 *
 * A watch has a part for each gateway in use, which is a managed mapping like any other, but that
 * it never fails: where nobody maps it rests and is tried again. With what they hold, and the local
 * addresses, goes the set. It is told whole, at once when the watch begins and then at each change:
 * what is new within a tenth of a second, so that two gateways that answer together make one change;
 * what is gone after a second, so that a restarted gateway that gives the same back makes none.
 *
 * Where a gateway's external address is a private one, another NAT stands above it. That one is
 * mostly the first or the last host of its network, and can be asked through the inner one: it is to
 * send to the inner one's external endpoint. What it gives belongs to the set. A host that is silent,
 * or refuses, is not asked again while nothing changes.
 *
 * @module
 */
import type { Attempt } from "../errors.ts";
import { isPrivate } from "../cidr.ts";
import { type Family, familyOf, isSameEndpoint } from "../ip.ts";
import { savedKey } from "../lease/saved.ts";
import type { Endpoint, Instant } from "../machine.ts";
import type { Failure, MappingId, MappingKey } from "../mapping.ts";
import { PCP_PORT } from "../pcp/constants.ts";
import type { Timers } from "../timers.ts";
import type {
  Assignment,
  ManagedMapping,
  MapperEvent,
  PortRequest,
  WatchRequest,
} from "./managed.ts";
import type { Path } from "./path.ts";

/** How long what is new may wait for more of its kind. */
const SETTLE_MS = 100;
/** How long what is gone may take to come back. */
const LOSS_MS = 1000;

/** How long a gateway above another one may take to answer. */
const OUTER_PATIENCE_MS = 15_000;

/** What watches need of the mapper. */
export interface WatchHost {
  /** When each watch is to be told. */
  readonly timers: Timers<MappingId>;
  /** The gateways in use, the best first. */
  paths(): readonly Path[];
  /** The way to a gateway that may stand above one whose external address this is. */
  pathBeyond(inner: Path, address: string, gateway: Endpoint): Path | undefined;
  /** Such a way is used no more. */
  leave(path: Path, now: Instant): void;
  /** Makes a part. */
  begin(watch: MappingId, request: PortRequest, now: Instant): ManagedMapping;
  /** Ends a part; {@linkcode Watches.partOver} follows. */
  end(part: ManagedMapping, now: Instant): void;
  /** Tells the application. */
  tell(event: MapperEvent, key: string): void;
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

interface Watch {
  readonly id: MappingId;
  readonly request: PortRequest;
  readonly boundTo: string | undefined;
  readonly key: MappingKey;
  /** At most one for each gateway in use, beside those that are ending. */
  parts: readonly ManagedMapping[];
  /** Mappings of what parts hold at gateways above theirs. */
  outers: readonly Outer[];
  /** Where that was asked for in vain, as texts. */
  vain: ReadonlySet<string>;
  /** What the application knows, in an order that says nothing. */
  told: ReadonlySet<string>;
  isClosing: boolean;
  attempts: readonly Attempt[];
  failure: Failure | undefined;
}

/** The watches of one mapper. */
export class Watches {
  readonly #host: WatchHost;
  readonly #open: Map<MappingId, Watch> = new Map();
  #localAddresses: readonly string[] = [];

  constructor(host: WatchHost) {
    this.#host = host;
  }

  /** How many there are. */
  get size(): number {
    return this.#open.size;
  }

  /** Whether this is the id of one. */
  owns(id: MappingId): boolean {
    return this.#open.has(id);
  }

  /** Whether a mapping of this key and family is a watch's. */
  has(key: MappingKey, family: Family): boolean {
    for (const watch of this.#open.values()) {
      if (watch.key === key && !watch.isClosing && isMeant(watch, family)) return true;
    }
    return false;
  }

  /** Begins one; the set as it stands is told at once. */
  open(id: MappingId, { boundTo, ...request }: WatchRequest, now: Instant): void {
    const watch: Watch = {
      id,
      request,
      boundTo,
      key: savedKey(request),
      parts: [],
      outers: [],
      vain: new Set(),
      told: new Set(),
      isClosing: false,
      attempts: [],
      failure: undefined,
    };
    this.#open.set(id, watch);
    this.#tell(watch);
    this.#join(watch, now);
  }

  /** The set as it stands; undefined where there is no such watch. */
  assignments(id: MappingId): readonly Assignment[] | undefined {
    const watch = this.#open.get(id);
    return watch && this.#setOf(watch);
  }

  /** These are this host's addresses for others. */
  localAddressesChanged(addresses: readonly string[], now: Instant): void {
    this.#localAddresses = addresses;
    for (const watch of this.#open.values()) this.#note(watch, now);
  }

  /** Other gateways are in use. */
  pathsChanged(now: Instant): void {
    for (const watch of [...this.#open.values()]) this.#join(watch, now);
  }

  /** Something happened to a part. */
  changed(id: MappingId, now: Instant): void {
    const watch = this.#open.get(id);
    if (!watch) return;
    this.#reachBeyond(watch, now);
    this.#note(watch, now);
  }

  /** Whether a part is for a gateway above another one. */
  isOuter(part: ManagedMapping): boolean {
    const outers = this.#open.get(part.partOf!)?.outers ?? [];
    return outers.some(({ managed }) => managed === part);
  }

  /** A gateway above another one is not there, or does not map. */
  outerFailed(part: ManagedMapping, now: Instant): void {
    const watch = this.#open.get(part.partOf!);
    const outer = watch?.outers.find(({ managed }) => managed === part);
    if (!watch || !outer) return;
    watch.vain = new Set([...watch.vain, outerKey(outer.path.gateway, outer.to)]);
    this.#dropOuter(watch, outer, now);
  }

  /** Gateways above others that have not answered for long are most likely not there. */
  giveUp(now: Instant): void {
    for (const watch of this.#open.values()) {
      for (const outer of watch.outers) {
        const { managed, path, to, since } = outer;
        const isVain = !managed.granted && managed.phase === "racing";
        if (!isVain || now - since < OUTER_PATIENCE_MS) continue;
        watch.vain = new Set([...watch.vain, outerKey(path.gateway, to)]);
        this.#host.end(managed, now);
      }
    }
  }

  /** A part has ended; `failure` says why its gateway may hold it all the same. */
  partOver(part: ManagedMapping, failure: Failure | undefined, now: Instant): void {
    const watch = this.#open.get(part.partOf!);
    if (!watch) return;
    watch.parts = watch.parts.filter((one) => one !== part);
    const outer = watch.outers.find(({ managed }) => managed === part);
    if (outer) this.#dropOuter(watch, outer, now);
    if (!watch.isClosing) return this.#note(watch, now);
    watch.attempts = [...watch.attempts, ...part.attempts];
    watch.failure ??= failure;
    this.#endIfDone(watch);
  }

  /** What is due for a watch. */
  due(id: MappingId): void {
    const watch = this.#open.get(id);
    if (watch) this.#tell(watch);
  }

  /** Ends one: what was made is deleted, then `unmapped` tells. */
  close(id: MappingId, now: Instant): void {
    const watch = this.#open.get(id);
    if (!watch || watch.isClosing) return;
    watch.isClosing = true;
    this.#host.timers.delete(id);
    for (const { managed } of watch.outers) this.#host.end(managed, now);
    for (const part of watch.parts) this.#host.end(part, now);
    this.#endIfDone(watch);
  }

  /** Ends all. */
  closeAll(now: Instant): void {
    for (const id of [...this.#open.keys()]) this.close(id, now);
  }

  #endIfDone(watch: Watch): void {
    const { id, isClosing, parts, outers, attempts, failure } = watch;
    const isDone = isClosing && parts.length === 0 && outers.length === 0;
    if (!isDone || !this.#open.delete(id)) return;
    const told = { reason: "revoked", attempts, ...(failure && { failure }) } as const;
    this.#host.tell({ type: "unmapped", id, ...told }, `watch ${id} over`);
  }

  /** A part for each gateway in use, and for no other. */
  #join(watch: Watch, now: Instant): void {
    if (watch.isClosing) return;
    const { gateway: only } = watch.request;
    const paths = this.#host.paths().filter(({ gateway }) =>
      only === undefined ? isMeant(watch, familyOf(gateway.address)) : isSameEndpoint(gateway, only)
    );
    const isAt = (part: ManagedMapping, { gateway }: Path) =>
      part.request.gateway === gateway && part.phase !== "revoking";
    for (const part of watch.parts) {
      const isUsed = paths.some((path) => isAt(part, path));
      if (!isUsed && part.phase !== "revoking") this.#host.end(part, now);
    }
    for (const path of paths) {
      if (watch.parts.some((part) => isAt(part, path))) continue;
      const request = { ...watch.request, gateway: path.gateway };
      watch.parts = [...watch.parts, this.#host.begin(watch.id, request, now)];
    }
    this.#reachBeyond(watch, now);
    this.#note(watch, now);
  }

  /** What parts hold at private addresses is mapped by the gateways above, and nothing else is. */
  #reachBeyond(watch: Watch, now: Instant): void {
    if (watch.isClosing) return;
    const held = watch.parts.flatMap((inner) => {
      const { holder, granted, isLost, phase } = inner;
      const isNested = holder && granted && !isLost && phase === "held" &&
        familyOf(granted.external.address) === 4 && isPrivate(granted.external.address);
      return isNested ? { inner, at: holder.speaker.path, to: granted.external } : [];
    });
    for (const outer of watch.outers) {
      const isWanted = held.some(({ inner, to }) =>
        inner === outer.inner && isSameEndpoint(to, outer.to)
      );
      if (!isWanted && outer.managed.phase !== "revoking") this.#host.end(outer.managed, now);
    }
    for (const { inner, at, to } of held) {
      for (const gateway of outerGateways(to.address)) {
        const isKnown = watch.outers.some((outer) =>
          outer.inner === inner && isSameEndpoint(outer.path.gateway, gateway) &&
          isSameEndpoint(outer.to, to)
        );
        if (isKnown || watch.vain.has(outerKey(gateway, to))) continue;
        const path = this.#host.pathBeyond(at, to.address, gateway);
        if (path) this.#beginOuter(watch, { inner, path, to, since: now }, now);
      }
    }
  }

  #beginOuter(watch: Watch, outer: Omit<Outer, "managed">, now: Instant): void {
    const { request: { suggestedExternal: named, ...request }, id } = watch;
    const { path: { gateway }, to } = outer;
    const port = named?.port || to.port;
    const managed = this.#host.begin(id, {
      ...request,
      gateway,
      internalPort: to.port,
      suggestedExternal: { port },
    }, now);
    watch.outers = [...watch.outers, { ...outer, managed }];
  }

  #dropOuter(watch: Watch, outer: Outer, now: Instant): void {
    watch.outers = watch.outers.filter((one) => one !== outer);
    const isUsed = [...this.#open.values()].some(({ outers }) =>
      outers.some(({ path }) => path === outer.path)
    );
    if (!isUsed) this.#host.leave(outer.path, now);
  }

  #setOf({ request, boundTo, parts, outers }: Watch): Assignment[] {
    const { protocol, internalPort, thirdParty } = request;
    const local = thirdParty !== undefined
      ? []
      : (boundTo === undefined ? this.#localAddresses : [boundTo]).map((address): Assignment => ({
        protocol,
        address,
        port: internalPort,
        via: "local",
        family: familyOf(address),
      }));
    const all = [...parts, ...outers.map(({ managed }) => managed)];
    const external = all.flatMap(({ granted, isLost, phase }): Assignment[] => {
      if (!granted || isLost || phase === "revoking") return [];
      const { external: { address, port }, via } = granted;
      return [{ protocol, address, port, via, family: familyOf(address) }];
    });
    return [
      ...local.filter(({ family }) => request.family === undefined || request.family === family),
      ...external,
    ];
  }

  /** The set may have changed: says when that is to be told. */
  #note(watch: Watch, now: Instant): void {
    const { id, told, isClosing } = watch;
    if (isClosing) return;
    const { timers } = this.#host;
    const set = new Set(this.#setOf(watch).map(keyOf));
    const hasNew = [...set].some((key) => !told.has(key));
    if (!hasNew && set.size === told.size) return timers.delete(id);
    const at = now + (hasNew ? SETTLE_MS : LOSS_MS);
    if ((timers.at(id) ?? Infinity) > at) timers.set(id, at, "assignments");
  }

  #tell(watch: Watch): void {
    const { id } = watch;
    const assignments = this.#setOf(watch);
    watch.told = new Set(assignments.map(keyOf));
    this.#host.tell({ type: "assignments", id, assignments }, `watch ${id}`);
  }
}

function isMeant({ request: { family, gateway } }: Watch, of: Family): boolean {
  if (gateway !== undefined) return familyOf(gateway.address) === of;
  return family === undefined || family === of;
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

function keyOf({ protocol, address, port, via }: Assignment): string {
  return `${protocol} ${address} ${port} ${via}`;
}
