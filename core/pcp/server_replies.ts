/**
 * What a PCP server sends, asked and unasked: it puts together the bytes, counts them and tells
 * the trace. The epoch is kept here, since everything that is sent carries it.
 *
 * @module
 */
import type { Endpoint, Instant } from "../machine.ts";
import type { Outbox } from "../outbox.ts";
import {
  encodeErrorResponse,
  encodeResponse,
  PCP_OPCODE,
  PCP_RESULT,
  type PcpMapRequestMessage,
  type PcpMapResponseMessage,
  type PcpPeerRequestMessage,
  type PcpPeerResponseMessage,
  pcpResultName,
} from "./codec.ts";
import { NO_OPTIONS, type PcpOption } from "./options.ts";
import { remainingSeconds, updateOptions } from "./server_answer.ts";
import type { Grant } from "./server_mapping.ts";
import { type MappingUpdate, noticeKey } from "./server_notices.ts";
import type { PcpServerEvent, PcpServerSettings } from "./server_options.ts";

const SHORT_ERRORS: ReadonlySet<number> = new Set([
  PCP_RESULT.NETWORK_FAILURE,
  PCP_RESULT.NO_RESOURCES,
  PCP_RESULT.USER_EX_QUOTA,
]);

/** What a {@linkcode PcpServer} counts; names that nothing was counted under are left out. */
export interface PcpServerStats {
  /** Valid requests by kind: `announce`, `map`, `peer`. */
  readonly requests: Record<string, number>;
  /** Answers by the RFC's name of their result: `SUCCESS`, `NOT_AUTHORIZED`… */
  readonly responses: Record<string, number>;
  /** Datagrams that got no answer: `outside`, `too-short`, `not-a-request`, `policy`. */
  readonly dropped: Record<string, number>;
  /** Announcements sent, each copy to each group counted. */
  announcements: number;
  /** Mapping updates sent, each copy counted. */
  updates: number;
}

/** Adds one under a name. */
export function count(counters: Record<string, number>, name: string): void {
  counters[name] = (counters[name] ?? 0) + 1;
}

/** The sending side of a PCP server. */
export class Replies {
  /** When the epoch was 0. */
  epochStart: Instant = 0;
  #settings: PcpServerSettings;
  #stats: PcpServerStats;
  #outbox: Outbox<PcpServerEvent>;
  #isTraced: boolean;

  /** Takes what it shares with its server. */
  constructor(
    settings: PcpServerSettings,
    stats: PcpServerStats,
    outbox: Outbox<PcpServerEvent>,
    isTraced: boolean,
  ) {
    this.#settings = settings;
    this.#stats = stats;
    this.#outbox = outbox;
    this.#isTraced = isTraced;
  }

  /** Seconds since the epoch began, in 32 bits. */
  epochSeconds(now: Instant): number {
    return Math.max(0, Math.floor((now - this.epochStart) / 1000)) % 0x1_0000_0000;
  }

  /** Answers an ANNOUNCE request. */
  announced(to: Endpoint, options: readonly PcpOption[], now: Instant): void {
    const epochSeconds = this.epochSeconds(now);
    const { SUCCESS: resultCode } = PCP_RESULT;
    const fields = { resultCode, lifetimeSeconds: 0, epochSeconds, options };
    const bytes = encodeResponse({ kind: "announce", ...fields });
    this.#send(bytes, to, PCP_OPCODE.ANNOUNCE, resultCode, 0, epochSeconds);
  }

  /** Answers a MAP or PEER request with a success. */
  grant(
    request: PcpMapRequestMessage | PcpPeerRequestMessage,
    to: Endpoint,
    { internalPort, external, lifetimeSeconds, options }: Grant,
    now: Instant,
  ): void {
    const epochSeconds = this.epochSeconds(now);
    const { SUCCESS: resultCode } = PCP_RESULT;
    const { nonce, protocol } = request;
    const { address: externalAddress, port: externalPort } = external;
    // Written out twice: copying the fields costs as much as the rest of the answer.
    const bytes = request.kind === "map"
      ? encodeResponse({
        kind: "map",
        resultCode,
        lifetimeSeconds,
        epochSeconds,
        nonce,
        protocol,
        internalPort,
        externalPort,
        externalAddress,
        options,
      })
      : encodeResponse({
        kind: "peer",
        resultCode,
        lifetimeSeconds,
        epochSeconds,
        nonce,
        protocol,
        internalPort,
        externalPort,
        externalAddress,
        remotePort: request.remotePort,
        remoteAddress: request.remoteAddress,
        options,
      });
    const opcode = request.kind === "map" ? PCP_OPCODE.MAP : PCP_OPCODE.PEER;
    this.#send(bytes, to, opcode, resultCode, lifetimeSeconds, epochSeconds, external);
  }

  /** Answers with an error, by a copy of the request (PCP-S-16). */
  refuse(
    data: Uint8Array,
    to: Endpoint,
    resultCode: number,
    now: Instant,
    options: { lifetimeSeconds?: number | undefined; isParsed?: boolean } = {},
  ): void {
    const lifetimeSeconds = options.lifetimeSeconds ?? this.#usualSeconds(resultCode);
    const epochSeconds = this.epochSeconds(now);
    const parsed = options.isParsed ?? true;
    const bytes = encodeErrorResponse(data, { resultCode, lifetimeSeconds, epochSeconds, parsed });
    this.#send(bytes, to, data[1]!, resultCode, lifetimeSeconds, epochSeconds);
  }

  /** Announces to each group, unasked (PCP-S-49). */
  announce(now: Instant): void {
    const epochSeconds = this.epochSeconds(now);
    const { SUCCESS: resultCode } = PCP_RESULT;
    for (const to of this.#settings.announceTo) {
      const bytes = encodeResponse({
        kind: "announce",
        resultCode,
        lifetimeSeconds: 0,
        epochSeconds,
        options: NO_OPTIONS,
      });
      const key = `announce ${to.address} ${to.port}`;
      this.#send(bytes, to, PCP_OPCODE.ANNOUNCE, resultCode, 0, epochSeconds, undefined, key);
      this.#stats.announcements++;
    }
  }

  /** Tells a client, unasked, where its mapping is, or that it is no more (PCP-S-51). */
  update({ entry, resultCode }: MappingUpdate, now: Instant): void {
    const { requester, internal, external, remote, protocol } = entry;
    const epochSeconds = this.epochSeconds(now);
    const lifetimeSeconds = resultCode === PCP_RESULT.SUCCESS
      ? remainingSeconds(entry, now)
      : this.#usualSeconds(resultCode);
    const fields = {
      resultCode,
      lifetimeSeconds,
      epochSeconds,
      nonce: entry.nonce ?? new Uint8Array(12),
      protocol,
      internalPort: internal.port,
      externalPort: external.port,
      externalAddress: external.address,
      options: updateOptions(entry),
    };
    const response: PcpMapResponseMessage | PcpPeerResponseMessage = remote
      ? { kind: "peer", ...fields, remotePort: remote.port, remoteAddress: remote.address }
      : { kind: "map", ...fields };
    const key = noticeKey(protocol, internal.address, internal.port, remote);
    const opcode = remote ? PCP_OPCODE.PEER : PCP_OPCODE.MAP;
    const bytes = encodeResponse(response);
    this.#send(bytes, requester!, opcode, resultCode, lifetimeSeconds, epochSeconds, external, key);
    this.#stats.updates++;
  }

  #usualSeconds(resultCode: number): number {
    const { shortErrorSeconds, longErrorSeconds } = this.#settings;
    return SHORT_ERRORS.has(resultCode) ? shortErrorSeconds : longErrorSeconds;
  }

  #send(
    bytes: Uint8Array,
    to: Endpoint,
    opcode: number,
    resultCode: number,
    lifetimeSeconds: number,
    epochSeconds: number,
    external?: Endpoint,
    key?: string,
  ): void {
    this.#outbox.send("server", to, bytes, key);
    const isUnsolicited = key !== undefined;
    const result = pcpResultName(resultCode);
    if (!isUnsolicited) count(this.#stats.responses, result);
    if (!this.#isTraced) return;
    this.#outbox.emit({
      type: "response",
      to,
      opcode,
      resultCode,
      result,
      lifetimeSeconds,
      epochSeconds,
      ...external ? { external } : undefined,
      isUnsolicited,
    });
  }
}
