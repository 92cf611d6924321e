/**
 * The program: runs {@linkcode main} on the process's arguments and ends with its status, once what
 * was written has reached its reader.
 *
 * Theory of operation: a task runner passes on the signal that the terminal already sent, and may do
 * so when the command is over. So the process listens until it is gone: it ends by `process.exit`,
 * since Node, when it ends by itself, takes the listeners off some milliseconds before the end, and
 * what comes then is death by a signal instead of the status that says that all is cleaned up.
 *
 * @module
 */
import process from "node:process";
import type { Writable } from "node:stream";
import { STOP_SIGNALS } from "./io.ts";
import { main } from "./main.ts";

/** A reader that takes nothing for longer than this is not waited for after the next signal. */
const PATIENCE_MS = 1000;

async function run(): Promise<void> {
  let overAt = Infinity;
  const running = main(process.argv.slice(2));
  for (const signal of STOP_SIGNALS) {
    process.on(signal, () => {
      if (performance.now() - overAt > PATIENCE_MS) process.exit();
    });
  }
  process.exitCode = await running;
  overAt = performance.now();
  await Promise.all([process.stdout, process.stderr].map(drained));
  process.exit();
}

/** Waits until all that was written is taken, or nobody reads any more. */
function drained(stream: Writable): Promise<void> {
  return new Promise<void>((resolve) => {
    stream.write("", () => resolve());
  }).catch(() => {});
}

void run();
