/**
 * The reference model of one client: what the application wants, what it was told, and what the
 * gateway really confirmed on the wire. It breaks off at the first event that contradicts.
 *
 * Per wished mapping:
 *
 *   nothing told → mapped → held ⇄ lost → … → over
 *   held: renewed (same endpoint), moved (another endpoint); lost: recovered
 *
 * and whatever endpoint is told must have come in a success answer from the gateway before.
 *
 * @module
 */
import { toHex } from "../../core/bytes.ts";
import type { Endpoint, Instant } from "../../core/machine.ts";
import { PROTOCOL_NUMBER, type Transport } from "../../core/mapping.ts";
import * as natPmp from "../../core/natpmp/codec.ts";
import * as pcp from "../../core/pcp/codec.ts";
import { SimulationError } from "../../core/sim/mod.ts";

/** An external endpoint as a client tells it; NAT-PMP may not know the address. */
export interface External {
  address: string | undefined;
  readonly port: number;
}

/** The events of all clients in one form. */
export type SubjectEvent =
  | {
    readonly type: "mapped" | "renewed" | "moved" | "recovered";
    readonly id: number;
    readonly external: External;
  }
  | { readonly type: "failed" | "lost" | "unmapped"; readonly id: number }
  | { readonly type: "gateway-restarted" }
  | { readonly type: "external-address"; readonly address: string };

/** A mapping that the application wants. */
export interface Wish {
  readonly protocol: Transport;
  readonly internalPort: number;
  readonly suggestedPort: number;
  readonly lifetimeSeconds: number;
  /** The client's id for it while it has one. */
  id: number | undefined;
  /** What the application was told. */
  told: "nothing" | "held" | "lost" | "over";
  /** The endpoint told last. */
  external: External | undefined;
  /** Whether the application has taken it back. */
  isRevoked: boolean;
}

/** The model of one client. */
export class ClientModel {
  readonly name: string;
  readonly wishes: Wish[] = [];
  readonly counts: Record<string, number> = {};
  readonly #gateway: string;
  readonly #byId = new Map<number, Wish>();
  readonly #confirmed = new Set<string>();
  readonly #addresses = new Set<string>();
  readonly #nonces = new Set<string>();

  constructor(name: string, gateway: string) {
    this.name = name;
    this.#gateway = gateway;
  }

  /** The application wants a mapping. */
  want(wish: Omit<Wish, "id" | "told" | "external" | "isRevoked">): Wish {
    const made: Wish = {
      ...wish,
      id: undefined,
      told: "nothing",
      external: undefined,
      isRevoked: false,
    };
    this.wishes.push(made);
    return made;
  }

  /** The client knows the wish by this id. */
  named(wish: Wish, id: number): void {
    wish.id = id;
    if (wish.told === "over") wish.told = "nothing";
    this.#byId.set(id, wish);
  }

  /** The client is a new one (restart): ids start over, what was told counts no more. */
  restarted(): void {
    this.#byId.clear();
    for (const wish of this.wishes) {
      wish.id = undefined;
      wish.told = "nothing";
      wish.external = undefined;
    }
  }

  /** The wishes that hold. */
  wanted(): Wish[] {
    return this.wishes.filter(({ isRevoked }) => !isRevoked);
  }

  /** A request leaves. */
  sends(data: Uint8Array): void {
    if (data[0] === 2 && data.length >= 36) this.#nonces.add(toHex(data.subarray(24, 36)));
  }

  /** A datagram reaches the client. */
  receives(data: Uint8Array, from: Endpoint): void {
    if (from.address !== this.#gateway) return;
    if (data[0] === 2) this.#confirmPcp(data);
    else this.#confirmNatPmp(data);
  }

  /** The client tells something; throws where it must not. */
  tells(event: SubjectEvent, now: Instant): void {
    this.counts[event.type] = (this.counts[event.type] ?? 0) + 1;
    if (event.type === "gateway-restarted") return;
    if (event.type === "external-address") {
      this.#require(this.#addresses.has(event.address), event, now, "nobody confirmed the address");
      // What was told of a mapping before is complete by this.
      for (const { external } of this.wishes) if (external) external.address ??= event.address;
      return;
    }
    const wish = this.#byId.get(event.id);
    if (!wish) {
      this.#require(false, event, now, "nobody knows this id");
      return;
    }
    const { told } = wish;
    switch (event.type) {
      case "mapped":
        this.#require(told === "nothing", event, now, `after ${told}`);
        break;
      case "renewed":
        this.#require(told === "held", event, now, `after ${told}`);
        this.#require(isSame(wish.external!, event.external), event, now, "it moved");
        break;
      case "moved":
        this.#require(told === "held", event, now, `after ${told}`);
        this.#require(!isSame(wish.external!, event.external), event, now, "it did not move");
        break;
      case "recovered":
        this.#require(told === "lost", event, now, `after ${told}`);
        break;
      case "lost":
        this.#require(told === "held", event, now, `after ${told}`);
        wish.told = "lost";
        return;
      case "failed":
        this.#require(told === "nothing" || told === "lost", event, now, `after ${told}`);
        return;
      case "unmapped":
        this.#require(told !== "over", event, now, "twice");
        this.#require(wish.isRevoked, event, now, "nobody wished it");
        this.#byId.delete(event.id);
        wish.told = "over";
        return;
    }
    this.#require(this.#isConfirmed(wish, event.external), event, now, "nobody confirmed it");
    wish.told = "held";
    wish.external = { ...event.external };
  }

  /** What the client's own list says of a wish must be what it has told of it. */
  compare(wish: Wish, external: External | undefined, now: Instant): void {
    if (wish.told === "held" && external && !isSame(wish.external!, external)) {
      this.#breach(`has ${show(external)} and told ${show(wish.external!)} at ${now}`);
    }
    if (wish.told !== "held" && external) {
      this.#breach(`has ${show(external)} and told nothing of it at ${now} (${wish.told})`);
    }
  }

  #isConfirmed(wish: Wish, external: External): boolean {
    const port = `${wish.protocol} ${wish.internalPort} ${external.port}`;
    if (this.#confirmed.has(`${port} ${external.address}`)) return true;
    const isAddressKnown = external.address === undefined || this.#addresses.has(external.address);
    return this.#confirmed.has(port) && isAddressKnown;
  }

  #confirmNatPmp(data: Uint8Array): void {
    const response = natPmp.decodeResponse(data);
    if (typeof response === "string" || response.kind === "unsupported-version") return;
    if (response.resultCode !== 0) return;
    if (response.kind === "address" && response.externalAddress !== undefined) {
      this.#addresses.add(response.externalAddress);
    } else if (response.kind === "map" && response.lifetimeSeconds > 0) {
      const { protocol, internalPort, externalPort } = response;
      this.#confirmed.add(`${protocol} ${internalPort} ${externalPort}`);
    }
  }

  #confirmPcp(data: Uint8Array): void {
    const response = pcp.decodeResponse(data);
    if (typeof response === "string" || response.kind !== "map") return;
    if (response.resultCode !== 0 || response.lifetimeSeconds === 0) return;
    if (!this.#nonces.has(toHex(response.nonce))) return;
    const protocol = response.protocol === PROTOCOL_NUMBER.tcp ? "tcp" : "udp";
    const { internalPort, externalPort, externalAddress } = response;
    this.#confirmed.add(`${protocol} ${internalPort} ${externalPort} ${externalAddress}`);
  }

  #require(holds: boolean, event: SubjectEvent, now: Instant, why: string): void {
    if (!holds) this.#breach(`tells ${JSON.stringify(event)} at ${now}: ${why}`);
  }

  #breach(what: string): never {
    throw new SimulationError(`${this.name} ${what}`);
  }
}

/** Whether two endpoints are one; an address not known yet is no difference. */
export function isSame(a: External, b: External): boolean {
  if (a.port !== b.port) return false;
  return a.address === b.address || a.address === undefined || b.address === undefined;
}

function show(external: External): string {
  return `${external.address ?? "?"}:${external.port}`;
}
