/**
 * How many requests a second a server on a socket answers, and what of the processor each takes.
 *
 * @module
 */
import { LabProcess } from "../lab/process.ts";
import type { Runtime } from "../lib/runtimes.ts";
import { median } from "./measure.ts";
import { taskCommand } from "./workers.ts";
import type { LoadOptions, LoadResult } from "./workers/load.ts";

/** What a server does. */
export interface Rate {
  readonly perSecond: number;
  /** Of the server's processor time for each answer; undefined where the system does not tell. */
  readonly cpuMicroseconds: number | undefined;
  /** The share of answers that say no. */
  readonly refused: number;
  /** Requests that got no answer within 200 ms. */
  readonly lost: number;
}

/** What asks: the fastest of the three runtimes, so that the server is what is measured. */
const ASKING: Runtime = "Bun";
/** Requests under way. */
const WINDOW = 64;
/** Mappings that are renewed in turn. */
const MAPPINGS = 100;
/** Linux counts processor time in hundredths of a second. */
const TICK_MICROSECONDS = 10_000;

/** Where a server is, and what it is asked. */
export type Asked = Pick<LoadOptions, "address" | "port" | "local" | "what">;

/** Asks a server for `timeMs`; `inside` starts the asking process, by default it is run as it is. */
export async function measureRate(
  asked: Asked,
  pid: number,
  timeMs: number,
  inside: (argv: string[]) => string[] = (argv) => argv,
): Promise<Rate> {
  const options = { ...asked, timeMs, window: WINDOW, mappings: MAPPINGS };
  const before = await processorTicks(pid);
  const process = new LabProcess(inside(await taskCommand(ASKING, "load", options)));
  const line = await process.line((line) => line.startsWith("{"), timeMs + 20_000)
    .finally(() => process.signal("SIGKILL"));
  const after = await processorTicks(pid);
  const { perSecond, answers, refused, lost } = JSON.parse(line) as LoadResult;
  const isKnown = before !== undefined && after !== undefined && answers > 0;
  return {
    perSecond,
    cpuMicroseconds: isKnown ? (after - before) * TICK_MICROSECONDS / answers : undefined,
    refused: answers > 0 ? refused / answers : 0,
    lost,
  };
}

/** User and system time of a process, in Linux's ticks. */
async function processorTicks(pid: number): Promise<number | undefined> {
  const text = await Deno.readTextFile(`/proc/${pid}/stat`).catch(() => "");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return fields.length > 12 ? Number(fields[11]) + Number(fields[12]) : undefined;
}

/** The rates in the middle of several turns. */
export function middle(rates: readonly Rate[]): Rate {
  const cpu = rates.flatMap(({ cpuMicroseconds }) => cpuMicroseconds ?? []);
  return {
    perSecond: median(rates.map(({ perSecond }) => perSecond)),
    cpuMicroseconds: cpu.length > 0 ? median(cpu) : undefined,
    refused: median(rates.map(({ refused }) => refused)),
    lost: rates.reduce((sum, { lost }) => sum + lost, 0),
  };
}

/** A bare echo and the simulated gateway of one runtime, in turns. */
export async function socketRate(
  on: Runtime,
  timeMs: number,
  turns: number,
): Promise<Record<"echo" | "pcp" | "natPmp", Rate>> {
  const echo = await startServer(on, "echo");
  const gateway = await startServer(on, "gateway");
  const rates: Record<"echo" | "pcp" | "natPmp", Rate[]> = { echo: [], pcp: [], natPmp: [] };
  const at = { address: "127.0.0.1", local: "127.0.0.1" };
  try {
    for (let turn = -1; turn < turns; turn++) {
      // The first turn only warms up.
      const into = turn < 0 ? { echo: [], pcp: [], natPmp: [] } : rates;
      const ms = turn < 0 ? Math.min(timeMs, 500) : timeMs;
      into.echo.push(await measureRate({ ...at, port: echo.port, what: "echo" }, echo.pid, ms));
      into.pcp.push(await measureRate({ ...at, port: gateway.port, what: "pcp" }, gateway.pid, ms));
      const natPmp = { ...at, port: gateway.port, what: "nat-pmp" } as const;
      into.natPmp.push(await measureRate(natPmp, gateway.pid, ms));
    }
  } finally {
    echo.end();
    gateway.end();
  }
  return { echo: middle(rates.echo), pcp: middle(rates.pcp), natPmp: middle(rates.natPmp) };
}

/** A bare echo and another server of one runtime, in turns, asked for the same thing. */
export async function besideEcho(
  on: Runtime,
  task: "stun-server",
  what: LoadOptions["what"],
  timeMs: number,
  turns: number,
): Promise<Record<"echo" | "it", Rate>> {
  const servers = { echo: await startServer(on, "echo"), it: await startServer(on, task) };
  const rates: Record<"echo" | "it", Rate[]> = { echo: [], it: [] };
  const at = { address: "127.0.0.1", local: "127.0.0.1", what };
  try {
    for (let turn = -1; turn < turns; turn++) {
      for (const name of ["echo", "it"] as const) {
        const { port, pid } = servers[name];
        const ms = turn < 0 ? Math.min(timeMs, 500) : timeMs;
        const rate = await measureRate({ ...at, port }, pid, ms);
        // The first turn only warms up.
        if (turn >= 0) rates[name].push(rate);
      }
    }
  } finally {
    servers.echo.end();
    servers.it.end();
  }
  return { echo: middle(rates.echo), it: middle(rates.it) };
}

/** A server process. */
export interface Running {
  readonly pid: number;
  readonly port: number;
  end(): void;
}

async function startServer(
  on: Runtime,
  task: "echo" | "gateway" | "stun-server",
): Promise<Running> {
  // It ends with its input, which is open as long as this process lives.
  const process = new LabProcess(await taskCommand(on, task, {}), { takesLines: true });
  const { port } = JSON.parse(await process.line((line) => line.startsWith("{")));
  return { pid: process.pid, port, end: () => process.signal("SIGKILL") };
}
