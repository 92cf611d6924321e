/**
 * What the command line needs of the process it runs in, so that tests can hand in another one.
 *
 * @module
 */
import process from "node:process";
import { createInterface } from "node:readline";

/** The signals that end a command after it has cleaned up. */
export type StopSignal = "SIGINT" | "SIGTERM";

/** The process, as the command line sees it. */
export interface Io {
  /** Writes to standard output. */
  stdout(text: string): void;
  /** Writes to standard error. */
  stderr(text: string): void;
  /** Whether each of them is a terminal. */
  readonly isTerminal: { readonly stdout: boolean; readonly stderr: boolean };
  /** The environment. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Milliseconds on a clock that never goes back. */
  now(): number;
  /** Tells of SIGINT and SIGTERM; returns what stops telling. */
  onSignal(callback: (signal: StopSignal) => void): () => void;
  /** Tells that nobody reads standard output any more; returns what stops telling. */
  onOutputClosed(callback: () => void): () => void;
  /** Tells each line of standard input until what it returned is called. */
  onLine(callback: (line: string) => void): () => void;
  /** Ends the process at once. */
  exit(status: number): void;
}

/** The process itself, on Deno, Node and Bun alike. */
export function processIo(): Io {
  const { stdout, stderr } = process;
  let isClosed = false;
  const closed = new Set<() => void>();
  // The listener stays on: an EPIPE that nobody hears ends Node with a stack.
  stdout.on("error", () => {
    isClosed = true;
    for (const callback of closed) callback();
  });
  stderr.on("error", () => {});
  return {
    stdout: (text) => void (isClosed || stdout.write(text)),
    stderr: (text) => void stderr.write(text),
    isTerminal: { stdout: stdout.isTTY === true, stderr: stderr.isTTY === true },
    env: process.env,
    now: () => performance.now(),
    onSignal,
    onOutputClosed(callback) {
      closed.add(callback);
      return () => void closed.delete(callback);
    },
    onLine,
    exit: (status) => process.exit(status),
  };
}

function onSignal(callback: (signal: StopSignal) => void): () => void {
  const interrupt = () => callback("SIGINT"), terminate = () => callback("SIGTERM");
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", terminate);
  return () => {
    process.removeListener("SIGINT", interrupt);
    process.removeListener("SIGTERM", terminate);
  };
}

function onLine(callback: (line: string) => void): () => void {
  const { stdin } = process;
  const lines = createInterface({ input: stdin, terminal: false });
  lines.on("line", callback);
  stdin.on("error", () => {});
  return () => {
    lines.close();
    // A read that waits for input would keep the process alive.
    stdin.destroy();
  };
}
