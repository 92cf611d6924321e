/**
 * Running programs with Node's `child_process`, on Node and Bun.
 *
 * @module
 */
import { execFile } from "node:child_process";

/** Runs a program without a shell; what it prints is bounded, and so is its time. */
export function runProgram(command: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const limits = { timeout: 10_000, maxBuffer: 1 << 22, windowsHide: true };
    execFile(
      command,
      [...args],
      limits,
      (error, stdout) => error ? reject(error) : resolve(stdout),
    );
  });
}
