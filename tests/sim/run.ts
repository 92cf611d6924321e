/**
 * One run of the simulation: at home (here) and, with every other seed, on a journey (`journey.ts`). At
 * home: draw, let fate strike, put right, wait, judge.
 *
 * The waits are derived, not tried out. *To be at rest* a client needs no more than the longest
 * of: a hold after a refusal (30 min), the end of a lease that the gateway no longer holds (7200 s,
 * found out by the renewal at 5/8 at the latest), the slowest retransmission (1024 s + 10 %), and
 * a lease's end for what nobody deleted. *After a reboot* that was announced: the announcement's
 * way, the random delay of up to 5 s, and one round trip a mapping, since NAT-PMP asks serially.
 *
 * @module
 */
import { PROTOCOL_NUMBER } from "../../core/mapping.ts";
import { SimulationError, type World } from "../../core/sim/mod.ts";
import { PROFILES } from "../../core/gateway/profiles.ts";
import { type Expectation, expectation } from "./gateway.ts";
import type { ClientHost } from "./client_host.ts";
import { Home } from "./home.ts";
import { runJourney } from "./journey.ts";
import { SUBJECT_KINDS } from "./subject.ts";
import { isPcpOnly, isSame, nameOf, show, type Via, type Wish } from "./wish.ts";
import {
  calm,
  drawSetting,
  freeAddress,
  pick,
  planTurns,
  planWishes,
  scriptRandom,
  type Setting,
  TURBULENCE_MS,
} from "./scenario.ts";

const SETTLE_MS = (7200 + 1800 + 1800) * 1000;
const RECREATION_MS = 5000;
const ROUND_TRIP_MS = 2;
const DELETION_MS = 5000;
const GIVING_UP_MS = 200_000;

/** What a run came to. */
export interface RunReport {
  readonly packets: number;
  readonly virtualHours: number;
  /** How often each event was told, over all clients. */
  readonly events: Readonly<Record<string, number>>;
  /** How long the first request after a loss of state waited. */
  readonly recreations: readonly { readonly via: Via; readonly delayMs: number }[];
}

/** How to run. */
export interface RunOptions {
  readonly traceSize?: number;
  /** Called with each world before it starts (for traces): at home, then on a journey. */
  readonly onWorld?: (world: World) => void;
}

/**
 * Runs a seed.
 *
 * @throws {SimulationError} Where something does not hold; the message says how to replay it and
 * ends with the trace.
 */
export function runSeed(seed: number, options: RunOptions = {}): RunReport {
  const home = runPart(runHome, seed, options);
  // A journey takes five times as long as a day at home.
  if (seed % 2 !== 0) return home;
  const journey = runPart(runJourney, seed, options);
  const events = { ...home.events };
  for (const [name, count] of Object.entries(journey.events)) {
    events[name] = (events[name] ?? 0) + count;
  }
  return {
    packets: home.packets + journey.packets,
    virtualHours: home.virtualHours + journey.virtualHours,
    events,
    recreations: home.recreations,
  };
}

function runPart<R>(
  part: (seed: number, options: RunOptions) => R,
  seed: number,
  options: RunOptions,
): R {
  try {
    return part(seed, options);
  } catch (error) {
    if (options.traceSize !== undefined) throw error;
    // The same again with a record of it: the run is the same to the last packet.
    let world: World | undefined;
    const message = error instanceof Error ? error.message : String(error);
    try {
      part(seed, { ...options, traceSize: 4000, onWorld: (made) => world = made });
    } catch {
      // It is the first error that counts.
    }
    throw new SimulationError(
      `Seed ${seed}: ${message}\n${world?.trace.text(120)}\nreplay: ${replayCommand(seed)}`,
    );
  }
}

/** The command that runs a seed again and shows its trace. */
export function replayCommand(seed: number): string {
  return `npx --yes deno@2.9.6 task sim --seed ${seed}`;
}

function runHome(seed: number, options: RunOptions): RunReport {
  const random = scriptRandom(seed);
  const setting = drawSetting(random);
  const home = new Home({
    seed,
    traceSize: options.traceSize ?? 0,
    link: setting.link,
    clockRate: setting.clockRate,
    profile: setting.profile,
    quota: setting.quota,
    addresses: setting.addresses,
  });
  const { world } = home;
  options.onWorld?.(world);
  world.note(
    `${setting.kinds.join(", ")}; profile ${setting.profile ?? "none"}; clock ${setting.clockRate}`,
  );
  setting.kinds.forEach((kind, i) => {
    const address = freeAddress(random, home);
    if (i === 0 && setting.isInner) home.addInnerClient(kind, address);
    else home.addClient(kind, address);
  });
  if (setting.hasNeighbour) home.addProgram(pick(random, SUBJECT_KINDS), home.clients[0]!);
  for (const client of home.clients) planWishes(random, home, client);
  planTurns(random, home, setting);
  world.runUntil(TURBULENCE_MS);
  calm(home);
  world.runFor(SETTLE_MS);
  judgeRest(home, setting, "at rest");
  judgeTraffic(home, setting);
  judgeReboot(home, setting);
  judgeEnd(home, setting);
  const events: Record<string, number> = {};
  for (const { model } of home.clients) {
    for (const [name, count] of Object.entries(model.counts)) {
      events[name] = (events[name] ?? 0) + count;
    }
  }
  return {
    packets: world.stats.packets,
    virtualHours: world.now / 3_600_000,
    events,
    recreations: home.clients.flatMap(({ model }) => model.watch.recreations),
  };
}

/** The clients' view is the gateway's table, and the applications know it. */
function judgeRest(home: Home, setting: Setting, when: string): void {
  const { table } = home.gateway;
  home.gateway.list(home.gatewayNow);
  const wanted = new Set<number>();
  for (const client of home.clients) {
    for (const wish of client.model.wanted()) {
      const expected = expectationOf(setting, client, wish);
      if (expected === "none") {
        if (wish.told === "held") fail(client, when, "holds what this gateway never grants");
        continue;
      }
      if (expected === "any" && wish.told !== "held") continue;
      // What is wanted for a time ends by the gateway's clock, which may be another one.
      if (wish.mode !== "keep-alive") continue;
      const what = nameOf(wish);
      if (wish.told !== "held") fail(client, when, `${what} is ${wish.told}`);
      // A NAT in between has made another port of it; an outbound mapping is the traffic's.
      if (client.isInner || wish.remote) continue;
      const owner = wish.thirdParty ?? client.address;
      const entry = table.inbound(PROTOCOL_NUMBER[wish.protocol], owner, wish.internalPort);
      if (!entry) fail(client, when, `${what} is told as held, the gateway has nothing`);
      const { address, port } = entry.external;
      const told = wish.external!;
      const base = expectation(setting.profile, client.kind, wish.suggestedPort);
      // NAT-PMP does not say on which of several addresses a mapping is.
      const isPortOnly = base === "port" || (setting.addresses > 1 && wish.via === "nat-pmp");
      const isTrue = isPortOnly ? told.port === port : isSame(told, { address, port });
      if (!isTrue) {
        fail(client, when, `${what} is told as ${show(told)}, is ${address}:${port}`);
      }
      wanted.add(entry.id);
      // Of a set the other ports are entries of their own.
      for (let i = 1; i < (wish.portSetSize ?? 1); i++) {
        const other = table.inbound(
          PROTOCOL_NUMBER[wish.protocol],
          owner,
          wish.internalPort + i,
        );
        if (other) wanted.add(other.id);
      }
    }
  }
  for (const client of home.clients) {
    const isNone = client.programs.some(({ kind }) =>
      expectation(setting.profile, kind) === "none"
    );
    if (client.isInner || isNone) continue;
    for (const entry of table.entriesOf(client.address)) {
      // What was wanted for a time ends by the gateway's clock, which may be slow.
      const wasForTime = home.clients.some(({ model }) =>
        model.wishes.some((wish) =>
          wish.mode !== "keep-alive" && wish.internalPort === entry.internal.port
        )
      );
      if (entry.kind === "explicit" && !wanted.has(entry.id) && !wasForTime) {
        fail(client, when, `the gateway holds ${entry.internal.port} that nobody wants`);
      }
    }
  }
}

/** What a client can come to for a wish: what is unusual may be refused for good. */
function expectationOf(setting: Setting, client: ClientHost, wish: Wish): Expectation {
  const expected = expectation(setting.profile, client.kind, wish.suggestedPort);
  const isUnusual = isPcpOnly(wish) || wish.mode !== "keep-alive" || client.isInner ||
    setting.quota !== undefined;
  if (!isUnusual) return expected;
  return "any";
}

/** What the peer on the Internet sends to an external endpoint arrives at the program. */
function judgeTraffic(home: Home, setting: Setting): void {
  let sent = 0, arrived = 0;
  for (const client of home.clients) {
    if (client.isInner) continue;
    for (const wish of client.model.wanted()) {
      if (wish.protocol !== "udp" || wish.told !== "held") continue;
      if (expectation(setting.profile, client.kind) !== "all") continue;
      // The peer may not be let in, and packets for others do not arrive here.
      const isOpen = wish.filters === undefined || wish.filters.length > 1 ||
        wish.filters[0]!.prefix.address === "198.51.100.0";
      const isHere = wish.thirdParty === undefined && wish.remote === undefined &&
        wish.mode === "keep-alive";
      if (!isHere || !isOpen || wish.external?.address === undefined) continue;
      // Only the first of several addresses leads to the gateway; NAT-PMP does not say which it is.
      if (setting.addresses > 1 && wish.via === "nat-pmp") continue;
      if (!home.nat.external.includes(wish.external.address)) continue;
      const socket = client.host.bind({ port: wish.internalPort });
      socket.onDatagram = () => arrived++;
      const { address, port } = wish.external;
      home.peer.send({ address, port }, new Uint8Array(1));
      home.world.runFor(1000);
      socket.close();
      sent++;
    }
  }
  if (arrived !== sent) throw new SimulationError(`${arrived} of ${sent} packets came through`);
}

/** After an announced reboot all is back within the bound. */
function judgeReboot(home: Home, setting: Setting): void {
  const { profile } = setting;
  const wishes = home.clients.map(({ model }) =>
    model.wanted().filter(({ told }) => told === "held").length
  );
  const restarts = home.clients.map(({ model }) => model.counts["gateway-restarted"] ?? 0);
  home.scenario("reboot");
  if (!isRebootHeard(profile)) {
    home.world.runFor(SETTLE_MS);
    return judgeRest(home, setting, "long after the reboot");
  }
  // One more round trip for the external address, one for the announcement.
  home.world.runFor(RECREATION_MS + ROUND_TRIP_MS * (Math.max(...wishes) + 2));
  judgeRest(home, setting, "within the bound after the reboot");
  home.clients.forEach((client, i) => {
    const expected = client.isInner ? "any" : expectation(profile, client.kind);
    if (wishes[i] === 0 || expected === "none" || expected === "any") return;
    if (client.model.counts["gateway-restarted"] === restarts[i]) {
      fail(client, "after the reboot", "did not tell of it");
    }
  });
}

/** All is deleted within round trips, and the clients come to rest. */
function judgeEnd(home: Home, { profile }: Setting): void {
  for (const client of home.clients) client.close();
  home.world.runFor(DELETION_MS);
  for (const client of home.clients) {
    const isNone = client.programs.some(({ kind }) => expectation(profile, kind) === "none");
    if (isNone || client.isInner) continue;
    const left = home.gateway.table.entriesOf(client.address);
    const mapped = left.filter(({ kind }) => kind === "explicit").length;
    if (mapped > 0) fail(client, "at the end", `${mapped} mappings are left`);
  }
  // What nobody answers is given up after a while.
  home.world.runFor(GIVING_UP_MS);
  for (const client of home.clients) {
    if (!client.subject.isIdle) fail(client, "at the end", "is not idle");
  }
}

/** Whether a reboot is announced by every protocol in which a client may hold mappings. */
function isRebootHeard(profile: string | undefined): boolean {
  const announcesStart = profile === undefined || PROFILES[profile]?.natPmp?.announcesStart;
  return announcesStart !== false;
}

function fail(client: ClientHost, when: string, what: string): never {
  throw new SimulationError(`${client.name} (${client.kind}) ${when}: ${what}`);
}
