/**
 * Which datagrams a simulated gateway hears, and which of its servers they are for.
 *
 * @module
 */
import { putU32 } from "../bytes.ts";
import type { Endpoint } from "../machine.ts";
import type { MappingTable } from "../table/table.ts";
import type { GatewaySettings } from "./options.ts";
import type { GatewayProtocol } from "./profile.ts";

/** Where a datagram goes, or why it goes nowhere. */
export type Way =
  /** To that protocol's server. */
  | "pcp"
  | "nat-pmp"
  /** Nothing listens. */
  | "off"
  /** It is not from the inside. */
  | "outside"
  /** The gateway is deaf right now. */
  | "deaf"
  /** Its protocol gets silence. */
  | "silent"
  /** It is a PCP request of a length that the profile has an answer of its own for. */
  | "ill-sized";

/** The way in. */
export class Ingress {
  readonly #settings: GatewaySettings;
  readonly #table: MappingTable;
  /** The protocols that are on. */
  readonly on: Set<GatewayProtocol>;
  /** Whether the gateway acts as a NAT. */
  isNat = true;
  /** How many datagrams it will not hear. */
  deaf = 0;
  /** Datagrams that no server saw. */
  readonly dropped: Record<"off" | "outside" | "deaf" | "silent", number> = {
    off: 0,
    outside: 0,
    deaf: 0,
    silent: 0,
  };

  /** All that the settings have is on. */
  constructor(settings: GatewaySettings, table: MappingTable) {
    this.#settings = settings;
    this.#table = table;
    this.on = new Set(settings.protocols);
  }

  /**
   * Whether anything listens on the port of PCP and NAT-PMP. UPnP does where it has no port of its
   * own that everybody knows.
   */
  get isListening(): boolean {
    const isOn = this.#speaksThere || (this.on.has("upnp") && this.#settings.upnp?.ssdpPort === 0);
    return this.isNat && isOn && !this.#settings.profile?.isUnreachable;
  }

  /** Whether a datagram to that port is a search that UPnP hears there. */
  isSearch(data: Uint8Array): boolean {
    // "M-": PCP's and NAT-PMP's versions begin with 0 or 2.
    return this.hasUpnp && data[0] === 0x4d && data[1] === 0x2d;
  }

  get #speaksThere(): boolean {
    return this.on.has("pcp") || this.on.has("nat-pmp");
  }

  /** Whether UPnP is on. */
  get hasUpnp(): boolean {
    return this.isNat && this.on.has("upnp");
  }

  /** Whether what comes by UPnP's sockets is heard; what is not is counted. */
  hearsUpnp(): boolean {
    const why = !this.hasUpnp ? "off" : this.deaf > 0 ? "deaf" : undefined;
    if (why === "deaf") this.deaf--;
    if (why) this.dropped[why]++;
    return why === undefined;
  }

  /** Where a datagram goes; what goes nowhere is counted. */
  route(data: Uint8Array, from: Endpoint): Way {
    const way = this.#route(data, from);
    if (way !== "pcp" && way !== "nat-pmp" && way !== "ill-sized") this.dropped[way]++;
    return way;
  }

  /** The profile's answer to an ill-sized PCP request. */
  answerIllSized(request: Uint8Array, epochSeconds: number): Uint8Array {
    const reply = new Uint8Array(Math.min(1100, Math.max(24, (request.length + 3) & ~3)));
    reply.set(this.#settings.profile?.illSizedReply ?? []);
    putU32(reply, 8, epochSeconds);
    return reply;
  }

  #route(data: Uint8Array, { address }: Endpoint): Way {
    if (!this.isListening || !this.#speaksThere) return "off";
    const { isInside, profile } = this.#settings;
    if (!isInside(address) || this.#table.externalAddresses.includes(address)) return "outside";
    if (this.deaf > 0) {
      this.deaf--;
      return "deaf";
    }
    const protocol = this.#protocolOf(data);
    const isPcpRequest = protocol === "pcp" && data.length >= 2 && data[0] === 2 && data[1]! < 128;
    const isIllSized = data.length < 24 || data.length % 4 !== 0;
    return profile?.illSizedReply && isPcpRequest && isIllSized ? "ill-sized" : protocol;
  }

  /** By the version byte (PMP-S-37, PCP-S-59); where one is off the other one answers. */
  #protocolOf(data: Uint8Array): "pcp" | "nat-pmp" | "silent" {
    const version = data[0] ?? 0;
    const isPcp = version === 2 || (version >= 3 && data.length >= 24);
    const meant = isPcp ? "pcp" : "nat-pmp";
    if (this.on.has(meant)) return meant;
    if (version === 2 && this.#settings.profile?.isDeafToPcp) return "silent";
    return isPcp ? "nat-pmp" : "pcp";
  }
}
