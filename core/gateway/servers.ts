/**
 * The servers of a simulated gateway as one: set up as its options and its profile want them, and
 * drained together.
 *
 * @module
 */
import type { DebugTimeout, Endpoint, Instant } from "../machine.ts";
import { NatPmpServer } from "../natpmp/server.ts";
import { PcpServer } from "../pcp/server.ts";
import type { MappingTable, MovedEntry } from "../table/table.ts";
import type { TableWatch } from "../table/watch.ts";
import { fromPcp, type GatewayEvent } from "./events.ts";
import type { GatewaySettings } from "./options.ts";
import type { GatewayProtocol } from "./profile.ts";

/** What the gateway's policy says to the request that is being served: an error, or nothing. */
export type Refusal = { readonly refuse: number; readonly lifetimeSeconds?: number } | undefined;

/** A PCP and a NAT-PMP server over one table. */
export class Servers {
  /** The NAT-PMP server. */
  readonly natPmp: NatPmpServer;
  /** The PCP server. */
  readonly pcp: PcpServer;
  readonly #watch: TableWatch | undefined;
  #refusal: Refusal;

  /** Makes them; the options go before the profile. */
  constructor(settings: GatewaySettings, table: MappingTable) {
    const { profile, maxLifetimeSeconds, minLifetimeSeconds, announceTo } = settings;
    const longest = maxLifetimeSeconds === undefined ? {} : { maxLifetimeSeconds };
    const shortest = minLifetimeSeconds === undefined
      ? {}
      : { minLifetimeSeconds, minPeerLifetimeSeconds: minLifetimeSeconds };
    const common = {
      table,
      decide: () => this.#refusal,
      trace: settings.trace ? "packets" as const : false,
    };
    this.natPmp = new NatPmpServer({
      ...profile?.natPmp,
      ...longest,
      ...common,
      announceTo: settings.family === 4 ? [...announceTo, ...settings.extraAnnounceTo] : [],
    });
    this.pcp = new PcpServer({
      ...profile?.pcp,
      ...longest,
      ...shortest,
      ...common,
      announceTo,
      allowThirdParty: settings.allowThirdParty,
    });
    this.#watch = settings.trace ? table.watch() : undefined;
  }

  /** Lets a server answer a request, or refuse it. */
  serve(
    protocol: GatewayProtocol,
    data: Uint8Array,
    from: Endpoint,
    refusal: Refusal,
    now: Instant,
  ): boolean {
    this.#refusal = refusal;
    const server = protocol === "pcp" ? this.pcp : this.natPmp;
    const wasHandled = server.handleDatagram(data, from, now);
    this.#refusal = undefined;
    return wasHandled;
  }

  /** Both epochs jump, in silence. */
  setEpoch(seconds: number, now: Instant): void {
    this.natPmp.setEpoch(seconds, now);
    this.pcp.setEpoch(seconds, now);
  }

  /** Both boot; those that are on announce it. */
  boot(on: ReadonlySet<GatewayProtocol>, now: Instant): void {
    this.setEpoch(0, now);
    if (on.has("nat-pmp")) this.natPmp.start(now);
    if (on.has("pcp")) this.pcp.reset(now);
  }

  /** PCP's epoch restarts (PCP-S-21), NAT-PMP's runs on; those that are on tell their clients. */
  externalAddressChanged(
    on: ReadonlySet<GatewayProtocol>,
    moved: readonly MovedEntry[],
    now: Instant,
  ): void {
    if (on.has("pcp")) this.pcp.externalAddressChanged(moved, now);
    else this.pcp.setEpoch(0, now);
    if (on.has("nat-pmp")) this.natPmp.externalAddressChanged(now);
  }

  /** Those that are on announce themselves. */
  announce(on: ReadonlySet<GatewayProtocol>, now: Instant): void {
    if (on.has("nat-pmp")) this.natPmp.announce(now);
    if (on.has("pcp")) this.pcp.announce(now);
  }

  /** Ends what they are about to say unasked. */
  silence(protocol?: GatewayProtocol): void {
    if (protocol !== "pcp") this.natPmp.silence();
    if (protocol !== "nat-pmp") this.pcp.silence();
  }

  /** Tells both that ICMP reported a client unreachable. */
  handleUnreachable(to: Endpoint, now: Instant): void {
    this.natPmp.handleUnreachable(to, now);
    this.pcp.handleUnreachable(to, now);
  }

  /** Lets both do what is due. */
  handleTimeout(now: Instant): void {
    this.natPmp.handleTimeout(now);
    this.pcp.handleTimeout(now);
  }

  /** The earliest deadline, `Infinity` for none. */
  nextAt(): Instant {
    return Math.min(this.natPmp.nextTimeout() ?? Infinity, this.pcp.nextTimeout() ?? Infinity);
  }

  /** The deadlines of both. */
  deadlines(): (DebugTimeout | undefined)[] {
    return [this.natPmp.debugTimeout(), this.pcp.debugTimeout()];
  }

  /** Takes what they, and the table, have to say. */
  drain(
    send: (to: Endpoint, data: Uint8Array) => void,
    tell: (event: GatewayEvent) => void,
  ): void {
    for (let action = this.natPmp.poll(); action; action = this.natPmp.poll()) {
      if (action.type === "send") send(action.to, action.data);
      else if (action.type === "event") tell(action.event);
    }
    for (let action = this.pcp.poll(); action; action = this.pcp.poll()) {
      if (action.type === "send") send(action.to, action.data);
      else if (action.type === "event") tell(fromPcp(action.event));
    }
    for (let next = this.#watch?.next(); next; next = this.#watch?.next()) {
      tell({ type: "mapping", change: next.change, entry: next.entry });
    }
  }
}
