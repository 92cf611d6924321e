/**
 * Notices that this host's network changed: routes, addresses, and from where the system would
 * send. JavaScript runtimes have no route events, so all that is read again every few seconds.
 *
 * @module
 */
import { networkFingerprint } from "../discovery/mod.ts";
import type { Runtime } from "../runtime.ts";

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
  let cancel = (): void => {};
  const poll = async () => {
    const { text, readAgainMs } = await networkFingerprint(runtime);
    if (isStopped) return;
    if (known === undefined) known = text;
    else if (text !== known && await onChange().catch(() => false)) known = text;
    if (!isStopped) cancel = runtime.setTimer(readAgainMs, () => void poll(), false);
  };
  void poll();
  return () => {
    isStopped = true;
    cancel();
  };
}
