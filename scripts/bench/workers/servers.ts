/**
 * The servers of the benches, each a process of its own: a bare UDP echo and the simulated
 * gateway. Both print `{"port":N}` and end with their standard input.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import { spawn } from "node:child_process";
import process from "node:process";
import { createInterface } from "node:readline";
import { type GatewayServerOptions, startGateway } from "../../../adapters/gateway_server.ts";
import { startStunServer } from "../../../adapters/stun_server.ts";
import { bareSocket } from "./bare_udp.ts";

/** Where a server is to listen. */
export interface ListenOptions {
  readonly listen?: string;
  readonly port?: number;
}

/** What of the gateway's options can be written as JSON. */
export type GatewayTaskOptions =
  & ListenOptions
  & Pick<GatewayServerOptions, "profile" | "protocols" | "table" | "announceTo">;

/** Sends back what comes. */
export async function serveEcho({ listen, port }: ListenOptions): Promise<undefined> {
  const socket = await bareSocket(
    (data, port, address) => socket.send(data, port, address),
    listen,
    port,
  );
  serve(socket.port, () => Promise.resolve());
}

/** The simulated gateway; lines of standard input are its scenario commands. */
export async function serveGateway(options: GatewayTaskOptions): Promise<undefined> {
  const gateway = await startGateway({ announceTo: [], ...options });
  serve(gateway.endpoint.port, (line) => gateway.command(line));
}

/** The STUN server, without a bound on what one address may ask. */
export async function serveStun(
  { listen = "127.0.0.1", port = 0 }: ListenOptions,
): Promise<undefined> {
  const server = await startStunServer({ listen: { address: listen, port }, maxPerSecond: 1e9 });
  serve(server.endpoint.port, () => Promise.resolve());
}

function serve(port: number, command: (line: string) => Promise<unknown>): void {
  console.log(JSON.stringify({ port }));
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => command(line).then((outcome) => console.log(JSON.stringify(outcome))));
  lines.on("close", () => process.exit(0));
}

/** A server in another process of this runtime. */
export interface Server {
  readonly port: number;
  readonly pid: number;
  /** Has a scenario command carried out. */
  command(line: string): Promise<void>;
  /** Ends it. */
  end(): void;
}

/** Starts a server as another process of the runtime that runs this. */
export async function spawnServer(
  task: "echo" | "gateway",
  options: GatewayTaskOptions = {},
): Promise<Server> {
  const isDeno = "Deno" in globalThis;
  const flags = isDeno ? ["run", "-A", "--unstable-net", "--no-check"] : [];
  const argv = [...flags, process.argv[1]!, task, JSON.stringify(options)];
  const child = spawn(process.execPath, argv, { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout });
  const iterator = lines[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await iterator.next();
    if (done) throw new Error(`${task} has ended`);
    return JSON.parse(value) as Record<string, unknown>;
  };
  const { port } = await next();
  return {
    port: port as number,
    pid: child.pid!,
    async command(line) {
      child.stdin.write(`${line}\n`);
      const outcome = await next();
      if (outcome["ok"] === false) throw new Error(`${line}: ${JSON.stringify(outcome)}`);
    },
    end: () => void child.stdin.end(),
  };
}
