/**
 * From arguments to an exit status: parses, runs the command, ends it at signals, tells failures.
 *
 * @module
 */
import { parse, type ParsedArgs, wantsJson } from "./args.ts";
import { type Command, Context, type Parts, Stopped } from "./command.ts";
import { COMMANDS } from "./commands/mod.ts";
import type { Io, StopSignal } from "./io.ts";
import { Output, reportOf } from "./output.ts";
import { commandHelp, generalHelp } from "./usage.ts";
import { UsageError } from "./values.ts";
import { VERSION } from "./version.ts";

const SIGNAL_STATUS: { readonly [Signal in StopSignal]: number } = { SIGINT: 130, SIGTERM: 143 };

/** Runs one command line; answers the exit status. It never rejects. */
export async function runCommandLine(
  args: readonly string[],
  io: Io,
  parts: Parts = {},
): Promise<number> {
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
    return await run(command, parsed, { ...parts, io, output });
  } catch (error) {
    return fail(error, output);
  }
}

async function run(
  command: Command,
  { flags, positionals }: ParsedArgs<Command>,
  parts: Parts & { readonly io: Io; readonly output: Output },
): Promise<number> {
  const { io, output } = parts;
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
    const context = new Context({ ...parts, flags, positionals }, stop.signal);
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
