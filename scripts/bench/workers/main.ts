/**
 * The one program that every worker of the benches is: `main.js TASK JSON-OPTIONS`. A task that
 * measures prints its result as one line of JSON and ends; a server prints where it listens,
 * takes commands line by line, and ends with its input.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import process from "node:process";
import { codec, type CodecOptions, type CodecResult } from "./codec.ts";
import { load, type LoadOptions, type LoadResult } from "./load.ts";
import { loss, type LossOptions, type LossResult } from "./loss.ts";
import { openOnce, type OpenOnceOptions, type OpenOnceResult } from "./open_once.ts";
import { type OpenPortOptions, type OpenPortResult, openPortTask } from "./open_port.ts";
import { scale, type ScaleOptions, type ScaleResult } from "./scale.ts";
import {
  type GatewayTaskOptions,
  type ListenOptions,
  serveEcho,
  serveGateway,
  serveStun,
} from "./servers.ts";
import {
  serverMachine,
  type ServerMachineOptions,
  type ServerMachineResult,
} from "./server_machine.ts";
import { stunCodec, type StunCodecOptions, type StunCodecResult } from "./stun_codec.ts";
import { sim, type SimOptions, type SimResult } from "./sim.ts";

/** What each task takes and prints at its end; servers print nothing. */
export interface Tasks {
  "codec": [CodecOptions, CodecResult];
  "echo": [ListenOptions, undefined];
  "gateway": [GatewayTaskOptions, undefined];
  "load": [LoadOptions, LoadResult];
  "loss": [LossOptions, LossResult];
  "open-once": [OpenOnceOptions, OpenOnceResult];
  "open-port": [OpenPortOptions, OpenPortResult];
  "scale": [ScaleOptions, ScaleResult];
  "server-machine": [ServerMachineOptions, ServerMachineResult];
  "sim": [SimOptions, SimResult];
  "stun-codec": [StunCodecOptions, StunCodecResult];
  "stun-server": [ListenOptions, undefined];
}

/** A task's name. */
export type Task = keyof Tasks;

const TASKS: { readonly [T in Task]: (options: Tasks[T][0]) => Promise<Tasks[T][1]> } = {
  "codec": codec,
  "echo": serveEcho,
  "gateway": serveGateway,
  "load": load,
  "loss": loss,
  "open-once": openOnce,
  "open-port": openPortTask,
  "scale": scale,
  "server-machine": serverMachine,
  "sim": sim,
  "stun-codec": stunCodec,
  "stun-server": serveStun,
};

async function main(name: string, options: string): Promise<void> {
  const task = TASKS[name as Task] as (options: unknown) => Promise<unknown>;
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
