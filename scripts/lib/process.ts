/**
 * Child processes for the scripts: run to the end with a guard against hanging, never leave one
 * behind when the script itself is ended.
 *
 * @module
 */

/** How often the guards look. */
const GUARD_EVERY_MS = 500;

const children = new Set<Deno.ChildProcess>();
const leavers: (() => void | Promise<void>)[] = [];
let guarded = false;

/** How a child is run. */
export interface RunOptions {
  readonly cwd?: string;
  /** Added to the environment of the script. */
  readonly env?: Record<string, string>;
  /** The child is killed after this long, and the result says so. Default: no guard. */
  readonly guardMs?: number;
  /** The same after this long without a word on its standard output. Default: no guard. */
  readonly silenceMs?: number;
  /** Written to the child's standard input, which is closed otherwise. */
  readonly stdin?: string;
  /** Shows the output as it comes instead of collecting it. */
  readonly inherit?: boolean;
  /** What the child starts ends with it, however it ends (not on Windows). */
  readonly isGroup?: boolean;
}

/** What became of a child. */
export interface RunResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Whether the guard ended it. */
  readonly hung: boolean;
  readonly elapsedMs: number;
}

/**
 * Runs a command to its end.
 *
 * @throws If the program cannot be started.
 */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  endChildrenWithMe();
  const startedAt = performance.now();
  const [program, ...args] = argv;
  if (program === undefined) throw new TypeError("Cannot run a command as 'argv' is empty");
  const output = options.inherit ? "inherit" : "piped";
  const child = new Deno.Command(program, {
    args,
    stdin: options.stdin === undefined ? "null" : "piped",
    stdout: output,
    stderr: output,
    detached: options.isGroup === true,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.env === undefined ? {} : { env: options.env }),
  }).spawn();
  children.add(child);
  let hung = false;
  let spokeAt = startedAt;
  const guard = setInterval(() => {
    const now = performance.now();
    const { guardMs = Infinity, silenceMs = Infinity } = options;
    if (now - startedAt <= guardMs && now - spokeAt <= silenceMs) return;
    hung = true;
    kill(child, "SIGKILL");
    if (options.isGroup) killGroup(child);
  }, GUARD_EVERY_MS);
  if (options.isGroup) void child.status.then(() => killGroup(child));
  try {
    if (options.stdin !== undefined) await feed(child, options.stdin);
    const [status, stdout, stderr] = await Promise.all([
      child.status,
      options.inherit ? "" : collect(child.stdout, () => spokeAt = performance.now()),
      options.inherit ? "" : new Response(child.stderr).text(),
    ]);
    return { code: status.code, stdout, stderr, hung, elapsedMs: performance.now() - startedAt };
  } finally {
    clearInterval(guard);
    children.delete(child);
  }
}

/** Like {@linkcode run}, but a failure throws with everything the child said. */
export async function must(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const result = await run(argv, options);
  if (result.code !== 0) {
    throw new Error(
      `Command failed with status ${result.code}: ${
        argv.join(" ")
      }\n${result.stdout}${result.stderr}`,
    );
  }
  return result;
}

/** Registers what must happen before the script ends by a signal. */
export function beforeLeaving(action: () => void | Promise<void>): void {
  leavers.push(action);
  endChildrenWithMe();
}

/** Takes part in {@linkcode beforeLeaving}'s clean-up, for children that `run` did not start. */
export function adopt(child: Deno.ChildProcess): void {
  children.add(child);
  void child.status.then(() => children.delete(child));
  endChildrenWithMe();
}

function endChildrenWithMe(): void {
  if (guarded) return;
  guarded = true;
  for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143], ["SIGHUP", 129]] as const) {
    if (Deno.build.os === "windows" && signal === "SIGTERM") continue;
    Deno.addSignalListener(signal, async () => {
      for (const child of children) kill(child, "SIGTERM");
      for (const action of leavers.splice(0)) await action();
      Deno.exit(code);
    });
  }
}

async function collect(stream: ReadableStream<Uint8Array>, spoke: () => void): Promise<string> {
  let text = "";
  for await (const part of stream.pipeThrough(new TextDecoderStream())) {
    text += part;
    spoke();
  }
  return text;
}

function kill(child: Deno.ChildProcess, signal: Deno.Signal): void {
  try {
    child.kill(signal);
  } catch {
    // It has ended by itself.
  }
}

function killGroup({ pid }: Deno.ChildProcess): void {
  try {
    if (Deno.build.os !== "windows") Deno.kill(-pid, "SIGKILL");
  } catch {
    // Nothing of it is left.
  }
}

async function feed(child: Deno.ChildProcess, text: string): Promise<void> {
  const writer = child.stdin.getWriter();
  try {
    await writer.write(new TextEncoder().encode(text));
    await writer.close();
  } catch {
    // It ended without reading: its status tells.
  }
}
