/**
 * What the state file says of the mappings that are wanted: those of runs that ended are adopted or
 * deleted, those of a run that lives are its own.
 *
 * @module
 */
import { dropUndefined } from "../../../core/defined.ts";
import { NatError } from "../../../core/errors.ts";
import { gatewayText } from "../../../core/portmap/gateway.ts";
import { savedKey } from "../../../core/lease/saved.ts";
import type { SavedPort } from "../../../core/portmap/managed.ts";
import type { Nat } from "../../api/nat.ts";
import type { NatOptions } from "../../api/options.ts";
import { interfacesOrNone } from "../../discovery/system_view.ts";
import type { Context } from "../command.ts";
import { CommandError } from "../output.ts";
import { openNat } from "../open_nat.ts";
import { type Entry, gatewayOf, isClaim, isHeldByAnother, isReachedBy } from "../state_file.ts";

/** What names a mapping beside its gateway. */
export type Sought = Pick<SavedPort, "protocol" | "internalPort" | "remote" | "thirdParty">;

/** The gateway, open for mappings. */
export interface OpenToMap {
  readonly nat: Nat;
  /** What a run that lives holds of a wish: two runs would delete it for each other. */
  heldBy(wanted: Sought): Promise<Entry | undefined>;
}

/**
 * Opens the gateway for mappings: those of earlier runs are adopted.
 *
 * @param options `onState` keeps what a later run needs, before a request leaves.
 */
export async function openToMap(
  context: Context,
  wanted: readonly Sought[],
  options: Required<Pick<NatOptions, "onState">>,
): Promise<OpenToMap> {
  const entries = await context.stateFile().load();
  const keys = wanted.map(savedKey);
  const isSame = ({ mapping }: Entry) => keys.includes(savedKey(mapping));
  const held = await heldByOthers(entries.filter(isSame));
  const nat = await openNat(context, adoptable(context, entries, held), options);
  // Read again, once: one that was started in the same moment may have been quicker.
  let later: Promise<Entry[]> | undefined;
  return {
    nat,
    async heldBy(one) {
      const same = (await (later ??= context.stateFile().load())).filter((entry) =>
        savedKey(entry.mapping) === savedKey(one) && isForUs(context, entry) &&
        nat.gateways.includes(gatewayText(gatewayOf(entry)))
      );
      return (await heldByOthers(same))[0];
    },
  };
}

/**
 * Opens it for one mapping.
 *
 * @throws {CommandError} `in-use`, where a run that lives holds it.
 */
export async function openToMapOne(
  context: Context,
  wanted: Sought,
  onState: NonNullable<NatOptions["onState"]>,
): Promise<Nat> {
  const { nat, heldBy } = await openToMap(context, [wanted], { onState });
  try {
    const held = await heldBy(wanted);
    if (!held) return nat;
    throw inUse(held);
  } catch (error) {
    await nat.close();
    throw error;
  }
}

/**
 * What a failed request means to someone at a command line: PCP lets nobody have a mapping of whom
 * it does not know the nonce, also not the program that made it and crashed.
 */
export async function withRemedy(
  error: unknown,
  context: Context,
  wanted: Sought,
): Promise<unknown> {
  if (!(error instanceof NatError) || error.code !== "refused") return error;
  const refused = error.attempts.filter(({ via, outcome }) =>
    via === "pcp" && outcome === "NOT_AUTHORIZED"
  );
  if (refused.length === 0) return error;
  const state = context.stateFile();
  const isKnown = (await state.load()).some((entry) =>
    savedKey(entry.mapping) === savedKey(wanted) && entry.mapping.via === "pcp" &&
    refused.some(({ gateway }) => gateway === gatewayText(gatewayOf(entry)))
  );
  if (isKnown) return error;
  const { code, message, attempts, retryAfterSeconds } = error;
  const where = state.path === undefined ? "no state file" : `not in ${state.path}`;
  return new NatError(
    code,
    `${message}. If an earlier run mapped it, only that run's state lets it be had again ` +
      `(${where}; --state FILE names another one); otherwise take another port, or --via nat-pmp ` +
      "where the gateway speaks that",
    { attempts, ...dropUndefined({ retryAfterSeconds }), cause: error },
  );
}

/** Those of the entries that other runs hold which live. */
export async function heldByOthers(entries: readonly Entry[]): Promise<Entry[]> {
  const answers = await Promise.all(entries.map(isHeldByAnother));
  return entries.filter((_, i) => answers[i]);
}

/** The error that says which process holds a mapping. */
export function inUse(entry: Entry): CommandError {
  const { protocol, internalPort } = entry.mapping;
  return new CommandError(
    "in-use",
    `Port ${internalPort}/${protocol} is held at ${
      gatewayText(gatewayOf(entry))
    } by a natkit that ` +
      `runs, process ${entry.owner?.pid}: end that one first`,
  );
}

/**
 * Whether the mapping is for the address that is wanted. Another address is another mapping: this
 * host's second one, or that of another host with which this one shares the file.
 */
function isForUs(context: Context, { mapping, internalAddress }: Entry): boolean {
  return internalAddress === undefined || mapping.thirdParty !== undefined ||
    ownAddresses(context).has(internalAddress);
}

/** The address that a flag names, or those of this host. */
function ownAddresses({ flags, runtime }: Context): Set<string> {
  const named = flags["internal-address"];
  return new Set(
    named === undefined ? interfacesOrNone(runtime).map(({ address }) => address) : [named],
  );
}

/**
 * The mappings to hand to the library. It knows a gateway by its address alone and one mapping of a
 * kind there; of several the one counts that was made for an address which this host still has.
 */
function adoptable(
  context: Context,
  entries: readonly Entry[],
  held: readonly Entry[],
): SavedPort[] {
  const { gateway } = context.flags;
  const own = ownAddresses(context);
  const found = new Map<string, Entry>();
  for (const entry of entries) {
    if (held.includes(entry) || isClaim(entry)) continue;
    const at = gatewayOf(entry);
    if (gateway && !isReachedBy(entry, gateway)) continue;
    const key = `${at.address} ${savedKey(entry.mapping)}`;
    const rival = found.get(key);
    if (!rival?.internalAddress || !own.has(rival.internalAddress)) found.set(key, entry);
  }
  return [...found.values()].map(({ mapping }) => mapping);
}
