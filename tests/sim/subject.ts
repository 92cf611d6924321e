/**
 * The client machines behind one face, so that one script can drive and one model can judge them.
 *
 * @module
 */
import { pickDefined } from "../../core/defined.ts";
import type { Endpoint, Instant, Machine } from "../../core/machine.ts";
import { NatPmpClient } from "../../core/natpmp/client.ts";
import type { SavedState } from "../../core/lease/saved.ts";
import type { MappingRequest, Transport } from "../../core/mapping.ts";
import { PcpClient, type PcpMapping } from "../../core/pcp/client.ts";
import type { GrantedMapping, SavedPort } from "../../core/portmap/managed.ts";
import { PortMapper } from "../../core/portmap/mapper.ts";
import type { RandomSource } from "../../core/random.ts";
import type { External, SubjectEvent, Via, Wish } from "./wish.ts";

/** Which machine. */
export type SubjectKind = "nat-pmp" | "pcp" | "session";
/** All of them. */
export const SUBJECT_KINDS: readonly SubjectKind[] = ["nat-pmp", "pcp", "session"];

/** What a subject needs to be made. */
export interface SubjectOptions {
  readonly gateway: Endpoint;
  readonly localAddress: string;
  readonly random: RandomSource;
  /** What `save` of an earlier one gave. */
  readonly saved?: unknown;
}

/** A client machine behind the common face. */
export interface Subject {
  readonly machine: Machine<unknown>;
  /** Asks for a mapping, or claims the one that was saved. */
  map(wish: Wish, now: Instant): number;
  renew(id: number, now: Instant): void;
  revoke(id: number, now: Instant): void;
  /** Forgets a mapping; only where the client asks without end. */
  abandon?(id: number, now: Instant): void;
  close(now: Instant): void;
  askAddress(now: Instant): void;
  networkChanged(localAddress: string, now: Instant): void;
  /** What the client says it holds; undefined: nothing. */
  external(id: number): External | undefined;
  /** Whether the client still knows the id. */
  has(id: number): boolean;
  readonly isIdle: boolean;
  save(now: Instant): unknown;
  /** The common form of one of its events; undefined where the model need not know. */
  translate(event: unknown): SubjectEvent | undefined;
}

/** Makes a client. */
export function makeSubject(kind: SubjectKind, options: SubjectOptions): Subject {
  switch (kind) {
    case "nat-pmp":
      return new NatPmpSubject(options);
    case "pcp":
      return new PcpSubject(options);
    case "session":
      return new MapperSubject(options);
  }
}

class NatPmpSubject implements Subject {
  readonly machine: NatPmpClient;

  constructor({ gateway, random, saved }: SubjectOptions) {
    const state = saved as SavedState | undefined;
    this.machine = new NatPmpClient({ gateway, random, ...(state && { state }) });
  }

  map(wish: Wish, now: Instant): number {
    return this.machine.map({
      protocol: wish.protocol,
      internalPort: wish.internalPort,
      suggestedExternal: { port: wish.suggestedPort },
      lifetimeSeconds: wish.lifetimeSeconds,
      mode: wish.mode,
    }, now);
  }

  renew(id: number, now: Instant): void {
    this.machine.renew(id, undefined, now);
  }

  revoke(id: number, now: Instant): void {
    this.machine.revoke(id, now);
  }

  close(now: Instant): void {
    this.machine.close(now);
  }

  askAddress(now: Instant): void {
    this.machine.probe(now);
  }

  networkChanged(localAddress: string, now: Instant): void {
    this.machine.networkChanged(localAddress, now);
  }

  external(id: number): External | undefined {
    const mapping = this.machine.mapping(id);
    const isHeld = mapping?.state === "running" || mapping?.state === "updating";
    return isHeld ? { address: mapping.externalAddress, port: mapping.externalPort } : undefined;
  }

  has(id: number): boolean {
    return this.machine.mapping(id) !== undefined;
  }

  get isIdle(): boolean {
    return this.machine.isIdle;
  }

  save(now: Instant): unknown {
    return JSON.parse(JSON.stringify(this.machine.exportState(now)));
  }

  translate(event: unknown): SubjectEvent | undefined {
    const told = event as Parameters<typeof mappingEvent>[0] | { type: "external-address" };
    if (told.type === "external-address") return told as SubjectEvent;
    return mappingEvent(told as Parameters<typeof mappingEvent>[0], (mapping) => {
      const { externalAddress, externalPort } = mapping as {
        externalAddress?: string;
        externalPort: number;
      };
      return { external: { address: externalAddress, port: externalPort }, via: "nat-pmp" };
    });
  }
}

class PcpSubject implements Subject {
  readonly machine: PcpClient;

  constructor({ gateway, localAddress, random, saved }: SubjectOptions) {
    const state = saved as SavedState | undefined;
    this.machine = new PcpClient({
      servers: [gateway],
      localAddress,
      random,
      ...(state && { state }),
    });
  }

  map(wish: Wish, now: Instant): number {
    return this.machine.map(requestOf(wish), now);
  }

  renew(id: number, now: Instant): void {
    this.machine.renew(id, undefined, now);
  }

  revoke(id: number, now: Instant): void {
    this.machine.revoke(id, now);
  }

  close(now: Instant): void {
    this.machine.close(now);
  }

  /** PCP has no such question; it asks for an announcement. */
  askAddress(now: Instant): void {
    this.machine.probe(now);
  }

  networkChanged(localAddress: string, now: Instant): void {
    this.machine.networkChanged(localAddress, now);
  }

  external(id: number): External | undefined {
    const mapping = this.machine.mapping(id);
    const isHeld = mapping?.state === "running" || mapping?.state === "updating";
    return isHeld ? mapping.external : undefined;
  }

  has(id: number): boolean {
    return this.machine.mapping(id) !== undefined;
  }

  get isIdle(): boolean {
    return this.machine.isIdle;
  }

  save(now: Instant): unknown {
    return JSON.parse(JSON.stringify(this.machine.exportState(now)));
  }

  translate(event: unknown): SubjectEvent | undefined {
    return mappingEvent(
      event as Parameters<typeof mappingEvent>[0],
      (mapping) => ({ external: (mapping as PcpMapping).external!, via: "pcp" }),
    );
  }
}

class MapperSubject implements Subject {
  readonly machine: PortMapper;
  readonly #gateway: Endpoint;
  readonly #known = new Set<number>();

  constructor({ gateway, localAddress, random, saved }: SubjectOptions) {
    this.#gateway = gateway;
    this.machine = new PortMapper({
      random,
      protocols: ["pcp", "nat-pmp"],
      ...(saved !== undefined && { saved: saved as readonly SavedPort[] }),
    });
    this.#move(localAddress, 0);
  }

  #move(localAddress: string, now: Instant): void {
    this.machine.networkChanged([{ gateway: this.#gateway, localAddress }], now);
  }

  map(wish: Wish, now: Instant): number {
    const id = this.machine.map(requestOf(wish), now);
    this.#known.add(id);
    return id;
  }

  renew(id: number, now: Instant): void {
    this.machine.renew(id, undefined, now);
  }

  revoke(id: number, now: Instant): void {
    this.machine.revoke(id, now);
  }

  abandon(id: number, now: Instant): void {
    this.machine.abandon(id, now);
    this.#known.delete(id);
  }

  close(now: Instant): void {
    this.machine.close(now);
  }

  askAddress(now: Instant): void {
    this.machine.askAddresses(undefined, now);
  }

  networkChanged(localAddress: string, now: Instant): void {
    this.#move(localAddress, now);
  }

  external(id: number): External | undefined {
    return this.machine.mapping(id)?.external;
  }

  /** A mapper that has told `failed` or `unmapped` knows the id no more. */
  has(id: number): boolean {
    return this.#known.has(id);
  }

  get isIdle(): boolean {
    return this.machine.isIdle;
  }

  save(_now: Instant): unknown {
    return JSON.parse(JSON.stringify(this.machine.exportSaved()));
  }

  translate(event: unknown): SubjectEvent | undefined {
    const told = event as { type: string; id: number; via?: string };
    if (told.type === "external-address") {
      // What PCP tells it with is a mapping of its own, which the model has no wish for.
      return told.via === "nat-pmp" ? event as SubjectEvent : undefined;
    }
    if (told.type === "failed" || told.type === "unmapped") this.#known.delete(told.id);
    return mappingEvent(told, (mapping) => mapping as GrantedMapping & { via: Via });
  }
}

/** The wish as a request. */
function requestOf(wish: Wish): MappingRequest & { readonly protocol: Transport } {
  return {
    protocol: wish.protocol,
    internalPort: wish.internalPort,
    ...(wish.suggestedPort !== 0 && { suggestedExternal: { port: wish.suggestedPort } }),
    ...pickDefined(wish, "lifetimeSeconds", "mode", "thirdParty", "remote", "filters"),
    ...pickDefined(wish, "preferFailure"),
    ...(wish.portSetSize !== undefined && { portSet: { size: wish.portSetSize } }),
  };
}

function mappingEvent(
  event: { type: string; id?: number; mapping?: unknown; failure?: { kind: string } },
  grantOf: (mapping: unknown) => { readonly external: External; readonly via: Via },
): SubjectEvent | undefined {
  switch (event.type) {
    case "mapped":
    case "renewed":
    case "moved":
    case "recovered": {
      const { external, via } = grantOf(event.mapping);
      return { type: event.type, id: event.id!, external, via };
    }
    case "failed":
    case "lost":
    case "unmapped":
      return { type: event.type, id: event.id!, isRefused: event.failure?.kind === "refused" };
    case "gateway-restarted":
      return { type: event.type };
    default:
      return undefined;
  }
}
