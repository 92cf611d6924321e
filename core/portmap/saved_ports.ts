/**
 * What gateways may hold of earlier runs, and of this one where it was left to its end. Each gateway
 * has its own, and who asks there again needs its nonce.
 *
 * @module
 */
import { type Family, familyOf } from "../ip.ts";
import { savedKey } from "../lease/saved.ts";
import type { MappingKey } from "../mapping.ts";
import {
  askedToSaved,
  type ManagedMapping,
  type PortRequest,
  type SavedPort,
  toSaved,
} from "./managed.ts";

/** The saved mappings of one mapper. */
export class SavedPorts {
  readonly #byKey: Map<MappingKey, readonly SavedPort[]> = new Map();
  /** Those of them that gateways above others hold: for each removal all are looked through. */
  readonly #above: Set<SavedPort> = new Set();

  /** Takes one that an earlier run has left. */
  add(saved: SavedPort): void {
    const key = savedKey(saved);
    this.#byKey.set(key, [...this.#byKey.get(key) ?? [], saved]);
    if (saved.inner) this.#above.add(saved);
  }

  /** Keeps what a gateway holds, in place of what it held; one made for its address alone ends by itself. */
  keep(managed: ManagedMapping): void {
    const saved = managed.isForAddress ? undefined : toSaved(managed);
    if (!saved) return;
    this.forget(managed.key, [saved.gateway]);
    this.add(saved);
  }

  /** These gateways hold it no more. */
  forget(key: MappingKey, gateways: readonly string[]): void {
    const kept = this.#byKey.get(key)?.filter((saved) => {
      const isKept = !gateways.includes(saved.gateway);
      if (!isKept) this.#above.delete(saved);
      return isKept;
    });
    if (kept?.length) this.#byKey.set(key, kept);
    else this.#byKey.delete(key);
  }

  /** All of them. */
  all(): SavedPort[] {
    return [...this.#byKey.values()].flat();
  }

  /** Those under a key. */
  of(key: MappingKey): readonly SavedPort[] {
    return this.#byKey.get(key) ?? [];
  }

  /** Those under a key that a request may be about, which goes to gateways of this family. */
  ofRequest(key: MappingKey, family: Family, request: PortRequest): SavedPort[] {
    return this.of(key).filter((one) =>
      familyOf(one.gateway) === family && isAbove(one) === isAbove(request)
    );
  }

  /** Those that gateways above others hold. */
  above(): readonly SavedPort[] {
    return [...this.#above];
  }

  /** All, and what gateways hold, or may hold, of these. */
  with(wishes: Iterable<ManagedMapping>): SavedPort[] {
    const kept = new Map(this.all().map((saved) => [keyAtGateway(saved), saved]));
    for (const managed of wishes) {
      if (managed.isForAddress || managed.phase === "removing") continue;
      for (const asked of askedToSaved(managed)) {
        const key = keyAtGateway(asked);
        kept.set(key, { ...kept.get(key), ...asked });
      }
      const saved = toSaved(managed);
      if (saved) kept.set(keyAtGateway(saved), saved);
    }
    return [...kept.values()];
  }
}

/** Whether it is for a gateway above another one. */
export function isAbove({ inner }: Pick<PortRequest, "inner">): boolean {
  return inner !== undefined;
}

/** What makes two saved mappings the same one: each gateway has its own. */
function keyAtGateway(saved: SavedPort): string {
  return `${saved.gateway} ${savedKey(saved)}`;
}
