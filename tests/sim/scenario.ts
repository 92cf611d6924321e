/**
 * What happens in a run, drawn from its seed: who the clients are, what they want, how bad the
 * network is, and the turns of fate that befall gateway, hosts and link for some virtual hours.
 * Then everything is put right again, so that the end can be judged.
 *
 * @module
 */
import type { RemoteFilter } from "../../core/mapping.ts";
import { below, type RandomSource, seededRandom } from "../../core/random.ts";
import type { LinkOptions } from "../../core/sim/mod.ts";
import type { ClientHost } from "./client_host.ts";
import type { Home } from "./home.ts";
import { GATEWAY_PROFILES } from "./gateway.ts";
import { isSameMapping, type WishFields } from "./wish.ts";
import { SUBJECT_KINDS, type SubjectKind } from "./subject.ts";

/** The host on the Internet that tries what is mapped. */
export const PEER = "198.51.100.1";
/** Who may come in, of those that are let in. */
const FILTERS: readonly RemoteFilter[] = [
  { prefix: { address: "198.51.100.0", prefixLength: 24, family: 4 }, port: 0 },
  { prefix: { address: "192.0.2.1", prefixLength: 32, family: 4 }, port: 4000 },
];

/** How long fate strikes, milliseconds. */
export const TURBULENCE_MS: number = 3 * 3_600_000;

/** What is drawn before the world is made. */
export interface Setting {
  readonly kinds: readonly SubjectKind[];
  readonly profile: string | undefined;
  readonly link: LinkOptions;
  /** Seconds that the gateway's clock makes of one. */
  readonly clockRate: number;
  readonly turns: number;
  /** Another program runs on the first client's host. */
  readonly hasNeighbour: boolean;
  /** The first client stands behind a NAT of its own. */
  readonly isInner: boolean;
  /** How many ports a host may have. */
  readonly quota: number | undefined;
  /** How many external addresses the gateway has. */
  readonly addresses: number;
}

/** Draws one of a list. */
export function pick<T>(random: RandomSource, list: readonly T[]): T {
  return list[below(random, list.length)]!;
}

/** The source for all that a seed decides beside the world itself. */
export function scriptRandom(seed: number): RandomSource {
  return seededRandom(0x5eed_0000_0000 + seed);
}

/** Draws the setting. */
export function drawSetting(random: RandomSource): Setting {
  const count = pick(random, [1, 1, 1, 2, 3]);
  const setting: Setting = {
    kinds: Array.from({ length: count }, () => pick(random, SUBJECT_KINDS)),
    profile: below(random, 2) === 0 ? undefined : pick(random, GATEWAY_PROFILES),
    link: drawLink(random),
    // The limits of what both epoch rules forgive, and a bit more.
    clockRate: pick(random, [1, 1, 1, 1, 15 / 16, 17 / 16, 7 / 8, 0.85]),
    turns: below(random, 16),
    hasNeighbour: below(random, 5) === 0,
    isInner: below(random, 16) === 0,
    quota: below(random, 12) === 0 ? 2 : undefined,
    addresses: pick(random, [1, 1, 1, 1, 1, 2, 3]),
  };
  const { kinds, profile, hasNeighbour } = setting;
  // A mapper looks for the gateway above, of which the model knows nothing.
  const mayLookAbove = profile === "private-external-address" &&
    (hasNeighbour || kinds.includes("session"));
  return mayLookAbove ? { ...setting, profile: undefined } : setting;
}

/** Draws a link, a bad one more often than not. */
export function drawLink(random: RandomSource): LinkOptions {
  if (below(random, 3) === 0) return { delayMs: 1 };
  return {
    delayMs: pick(random, [0, 1, 5, 50, 400]),
    jitterMs: pick(random, [0, 1, 20, 500]),
    loss: pick(random, [0, 0.01, 0.1, 0.3, 0.6]),
    duplicate: pick(random, [0, 0.05, 0.5]),
    reorder: pick(random, [0, 0.05, 0.3]),
  };
}

/** Draws what a client wants, and when it says so. */
export function planWishes(random: RandomSource, home: Home, client: ClientHost): void {
  const count = 1 + below(random, 6);
  for (let i = 0; i < count; i++) {
    home.world.at(below(random, 2) === 0 ? 0 : below(random, 60_000), () => {
      if (client.host.isSuspended) return;
      want(random, home, client);
    });
  }
}

function want(random: RandomSource, home: Home, client: ClientHost): void {
  if (client.isClosing) return;
  const fields = drawFields(random, home, client);
  const isTaken = client.model.wishes.some((wish) =>
    isSameMapping(wish, fields) && (!wish.isRevoked || wish.told !== "over")
  );
  if (isTaken) return;
  client.askFor(client.model.want(fields));
}

function drawFields(random: RandomSource, home: Home, client: ClientHost): WishFields {
  const protocol = pick(random, ["tcp", "udp"] as const);
  // Few ports, so that clients want the same ones and a port is wanted again.
  const internalPort = client.firstPort + below(random, 8);
  const common: WishFields = {
    protocol,
    internalPort,
    suggestedPort: pick(random, [0, 0, internalPort, 6000]),
    lifetimeSeconds: pick(random, [120, 300, 600, 1800, 3600, 7200]),
    mode: pick(random, ["keep-alive", "keep-alive", "keep-alive", "keep-alive", "once", 2, 5]),
  };
  if (client.kind === "nat-pmp") return common;
  // What only PCP has.
  switch (below(random, 12)) {
    case 0:
      return { ...common, suggestedPort: 0, remote: { address: PEER, port: 9 } };
    case 1:
      return client.isInner ? common : { ...common, thirdParty: home.thirdParty };
    case 2:
      return { ...common, filters: [pick(random, FILTERS)] };
    case 3:
      return { ...common, filters: FILTERS };
    case 4: {
      // Sets keep to themselves: their ports must not overlap.
      const first = client.firstPort + 100 + 8 * below(random, 4);
      const portSetSize = 2 + below(random, 6);
      return { ...common, internalPort: first, suggestedPort: 0, portSetSize };
    }
    case 5:
      return { ...common, suggestedPort: pick(random, [internalPort, 6000]), preferFailure: true };
    default:
      return common;
  }
}

/** Draws the turns of fate and sets them down in the world's calendar. */
export function planTurns(random: RandomSource, home: Home, setting: Setting): void {
  for (let i = 0; i < setting.turns; i++) {
    home.world.at(below(random, TURBULENCE_MS), () => turn(random, home));
  }
}

function turn(random: RandomSource, home: Home): void {
  if (below(random, 2) === 0) return gatewayTurn(random, home);
  const client = pick(random, home.clients);
  if (below(random, 8) === 0) {
    const link = drawLink(random);
    home.world.note(`link ${JSON.stringify(link)}`);
    return home.lan.link.set({ loss: 0, duplicate: 0, reorder: 0, jitterMs: 0, ...link });
  }
  clientTurn(random, home, client);
}

function gatewayTurn(random: RandomSource, home: Home): void {
  const client = pick(random, home.clients);
  const turns: readonly (() => string)[] = [
    () => "reboot",
    () => "reboot",
    () => "forget",
    () => `epoch ${pick(random, [0, 1, 100, 100_000, 0xffff_fff0])}`,
    () => "exhaust on",
    () => "exhaust off",
    () => `refuse ${pick(random, [2, 3, 4, 8, 13, 200])}`,
    () => "refuse off",
    () => `delay ${pick(random, [0, 100, 700, 5000, 70_000])}`,
    () => `loss ${pick(random, [0, 0.2, 0.9])}`,
    () => `deaf ${pick(random, [1, 5, 40])}`,
    () => `duplicate ${pick(random, ["on", "off"])}`,
    () => `reorder ${pick(random, [0, 50, 3000])}`,
    () => `wrong-source ${pick(random, ["on", "off"])}`,
    () => `nat ${pick(random, ["on", "off"])}`,
    () => `protocol ${pick(random, ["pcp", "nat-pmp"])} ${pick(random, ["on", "off"])}`,
    () => {
      // Other software, and no room in it.
      home.scenario("protocol pcp off");
      return "exhaust on";
    },
    () => `static ${pick(random, ["tcp", "udp"])} ${7000 + below(random, 4)} 192.168.1.250 80`,
    () => "announce",
    () => `client ${client.address} ${pick(random, ["allow", "deny"])}`,
    () => "external",
    () => "external",
    () => "external none",
  ];
  if (below(random, 8) === 0) return nudgeEpoch(random, home);
  const line = pick(random, turns)();
  if (line === "external") home.changeExternal(`203.0.113.${10 + below(random, 200)}`);
  else home.scenario(line);
}

/** Moves the epoch by as little as the rules may or may not forgive, and lets it be heard. */
function nudgeEpoch(random: RandomSource, home: Home): void {
  const protocol = pick(random, ["pcp", "nat-pmp"] as const);
  const epoch = home.gateway.epochSeconds(protocol, home.gatewayNow) + below(random, 11) - 5;
  home.scenario(`epoch ${Math.max(0, Math.min(epoch, 0xffff_ffff))}`);
  home.scenario("announce");
}

function clientTurn(random: RandomSource, home: Home, client: ClientHost): void {
  if (client.host.isSuspended) return;
  const { world } = home;
  const wish = client.model.wanted()[below(random, 8)];
  switch (below(random, 13)) {
    case 11:
      world.note(`${client.name} restarts`);
      return client.restart(true);
    case 12:
      world.note(`${client.name} renews and revokes`);
      if (!wish) return;
      client.renew(wish);
      return world.after(below(random, 2) * 100, () => {
        if (!client.host.isSuspended && !client.isClosing) client.revoke(wish);
      });
    case 9:
    case 10: {
      if (client.isInner || client.model.wishes.length === 0) return;
      return forgeSome(random, home, client);
    }
    case 0:
    case 1:
      world.note(`${client.name} wants another`);
      return want(random, home, client);
    case 2:
      world.note(`${client.name} revokes`);
      return wish && client.revoke(wish);
    case 3:
      world.note(`${client.name} renews`);
      return wish && client.renew(wish);
    case 4:
      world.note(`${client.name} asks for the address`);
      return client.askAddress();
    case 5:
      return restart(random, home, client);
    case 6:
      world.note(`${client.name} moves`);
      return client.isInner ? undefined : client.move(anyAddress(random, home));
    default: {
      const ms = pick(random, [1000, 60_000, 3_600_000]);
      world.note(`${client.name} sleeps for ${ms / 1000} s`);
      client.host.suspend();
      world.after(ms, () => client.wakeUp());
    }
  }
}

/** Somebody answers in the gateway's place, again and again for a while. */
function forgeSome(random: RandomSource, home: Home, client: ClientHost): void {
  for (let i = 0; i < 12; i++) {
    home.world.after(below(random, 120_000), () => home.forger.forge(random, client));
  }
}

function restart(random: RandomSource, home: Home, client: ClientHost): void {
  const hasState = below(random, 3) > 0;
  home.world.note(`${client.name} ${hasState ? "restarts" : "crashes and starts again"}`);
  client.restart(hasState);
}

/** Nobody's address, but maybe somebody's before: what the old owner left is there still. */
function anyAddress(random: RandomSource, home: Home): string {
  const left = [...home.used].filter((address) => !home.lan.lookup(address));
  return left.length > 0 && below(random, 3) === 0 ? pick(random, left) : freeAddress(random, home);
}

/** Nobody's address, and nobody's before: what the old owner left is not the new one's. */
export function freeAddress(random: RandomSource, home: Home): string {
  for (;;) {
    const address = `192.168.1.${20 + below(random, 200)}`;
    if (!home.lan.lookup(address) && !home.used.has(address)) {
      home.used.add(address);
      return address;
    }
  }
}

/** Puts everything right. */
export function calm(home: Home): void {
  home.world.note("all is put right");
  home.lan.link.set({ delayMs: 1, jitterMs: 0, loss: 0, duplicate: 0, reorder: 0 });
  for (
    const line of [
      "exhaust off",
      "refuse off",
      "delay 0",
      "loss 0",
      "deaf 0",
      "duplicate off",
      "reorder 0",
      "wrong-source off",
      "nat on",
      // Only where the WAN is down: it is announced, and what was missed would be made good.
      ...(home.gateway.table.externalAddresses.length === 0
        ? [`external ${home.nat.external[0]}`]
        : []),
      ...(["pcp", "nat-pmp"] as const).map((protocol) =>
        `protocol ${protocol} ${home.spoken.includes(protocol) ? "on" : "off"}`
      ),
    ]
  ) home.scenario(line);
  for (const client of home.clients) {
    client.wakeUp();
    for (const address of home.used) home.scenario(`client ${address} allow`);
  }
}
