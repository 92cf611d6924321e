/**
 * A process in the lab whose output is read line by line while it runs.
 *
 * @module
 */
import { adopt } from "../lib/process.ts";

/** How a process is started. */
export interface SpawnOptions {
  readonly cwd?: string;
  readonly env?: Record<string, string>;
  /** Whether lines are written to it; otherwise it reads nothing. */
  readonly takesLines?: boolean;
}

/** How long {@linkcode LabProcess.line} waits by default. */
const LINE_WITHIN_MS = 15_000;

/** A running process. */
export class LabProcess {
  readonly pid: number;
  readonly status: Promise<Deno.CommandStatus>;
  /** Everything it has written so far. */
  readonly lines: string[] = [];
  errors = "";
  hasEnded = false;
  readonly #argv: readonly string[];
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>> | undefined;
  #taken = 0;
  #wake: () => void = () => {};

  constructor(argv: readonly string[], { takesLines, ...options }: SpawnOptions = {}) {
    this.#argv = argv;
    this.#child = new Deno.Command(argv[0]!, {
      args: argv.slice(1),
      stdin: takesLines ? "piped" : "null",
      stdout: "piped",
      stderr: "piped",
      ...options,
    }).spawn();
    adopt(this.#child);
    this.#input = takesLines ? this.#child.stdin.getWriter() : undefined;
    this.pid = this.#child.pid;
    const reading = [
      this.#read(this.#child.stdout, (line) => this.lines.push(line)),
      this.#read(this.#child.stderr, (line) => this.errors += `${line}\n`),
    ];
    this.status = Promise.all([this.#child.status, ...reading]).then(([status]) => {
      this.hasEnded = true;
      this.#wake();
      return status;
    });
  }

  /** Sends a signal, if it still runs. */
  signal(name: Deno.Signal): void {
    try {
      this.#child.kill(name);
    } catch {
      // It has ended by itself.
    }
  }

  /** Writes a line to its standard input. */
  async write(line: string): Promise<void> {
    await this.#input?.write(new TextEncoder().encode(`${line}\n`));
  }

  /**
   * The next line of its output that fits; lines before it are passed over.
   *
   * @throws If it ends, or the time is over, before such a line came; with all it has said.
   */
  async line(fits: (line: string) => boolean, withinMs: number = LINE_WITHIN_MS): Promise<string> {
    const deadline = performance.now() + withinMs;
    while (true) {
      while (this.#taken < this.lines.length) {
        const line = this.lines[this.#taken++]!;
        if (fits(line)) return line;
      }
      const left = deadline - performance.now();
      if (this.hasEnded || left <= 0) {
        const why = this.hasEnded ? "ended" : `waited ${withinMs} ms`;
        throw new Error(`No such line (${why}) from: ${this.#argv.join(" ")}\n${this.said()}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Everything it has written, for messages. */
  said(): string {
    return [...this.lines, this.errors].join("\n");
  }

  async #read(stream: ReadableStream<Uint8Array>, take: (line: string) => void): Promise<void> {
    let rest = "";
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = parts.pop() ?? "";
      for (const part of parts) take(part);
      this.#wake();
    }
    if (rest !== "") take(rest);
    this.#wake();
  }
}
