/**
 * The same cause has the same code, whatever command meets it. `doctor` is missing where what is wrong
 * is what it reports, and `watch` where it goes on trying.
 */
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { createSocket, type Socket } from "node:dgram";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, assertEquals } from "@std/assert";
import { systemRuntime } from "../../../adapters/auto.ts";
import { COMMANDS } from "../../../adapters/cli/commands/mod.ts";
import { runCommandLine } from "../../../adapters/cli/command_line.ts";
import { type GatewayServer, startGateway } from "../../../adapters/gateway_server.ts";
import type { Runtime } from "../../../adapters/runtime.ts";
import { NatError } from "../../../core/errors.ts";
import { FakeIo } from "./fakes.ts";

type Code =
  | "usage"
  | "gateway-not-found"
  | "no-answer"
  | "refused"
  | "permission"
  | "network"
  | "address-in-use";

/** What goes wrong, and what each command that meets it is called with; the same code for all. */
interface Cause {
  readonly code: Code;
  readonly status: 1 | 2;
  readonly lines: readonly string[];
}

/** GATEWAY is one that answers; SILENT a port that nobody answers at, for any protocol. */
const CAUSES: Readonly<Record<string, Cause>> = {
  "a command line that is wrong": {
    code: "usage",
    status: 2,
    lines: COMMANDS.map(({ name, positionals, minPositionals }) =>
      `${name} ${positionals.slice(0, minPositionals).map(() => "1").join(" ")} --no-such-flag`
    ),
  },
  "no gateway": {
    code: "gateway-not-found",
    status: 1,
    lines: [
      "map 6000",
      "unmap 6000",
      "unmap --all",
      "peer 6000/tcp 192.0.2.1 80",
      "address",
      "list",
      "watch 6000",
    ],
  },
  "silence": {
    code: "no-answer",
    status: 1,
    lines: [
      "map 6000 --gateway SILENT --timeout 1",
      "unmap 6000 --gateway SILENT --timeout 1",
      "unmap --all --gateway SILENT --timeout 1",
      "peer 6000/tcp 192.0.2.1 80 --gateway SILENT --timeout 1",
      "address --gateway SILENT --timeout 1 --via pcp",
      "list --gateway SILENT --timeout 1",
      "stun SILENT --timeout 1",
    ],
  },
  "a refusal": {
    code: "refused",
    status: 1,
    lines: [
      "map 6000 --gateway GATEWAY --timeout 1",
      "map 6000 --gateway GATEWAY --via pcp",
      "map 6000 --gateway GATEWAY --via nat-pmp",
      "unmap --all --gateway GATEWAY",
      "peer 6000/tcp 192.0.2.1 80 --gateway GATEWAY",
      "address --gateway GATEWAY --timeout 1",
    ],
  },
};

/** Each command that opens a socket. */
const SOCKETS: readonly string[] = [
  "map 6000 --gateway SILENT",
  "unmap 6000 --gateway SILENT",
  "unmap --all --gateway SILENT",
  "peer 6000/tcp 192.0.2.1 80 --gateway SILENT",
  "address --gateway SILENT",
  "list --gateway SILENT",
  "upnp services --scan 1",
  "upnp call WANIPConnection GetExternalIPAddress --scan 1",
  "stun SILENT",
  "nat-type --stun SILENT",
  "punch --stun SILENT",
  "punch --tcp --stun SILENT",
  "gateway --listen 127.0.0.1 --port 0",
  "stun-server --listen 127.0.0.1:0",
  "demo",
];

describe("the code of an error", () => {
  let folder = "", silent = "";
  let gateway: GatewayServer;
  let deaf: Socket;

  before(async () => {
    deaf = createSocket("udp4");
    await new Promise<void>((resolve) => deaf.bind(0, "127.0.0.1", resolve));
    silent = `127.0.0.1:${deaf.address().port}`;
    gateway = await startGateway({ announceTo: [] });
    await gateway.command("refuse 2");
  });
  after(async () => {
    deaf.close();
    await gateway.close();
  });
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "natkit-"));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  /** What it comes to: status and code. */
  async function outcome(line: string, runtime: Runtime): Promise<[number, unknown]> {
    const io = new FakeIo();
    io.env.XDG_STATE_HOME = folder;
    const { address, port } = gateway.endpoint;
    const words = line.replace("GATEWAY", `${address}:${port}`).replace("SILENT", silent);
    const args = [...words.split(" ").filter((word) => word !== ""), "--json"];
    const status = await runCommandLine(args, io, { runtime });
    const last = io.events.at(-1);
    assertEquals(last?.event, "error", `natkit ${line}\n${io.out}${io.err}`);
    assert(io.err.includes(String(last?.message)), io.err);
    return [status, last?.code];
  }

  const system = systemRuntime();
  const nowhere: Runtime = {
    ...system,
    interfaces: () => system.interfaces().filter(({ internal }) => internal),
    readTextFile: () => Promise.reject(new Error("no file")),
    run: () => Promise.reject(new Error("no program")),
  };

  for (const [cause, { code, status, lines }] of Object.entries(CAUSES)) {
    const runtime = code === "gateway-not-found" ? nowhere : system;
    it(`of ${cause} is "${code}"`, async () => {
      const outcomes = await Promise.all(lines.map((line) => outcome(line, runtime)));
      assertEquals(
        outcomes.map(([status, code], i) => [lines[i], status, code]),
        lines.map((line) => [line, status, code]),
      );
    });
  }

  for (const code of ["permission", "network"] as const) {
    it(`of sockets that cannot be had is "${code}"`, async () => {
      const fail = () => Promise.reject(new NatError(code, `Cannot open a socket: ${code}`));
      // There is somewhere to search, whatever network this machine has.
      const place = { name: "eth0", address: "192.0.2.7", prefixLength: 24, internal: false };
      const interfaces = () => [...system.interfaces(), place];
      const runtime = { ...system, interfaces, openUdp: fail, openHttp: fail, openStreams: fail };
      const outcomes = await Promise.all(SOCKETS.map((line) => outcome(line, runtime)));
      assertEquals(
        outcomes.map(([status, code], i) => [SOCKETS[i], status, code]),
        SOCKETS.map((line) => [line, 1, code]),
      );
    });
  }

  it('of a port that another program has is "address-in-use"', async () => {
    const [address, port] = silent.split(":");
    for (
      const line of [`gateway --listen ${address} --port ${port}`, "stun-server --listen SILENT"]
    ) {
      assertEquals(await outcome(line, system), [1, "address-in-use"]);
    }
  });
});
