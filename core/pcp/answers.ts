/**
 * What an answer does to the lease it matches (RFC 6887 §8.3, §11.4, §12.4, §14.2). Answers come
 * at any time, asked for or not, and later ones may say something else (PCP-C-19).
 *
 * @module
 */
import type { Endpoint, Instant } from "../machine.ts";
import type { Failure } from "../mapping.ts";
import {
  PCP_NONCE_LENGTH,
  PCP_NONCE_OFFSET,
  PCP_OPCODE,
  PCP_RESULT,
  type PcpMapResponseMessage,
  type PcpPeerResponseMessage,
  type PcpUnsupportedVersion,
} from "./codec.ts";
import type { Engine } from "./engine.ts";
import {
  grantedExternal,
  holdMs,
  isTransient,
  keepsPromise,
  refusal,
  versionHoldMs,
} from "./judge.ts";
import { deletionOf, type Lease } from "./lease.ts";
import { hasPaddedOptions } from "./request.ts";

/** How long a server whose success cannot be one is left alone, milliseconds. */
const VIOLATION_WAIT_MS = 30_000;
/** An unsolicited success that changes less than this is a duplicate, milliseconds. */
const DUPLICATE_MS = 2000;

/** A MAP or PEER response. */
export type MappingResponse = PcpMapResponseMessage | PcpPeerResponseMessage;

/** Takes a success. False where it says nothing about the lease as it stands. */
export function succeed(
  engine: Engine,
  lease: Lease,
  response: MappingResponse,
  now: Instant,
): boolean {
  if (lease.phase === "deleting") {
    // What is no answer to the deletion is a late one to what was asked before.
    const isAnswer = response.lifetimeSeconds === 0 ||
      (response.externalPort === 0 && lease.wish.internalPort !== 0);
    if (!isAnswer) return engine.drop("stale");
    engine.unmapped(lease, "revoked", now);
    return true;
  }
  if (response.lifetimeSeconds === 0) {
    if (!lease.isGranted) return violates(engine, lease, "D-07", now);
    engine.lose(lease, { kind: "expired" }, now);
    return true;
  }
  const external = grantedExternal(lease, response, engine.localAddress);
  if (!external) return violates(engine, lease, "D-08", now);
  if (!keepsPromise(lease, external)) return breaksPromise(engine, lease, now);
  grant(engine, lease, external, response, now);
  return true;
}

function grant(
  engine: Engine,
  lease: Lease,
  external: Endpoint,
  response: MappingResponse,
  now: Instant,
): void {
  // A restart's announcement may overtake the answer: the lease is recovering then, no more in flight.
  const isSolicited = lease.isInFlight || lease.phase === "recovering";
  const oldEnd = lease.expiresAt ?? -Infinity;
  const type = grantType(lease, external);
  lease.external = engine.share(external, lease.external);
  lease.description = undefined;
  lease.portSet = undefined;
  for (const option of response.options) {
    if (option.type === "description") lease.description = option.text;
    if (option.type === "port-set") {
      const { size, firstInternalPort, parity } = option;
      lease.portSet = { size, firstInternalPort, parity };
    }
  }
  lease.grant(response.lifetimeSeconds, now);
  engine.stats.granted++;
  engine.outbox.unsend(lease.id);
  engine.plan(lease, now);
  const moved = Math.abs(lease.expiresAt! - oldEnd);
  if (type === "renewed" && !isSolicited && moved <= DUPLICATE_MS) return;
  engine.tell(lease, type);
}

function grantType(lease: Lease, external: Endpoint): "mapped" | "renewed" | "moved" | "recovered" {
  const { told } = lease;
  if (!told) return "mapped";
  if (lease.isLost) return "recovered";
  return told.address === external.address && told.port === external.port ? "renewed" : "moved";
}

/** A success that cannot be one: nothing where a grant is running, else the request failed. */
function violates(engine: Engine, lease: Lease, clause: string, now: Instant): boolean {
  if (lease.isGranted) return engine.drop("violation");
  if (lease.phase !== "asking") return engine.drop("stale");
  engine.fail(lease, { kind: "protocol-violation", clause }, now + VIOLATION_WAIT_MS, now);
  return true;
}

/**
 * A success with another endpoint than PREFER_FAILURE asked for. The RFC knows one reason, the
 * Mapping Update of a predecessor (§13.2), and a nonce of one's own rules that out; miniupnpd 2.3.1
 * knows another: it does so for a port in use. What it made is taken back.
 */
function breaksPromise(engine: Engine, lease: Lease, now: Instant): boolean {
  const clause = "PCP-C-48";
  if (lease.phase !== "asking" && !lease.isGranted) return engine.drop("stale");
  // Once, and without waiting for an answer.
  engine.stats.sent.delete++;
  engine.outbox.send("client", engine.servers.current, deletionOf(lease, engine.localAddress));
  if (!lease.isGranted) return violates(engine, lease, clause, now);
  engine.lose(lease, { kind: "protocol-violation", clause }, now, now + VIOLATION_WAIT_MS);
  return true;
}

/** Takes a refusal. False where nothing was asked that it could answer. */
export function refuse(
  engine: Engine,
  lease: Lease,
  code: number,
  lifetimeSeconds: number,
  now: Instant,
): boolean {
  // A refusal that comes twice must not be told twice.
  const isExpected = lease.isInFlight || (lease.isGranted && lease.phase !== "held");
  if (!isExpected) return engine.drop("stale");
  engine.stats.refused++;
  const retryAt = now + holdMs(lifetimeSeconds);
  const isDelete = lease.phase === "deleting";
  if (code === PCP_RESULT.NO_RESOURCES) engine.blockade.extend(retryAt, isDelete);
  if (code === PCP_RESULT.MALFORMED_OPTION && leavesOutPadded(engine, lease, now)) return true;
  const failure = refusal(code, retryAt);
  if (isDelete) {
    // Asking again would be the same request (PCP-C-22). miniupnpd 2.3.1 answers NO_RESOURCES where
    // there is nothing to delete, which is what was wanted.
    const isNothing = code === PCP_RESULT.NO_RESOURCES;
    engine.unmapped(lease, "revoked", now, isNothing ? undefined : failure);
  } else if (!lease.isGranted) engine.fail(lease, failure, retryAt, now);
  else if (lease.phase === "renewing" && isTransient(code)) engine.hold(lease, retryAt);
  else engine.lose(lease, failure, now, retryAt);
  return true;
}

/** Asks once more without the options that miniupnpd 2.3.1 takes for malformed. */
function leavesOutPadded(engine: Engine, lease: Lease, now: Instant): boolean {
  if (!lease.isInFlight || lease.leavesOutPadded || !hasPaddedOptions(lease.wish)) return false;
  lease.leavesOutPadded = true;
  if (lease.phase === "deleting") engine.revokeAnew(lease, now);
  else engine.ask(lease, !lease.isGranted, now);
  return true;
}

/**
 * The server does not speak our version: what is in flight and what it can answer comes to nothing
 * (PCP-C-13, PCP-C-27, PCP-C-28, D-01, D-02). False where that is nothing.
 */
export function refuseVersion(
  engine: Engine,
  response: PcpUnsupportedVersion,
  data: Uint8Array,
  now: Instant,
): boolean {
  const { version, opcode } = response;
  const failure: Failure = { kind: "unsupported-version", version };
  const retryAt = now + versionHoldMs(response.lifetimeSeconds);
  // A copy of the request brings its nonce back; only what is shorter speaks to all.
  const hasNonce = version !== 0 && data.length >= PCP_NONCE_OFFSET + PCP_NONCE_LENGTH;
  let isTaken = false;
  for (const lease of [...engine.book.all()]) {
    if (!lease.isInFlight) continue;
    if (version !== 0 && opcode !== PCP_OPCODE[lease.wish.kind === "map" ? "MAP" : "PEER"]) {
      continue;
    }
    if (hasNonce && engine.book.match(lease.key, data) !== lease) continue;
    isTaken = true;
    if (lease.phase === "deleting") engine.unmapped(lease, "revoked", now, failure);
    else if (lease.isGranted) engine.lose(lease, failure, now, retryAt);
    else engine.fail(lease, failure, retryAt, now);
  }
  return isTaken;
}
