/**
 * The `natkit` command: opens ports on the home gateway from a shell.
 *
 * @example
 * ```ts
 * import { main } from "@natkit/natkit/cli";
 * const status = await main(["--version"]);
 * console.assert(status === 0);
 * ```
 *
 * @module
 */
import { runCommandLine } from "./command_line.ts";
import { type Io, processIo } from "./io.ts";

export type { Input, Io, Started, StopSignal } from "./io.ts";

/**
 * Runs one command line to its end and answers the exit status: 0 done, 1 failed, 2 wrong usage,
 * 129 after SIGHUP, 130 after SIGINT, 143 after SIGTERM. It throws nothing and ends no process, but
 * for a signal that comes a second or more after the first, which ends it at once.
 *
 * @param args What follows the program's name.
 * @param io The process to run in; by default the one this runs in.
 */
export function main(args: readonly string[], io: Io = processIo()): Promise<number> {
  return runCommandLine(args, io);
}
