/** The command in this process, against a gateway on loopback: what needs no process of its own. */
import { afterEach, beforeEach, describe, it } from "node:test";
import { createSocket, type Socket } from "node:dgram";
import { createServer } from "node:net";
import { readFileSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { Buffer } from "node:buffer";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { type GatewayServer, startGateway } from "../../../adapters/gateway_server.ts";
import { FakeRun } from "./fakes.ts";

/** A command line that runs with its state in a folder. */
class Run extends FakeRun {
  constructor(args: readonly string[], folder: string, debug?: string) {
    super(args, { XDG_STATE_HOME: folder, NATKIT_DEBUG: debug });
  }

  get names(): unknown[] {
    return this.events.map(({ event }) => event);
  }
}

describe("natkit on loopback", () => {
  let folder = "";
  let gateway: GatewayServer;
  const sockets: Socket[] = [];
  const runs: Run[] = [];

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "natkit-"));
    gateway = await startGateway({ announceTo: [] });
  });
  afterEach(async () => {
    for (const run of runs.splice(0)) {
      run.signal("SIGTERM");
      await run.status;
    }
    for (const socket of sockets.splice(0)) socket.close();
    await gateway.close();
    await rm(folder, { recursive: true, force: true });
  });

  function natkit(...args: string[]): Run {
    const run = new Run(args, folder);
    runs.push(run);
    return run;
  }

  const at = ({ endpoint }: GatewayServer) => `${endpoint.address}:${endpoint.port}`;
  const here = () => ["--gateway", at(gateway), "--json"];
  /** The same without UPnP, for which a gateway is searched a while. */
  const mapping = () => ["--via", "pcp,nat-pmp", ...here()];
  const state = () => join(folder, "natkit", "state.json");
  const kept = async () => JSON.parse(await readFile(state(), "utf8")).entries;
  const ports = () => gateway.entries().map(({ internal }) => internal.port);

  /** A gateway that answers with what `answer` makes of a request, or not at all. */
  async function odd(
    answer: (request: Uint8Array) => Uint8Array | readonly Uint8Array[] | undefined,
  ): Promise<string> {
    const socket = createSocket("udp4");
    sockets.push(socket);
    socket.on("message", (data, { port, address }) => {
      for (const said of [answer(data) ?? []].flat()) socket.send(said, port, address);
    });
    await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
    return `127.0.0.1:${socket.address().port}`;
  }

  it("maps, tells and unmaps by each protocol", async () => {
    for (const via of ["pcp", "nat-pmp"]) {
      const map = natkit("map", "6000/udp", "--via", via, "--mode", "once", ...here());
      assertEquals(await map.status, 0, map.err);
      const [event] = map.events;
      assertEquals([map.names, event?.via, event?.protocol], [["mapped"], via, "udp"]);
      assertEquals(event?.gateway, at(gateway));
      assertEquals(ports(), [6000]);

      const unmap = natkit("unmap", "6000/udp", ...here());
      assertEquals(await unmap.status, 0, unmap.out + unmap.err);
      const [{ elapsedMs: _, ...told }] = unmap.events as [Record<string, unknown>];
      assertEquals(told, {
        event: "unmapped",
        protocol: "udp",
        via,
        gateway: at(gateway),
        internal: { port: 6000 },
        reason: "revoked",
      });
      assertEquals([unmap.events.length, ports()], [1, []]);
    }
  });

  it("adopts the mapping of an earlier run", async () => {
    const once = ["map", "6000", "--mode", "once", ...mapping()];
    assertEquals(await natkit(...once).status, 0);
    const again = natkit(...once);

    assertEquals(await again.status, 0, again.out);
    assertEquals(ports(), [6000]);
  });

  it("has its nonce in the state file before the request with it arrives", async () => {
    let seen: boolean | undefined;
    const silent = await odd((data) => {
      // PCP's nonce (RFC 6887 §11.1).
      const nonce = data.subarray(24, 36);
      if (data[0] === 2 && data[1] === 1) {
        seen ??= readFileSync(state(), "utf8").includes(Buffer.from(nonce).toString("hex"));
      }
      return undefined;
    });
    const run = natkit("map", "6000", "--gateway", silent, "--json");
    while (seen === undefined) await new Promise((resolve) => setTimeout(resolve, 1));
    const [entry] = await kept();

    assertEquals(seen, true);
    assertEquals([entry.owner.pid, `127.0.0.1:${entry.gateway.port}`], [process.pid, silent]);
    run.signal("SIGINT");
    assertEquals(await run.status, 130);
  });

  it("leaves nothing in the state file of what was refused, and tells who refused", async () => {
    await gateway.command("refuse 2");
    const run = natkit("map", "6000", ...mapping());

    assertEquals([await run.status, await kept()], [1, []]);
    const [error] = run.events as { event: string; code: string; attempts: { via: string }[] }[];
    assertEquals([error?.event, error?.code], ["error", "refused"]);
    assert(error!.attempts.some(({ via }) => via === "pcp"));
  });

  it("ends with 1 in time where the gateway is silent, and forgets what it asked for", async () => {
    const run = natkit("map", "6000", "--timeout", "1", "--gateway", await odd(() => undefined));

    assertEquals([await run.status, await kept()], [1, []]);
    assertStringIncludes(run.err, "no answer");
  });

  it("watches a port: the whole set at once, at each change, and at each line", async () => {
    const run = natkit("watch", "6000/tcp", ...mapping());
    const outside = async (nth: number) => {
      const { assignments } = await run.event("assignments", nth);
      return (assignments as { via: string; address: string }[])
        .filter(({ via }) => via !== "local").map(({ via, address }) => `${via} ${address}`);
    };
    assertEquals(await outside(1), []);
    assertEquals(await outside(2), ["pcp 203.0.113.7"]);
    assertEquals((await kept()).map((one: { owner: { pid: number } }) => one.owner.pid), [
      process.pid,
    ]);
    run.type("");
    assertEquals(await outside(3), ["pcp 203.0.113.7"]);
    run.signal("SIGTERM");

    assertEquals([await run.status, ports(), await kept()], [143, [], []]);
    assertEquals([await outside(4), run.events.length], [[], 4]);
    assertEquals(run.listeners, 0);
  });

  it("says to a person what a watched port waits for", async () => {
    const silent = await odd(() => undefined);
    const run = natkit("watch", "6000/tcp", "--gateway", silent);
    while (!run.err.includes("Waiting")) await new Promise((resolve) => setTimeout(resolve, 5));
    run.signal("SIGINT");

    assertEquals(await run.status, 130);
    assertEquals(run.err.split(`Waiting for ${silent}`).length, 2);
  });

  it("examines the gateway, and leaves nothing there", async () => {
    const run = natkit("doctor", ...mapping());
    assertEquals(await run.status, 0, run.err);
    assertEquals(run.names, ["report"]);
    const [report] = run.events as {
      gateways: { protocols: { via: string; external: string; elapsedMs: number }[] }[];
      findings: { code: string }[];
    }[];
    assertEquals(
      report!.gateways[0]!.protocols.map(({ via, external }) => `${via} ${external}`),
      ["pcp 203.0.113.7", "nat-pmp 203.0.113.7"],
    );
    assert(report!.findings.some(({ code }) => code === "open"), run.out);
    assertEquals(ports(), []);
  });

  it("maps several ports, one of which the gateway refuses, and unmaps them", async () => {
    await gateway.close();
    gateway = await startGateway({
      announceTo: [],
      decide: ({ internal }) => internal.port === 6002 ? { kind: "refuse", code: 2 } : undefined,
    });
    const three = ["6000", "6001/udp", "6002"];
    const map = natkit("map", ...three, ...mapping());
    await map.event("mapped", 2);
    const error = await map.event("error");
    assertEquals([error.protocol, error.internal], ["tcp", { port: 6002 }]);
    assertEquals(ports().sort(), [6000, 6001]);
    map.signal("SIGINT");
    assertEquals([await map.status, ports()], [130, []], map.err);

    const once = natkit("map", ...three, "--mode", "once", ...mapping());
    assertEquals(await once.status, 1, once.err);
    assertEquals(ports().sort(), [6000, 6001]);
    const unmap = natkit("unmap", "6000", "6001/udp", ...here());
    assertEquals([await unmap.status, ports()], [0, []], unmap.out + unmap.err);
  });

  it("tells each packet with --verbose or NATKIT_DEBUG, and why one was dropped", async () => {
    const server = await odd((data) => {
      if (data[0] !== 2) return undefined;
      const answer = new Uint8Array(data);
      answer[1] = data[1]! | 0x80;
      answer.set([0, 0, 0, 9], 8);
      // The assigned external address (RFC 6887 §11.1).
      answer.set([203, 0, 113, 7], 56);
      const other = answer.slice();
      other[24] = data[24]! ^ 0xff;
      return [answer.slice(0, 6), other, answer];
    });
    const once = ["map", "6000", "--mode", "once", "--gateway", server, "--via", "pcp", "--json"];
    const run = natkit(...once, "--verbose");
    assertEquals([await run.status, run.names], [0, ["mapped"]], run.err);
    const lines = run.err.split("\n").map((line) => line.replace(/^[\d.]+ ms /, ""));
    for (
      const line of [
        /^sent to 127\.0\.0\.1:\d+ from 127\.0\.0\.1:\d+: pcp map\? tcp 6000→.* nonce [0-9a-f]{8}$/,
        /^received from .*: pcp\? too-short \(dropped: too short\)$/,
        /^received from .*: pcp map tcp 6000→.*\(dropped: wrong nonce\)$/,
        /^received from .*: pcp map tcp 6000→.* SUCCESS epoch 9 nonce [0-9a-f]{8}$/,
      ]
    ) {
      assert(lines.some((one) => line.test(one)), `${line}\n${run.err}`);
    }
    for (
      const [debug, isTold] of [["1", true], ["0", false], ["", false], [undefined, false]] as const
    ) {
      const other = new Run(once, folder, debug);
      await other.status;
      assertEquals(other.err.includes("sent to 127.0.0.1"), isTold, debug);
    }
  });

  it("says where nothing listens at the port, and is quiet where something does", async () => {
    const note = /note: nothing listens at 127\.0\.0\.1:(\d+)\/(tcp|udp)/g;
    const server = createServer();
    const socket = createSocket("udp4");
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    await new Promise<void>((resolve) => socket.bind(0, "0.0.0.0", resolve));
    try {
      const tcp = (server.address() as { port: number }).port, udp = socket.address().port;
      const both = natkit("map", `${tcp}`, `${udp}/udp`, "--mode", "once", ...here());
      assertEquals([await both.status, [...both.err.matchAll(note)]], [0, []], both.err);
      await new Promise((resolve) => server.close(resolve));
      await new Promise<void>((resolve) => socket.close(resolve));
      const none = natkit("map", `${tcp}`, `${udp}/udp`, "--mode", "once", ...here());
      assertEquals(await none.status, 0, none.err);
      const said = [...none.err.matchAll(note)].map(([, port, protocol]) => `${port}/${protocol}`);
      assertEquals(said.sort(), [`${tcp}/tcp`, `${udp}/udp`].sort(), none.err);
    } finally {
      server.close();
    }
  });

  it("unmaps at the gateway that the state names", async () => {
    const other = await startGateway({ announceTo: [] });
    try {
      for (const flags of [here(), ["--gateway", at(other)]]) {
        assertEquals(await natkit("map", "6000", "--mode", "once", ...flags).status, 0);
      }
      assertEquals([ports(), other.entries().length], [[6000], 1]);
      const one = natkit("unmap", "6000", ...here());
      assertEquals(await one.status, 0, one.out);
      assertEquals([ports(), other.entries().length], [[], 1]);

      const rest = natkit("unmap", "6000", "--json");
      assertEquals(await rest.status, 0, rest.out);
      assertEquals(rest.events.map(({ gateway }) => gateway), [at(other)]);
      assertEquals(other.entries(), []);
    } finally {
      await other.close();
    }
  });

  it("says that PCP made it where NAT-PMP is to delete it", async () => {
    assertEquals(await natkit("map", "6000", "--mode", "once", ...here()).status, 0);

    const unmap = natkit("unmap", "6000", "--via", "nat-pmp", ...here());

    assertEquals([await unmap.status, unmap.events[0]?.code], [1, "other-protocol"]);
    assertEquals(ports(), [6000]);
  });

  it("lists the gateway's table, and says so where it is empty", async () => {
    await gateway.close();
    gateway = await startGateway({ announceTo: [], protocols: ["pcp", "upnp"] });
    const empty = natkit("list", "--gateway", at(gateway));
    assertEquals([await empty.status, empty.out], [0, ""], empty.err);
    assertStringIncludes(empty.err, "The table is empty.");
    const map = ["map", "6000", "--via", "pcp", "--mode", "once", "--lifetime", "600"];
    assertEquals(await natkit(...map, "--description", "x", ...here()).status, 0);
    const list = natkit("list", ...here());
    assertEquals(await list.status, 0, list.err);
    const [{ lifetimeSeconds, ...entry }] = list.events as [Record<string, unknown>];
    assertEquals([list.events.length, entry], [1, {
      event: "mapping",
      via: "upnp",
      gateway: at(gateway),
      protocol: "tcp",
      external: { port: 6000 },
      internal: { address: "127.0.0.1", port: 6000 },
      description: "x",
    }]);
    assert(Number(lifetimeSeconds) > 500 && Number(lifetimeSeconds) <= 600);
  });

  it("unmaps everything, and says so where there is nothing", async () => {
    for (const what of ["6000/tcp", "6001/udp"]) {
      assertEquals(await natkit("map", what, "--mode", "once", ...here()).status, 0);
    }
    const all = natkit("unmap", "--all", "--via", "pcp", ...here());

    assertEquals(await all.status, 0, all.out);
    const ended = all.events.map(({ internal }) => (internal as { port: number }).port);
    assertEquals(ended.sort(), [6000, 6001]);
    assertEquals(ports(), []);
    const none = natkit("unmap", "--all", "--via", "pcp", "--gateway", at(gateway));
    assertEquals([await none.status, none.out], [0, ""]);
    assertStringIncludes(none.err, "There is nothing to unmap.");
  });

  it("tells the external address by both protocols", async () => {
    const run = natkit("address", ...mapping());

    assertEquals(await run.status, 0);
    assertEquals(run.events.map(({ via, address }) => `${via} ${address}`).sort(), [
      "nat-pmp 203.0.113.7",
      "pcp 203.0.113.7",
    ]);
  });

  it("tells the address at once where the gateway is silent to PCP, and ends with 0", async () => {
    // NAT-PMP's external address response (RFC 6886 §3.2).
    const answer = Uint8Array.of(0, 128, 0, 0, 0, 0, 0, 9, 198, 51, 100, 9);
    const silent = await odd((data) => data[0] === 0 ? answer : undefined);
    const run = natkit("address", "--via", "pcp,nat-pmp", "--gateway", silent, "--json");

    assertEquals(await run.status, 0, run.err);
    // Which address is not asked: another test's gateway on this loopback may announce its own.
    assertEquals(run.events.map(({ event, via }) => [event, via]), [["address", "nat-pmp"]]);
  });

  it("makes an outbound mapping", async () => {
    const run = natkit("peer", "6000/udp", "198.51.100.1", "80", "--mode", "once", ...here());

    assertEquals(await run.status, 0, run.out);
    const remote = { address: "198.51.100.1", port: 80 };
    assertEquals([run.events[0]?.remote, gateway.entries()[0]?.remote], [remote, remote]);
  });

  it("says so where the gateway refuses to delete the mapping", async () => {
    const run = natkit("map", "6000", ...mapping());
    await run.event("mapped");
    await gateway.command("refuse 2");
    run.signal("SIGINT");

    assertEquals(await run.status, 130, run.err);
    assertEquals(run.names, ["mapped", "error"]);
    assertStringIncludes(String(run.events[1]?.message), "NOT_AUTHORIZED");
    assertEquals(ports(), [6000]);
  });

  it("ends when its two lifetimes are over", async () => {
    await gateway.close();
    gateway = await startGateway({ announceTo: [], minLifetimeSeconds: 1 });
    const run = natkit("map", "6000", "--lifetime", "1", "--mode", "2", ...mapping());

    assertEquals(await run.status, 0, run.err);
    assertEquals(run.events.at(-1)?.reason, "expired");
  });

  describe("as a gateway", () => {
    const start = (...args: string[]) =>
      natkit("gateway", "--listen", "127.0.0.1", "--port", "0", "--json", ...args);

    it("tells what happens, takes commands, and ends with 0 at quit", async () => {
      const run = start("--external", "198.51.100.1", "--protocols", "pcp");
      const { address, port, external, protocols } = await run.event("listening");
      assertEquals([run.names[0], address, external, protocols], [
        "listening",
        "127.0.0.1",
        ["198.51.100.1"],
        ["pcp"],
      ]);
      const map = natkit(
        "map",
        "6000",
        "--mode",
        "once",
        "--json",
        "--gateway",
        `127.0.0.1:${port}`,
      );
      assertEquals(await map.status, 0, map.out);
      assertEquals(map.events[0]?.external, { address: "198.51.100.1", port: 6000 });
      const { change, via, protocol } = await run.event("mapping");
      assertEquals([change, via, protocol], ["added", "pcp", "tcp"]);
      assert(run.names.includes("request") && run.names.includes("response"));

      run.type("list");
      const [entry] = (await run.event("scenario")).mappings as Record<string, unknown>[];
      assertEquals(entry?.internal, { address: "127.0.0.1", port: 6000 });
      run.type("nonsense");
      assertStringIncludes(String((await run.event("error")).message), "reboot");
      run.type("  external   198.51.100.2 ");
      assertEquals((await run.event("scenario", 2)).addresses, ["198.51.100.2"]);
      // No such mapping: refused, and the gateway goes on.
      run.type("external nowhere");
      await run.event("error", 2);
      run.type("quit");

      assertEquals(await run.status, 0);
      assertEquals([run.events.at(-1)?.command, run.listeners], ["quit", 0]);
      // Its port is free again.
      const second = natkit("gateway", "--listen", "127.0.0.1", "--port", `${port}`, "--json");
      assertEquals((await second.event("listening")).port, port);
    });

    it("ends at a signal, with its status, and says so", async () => {
      const run = start();
      const { protocols } = await run.event("listening");
      assertEquals(protocols, ["pcp", "nat-pmp", "upnp"]);
      run.signal("SIGTERM");

      assertEquals(await run.status, 143);
      assertEquals(run.events.at(-1)?.command, "quit");
      assertEquals(run.listeners, 0);
    });

    it("says so and ends with 1 where the port is in use", async () => {
      const { port } = gateway.endpoint;
      const run = natkit("gateway", "--listen", "127.0.0.1", "--port", `${port}`, "--json");

      assertEquals(await run.status, 1);
      assertEquals(run.events[0]?.code, "address-in-use");
      assertStringIncludes(run.err, `127.0.0.1:${port}: the port is in use`);
    });
  });

  it("shows the demonstration, and ends by itself", async () => {
    const run = natkit("demo", "--json");

    assertEquals(await run.status, 0, run.out + run.err);
    assertEquals(run.names[0], "listening");
    const commands = run.events.filter(({ event }) => event === "scenario");
    assertEquals(commands.map(({ command }) => command), ["reboot", "external"]);
    // Who hears nothing for a while asks, and is told the same again.
    const vias = (name: string) => {
      const told = run.events.filter(({ event }) => event === name);
      return [...new Set(told.map(({ via }) => via))].sort();
    };
    const mapped = vias("mapped");
    assert(mapped.length >= 2);
    assertEquals([vias("moved"), vias("unmapped")], [mapped, mapped]);
    const ofPcp = (name: string) =>
      run.events.find(({ event, via }) => event === name && via === "pcp")!;
    const { address, port } = run.events[0]!;
    const fields = {
      protocol: "tcp",
      via: "pcp",
      gateway: `${address}:${port}`,
      internal: { address: "127.0.0.1", port: 8080 },
    };
    const first = ofPcp("mapped"), last = ofPcp("unmapped");
    assertEquals(first, {
      event: "mapped",
      ...fields,
      external: { address: "203.0.113.7", port: 8080 },
      lifetimeSeconds: 7200,
      elapsedMs: first.elapsedMs,
    });
    assertEquals(last, {
      event: "unmapped",
      ...fields,
      external: { address: "198.51.100.9", port: 8080 },
      reason: "revoked",
      elapsedMs: last.elapsedMs,
    });
  });
});
