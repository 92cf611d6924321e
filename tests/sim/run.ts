/**
 * One run of the simulation: draw, let fate strike, put right, wait, judge.
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
import { SimulationError } from "../../core/sim/mod.ts";
import { PROFILES } from "../../core/gateway/profiles.ts";
import { expectation } from "./gateway.ts";
import type { ClientHost, Sabotage } from "./client_host.ts";
import { Home } from "./home.ts";
import { isSame } from "./model.ts";
import {
  calm,
  drawSetting,
  freeAddress,
  planTurns,
  planWishes,
  scriptRandom,
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
}

/** How to run. */
export interface RunOptions {
  readonly traceSize?: number;
  readonly sabotage?: () => Sabotage;
  /** Called with the world's home before it starts (for traces). */
  readonly onHome?: (home: Home) => void;
}

/**
 * Runs a seed.
 *
 * @throws {SimulationError} Where something does not hold; the message says how to replay it and
 * ends with the trace.
 */
export function runSeed(seed: number, options: RunOptions = {}): RunReport {
  try {
    return run(seed, options);
  } catch (error) {
    if (options.traceSize !== undefined) throw error;
    // The same again with a record of it: the run is the same to the last packet.
    let home: Home | undefined;
    const message = error instanceof Error ? error.message : String(error);
    try {
      run(seed, { ...options, traceSize: 4000, onHome: (made) => home = made });
    } catch {
      // It is the first error that counts.
    }
    throw new SimulationError(
      `Seed ${seed}: ${message}\n${home?.world.trace.text(120)}\nreplay: ${replayCommand(seed)}`,
    );
  }
}

/** The command that runs a seed again and shows its trace. */
export function replayCommand(seed: number): string {
  return `npx --yes deno@2.9.6 task sim --seed ${seed}`;
}

function run(seed: number, options: RunOptions): RunReport {
  const random = scriptRandom(seed);
  const setting = drawSetting(random);
  const home = new Home({
    seed,
    traceSize: options.traceSize ?? 0,
    link: setting.link,
    clockRate: setting.clockRate,
    profile: setting.profile,
    sabotage: options.sabotage,
  });
  options.onHome?.(home);
  const { world } = home;
  world.note(
    `${setting.kinds.join(", ")}; profile ${setting.profile ?? "none"}; clock ${setting.clockRate}`,
  );
  for (const kind of setting.kinds) home.addClient(kind, freeAddress(random, home));
  for (const client of home.clients) planWishes(random, home, client);
  planTurns(random, home, setting);
  world.runUntil(TURBULENCE_MS);
  calm(home);
  world.runFor(SETTLE_MS);
  judgeRest(home, setting.profile, "at rest");
  judgeTraffic(home, setting.profile);
  judgeReboot(home, setting.profile);
  judgeEnd(home, setting.profile);
  const events: Record<string, number> = {};
  for (const { model } of home.clients) {
    for (const [name, count] of Object.entries(model.counts)) {
      events[name] = (events[name] ?? 0) + count;
    }
  }
  return { packets: world.stats.packets, virtualHours: world.now / 3_600_000, events };
}

/** The clients' view is the gateway's table, and the applications know it. */
function judgeRest(home: Home, profile: string | undefined, when: string): void {
  const { table } = home.gateway;
  home.gateway.list(home.gatewayNow);
  const wanted = new Set<number>();
  for (const client of home.clients) {
    for (const wish of client.model.wanted()) {
      const expected = expectation(profile, client.kind, wish.suggestedPort);
      if (expected === "none") {
        if (wish.told === "held") fail(client, when, "holds what this gateway never grants");
        continue;
      }
      if (expected === "any" && wish.told !== "held") continue;
      const what = `${wish.internalPort}/${wish.protocol}`;
      if (wish.told !== "held") fail(client, when, `${what} is ${wish.told}`);
      const entry = table.inbound(
        PROTOCOL_NUMBER[wish.protocol],
        client.address,
        wish.internalPort,
      );
      if (!entry) fail(client, when, `${what} is told as held, the gateway has nothing`);
      const { address, port } = entry.external;
      const told = wish.external!;
      const isTrue = expected === "port" ? told.port === port : isSame(told, { address, port });
      if (!isTrue) {
        fail(
          client,
          when,
          `${what} is told as ${told.address}:${told.port}, is ${address}:${port}`,
        );
      }
      wanted.add(entry.id);
    }
    if (expectation(profile, client.kind) === "none") continue;
    for (const entry of table.entriesOf(client.address)) {
      if (entry.kind === "explicit" && !wanted.has(entry.id)) {
        fail(client, when, `the gateway holds ${entry.internal.port} that nobody wants`);
      }
    }
  }
}

/** What the peer on the Internet sends to an external endpoint arrives at the program. */
function judgeTraffic(home: Home, profile: string | undefined): void {
  let sent = 0, arrived = 0;
  for (const client of home.clients) {
    if (expectation(profile, client.kind) !== "all") continue;
    for (const wish of client.model.wanted()) {
      if (wish.protocol !== "udp" || wish.told !== "held") continue;
      const socket = client.host.bind({ port: wish.internalPort });
      socket.onDatagram = () => arrived++;
      const address = wish.external!.address ?? home.nat.external[0]!;
      home.peer.send({ address, port: wish.external!.port }, new Uint8Array(1));
      home.world.runFor(1000);
      socket.close();
      sent++;
    }
  }
  if (arrived !== sent) throw new SimulationError(`${arrived} of ${sent} packets came through`);
}

/** After an announced reboot all is back within the bound. */
function judgeReboot(home: Home, profile: string | undefined): void {
  const wishes = home.clients.map(({ model }) => model.wanted().length);
  const restarts = home.clients.map(({ model }) => model.counts["gateway-restarted"] ?? 0);
  home.scenario("reboot");
  if (!isRebootHeard(profile)) {
    home.world.runFor(SETTLE_MS);
    return judgeRest(home, profile, "long after the reboot");
  }
  // One more round trip for the external address, one for the announcement.
  home.world.runFor(RECREATION_MS + ROUND_TRIP_MS * (Math.max(...wishes) + 2));
  judgeRest(home, profile, "within the bound after the reboot");
  home.clients.forEach((client, i) => {
    const expected = expectation(profile, client.kind);
    if (wishes[i] === 0 || expected === "none" || expected === "any") return;
    if (client.model.counts["gateway-restarted"] === restarts[i]) {
      fail(client, "after the reboot", "did not tell of it");
    }
  });
}

/** All is deleted within round trips, and the clients come to rest. */
function judgeEnd(home: Home, profile: string | undefined): void {
  for (const client of home.clients) client.close();
  home.world.runFor(DELETION_MS);
  for (const client of home.clients) {
    if (expectation(profile, client.kind) === "none") continue;
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
