/**
 * What stands between this host and the internet, and what to do about it: conclusions from what
 * was found out about gateways, routes and addresses. Pure: who found it out is elsewhere.
 *
 * @module
 */
import { describeFailure } from "../mapping.ts";
import type { NatDependence, NatType } from "../stun/behaviour.ts";
import { classify, isBehindAnotherNat } from "../cidr.ts";
import { type Via, VIA_NAME } from "../errors.ts";
import type { Family } from "../ip.ts";

/** What one protocol came to at one gateway. */
export interface ProtocolReport {
  /** The protocol. */
  readonly via: Via;
  /**
   * `"answered"`, with the external address that it told; else in words as attempts have it:
   * `"no answer"`, `"unreachable"`, the name of the refusal's code.
   */
  readonly outcome: string;
  /** From the question to its outcome, milliseconds. */
  readonly elapsedMs: number;
  /** The external address. */
  readonly external?: string;
}

/** One gateway of this host. */
export interface GatewayReport {
  /** As text that starts with its address. */
  readonly gateway: string;
  /** 4 or 6. */
  readonly family: Family;
  /** The interface towards it, where that is known. */
  readonly interface?: string;
  /** This host's address towards it, where that is known. */
  readonly localAddress?: string;
  /** Why it could not be asked at all. */
  readonly failure?: string;
  /** What each protocol came to. */
  readonly protocols: readonly ProtocolReport[];
}

/** Traffic that leaves past the first gateway of its family, or by none: through a tunnel. */
export interface DetourReport {
  /** Which traffic. */
  readonly family: Family;
  /** The interface that takes it, where that is known. */
  readonly interface?: string;
  /** What it means, as a sentence. */
  readonly message: string;
}

/** This host's address as a server on the internet sees it. */
export interface ReflexiveReport {
  /** The server, as it was named. */
  readonly server: string;
  /** The address that it saw; else `outcome` says why there is none. */
  readonly address?: string;
  /** `"answered"`, or what went wrong. */
  readonly outcome: string;
  /** From the question to its outcome, milliseconds. */
  readonly elapsedMs: number;
}

/** What kind of NAT stands in between, as servers outside tell (RFC 5780). */
export interface NatReport {
  /** In a word. */
  readonly type: NatType;
  /** Which remotes share a mapping, where that was found. */
  readonly mapping?: NatDependence;
  /** Which remotes a mapping lets in, where that was found. */
  readonly filtering?: NatDependence;
}

/** What conclusions are drawn from. */
export interface DiagnosisFacts {
  /** The gateways, the best first. */
  readonly gateways: readonly GatewayReport[];
  /** At most one a family. */
  readonly detours: readonly DetourReport[];
  /** This host's addresses for others. */
  readonly localAddresses: readonly string[];
  /** What servers outside see. */
  readonly reflexive: readonly ReflexiveReport[];
  /** What kind of NAT there is, where servers were asked. */
  readonly nat?: NatReport;
}

/** What a {@linkcode Finding} is about; stable. */
export type FindingCode =
  /** Ports can be opened, and are reachable from the internet as far as can be told. */
  | "open"
  /** No route leads to a gateway. */
  | "no-gateway"
  /** A VPN or another tunnel takes the traffic. */
  | "tunnel"
  /** The gateway speaks none of the protocols, or all are switched off. */
  | "all-silent"
  /** The gateway speaks them and lets nobody map. */
  | "refused"
  /** The gateway has no address, or none that can be mapped: its line is down, or a NAT is above. */
  | "no-external-address"
  /** The gateway's own address is a private one: another NAT of the same site stands above. */
  | "double-nat"
  /** The gateway's own address is one that providers share among customers (RFC 6598). */
  | "carrier-nat"
  /** The gateway's own address is none that the internet routes. */
  | "reserved-address"
  /** The internet sees another address than the gateway's. */
  | "other-address"
  /** Only UPnP is spoken. */
  | "upnp-only"
  /** Nobody outside was asked whether the gateway's address is the one that counts. */
  | "unverified"
  /** Holes can be punched: one mapping serves all peers. */
  | "punchable"
  /** Holes can hardly be punched: each peer gets a mapping of its own. */
  | "hard-nat"
  /** No server answers over UDP. */
  | "udp-blocked"
  /** IPv6 is there, and the router opens its firewall. */
  | "ipv6-open"
  /** IPv6 is there, and no protocol opens the router's firewall. */
  | "ipv6-firewall"
  /** This host has no IPv6 address that the internet routes. */
  | "no-ipv6";

/** One conclusion. */
export interface Finding {
  /** Which. */
  readonly code: FindingCode;
  /** Whether it keeps others from reaching this host. */
  readonly severity: "problem" | "note" | "good";
  /** It, as a sentence. */
  readonly message: string;
  /** What to do about it. */
  readonly remedy?: string;
}

/** The facts, and the conclusions, the weightiest first. */
export interface Diagnosis extends DiagnosisFacts {
  /** At least one; the first is the diagnosis in a word. */
  readonly findings: readonly Finding[];
}

const SEVERITIES: readonly Finding["severity"][] = ["problem", "note", "good"];

/** What follows from the facts, the weightiest first. */
export function diagnose(facts: DiagnosisFacts): Diagnosis {
  const findings = [
    ...routeFindings(facts),
    ...ipv4Findings(facts),
    ...natFindings(facts),
    ...ipv6Findings(facts),
  ];
  findings.sort((a, b) => SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity));
  return { ...facts, findings };
}

function routeFindings({ gateways, detours }: DiagnosisFacts): Finding[] {
  const found: Finding[] = detours.map(({ message }) => ({
    code: "tunnel",
    severity: "problem",
    message,
    remedy:
      "Leave the VPN out for this program, ask the VPN's provider to forward a port, or map " +
      "at the VPN's gateway where it has one",
  }));
  if (gateways.length > 0 || detours.length > 0) return found;
  return [{
    code: "no-gateway",
    severity: "problem",
    message: "This host has no default route: it is not connected, or the system does not tell",
    remedy: "Connect it, or name the gateway",
  }];
}

const NO_ADDRESS = describeFailure({ kind: "protocol-violation", clause: "D-08" });

/** Whether a refusal says that the gateway has no address to map to. */
function lacksAddress({ outcome }: ProtocolReport): boolean {
  return outcome === "NETWORK_FAILURE" || outcome === NO_ADDRESS;
}

function ipv4Findings({ gateways, reflexive }: DiagnosisFacts): Finding[] {
  const gateway =
    gateways.find(({ family, protocols }) =>
      family === 4 && protocols.some(({ external }) => external !== undefined)
    ) ?? gateways.find(({ family }) => family === 4);
  if (!gateway) return [];
  const { gateway: at, protocols, failure } = gateway;
  const seen = reflexive.find(({ address }) => address !== undefined && !address.includes(":"))
    ?.address;
  const answered = protocols.filter(({ external }) => external !== undefined);
  const external = answered[0]?.external;
  if (external === undefined) {
    return [explainSilence(at, failure, protocols, seen)];
  }
  const by = answered.map(({ via }) => VIA_NAME[via]).join(", ");
  const found: Finding[] = [];
  const above = explainAddress(at, external, seen);
  if (above) found.push(above);
  else {
    found.push({
      code: "open",
      severity: "good",
      message: `Ports can be opened at ${at} by ${by}; its external address is ${external}` +
        (seen === undefined ? "" : ", as the internet sees it"),
    });
    if (seen === undefined) {
      const silent = reflexive.filter(({ address }) => address === undefined)
        .map(({ server, outcome }) => `${server}: ${outcome}`).join("; ");
      found.push({
        code: "unverified",
        severity: "note",
        message: silent === ""
          ? `Nobody outside was asked whether ${external} is what the internet sees`
          : `Nobody outside has told whether ${external} is what the internet sees (${silent})`,
        remedy: silent === ""
          ? "Name a STUN server with --stun HOST:PORT"
          : "Name another STUN server with --stun HOST:PORT",
      });
    }
  }
  if (answered.every(({ via }) => via === "upnp")) {
    found.push({
      code: "upnp-only",
      severity: "note",
      message: `${at} speaks UPnP only: it takes longer, and its restarts are noticed later`,
      remedy: "Switch on PCP or NAT-PMP in its settings, where it has them",
    });
  }
  return found;
}

function explainSilence(
  at: string,
  failure: string | undefined,
  protocols: readonly ProtocolReport[],
  seen: string | undefined,
): Finding {
  const severity = "problem";
  const tried = protocols.map(({ via, outcome }) => `${VIA_NAME[via]}: ${outcome}`).join(", ");
  const refusals = protocols.filter(({ outcome }) =>
    outcome !== "no answer" && outcome !== "unreachable" && !outcome.startsWith("unsupported")
  );
  if (refusals.some(lacksAddress)) {
    return {
      code: "no-external-address",
      severity,
      message: `${at} maps no port, since it has no external address that the internet routes ` +
        `(${tried})` + (seen === undefined ? "" : `; the internet sees ${seen}`),
      remedy: "Its line is down, or another NAT stands above it: look at its WAN address; where " +
        "that is a private or a reserved one, put the router above into bridge mode, or ask the " +
        "provider for a public address",
    };
  }
  if (refusals.length > 0) {
    return {
      code: "refused",
      severity,
      message: `${at} answers and refuses: ${tried}`,
      remedy: "Allow this host to map ports in the router's settings",
    };
  }
  return {
    code: "all-silent",
    severity,
    message: failure ?? `${at} speaks none of the protocols (${tried})`,
    remedy: "Switch on UPnP, NAT-PMP or PCP in the router's settings, or forward the port there " +
      "by hand; without either, hole punching is left",
  };
}

/** What the gateway's external address says of what is above it; undefined where nothing is. */
function explainAddress(
  at: string,
  external: string,
  seen: string | undefined,
): Finding | undefined {
  const severity = "problem";
  const sees = seen === undefined ? "" : `; the internet sees ${seen}`;
  const kind = classify(external);
  if (kind === "shared") {
    return {
      code: "carrier-nat",
      severity,
      message: `${at} has the external address ${external}, which is one that providers share ` +
        `among customers (RFC 6598): a NAT of the provider's stands above it${sees}`,
      remedy: "Ask the provider for a public IPv4 address, use IPv6, or punch holes",
    };
  }
  if (kind === "private") {
    return {
      code: "double-nat",
      severity,
      message: `${at} has the external address ${external}, which is a private one: another NAT ` +
        `stands above it${sees}`,
      remedy: "Put one of the two routers into bridge mode, or open the port at the outer one as " +
        "well, to the inner one's address (natkit tries that by itself)",
    };
  }
  if (isBehindAnotherNat(external)) {
    return {
      code: "reserved-address",
      severity,
      message: `${at} has the external address ${external}, which the internet does not ` +
        `route (${kind})${sees}`,
      remedy: "Look at the router's WAN settings",
    };
  }
  if (seen === undefined || seen === external) return undefined;
  return {
    code: "other-address",
    severity,
    message: `${at} has the external address ${external}, but the internet sees ${seen}: another ` +
      "NAT stands above it, or a VPN takes the traffic",
    remedy: "Open the port at that one as well, or leave the VPN out for this program",
  };
}

/** Whether two hosts that sit behind such NATs can meet without anybody's help. */
function natFindings({ nat }: DiagnosisFacts): Finding[] {
  switch (nat?.type) {
    case undefined:
    case "unknown":
      return [];
    case "blocked":
      return [{
        code: "udp-blocked",
        severity: "note",
        message: "No STUN server answered over UDP: a firewall blocks it, or the servers are down",
        remedy: "Try another STUN server; where UDP is blocked, TCP is left",
      }];
    case "symmetric":
      return [{
        code: "hard-nat",
        severity: "note",
        message: "Holes can hardly be punched: the NAT gives each peer another port (symmetric)",
        remedy: "Map a port at the gateway, use IPv6, or name a TURN server",
      }];
    default:
      return [{
        code: "punchable",
        severity: "good",
        message: nat!.type === "open" || nat!.type === "firewall"
          ? "Holes can be punched: no NAT stands in between"
          : `Holes can be punched: the NAT has one port for all peers (${nat!.type})`,
      }];
  }
}

function ipv6Findings({ gateways, localAddresses }: DiagnosisFacts): Finding[] {
  const own = localAddresses.find((address) => {
    const kind = classify(address);
    return address.includes(":") && (kind === "global" || kind === "documentation");
  });
  if (own === undefined) {
    return [{
      code: "no-ipv6",
      severity: "note",
      message: "This host has no IPv6 address that the internet routes",
    }];
  }
  const routers = gateways.filter(({ family }) => family === 6);
  const opener = routers.find(({ protocols }) =>
    protocols.some(({ external }) => external !== undefined)
  );
  if (opener) {
    const by = opener.protocols.filter(({ external }) => external !== undefined)
      .map(({ via }) => VIA_NAME[via]).join(", ");
    return [{
      code: "ipv6-open",
      severity: "good",
      message: `Over IPv6 ${opener.gateway} opens its firewall for ${own} by ${by}`,
    }];
  }
  return [{
    code: "ipv6-firewall",
    severity: "note",
    message: `This host has the IPv6 address ${own}, but no protocol opens the router's firewall ` +
      "for it: what comes unasked is most likely dropped there",
    remedy: "Allow it in the router's IPv6 firewall",
  }];
}
