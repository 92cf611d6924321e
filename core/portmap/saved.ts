/**
 * What outlives the program: enough of a mapping to adopt or delete it after a restart. PCP's
 * nonce above all, without which a gateway refuses both (PCP-S-28).
 *
 * @module
 */
import { checkAddress, checkChoice, checkPort } from "../check.ts";
import { pickDefined } from "../defined.ts";
import type { Via } from "../errors.ts";
import type { Endpoint } from "../machine.ts";
import type { Transport } from "../mapping.ts";
import type { Claim } from "./claim.ts";
import type { GrantedMapping } from "./events.ts";

/** A mapping as it is kept between runs. JSON-safe. */
export interface SavedMapping {
  /** Inbound or outbound. */
  readonly kind: "map" | "peer";
  /** The protocol that made it. */
  readonly via: Via;
  /** The gateway's address. */
  readonly gateway: string;
  /** The transport protocol. */
  readonly protocol: Transport;
  /** The port on this host. */
  readonly internalPort: number;
  /** Where others send to. */
  readonly external: Endpoint;
  /** PCP's nonce, 24 hexadecimal digits. */
  readonly nonce?: string;
  /** The peer of an outbound mapping. */
  readonly remote?: Endpoint;
  /** The host it was made for, where that is another one. */
  readonly thirdParty?: string;
}

/** What makes two saved mappings the same one. */
export function savedKey(
  mapping: {
    readonly protocol: Transport;
    readonly internalPort: number;
    readonly remote?: Endpoint;
    readonly thirdParty?: string;
  },
): string {
  const remote = mapping.remote ? `${mapping.remote.address} ${mapping.remote.port}` : "";
  return `${mapping.protocol} ${mapping.internalPort} ${remote} ${mapping.thirdParty ?? ""}`;
}

/** A held mapping as it is kept. */
export function toSaved(claim: Claim, granted: GrantedMapping): SavedMapping {
  return {
    kind: granted.kind,
    via: granted.via,
    gateway: granted.gateway.address,
    protocol: granted.protocol,
    internalPort: granted.internal.port,
    external: granted.external,
    ...(granted.via === "pcp" ? { nonce: claim.nonce } : {}),
    ...pickDefined(granted, "remote"),
    ...pickDefined(claim.request, "thirdParty"),
  };
}

/**
 * Checks what was kept of an earlier run.
 *
 * @throws {TypeError} At the first field that is wrong, with its name and value.
 */
export function checkSavedMapping(mapping: SavedMapping): void {
  checkChoice("kind", mapping.kind, ["map", "peer"]);
  checkChoice("via", mapping.via, ["pcp", "nat-pmp", "upnp"]);
  checkChoice("protocol", mapping.protocol, ["tcp", "udp"]);
  checkAddress("gateway", mapping.gateway);
  checkPort("internalPort", mapping.internalPort);
  checkAddress("external.address", mapping.external?.address);
  checkPort("external.port", mapping.external?.port);
  if (mapping.nonce !== undefined && !/^[0-9a-f]{24}$/.test(mapping.nonce)) {
    throw new TypeError(`'nonce' must be 24 hexadecimal digits: current value is ${mapping.nonce}`);
  }
}
