/**
 * Running programs with Node's `child_process`, on Node and Bun.
 *
 * @module
 */

/** Runs a program without a shell; what it prints is bounded, and so is its time. */
export async function runProgram(command: string, args: readonly string[]): Promise<string> {
  // It brings streams and TCP, and most hosts tell their routes without a program.
  const { execFile } = await import("node:child_process");
  return await new Promise((resolve, reject) => {
    const limits = { timeout: 10_000, maxBuffer: 1 << 22, windowsHide: true };
    execFile(
      command,
      [...args],
      limits,
      (error, stdout) => error ? reject(error) : resolve(stdout),
    );
  });
}
