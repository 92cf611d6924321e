/**
 * The command as a process of its own, on the runtime that runs this test: this file (or its
 * bundle) is started again, and then is the command.
 */
import { afterEach, beforeEach, describe, it } from "node:test";
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { isRunning } from "../../../adapters/cli/processes.ts";
import { type GatewayServer, startGateway } from "../../../adapters/gateway_server.ts";
import type { ServerEvent } from "../../../core/table/server_request.ts";

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
    this.#kill(this.#child.pid!, signal);
  }

  /** What Ctrl-C does in a terminal: all of the group get it, and the task runner passes it on. */
  interruptGroup(): void {
    this.#kill(-this.#child.pid!, "SIGINT");
  }

  /** One that is gone already, though that is not told yet, cannot be signalled. */
  #kill(pid: number, signal: NodeJS.Signals): void {
    try {
      if (!this.#isOver) process.kill(pid, signal);
    } catch (error) {
      if ((error as { code?: unknown }).code !== "ESRCH") throw error;
    }
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
      const map = natkit("map", "6000/udp", "--mode", "once", ...here());
      assertEquals(await map.end(), 0, map.err);
      assertEquals([map.names, ports()], [["mapped"], [6000]]);

      const unmap = natkit("unmap", "6000/udp", ...here());
      assertEquals(await unmap.end(), 0, unmap.out + unmap.err);
      assertEquals([unmap.names, ports()], [["unmapped"], []]);
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

    it("forgets what a run that was killed asked for in vain", async () => {
      const silent = createSocket("udp4");
      const asked = new Promise<void>((resolve) => silent.on("message", () => resolve()));
      await new Promise<void>((resolve) => silent.bind(0, "127.0.0.1", resolve));
      const entries = async () => JSON.parse(await readFile(state(), "utf8")).entries.length;
      try {
        const at = ["--gateway", `127.0.0.1:${silent.address().port}`, "--json"];
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

    it("runs a command at each change, with the event in its environment", {
      skip: !HAS_SIGNALS,
    }, async () => {
      const log = join(folder, "log");
      const exec = `echo "$NATKIT_EVENT $NATKIT_EXTERNAL_ADDRESS" >> '${log}'; echo said; ` +
        "echo complained >&2; false";
      const child = natkit("map", "6000", "--exec", exec, ...here());
      await until(() => readFile(log, "utf8").then((it) => it.endsWith("\n"), () => false));
      child.signal("SIGINT");
      assertEquals(await child.end(), 130, child.err);
      assertEquals(await readFile(log, "utf8"), "mapped 203.0.113.7\nunmapped 203.0.113.7\n");
      // Its output is not among the events, which can be read one by one.
      assertEquals(child.names, ["mapped", "unmapped"]);
      const warning = (event: string) => `natkit: warning: --exec at ${event} failed: status 1\n`;
      const lines = { "said\n": 2, "complained\n": 2, [warning("mapped")]: 1 };
      for (const [line, times] of Object.entries(lines)) {
        assertEquals(child.err.split(line).length, times + 1, child.err);
      }
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

    it("ends with 2 on wrong usage", async () => {
      const child = natkit("map", "--json");

      assertEquals([await child.end(), child.events[0]?.code], [2, "usage"]);
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
      await gateway!.close();
      let onDeletion = () => {};
      const onEvent = (event: ServerEvent) => {
        if (event.type === "mapping" && event.change === "removed") onDeletion();
      };
      gateway = await startGateway({ announceTo: [], onEvent });
      await gateway.command("delay 40");
      // Of two that are not the same the first must have been heard: those that wait come in any order.
      for (
        const [second, when] of [
          ["SIGINT", "at once"],
          ["SIGTERM", "while the answer is on its way"],
          ["SIGINT", "about when the command is over"],
        ] as const
      ) {
        const child = natkit("map", "6000", ...here());
        await child.event("mapped");
        const deletion = new Promise<void>((resolve) => onDeletion = resolve);
        child.signal("SIGINT");
        if (when !== "at once") await deletion;
        if (when === "about when the command is over") await child.event("unmapped");
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
    });

    it("shows the demonstration, and ends by itself", async () => {
      const child = natkit("demo", "--json");

      assertEquals(await child.end(), 0, child.out + child.err);
      const { names, events } = child;
      const three = <T>(value: T) => [value, value, value];
      assertEquals(names.slice(0, 8), [
        "listening",
        ...three("mapped"),
        ...three("mapping"),
        "scenario",
      ]);
      // Whoever hears nothing for a while asks, and is told more than once.
      const vias = (name: string) => {
        const told = events.filter(({ event }) => event === name);
        return [...new Set(told.map(({ via }) => via))];
      };
      assertEquals(vias("mapped"), ["pcp", "nat-pmp", "upnp"]);
      assertEquals(vias("renewed").sort(), ["nat-pmp", "pcp", "upnp"]);
      assertEquals(vias("moved").sort(), ["nat-pmp", "pcp", "upnp"]);
      assertEquals(names.at(-1), "unmapped");
      assertEquals(child.err, "");
    });
  });
}
