/**
 * From arguments to an exit status: parses, runs the command, ends it at signals, tells failures.
 *
 * @module
 */
import { parse, wantsJson } from "./args.ts";
import { Context, type Parts } from "./command.ts";
import { COMMANDS } from "./commands/mod.ts";
import { type Io, Stopped, type StopSignal } from "./io.ts";
import type { Runtime } from "../runtime.ts";
import { Output, reportOf, tenths } from "./output.ts";
import { commandHelp, generalHelp } from "./usage.ts";
import { UsageError } from "./values.ts";
import { VERSION } from "./version.ts";

const SIGNAL_STATUS: { readonly [Signal in StopSignal]: number } = {
  SIGHUP: 129,
  SIGINT: 130,
  SIGTERM: 143,
};
/**
 * Signals that come within this time of the first are the first: a terminal signals all of its
 * foreground processes, and a task runner among them passes on what it got.
 */
const ONE_SIGNAL_MS = 1000;

/** Runs one command line; answers the exit status. It never rejects. */
export async function runCommandLine(
  args: readonly string[],
  io: Io,
  parts: Parts = {},
): Promise<number> {
  const startedAt = io.now();
  const output = new Output(io, wantsJson(args));
  const stop = new Stop(io);
  try {
    const status = await run(args, { ...parts, io, output }, stop.signal, startedAt);
    return stop.status ?? status;
  } catch (error) {
    const { report, status } = reportOf(stop.reason ?? error);
    output.fail(report);
    return stop.status ?? status;
  } finally {
    stop.dispose();
  }
}

async function run(
  args: readonly string[],
  parts: Parts & { readonly io: Io; readonly output: Output },
  stop: AbortSignal,
  startedAt: number,
): Promise<number> {
  const { output } = parts;
  const { command, flags, positionals } = parse(args, COMMANDS);
  if (flags.version) {
    output.event({ event: "version", version: VERSION });
    return 0;
  }
  if (flags.help) {
    const text = command
      ? commandHelp(command, (await command.load()).lists)
      : generalHelp(COMMANDS);
    output.event({ event: "help", text });
    return 0;
  }
  if (!command) {
    const names = COMMANDS.map((one) => one.name).join(", ");
    throw new UsageError(`natkit needs a command: commands are ${names}`);
  }
  const [{ run }, { systemRuntime }] = await Promise.all([command.load(), import("../auto.ts")]);
  const plain = parts.runtime ?? systemRuntime();
  const isVerbose = flags.verbose || !["", "0"].includes(parts.io.env.NATKIT_DEBUG ?? "");
  const runtime = isVerbose ? await logged(plain, parts, startedAt) : plain;
  const given = { ...parts, runtime, flags, positionals, commands: COMMANDS };
  return await run(new Context(given, stop, startedAt));
}

/** Loaded for who wants it. */
async function logged(
  runtime: Runtime,
  { io, output }: { readonly io: Io; readonly output: Output },
  startedAt: number,
): Promise<Runtime> {
  const { withPacketLog } = await import("./packet_log.ts");
  return withPacketLog(runtime, () => tenths(io.now() - startedAt), (line) => output.log(line));
}

/** What ends the command before it is done: a signal, or an output that nobody reads. */
class Stop {
  /** The first of them. */
  reason: Stopped | undefined;
  readonly #controller: AbortController = new AbortController();
  readonly #offs: readonly (() => void)[];
  #signalledAt: number | undefined;
  #status: number | undefined;

  /** Listens from here on. */
  constructor(io: Io) {
    this.#offs = [
      io.onSignal((signal) => this.#onSignal(signal, io)),
      io.onOutputClosed(() => this.#end(new Stopped(), 1)),
    ];
  }

  /** Aborted, with a {@linkcode Stopped}, when the command is to end. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The exit status that follows from it; undefined while nothing ended the command. */
  get status(): number | undefined {
    return this.#status;
  }

  /** Listens no more. */
  dispose(): void {
    for (const off of this.#offs) off();
  }

  #onSignal(signal: StopSignal, io: Io): void {
    const now = io.now();
    if (this.#signalledAt === undefined) {
      this.#signalledAt = now;
      this.#end(new Stopped(signal), SIGNAL_STATUS[signal]);
    } else if (now - this.#signalledAt >= ONE_SIGNAL_MS) io.exit(SIGNAL_STATUS[signal]);
  }

  /** A terminal that goes away closes the output and signals, in either order: the signal counts. */
  #end(reason: Stopped, status: number): void {
    if (this.#status === undefined || reason.signal) this.#status = status;
    this.reason ??= reason;
    this.#controller.abort(this.reason);
  }
}
