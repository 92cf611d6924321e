/**
 * The command as a process of its own, on the runtime that runs this test: this file (or its
 * bundle) is started again, and then is the command.
 */
import { afterEach, beforeEach, describe, it } from "node:test";
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { createServer } from "node:net";
import { readFileSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { isRunning } from "../../../adapters/cli/processes.ts";
import { type GatewayServer, startGateway } from "../../../adapters/gateway_server.ts";

const SELF = fileURLToPath(import.meta.url);
const ROOT = process.env.NATKIT_ROOT ?? process.cwd();
const AS_COMMAND = "NATKIT_TEST_COMMAND";
const FLAGS = "Deno" in globalThis ? ["run", "-A", "--no-check", "--unstable-net"] : [];
/** A process that should end and does not is ended by this; nothing waits for it otherwise. */
const GUARD_MS = 20_000;
const HAS_SIGNALS = process.platform !== "win32";

/** A natkit that runs. */
class Natkit {
  out = "";
  err = "";
  #isOver = false;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #ended: Promise<number | string>;
  readonly #watchers = new Set<() => void>();

  /** @param asTask As a task of deno.json, in a process group of its own as in a terminal. */
  constructor(args: readonly string[], folder: string, asTask: boolean = false) {
    const env = { ...process.env, XDG_STATE_HOME: folder, NO_COLOR: "1" };
    this.#child = asTask
      ? spawn(process.execPath, ["task", "natkit", ...args], { env, cwd: ROOT, detached: true })
      : spawn(process.execPath, [...FLAGS, SELF, ...args], { env: { ...env, [AS_COMMAND]: "1" } });
    const guard = setTimeout(() => this.#child.kill("SIGKILL"), GUARD_MS);
    this.#child.stdout.on("data", (data) => {
      this.out += data;
      for (const watcher of [...this.#watchers]) watcher();
    });
    this.#child.stderr.on("data", (data) => void (this.err += data));
    this.#child.stdin.on("error", () => {});
    this.#ended = new Promise((resolve) => {
      this.#child.on("close", (code, signal) => {
        clearTimeout(guard);
        this.#isOver = true;
        resolve(code ?? signal ?? "nothing");
        for (const watcher of [...this.#watchers]) watcher();
      });
    });
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** The events so far. */
  get events(): Record<string, unknown>[] {
    const lines = this.out.split("\n");
    return lines.slice(0, -1).map((line) => JSON.parse(line));
  }

  get names(): unknown[] {
    return this.events.map(({ event }) => event);
  }

  /** Waits for the `nth` event of a name. */
  async event(name: string, nth: number = 1): Promise<Record<string, unknown>> {
    const found = () => this.events.filter(({ event }) => event === name)[nth - 1];
    while (!found()) {
      if (this.#isOver) throw new Error(`It ended without ${name}:\n${this.out}${this.err}`);
      await new Promise<void>((resolve) => {
        const watcher = () => {
          this.#watchers.delete(watcher);
          resolve();
        };
        this.#watchers.add(watcher);
      });
    }
    return found()!;
  }

  write(line: string): void {
    this.#child.stdin.write(`${line}\n`);
  }

  closeInput(): void {
    this.#child.stdin.end();
  }

  closeOutput(): void {
    this.#child.stdout.destroy();
  }

  signal(signal: "SIGHUP" | "SIGINT" | "SIGTERM" | "SIGKILL"): void {
    // After `child.kill` Deno reports the signal, although the process ended with a status.
    if (!this.#isOver) process.kill(this.#child.pid!, signal);
  }

  /** What Ctrl-C does in a terminal: all of the group get it, and the task runner passes it on. */
  interruptGroup(): void {
    if (!this.#isOver) process.kill(-this.#child.pid!, "SIGINT");
  }

  /** The exit status, or the signal that ended it. */
  end(): Promise<number | string> {
    return this.#ended;
  }
}

if (process.env[AS_COMMAND]) {
  void import("../../../adapters/cli/bin.ts");
} else {
  describe("natkit as a process", () => {
    let folder = "";
    let gateway: GatewayServer | undefined;
    const children: Natkit[] = [];

    beforeEach(async () => {
      folder = await mkdtemp(join(tmpdir(), "natkit-"));
      gateway = await startGateway({ announceTo: [] });
    });
    afterEach(async () => {
      for (const child of children.splice(0)) {
        child.signal("SIGKILL");
        await child.end();
      }
      await gateway?.close();
      await rm(folder, { recursive: true, force: true });
    });

    function natkit(...args: string[]): Natkit {
      const child = new Natkit(args, folder);
      children.push(child);
      return child;
    }

    const here = () => [
      "--gateway",
      `${gateway!.endpoint.address}:${gateway!.endpoint.port}`,
      "--json",
    ];
    const state = () => join(folder, "natkit", "state.json");
    const until = async (isIt: () => boolean | Promise<boolean>) => {
      while (!await isIt()) await new Promise((resolve) => setTimeout(resolve, 5));
    };
    const ports = () => gateway!.entries().map(({ internal }) => internal.port);

    it("maps, tells, keeps and unmaps, and ends by itself each time", async () => {
      for (const via of ["pcp", "nat-pmp"]) {
        const map = natkit("map", "6000/udp", "--via", via, "--mode", "once", ...here());
        assertEquals(await map.end(), 0, map.err);
        const [event] = map.events;
        assertEquals([map.names, event?.via, event?.protocol], [["mapped"], via, "udp"]);
        assertStringIncludes(String(event?.gateway), "127.0.0.1");
        assertEquals(ports(), [6000]);

        const unmap = natkit("unmap", "6000/udp", ...here());
        assertEquals(await unmap.end(), 0, unmap.out + unmap.err);
        assertEquals([...new Set(unmap.names)], ["unmapped"]);
        assertEquals(ports(), []);
      }
    });

    it("adopts the mapping of an earlier run", async () => {
      const once = ["map", "6000", "--mode", "once", ...here()];
      assertEquals(await natkit(...once).end(), 0);
      const again = natkit(...once);

      assertEquals(await again.end(), 0, again.out);
      assertEquals(ports(), [6000]);
    });

    it("does not take the mapping of a process that lives, but that of one that was killed", {
      skip: !HAS_SIGNALS,
    }, async () => {
      for (const via of ["pcp", "nat-pmp"]) {
        const map = ["map", "6000", "--via", via, ...here()];
        const first = natkit(...map);
        await first.event("mapped");
        // What it keeps it keeps once it has told.
        await until(() =>
          readFile(state(), "utf8").then((it) => it.includes("owner"), () => false)
        );

        const second = natkit(...map);
        assertEquals(await second.end(), 1);
        assertEquals(second.events.map(({ code }) => code), ["in-use"]);
        assertStringIncludes(second.err, `process ${first.pid}:`);
        const unmap = natkit("unmap", "6000", ...here());
        assertEquals([await unmap.end(), unmap.events[0]?.code], [1, "in-use"]);
        assertEquals(ports(), [6000]);

        first.signal("SIGKILL");
        await first.end();
        const third = natkit(...map);
        await third.event("mapped");
        assertEquals(ports(), [6000]);
        third.signal("SIGINT");
        assertEquals(await third.end(), 130);
        assertEquals(ports(), []);
      }
    });

    it("has its nonce in the state file before the request with it arrives", async () => {
      const silent = createSocket("udp4");
      const seen = new Promise<boolean>((resolve) => {
        silent.on("message", (data) => {
          if (data[0] !== 2 || data[1] !== 1) return;
          // PCP's nonce (RFC 6887 §11.1).
          const nonce = data.subarray(24, 36).toString("hex");
          resolve(readFileSync(state(), "utf8").includes(nonce));
        });
      });
      await new Promise<void>((resolve) => silent.bind(0, "127.0.0.1", resolve));
      try {
        const at = `127.0.0.1:${silent.address().port}`;
        const child = natkit("map", "6000", "--gateway", at, "--json");
        assertEquals(await seen, true);
        child.signal("SIGKILL");
        await child.end();
        const [entry] = JSON.parse(await readFile(state(), "utf8")).entries;
        assertEquals([entry.owner.pid, entry.gateway.port], [child.pid, silent.address().port]);
      } finally {
        silent.close();
      }
    });

    it("leaves nothing in the state file of what was refused", async () => {
      await gateway!.command("refuse 2");
      assertEquals(await natkit("map", "6000", ...here()).end(), 1);
      assertEquals(JSON.parse(await readFile(state(), "utf8")).entries, []);
    });

    it("forgets what nobody answered, and what a run that was killed asked for in vain", async () => {
      const silent = createSocket("udp4");
      const asked = new Promise<void>((resolve) => silent.on("message", () => resolve()));
      await new Promise<void>((resolve) => silent.bind(0, "127.0.0.1", resolve));
      const entries = async () => JSON.parse(await readFile(state(), "utf8")).entries.length;
      try {
        const at = ["--gateway", `127.0.0.1:${silent.address().port}`, "--json"];
        const child = natkit("map", "6000", "--timeout", "1", ...at);
        assertEquals([await child.end(), await entries()], [1, 0]);
        const killed = natkit("map", "6000", ...at);
        await until(() => entries().then((count) => count === 1, () => false));
        await asked;
        killed.signal("SIGKILL");
        await killed.end();
        const unmap = natkit("unmap", "--all", "--via", "pcp", "--timeout", "1", ...at);
        assertEquals([await unmap.end(), await entries()], [0, 0], unmap.out + unmap.err);
      } finally {
        silent.close();
      }
    });

    it("watches a port: the whole set at once, at each change, and at each line", async () => {
      const child = natkit("watch", "6000/tcp", ...here());
      const outside = async (nth: number) => {
        const { assignments } = await child.event("assignments", nth);
        return (assignments as { via: string; address: string; port: number }[])
          .filter(({ via }) => via !== "local").map(({ via, address }) => `${via} ${address}`);
      };
      assertEquals(await outside(1), []);
      assertEquals(await outside(2), ["pcp 203.0.113.7"]);
      const { entries } = JSON.parse(await readFile(state(), "utf8"));
      assertEquals(entries.map((one: { owner: { pid: number } }) => one.owner.pid), [child.pid]);

      await until(() => {
        child.write("");
        return child.names.length > 2;
      });
      assertEquals(await outside(3), ["pcp 203.0.113.7"]);
      const second = natkit("map", "6000", ...here());
      assertEquals([await second.end(), second.events[0]?.code], [1, "in-use"]);

      child.signal("SIGTERM");
      assertEquals(await child.end(), 143, child.err);
      assertEquals(ports(), []);
      assertEquals(JSON.parse(await readFile(state(), "utf8")).entries, []);
    });

    it("says to a person what a watched port waits for", async () => {
      await gateway!.command("deaf 1000");
      const [, at] = here();
      const child = natkit("watch", "6000/tcp", "--gateway", at!);
      await until(() => child.err.includes("Waiting for 127.0.0.1"));
      child.signal("SIGINT");
      assertEquals(await child.end(), 130, child.err);
      assertEquals(child.err.split("Waiting for").length, 2);
    });

    it("examines the gateway, and leaves nothing there", async () => {
      const child = natkit("doctor", "--via", "pcp,nat-pmp", ...here());
      assertEquals(await child.end(), 0, child.err);
      const [report] = child.events as {
        gateways: { protocols: { via: string; external: string; elapsedMs: number }[] }[];
        findings: { code: string }[];
      }[];
      assertEquals(
        report!.gateways[0]!.protocols.map(({ via, external }) => `${via} ${external}`),
        ["pcp 203.0.113.7", "nat-pmp 203.0.113.7"],
      );
      assert(report!.findings.some(({ code }) => code === "open"), child.out);
      assertEquals(ports(), []);
    });

    it("unmaps at the gateway that the state names", async () => {
      const other = await startGateway({ announceTo: [] });
      try {
        const at = `${other.endpoint.address}:${other.endpoint.port}`;
        for (const flags of [here(), ["--gateway", at]]) {
          assertEquals(await natkit("map", "6000", "--mode", "once", ...flags).end(), 0);
        }
        assertEquals([ports(), other.entries().length], [[6000], 1]);
        const one = natkit("unmap", "6000", ...here());
        assertEquals(await one.end(), 0, one.out);
        assertEquals([ports(), other.entries().length], [[], 1]);

        const rest = natkit("unmap", "6000", "--json");
        assertEquals(await rest.end(), 0, rest.out);
        assertEquals(rest.events.map(({ gateway }) => gateway), [at]);
        assertEquals(other.entries(), []);
      } finally {
        await other.close();
      }
    });

    it("says that PCP made it where NAT-PMP is to delete it", async () => {
      assertEquals(await natkit("map", "6000", "--mode", "once", ...here()).end(), 0);

      const unmap = natkit("unmap", "6000", "--via", "nat-pmp", ...here());

      assertEquals([await unmap.end(), unmap.events[0]?.code], [1, "other-protocol"]);
      assertEquals(ports(), [6000]);
    });

    it("maps several ports, one of which the gateway refuses, and unmaps them", {
      skip: !HAS_SIGNALS,
    }, async () => {
      await gateway!.close();
      gateway = await startGateway({
        announceTo: [],
        decide: ({ internal }) => internal.port === 6002 ? { kind: "refuse", code: 2 } : undefined,
      });
      const ports3 = ["6000", "6001/udp", "6002"];
      const child = natkit("map", ...ports3, "--json", "--gateway", here()[1]!);
      await child.event("mapped", 2);
      const error = await child.event("error");
      assertEquals([error.protocol, error.internal], ["tcp", { port: 6002 }]);
      assertEquals(ports().sort(), [6000, 6001]);
      child.signal("SIGINT");
      assertEquals(await child.end(), 130, child.err);
      assertEquals(ports(), []);

      const once = natkit("map", ...ports3, "--mode", "once", ...here());
      assertEquals(await once.end(), 1, once.err);
      assertEquals(ports().sort(), [6000, 6001]);
      const unmap = natkit("unmap", "6000", "6001/udp", ...here());
      assertEquals(await unmap.end(), 0, unmap.out + unmap.err);
      assertEquals(ports(), []);
    });

    it("runs a command at each change, with the event in its environment", {
      skip: !HAS_SIGNALS,
    }, async () => {
      const log = join(folder, "log");
      const exec = `echo "$NATKIT_EVENT $NATKIT_EXTERNAL_ADDRESS" >> '${log}'; echo said; false`;
      const child = natkit("map", "6000", "--exec", exec, ...here());
      await until(() => readFile(log, "utf8").then((it) => it.endsWith("\n"), () => false));
      child.signal("SIGINT");
      assertEquals(await child.end(), 130, child.err);
      assertEquals(await readFile(log, "utf8"), "mapped 203.0.113.7\nunmapped 203.0.113.7\n");
      // Its output is not among the events, which can be read one by one.
      assertEquals(child.names, ["mapped", "unmapped"]);
      assertStringIncludes(child.err, "said\nnatkit: warning: --exec at mapped failed: status 1");
    });

    it("takes a command that hangs along where it is ended at once", {
      skip: !HAS_SIGNALS,
    }, async () => {
      const file = join(folder, "pid");
      const exec = `sleep 1000 & echo $! > '${file}'; wait`;
      const child = natkit("map", "6000", "--exec", exec, ...here());
      const pid = async () => Number(await readFile(file, "utf8").catch(() => ""));
      await until(async () => await pid() > 0);
      child.signal("SIGINT");
      await child.event("unmapped");
      assertEquals(ports(), []);
      await new Promise((resolve) => setTimeout(resolve, 1100));
      child.signal("SIGINT");
      assertEquals(await child.end(), 130, child.err);
      const sleeper = await pid();
      await until(async () => !await isRunning({ pid: sleeper }));
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
        assertEquals([await both.end(), [...both.err.matchAll(note)]], [0, []], both.err);
        await new Promise((resolve) => server.close(resolve));
        await new Promise<void>((resolve) => socket.close(resolve));
        const none = natkit("map", `${tcp}`, `${udp}/udp`, "--mode", "once", ...here());
        assertEquals(await none.end(), 0, none.err);
        const said = [...none.err.matchAll(note)].map(([, port, protocol]) =>
          `${port}/${protocol}`
        );
        assertEquals(said.sort(), [`${tcp}/tcp`, `${udp}/udp`].sort(), none.err);
      } finally {
        server.close();
      }
    });

    it("unmaps everything", async () => {
      for (const what of ["6000/tcp", "6001/udp"]) {
        assertEquals(await natkit("map", what, "--mode", "once", ...here()).end(), 0);
      }
      const all = natkit("unmap", "--all", ...here());

      assertEquals(await all.end(), 0, all.out);
      assertEquals(ports(), []);
    });

    it("tells the external address by both protocols", async () => {
      const child = natkit("address", ...here());

      assertEquals(await child.end(), 0);
      assertEquals(child.events.map(({ via, address }) => `${via} ${address}`).sort(), [
        "nat-pmp 203.0.113.7",
        "pcp 203.0.113.7",
      ]);
    });

    it("tells the address at once where the gateway is silent to PCP, and soon ends", async () => {
      const silent = createSocket("udp4");
      silent.on("message", (data, { port, address }) => {
        // NAT-PMP's external address response (RFC 6886 §3.2).
        const answer = Uint8Array.of(0, 128, 0, 0, 0, 0, 0, 9, 198, 51, 100, 9);
        if (data[0] === 0) silent.send(answer, port, address);
      });
      await new Promise<void>((resolve) => silent.bind(0, "127.0.0.1", resolve));
      try {
        const startedAt = performance.now();
        const at = `127.0.0.1:${silent.address().port}`;
        const child = natkit("address", "--gateway", at, "--json");

        assertEquals(await child.end(), 0, child.err);
        // Which address is not asked: another test's gateway on this loopback may announce its own.
        assertEquals(child.events.map(({ event, via }) => [event, via]), [["address", "nat-pmp"]]);
        // The patience with a silent gateway is 10 s.
        assert(performance.now() - startedAt < 7000);
      } finally {
        silent.close();
      }
    });

    it("makes an outbound mapping", async () => {
      const child = natkit("peer", "6000/udp", "198.51.100.1", "80", "--mode", "once", ...here());

      assertEquals(await child.end(), 0, child.out);
      assertEquals(child.events[0]?.remote, { address: "198.51.100.1", port: 80 });
      assertEquals(gateway!.entries()[0]?.remote, { address: "198.51.100.1", port: 80 });
    });

    it("ends with 2 on wrong usage", async () => {
      const child = natkit("map", "--json");

      assertEquals([await child.end(), child.events[0]?.code], [2, "usage"]);
    });

    it("ends with 1 and what was tried where the gateway refuses", async () => {
      await gateway!.command("refuse 2");
      const child = natkit("map", "6000", ...here());

      assertEquals(await child.end(), 1);
      const [error] = child.events as {
        event: string;
        code: string;
        attempts: { via: string }[];
      }[];
      assertEquals([error?.event, error?.code], ["error", "refused"]);
      assertEquals(error?.attempts.some(({ via }) => via === "pcp"), true);
    });

    it("ends with 1 in time where the gateway is silent", async () => {
      await gateway!.command("deaf 1000");
      const child = natkit("map", "6000", "--timeout", "1", ...here());

      assertEquals(await child.end(), 1);
      assertEquals(child.events[0]?.code, "no-answer");
    });

    for (const [signal, status] of [["SIGHUP", 129], ["SIGINT", 130], ["SIGTERM", 143]] as const) {
      it(`deletes the mapping at ${signal}, says so and ends with ${status}`, {
        skip: !HAS_SIGNALS,
      }, async () => {
        const child = natkit("map", "6000", ...here());
        await child.event("mapped");
        assertEquals(ports(), [6000]);
        child.signal(signal);

        assertEquals(await child.end(), status, child.err);
        assertEquals(child.names, ["mapped", "unmapped"]);
        assertEquals(ports(), []);
      });
    }

    it("deletes the mapping at signals that come twice at once", {
      skip: !HAS_SIGNALS,
    }, async () => {
      await gateway!.command("delay 40");
      // While the deletion is on its way, and about when the command is over.
      for (const [second, afterMs] of [["SIGINT", 0], ["SIGTERM", 5], ["SIGINT", 45]] as const) {
        const child = natkit("map", "6000", ...here());
        await child.event("mapped");
        child.signal("SIGINT");
        await new Promise((resolve) => setTimeout(resolve, afterMs));
        child.signal(second);

        assertEquals(await child.end(), 130, child.err);
        assertEquals(child.names, ["mapped", "unmapped"]);
        assertEquals(ports(), []);
      }
    });

    if ("Deno" in globalThis) {
      it("deletes the mapping at Ctrl-C under a task runner", {
        skip: !HAS_SIGNALS,
      }, async () => {
        await gateway!.command("delay 20");
        for (let trial = 0; trial < 5; trial++) {
          const child = new Natkit(["map", "6000", ...here()], folder, true);
          children.push(child);
          await child.event("mapped");
          child.interruptGroup();

          assertEquals(await child.end(), 130, child.err);
          assertEquals(child.names, ["mapped", "unmapped"]);
          assertEquals(ports(), []);
        }
      });
    }

    it("leaves nothing behind where it is interrupted before it has a mapping", {
      skip: !HAS_SIGNALS,
    }, async () => {
      await gateway!.close();
      let onRequest = () => {};
      gateway = await startGateway({ announceTo: [], onEvent: () => onRequest() });
      await gateway.command("delay 60");
      for (const via of ["pcp", "nat-pmp"]) {
        for (const request of [1, 2]) {
          const heard = new Promise<void>((resolve) => {
            let heard = 0;
            onRequest = () => void (++heard === request && resolve());
          });
          const child = natkit("map", "6000", "--via", via, ...here());
          await heard;
          child.signal("SIGINT");

          assertEquals(await child.end(), 130, child.err);
          await new Promise((resolve) => setTimeout(resolve, 150));
          assertEquals(ports(), [], `${via} ${request}`);
        }
      }
    });

    it("says so where the gateway refuses to delete the mapping", {
      skip: !HAS_SIGNALS,
    }, async () => {
      const child = natkit("map", "6000", ...here());
      await child.event("mapped");
      await gateway!.command("refuse 2");
      child.signal("SIGINT");

      assertEquals(await child.end(), 130, child.err);
      assertEquals(child.names, ["mapped", "error"]);
      assertStringIncludes(String(child.events[1]?.message), "NOT_AUTHORIZED");
      assertEquals(ports(), [6000]);
    });

    it("tells renewals, and ends when its lifetimes are over", async () => {
      await gateway!.close();
      gateway = await startGateway({ announceTo: [], minLifetimeSeconds: 1 });
      const child = natkit("map", "6000", "--lifetime", "1", "--mode", "2", ...here());

      assertEquals(await child.end(), 0, child.err);
      assertEquals(child.events.at(-1)?.reason, "expired");
    });

    it("deletes the mapping and ends without a stack where nobody reads any more", {
      skip: !HAS_SIGNALS,
    }, async () => {
      const child = natkit("map", "6000", ...here());
      await child.event("mapped");
      child.closeOutput();
      // It notices when it has something to tell, once the pipe is really closed.
      let status: number | string | undefined;
      const ended = child.end().then((it) => status = it);
      for (let last = 1; status === undefined; last = last % 250 + 1) {
        await gateway!.command(`external 198.51.100.${last}`);
        await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 100))]);
      }

      assertEquals(status, 1);
      assertEquals(ports(), []);
      assert(!child.err.includes("    at "), child.err);
    });

    it("deletes the mapping at a signal though nobody reads", { skip: !HAS_SIGNALS }, async () => {
      const child = natkit("map", "6000", ...here());
      await child.event("mapped");
      child.closeOutput();
      child.signal("SIGINT");

      assertEquals(await child.end(), 130, child.err);
      assertEquals(ports(), []);
      assert(!child.err.includes("    at "), child.err);
    });

    it("works without an input", async () => {
      const child = natkit("map", "6000", "--mode", "once", ...here());
      child.closeInput();

      assertEquals(await child.end(), 0, child.err);
    });

    describe("as a gateway", () => {
      const start = (...args: string[]) =>
        natkit("gateway", "--listen", "127.0.0.1", "--port", "0", "--json", ...args);

      it("answers, takes commands, and ends with 0 at quit", async () => {
        const child = start("--external", "198.51.100.1", "--epoch", "5000000");
        const listening = await child.event("listening");
        assertEquals(listening.external, ["198.51.100.1"]);
        const at = `${listening.address}:${listening.port}`;

        const map = natkit("map", "6000", "--mode", "once", "--json", "--gateway", at);
        assertEquals(await map.end(), 0, map.out);
        assertEquals(map.events[0]?.external, { address: "198.51.100.1", port: 6000 });
        const { change, via, protocol } = await child.event("mapping");
        assertEquals([change, via, protocol], ["added", "pcp", "tcp"]);
        assert(child.names.includes("request") && child.names.includes("response"));
        const { epochSeconds } = await child.event("response");
        assert(Math.abs(Number(epochSeconds) - 5_000_000) < 60, `${epochSeconds}`);

        child.write("list");
        const list = await child.event("scenario");
        assertEquals((list.mappings as unknown[]).length, 1);
        child.write("nonsense");
        const error = await child.event("error");
        assertStringIncludes(String(error.message), "reboot");
        child.write("  external   198.51.100.2 ");
        assertEquals((await child.event("scenario", 2)).addresses, ["198.51.100.2"]);
        child.write("quit");
        assertEquals(await child.end(), 0);
        assertEquals(child.events.at(-1)?.command, "quit");
        assertEquals(child.events[0]?.event, "listening");
      });

      it("runs on at the end of input, until a signal", { skip: !HAS_SIGNALS }, async () => {
        const child = start();
        const listening = await child.event("listening");
        child.closeInput();
        const at = `${listening.address}:${listening.port}`;
        const address = natkit("address", "--gateway", at);
        assertEquals(await address.end(), 0);
        child.signal("SIGTERM");

        assertEquals(await child.end(), 143);
        assertEquals(child.events.at(-1)?.event, "scenario");
      });

      it("says so and ends with 1 where the port is in use", async () => {
        const { port } = gateway!.endpoint;
        const child = natkit("gateway", "--listen", "127.0.0.1", "--port", `${port}`, "--json");

        assertEquals(await child.end(), 1);
        assertEquals(child.events[0]?.code, "address-in-use");
        assertStringIncludes(child.err, `127.0.0.1:${port}: the port is in use`);
      });
    });

    it("shows the demonstration, and ends by itself within 5 s", async () => {
      const startedAt = performance.now();
      const child = natkit("demo", "--json");

      assertEquals(await child.end(), 0, child.out + child.err);
      assert(performance.now() - startedAt < 5000);
      const { names, events } = child;
      const three = <T>(value: T) => [value, value, value];
      assertEquals(names.slice(0, 8), [
        "listening",
        ...three("mapped"),
        ...three("mapping"),
        "scenario",
      ]);
      const vias = (name: string) =>
        events.filter(({ event }) => event === name).map(({ via }) => via);
      assertEquals(vias("mapped"), ["pcp", "nat-pmp", "upnp"]);
      assertEquals(vias("renewed").sort(), ["nat-pmp", "pcp", "upnp"]);
      assertEquals(vias("moved").sort(), ["nat-pmp", "pcp", "upnp"]);
      assertEquals(names.slice(-3), three("unmapped"));
      assertEquals(child.err, "");
    });
  });
}
