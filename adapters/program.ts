/**
 * Running programs: with Node's `child_process` on Node and Bun, with `Deno.Command` on Deno.
 *
 * @module
 */
import { startTimer } from "./clock.ts";

/** How long one may take, milliseconds. */
const LIMIT_MS = 10_000;
/** How much one may print, bytes; Deno takes more. */
const MAX_PRINTED_BYTES = 1 << 22;

/** `Deno.Command`, as far as it is used. */
export type DenoCommand = new (command: string, options: {
  args: string[];
  stdin: "null";
  stdout: "piped";
  stderr: "null";
}) => {
  spawn(): {
    output(): Promise<{ readonly code: number; readonly stdout: Uint8Array }>;
    kill(signal: "SIGKILL"): void;
    unref(): void;
  };
};

/** Runs a program without a shell; what it prints is bounded, and so is its time. */
export async function runProgram(
  command: string,
  args: readonly string[],
  limitMs: number = LIMIT_MS,
): Promise<string> {
  // It brings streams and TCP, and most hosts tell their routes without a program.
  const { execFile } = await import("node:child_process");
  return await new Promise((resolve, reject) => {
    const limits = { maxBuffer: MAX_PRINTED_BYTES, windowsHide: true };
    const child = execFile(command, [...args], limits, (error, stdout) => {
      stop();
      if (error) reject(error);
      else resolve(stdout);
    });
    const stop = startTimer(limitMs, () => {
      reject(tooSlow(command, limitMs));
      child.kill("SIGKILL");
      for (const stream of [child.stdin, child.stdout, child.stderr]) stream?.destroy();
      child.unref();
    }, true);
  });
}

/** The same on Deno, where `child_process` would need `--allow-env`. */
export async function runCommand(
  Command: DenoCommand,
  command: string,
  args: readonly string[],
  limitMs: number = LIMIT_MS,
): Promise<string> {
  const stdio = { stdin: "null", stdout: "piped", stderr: "null" } as const;
  const child = new Command(command, { args: [...args], ...stdio }).spawn();
  return await new Promise((resolve, reject) => {
    const stop = startTimer(limitMs, () => {
      reject(tooSlow(command, limitMs));
      child.unref();
      try {
        child.kill("SIGKILL");
      } catch {
        // It is over, and another one has its output.
      }
    }, true);
    child.output().finally(stop).then(({ code, stdout }) => {
      if (code === 0) resolve(new TextDecoder().decode(stdout));
      else reject(new Error(`'${command}' ended with status ${code}`));
    }, reject);
  });
}

/** Nobody waits for its end: a signal does not reach who waits for the kernel, nor its children. */
function tooSlow(command: string, limitMs: number): Error {
  return new Error(`'${command}' did not end within ${limitMs} ms`);
}
