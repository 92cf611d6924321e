/**
 * The lab's home network with whatever server in its gateway's place.
 *
 * @module
 */
import { Lab, whatLabLacks } from "../lab/lab.ts";
import type { LabProcess } from "../lab/process.ts";
import { ADDRESS } from "../lab/topology.ts";
import { run } from "../lib/process.ts";
import type { Runtime } from "../lib/runtimes.ts";
import type { GatewayTaskOptions } from "./workers/servers.ts";
import { taskCommand } from "./workers.ts";

/** PCP's and NAT-PMP's port, which the peers cannot be told otherwise. */
export const PORT = 5351;

/**
 * Brings a lab up; a text says why there is none.
 *
 * @throws Where the lab fails to come up although the machine could.
 */
export async function homeOrWhyNot(): Promise<Lab | string> {
  const lacks = await whatLabLacks();
  return lacks.length > 0 ? `skipped; it needs: ${lacks.join(", ")}` : await Lab.up();
}

/** The process id of the lab's miniupnpd. */
export async function miniupnpdPid(lab: Lab): Promise<number> {
  const { stdout } = await run(["ip", "netns", "pids", lab.name("gw")]);
  for (const pid of stdout.split(/\s+/).filter((word) => word !== "")) {
    const name = await Deno.readTextFile(`/proc/${pid}/comm`).catch(() => "");
    if (name.trim() === "miniupnpd") return Number(pid);
  }
  throw new Error("miniupnpd does not run");
}

/** Starts the simulated gateway in the gateway's place, where nothing listens. */
export async function startGatewayIn(
  lab: Lab,
  on: Runtime,
  options: GatewayTaskOptions = {},
): Promise<LabProcess> {
  const all = { listen: ADDRESS.gateway, port: PORT, ...options };
  return await startIn(lab, await taskCommand(on, "gateway", all));
}

/** Starts a server that prints a line of JSON when it listens. */
export async function startIn(lab: Lab, argv: string[], cwd?: string): Promise<LabProcess> {
  const server = lab.spawn("gw", argv, { takesLines: true, ...(cwd ? { cwd } : {}) });
  await server.line((line) => line.startsWith("{"));
  return server;
}

/** Ends a server and waits until its port is free. */
export async function stop(server: LabProcess): Promise<void> {
  server.signal("SIGKILL");
  await server.status;
}
