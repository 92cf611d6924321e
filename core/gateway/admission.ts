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
import { readQuestion } from "./question.ts";

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

  /** The verdict; what cannot be read is left to the servers. */
  judge(data: Uint8Array, from: Endpoint, now: Instant): GatewayVerdict {
    const isIdle = this.refusal === undefined && this.#denied.size === 0 && !this.#rules &&
      !this.#decide;
    if (isIdle) return undefined;
    const question = readQuestion(data, from, this.#table);
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
