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
import { parse, type ParsedArgs, wantsJson } from "./args.ts";
import { type Command, Context, Stopped } from "./command.ts";
import { COMMANDS } from "./commands/mod.ts";
import { type Io, processIo, type StopSignal } from "./io.ts";
import { Output, reportOf } from "./output.ts";
import { commandHelp, generalHelp } from "./usage.ts";
import { UsageError } from "./values.ts";
import { VERSION } from "./version.ts";

export type { Io, StopSignal } from "./io.ts";

const SIGNAL_STATUS: { readonly [Signal in StopSignal]: number } = { SIGINT: 130, SIGTERM: 143 };

/**
 * Runs one command line to its end and answers the exit status: 0 done, 1 failed, 2 wrong usage,
 * 130 after SIGINT, 143 after SIGTERM. It throws nothing and ends no process, but for a second
 * signal, which ends it at once.
 *
 * @param args What follows the program's name.
 * @param io The process to run in; by default the one this runs in.
 */
export async function main(args: readonly string[], io: Io = processIo()): Promise<number> {
  const output = new Output(io, wantsJson(args));
  try {
    const parsed = parse(args, COMMANDS);
    const { command, flags } = parsed;
    if (flags.version) {
      output.event({ event: "version", version: VERSION });
      return 0;
    }
    if (flags.help) {
      const text = command ? commandHelp(command) : generalHelp(COMMANDS);
      output.event({ event: "help", text });
      return 0;
    }
    if (!command) {
      const names = COMMANDS.map((one) => one.name).join(", ");
      throw new UsageError(`natkit needs a command: commands are ${names}`);
    }
    return await run(command, parsed, io, output);
  } catch (error) {
    return fail(error, output);
  }
}

async function run(
  command: Command,
  { flags, positionals }: ParsedArgs<Command>,
  io: Io,
  output: Output,
): Promise<number> {
  const stop = new AbortController();
  let stopped: Stopped | undefined;
  const end = (reason: Stopped) => stop.abort(stopped ??= reason);
  const offSignal = io.onSignal((signal) => {
    if (stopped?.signal) io.exit(SIGNAL_STATUS[signal]);
    else end(new Stopped(signal));
  });
  const offClosed = io.onOutputClosed(() => end(new Stopped()));
  const statusOf = ({ signal }: Stopped) => signal ? SIGNAL_STATUS[signal] : 1;
  try {
    const context = new Context({ flags, positionals, io, output }, stop.signal);
    const status = await command.run(context);
    return stopped ? statusOf(stopped) : status;
  } catch (error) {
    if (!stopped) return fail(error, output);
    output.fail({ code: "interrupted", message: stopped.message, attempts: [] });
    return statusOf(stopped);
  } finally {
    offSignal();
    offClosed();
  }
}

function fail(error: unknown, output: Output): number {
  const { report, status } = reportOf(error);
  output.fail(report);
  return status;
}
