/**
 * What a command asks for and holds, in the state file: a nonce is there before the request with it
 * leaves, so that a run which is killed at any moment leaves what the next one needs.
 *
 * @module
 */
import { dropUndefined } from "../../../core/defined.ts";
import { parseEndpoint } from "../../../core/ip.ts";
import { savedKey, wantedKey } from "../../../core/lease/saved.ts";
import type { Endpoint } from "../../../core/machine.ts";
import type { MappingKey } from "../../../core/mapping.ts";
import { PCP_PORT } from "../../../core/pcp/constants.ts";
import type { GrantedMapping, SavedPort } from "../../../core/portmap/managed.ts";
import type { NatState } from "../../api/options.ts";
import type { Context } from "../command.ts";
import { ownProcess } from "../processes.ts";
import { type Entry, entryKey, gatewayOf, isClaim, type StateFile } from "../state_file.ts";
import type { Sought } from "./earlier_runs.ts";

/** What is said to be asked for is soon granted or given up. */
const CLAIM_SECONDS = 60;

/** Keeps the state file's entries of one wish, without holding up what is told. */
export class Keeper {
  /** Resolves where a run that lives turns out to hold the mapping, too. */
  readonly lost: Promise<void>;
  /** That run's entry. */
  other: Entry | undefined;
  readonly #state: StateFile;
  readonly #key: MappingKey;
  readonly #wanted: Sought;
  readonly #flagged: Endpoint | undefined;
  readonly #onLost: () => void;
  /** What stands in the file from this run, by the entries' keys. */
  readonly #kept: Map<string, Entry> = new Map();
  #last: NatState | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(context: Context, wanted: Sought) {
    this.#state = context.stateFile();
    this.#key = savedKey(wanted);
    this.#wanted = wanted;
    this.#flagged = context.flags.gateway;
    let onLost = () => {};
    this.lost = new Promise((resolve) => onLost = resolve);
    this.#onLost = onLost;
  }

  /** Keeps what is only asked for; what it returns waits until that is done. */
  readonly asked = (state: NatState): Promise<void> => {
    this.#last = state;
    const asked = this.#own(state).filter(({ external }) => external === undefined);
    return asked.some((one) => !this.#isKept(one)) ? this.#write(asked) : Promise.resolve();
  };

  /**
   * Says that this run is about to ask at these gateways.
   *
   * @param gateways As text that starts with the address.
   * @returns The entry of a run that lives and was first, if there is one.
   */
  async claim(gateways: readonly string[]): Promise<Entry | undefined> {
    const owner = await ownProcess();
    const { remote, thirdParty, ...wanted } = this.#wanted;
    for (const text of gateways) {
      const gateway = parseEndpoint(text, PCP_PORT);
      if (!gateway || this.other) continue;
      const mapping: SavedPort = {
        via: "pcp",
        gateway: gateway.address,
        lifetimeSeconds: CLAIM_SECONDS,
        mode: "once",
        ...wanted,
        ...dropUndefined({ remote, thirdParty }),
      };
      const entry = { mapping, expiresAt: Date.now() + 1000 * CLAIM_SECONDS, gateway, owner };
      this.#then(() => this.#keep(entry));
      await this.settled();
    }
    return this.other;
  }

  /**
   * Keeps all that is asked for and held at these gateways, and forgets what is nowhere any more;
   * likewise.
   *
   * @param gateways As text that starts with the address.
   */
  all(state: NatState, gateways: readonly string[]): Promise<void> {
    this.#last = state;
    const own = this.#own(state);
    const gone = [...this.#kept.values()].filter(({ mapping }) =>
      !own.some(({ gateway }) => gateway === mapping.gateway)
    );
    this.#forget(gone);
    const held = own.filter(({ gateway, inner }) =>
      gateways.some((text) => isAt(text, inner?.gateway ?? gateway))
    );
    return held.some((one) => !this.#isKept(one)) ? this.#write(held) : this.#writing;
  }

  /** Writes again what {@linkcode all} keeps: it has been renewed. */
  again(): Promise<void> {
    return this.#write([...this.#kept.values()].map(({ mapping }) => mapping));
  }

  /** @param isOwned Whether this process holds it from here on. */
  keep(
    { gateway, internal, lifetimeSeconds }: GrantedMapping,
    state: NatState,
    isOwned: boolean,
  ): void {
    this.#last = state;
    const expiresAt = Date.now() + 1000 * lifetimeSeconds;
    const own = this.#own(state);
    const gone = [...this.#kept.values()].filter(({ mapping }) =>
      mapping.inner && !own.some((one) => one.gateway === mapping.gateway)
    );
    this.#forget(gone);
    for (const mapping of own) {
      const { inner } = mapping;
      if ((inner?.gateway ?? mapping.gateway) !== gateway.address) continue;
      const entry = {
        mapping,
        expiresAt,
        gateway: { address: mapping.gateway, port: inner ? PCP_PORT : gateway.port },
        ...(!inner && { internalAddress: internal.address }),
      };
      this.#then(async () => {
        const owner = isOwned ? { owner: await ownProcess() } : {};
        await this.#keep({ ...entry, ...owner });
      });
    }
  }

  /** What the file holds of this run. */
  left(): Entry[] {
    return [...this.#kept.values()];
  }

  /** Waits until what is to be written is. */
  settled(): Promise<void> {
    return this.#writing;
  }

  /** Forgets what was asked for in vain, now that this run has taken it back. */
  async forgetAsked(): Promise<void> {
    this.#forget(
      [...this.#kept.values()].filter(({ mapping }) =>
        mapping.external === undefined ||
        !this.#last?.mappings.some(({ gateway, nonce }) =>
          gateway === mapping.gateway && nonce === mapping.nonce
        )
      ),
    );
    await this.settled();
  }

  /** Forgets everything. */
  async forget(): Promise<void> {
    this.#forget([...this.#kept.values()]);
    await this.settled();
  }

  #own({ mappings }: NatState): SavedPort[] {
    return mappings.filter((mapping) => wantedKey(mapping) === this.#key);
  }

  #isKept(mapping: SavedPort): boolean {
    const text = JSON.stringify(mapping);
    return [...this.#kept.values()].some((entry) => JSON.stringify(entry.mapping) === text);
  }

  #write(mappings: readonly SavedPort[]): Promise<void> {
    this.#then(async () => {
      const owner = await ownProcess();
      for (const mapping of mappings) {
        const expiresAt = Date.now() + 1000 * mapping.lifetimeSeconds;
        const flagged = this.#flagged?.address === mapping.gateway ? this.#flagged : undefined;
        const gateway = flagged ?? { address: mapping.gateway, port: PCP_PORT };
        await this.#keep({ mapping, expiresAt, gateway, owner });
      }
    });
    return this.#writing;
  }

  async #keep(entry: Entry): Promise<void> {
    // What was written before it was granted does not say for which address it is.
    const at = gatewayOf(entry).address;
    const older = [...this.#kept].flatMap(([key, one]) =>
      one.internalAddress === undefined &&
        (isClaim(one) ? entry.internalAddress !== undefined : gatewayOf(one).address === at)
        ? key
        : []
    );
    const { nonce } = entry.mapping;
    // One that a run wrote which was killed before the answer, and that this run has adopted.
    const isAdopted = (one: Entry) =>
      nonce !== undefined && one.mapping.nonce === nonce && one.internalAddress === undefined &&
      gatewayOf(one).address === at && savedKey(one.mapping) === this.#key;
    const other = await this.#state.keep(
      entry,
      (one) => older.includes(entryKey(one)) || isAdopted(one),
    );
    const claims = [...this.#kept].flatMap(([key, one]) => isClaim(one) ? key : []);
    for (const key of older) this.#kept.delete(key);
    if (!other) {
      this.#kept.set(entryKey(entry), entry);
      return;
    }
    await this.#state.forget((one) => claims.includes(entryKey(one)));
    this.other = other;
    this.#onLost();
  }

  #forget(entries: readonly Entry[]): void {
    if (entries.length === 0) return;
    const keys = entries.map(entryKey);
    this.#then(async () => {
      for (const key of keys) this.#kept.delete(key);
      await this.#state.forget((entry) => keys.includes(entryKey(entry)));
    });
  }

  #then(step: () => Promise<void>): void {
    this.#writing = this.#writing.then(() => this.other ? undefined : step());
  }
}

/** Whether a gateway's text is that of an address. */
function isAt(text: string, address: string): boolean {
  return text === address || text.startsWith(`${address}:`) || text.startsWith(`${address} `);
}
