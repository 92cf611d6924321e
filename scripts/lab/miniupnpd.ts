/**
 * How the lab's miniupnpd is configured.
 *
 * @module
 */

/** What tests vary. */
export interface MiniupnpdOptions {
  /** PCP and NAT-PMP, which miniupnpd switches together. Default: true. */
  readonly natPmp?: boolean;
  readonly upnp?: boolean;
  /** Whether it describes itself as an IGD:1. Default: as an IGD:2. */
  readonly isIgd1?: boolean;
  /** Whether a client may map for itself only. Default: true. */
  readonly secureMode?: boolean;
  /** Lifetimes are clamped to these. Default: 120 and 86400, as miniupnpd's own. */
  readonly minLifetimeSeconds?: number;
  readonly maxLifetimeSeconds?: number;
  readonly allowThirdParty?: boolean;
  /** Permission rules, first match wins. Default: the LAN may map every port from 1024 on. */
  readonly rules?: readonly string[];
}

/** Short lifetimes are granted as they are asked for, so that renewals can be watched. */
export const GATEWAY: MiniupnpdOptions = { minLifetimeSeconds: 1 };

const DEFAULT_RULES = [
  "allow 1024-65535 192.168.77.0/24 0-65535",
  "deny 0-65535 0.0.0.0/0 0-65535",
];

const yes = (on: boolean): string => on ? "yes" : "no";

/** Writes the configuration file's text. */
export function miniupnpdConfig(options: MiniupnpdOptions, folder: string): string {
  return [
    "ext_ifname=wan",
    // IPv6 needs the interface's name; SSDP and the multicast groups take it from there as well.
    "listening_ip=lan",
    "http_port=49152",
    `enable_natpmp=${yes(options.natPmp ?? true)}`,
    `enable_upnp=${yes(options.upnp ?? true)}`,
    `force_igd_desc_v1=${yes(options.isIgd1 ?? false)}`,
    `secure_mode=${yes(options.secureMode ?? true)}`,
    `min_lifetime=${options.minLifetimeSeconds ?? 120}`,
    `max_lifetime=${options.maxLifetimeSeconds ?? 86400}`,
    ...(options.allowThirdParty ? ["pcp_allow_thirdparty=yes"] : []),
    "upnp_table_name=filter",
    "upnp_nat_table_name=filter",
    "upnp_forward_chain=miniupnpd",
    "upnp_nat_chain=prerouting_miniupnpd",
    "upnp_nat_postrouting_chain=postrouting_miniupnpd",
    `minissdpdsocket=${folder}/minissdpd.sock`,
    "notify_interval=900",
    "uuid=6e61746b-6974-4c61-b000-000000000001",
    ...(options.rules ?? DEFAULT_RULES),
    "",
  ].join("\n");
}
