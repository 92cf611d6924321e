/**
 * Notices that this host's network changed: routes, addresses, and from where the system would
 * send. JavaScript runtimes have no route events, so all that is read again every few seconds.
 *
 * @module
 */
import { networkFingerprint } from "../discovery/mod.ts";
import type { Runtime } from "../runtime.ts";

/** First the gateway is asked: reading costs as much as that, milliseconds. */
const FIRST_READING_MS = 100;

/**
 * Calls back after each change, one call at a time. A step that failed is taken again at the next
 * reading, also where nothing has changed since.
 *
 * @param onChange Returns whether it has done what there was to do.
 * @returns Stops watching.
 */
export function watchNetwork(runtime: Runtime, onChange: () => Promise<boolean>): () => void {
  let isStopped = false;
  let known: string | undefined;
  const poll = async () => {
    const { text, readAgainMs } = await networkFingerprint(runtime);
    if (isStopped) return;
    if (text !== known && await onChange().catch(() => false)) known = text;
    if (!isStopped) cancel = runtime.setTimer(readAgainMs, () => void poll(), false);
  };
  let cancel = runtime.setTimer(FIRST_READING_MS, () => void poll(), false);
  return () => {
    isStopped = true;
    cancel();
  };
}
