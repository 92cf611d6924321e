/**
 * The gateway under the clients: the simulated gateway with its scenario commands as lines of
 * text, and what each profile lets a client come to.
 *
 * @module
 */
import { parseCommand } from "../../core/gateway/scenario.ts";
import { SimulatedGateway } from "../../core/gateway/gateway.ts";
import { PROFILES } from "../../core/gateway/profiles.ts";
import type { Instant } from "../../core/machine.ts";
import type { RandomSource } from "../../core/random.ts";
import type { SubjectKind } from "./subject.ts";

export interface GatewayFaceOptions {
  readonly profile?: string | undefined;
  /** How many ports a host may have; as many as it likes where left out. */
  readonly quota?: number | undefined;
  /** How many external addresses there are. */
  readonly addresses?: number | undefined;
}

/** The profiles of PCP and NAT-PMP, by name. */
export const GATEWAY_PROFILES: readonly string[] = Object.keys(PROFILES)
  .filter((name) => !PROFILES[name]!.protocols?.includes("upnp"));

/** Makes the gateway. */
export function makeGateway(
  { profile, quota, addresses = 1 }: GatewayFaceOptions,
  external: string,
  random: RandomSource,
): SimulatedGateway {
  const others = ["203.0.113.8", "203.0.113.9"].slice(0, addresses - 1);
  return new SimulatedGateway({
    externalAddresses: [external, ...others],
    random,
    internalPrefixes: ["192.168.1.0/24"],
    allowThirdParty: true,
    ...(quota !== undefined && { table: { maxPortsPerClient: quota } }),
    ...(profile !== undefined && { profile }),
  });
}

/** Carries out a scenario command; `boot` is the first start. */
export function execute(gateway: SimulatedGateway, line: string, now: Instant): void {
  if (line === "boot") return gateway.start(now);
  const parsed = parseCommand(line);
  if (!parsed.ok) throw new TypeError(parsed.message);
  const { command } = parsed;
  switch (command.name) {
    case "reboot":
      return gateway.reboot(now);
    case "forget":
      return gateway.forget(now);
    case "epoch":
      return gateway.setEpoch(command.seconds, now);
    case "external":
      return gateway.setExternalAddresses(command.addresses, now);
    case "static": {
      const { protocol, externalPort, address, internalPort } = command;
      gateway.addStatic(protocol, externalPort, { address, port: internalPort }, now);
      return;
    }
    case "nat":
      return gateway.setNat(command.on, now);
    case "protocol":
      return gateway.setProtocol(command.protocol, command.on, now);
    case "exhaust":
      return gateway.setExhausted(command.on, now);
    case "refuse":
      return gateway.setRefusal(command.code, now);
    case "delay":
      return gateway.disturb({ delayMs: command.delayMs }, now);
    case "loss":
      return gateway.disturb({ lossRate: command.probability }, now);
    case "deaf":
      return gateway.setDeaf(command.packets, now);
    case "duplicate":
      return gateway.disturb({ duplicate: command.on }, now);
    case "reorder":
      return gateway.disturb({ reorderMs: command.windowMs }, now);
    case "wrong-source":
      return gateway.disturb({ wrongSource: command.on }, now);
    case "client":
      return gateway.setPermission(command.address, command.isAllowed, now);
    case "announce":
      return gateway.announce(now);
    default:
      throw new TypeError(`'${line}' is no command for a simulation`);
  }
}

/**
 * What a client can come to at a gateway in good order: `all` it wants, with the true external
 * endpoint; `port`: with the true port, but another address; `none`; `any`: it depends, but what
 * it holds is true.
 */
export type Expectation = "all" | "any" | "port" | "none";

const NAT_PMP_ONLY = "all to NAT-PMP, none to PCP";
const PCP_ONLY = "all to PCP, none to NAT-PMP";

const SPECIAL: Readonly<
  Record<string, typeof NAT_PMP_ONLY | typeof PCP_ONLY | "none" | "port">
> = {
  "fritzbox-6360": PCP_ONLY,
  "archer-a7": NAT_PMP_ONLY,
  "two-byte-replies": "none",
  "verizon-cr1000a": NAT_PMP_ONLY,
  "huawei-hg8145v5": "none",
  "routeros": NAT_PMP_ONLY,
  "not-authorized": "none",
  "private-external-address": "port",
  "protonvpn": NAT_PMP_ONLY,
  "strict-nonce": PCP_ONLY,
  "vpn-tunnel": NAT_PMP_ONLY,
  "pcp-silent": NAT_PMP_ONLY,
};

/** What a client of that kind can come to at a gateway of that profile, for one of its wishes. */
export function expectation(
  profile: string | undefined,
  kind: SubjectKind,
  suggestedPort: number = 1,
): Expectation {
  const special = profile === undefined ? undefined : SPECIAL[profile];
  // A session keeps what PCP gave it while PCP was on: then NAT-PMP has a port to ask for.
  if (profile === "routeros" && suggestedPort === 0) return kind === "session" ? "any" : "none";
  switch (special) {
    case undefined:
      // These spoil one protocol alone.
      // To a session PCP's word is final, but what NAT-PMP made while PCP was off stays with it.
      if (profile === "address-mismatch") {
        return kind === "pcp" ? "none" : kind === "session" ? "any" : "all";
      }
      if (profile === "miniupnpd-1.8") return kind === "nat-pmp" ? "none" : "all";
      return "all";
    case NAT_PMP_ONLY:
      return kind === "pcp" ? "none" : "all";
    case PCP_ONLY:
      return kind === "nat-pmp" ? "none" : "all";
    default:
      return special;
  }
}
