/**
 * Whether a request is served: what the scenario commands say, then the profile's rules, then the
 * caller's policy.
 *
 * @module
 */
import type { Endpoint, Instant } from "../machine.ts";
import { PCP_NONCE_LENGTH, PCP_NONCE_OFFSET, PCP_RESULT } from "../pcp/constants.ts";
import type { MappingTable } from "../table/table.ts";
import {
  applyRules,
  type GatewayQuestion,
  type GatewayVerdict,
  type RequestRule,
} from "./policy.ts";
import { readQuestion, withoutOption } from "./question.ts";
import type { ReplyChange } from "./reshape.ts";
import type { Refusal } from "./servers.ts";

/** How a request is served. */
export interface Judgement {
  /** What the server is to see: the request, or what a rule left of it. */
  readonly request: Uint8Array;
  /** The error that the server is to answer. */
  readonly refusal: Refusal;
  /** The answer is this late, milliseconds. */
  readonly delayMs: number;
  /** What becomes of the answer. */
  readonly changes: readonly ReplyChange[];
}

const NO_CHANGES: readonly ReplyChange[] = [];

/** Judges requests. */
export class Admission {
  readonly #table: MappingTable;
  readonly #rules: readonly RequestRule[] | undefined;
  readonly #decide: ((question: GatewayQuestion, now: Instant) => GatewayVerdict) | undefined;
  readonly #denied = new Set<string>();
  /** The result code that every request but ANNOUNCE gets; undefined: none. */
  refusal: number | undefined;

  /** @param rules The profile's. */
  constructor(
    table: MappingTable,
    rules: readonly RequestRule[] | undefined,
    decide: ((question: GatewayQuestion, now: Instant) => GatewayVerdict) | undefined,
  ) {
    this.#table = table;
    this.#rules = rules;
    this.#decide = decide;
  }

  /** Whether a client may have mappings. */
  setPermission(client: string, isAllowed: boolean): void {
    if (isAllowed) this.#denied.delete(client);
    else this.#denied.add(client);
  }

  /** How a request is served, if at all; what cannot be read is left to the servers. */
  judge(data: Uint8Array, from: Endpoint, now: Instant): Judgement | "drop" {
    const served = { request: data, refusal: undefined, delayMs: 0, changes: NO_CHANGES };
    const verdict = this.#verdict(data, from, now);
    switch (verdict?.kind) {
      case undefined:
        return served;
      case "drop":
        return "drop";
      case "refuse":
        return { ...served, refusal: { ...verdict, refuse: verdict.code } };
      case "delay":
        return { ...served, delayMs: verdict.delayMs };
      case "reshape": {
        const { changes, withoutOption: code } = verdict;
        const request = code === undefined ? data : withoutOption(data, code);
        return { ...served, request, changes };
      }
    }
  }

  #verdict(data: Uint8Array, from: Endpoint, now: Instant): GatewayVerdict {
    const isIdle = this.refusal === undefined && this.#denied.size === 0 && !this.#rules &&
      !this.#decide;
    const question = isIdle ? undefined : readQuestion(data, from, this.#table);
    if (!question) return undefined;
    const verdict = this.#command(question) ?? (this.#rules && applyRules(this.#rules, question)) ??
      this.#decide?.(question, now);
    const { existing } = question;
    if (existing && verdict?.kind === "reshape" && verdict.adoptsNonce && !question.isNonceRight) {
      const nonce = data.subarray(PCP_NONCE_OFFSET, PCP_NONCE_OFFSET + PCP_NONCE_LENGTH);
      this.#table.renew(existing, { expiresAt: existing.expiresAt, nonce });
    }
    return verdict;
  }

  #command({ operation, from }: GatewayQuestion): GatewayVerdict {
    if (operation === "announce") return undefined;
    if (this.refusal !== undefined) return { kind: "refuse", code: this.refusal };
    return operation !== "address" && this.#denied.has(from.address)
      ? { kind: "refuse", code: PCP_RESULT.NOT_AUTHORIZED }
      : undefined;
  }
}
