/**
 * Deleting what this run did not make: a mapping of an earlier run by the protocol and nonce saved
 * of it, any other by each protocol in turn, or all of a transport.
 *
 * Where nobody knows by which protocol a mapping was made, the preferred one goes last: miniupnpd's
 * NAT-PMP confirms also what it does not do, and PCP tells whether something is left.
 *
 * @module
 */
import type { Instant } from "../machine.ts";
import { describeFailure, type Failure, type Transport } from "../mapping.ts";
import { clientRequest, type ManagedMapping, newContender } from "./managed.ts";
import type { Speaker } from "./path.ts";

/** Begins a removal by these, one after the other. False where there are none. */
export function beginRemoval(
  managed: ManagedMapping,
  speakers: readonly Speaker[],
  now: Instant,
): boolean {
  managed.contenders = speakers.map(newContender);
  return removeNext(managed, now);
}

/** Asks the next one. False where there is none left. */
export function removeNext(managed: ManagedMapping, now: Instant): boolean {
  const next = managed.contenders.find(({ state }) => state === "waiting");
  if (!next) return false;
  const { speaker } = next;
  next.state = "asking";
  next.id = speaker.client.unmap(clientRequest(managed, speaker), now);
  speaker.managed.set(next.id, managed.id);
  return true;
}

/** Deletes all mappings of a transport that this host has there. False where that is no protocol's. */
export function beginRemovalOfAll(
  managed: ManagedMapping,
  transport: Transport,
  speakers: readonly Speaker[],
  now: Instant,
): boolean {
  const speaker = speakers.find(({ client }) => client.revokeAll !== undefined);
  if (!speaker) return false;
  const waiting = speaker.removingAll.get(transport);
  // One request on its way answers all who want it.
  if (waiting) waiting.add(managed.id);
  else {
    speaker.removingAll.set(transport, new Set([managed.id]));
    speaker.client.revokeAll!(transport, now);
  }
  return true;
}

/** One has deleted it, or is past asking. */
export function noteRemoval(
  managed: ManagedMapping,
  speaker: Speaker,
  failure: Failure | undefined,
  now: Instant,
): void {
  managed.note(speaker, failure ? describeFailure(failure) : "unmapped", now);
}
