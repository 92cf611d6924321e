/**
 * What a simulated gateway does with a request before its servers see it, as data: rules that say
 * which requests and what becomes of them.
 *
 * @module
 */
import type { Endpoint } from "../machine.ts";
import { familyOf } from "../ip.ts";
import type { TableEntry } from "../table/entry.ts";
import type { ReplyChange } from "./reshape.ts";

/** A request as a policy sees it, whichever protocol it came by. */
export interface GatewayQuestion {
  /** The protocol. */
  readonly via: "pcp" | "nat-pmp";
  /** What is asked. PCP's delete-all is a delete with internal port 0. */
  readonly operation: "address" | "announce" | "map" | "peer" | "delete" | "delete-all";
  /** Who asks. */
  readonly from: Endpoint;
  /** The internal address: the client's own, or the one it names (THIRD_PARTY). */
  readonly internalAddress: string;
  /** IANA's protocol number; undefined where nothing is mapped. */
  readonly protocol: number | undefined;
  /** The internal port, 0 where nothing is mapped. */
  readonly internalPort: number;
  /** The external port wished for, 0 for none. */
  readonly suggestedPort: number;
  /** The lifetime asked for, seconds. */
  readonly lifetimeSeconds: number;
  /** The mapping that is there already. */
  readonly existing: TableEntry | undefined;
  /** Whether the existing mapping was made by another protocol. */
  readonly isForeign: boolean;
  /** PCP: whether the existing mapping's nonce is the request's; true where there is none. */
  readonly isNonceRight: boolean;
  /** PCP: whether it is about an outbound mapping (PEER), a delete included. */
  readonly isPeer: boolean;
  /** Whether the external port wished for is another internal endpoint's. */
  readonly isPortTaken: boolean;
  /** PCP: whether some option's length is no multiple of 4, so that it has padding. */
  readonly hasPadding: boolean;
}

/** What becomes of a request; undefined: it is served. */
export type GatewayVerdict =
  | undefined
  /** No answer. */
  | { readonly kind: "drop" }
  /** An error. PCP tells the lifetime, by default the RFC's for that code. */
  | { readonly kind: "refuse"; readonly code: number; readonly lifetimeSeconds?: number }
  /** It is served, and the answer is this late. */
  | { readonly kind: "delay"; readonly delayMs: number }
  /** It is served, and the answer is changed. */
  | {
    readonly kind: "reshape";
    readonly changes: readonly ReplyChange[];
    /** PCP: it is served as if its nonce were the mapping's, which it is from then on. */
    readonly adoptsNonce?: boolean;
    /** PCP: it is served as if it did not have this option. */
    readonly withoutOption?: number;
  };

/** Which requests a rule is for. Everything named has to be so. */
export interface QuestionMatch {
  /** The protocol. */
  readonly via?: "pcp" | "nat-pmp";
  /** What is asked: one of these. */
  readonly operations?: readonly GatewayQuestion["operation"][];
  /** The client's address family. */
  readonly family?: 4 | 6;
  /** Whether the mapping is there already. */
  readonly exists?: boolean;
  /** Whether the wish for an external port is 0. */
  readonly suggestsPort?: boolean;
  /** Whether the existing mapping was made by another protocol. */
  readonly isForeign?: boolean;
  /** PCP: whether the nonce is the mapping's. */
  readonly isNonceRight?: boolean;
  /** PCP: whether it is about an outbound mapping (PEER), a delete included. */
  readonly isPeer?: boolean;
  /** Whether the external port wished for is another internal endpoint's. */
  readonly isPortTaken?: boolean;
  /** PCP: carries an option with padding. */
  readonly hasPadding?: boolean;
}

/** A rule. */
export interface RequestRule {
  /** Which requests. */
  readonly when: QuestionMatch;
  /** What becomes of them. */
  readonly then: GatewayVerdict;
}

/** The first fitting rule's verdict. */
export function applyRules(
  rules: readonly RequestRule[],
  question: GatewayQuestion,
): GatewayVerdict {
  for (const { when, then } of rules) if (fits(when, question)) return then;
  return undefined;
}

function fits(when: QuestionMatch, question: GatewayQuestion): boolean {
  const { operations, family, exists, suggestsPort } = when;
  return agrees(when.via, question.via) &&
    (operations === undefined || operations.includes(question.operation)) &&
    (family === undefined || family === familyOf(question.from.address)) &&
    (exists === undefined || exists === (question.existing !== undefined)) &&
    (suggestsPort === undefined || suggestsPort === (question.suggestedPort !== 0)) &&
    agrees(when.isForeign, question.isForeign) &&
    agrees(when.isNonceRight, question.isNonceRight) &&
    agrees(when.isPeer, question.isPeer) &&
    agrees(when.isPortTaken, question.isPortTaken) &&
    agrees(when.hasPadding, question.hasPadding);
}

function agrees<T>(wanted: T | undefined, actual: T): boolean {
  return wanted === undefined || wanted === actual;
}
