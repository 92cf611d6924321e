/**
 * The `natkit` command in the lab, on one of the runtimes.
 *
 * @module
 */
import { ROOT } from "../lib/files.ts";
import { must } from "../lib/process.ts";
import { bunPath, type Runtime } from "../lib/runtimes.ts";
import type { Lab } from "./lab.ts";
import type { LabProcess } from "./process.ts";
import type { Place } from "./topology.ts";

/** The programs that run in the lab. */
const SOURCES = {
  natkit: `${ROOT}/adapters/cli/bin.ts`,
  probe: `${ROOT}/scripts/lab/probe.ts`,
  dht: `${ROOT}/scripts/examples/apps/bittorrent_dht.ts`,
  http: `${ROOT}/scripts/examples/apps/http_server.ts`,
} as const;

/** What Deno runs as it is. */
const SCRIPTS = {
  werift: `${ROOT}/scripts/lab/peers/werift_peer.ts`,
  libp2p: `${ROOT}/scripts/examples/apps/libp2p.ts`,
} as const;

type Program = keyof typeof SOURCES;

const bundleOf = (program: Program) => `${ROOT}/.build/lab/${program}.js`;

/** A line of `--json`. */
export type Event = { readonly event: string; readonly [field: string]: unknown };

/** What a command has done when it has ended. */
export interface Done {
  readonly code: number;
  readonly events: Event[];
  /** Everything it said, for messages. */
  readonly said: string;
}

/** Makes the programs ready for every runtime, before anything runs without a network. */
export async function buildPrograms(): Promise<void> {
  for (const program of Object.keys(SOURCES) as Program[]) {
    const source = SOURCES[program];
    await must([Deno.execPath(), "cache", source], { cwd: ROOT });
    const bundle = ["bundle", "--quiet", "--platform=deno", source, "--output", bundleOf(program)];
    await must([Deno.execPath(), ...bundle], { cwd: ROOT });
  }
  for (const script of Object.values(SCRIPTS)) {
    await must([Deno.execPath(), "cache", script], { cwd: ROOT });
  }
  await Deno.writeTextFile(`${ROOT}/.build/lab/package.json`, '{ "type": "module" }\n');
}

/** The words that start natkit on a runtime. */
export async function natkitCommand(runtime: Runtime): Promise<string[]> {
  if (runtime === "Node") return ["node", bundleOf("natkit")];
  if (runtime === "Bun") return [await bunPath(), bundleOf("natkit")];
  return [Deno.execPath(), "run", "-A", "--cached-only", SOURCES.natkit];
}

/** The words that start a program of other hands that natkit makes reachable, one a runtime. */
export async function appCommand(runtime: Runtime): Promise<string[]> {
  if (runtime === "Node") return ["node", bundleOf("dht")];
  if (runtime === "Bun") return [await bunPath(), bundleOf("http")];
  return [Deno.execPath(), "run", "-A", "--cached-only", SCRIPTS.libp2p];
}

/**
 * Every way in which a runtime may have to find its way about, by name: Deno with its own UDP API
 * and with Node's, and with no more permissions than it needs.
 */
export async function probeCommands(runtime: Runtime): Promise<Record<string, string[]>> {
  if (runtime === "Node") return { Node: ["node", bundleOf("probe")] };
  if (runtime === "Bun") return { Bun: [await bunPath(), bundleOf("probe")] };
  const deno = (...flags: string[]) => [
    ...[Deno.execPath(), "run", "--no-prompt", "--no-config", "--no-lock", "--cached-only"],
    ...[...flags, bundleOf("probe")],
  ];
  const fewest = ["--allow-net", "--allow-sys=networkInterfaces", "--allow-run=ip"];
  return {
    "Deno": deno("-A", "--unstable-net"),
    "Deno over node:dgram": deno("-A"),
    "Deno with few permissions": deno("--unstable-net", ...fewest),
  };
}

/** Runs natkit in one place of a lab; its state file lives as long as the lab. */
export class Natkit {
  readonly #lab: Lab;
  readonly #place: Place;
  readonly #command: readonly string[];
  readonly #cwd: string;

  constructor(
    lab: Lab,
    command: readonly string[],
    place: Place = "host",
    cwd: string = lab.folder,
  ) {
    this.#lab = lab;
    this.#command = command;
    this.#place = place;
    this.#cwd = cwd;
  }

  /** The same command in another place. */
  at(place: Place): Natkit {
    return new Natkit(this.#lab, this.#command, place, this.#cwd);
  }

  /** Runs a command to its end. */
  async run(...args: string[]): Promise<Done> {
    const argv = [...this.#command, ...args, "--json"];
    const { code, stdout, stderr } = await this.#lab.exec(this.#place, argv, this.#options);
    return { code, events: eventsIn(stdout.split("\n")), said: `${stdout}${stderr}` };
  }

  /** Starts a command that runs until it is told to end. */
  start(...args: string[]): RunningNatkit {
    const argv = [...this.#command, ...args, "--json"];
    const options = { ...this.#options, takesLines: true };
    return new RunningNatkit(this.#lab.spawn(this.#place, argv, options));
  }

  get #options(): { cwd: string; env: Record<string, string> } {
    return { cwd: this.#cwd, env: { XDG_STATE_HOME: `${this.#lab.folder}/state`, NO_COLOR: "1" } };
  }
}

/** A natkit that holds a mapping, or is a gateway. */
export class RunningNatkit {
  readonly #process: LabProcess;

  constructor(process: LabProcess) {
    this.#process = process;
  }

  /** Waits for the next event of this name; others before it are passed over. */
  async event(name: string, withinMs?: number): Promise<Event> {
    const line = await this.#process.line((line) => nameOf(line) === name, withinMs);
    return JSON.parse(line);
  }

  /** Writes a scenario command. */
  write(line: string): Promise<void> {
    return this.#process.write(line);
  }

  /** Sends a signal, where it does not end by itself, and waits for the end. */
  async end(signal?: Deno.Signal): Promise<Done> {
    if (signal !== undefined) this.#process.signal(signal);
    const { code } = await this.#process.status;
    return { code, events: eventsIn(this.#process.lines), said: this.#process.said() };
  }
}

function eventsIn(lines: readonly string[]): Event[] {
  return lines.filter((line) => line.trim() !== "").map((line) => JSON.parse(line));
}

function nameOf(line: string): string | undefined {
  try {
    return JSON.parse(line).event;
  } catch {
    return undefined;
  }
}
