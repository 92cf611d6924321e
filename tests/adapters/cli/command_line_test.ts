import { afterEach, beforeEach, describe, it } from "node:test";
import { writeFileSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { NatOptions } from "../../../adapters/api/options.ts";
import { COMMANDS } from "../../../adapters/cli/commands/mod.ts";
import { runCommandLine } from "../../../adapters/cli/command_line.ts";
import { type Flag, type FlagName, FLAGS } from "../../../adapters/cli/flags.ts";
import type { StopSignal } from "../../../adapters/cli/io.ts";
import { type Entry, StateFile } from "../../../adapters/cli/state_file.ts";
import { VERSION } from "../../../adapters/cli/version.ts";
import { NatError, type Via } from "../../../core/errors.ts";
import type { Endpoint } from "../../../core/machine.ts";
import type { GrantedMapping, SavedPort } from "../../../core/portmap/managed.ts";
import { FakeNetwork, turn } from "../api/fake_network.ts";
import { FakeRuntime } from "../fake_runtime.ts";
import { FakeIo, FakeMapping, FakeNat, GRANTED } from "./fakes.ts";

const MAPPED = {
  protocol: "tcp",
  via: "pcp",
  gateway: "192.168.1.1",
  internal: { address: "192.168.1.5", port: 6000 },
  external: { address: "203.0.113.7", port: 6000 },
  lifetimeSeconds: 600,
};

/** A mapping that an earlier run made. */
const SAVED: SavedPort = {
  via: "pcp",
  gateway: "192.168.1.1",
  lifetimeSeconds: 600,
  mode: "keep-alive",
  protocol: "tcp",
  internalPort: 6000,
  external: { address: "203.0.113.7", port: 6000 },
  nonce: "000102030405060708090a0b",
};

/** What a gateway above maps on of that. */
const ABOVE: SavedPort = {
  ...SAVED,
  via: "nat-pmp",
  gateway: "10.0.0.1",
  internalPort: 7000,
  inner: { gateway: SAVED.gateway, address: "10.0.0.2", internalPort: 6000 },
};

/** The entry of a run that lives: a test's parent does, and outlives it. */
const HELD: Partial<Entry> = { owner: { pid: process.ppid } };

/** What cannot be meant: the arguments, and what the message begins with and what else it names. */
const WRONG: readonly [args: string, names: readonly string[]][] = [
  ["", ["natkit needs a command: commands are map, unmap, peer, address, "]],
  ["frobnicate", ['Unknown command "frobnicate": ']],
  ["lists", ['Unknown command "lists" (did you mean list?): ']],
  ["watch 0", ["PORT", '"0"']],
  ["watch 6000 --mode once", ["--mode", "watch"]],
  ["doctor now", ['natkit doctor takes no arguments: "now" ']],
  ["dig a:1", ['Unknown command "dig": ']],
  ["map", ["natkit map needs PORT[/tcp|/udp]…\n"]],
  ["peer", ["natkit peer needs PORT/tcp|/udp REMOTE_ADDRESS REMOTE_PORT\n"]],
  ["watch", ["natkit watch needs PORT[/tcp|/udp]\n"]],
  ["upnp", ["natkit upnp needs services|actions|call [SERVICE …]\n"]],
  ["stun", ["natkit stun needs HOST[:PORT]\n"]],
  ["completion", ["natkit completion needs bash|zsh|fish\n"]],
  ["completion tcsh", ["natkit completion needs bash, zsh or fish", '"tcsh"']],
  ["completion constructor", ["natkit completion needs", '"constructor"']],
  ["map 0", ["PORT", '"0"']],
  ["map 65536", ["PORT", '"65536"']],
  ["map 0x50", ["PORT", '"0x50"']],
  ["map 6000/sctp", ["PORT", '"6000/sctp"']],
  ["map 6000/", ["PORT", '"6000/"']],
  ["map /tcp", ["PORT", '""']],
  ["map 6000/TCP", ["PORT", '"6000/TCP"']],
  ["map -1", ["Unknown flag -1"]],
  ["map 1 --exec=", ["--exec", '""']],
  ["map 1 1/tcp", ["PORT", "twice", '"1/tcp"']],
  ["map 1 0", ["PORT", '"0"']],
  ["map 1 2/udp --external-port 5", ["--external-port", "one PORT", '"5"']],
  [`map ${Array.from({ length: 65 }, (_, i) => i + 1).join(" ")}`, [
    'natkit map takes 64 arguments: "65" ',
  ]],
  ["map 6000 --via upnp,upnp", ["--via", "pcp, nat-pmp and upnp", '"upnp,upnp"']],
  ["map 6000 --via igd", ["--via", '"igd"']],
  ["map 6000 --via upnp --third-party 10.0.0.1", ["--third-party needs PCP,", "upnp"]],
  ["map 6000 --via nat-pmp,upnp --external-address 9.9.9.9", ["--external-address", "--via"]],
  ["map 6000 --lifetime 0", ["--lifetime", '"0"']],
  ["map 6000 --external-port 99999", ["--external-port", '"99999"']],
  ["map 6000 --gateway nowhere", ["--gateway", '"nowhere"']],
  ["map 6000 --prefer-failure", ["--prefer-failure", "--external-port", "none"]],
  ["map 6000 --prefer-failure --external-port 0", ["--prefer-failure", "--external-port", "0"]],
  ["map 6000 --via nat-pmp --filter 10.0.0.0/8", ["--filter", "--via", "nat-pmp"]],
  ["map 6000 --via nat-pmp --third-party 10.0.0.1", ["--third-party", "--via"]],
  ["map 6000 --via nat-pmp --external-address 9.9.9.9", ["--external-address", "--via"]],
  ["map 6000 --via nat-pmp --prefer-failure --external-port 5", ["--prefer-failure", "--via"]],
  ["map 6000 --via nat-pmp --gateway fe80::1%eth0", ["--gateway", "fe80::1%eth0", "--via"]],
  ["map 6000 --gateway 10.0.0.1 --internal-address fd00::1", ["--gateway", "--internal-address"]],
  ["map 6000 --gateway 10.0.0.1 --filter ::/64", ["--gateway", "--filter"]],
  ["map 6000 --third-party fd00::1 --external-address 9.9.9.9", [
    "--external-address and --third-party",
    "fd00::1",
  ]],
  ["map 6000 --profile x", ["--profile"]],
  ["unmap", ["natkit unmap needs PORT or --all"]],
  ["unmap 6000 --all", ["--all", "PORT", '"6000"']],
  ["unmap x", ["PORT", '"x"']],
  ["unmap 6000 x", ["PORT", '"x"']],
  ["unmap 6000 6000", ["PORT", "twice"]],
  ["unmap 6000 --lifetime 5", ["--lifetime"]],
  ["peer 6000/tcp 198.51.100.1", ["natkit peer needs REMOTE_PORT\n"]],
  ["peer 6000 198.51.100.1 80", ["PORT", '"6000"']],
  ["peer 6000/icmp 198.51.100.1 80", ["PORT", '"6000/icmp"']],
  ["peer 6000/tcp example.org 80", ["REMOTE_ADDRESS", '"example.org"']],
  ["peer 6000/tcp 0.0.0.0 80", ["REMOTE_ADDRESS", '"0.0.0.0"']],
  ["peer 6000/tcp 198.51.100.1 0", ["REMOTE_PORT", '"0"']],
  ["peer 6000/tcp 198.51.100.1 80 --via nat-pmp", [
    'natkit peer needs PCP, but --via is "nat-pmp"',
  ]],
  ["peer 6000/tcp 198.51.100.1 80 --gateway fd00::1", ["REMOTE_ADDRESS and --gateway must"]],
  ["peer 6000/tcp 198.51.100.1 80 --internal-address fd00::1", [
    "REMOTE_ADDRESS and --internal-address must",
  ]],
  ["peer 6000/tcp 198.51.100.1 80 --prefer-failure", ["--prefer-failure"]],
  ["peer 6000/tcp 198.51.100.1 80 --filter 10.0.0.0/8", ["--filter"]],
  ["gateway 5", ['natkit gateway takes no arguments: "5" ']],
  ["gateway --port 65536", ["--port", '"65536"']],
  ["gateway --listen x", ["--listen", '"x"']],
  ["gateway --listen 127.0.0.1:5", ["--listen takes no port", "--port", '":5"']],
  ["gateway --protocols stun", ["--protocols", "pcp, nat-pmp and upnp"]],
  ["gateway --profile unheard-of", ["--profile", "unheard-of"]],
  ["gateway --announce-port 0", ["--announce-port", '"0"']],
  ["gateway --external ::1", ["--listen and --external", '"0.0.0.0" and "::1"']],
  ["gateway --listen ::1 --external 1.2.3.4", ["--listen and --external", '"1.2.3.4"']],
  ["gateway --listen ::1 --external 2001:db8::1", ["--external", '"2001:db8::1"', "--listen"]],
  ["gateway --listen ::1 --protocols nat-pmp", ["--protocols", "nat-pmp", "--listen"]],
  ["gateway --listen ::1 --forward", ["--forward", "--listen"]],
  ["gateway --http-port 65536", ["--http-port", '"65536"']],
  ["gateway --epoch 4294967296", ["--epoch", '"4294967296"']],
  ["gateway --epoch -1", ["--epoch", "-1"]],
  ["gateway --gateway 10.0.0.1", ["--gateway"]],
  ["demo 5", ['natkit demo takes no arguments: "5" ']],
  ["demo --port 5", ["--port"]],
  ["list 5", ['natkit list takes no arguments: "5" ']],
  ["list --via pcp", ["--via"]],
  ["address 5", ['natkit address takes no arguments: "5" ']],
  ["address --mode once", ["--mode"]],
  ["address --via nat-pmp --gateway ::1", ['--gateway "::1"', '--via is "nat-pmp"']],
  ["address --gateway 10.0.0.1 --internal-address ::1", ["--gateway", "--internal-address"]],
  ["unmap 6000 --via nat-pmp --gateway ::1", ['--gateway "::1"', '--via is "nat-pmp"']],
];

describe("natkit", () => {
  let folder = "", path = "";
  let io = new FakeIo(), nat = new FakeNat();

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "natkit-"));
    path = join(folder, "natkit", "state.json");
    io = new FakeIo();
    io.env.XDG_STATE_HOME = folder;
    nat = new FakeNat();
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const run = async (line: string) => {
    const own = nat;
    const words = line.split(" ").filter((word) => word !== "");
    const status = await runCommandLine(words, io, { openNat: own.open });
    // What was opened is closed when it ends.
    assertEquals(own.calls.filter(([what]) => what === "close").length, own.opens.length);
    return status;
  };
  const entries = () => new StateFile(path, () => {}).load();
  const saved = async () => (await entries()).map(({ mapping }) => mapping);
  /** Keeps an entry as an earlier run does. */
  const keep = (over: Partial<SavedPort> = {}, entry: Partial<Entry> = {}) =>
    new StateFile(path, () => {}).keep({
      mapping: { ...SAVED, ...over },
      expiresAt: Date.now() + 60_000,
      gateway: { address: over.gateway ?? SAVED.gateway, port: 5351 },
      ...entry,
    });

  describe("what takes longer than half a second", () => {
    /** What is on standard error before and after half a second of waiting for an answer. */
    const waited = async (line: string): Promise<string[]> => {
      const runtime = new FakeRuntime();
      const answers: (() => void)[] = [];
      nat.answer = (what, signal) =>
        new Promise((resolve, reject) => {
          answers.push(() => resolve(/^(map|peer)$/.test(what) ? nat.mapping : []));
          signal.addEventListener("abort", () => reject(signal.reason));
        });
      const running = runCommandLine(line.split(" "), io, { openNat: nat.open, runtime });
      const count = /^map /.test(line) ? line.match(/ \d/g)!.length : 1;
      while (nat.calls.length < count) await new Promise((resolve) => setTimeout(resolve, 1));
      const told: string[] = [];
      for (const ms of [499, 1, 10_000]) {
        runtime.advance(ms);
        told.push(io.err);
      }
      for (const answer of answers) answer();
      await running;
      return told;
    };

    it("is told to a person, once, with what is waited for", async () => {
      const [before, ...after] = await waited("map 6000 --mode once");
      const text = "Waiting for 192.168.1.1 to answer by PCP, NAT-PMP or UPnP…\n";
      assertEquals([before, ...after], ["", text, text]);
    });

    it("says by which protocols, and of several ports once", async () => {
      const texts: [string, string][] = [
        ["map 6000 6001/udp --mode once --via pcp", "PCP"],
        ["address --via nat-pmp,upnp", "NAT-PMP or UPnP"],
        ["list", "UPnP"],
      ];
      for (const [line, by] of texts) {
        io = new FakeIo();
        io.env.XDG_STATE_HOME = folder;
        nat = new FakeNat();
        const [, told] = await waited(line);
        assertEquals(told, `Waiting for 192.168.1.1 to answer by ${by}…\n`);
      }
    });

    it("names the gateways, of which those of IPv6 speak no NAT-PMP", async () => {
      const texts: [readonly string[], string][] = [
        [[], "a gateway to answer by PCP, NAT-PMP or UPnP"],
        [["fe80::1%eth0"], "fe80::1%eth0 to answer by PCP or UPnP"],
        [["[fe80::1%eth0]:5"], "[fe80::1%eth0]:5 to answer by PCP or UPnP"],
        [
          ["192.168.1.1:5", "fe80::1%eth0"],
          "192.168.1.1:5 and fe80::1%eth0 to answer by PCP, NAT-PMP or UPnP",
        ],
      ];
      for (const [gateways, what] of texts) {
        io = new FakeIo();
        io.env.XDG_STATE_HOME = folder;
        nat = new FakeNat();
        nat.gateways = gateways;
        const [, told] = await waited("map 6000 --mode once");
        assertEquals(told, `Waiting for ${what}…\n`);
      }
    });

    it("names the protocols of which the command has need", async () => {
      const texts: [line: string, by: string][] = [
        ["peer 6000/udp 198.51.100.1 80 --mode once", "PCP"],
        ["unmap 6001", "PCP, NAT-PMP or UPnP"],
        ["unmap 6001 --via upnp", "UPnP"],
        ["unmap 6000", "PCP"],
        ["unmap --all --via nat-pmp", "NAT-PMP"],
      ];
      for (const [line, by] of texts) {
        io = new FakeIo();
        io.env.XDG_STATE_HOME = folder;
        nat = new FakeNat();
        if (line === "unmap 6000") await keep();
        const [, told] = await waited(line);
        assertEquals(told, `Waiting for 192.168.1.1 to answer by ${by}…\n`, line);
      }
    });

    it("is told sooner where the start took its time, and later no sooner than at first", async () => {
      const runtime = new FakeRuntime();
      io.clock = 100;
      const open = (options: NatOptions) => {
        io.clock += 300;
        return nat.open(options);
      };
      nat.mapping.close = async () => {
        io.clock = 5000;
        await FakeMapping.prototype.close.call(nat.mapping);
      };
      const running = runCommandLine(["map", "6000"], io, { openNat: open, runtime });
      await io.until(() => io.out.startsWith("mapped"));
      io.clock = 4000;
      io.signal("SIGINT");
      await running;
      assertEquals(runtime.delays, [200, 200, 500]);
    });

    it("is not told to readers of JSON", async () => {
      assertEquals(await waited("map 6000 --mode once --json"), ["", "", ""]);
    });
  });

  describe("with a command line that is wrong", () => {
    for (const [line, names] of WRONG) {
      it(`refuses "natkit ${line}" with status 2`, async () => {
        const status = await run(line);

        assertEquals([status, io.out], [2, ""]);
        assertStringIncludes(io.err, `natkit: ${names[0]}`);
        for (const name of names) assertStringIncludes(io.err, name);
        assertEquals(nat.opened, undefined);
      });
    }

    it("tells readers of JSON, too", async () => {
      const status = await run("map --lifetime 0 6000 --json");

      const message = "--lifetime must be a whole number in 1..4294967295, in decimal digits: " +
        'current value is "0"';
      assertEquals(status, 2);
      assertEquals(io.events, [{ event: "error", code: "usage", message, attempts: [] }]);
      assertEquals(io.err, `natkit: ${message}\n`);
    });

    it("takes for wrong usage what the library calls a caller's mistake", async () => {
      nat.answer = () =>
        Promise.reject(
          new TypeError("'externalAddress' must be an IPv6 address: current value is 9.9.9.9"),
        );

      const status = await run("map 6000 --external-address 9.9.9.9 --json");

      assertEquals(status, 2);
      assertEquals(io.events.at(-1)?.code, "usage");
      assertStringIncludes(io.err, "--external-address must be an IPv6 address");
    });
  });

  describe("--version", () => {
    it("tells deno.json's version", async () => {
      const root = process.env.NATKIT_ROOT ?? process.cwd();
      const { version } = JSON.parse(await readFile(join(root, "deno.json"), "utf8"));

      assertEquals(await run("--version"), 0);
      assertEquals(io.out, `natkit ${version}\n`);
      assertEquals(VERSION, version);
    });

    it("tells it as JSON", async () => {
      await run("--json --version");

      assertEquals(io.events, [{ event: "version", version: VERSION }]);
    });
  });

  describe("--help", () => {
    it("lists every command", async () => {
      assertEquals(await run("--help"), 0);

      for (const { name } of COMMANDS) assertMatch(io.out, new RegExp(`^  ${name}\\b`, "m"));
      assertEquals(io.err, "");
    });

    for (const { name, flags, positionals, summary, synopsis, notes, examples } of COMMANDS) {
      it(`tells all about ${name}`, async () => {
        assertEquals(await run(`${name} --help`), 0);

        assertMatch(io.out, new RegExp(`^Usage: natkit ${name}\\b`));
        for (const flag of [...flags, "json", "help"]) {
          assertMatch(io.out, new RegExp(`^  --${flag}\\b`, "m"));
        }
        for (const form of positionals) assertStringIncludes(io.out, form);
        const forms = synopsis === undefined ? positionals : [synopsis];
        assertEquals(io.out.split("\n")[0], ["Usage: natkit", name, ...forms, "[FLAGS]"].join(" "));
        // However its lines are broken: all the words are there.
        const words = io.out.replace(/\s+/g, " ");
        for (const flag of [...flags, "json", "help"] as FlagName[]) {
          const { placeholder, summary }: Flag = FLAGS[flag];
          const term = placeholder === undefined ? `--${flag}` : `--${flag} ${placeholder}`;
          assertStringIncludes(words, ` ${term} ${summary} `);
        }
        const said = [`natkit ${name} ${summary}.`, notes, ...examples.map((it) => `natkit ${it}`)];
        for (const text of said) assertStringIncludes(words, text.replace(/\s+/g, " "));
        assert(io.out.split("\n").every((line) => line.length <= 100), io.out);
      });
    }

    it("is one event as JSON", async () => {
      await run("--help map --json");

      const [event, ...rest] = io.events;
      assertEquals([event?.event, rest], ["help", []]);
      assertStringIncludes(String(event?.text), "Usage: natkit map");
    });
  });

  describe("map --mode once", () => {
    it("tells the mapping, leaves it at the gateway and keeps it for a later unmap", async () => {
      const status = await run("map 6000/tcp --json --lifetime 600 --mode once");

      assertEquals([status, io.events], [0, [{ event: "mapped", ...MAPPED, elapsedMs: 0 }]]);
      assertEquals(nat.mapping.calls, ["release"]);
      assertEquals(nat.calls.at(-1), ["close"]);
      assertEquals(await saved(), nat.state.mappings);
      assertEquals([io.err, io.listeners], ["", 0]);
    });

    it("keeps what a gateway above maps on of it, too, and hands it to a later run", async () => {
      nat.state = { ...nat.state, mappings: [SAVED, ABOVE] };
      await run("map 6000 --mode once");
      assertEquals(await saved(), [SAVED, ABOVE]);
      await run("map 6000 --mode once --gateway 192.168.1.1");
      assertEquals(nat.opened!.state!.mappings, [SAVED, ABOVE]);
      nat.state = { ...nat.state, mappings: [SAVED] };
      await run("map 6001 --mode once");
      assertEquals(await saved(), [SAVED, ABOVE]);
    });

    it("hands on what the flags say", async () => {
      await run(
        "map 6000/udp --external-port 7000 --external-address 9.9.9.9 --lifetime 600 --via pcp " +
          "--gateway 10.0.0.1:5 --internal-address 10.0.0.2 --mode once --prefer-failure " +
          "--filter 9.0.0.0/8:53 --third-party 10.0.0.3 --description x --timeout 3",
      );

      const [, port, { signal, ...options }] = nat.calls[0] as [
        string,
        number,
        { signal: unknown },
      ];
      assert(signal instanceof AbortSignal);
      assertEquals([port, options], [6000, {
        protocol: "udp",
        externalPort: 7000,
        externalAddress: "9.9.9.9",
        lifetimeSeconds: 600,
        mode: "once",
        preferFailure: true,
        filters: [{ prefix: { address: "9.0.0.0", prefixLength: 8, family: 4 }, port: 53 }],
        thirdParty: "10.0.0.3",
        description: "x",
        timeoutMs: 3000,
      }]);
      const { gateway, internalAddress, protocols } = nat.opened!;
      assertEquals({ gateway, internalAddress, protocols }, {
        gateway: { address: "10.0.0.1", port: 5 },
        internalAddress: "10.0.0.2",
        protocols: ["pcp"],
      });
    });

    it("says no more than the flags say", async () => {
      await run("map 6000 --mode once");

      const [, port, { signal: _, ...options }] = nat.calls[0] as [
        string,
        number,
        { signal: unknown },
      ];
      assertEquals([port, options], [6000, { protocol: "tcp", mode: "once" }]);
      const { signal: __, runtime: ___, onState: ____, ...opened } = nat.opened!;
      assertEquals(opened, { state: { version: 1, mappings: [] } });
    });

    it("hands back the mappings of earlier runs", async () => {
      await run("map 6000 --mode once");
      await run("map 6000 --mode once");

      assertEquals(nat.opened!.state, nat.state);
    });

    it("warns on standard error where another NAT stands above", async () => {
      nat = new FakeNat(
        new FakeMapping({ ...GRANTED, external: { address: "10.1.1.1", port: 5 } }),
      );

      const status = await run("map 6000 --mode once --json");

      assertEquals([status, io.events.length], [0, 1]);
      assertEquals(
        io.err,
        "natkit: note: the gateway gave external port 5 to 6000/tcp, not 6000: " +
          "that is the one to tell others\n" +
          "natkit: warning: 10.1.1.1 is no address of the Internet: another NAT stands above this " +
          "gateway, and nobody out there reaches the port\n",
      );
    });

    it("counts the time from the start of the operation", async () => {
      io.clock = 1000;
      nat.answer = () => {
        io.clock = 1012.345;
        return Promise.resolve(nat.mapping);
      };

      await run("map 6000 --mode once --json");

      assertEquals(io.events[0]?.elapsedMs, 12.3);
    });
  });

  describe("map", () => {
    const moved = { ...GRANTED, external: { address: "203.0.113.8", port: 6000 } };

    it("holds the mapping, tells what happens to it, and deletes it at SIGINT", async () => {
      const running = run("map 6000 --json");
      await io.event("mapped");
      nat.mapping.tell({ type: "renewed", mapping: GRANTED });
      nat.mapping.tell({ type: "moved", mapping: moved });
      nat.mapping.tell({ type: "lost", reason: "no answer" });
      nat.mapping.tell({ type: "recovered", mapping: GRANTED });
      await io.event("mapped", 2);
      io.signal("SIGINT");

      assertEquals(await running, 130);
      const { lifetimeSeconds: _, ...unmapped } = MAPPED;
      // What an event carries is what holds when it is told.
      assertEquals(io.events.map(({ event }) => event), [
        "mapped",
        "renewed",
        "moved",
        "lost",
        "mapped",
        "unmapped",
      ]);
      assertEquals(io.events[0], { event: "mapped", ...MAPPED, elapsedMs: 0 });
      assertEquals(io.events.at(-1), {
        event: "unmapped",
        ...unmapped,
        reason: "revoked",
        elapsedMs: 0,
      });
      assertEquals(nat.mapping.calls, ["close"]);
      assertEquals([await saved(), io.listeners, io.exits], [[], 0, []]);
    });

    it("tells a loss with its reason and what was lost, and what is back whole", async () => {
      const running = run("map 6000 --json");
      await io.event("mapped");
      io.clock = 5;
      nat.mapping.tell({ type: "lost", reason: "no answer" });
      nat.mapping.tell({ type: "renewed", mapping: { ...GRANTED, lifetimeSeconds: 60 } });
      nat.mapping.tell({ type: "renewal-failed", reason: "NO_RESOURCES" });
      const renewed = await io.event("renewed");
      const lost = await io.event("lost");
      // What an event carries is what holds when it is told.
      assertEquals({ ...lost, lifetimeSeconds: 0 }, {
        event: "lost",
        reason: "no answer",
        ...MAPPED,
        lifetimeSeconds: 0,
        elapsedMs: 5,
      });
      assertEquals(renewed, { event: "renewed", ...MAPPED, lifetimeSeconds: 60, elapsedMs: 5 });
      io.signal("SIGINT");
      assertEquals(await running, 130);
      assertEquals(io.events.at(-1)?.external, MAPPED.external);
    });

    it("tells where it moved to", async () => {
      const running = run("map 6000 --json");
      await io.event("mapped");
      nat.mapping.tell({ type: "moved", mapping: moved });

      assertEquals(await io.event("moved"), {
        event: "moved",
        ...MAPPED,
        external: moved.external,
        elapsedMs: 0,
      });
      io.signal("SIGTERM");
      assertEquals(await running, 143);
    });

    it("says on standard error how to end it", async () => {
      const running = run("map 6000");
      await io.until(() => io.out.startsWith("mapped"));
      io.signal("SIGINT");

      assertEquals(await running, 130);
      assertEquals(io.err, "Holding what is mapped; Ctrl-C deletes it.\n");
      assertMatch(io.out, /^mapped .*\nunmapped .*\n$/);
    });

    it("and watch take no port that a run that lives holds", async () => {
      await keep({}, HELD);
      for (const command of ["map", "watch"]) {
        io = new FakeIo();
        io.env.XDG_STATE_HOME = folder;
        assertEquals(await run(`${command} 6000 --json`), 1);
        assertEquals(io.events.map(({ code }) => code), ["in-use"]);
      }
      assertEquals((await entries()).length, 1);
    });

    it("asks for nothing where another run has said first that it is about to ask", async () => {
      const { nonce: _, external: __, ...wanted } = SAVED;
      const claim = { mapping: wanted, expiresAt: Date.now() + 60_000, ...HELD };
      await new StateFile(path, () => {}).keep(claim);
      const claimed = await readFile(path, "utf8");
      await rm(path);
      const open = async (options: NatOptions) => {
        const get = () => {
          // Between the last look at the file and the claim: the lock decides who is first.
          writeFileSync(path, claimed);
          return ["192.168.1.1"];
        };
        return Object.defineProperty(await nat.open(options), "gateways", { get });
      };
      assertEquals(await runCommandLine(["map", "6000", "--json"], io, { openNat: open }), 1);
      assertEquals(io.events.map(({ code }) => code), ["in-use"]);
      assertEquals(nat.calls, [["close"]]);
      assertEquals((await entries()).map(({ owner }) => owner), [HELD.owner]);
    });

    it("leaves no claim behind, and unmap takes one of a run that was killed for nothing", async () => {
      nat.gateways = ["192.168.1.1", "fe80::1%eth0"];
      const running = run("map 6000 --json");
      await io.event("mapped");
      while ((await entries())[0]?.internalAddress === undefined) {
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      assertEquals((await saved()).map(({ gateway }) => gateway), ["192.168.1.1"]);
      io.signal("SIGINT");
      await running;
      const { nonce: _, external: __, ...wanted } = SAVED;
      await new StateFile(path, () => {}).keep({ mapping: wanted, expiresAt: Date.now() + 60_000 });
      nat.answer = () => Promise.resolve([]);

      assertEquals(await run("unmap 6000"), 0);
      assertEquals([nat.opened?.protocols, nat.opened?.state?.mappings], [undefined, []]);
    });

    it("and watch take none of one that was started in the same moment, and asks for nothing", async () => {
      for (const command of ["map", "watch"]) {
        io = new FakeIo();
        io.env.XDG_STATE_HOME = folder;
        const open = async (options: NatOptions) => {
          await keep({}, HELD);
          return await nat.open(options);
        };
        const running = runCommandLine([command, "6000", "--json"], io, { openNat: open });
        assertEquals([await running, io.events.map(({ code }) => code)], [1, ["in-use"]]);
        await rm(path);
      }
      assertEquals(nat.calls, [["close"], ["close"]]);
    });

    it("tells a gateway that is gone from one that says no, where it does not delete", async () => {
      for (
        const [failure, code] of [
          ["no answer", "no-answer"],
          ["unreachable", "no-answer"],
          ["NOT_AUTHORIZED", "refused"],
        ] as const
      ) {
        io = new FakeIo();
        io.env.XDG_STATE_HOME = folder;
        nat = new FakeNat();
        const running = run("map 6000 --json");
        await io.event("mapped");
        nat.mapping.tell({ type: "unmapped", reason: "revoked", failure });
        assertEquals([await running, io.events.at(-1)?.code], [1, code]);
      }
    });

    it("forgets the mapping when it is over", async () => {
      const running = run("map 6000 --json");
      await io.event("mapped");
      nat.mapping.tell({ type: "unmapped", reason: "expired" });
      await running;

      assertEquals(await saved(), []);
    });

    it("ends by itself when the wanted lifetimes are over", async () => {
      const running = run("map 6000 --mode 2 --json");
      await io.event("mapped");
      nat.mapping.tell({ type: "unmapped", reason: "expired" });

      assertEquals(await running, 0);
      assertEquals(io.events.at(-1)?.reason, "expired");
    });

    it("keeps the nonce where the gateway did not confirm the deletion, and says so", async () => {
      nat.mapping.confirms = false;
      nat.mapping.close = async () => {
        io.clock = 5500;
        await FakeMapping.prototype.close.call(nat.mapping);
      };
      const running = run("map 6000 --json");
      await io.event("mapped");
      io.clock = 4000;
      io.signal("SIGINT");

      assertEquals(await running, 130);
      assertEquals(io.events.map(({ event }) => event), ["mapped", "error"]);
      const message =
        "The gateway did not close port 6000/tcp, it ends with its lifetime: no answer";
      assertEquals(io.events.at(-1), {
        event: "error",
        code: "no-answer",
        message,
        attempts: [{ via: "pcp", gateway: "192.168.1.1", outcome: "no answer", elapsedMs: 1500 }],
        protocol: "tcp",
        internal: MAPPED.internal,
      });
      assertEquals(io.err, `natkit: ${message}\n`);
      assertEquals(await saved(), nat.state.mappings);
    });

    it("says to a person that the gateway did not renew it, and goes on", async () => {
      const running = run("map 6000");
      await io.until(({ out }) => out.startsWith("mapped"));
      nat.mapping.tell({ type: "renewal-failed", reason: "no answer" });
      nat.mapping.tell({ type: "moved", mapping: GRANTED });
      await io.until(({ out }) => out.includes("moved"));
      assertStringIncludes(
        io.err,
        "The gateway did not renew it: no answer. It is asked again.\n",
      );
      io.signal("SIGINT");
      assertEquals(await running, 130);
    });

    it("ends with 1 where the gateway keeps what it was to delete, though nobody interrupted it", async () => {
      const running = run("map 6000 --mode 2 --json");
      await io.event("mapped");
      nat.mapping.tell({ type: "unmapped", reason: "revoked", failure: "NO_RESOURCES" });

      assertEquals(await running, 1);
      assertEquals(io.events.at(-1), {
        event: "error",
        code: "refused",
        message: "The gateway did not close port 6000/tcp, it ends with its lifetime: NO_RESOURCES",
        attempts: [
          { via: "pcp", gateway: "192.168.1.1", outcome: "NO_RESOURCES", elapsedMs: 0 },
        ],
        protocol: "tcp",
        internal: MAPPED.internal,
      });
    });

    /** Signals while the mapping is being closed: each so many milliseconds after SIGINT. */
    const signalWhileClosing = async (
      ...signals: readonly (readonly [StopSignal, number])[]
    ): Promise<number> => {
      nat.mapping.close = () => {
        for (const [signal, afterMs] of signals) {
          io.clock = 5000 + afterMs;
          io.signal(signal);
        }
        return FakeMapping.prototype.close.call(nat.mapping);
      };
      const running = run("map 6000 --json");
      await io.event("mapped");
      io.clock = 5000;
      io.signal("SIGINT");
      return await running;
    };

    it("takes signals within a second for one: a task runner passes on the terminal's", async () => {
      const status = await signalWhileClosing(["SIGINT", 0], ["SIGTERM", 1], ["SIGINT", 999]);

      assertEquals([status, io.exits], [130, []]);
      assertEquals(io.events.map(({ event }) => event), ["mapped", "unmapped"]);
      assertEquals(nat.mapping.calls, ["close"]);
    });

    it("ends at once at a second signal that comes a second later", async () => {
      await signalWhileClosing(["SIGINT", 999], ["SIGTERM", 1000]);

      assertEquals(io.exits, [143]);
    });

    it("ends with 129 after SIGHUP, also where the terminal closes the output, before or after", async () => {
      for (const closes of ["never", "before", "after"]) {
        io = new FakeIo();
        nat = new FakeNat();
        const running = run(`map 6000 --json --state ${path}`);
        await io.event("mapped");
        if (closes === "before") io.closeOutput();
        io.signal("SIGHUP");
        if (closes === "after") io.closeOutput();

        assertEquals(await running, 129);
        assertEquals(io.events.at(-1)?.event, "unmapped");
        assertEquals(nat.mapping.calls, ["close"]);
      }
    });

    it("does not leave the mapping of --mode once where it was interrupted before", async () => {
      nat.answer = () => {
        io.signal("SIGINT");
        return Promise.resolve(nat.mapping);
      };

      assertEquals(await run("map 6000 --mode once --json"), 130);
      assertEquals(nat.mapping.calls, ["close"]);
      assertEquals(io.events.map(({ event }) => event), ["mapped", "unmapped"]);
    });

    it("cleans up and ends with status 1 where nobody reads any more", async () => {
      const running = run("map 6000 --json");
      await io.event("mapped");
      io.closeOutput();

      assertEquals(await running, 1);
      assertEquals(nat.mapping.calls, ["close"]);
    });

    it("ends with 130 where it is interrupted before there is a mapping", async () => {
      nat.answer = (_, signal) =>
        new Promise((_, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason));
          io.signal("SIGINT");
        });

      assertEquals(await run("map 6000 --json"), 130);
      assertEquals(io.events, [{
        event: "error",
        code: "interrupted",
        message: "Interrupted by SIGINT",
        attempts: [],
      }]);
      assertEquals(nat.calls.at(-1), ["close"]);
    });

    it("says whose the mapping is while it is held, and not once it is left", async () => {
      await run("map 6000 --mode once --json");
      assertEquals((await entries()).map(({ owner }) => owner), [undefined]);
      const running = run("map 6000 --json");
      await io.event("mapped", 2);
      const state = () => entries().then(([entry]) => entry?.owner?.pid);
      while (await state() === undefined) await new Promise((resolve) => setTimeout(resolve, 1));

      assertEquals(await state(), process.pid);
      const [{ gateway, internalAddress }] = await entries() as [Entry];
      assertEquals([gateway, internalAddress], [GRANTED.gateway, GRANTED.internal.address]);
      io.signal("SIGINT");
      await running;
    });

    it("does not take a mapping from a run that lives, and names that", async () => {
      await keep({}, HELD);

      for (const mode of ["once", "keep-alive"]) {
        io = new FakeIo();
        assertEquals(await run(`map 6000 --json --mode ${mode} --state ${path}`), 1);
        assertEquals(io.events.map(({ event, code }) => [event, code]), [["error", "in-use"]]);
        assertStringIncludes(io.err, `6000/tcp is held at 192.168.1.1 by a natkit that runs`);
        assertStringIncludes(io.err, `process ${process.ppid}: end that one first`);
      }
      assertEquals(nat.calls, [["close"], ["close"]]);
      assertEquals(nat.opened?.state?.mappings, []);
      assertEquals((await entries()).map(({ owner }) => owner), [HELD.owner]);
    });

    it("adopts what was made at the gateway of the flag, for an address that this host has", async () => {
      const runtime = new FakeRuntime();
      runtime.addresses = [
        { name: "eth0", address: "192.168.1.5", prefixLength: 24, internal: false },
      ];
      const at = (nonce: string, internalAddress: string) =>
        keep({ nonce: nonce.repeat(12) }, { internalAddress });
      const adopted = async (...flags: string[]) => {
        const words = ["map", "6000", "--mode", "once", ...flags];
        await runCommandLine(words, io, { openNat: nat.open, runtime });
        return nat.opened!.state!.mappings.map(({ nonce }) => nonce!.slice(0, 2));
      };
      nat.answer = () => Promise.reject(new NatError("refused", "Cannot map"));
      await at("0a", "192.168.1.77");
      await at("0b", "192.168.1.5");
      await at("0c", "192.168.1.78");
      assertEquals(await adopted(), ["0b"]);
      assertEquals(await adopted("--internal-address", "192.168.1.78"), ["0c"]);
      assertEquals(await adopted("--gateway", "192.168.1.1"), ["0b"]);
      assertEquals(await adopted("--gateway", "192.168.1.1:5"), []);
      assertEquals(await adopted("--gateway", "192.168.2.1"), []);
    });

    it("does without this host's addresses where the system does not tell them", async () => {
      class Mute extends FakeRuntime {
        override interfaces(): never {
          throw new Error("Unknown system error 13");
        }
      }
      const parts = { openNat: nat.open, runtime: new Mute() };
      await keep();
      assertEquals(await runCommandLine(["map", "6000", "--mode", "once"], io, parts), 0, io.err);
      nat.answer = () => Promise.resolve([{ via: "pcp", gateway: "192.168.1.1" }]);
      assertEquals(await runCommandLine(["unmap", "6000"], io, parts), 0, io.err);
      assertEquals(await saved(), []);
    });

    it("takes over what a run wrote that was killed before the answer: the same mapping, once", async () => {
      const { external: _, ...asked } = SAVED;
      await new StateFile(path, () => {}).keep({ mapping: asked, expiresAt: Date.now() + 60_000 });
      await keep({ nonce: "ff".repeat(12), internalPort: 6001 });

      assertEquals(await run("map 6000 --mode once"), 0);
      assertEquals((await saved()).map(({ internalPort }) => internalPort), [6001, 6000]);
    });

    it("forgets also what is asked for in vain while it closes", async () => {
      const { external: _, ...asked } = SAVED;
      const remote = { address: "198.51.100.1", port: 80 };
      for (const line of ["map 6000", "peer 6000/tcp 198.51.100.1 80"]) {
        nat = new FakeNat();
        nat.answer = () => Promise.reject(new NatError("no-answer", "Cannot map"));
        nat.late = {
          version: 1,
          mappings: [line.startsWith("map") ? asked : { ...asked, remote }],
        };
        assertEquals([await run(line), await saved()], [1, []]);
      }
    });

    it("keeps what it maps for another host as that", async () => {
      const third = { ...SAVED, thirdParty: "192.168.1.9" };
      nat.state = { version: 1, mappings: [third] };
      assertEquals(await run("map 6000 --third-party 192.168.1.9 --mode once"), 0);
      assertEquals(await saved(), [third]);

      const peer = { ...third, remote: { address: "198.51.100.1", port: 80 } };
      nat.state = { version: 1, mappings: [peer] };
      const line = "peer 6000/tcp 198.51.100.1 80 --third-party 192.168.1.9 --mode once";
      assertEquals(await run(line), 0);
      assertEquals(await saved(), [third, peer]);
    });

    it("says once that the state cannot be kept", async () => {
      await writeFile(join(folder, "file"), "");
      assertEquals(await run(`map 6000 --mode once --state ${folder}/file/state.json`), 0);
      assertEquals(io.err.match(/Cannot write/g)?.length, 1);
    });

    it("maps what a run that lives holds elsewhere or otherwise", async () => {
      await keep({ gateway: "192.168.2.1" }, HELD);
      await keep({ protocol: "udp" }, HELD);
      await keep({ internalPort: 6001 }, HELD);
      await keep({ thirdParty: "192.168.1.9" }, HELD);
      await keep({}, { ...HELD, internalAddress: "192.0.2.77" });

      assertEquals(await run("map 6000 --mode once"), 0);
      assertEquals((await entries()).length, 6);
    });

    it("leaves the mapping to a run that came first while both were asking", async () => {
      for (const mode of ["keep-alive", "once"]) {
        io = new FakeIo();
        nat = new FakeNat();
        nat.answer = async () => {
          await keep({}, { ...HELD, internalAddress: GRANTED.internal.address });
          return nat.mapping;
        };

        assertEquals(await run(`map 6000 --json --mode ${mode} --state ${path}`), 1);
        assertEquals(io.events.map(({ event, code }) => code ?? event), ["mapped", "in-use"]);
        assertEquals(nat.mapping.calls, ["release"]);
        assertEquals((await entries()).map(({ owner }) => owner), [HELD.owner]);
        await rm(path);
      }
    });

    it("fails where the state file is not natkit's, before it asks anybody", async () => {
      const other = join(folder, "other.json");
      await writeFile(other, "mine");

      for (
        const command of ["map 6000", "peer 6000/tcp 192.0.2.1 5", "unmap 6000", "unmap --all"]
      ) {
        io = new FakeIo();
        assertEquals(await run(`${command} --json --state ${other}`), 1);
        assertEquals(io.events.map(({ code }) => code), ["state-file"]);
        assertStringIncludes(io.err, other);
      }
      assertEquals(nat.opens, []);
      assertEquals(await readFile(other, "utf8"), "mine");
    });

    describe("after a crash without a state", () => {
      const refusal = (outcome: string, via: Via = "pcp") => {
        const attempts = [{ via, gateway: "192.168.1.1", outcome, elapsedMs: 1 }];
        const options = { attempts, retryAfterSeconds: 60 };
        return () => Promise.reject(new NatError("refused", "Cannot map", options));
      };

      it("names the remedy where PCP refuses what an earlier run may have mapped", async () => {
        nat.answer = refusal("NOT_AUTHORIZED");
        // What is known of another port, or at another gateway, is of no help.
        await keep({ internalPort: 6001 });
        await keep({ gateway: "192.168.2.1" });

        assertEquals(await run("map 6000 --json"), 1);
        const [{ code, message, attempts, retryAfterSeconds }] = io.events as [
          { code: string; message: string; attempts: unknown[]; retryAfterSeconds: number },
        ];
        assertEquals([code, attempts.length, retryAfterSeconds], ["refused", 1, 60]);
        for (
          const part of ["Cannot map. ", path, "--state FILE", "--via nat-pmp", "another port"]
        ) {
          assertStringIncludes(message, part);
        }
      });

      it("says so where there is no state at all", async () => {
        nat.answer = refusal("NOT_AUTHORIZED");
        delete io.env.XDG_STATE_HOME;
        assertEquals(await run("map 6000"), 1);
        assertEquals(
          io.err,
          "natkit: Cannot map. If an earlier run mapped it, only that run's state lets it be had " +
            "again (no state file; --state FILE names another one); otherwise take another port, or " +
            "--via nat-pmp where the gateway speaks that\n",
        );
      });

      it("names none where the state knows it, or something else was refused", async () => {
        nat.answer = refusal("NO_RESOURCES");
        await run("map 6000");
        nat.answer = refusal("NOT_AUTHORIZED", "nat-pmp");
        await run("map 6000");
        const attempts = [
          { via: "pcp", gateway: "192.168.1.1", outcome: "NOT_AUTHORIZED", elapsedMs: 1 },
        ] as const;
        nat.answer = () => Promise.reject(new NatError("closed", "Cannot map", { attempts }));
        await run("map 6000");
        await keep();
        nat.answer = refusal("NOT_AUTHORIZED");
        await run("map 6000");

        assertEquals(io.err, "natkit: Cannot map\n".repeat(4));
      });
    });

    it("names --gateway where no gateway is found", async () => {
      nat.answer = () => Promise.reject(new NatError("gateway-not-found", "Cannot find a gateway"));

      assertEquals(await run("map 6000"), 1);
      assertEquals(io.err, "natkit: Cannot find a gateway; --gateway names one\n");
    });

    it("ends with 1 and what was tried where it fails", async () => {
      const attempts = [
        { via: "pcp", gateway: "192.168.1.1", outcome: "no answer", elapsedMs: 10000.04 },
        { via: "nat-pmp", gateway: "192.168.1.1", outcome: "unreachable", elapsedMs: 0.96 },
      ] as const;
      nat.answer = () => Promise.reject(new NatError("no-answer", "Cannot map", { attempts }));

      assertEquals(await run("map 6000 --json"), 1);
      const message =
        "Cannot map. Is 192.168.1.1 the router, and PCP or NAT-PMP switched on there? " +
        "natkit doctor looks for what stands in the way, --verbose shows each packet";
      assertEquals(io.events, [{
        event: "error",
        code: "no-answer",
        message,
        attempts: [{ ...attempts[0], elapsedMs: 10000 }, { ...attempts[1], elapsedMs: 1 }],
      }]);
      assertEquals(io.err, `natkit: ${message}\n`);
      assertEquals(nat.calls.at(-1), ["close"]);
    });
  });

  describe("map with several ports", () => {
    const GRANTED_UDP: GrantedMapping = {
      ...GRANTED,
      protocol: "udp",
      internal: { ...GRANTED.internal, port: 6001 },
      external: { ...GRANTED.external, port: 6001 },
    };
    const mappings = new Map<unknown, FakeMapping>();
    beforeEach(() => {
      mappings.set(6000, new FakeMapping()).set(6001, new FakeMapping(GRANTED_UDP));
      nat.state = {
        version: 1,
        mappings: [SAVED, { ...SAVED, protocol: "udp", internalPort: 6001 }],
      };
      nat.answer = (_, __, ___, [port]) => Promise.resolve(mappings.get(port));
    });
    const told = () =>
      io.events.map(({ event, internal }) => [event, (internal as Endpoint | undefined)?.port]);

    it("maps each, tells of each, holds all and deletes all", async () => {
      const running = run("map 6000 6001/udp --json");
      await io.event("mapped", 2);
      mappings.get(6001)!.tell({ type: "renewed", mapping: GRANTED_UDP });
      await io.event("renewed");
      io.signal("SIGTERM");

      assertEquals(await running, 143);
      assertEquals(told().sort(), [
        ["mapped", 6000],
        ["mapped", 6001],
        ["renewed", 6001],
        ["unmapped", 6000],
        ["unmapped", 6001],
      ]);
      const asked = nat.calls.filter(([what]) => what === "map")
        .map(([, port, options]) => [port, (options as { protocol: string }).protocol]);
      assertEquals(asked.sort(), [[6000, "tcp"], [6001, "udp"]]);
      assertEquals([nat.opens.length, nat.calls.at(-1), await saved()], [1, ["close"], []]);
    });

    it("tells which one failed, keeps the others, and ends with 1 once all have ended", async () => {
      nat.answer = (_, __, ___, [port]) =>
        port === 6000
          ? Promise.reject(new NatError("refused", "Cannot map 6000/tcp: NO_RESOURCES"))
          : Promise.resolve(mappings.get(port));
      const running = run("map 6000 6001/udp --mode 2 --json");
      const { code, protocol } = await io.event("error");
      await io.event("mapped");
      mappings.get(6001)!.tell({ type: "unmapped", reason: "expired" });

      assertEquals([code, protocol], ["refused", "tcp"]);
      assertEquals(await running, 1);
      assertEquals(told().sort(), [["error", 6000], ["mapped", 6001], ["unmapped", 6001]]);
      assertEquals(mappings.get(6001)!.calls, []);
    });

    it("closes at a signal what is still there", async () => {
      const running = run("map 6000 6001/udp --mode 2 --json");
      await io.event("mapped", 2);
      mappings.get(6001)!.tell({ type: "unmapped", reason: "expired" });
      await io.event("unmapped");
      while ((await saved()).length > 1) await turn();
      io.signal("SIGINT");

      assertEquals(await running, 130);
      assertEquals([6000, 6001].map((port) => mappings.get(port)!.calls), [["close"], []]);
    });

    it("leaves alone what a run that lives holds, and maps the others", async () => {
      await keep({}, HELD);

      assertEquals(await run("map 6000 6001/udp --mode once --json"), 1);
      assertEquals(io.events.map(({ event, code }) => code ?? event).sort(), ["in-use", "mapped"]);
      assertEquals(nat.calls.map(([what, port]) => [what, port]), [["map", 6001], [
        "close",
        undefined,
      ]]);
    });

    it("tells once that it was interrupted, and what holds for all", async () => {
      nat.answer = (_, signal) =>
        new Promise((_, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason));
          if (nat.calls.length === 2) io.signal("SIGINT");
        });
      assertEquals(await run("map 6000 6001/udp --json"), 130);
      assertEquals(io.events.map(({ code }) => code), ["interrupted"]);

      io = new FakeIo();
      nat.answer = () =>
        Promise.reject(new TypeError("'lifetimeSeconds' must: current value is 5"));
      assertEquals(await run(`map 6000 6001/udp --json --state ${path}`), 2);
      assertEquals(io.events.map(({ code }) => code), ["usage"]);
    });
  });

  describe("--exec", () => {
    const moved = { ...GRANTED, external: { address: "203.0.113.8", port: 6000 } };
    const commands = async (count: number) => {
      await io.until(() => io.started.length >= count);
      return io.started.map(({ env }) => env.NATKIT_EVENT);
    };

    /** What the command gets where the mapping is lost, and how the run ends at a signal. */
    const atLoss = async (line: string, reason: string, signal: "SIGINT" | "SIGTERM") => {
      const running = run(line);
      await commands(1);
      io.started[0]!.end(0);
      nat.mapping.tell({ type: "lost", reason });
      await commands(2);
      const { env } = io.started[1]!;
      io.started[1]!.end(0);
      io.signal(signal);
      await commands(3);
      io.started[2]!.end(0);
      return { env, status: await running };
    };

    it("runs it where the mapping is lost, with the reason", async () => {
      const { env, status } = await atLoss("map 6000 --json --exec x", "no answer", "SIGTERM");
      assertEquals([env.NATKIT_EVENT, env.NATKIT_REASON, status], ["lost", "no answer", 143]);
    });

    it("runs the command at each change, one at a time, and before the end", async () => {
      io.env.PATH = "/bin";
      for (const name of ["REASON", "REMOTE_ADDRESS", "REMOTE_PORT"]) {
        io.env[`NATKIT_${name}`] = "left over";
      }
      const running = run("map 6000 --json --exec notify.sh");
      await commands(1);
      const [first] = io.started;
      const { NATKIT_EVENT: _, ...env } = first!.env;
      assertEquals(first!.command, "notify.sh");
      assertEquals(env, {
        XDG_STATE_HOME: folder,
        PATH: "/bin",
        NATKIT_PROTOCOL: "tcp",
        NATKIT_VIA: "pcp",
        NATKIT_GATEWAY: "192.168.1.1",
        NATKIT_INTERNAL_ADDRESS: "192.168.1.5",
        NATKIT_INTERNAL_PORT: "6000",
        NATKIT_EXTERNAL_ADDRESS: "203.0.113.7",
        NATKIT_EXTERNAL_PORT: "6000",
        NATKIT_LIFETIME: "600",
      });
      nat.mapping.tell({ type: "renewed", mapping: GRANTED });
      nat.mapping.tell({ type: "lost", reason: "x" });
      nat.mapping.tell({ type: "recovered", mapping: GRANTED });
      nat.mapping.tell({ type: "moved", mapping: moved });
      await io.event("moved");
      assertEquals(io.started.length, 1);
      first!.end(0);
      // Of what came meanwhile the last counts.
      assertEquals(await commands(2), ["mapped", "moved"]);
      assertEquals(io.started[1]!.env.NATKIT_EXTERNAL_ADDRESS, "203.0.113.8");
      io.signal("SIGTERM");
      await io.event("unmapped");
      assertEquals(nat.mapping.calls, ["close"]);
      io.started[1]!.end(0);
      assertEquals(await commands(3), ["mapped", "moved", "unmapped"]);
      let isOver = false;
      const ended = running.finally(() => isOver = true);
      await new Promise((resolve) => setTimeout(resolve, 20));
      assertEquals(isOver, false);
      io.started[2]!.end(0);
      assertEquals([await ended, io.err], [143, ""]);
    });

    it("warns of one that fails or cannot be started, and changes nothing else", async () => {
      for (const end of [3, "no such program"]) {
        io = new FakeIo();
        nat = new FakeNat();
        const running = run(`map 6000 --mode once --exec x --state ${path}`);
        await commands(1);
        io.started[0]!.end(end);
        assertEquals(await running, 0);
        assertStringIncludes(
          io.err,
          `warning: --exec at mapped failed: ${end === 3 ? "status 3" : end}`,
        );
      }
      io = new FakeIo();
      io.start = () => Promise.reject(new Error("not allowed"));
      assertEquals(await run(`map 6000 --mode once --exec x --state ${path}`), 0);
      assertStringIncludes(io.err, "--exec at mapped: not allowed");
    });

    it("ends one that hangs, first politely, and goes on", async () => {
      const runtime = new FakeRuntime();
      const running = runCommandLine(["map", "6000", "--exec", "x"], io, {
        openNat: nat.open,
        runtime,
      });
      await commands(1);
      const [hung] = io.started;
      runtime.advance(9999);
      assertEquals(hung!.killed, []);
      runtime.advance(1);
      assertEquals(hung!.killed, ["SIGTERM"]);
      assertStringIncludes(io.err, "--exec at mapped did not end within 10 s");
      runtime.advance(1000);
      assertEquals(hung!.killed, ["SIGTERM", "SIGKILL"]);
      hung!.end("SIGKILL");
      nat.mapping.tell({ type: "moved", mapping: moved });
      assertEquals(await commands(2), ["mapped", "moved"]);
      io.started[1]!.end(0);
      io.signal("SIGINT");
      await commands(3);
      assertEquals([...runtime.timers].map(({ keepAlive }) => keepAlive).includes(true), true);
      while (!nat.calls.some(([what]) => what === "close")) await turn();
      for (let i = 0; i < 20; i++) await new Promise((resolve) => setTimeout(resolve, 1));
      runtime.advance(500);
      assertStringIncludes(io.err, "Waiting for the command of --exec…\n");
      io.started[2]!.end(0);
      assertEquals([await running, runtime.timers.size], [130, 0]);
    });

    it("is told the peer of a flow", async () => {
      const remote = { address: "198.51.100.1", port: 80 };
      nat = new FakeNat(new FakeMapping({ ...GRANTED, kind: "peer", remote }));
      const running = run("peer 6000/tcp 198.51.100.1 80 --via pcp --mode once --exec x");
      let isOver = false;
      void running.then(() => isOver = true);
      await commands(1);
      const { NATKIT_REMOTE_ADDRESS: address, NATKIT_REMOTE_PORT: port } = io.started[0]!.env;
      assertEquals([address, port], ["198.51.100.1", "80"]);
      await new Promise((resolve) => setTimeout(resolve, 20));
      assertEquals(isOver, false);
      io.started[0]!.end(0);
      assertEquals(await running, 0);
    });

    it("keeps from the shell what the network says", async () => {
      const reason = "718 $(id) `id` & | < > \" ' \\ ! ^ ( ) \n * é";
      const { env } = await atLoss("map 6000 --exec x", reason, "SIGINT");
      assertEquals(env.NATKIT_REASON!.replace(/ +/g, " "), "718 id id ");
    });

    it("serves each of several ports", async () => {
      const udp = {
        ...GRANTED,
        protocol: "udp",
        internal: { ...GRANTED.internal, port: 6001 },
      } as const;
      nat.answer = (_, __, ___, [port]) =>
        Promise.resolve(port === 6000 ? nat.mapping : new FakeMapping(udp));
      const running = run("map 6000 6001/udp --mode once --exec x");
      await commands(1);
      io.started[0]!.end(0);
      await commands(2);
      io.started[1]!.end(0);
      assertEquals(await running, 0);
      assertEquals(
        io.started.map(({ env }) => `${env.NATKIT_INTERNAL_PORT}/${env.NATKIT_PROTOCOL}`).sort(),
        ["6000/tcp", "6001/udp"],
      );
    });
  });

  describe("a note on standard error", () => {
    const noted = () => io.err.split("\n").filter((line) => line.startsWith("natkit: note:"));
    const at = (port: number) => ({ ...GRANTED, external: { ...GRANTED.external, port } });

    it("tells that the gateway gave another port than was asked for, and each other one", async () => {
      nat.mapping.mapping = at(7001);
      const running = run("map 6000 --json");
      await io.event("mapped");
      nat.mapping.tell({ type: "moved", mapping: at(7002) });
      await io.event("moved");
      nat.mapping.tell({ type: "lost", reason: "x" });
      nat.mapping.tell({ type: "recovered", mapping: at(7002) });
      await io.event("mapped", 2);
      nat.mapping.tell({ type: "moved", mapping: at(6000) });
      await io.event("moved", 2);
      io.signal("SIGINT");
      await running;

      assertEquals(
        noted(),
        [7001, 7002].map((port) =>
          `natkit: note: the gateway gave external port ${port} to 6000/tcp, not 6000: ` +
          "that is the one to tell others"
        ),
      );
    });

    it("that nobody listens is told before the end, however long it takes to find out", async () => {
      const runtime = new FakeRuntime();
      runtime.addresses = [{
        name: "eth0",
        address: GRANTED.internal.address,
        prefixLength: 24,
        internal: false,
      }];
      let open = () => {};
      const opening = new Promise<void>((resolve) => open = resolve);
      const parts = { openNat: nat.open, runtime };
      runtime.openUdp = async (options, handlers) => {
        await opening;
        return await FakeRuntime.prototype.openUdp.call(runtime, options, handlers);
      };
      nat.mapping.mapping = { ...GRANTED, protocol: "udp" };
      let isOver = false;
      const running = runCommandLine(["map", "6000/udp", "--mode", "once"], io, parts)
        .finally(() => isOver = true);
      while ((await saved()).length === 0) await turn();
      await new Promise((resolve) => setTimeout(resolve, 20));
      assertEquals([isOver, nat.mapping.calls], [false, []]);
      open();

      assertEquals(await running, 0);
      assertEquals(
        io.err,
        "natkit: note: nothing listens at 192.168.1.5:6000/udp yet: until a program does, at this " +
          "address or all of them, the port is open and nobody answers\n",
      );
    });

    it("is not there where any port does, or the one is given", async () => {
      nat.mapping.mapping = at(7001);
      for (const flags of ["--external-port 0", "--external-port 7001"]) {
        await run(`map 6000 --mode once ${flags}`);
      }
      await run("peer 6000/tcp 192.0.2.1 80 --mode once");
      assertEquals(noted(), []);
      await run("map 6000 --mode once --external-port 7000");
      await run("peer 6000/tcp 192.0.2.1 80 --mode once --external-port 7000");
      assertEquals(noted().length, 2);
    });
  });

  describe("peer", () => {
    it("tells the mapping with the peer", async () => {
      const remote = { address: "198.51.100.1", port: 80 };
      nat = new FakeNat(new FakeMapping({ ...GRANTED, kind: "peer", remote }));

      const status = await run("peer 6000/udp 198.51.100.1 80 --mode once --json --lifetime 60");

      assertEquals(status, 0);
      const { lifetimeSeconds, ...fields } = MAPPED;
      assertEquals(io.events, [
        { event: "mapped", ...fields, remote, lifetimeSeconds, elapsedMs: 0 },
      ]);
      const [what, port, to, { signal: _, ...options }] = nat.calls[0] as [
        string,
        number,
        unknown,
        { signal: unknown },
      ];
      assertEquals([what, port, to, options], ["peer", 6000, remote, {
        protocol: "udp",
        lifetimeSeconds: 60,
        mode: "once",
      }]);
    });

    it("holds the mapping until a signal, and deletes it before it closes", async () => {
      const remote = { address: "198.51.100.1", port: 80 };
      nat = new FakeNat(new FakeMapping({ ...GRANTED, kind: "peer", remote }));
      nat.state = { version: 1, mappings: [{ ...SAVED, remote }] };
      const running = run("peer 6000/tcp 198.51.100.1 80 --json");
      await io.event("mapped");
      while ((await entries())[0]?.internalAddress === undefined) await turn();
      assertEquals(await saved(), nat.state.mappings);
      io.signal("SIGINT");

      assertEquals(await running, 130);
      assertEquals(io.events.map(({ event }) => event), ["mapped", "unmapped"]);
      assertEquals([nat.mapping.calls, await saved()], [["close"], []]);
    });

    it("names the remedy as map does, and takes none that another run holds", async () => {
      const attempts = [
        { via: "pcp", gateway: "192.168.1.1", outcome: "NOT_AUTHORIZED", elapsedMs: 1 },
      ] as const;
      nat.answer = () => Promise.reject(new NatError("refused", "Cannot map", { attempts }));
      assertEquals(await run("peer 6000/tcp 198.51.100.1 80"), 1);
      assertStringIncludes(io.err, "If an earlier run mapped it");

      nat.calls.length = nat.opens.length = 0;
      await keep({ remote: { address: "198.51.100.1", port: 80 } }, HELD);
      assertEquals(await run("peer 6000/tcp 198.51.100.1 80 --json"), 1);
      assertEquals(io.events.map(({ code }) => code), ["in-use"]);
      assertEquals(nat.calls, [["close"]]);
    });
  });

  describe("list", () => {
    const entry = {
      protocol: "tcp",
      externalPort: 80,
      internalClient: "192.168.1.5",
      internalPort: 8080,
      remoteHost: "",
      isEnabled: true,
      leaseSeconds: 600,
      description: "x",
    };
    const told = {
      event: "mapping",
      via: "upnp",
      gateway: "192.168.1.1",
      protocol: "tcp",
      external: { port: 80 },
      internal: { address: "192.168.1.5", port: 8080 },
      lifetimeSeconds: 600,
      description: "x",
    };

    it("tells each entry, and of one what is special about it", async () => {
      const special = { ...entry, remoteHost: "198.51.100.1", isEnabled: false };
      nat.answer = () => Promise.resolve([entry, special]);
      assertEquals(await run("list --json --timeout 3"), 0);
      assertEquals(io.events, [told, {
        ...told,
        remote: { address: "198.51.100.1" },
        enabled: false,
      }]);
      assertEquals(io.err, "");
      const [, { signal, ...options }] = nat.calls[0] as [string, { signal: unknown }];
      assert(signal instanceof AbortSignal);
      assertEquals([options, nat.opened!.protocols], [{ timeoutMs: 3000 }, ["upnp"]]);
    });

    it("says where the table is longer than that, and where it is empty", async () => {
      nat.answer = () => Promise.resolve([entry, entry]);
      nat.isCut = true;
      assertEquals(await run("list"), 0);
      assertEquals(io.err, "natkit: warning: The table is longer than these 2 entries\n");
      assertEquals(io.out, "80/tcp -> 192.168.1.5:8080 for 600 s (x)\n".repeat(2));

      io = new FakeIo();
      nat = new FakeNat();
      nat.answer = () => Promise.resolve([]);
      assertEquals(await run("list"), 0);
      assertEquals([io.out, io.err], ["", "The table is empty.\n"]);
      const [, options] = nat.calls[0] as [string, Record<string, unknown>];
      assertEquals(Object.keys(options), ["signal"]);
    });
  });

  describe("watch", () => {
    it("hands on what the flags say, and no more", async () => {
      nat.warnings = ["one", "two"];
      nat.answer = () => Promise.reject(new NatError("closed", "Cannot go on"));
      for (
        const [line, options] of [
          ["6000", { protocol: "tcp" }],
          ["6000/udp --external-port 7 --lifetime 60 --description x", {
            protocol: "udp",
            externalPort: 7,
            lifetimeSeconds: 60,
            description: "x",
          }],
        ] as const
      ) {
        nat.calls.length = nat.opens.length = 0;
        io.err = "";
        assertEquals(await run(`watch ${line}`), 1);
        assertEquals(nat.calls[0], ["watch", 6000, options]);
        assertEquals(
          io.err,
          "natkit: warning: one\nnatkit: warning: two\nnatkit: Cannot go on\n",
        );
      }
    });

    /** A port that is watched, of which a test says where it leads. */
    class FakeWatch {
      assignments: readonly object[] = [];
      readonly #sets: (readonly object[])[] = [];
      #isOver = false;
      #wake = () => {};
      #listener: (assignments: readonly object[]) => void = () => {};

      tell(...assignments: object[]): void {
        this.#sets.push(this.assignments = assignments);
        this.#listener(assignments);
        this.#wake();
      }
      end(): void {
        this.#isOver = true;
        this.#wake();
      }
      onChange(listener: (assignments: readonly object[]) => void): () => void {
        this.#listener = listener;
        return () => {};
      }
      async close(): Promise<void> {
        this.end();
        for (let turns = 0; turns < 3; turns++) await turn();
        nat.calls.push(["watch closed"]);
      }
      async *[Symbol.asyncIterator](): AsyncGenerator<readonly object[]> {
        for (;;) {
          const next = this.#sets.shift();
          if (next) yield next;
          else if (this.#isOver) return;
          else await new Promise<void>((resolve) => this.#wake = resolve);
        }
      }
    }
    const at = (via: string, address: string) => ({ protocol: "tcp", address, port: 6000, via });
    const local = at("local", "192.168.1.5"), outside = at("pcp", "203.0.113.7");
    const sets = () => io.events.map(({ assignments }) => assignments);

    it("tells each set, the present one at a line, and the last one once all is closed", async () => {
      const watch = new FakeWatch();
      nat.answer = () => Promise.resolve(watch);
      const running = run("watch 6000 --json");
      watch.tell({ ...local, family: 4 });
      watch.tell(local, outside);
      await io.event("assignments", 2);
      io.type("");
      assertEquals(sets(), [[local], [local, outside], [local, outside]]);
      io.signal("SIGINT");
      assertEquals([await running, io.listeners], [130, 0]);
      assertEquals(sets().slice(3), [[local]]);
      assertEquals(nat.calls.map(([what]) => what), ["watch", "watch closed", "close"]);
    });

    it("says to a person that it waits until a gateway has given something", async () => {
      for (const set of [[local], [local, outside]]) {
        io = new FakeIo();
        io.env.XDG_STATE_HOME = folder;
        const watch = new FakeWatch();
        nat.answer = () => Promise.resolve(watch);
        const runtime = new FakeRuntime();
        const parts = { openNat: nat.open, runtime };
        const running = runCommandLine(["watch", "6000"], io, parts);
        while (!io.err.startsWith("Mapping")) await turn();
        watch.tell(...set);
        await io.until(({ out }) => out !== "");
        await turn();
        runtime.advance(500);
        const waiting = "Waiting for 192.168.1.1 to answer by PCP, NAT-PMP or UPnP…\n";
        assertEquals(io.err.split("\n").slice(1).join("\n"), set.length === 1 ? waiting : "");
        watch.end();
        assertEquals([await running, runtime.timers.size], [1, 0]);
      }
    });

    it("tells nothing again where nothing was closed, nor what is typed at a terminal", async () => {
      const watch = new FakeWatch();
      nat.answer = () => Promise.resolve(watch);
      io.isTerminal.stdin = true;
      const running = run("watch 6000 --json");
      watch.tell(local);
      await io.event("assignments");
      io.type("");
      watch.end();
      assertEquals(await running, 1);
      assertEquals(sets(), [[local]]);
    });

    it("says what it does, and which gateway did not close the port", async () => {
      const net = new FakeNetwork();
      const line = ["watch", "6000", "--via", "pcp", "--state", path];
      const running = runCommandLine(line, io, { runtime: net });
      while (!io.out.includes("by PCP")) await net.pass(50);
      net.silent.add("pcp");
      io.signal("SIGINT");
      let status: number | undefined;
      void running.then((it) => status = it);
      while (status === undefined) await net.pass(50);

      assertEquals(status, 130);
      assertEquals(
        // How much time of the fake network has passed while the state was written is not known.
        io.err.replace("Waiting for 192.0.2.1 to answer by PCP…\n", ""),
        "Mapping it at every gateway; Ctrl-C deletes what was made.\n" +
          "Waiting for the gateways to delete what was made…\n" +
          "natkit: warning: 192.0.2.1 did not close the port by PCP: it ends with its lifetime\n",
      );
      assertEquals(io.out.split("\n"), [
        "reachable nowhere",
        "reachable 203.0.113.7:6000/tcp by PCP",
        "",
      ]);
    });

    it("warns of what takes the traffic past the gateway", async () => {
      const net = new FakeNetwork();
      const half = (destination: string) =>
        `tun0 ${destination} 0100080A 0003 0 0 0 00000080 0 0 0\n`;
      net.moreRoutes = half("00000000") + half("00000080");
      const running = runCommandLine(["watch", "6000", "--via", "pcp", "--state", path], io, {
        runtime: net,
      });
      while (!io.out.includes("by PCP")) await net.pass(50);
      io.signal("SIGINT");
      let isOver = false;
      void running.then(() => isOver = true);
      while (!isOver) await net.pass(50);

      assertMatch(
        io.err,
        /^natkit: warning: IPv4 traffic leaves through the tunnel tun0, whose gateway is 10\.8\.0\.1,/m,
      );
    });

    it("writes what it keeps again at half of the lifetime, and every half an hour at the latest", async () => {
      for (const [flags, ms] of [["--lifetime 101", 51_000], ["", 1_800_000]] as const) {
        io = new FakeIo();
        const net = new FakeNetwork();
        const path = join(folder, `${ms}.json`);
        const line = `watch 6000 --via pcp --json --state ${path} ${flags}`.trim();
        const running = runCommandLine(line.split(" "), io, { runtime: net });
        const isTold = () => io.out.includes('"pcp"');
        while (!isTold()) await net.pass(50);
        const isKept = async () => (await readFile(path, "utf8").catch(() => "")) !== "";
        while (!await isKept()) await turn();
        assert(net.delays.includes(ms), `${net.delays}`);

        await rm(path);
        await net.pass(ms, 5000);
        while (!await isKept()) await turn();
        io.signal("SIGINT");
        let status: number | undefined;
        void running.then((it) => status = it);
        while (status === undefined) await net.pass(50);
        assertEquals(status, 130);
        assertEquals(await new StateFile(path, () => {}).load(), []);
      }
    });
  });

  describe("doctor", () => {
    /** Runs it where that is the network. */
    const examined = async (net: FakeNetwork, ...flags: string[]): Promise<number> => {
      let status: number | undefined;
      void runCommandLine(["doctor", ...flags], io, { runtime: net }).then((it) => status = it);
      while (status === undefined) await net.pass(50);
      return status;
    };

    it("tells all that it has found out, the times to a tenth of a millisecond", async () => {
      const net = new FakeNetwork();
      net.time = 1000.123;
      net.addresses = [
        { name: "eth0", address: "192.0.2.7", prefixLength: 24, internal: false },
      ];
      const flags = ["--via", "pcp,nat-pmp", "--stun", "198.51.100.1:3478", "--timeout", "1"];
      assertEquals(await examined(net, ...flags, "--json"), 0, io.err);
      const [{ findings, ...report }] = io.events as [Record<string, unknown>];
      const reflexive = report.reflexive as [{ elapsedMs: number }];
      const { elapsedMs } = reflexive[0];
      assertEquals([elapsedMs >= 1000, Math.round(elapsedMs * 10) / 10], [true, elapsedMs]);
      const protocols = (report.gateways as { protocols: { elapsedMs: number }[] }[])[0]!.protocols
        .map((one) => one.elapsedMs);
      assertEquals(report, {
        event: "report",
        gateways: [{
          gateway: "192.0.2.1",
          family: 4,
          interface: "eth0",
          localAddress: "192.0.2.7",
          protocols: (["pcp", "nat-pmp"] as const).map((via, i) => (
            { via, outcome: "answered", elapsedMs: protocols[i], external: "203.0.113.7" }
          )),
        }],
        detours: [],
        localAddresses: ["192.0.2.7"],
        reflexive: [{ server: "198.51.100.1:3478", outcome: "no answer", elapsedMs }],
      });
      assert((findings as unknown[]).length > 0);
      assertEquals([io.err, net.sockets.every(({ isClosed }) => isClosed)], ["", true]);
    });

    it("tells of a host without a gateway as well, and what keeps it from looking", async () => {
      const net = new FakeNetwork();
      net.defaultRoutes = [];
      assertEquals(await examined(net, "--json"), 0);
      const { gateways, findings } = io.events[0] as { gateways: []; findings: { code: string }[] };
      assertEquals([gateways, findings.map(({ code }) => code)], [[], ["no-gateway", "no-ipv6"]]);

      io = new FakeIo();
      net.readTextFile = () =>
        Promise.reject(new NatError("permission", "Cannot read: --allow-read is needed"));
      net.run = () =>
        Promise.reject(new NatError("permission", "Cannot run: --allow-run is needed"));
      assertEquals(await examined(net, "--json"), 1);
      assertEquals(io.events.map(({ code }) => code), ["permission"]);

      io = new FakeIo();
      const openNat = () => Promise.reject(new NatError("network", "Cannot open a socket"));
      const parts = { openNat, runtime: new FakeNetwork() };
      assertEquals(await runCommandLine(["doctor"], io, parts), 1);
      assertEquals(io.err, "natkit: Cannot open a socket\n");
    });
  });

  describe("unmap", () => {
    const confirmed = { via: "pcp", gateway: "192.168.1.1" };

    it("tells who confirmed it and forgets the mapping", async () => {
      await run("map 6000 --mode once");
      io.out = "";
      nat.answer = () => Promise.resolve([confirmed]);

      assertEquals(await run("unmap 6000/tcp --json"), 0);
      assertEquals(io.events, [{
        event: "unmapped",
        protocol: "tcp",
        ...confirmed,
        internal: { port: 6000 },
        reason: "revoked",
        elapsedMs: 0,
      }]);
      assertEquals(nat.opened!.state, nat.state);
      assertEquals(await saved(), []);
    });

    it("closes several ports, tells which one failed, and ends with 1", async () => {
      nat.answer = (_, __, ___, [port]) =>
        port === 6001
          ? Promise.reject(new NatError("no-answer", "Cannot unmap 6001/udp"))
          : Promise.resolve([confirmed]);

      assertEquals(await run("unmap 6000 6001/udp 6002 --json"), 1);
      assertEquals(
        io.events.map(({ event, internal }) => `${event} ${(internal as Endpoint).port}`).sort(),
        ["error 6001", "unmapped 6000", "unmapped 6002"],
      );
    });

    /** How contexts were opened: gateway, protocols, internal ports of the state. */
    const opens = () =>
      nat.opens.map(({ gateway, protocols, state }) => [
        (gateway as Endpoint | undefined)?.address,
        protocols,
        state?.mappings.map(({ internalPort }) => internalPort),
      ]);
    const confirmAsOpened = (
      _what: string,
      _signal: AbortSignal,
      { gateway, protocols }: NatOptions,
    ) =>
      Promise.resolve([{
        via: protocols?.[0] ?? "pcp",
        gateway: (gateway as Endpoint | undefined)?.address ?? "192.168.1.1",
      }]);

    it("asks each gateway of which the state says that it holds it, as it was made", async () => {
      await keep();
      await keep({ gateway: "192.168.2.1", via: "nat-pmp" });
      await keep({ gateway: "192.168.3.1", internalPort: 6001 });
      await keep({ thirdParty: "192.168.1.9" });
      nat.answer = confirmAsOpened;

      assertEquals(await run("unmap 6000 --json"), 0);
      assertEquals(opens(), [
        ["192.168.1.1", ["pcp"], [6000]],
        ["192.168.2.1", ["nat-pmp"], [6000]],
      ]);
      assertEquals(io.events.map(({ via, gateway }) => [via, gateway]), [
        ["pcp", "192.168.1.1"],
        ["nat-pmp", "192.168.2.1"],
      ]);
      assertEquals((await saved()).map(({ gateway }) => gateway), ["192.168.3.1", "192.168.1.1"]);
    });

    for (
      const line of ["unmap 6000", "unmap 6000 --gateway 192.168.1.1", "unmap --all --via pcp,upnp"]
    ) {
      it(`asks the gateway above through the one below: ${line}`, async () => {
        await keep();
        await keep({ ...ABOVE, via: "pcp" });
        nat.answer = () => Promise.resolve([confirmed]);
        assertEquals(await run(line), 0);
        assertEquals(opens(), [["192.168.1.1", ["pcp"], [6000, 7000]]]);
        assertEquals((await saved()).map(({ gateway }) => gateway), ["10.0.0.1"]);
        await keep();
        nat.answer = () => Promise.resolve([confirmed, { via: "pcp", gateway: "10.0.0.1" }]);
        assertEquals([await run(line), await saved()], [0, []]);
      });
    }

    it("asks the gateway above by its own protocol, also where that below holds it no more", async () => {
      await keep();
      await keep(ABOVE);
      nat.answer = () => Promise.resolve([confirmed]);
      await run("unmap 6000");
      await run("unmap 6000");
      assertEquals(opens(), [
        ["192.168.1.1", ["pcp", "nat-pmp"], [6000, 7000]],
        [undefined, undefined, [7000]],
      ]);
    });

    it("--all asks the gateway above, also where nothing is known of that below any more", async () => {
      await keep({ ...ABOVE, via: "pcp" });
      nat.answer = () => Promise.reject(new NatError("no-answer", "no"));
      assertEquals(await run("unmap --all --via pcp"), 1);
      assertEquals((await saved()).map(({ gateway }) => gateway), ["10.0.0.1"]);
      nat.answer = () => Promise.resolve([confirmed, { via: "pcp", gateway: "10.0.0.1" }]);
      assertEquals([await run("unmap --all --via pcp"), await saved()], [0, []]);
      assertEquals(nat.calls.at(-2)?.slice(0, 2), ["unmap", 6000]);
      assertEquals(opens().at(-1), ["192.168.1.1", ["pcp"], [6000, 7000]]);
    });

    it("asks the gateway of --gateway alone", async () => {
      await keep();
      await keep({ gateway: "192.168.2.1" });
      nat.answer = confirmAsOpened;

      assertEquals(await run("unmap 6000 --gateway 192.168.2.1"), 0);
      assertEquals(opens(), [["192.168.2.1", ["pcp"], [6000]]]);
      assertEquals(await run("unmap 6000 --gateway 192.168.1.1:9999"), 0);
      assertEquals(opens()[1], ["192.168.1.1", undefined, []]);
      assertEquals(await saved(), [SAVED]);
    });

    it("asks by every protocol for what the state does not know, or knows as over", async () => {
      await keep({ gateway: "192.168.2.1" }, { expiresAt: Date.now() - 1000 });
      nat.answer = confirmAsOpened;

      assertEquals(await run("unmap 6000"), 0);
      assertEquals(opens(), [[undefined, undefined, [6000]]]);
      assertEquals((await saved()).length, 1);
    });

    /** What was asked, without its signal. */
    const asked = () =>
      nat.calls.filter(([what]) => what !== "close").map(([what, which, options]) => {
        const { signal, ...rest } = options as { signal: unknown };
        assert(signal instanceof AbortSignal);
        return [what, which, rest];
      });

    it("closes what was mapped for another host where this one has none of that port", async () => {
      await keep({ thirdParty: "192.168.1.9" });
      await keep({ thirdParty: "192.168.1.9", protocol: "udp" });
      nat.answer = confirmAsOpened;

      assertEquals(await run("unmap 6000 --json"), 0);
      assertEquals(opens(), [["192.168.1.1", ["pcp"], [6000]]]);
      assertEquals(asked(), [["unmap", 6000, { protocol: "tcp", thirdParty: "192.168.1.9" }]]);
      assertEquals((await saved()).map(({ protocol }) => protocol), ["udp"]);
    });

    it("asks for what is meant, for as long as the flags say", async () => {
      nat.answer = confirmAsOpened;
      await keep({ internalPort: 6001, thirdParty: "192.168.1.9" });
      await keep({ internalPort: 6002 });
      for (
        const line of ["6000/udp --timeout 3", "6002 --timeout 4", "--all", "--all --timeout 5"]
      ) {
        assertEquals(await run(`unmap ${line}`), 0);
      }
      const all = ["tcp", "udp"].map((protocol) => ["unmapAll", protocol, {}]);
      assertEquals(asked(), [
        ["unmap", 6000, { protocol: "udp", timeoutMs: 3000 }],
        ["unmap", 6002, { protocol: "tcp", timeoutMs: 4000 }],
        ["unmap", 6001, { protocol: "tcp", thirdParty: "192.168.1.9" }],
        ...all,
        ...all.map(([what, which]) => [what, which, { timeoutMs: 5000 }]),
      ]);
    });

    it("forgets what the state knew as over once the gateway says so, and what was claimed", async () => {
      const { nonce: _, external: __, ...wanted } = SAVED;
      const claim = () =>
        new StateFile(path, () => {}).keep({
          mapping: wanted,
          expiresAt: Date.now() + 60_000,
        });
      await keep({}, { expiresAt: Date.now() - 1000 });
      nat.answer = confirmAsOpened;
      assertEquals([await run("unmap 6000"), await saved()], [0, []]);

      await keep();
      await claim();
      assertEquals(await run("unmap 6000 --via nat-pmp"), 1);
      assertEquals(await saved(), [SAVED]);
      await claim();
      assertEquals([await run("unmap 6000"), await saved()], [0, []]);
      await claim();
      nat.calls.length = nat.opens.length = 0;
      assertEquals([await run("unmap --all --via pcp"), await saved()], [0, []]);
      assertEquals([nat.opens, io.err.split("\n").at(-2)], [[], "There is nothing to unmap."]);
    });

    it("leaves flows, and what was made for another address than that of the flag", async () => {
      const remote = { address: "198.51.100.1", port: 80 };
      await keep({ remote });
      await keep({}, { internalAddress: "192.168.1.5" });
      await keep({}, { internalAddress: "192.168.1.6" });
      nat.answer = confirmAsOpened;
      assertEquals(await run("unmap 6000 --internal-address 192.168.1.6"), 0);
      assertEquals(nat.opens.map(({ internalAddress }) => internalAddress), ["192.168.1.6"]);
      assertEquals((await entries()).map(({ internalAddress }) => internalAddress), [
        undefined,
        "192.168.1.5",
      ]);
    });

    it("leaves what a run holds that lives, though by the clock it is over", async () => {
      await keep({}, { expiresAt: Date.now() - 1000, ...HELD });
      assertEquals(await run("unmap 6000"), 1);
      assertEquals([nat.calls, await saved()], [[], [SAVED]]);
    });

    it("takes along what was made for another host, from whatever address of this one", async () => {
      const third = { internalPort: 6001, thirdParty: "192.168.1.9" };
      await keep(third, { internalAddress: "192.168.1.5" });
      nat.answer = confirmAsOpened;
      assertEquals(await run("unmap --all --via pcp --internal-address 192.168.1.6"), 0);
      assertEquals([nat.calls[0]?.[1], await saved()], [6001, []]);
    });

    it("asks from the address that it was made for, as long as this host has that", async () => {
      const runtime = new FakeRuntime();
      runtime.addresses = [
        { name: "eth0", address: "192.168.1.5", prefixLength: 24, internal: false },
      ];
      await keep({}, { internalAddress: "192.168.1.5" });
      await keep({}, { internalAddress: "192.168.1.77" });
      nat.answer = confirmAsOpened;
      const parts = { openNat: nat.open, runtime };
      assertEquals(await runCommandLine(["unmap", "6000"], io, parts), 0);
      assertEquals(
        nat.opens.map(({ internalAddress, state }) => [internalAddress, state!.mappings.length]),
        [["192.168.1.5", 1], [undefined, 1]],
      );
    });

    it("says that another protocol made it than those of --via, and leaves it", async () => {
      await keep();

      assertEquals(await run("unmap 6000 --via nat-pmp --json"), 1);
      assertEquals(io.events.map(({ event, code }) => [event, code]), [[
        "error",
        "other-protocol",
      ]]);
      assertEquals(
        io.err,
        "natkit: Port 6000/tcp was mapped by PCP at 192.168.1.1, which is not in --via " +
          '"nat-pmp": it stays open\n',
      );
      assertEquals([nat.opens, await saved()], [[], [SAVED]]);
    });

    it("leaves what a run that lives holds", async () => {
      await keep({}, HELD);

      assertEquals(await run("unmap 6000 --json"), 1);
      assertEquals(io.events.map(({ code }) => code), ["in-use"]);
      assertEquals([nat.opens, await saved()], [[], [SAVED]]);
    });

    it("keeps what a gateway refused to delete, and forgets what another one deleted", async () => {
      await keep();
      await keep({ gateway: "192.168.2.1" });
      nat.answer = (what, signal, opened) =>
        (opened.gateway as Endpoint).address === "192.168.1.1"
          ? Promise.reject(new NatError("refused", "Cannot unmap"))
          : confirmAsOpened(what, signal, opened);

      assertEquals(await run("unmap 6000 --json"), 1);
      assertEquals(io.events.map(({ event }) => event), ["unmapped", "error"]);
      assertEquals(await saved(), [SAVED]);
    });

    it("forgets what an earlier run asked for in vain, whether or not that ever was", async () => {
      const { external: _, ...asked } = SAVED;
      await new StateFile(path, () => {}).keep({
        mapping: asked,
        expiresAt: Date.now() + 60_000,
        gateway: { address: SAVED.gateway, port: 5351 },
      });
      nat.answer = () => Promise.reject(new Error("a bug of ours"));
      assertEquals([await run("unmap 6000"), (await saved()).length], [1, 1]);
      nat.answer = () => Promise.reject(new NatError("no-answer", "Cannot unmap"));
      assertEquals([await run("unmap 6000"), await saved()], [0, []]);
    });

    it("--all deletes what the state knows, and by NAT-PMP all that it does not", async () => {
      await keep();
      await keep({ internalPort: 6001, protocol: "udp", thirdParty: "192.168.1.9" });
      await keep({ gateway: "192.168.2.1", via: "nat-pmp" });
      nat.answer = confirmAsOpened;

      assertEquals(await run("unmap --all --json"), 0);
      assertEquals(opens(), [
        ["192.168.1.1", ["pcp"], [6000, 6001]],
        ["192.168.2.1", ["nat-pmp"], [6000]],
        [undefined, ["nat-pmp"], []],
      ]);
      assertEquals(
        nat.calls.filter(([what]) => what !== "close").map(([what, which]) => [what, which]),
        [
          ["unmap", 6000],
          ["unmap", 6001],
          ["unmap", 6000],
          ["unmapAll", "tcp"],
          ["unmapAll", "udp"],
        ],
      );
      assertEquals(io.events.length, 5);
      assertEquals(await saved(), []);
    });

    it("--all asks for what --via names alone", async () => {
      await keep();
      await keep({ internalPort: 6001, via: "nat-pmp" });
      nat.answer = confirmAsOpened;

      assertEquals(await run("unmap --all --via pcp"), 0);
      assertEquals(opens(), [["192.168.1.1", ["pcp"], [6000]]]);
      assertEquals((await saved()).map(({ internalPort }) => internalPort), [6001]);
    });

    it("--all leaves what a run that lives holds, and whatever would take that with it", async () => {
      await keep({}, HELD);
      await keep({ internalPort: 6001 });
      nat.answer = confirmAsOpened;

      assertEquals(await run("unmap --all --json"), 1);
      assertEquals(
        nat.calls.filter(([what]) => what !== "close").map(([what, which]) => [what, which]),
        [["unmap", 6001], ["unmapAll", "udp"]],
      );
      assertEquals(io.events.at(-1)?.code, "in-use");
      assertEquals(await saved(), [SAVED]);
    });

    it("--all succeeds where what the state knows is deleted and NAT-PMP is not spoken", async () => {
      await keep();
      nat.answer = (what, signal, opened) =>
        what === "unmap"
          ? confirmAsOpened(what, signal, opened)
          : Promise.reject(new NatError("no-answer", "no"));

      assertEquals(await run("unmap --all"), 0);
    });

    it("--all fails where the state's is not deleted, whatever else is", async () => {
      await keep();
      nat.answer = (what, signal, opened) =>
        what === "unmapAll"
          ? confirmAsOpened(what, signal, opened)
          : Promise.reject(new NatError("no-answer", "no"));

      assertEquals(await run("unmap --all"), 1);
      assertEquals(await saved(), [SAVED]);
    });

    it("fails where nobody confirmed", async () => {
      nat.answer = () => Promise.reject(new NatError("refused", "Cannot unmap"));

      assertEquals(await run("unmap 6000 --json"), 1);
      assertEquals(await run("unmap --all --json"), 1);
      assertEquals(io.events.map(({ code }) => code), ["refused", "refused"]);
    });
  });

  describe("address", () => {
    const answerBy = (via: Via, address = "203.0.113.7") => [
      { via, address, gateway: "192.168.1.1" },
    ];

    it("tells the address by each protocol", async () => {
      nat.answer = () => Promise.resolve([...answerBy("pcp"), ...answerBy("nat-pmp")]);

      assertEquals(await run("address --json"), 0);
      assertEquals(io.events, [
        { event: "address", ...answerBy("pcp")[0] },
        { event: "address", ...answerBy("nat-pmp")[0] },
      ]);
      assertEquals([io.err, io.listeners], ["", 0]);
      assertEquals(nat.calls.filter(([what]) => what === "close").length, 1);
    });

    it("waits for as long as the flags say", async () => {
      nat.answer = () => Promise.resolve(answerBy("pcp"));
      for (const [flags, timeoutMs] of [["", undefined], ["--timeout 3", 3000]] as const) {
        nat.calls.length = nat.opens.length = 0;
        assertEquals(await run(`address ${flags}`), 0);
        const [, { signal, onAddress: _, ...options }] = nat.calls[0] as [
          string,
          { signal: unknown; onAddress: unknown },
        ];
        assert(signal instanceof AbortSignal);
        assertEquals(options, timeoutMs === undefined ? {} : { timeoutMs });
      }
    });

    it("asks by the protocols of --via alone", async () => {
      nat.answer = () => Promise.resolve(answerBy("nat-pmp"));

      assertEquals(await run("address --via nat-pmp --json"), 0);
      assertEquals(nat.opens.map(({ protocols }) => protocols), [["nat-pmp"]]);
    });

    it("says what was tried where nobody knows it", async () => {
      const attempts = (["pcp", "nat-pmp"] as const).map((via) => (
        { via, gateway: "192.168.1.1", outcome: "no answer", elapsedMs: 5 }
      ));
      nat.answer = () => Promise.reject(new NatError("no-answer", "Cannot", { attempts }));

      assertEquals(await run("address --json"), 1);
      const [event] = io.events as [Record<string, unknown>];
      assertEquals(event.code, "no-answer");
      assertMatch(
        String(event.message),
        /^Cannot\. Is 192\.168\.1\.1 the router, and PCP or NAT-PMP/,
      );
      assertEquals((event.attempts as unknown[]).length, 2);
    });

    it("ends with 130 where it is interrupted", async () => {
      nat.answer = (_, signal) => {
        const answer = new Promise<never>((_, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason));
        });
        io.signal("SIGINT");
        return answer;
      };

      assertEquals(await run("address --json"), 130);
      assertEquals(io.events.map(({ code }) => code), ["interrupted"]);
    });

    it("warns once of an address that is not the Internet's", async () => {
      nat.answer = () =>
        Promise.resolve([...answerBy("pcp", "100.64.1.1"), ...answerBy("nat-pmp", "100.64.1.1")]);

      assertEquals(await run("address"), 0);
      assertEquals(
        io.out,
        "100.64.1.1 by PCP at 192.168.1.1\n100.64.1.1 by NAT-PMP at 192.168.1.1\n",
      );
      assertEquals(
        io.err,
        "natkit: warning: 100.64.1.1 is no address of the Internet: another NAT stands above this " +
          "gateway\n",
      );
    });
  });
});
