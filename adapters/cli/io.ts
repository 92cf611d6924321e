/**
 * What the command line needs of the process it runs in, so that tests can hand in another one.
 *
 * @module
 */
import process from "node:process";
import { createInterface } from "node:readline";
import type { Writable } from "node:stream";

/** The signals that end a command after it has cleaned up. */
export type StopSignal = "SIGHUP" | "SIGINT" | "SIGTERM";

/** All of them. */
export const STOP_SIGNALS: readonly StopSignal[] = ["SIGHUP", "SIGINT", "SIGTERM"];

/** Why a command ends before it is done: a signal, or nobody reads what it tells. */
export class Stopped extends Error {
  /** The signal, where it was one. */
  readonly signal: StopSignal | undefined;

  /** Makes the reason. */
  constructor(signal?: StopSignal) {
    super(signal ? `Interrupted by ${signal}` : "Standard output is closed");
    this.name = "Stopped";
    this.signal = signal;
  }
}

/** The process, as the command line sees it. */
export interface Io {
  /** Writes to standard output. */
  stdout(text: string): void;
  /** Writes to standard error. */
  stderr(text: string): void;
  /** Whether each of them is a terminal. */
  readonly isTerminal: {
    readonly stdin: boolean;
    readonly stdout: boolean;
    readonly stderr: boolean;
  };
  /** The environment. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Milliseconds on a clock that never goes back. */
  now(): number;
  /** Tells of the signals that end a command; returns what stops telling. */
  onSignal(callback: (signal: StopSignal) => void): () => void;
  /** Tells that nobody reads standard output any more; returns what stops telling. */
  onOutputClosed(callback: () => void): () => void;
  /** Tells each line of standard input until what it returned is called. */
  onLine(callback: (line: string) => void): () => void;
  /** Opens standard input as bytes. */
  openInput(): Input;
  /** Writes bytes to standard output; resolves once there is room for more. */
  write(data: Uint8Array): Promise<void>;
  /**
   * Starts a command line in the user's shell, with this environment and without an input. What it
   * writes goes to standard error. It is killed with this process. Rejects where it cannot be started.
   */
  start(command: string, env: Readonly<Record<string, string>>): Promise<Started>;
  /** Ends the process at once. */
  exit(status: number): void;
}

/** A command that was started. */
export interface Started {
  /** Its status, or why it has none; never rejects. */
  readonly ended: Promise<number | string>;
  /** Signals it and all that it has started. */
  kill(signal: "SIGTERM" | "SIGKILL"): void;
}

/** Standard input as bytes, for one reader. */
export interface Input {
  /** What comes next; undefined at the end. */
  read(): Promise<Uint8Array | undefined>;
  /** Reads no more; a read that waits resolves with the end. */
  close(): void;
}

/** The process itself, on Deno, Node and Bun alike. */
export function processIo(): Io {
  const { stdout, stderr } = process;
  let isClosed = false;
  const closed = new Set<() => void>();
  const onClosed = () => {
    isClosed = true;
    for (const callback of closed) callback();
  };
  // The listeners stay on: an EPIPE that nobody hears ends Node with a stack.
  stdout.on("error", onClosed);
  stderr.on("error", () => {});
  return {
    stdout: (text) => void (isClosed || write(stdout, text, onClosed)),
    stderr: (text) => write(stderr, text, () => {}),
    isTerminal: {
      // To look at it opens it.
      get stdin() {
        return process.stdin.isTTY === true;
      },
      stdout: stdout.isTTY === true,
      stderr: stderr.isTTY === true,
    },
    env: process.env,
    now: () => performance.now(),
    onSignal,
    onOutputClosed(callback) {
      closed.add(callback);
      return () => void closed.delete(callback);
    },
    onLine,
    openInput,
    write: (data) =>
      new Promise((resolve) => {
        if (isClosed) return resolve();
        try {
          stdout.write(data, () => resolve());
        } catch {
          onClosed();
          resolve();
        }
      }),
    start,
    exit: (status) => process.exit(status),
  };
}

/** Writes; `onError` hears what Deno throws where Node and Bun emit it. */
function write(stream: Writable, text: string, onError: () => void): void {
  try {
    stream.write(text);
  } catch {
    onError();
  }
}

function onSignal(callback: (signal: StopSignal) => void): () => void {
  const listeners = STOP_SIGNALS.map((signal) => [signal, () => callback(signal)] as const);
  for (const [signal, listener] of listeners) process.on(signal, listener);
  return () => {
    for (const [signal, listener] of listeners) process.removeListener(signal, listener);
  };
}

function onLine(callback: (line: string) => void): () => void {
  const { stdin } = process;
  const lines = createInterface({ input: stdin, terminal: false });
  lines.on("line", callback);
  // Both tell of a terminal that is gone (EIO), and one that nobody hears ends Node with a stack.
  for (const told of [stdin, lines]) told.on("error", () => {});
  return () => {
    lines.close();
    // A read that waits for input would keep the process alive.
    stdin.destroy();
  };
}

async function start(
  command: string,
  env: Readonly<Record<string, string>>,
): Promise<Started> {
  const { spawn } = await import("node:child_process");
  // In a group of its own: all that it starts can be ended, and Ctrl-C is for natkit alone.
  const isGroup = process.platform !== "win32";
  const child = spawn(command, {
    shell: true,
    env,
    detached: isGroup,
    stdio: ["ignore", 2, 2],
    windowsHide: true,
  });
  const kill = (signal: "SIGTERM" | "SIGKILL") => {
    try {
      if (child.pid !== undefined) process.kill(isGroup ? -child.pid : child.pid, signal);
    } catch {
      // It is over.
    }
  };
  const onExit = () => kill("SIGKILL");
  process.on("exit", onExit);
  const ended = new Promise<number | string>((resolve) => {
    child.on("error", (error) => resolve(error.message));
    child.on("exit", (status, signal) => resolve(status ?? signal ?? "no status"));
  }).finally(() => process.removeListener("exit", onExit));
  return { ended, kill };
}

/** So many pieces of standard input wait at most; then whoever writes them waits. */
const MAX_PIECES = 16;

function openInput(): Input {
  const { stdin } = process;
  const pieces: Uint8Array[] = [];
  let hasEnded = false;
  let wake = () => {};
  const onData = (data: Uint8Array) => {
    pieces.push(new Uint8Array(data));
    if (pieces.length >= MAX_PIECES) stdin.pause();
    wake();
  };
  const onEnd = () => {
    hasEnded = true;
    wake();
  };
  stdin.on("data", onData);
  for (const event of ["end", "close", "error"]) stdin.on(event, onEnd);
  return {
    async read() {
      while (pieces.length === 0 && !hasEnded) {
        stdin.resume();
        await new Promise<void>((resolve) => wake = resolve);
      }
      return pieces.shift();
    },
    close() {
      hasEnded = true;
      pieces.length = 0;
      stdin.off("data", onData);
      // A read that waits for input would keep the process alive.
      stdin.destroy();
      wake();
    },
  };
}
