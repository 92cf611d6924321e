/**
 * `natkit unmap`: deletes mappings that earlier runs made, or all of them.
 *
 * What the state file knows is deleted by the protocol and at the gateway that made it. Where it
 * knows nothing, every protocol is asked at the gateway of this host.
 *
 * @module
 */
import { dropUndefined, pickDefined } from "../../../core/defined.ts";
import { NatError } from "../../../core/errors.ts";
import { formatEndpoint } from "../../../core/ip.ts";
import { savedKey, wantedKey } from "../../../core/lease/saved.ts";
import type { Transport } from "../../../core/mapping.ts";
import { gatewayText } from "../../../core/portmap/gateway.ts";
import type { Nat, UnmapResult } from "../../api/nat.ts";
import type { WaitOptions } from "../../api/wait.ts";
import { interfacesOrNone } from "../../discovery/system_view.ts";
import type { Context } from "../command.ts";
import { checkFlags } from "../flags.ts";
import { openNat } from "../open_nat.ts";
import { CommandError } from "../output.ts";
import { type Entry, entryKey, gatewayOf, isClaim, isReachedBy } from "../state_file.ts";
import { viaName } from "../text.ts";
import { type PortAndProtocol, UsageError } from "../values.ts";
import { heldByOthers, inUse } from "./earlier_runs.ts";
import { answerOf } from "./map.ts";
import { forEachPort, readPorts } from "./ports.ts";

/** Runs the command; answers the exit status. */
export async function run(context: Context): Promise<number> {
  const { flags, positionals } = context;
  const [text] = positionals;
  if (flags.all && text !== undefined) {
    throw new UsageError(`--all and PORT exclude each other: current value is "${text}"`);
  }
  if (!flags.all && text === undefined) throw new UsageError("natkit unmap needs PORT or --all");
  checkFlags(flags);
  const ports = readPorts(positionals);
  const entries = (await context.stateFile().load()).filter((entry) => isMeant(context, entry));
  if (flags.all) return await unmapAll(context, entries);
  return await forEachPort(context, ports, (one) => unmapOne(context, one, entries));
}

/** Whether an entry is of a mapping that the flags do not leave out. */
function isMeant({ flags }: Context, entry: Entry): boolean {
  const { gateway } = flags, own = flags["internal-address"];
  const { mapping, internalAddress } = entry;
  return mapping.remote === undefined &&
    (!gateway || isReachedBy(entry, gateway)) &&
    (own === undefined || mapping.thirdParty !== undefined || internalAddress === undefined ||
      internalAddress === own);
}

async function unmapOne(
  context: Context,
  { port, protocol }: PortAndProtocol,
  entries: readonly Entry[],
): Promise<number> {
  const key = savedKey({ protocol, internalPort: port });
  const own = entries.filter(({ mapping }) => wantedKey(mapping) === key);
  const isOpen = (entry: Entry) => entry.expiresAt > Date.now() && !isClaim(entry);
  // Who mapped the port for another host has no other word to close it by.
  const all = own.some(isOpen)
    ? own
    : entries.filter((entry) =>
      own.includes(entry) || isOpen(entry) && entry.mapping.thirdParty !== undefined &&
        entry.mapping.protocol === protocol && entry.mapping.internalPort === port
    );
  const known = all.filter((entry) => !isAbove(entry));
  const [held] = await heldByOthers(known);
  if (held) throw inUse(held);
  const open = known.filter(isOpen);
  if (open.length > 0) {
    await forget(context, known.filter(isClaim));
    for (const entry of open) checkVia(context, entry);
    await allOf(removals(context, open, all.filter(isAbove)));
    return 0;
  }
  const nat = await openNat(
    context,
    all.filter((entry) => !isClaim(entry)).map(({ mapping }) => mapping),
  );
  try {
    const asking = nat.unmap(port, { protocol, ...waitOptions(context) });
    const results = await context.waitingFor(answerOf(nat, context.flags.via), asking);
    for (const result of results) tell(context, result, protocol, port);
    await forget(
      context,
      all.filter((entry) =>
        results.some(({ gateway }) => gateway === gatewayText(gatewayOf(entry)))
      ),
    );
    return 0;
  } finally {
    await nat.close();
  }
}

/** Throws where another protocol than those of `--via` made it: asking these would delete nothing. */
function checkVia({ flags }: Context, { mapping }: Entry): void {
  if (!flags.via || flags.via.includes(mapping.via)) return;
  throw new CommandError(
    "other-protocol",
    `Port ${mapping.internalPort}/${mapping.protocol} was mapped by ${viaName(mapping.via)} at ` +
      `${mapping.gateway}, which is not in --via "${flags.via}": it stays open`,
  );
}

async function unmapAll(context: Context, entries: readonly Entry[]): Promise<number> {
  const { via } = context.flags;
  const held = await heldByOthers(entries);
  const ours = entries.filter((entry) =>
    !held.includes(entry) && !isClaim(entry) && (via?.includes(entry.mapping.via) ?? true)
  );
  await forget(context, entries.filter((entry) => isClaim(entry) && !held.includes(entry)));
  const above = ours.filter(isAbove), below = ours.filter((entry) => !isAbove(entry));
  const known = allOf(removals(context, [...below, ...unknownBelow(above, below)], above));
  const others = via?.includes("nat-pmp") ?? true ? sweep(context, held) : Promise.resolve(0);
  const [removed, swept] = await Promise.allSettled([known, others]);
  if (removed.status === "rejected") throw removed.reason;
  if (held[0]) throw inUse(held[0]);
  // A gateway that does not speak NAT-PMP holds nothing that only NAT-PMP could delete.
  if (swept.status === "rejected" && removed.value === 0) throw swept.reason;
  const count = removed.value + (swept.status === "fulfilled" ? swept.value : 0);
  if (count === 0) context.output.progress("There is nothing to unmap.");
  return 0;
}

/**
 * Deletes all NAT-PMP mappings of this host, whoever made them; answers how many confirmations came.
 * Not those of a transport protocol of which a run that lives holds one: it would lose that.
 */
async function sweep(context: Context, held: readonly Entry[]): Promise<number> {
  const nat = await openNat(context, [], { protocols: ["nat-pmp"] });
  try {
    const free = (["tcp", "udp"] as const).filter((protocol) =>
      !held.some((entry) =>
        entry.mapping.protocol === protocol && nat.gateways.includes(gatewayText(gatewayOf(entry)))
      )
    );
    return await allOf(free.map(async (protocol) => {
      const asking = nat.unmapAll(protocol, waitOptions(context));
      const results = await context.waitingFor(answerOf(nat, ["nat-pmp"]), asking);
      for (const result of results) tell(context, result, protocol);
      return results.length;
    }));
  } finally {
    await nat.close();
  }
}

/**
 * Deletes what the entries stand for, each as it was made; answers how many confirmations came.
 *
 * @param above Of gateways above those, which are asked through them.
 */
function removals(
  context: Context,
  entries: readonly Entry[],
  above: readonly Entry[],
): Promise<number>[] {
  const own = new Set(interfacesOrNone(context.runtime).map(({ address }) => address));
  const groups = new Map<string, Entry[]>();
  for (const entry of entries) {
    const key = `${formatEndpoint(gatewayOf(entry))} ${entry.mapping.via} ${entry.internalAddress}`;
    groups.set(key, [...groups.get(key) ?? [], entry]);
  }
  return [...groups.values()].map(async (group) => {
    const { mapping, internalAddress } = group[0]!;
    const outer = above.filter((one) => one.mapping.inner?.gateway === mapping.gateway);
    const nat = await openNat(context, [...group, ...outer].map(({ mapping }) => mapping), {
      gateway: gatewayOf(group[0]!),
      protocols: [...new Set([...group, ...outer].map(({ mapping }) => mapping.via))],
      // An address that this host has lost cannot be sent from, and what was mapped to it ends.
      ...(internalAddress !== undefined && own.has(internalAddress) ? { internalAddress } : {}),
    });
    try {
      return await allOf(group.map((entry) => {
        const key = savedKey(entry.mapping);
        return remove(context, nat, entry, outer.filter((one) => wantedKey(one.mapping) === key));
      }));
    } finally {
      await nat.close();
    }
  });
}

/** What gateways above map on that is not among what is known: those are asked through it. */
function unknownBelow(above: readonly Entry[], known: readonly Entry[]): Entry[] {
  return above.flatMap(({ mapping, expiresAt }) => {
    const { inner, protocol, via, mode, lifetimeSeconds, internalPort: port } = mapping;
    const { address, ...below } = inner!;
    const isKnown = known.some((one) =>
      one.mapping.gateway === below.gateway && savedKey(one.mapping) === wantedKey(mapping)
    );
    const external = { address, port };
    const unknown = { protocol, via, mode, lifetimeSeconds, external, ...below };
    return isKnown ? [] : { mapping: unknown, expiresAt };
  });
}

/** Whether it is of a gateway above another one. */
function isAbove({ mapping }: Entry): boolean {
  return mapping.inner !== undefined;
}

async function remove(
  context: Context,
  nat: Nat,
  entry: Entry,
  above: readonly Entry[],
): Promise<number> {
  const { internalPort, protocol } = entry.mapping;
  const asking = nat.unmap(internalPort, {
    protocol,
    ...pickDefined(entry.mapping, "thirdParty"),
    ...waitOptions(context),
  });
  const results = await context.waitingFor(answerOf(nat, [entry.mapping.via]), asking).catch(
    (error) => {
      // A run that was killed asked for it; whether it ever was, nobody knows.
      if (entry.mapping.external || !(error instanceof NatError)) throw error;
      return [];
    },
  );
  for (const result of results) tell(context, result, protocol, internalPort);
  const confirmed = results.map(({ gateway }) => gateway);
  await forget(context, [
    entry,
    ...above.filter((one) => confirmed.includes(gatewayText(gatewayOf(one)))),
  ]);
  return results.length;
}

/** The sum of what they come to, once all have; what failed first is thrown then. */
async function allOf(jobs: readonly Promise<number>[]): Promise<number> {
  let sum = 0;
  const outcomes = await Promise.allSettled(jobs);
  for (const outcome of outcomes) {
    if (outcome.status === "rejected") throw outcome.reason;
    sum += outcome.value;
  }
  return sum;
}

async function forget(context: Context, gone: readonly Entry[]): Promise<void> {
  const keys = new Set(gone.map(entryKey));
  await context.stateFile().forget((entry) => keys.has(entryKey(entry)));
}

function waitOptions({ timeoutMs, stop }: Context): WaitOptions {
  return { ...dropUndefined({ timeoutMs }), signal: stop };
}

function tell(
  context: Context,
  { via, gateway }: UnmapResult,
  protocol: Transport,
  port?: number,
): void {
  context.output.event({
    event: "unmapped",
    protocol,
    via,
    gateway,
    ...(port === undefined ? {} : { internal: { port } }),
    reason: "revoked",
    elapsedMs: context.elapsedMs(),
  });
}
