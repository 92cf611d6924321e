/**
 * Notices that this host's addresses changed. JavaScript runtimes have no route events, so the list
 * of interface addresses is read again every 15 seconds.
 *
 * @module
 */
import type { Runtime } from "../runtime.ts";

const POLL_MS = 15_000;

/**
 * Calls back after each change, one call at a time.
 *
 * @returns Stops watching.
 */
export function watchNetwork(runtime: Runtime, onChange: () => Promise<void>): () => void {
  let isStopped = false;
  let known = signature(runtime);
  let cancel = (): void => {};
  const poll = async () => {
    const seen = signature(runtime);
    if (seen !== known) {
      known = seen;
      await onChange();
    }
    arm();
  };
  const arm = () => {
    if (!isStopped) cancel = runtime.setTimer(POLL_MS, poll, false);
  };
  arm();
  return () => {
    isStopped = true;
    cancel();
  };
}

/** The addresses as one text; unreadable (a missing permission) counts as unchanging. */
function signature(runtime: Runtime): string {
  try {
    return runtime.interfaces().map(({ name, address }) => `${name} ${address}`).sort().join();
  } catch {
    return "";
  }
}
