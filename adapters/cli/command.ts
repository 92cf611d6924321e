/**
 * What a command is, and what it is given to run with.
 *
 * @module
 */
import type { Nat } from "../api/nat.ts";
import type { NatOptions } from "../api/options.ts";
import type { UpnpClient, UpnpClientOptions } from "../api/upnp_client.ts";
import type { Runtime } from "../runtime.ts";
import type { CommandSpec, HelpList } from "./args.ts";
import type { FlagValues } from "./flags.ts";
import type { Io } from "./io.ts";
import { type Output, tenths } from "./output.ts";
import { defaultStatePath, StateFile } from "./state_file.ts";

/** A command of `natkit`. */
export interface Command extends CommandSpec {
  /** Loads what it needs: no command waits for the code of another one. */
  load(): Promise<CommandModule>;
}

/** What a command's module holds. */
export interface CommandModule {
  /** Does it; answers the exit status. What it throws is told as its failure. */
  run(context: Context): Promise<number>;
  /** Lists at the end of the help text. */
  readonly lists?: readonly HelpList[];
}

/** What a test puts in the place of the real thing. */
export interface Parts {
  /** Another runtime than the one this runs on. */
  readonly runtime?: Runtime;
  /** Another way to open a {@linkcode Nat}. */
  readonly openNat?: (options: NatOptions) => Promise<Nat>;
  /** Another way to open a {@linkcode UpnpClient}. */
  readonly openUpnp?: (options: UpnpClientOptions) => Promise<UpnpClient>;
}

/** A person is told what is waited for after this long, the start of the operation included… */
const TELLING_MS = 500;
/** …but not before an answer that is as quick as most are could have come. */
const SOON_MS = 150;

/** What a command is given. */
export class Context {
  /** The flags. */
  readonly flags: FlagValues;
  /** What follows the command's name. */
  readonly positionals: readonly string[];
  /** The process. */
  readonly io: Io;
  /** Where to tell what happens. */
  readonly output: Output;
  /** All commands that there are. */
  readonly commands: readonly CommandSpec[];
  /** Aborted, with a `Stopped`, when the command is to clean up and end. */
  readonly stop: AbortSignal;
  /** The runtime's adapter. */
  readonly runtime: Runtime;
  /** What a test put in the place of the real thing. */
  readonly parts: Pick<Parts, "openNat" | "openUpnp">;
  readonly #startedAt: number;
  /** What a person has been told of. */
  readonly #told = new Set<string>();

  /** @param startedAt When the operation started, on the clock of `io`. */
  constructor(
    parts:
      & Pick<Parts, "openNat" | "openUpnp">
      & Pick<Context, "flags" | "positionals" | "io" | "output" | "commands" | "runtime">,
    stop: AbortSignal,
    startedAt: number,
  ) {
    this.flags = parts.flags;
    this.positionals = parts.positionals;
    this.io = parts.io;
    this.output = parts.output;
    this.commands = parts.commands;
    this.runtime = parts.runtime;
    this.parts = parts;
    this.stop = stop;
    this.#startedAt = startedAt;
  }

  /** Milliseconds since the start of the operation, to a tenth. */
  elapsedMs(): number {
    return tenths(this.io.now() - this.#startedAt);
  }

  /** Tells a person what goes on, where that was not told already. */
  progressOnce(text: string): void {
    if (this.#isNew(text)) this.output.progress(text);
  }

  #isNew(text: string): boolean {
    const isNew = !this.#told.has(text);
    this.#told.add(text);
    return isNew;
  }

  /** Waits, and tells a person for what, once, where that takes longer than half a second. */
  async waitingFor<T>(what: string, promise: Promise<T>): Promise<T> {
    const tell = () => this.progressOnce(`Waiting for ${what}…`);
    const since = this.elapsedMs();
    // What started slowly has kept a person waiting already.
    const delayMs = since < TELLING_MS ? Math.max(SOON_MS, TELLING_MS - since) : TELLING_MS;
    const cancel = this.runtime.setTimer(delayMs, tell, false);
    try {
      return await promise;
    } finally {
      cancel();
    }
  }

  /** How long to wait for an answer, where the command line says so. */
  get timeoutMs(): number | undefined {
    const { timeout } = this.flags;
    return timeout === undefined ? undefined : 1000 * timeout;
  }

  /** The file in which mappings are kept. */
  stateFile(): StateFile {
    const path = this.flags.state ?? defaultStatePath(this.io.env);
    // It is written several times, and cannot be for the same reason each time.
    return new StateFile(path, (text) => this.#isNew(text) && this.output.warn(text));
  }
}
