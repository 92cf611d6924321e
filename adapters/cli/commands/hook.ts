/**
 * The user's own command, run at each change of what is mapped.
 *
 * Theory of operation: one runs at a time, so that what the last one did is what holds. A change that
 * comes meanwhile waits, and the next one of the same port takes its place: a command is told how
 * things stand, however long the one before took. The mapping waits for none of them; the end of
 * natkit does.
 *
 * The command line is the user's, and the shell's to read. What happened goes beside it, in the
 * environment, and of that what the network may have had a hand in holds no character that means
 * anything to a shell.
 *
 * @module
 */
import type { Endpoint } from "../../../core/machine.ts";
import type { Context } from "../command.ts";
import type { CliEvent, MappingFields } from "../events.ts";
import type { Started } from "../io.ts";

/** How long a command may take, milliseconds. */
const LIMIT_MS = 10_000;
/** How long it may take to end once it is told to. */
const END_MS = 1000;

/** What is a change; a renewal is none. */
const CHANGES = ["mapped", "moved", "lost", "unmapped"] as const;

/** The variables, of which each run has those that apply. */
const NAMES = [
  "EVENT",
  "PROTOCOL",
  "VIA",
  "GATEWAY",
  "INTERNAL_ADDRESS",
  "INTERNAL_PORT",
  "EXTERNAL_ADDRESS",
  "EXTERNAL_PORT",
  "REMOTE_ADDRESS",
  "REMOTE_PORT",
  "LIFETIME",
  "REASON",
] as const;

type Variables = { readonly [Name in typeof NAMES[number]]?: string | number | undefined };

/** Runs `--exec`'s command. */
export class Hook {
  readonly #context: Context;
  /** What waits, by its port, in the order in which the ports began to. */
  readonly #waiting = new Map<string, Variables>();
  #running: Promise<void> | undefined;

  constructor(context: Context) {
    this.#context = context;
  }

  /** Runs it where the event is a change and there is a command. */
  told(event: CliEvent): void {
    const { exec } = this.#context.flags;
    if (exec === undefined || !isChange(event)) return;
    const variables = variablesOf(event);
    const key = `${variables.INTERNAL_PORT}/${variables.PROTOCOL}`;
    this.#waiting.set(key, variables);
    this.#running ??= this.#runAll(exec);
  }

  /** Waits until all have run. */
  async end(): Promise<void> {
    if (this.#running) await this.#context.waitingFor("the command of --exec", this.#running);
  }

  async #runAll(command: string): Promise<void> {
    for (let next; (next = [...this.#waiting][0]);) {
      this.#waiting.delete(next[0]);
      await this.#run(command, next[1]);
    }
    this.#running = undefined;
  }

  async #run(command: string, variables: Variables): Promise<void> {
    const { io, output, runtime } = this.#context;
    const env = Object.fromEntries(
      Object.entries(io.env).flatMap(([name, value]) => value === undefined ? [] : [[name, value]]),
    );
    for (const name of NAMES) {
      const value = variables[name];
      if (value === undefined) delete env[`NATKIT_${name}`];
      else env[`NATKIT_${name}`] = harmless(String(value));
    }
    const at = `--exec at ${variables.EVENT}`;
    let started: Started;
    try {
      started = await io.start(command, env);
    } catch (error) {
      return output.warn(`${at}: ${error instanceof Error ? error.message : error}`);
    }
    let cancel = () => {};
    const stop = () => {
      output.warn(`${at} did not end within ${LIMIT_MS / 1000} s: it is ended`);
      started.kill("SIGTERM");
      cancel = runtime.setTimer(END_MS, () => started.kill("SIGKILL"), true);
    };
    cancel = runtime.setTimer(LIMIT_MS, stop, true);
    const end = await started.ended;
    cancel();
    if (end !== 0) output.warn(`${at} failed: ${typeof end === "number" ? `status ${end}` : end}`);
  }
}

type Change =
  | (CliEvent & MappingFields & { readonly reason?: string })
  | CliEvent & { readonly event: "unmapped" };

function isChange(event: CliEvent): event is Change {
  return (CHANGES as readonly string[]).includes(event.event);
}

function variablesOf(event: Change): Variables {
  const { protocol, via, gateway, internal, external, reason } = event;
  const remote: Endpoint | undefined = "remote" in event ? event.remote : undefined;
  return {
    EVENT: event.event,
    PROTOCOL: protocol,
    VIA: via,
    GATEWAY: gateway,
    INTERNAL_ADDRESS: internal?.address,
    INTERNAL_PORT: internal?.port,
    EXTERNAL_ADDRESS: external?.address,
    EXTERNAL_PORT: external?.port,
    REMOTE_ADDRESS: remote?.address,
    REMOTE_PORT: remote?.port,
    LIFETIME: "lifetimeSeconds" in event ? event.lifetimeSeconds : undefined,
    REASON: reason,
  };
}

/** Without what a shell would read: Windows' puts the value in the place of the name, and reads on. */
function harmless(text: string): string {
  return text.replace(/[^A-Za-z0-9 _.,:;/[\]%+-]/g, " ");
}
