/**
 * The one program that every worker of the benches is: `main.js TASK JSON-OPTIONS`. A task that
 * measures prints its result as one line of JSON and ends; a server prints where it listens,
 * takes commands line by line, and ends with its input.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import process from "node:process";
import { codec } from "./codec.ts";
import { load } from "./load.ts";
import { loss } from "./loss.ts";
import { openPortTask } from "./open_port.ts";
import { scale } from "./scale.ts";
import { serveEcho, serveGateway } from "./servers.ts";
import { serverMachine } from "./server_machine.ts";
import { sim } from "./sim.ts";

const TASKS = {
  codec,
  echo: serveEcho,
  gateway: serveGateway,
  load,
  loss,
  "open-port": openPortTask,
  scale,
  "server-machine": serverMachine,
  sim,
} as const;

/** A task's name. */
export type Task = keyof typeof TASKS;

/** What a task takes. */
export type TaskOptions<T extends Task> = Parameters<(typeof TASKS)[T]>[0];

/** What it prints at its end. */
export type TaskResult<T extends Task> = Awaited<ReturnType<(typeof TASKS)[T]>>;

async function main(name: string, options: string): Promise<void> {
  const task = TASKS[name as Task] as (options: unknown) => unknown;
  const result = await task(JSON.parse(options));
  if (result === undefined) return;
  console.log(JSON.stringify(result));
  // Bun and Deno keep a process alive for sockets that are being closed.
  process.exit(0);
}

main(process.argv[2] ?? "", process.argv[3] ?? "{}").catch((error) => {
  console.error(error);
  process.exit(1);
});
