/**
 * What a simulated gateway does with a request before it is served: what the scenario commands say,
 * then the profile's rules, then the caller's policy.
 *
 * @module
 */
import { equalBytes, u16 } from "../bytes.ts";
import { familyOf, isSameEndpoint } from "../ip.ts";
import type { Instant } from "../machine.ts";
import { PCP_HEADER_LENGTH, PCP_RESULT } from "../pcp/constants.ts";
import { IGD_ERROR, UPNP_ERROR } from "../upnp/igd.ts";
import type { Decision, Policy, ServerRequest } from "../table/server_request.ts";
import type { MappingTable } from "../table/table.ts";
import type { ReplyChange } from "./reshape.ts";

/** What becomes of a request: what a server's policy may decide, and what happens to the answer. */
export type GatewayDecision =
  | Decision
  /** It is served, and the answer is this late. */
  | { readonly kind: "delay"; readonly delayMs: number }
  /** It is served, and the answer is changed. */
  | {
    readonly kind: "reshape";
    readonly changes: readonly ReplyChange[];
    /** PCP: it is served as if its nonce were the mapping's, which it is from then on. */
    readonly adoptsNonce?: boolean;
  };

/** Which requests a rule is for. Everything named has to be so. */
export interface RequestMatch {
  /** The protocol. */
  readonly via?: ServerRequest["via"];
  /** What is asked: one of these. */
  readonly operations?: readonly ServerRequest["operation"][];
  /** UPnP: the action, one of these. */
  readonly actions?: readonly string[];
  /** The client's address family. */
  readonly family?: 4 | 6;
  /** Whether the mapping is there already. */
  readonly exists?: boolean;
  /** Whether an external port is suggested. */
  readonly suggestsPort?: boolean;
  /** Whether the existing mapping was made by another protocol. */
  readonly isForeign?: boolean;
  /** PCP: whether the nonce is the existing mapping's; true where that has none. */
  readonly isNonceRight?: boolean;
  /** PCP: whether it is about an outbound mapping (PEER), a delete included. */
  readonly isPeer?: boolean;
  /** Whether the external port suggested is another internal endpoint's. */
  readonly isPortTaken?: boolean;
  /** PCP: whether some option's length is not a multiple of 4, so that it has padding. */
  readonly hasPadding?: boolean;
}

/** A rule. */
export interface RequestRule {
  /** Which requests. */
  readonly when: RequestMatch;
  /** What becomes of them. */
  readonly then: GatewayDecision;
}

/** The policy that a gateway's servers ask. */
export class GatewayPolicy {
  readonly #table: MappingTable;
  readonly #rules: readonly RequestRule[];
  readonly #decide: Policy<GatewayDecision> | undefined;
  readonly #igdVersion: 1 | 2;
  readonly #denied = new Set<string>();
  /**
   * The result code that every request but ANNOUNCE gets; undefined: none. From 256 on it is UPnP's
   * alone; a lower one is to UPnP what RFC 6970 §5.4 makes of it.
   */
  refusal: number | undefined;

  /** @param rules The profile's. */
  constructor(
    table: MappingTable,
    rules: readonly RequestRule[],
    decide: Policy<GatewayDecision> | undefined,
    igdVersion: 1 | 2 = 2,
  ) {
    this.#table = table;
    this.#rules = rules;
    this.#decide = decide;
    this.#igdVersion = igdVersion;
  }

  /** Whether a client may have mappings. */
  setPermission(client: string, isAllowed: boolean): void {
    if (isAllowed) this.#denied.delete(client);
    else this.#denied.add(client);
  }

  /** What becomes of a request, which came in these bytes. */
  decide(request: ServerRequest, data: Uint8Array, now: Instant): GatewayDecision {
    let decision = this.#command(request) ??
      this.#rule(request, data) ??
      this.#decide?.(request, now);
    if (decision?.kind === "refuse" && request.via === "upnp") {
      decision = { ...decision, code: this.#igdCode(decision.code) };
    }
    if (decision?.kind === "reshape" && decision.adoptsNonce && !isNonceRight(request)) {
      const { existing, nonce } = request;
      this.#table.renew(existing!, { expiresAt: existing!.expiresAt, nonce });
    }
    return decision;
  }

  #rule(request: ServerRequest, data: Uint8Array): GatewayDecision {
    for (const { when, then } of this.#rules) if (this.#fits(when, request, data)) return then;
    return undefined;
  }

  #command({ via, operation, from }: ServerRequest): GatewayDecision {
    if (operation === "announce") return undefined;
    if (this.refusal !== undefined && (via === "upnp" || this.refusal < 256)) {
      return { kind: "refuse", code: this.refusal };
    }
    const isAboutMappings = operation !== "address" && operation !== "read";
    return isAboutMappings && this.#denied.has(from.address)
      ? { kind: "refuse", code: PCP_RESULT.NOT_AUTHORIZED }
      : undefined;
  }

  /** A PCP result in UPnP's words (RFC 6970 §5.4). */
  #igdCode(code: number): number {
    const is2 = this.#igdVersion === 2;
    switch (code) {
      case PCP_RESULT.NOT_AUTHORIZED:
        return is2 ? UPNP_ERROR.ActionNotAuthorized : IGD_ERROR.ConflictInMappingEntry;
      case PCP_RESULT.NO_RESOURCES:
      case PCP_RESULT.USER_EX_QUOTA:
        return is2 ? IGD_ERROR.NoPortMapsAvailable : UPNP_ERROR.ActionFailed;
      case PCP_RESULT.CANNOT_PROVIDE_EXTERNAL:
        return IGD_ERROR.ConflictInMappingEntry;
      default:
        return code < 256 ? UPNP_ERROR.ActionFailed : code;
    }
  }

  #fits(when: RequestMatch, request: ServerRequest, data: Uint8Array): boolean {
    const { via, operation, existing, suggested, remote } = request;
    return agrees(when.via, () => via) &&
      (when.operations === undefined || when.operations.includes(operation)) &&
      (when.actions === undefined || when.actions.includes(request.action ?? "")) &&
      agrees(when.family, () => familyOf(request.from.address)) &&
      agrees(when.exists, () => existing !== undefined) &&
      agrees(when.suggestsPort, () => suggested.port !== 0) &&
      agrees(when.isForeign, () => existing !== undefined && existing.origin !== via) &&
      agrees(when.isNonceRight, () => isNonceRight(request)) &&
      agrees(when.isPeer, () => remote !== undefined) &&
      agrees(when.isPortTaken, () => this.#isPortTaken(request)) &&
      agrees(when.hasPadding, () => via === "pcp" && hasPaddedOption(data));
  }

  #isPortTaken({ protocol, internal, suggested }: ServerRequest): boolean {
    const address = suggested.port === 0
      ? undefined
      : this.#table.externalAddressFor(internal.address);
    const holder = address === undefined
      ? undefined
      : this.#table.external(protocol, address, suggested.port);
    return holder !== undefined && !isSameEndpoint(holder.internal, internal);
  }
}

function agrees<T>(wanted: T | undefined, actual: () => T): boolean {
  return wanted === undefined || wanted === actual();
}

function isNonceRight({ existing, nonce }: ServerRequest): boolean {
  return !existing?.nonce || !nonce || equalBytes(existing.nonce, nonce);
}

/** Whether some option's length is not a multiple of 4, in a PCP request that a server has read. */
function hasPaddedOption(data: Uint8Array): boolean {
  const opcode = data[1]!;
  let at = opcode === 1 ? 60 : opcode === 2 ? 80 : PCP_HEADER_LENGTH;
  while (at < data.length) {
    const length = u16(data, at + 2);
    if (length % 4 !== 0) return true;
    at += 4 + length;
  }
  return false;
}
