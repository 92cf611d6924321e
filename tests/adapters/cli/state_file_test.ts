import { afterEach, beforeEach, describe, it } from "node:test";
import { spawn } from "node:child_process";
import { existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import {
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import type { SavedPort } from "../../../core/portmap/managed.ts";
import { CommandError } from "../../../adapters/cli/output.ts";
import { ownProcess } from "../../../adapters/cli/processes.ts";
import { defaultStatePath, type Entry, StateFile } from "../../../adapters/cli/state_file.ts";

function entry(
  internalPort: number,
  over: Partial<SavedPort> = {},
  lifetimeSeconds = 60,
): Entry {
  return {
    mapping: saved(internalPort, over),
    expiresAt: Date.now() + 1000 * lifetimeSeconds,
    gateway: { address: over.gateway ?? "192.168.1.1", port: 5351 },
    internalAddress: "192.168.1.5",
  };
}

function saved(internalPort: number, over: Partial<SavedPort> = {}): SavedPort {
  return {
    via: "pcp",
    gateway: "192.168.1.1",
    lifetimeSeconds: 600,
    mode: "keep-alive",
    protocol: "tcp",
    internalPort,
    external: { address: "203.0.113.7", port: internalPort },
    nonce: "000102030405060708090a0b",
    ...over,
  };
}

describe("defaultStatePath()", () => {
  it("is below XDG_STATE_HOME where that is an absolute path", () => {
    assertEquals(
      defaultStatePath({ XDG_STATE_HOME: "/x/state", HOME: "/home/a" }),
      join("/x/state", "natkit", "state.json"),
    );
  });

  it("is below ~/.local/state otherwise", () => {
    const expected = join("/home/a", ".local", "state", "natkit", "state.json");

    assertEquals(defaultStatePath({ HOME: "/home/a" }), expected);
    assertEquals(defaultStatePath({ XDG_STATE_HOME: "relative", HOME: "/home/a" }), expected);
    assertEquals(defaultStatePath({ USERPROFILE: "/home/a" }), expected);
  });

  it("is nowhere without a home", () => {
    assertEquals(defaultStatePath({}), undefined);
  });
});

describe("StateFile", () => {
  let folder = "", path = "";
  const warnings: string[] = [];
  const file = (at = path) => new StateFile(at, (text) => warnings.push(text));
  const mappings = async (at = path) => (await file(at).load()).map(({ mapping }) => mapping);

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "natkit-"));
    path = join(folder, "deep", "state.json");
    warnings.length = 0;
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  it("reads whose a mapping is, also where that is the first process of a container", async () => {
    const file = new StateFile(path, () => {});
    await file.keep(entry(6000));
    const content = JSON.parse(await readFile(path, "utf8"));
    const pids = [1, 2, 0, -1, 1.5, "1"];
    content.entries = pids.map((pid, i) => ({
      ...content.entries[0],
      mapping: { ...content.entries[0].mapping, internalPort: 7000 + i },
      owner: { pid },
    }));
    await writeFile(path, JSON.stringify(content));
    assertEquals((await file.load()).map(({ owner }) => owner?.pid), [1, 2]);
  });

  it("gives back what it was given", async () => {
    await file().keep(entry(6000));
    await file().keep(entry(6001, { via: "nat-pmp" }));

    assertEquals(await mappings(), [saved(6000), saved(6001, { via: "nat-pmp" })]);
    assertEquals(warnings, []);
  });

  it("replaces the entry of the same mapping, and that one alone", async () => {
    const other = { address: "198.51.100.1", port: 1 };
    const kept = [
      entry(6000, { protocol: "udp" }),
      entry(6000, { gateway: "10.0.0.1" }),
      entry(6000, { remote: { address: "192.0.2.1", port: 5 } }),
      entry(6000, { thirdParty: "192.168.1.9" }),
      { ...entry(6000), gateway: { address: "192.168.1.1", port: 9999 } },
      { ...entry(6000), internalAddress: "192.168.1.6" },
    ];
    for (const one of [entry(6000), ...kept]) await file().keep(one);

    const moved = saved(6000, { external: other });
    await file().keep({ ...entry(6000), mapping: moved });

    assertEquals((await file().load()).slice(0, -1), kept);
    assertEquals(await mappings(), [...kept.map(({ mapping }) => mapping), moved]);
  });

  it("forgets what it is told to", async () => {
    for (const port of [1, 2, 3]) await file().keep(entry(port));

    await file().forget(({ mapping }) => mapping.internalPort === 2);

    assertEquals(await mappings(), [saved(1), saved(3)]);
  });

  it("has nothing where there is no file, and makes none to forget in", async () => {
    assertEquals(await file().load(), []);
    await file().forget(() => true);

    assertEquals(await readdir(folder), []);
    assertEquals(warnings, []);
  });

  it("is readable by its owner alone", { skip: process.platform === "win32" }, async () => {
    await file().keep(entry(1));

    assertEquals((await stat(path)).mode & 0o777, 0o600);
    assertEquals((await stat(join(folder, "deep"))).mode & 0o077, 0);
  });

  it("leaves no other file behind", async () => {
    await file().keep(entry(1));

    assertEquals(await readdir(join(folder, "deep")), ["state.json"]);
  });

  it("loses nothing where several runs write at once", async () => {
    const ports = Array.from({ length: 20 }, (_, i) => i + 1);

    await Promise.all(ports.map((port) => file().keep(entry(port))));

    const found = (await mappings()).map((one) => one.internalPort);
    assertEquals(found.sort((a, b) => a - b), ports);
  });

  /** Puts a lock there as a run takes it. */
  const lockAs = async (token: string) => {
    await mkdir(`${path}.lock`, { recursive: true });
    await writeFile(join(`${path}.lock`, token), "");
  };
  /** A pid that no process has: that of one that has ended. */
  const deadPid = async () => {
    const child = spawn(process.execPath, ["--version"], { stdio: "ignore" });
    await new Promise((resolve) => child.on("close", resolve));
    return child.pid!;
  };
  const here = hostname().replace(/[^A-Za-z0-9-]/g, "_");

  it("takes over the lock of a run that was killed, however many do so at once", async () => {
    await lockAs(`${here}.${await deadPid()}.x`);
    const ports = Array.from({ length: 8 }, (_, i) => i + 1);

    await Promise.all(ports.map((port) => file().keep(entry(port))));

    const found = (await mappings()).map((one) => one.internalPort);
    assertEquals(found.sort((a, b) => a - b), ports);
    assertEquals([await readdir(join(folder, "deep")), warnings], [["state.json"], []]);
  });

  describe("on a clock by hand", () => {
    let ms = 0;
    const { now } = performance;
    const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

    beforeEach(() => {
      ms = 0;
      performance.now = () => ms;
    });
    afterEach(() => {
      performance.now = now;
    });

    it("takes over a lock of which nobody can tell whose it is, once it has not moved for 2 s", async () => {
      // That a pid of another host is nobody's here says nothing.
      for (const token of [`elsewhere.${await deadPid()}.x`, `${here}.0.x`]) {
        ms = 0;
        await rm(path, { force: true });
        await lockAs(token);
        const keeping = file().keep(entry(1));
        // It looks again and again meanwhile.
        for (ms of [0, 1000, 2000]) await pause(30);
        assertEquals(await readdir(`${path}.lock`), [token]);
        ms = 2001;
        await keeping;

        assertEquals(await mappings(), [saved(1)]);
        assertEquals([await readdir(join(folder, "deep")), warnings], [["state.json"], []]);
      }
    });

    it("takes over at once that of a run of this host that was killed", async () => {
      await lockAs(`${here}.${await deadPid()}.x`);
      await file().keep(entry(1));

      assertEquals([ms, await mappings(), warnings], [0, [saved(1)], []]);
    });

    it("gives up after 30 s where others take the lock again and again, and says so", async () => {
      await lockAs("elsewhere.1.0");
      let isOver = false;
      const others = async () => {
        for (let i = 0; !isOver; i++) {
          const at = (turn: number) => join(`${path}.lock`, `elsewhere.1.${turn}`);
          await writeFile(at(i + 1), "");
          await rm(at(i), { force: true });
          ms += 1500;
          await pause(2);
        }
      };
      const taking = others();
      await file().keep(entry(1));
      isOver = true;
      await taking;

      assert(ms > 30_000);
      assertEquals(warnings, [
        `Cannot write ${path}: ${path}.lock is taken; a later unmap may not be allowed`,
      ]);
    });
  });

  it("uses a lock that was left empty", async () => {
    await mkdir(`${path}.lock`, { recursive: true });

    await file().keep(entry(1));

    assertEquals(await mappings(), [saved(1)]);
  });

  it("loses nothing where locks are broken while their holders live", async () => {
    const kept: number[] = [];
    let broken = 0;
    const writer = async () => {
      while (broken < 5) {
        const port = kept.push(kept.length + 1);
        await file().keep(entry(port));
      }
    };
    const saboteur = async () => {
      while (broken < 5) {
        for (const token of await readdir(`${path}.lock`).catch(() => [])) {
          await rm(join(`${path}.lock`, token)).then(() => broken++, () => {});
        }
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    };

    await Promise.all([writer(), writer(), writer(), saboteur()]);

    const found = (await mappings()).map((one) => one.internalPort);
    assertEquals(found.sort((a, b) => a - b), kept);
    assertEquals(warnings, []);
  });

  it("begins anew where its lock was broken and another run has written since it read", async () => {
    for (const port of [1, 2, 3]) await file().keep(entry(port));
    const others = JSON.stringify({ version: 1, entries: [1, 2, 3, 4].map((port) => entry(port)) });
    let isBroken = false;

    await file().forget(({ mapping }) => {
      const [token] = existsSync(`${path}.lock`) ? readdirSync(`${path}.lock`) : [];
      if (token !== undefined && !isBroken) {
        isBroken = true;
        rmSync(join(`${path}.lock`, token));
        writeFileSync(path, others);
      }
      return mapping.internalPort === 2;
    });

    assert(isBroken);
    assertEquals(await mappings(), [saved(1), saved(3), saved(4)]);
    assertEquals([await readdir(join(folder, "deep")), warnings], [["state.json"], []]);
  });

  it("starts anew in an empty file, which mktemp makes", async () => {
    await mkdir(join(folder, "deep"));
    await writeFile(path, "");

    assertEquals(await file().load(), []);
    await file().keep(entry(1));
    assertEquals(await mappings(), [saved(1)]);
  });

  const good = JSON.stringify(entry(1));
  for (
    const [what, text, message] of [
      ["half a file", '{"version":1,"entries":[{"mapp', "no state file"],
      ["a text", "dear diary\n", "no state file"],
      ["a list", "[1,2,3]", "no state file"],
      ["null", "null", "no state file"],
      ["another program's object", '{"version":1,"name":"x"}', "no state file"],
      ["another program's entries", '{"version":1,"entries":[{"url":"x"}]}', "no state file"],
      ["more than is ours", `{"version":1,"entries":[${good}],"name":"x"}`, "no state file"],
      ["an older version", `{"version":0,"entries":[${good}]}`, "no state file"],
      ["a newer version", '{"version":2,"entries":[]}', "newer natkit (version 2"],
    ] as const
  ) {
    it(`leaves the file as it is and says so where it finds ${what}`, async () => {
      await mkdir(join(folder, "deep"));
      await writeFile(path, text);

      const error = await assertRejects(() => file().load(), CommandError);
      await file().keep(entry(1));
      await file().forget(() => true);

      assertEquals(error.code, "state-file");
      assertStringIncludes(error.message, path);
      assertStringIncludes(error.message, message);
      assertEquals(await readFile(path, "utf8"), text);
      assertEquals(await readdir(join(folder, "deep")), ["state.json"]);
    });
  }

  it("leaves a file as it is and unread that is larger than natkit's can be", async () => {
    await mkdir(join(folder, "deep"));
    await writeFile(path, "");
    await truncate(path, 3 * 2 ** 30);

    await assertRejects(() => file().load(), CommandError, "no state file");
    await file().keep(entry(1));

    assertEquals((await stat(path)).size, 3 * 2 ** 30);
  });

  it("does not replace a file that it cannot read", {
    skip: process.platform === "win32",
  }, async () => {
    await mkdir(join(folder, "deep"));
    // Nobody can read it, not even root: a link that leads to itself.
    await symlink(path, path);

    assertEquals(await file().load(), []);
    await file().keep(entry(1));

    assertEquals(await readlink(path), path);
    assertStringIncludes(warnings[0]!, path);
  });

  it("does not take an entry from another process that runs", {
    skip: process.platform === "win32",
  }, async () => {
    const child = spawn(process.execPath, ["-e", "setTimeout(() => {}, 60_000)"]);
    const { start } = await ownProcess();
    const other = { ...entry(1), owner: { pid: child.pid! } };
    await file().keep(other);

    assertEquals(await file().keep({ ...entry(1), owner: await ownProcess() }), other);
    assertEquals((await file().load()).map(({ owner }) => owner), [other.owner]);

    // The pid was another process's: that one is gone.
    if (start !== undefined) {
      await file().forget(() => true);
      await file().keep({ ...other, owner: { ...other.owner, start: "another time" } });
      assertEquals(await file().keep(entry(1)), undefined);
      await file().forget(() => true);
      await file().keep(other);
    }

    child.kill("SIGKILL");
    await new Promise((resolve) => child.on("close", resolve));
    assertEquals(await file().keep(entry(1)), undefined);
    assertEquals((await file().load()).map(({ owner }) => owner), [undefined]);
  });

  it("leaves out entries that are none", async () => {
    await file().keep(entry(1));
    const content = JSON.parse(await readFile(path, "utf8"));
    const [good] = content.entries;
    content.entries.push(
      null,
      5,
      { ...good, expiresAt: "soon" },
      { ...good, mapping: { ...good.mapping, nonce: "xyz" } },
      { ...good, mapping: { ...good.mapping, external: null } },
      { ...good, mapping: { ...good.mapping, internalPort: 70000 } },
      { ...good, gateway: { address: "nowhere", port: 5 } },
      { ...good, internalAddress: 5 },
      { ...good, owner: { pid: -1 } },
      { ...good, owner: null },
    );
    await writeFile(path, JSON.stringify(content));

    assertEquals(await mappings(), [saved(1)]);
  });

  it("drops entries a day after their mapping has ended", async () => {
    await file().keep(entry(1, {}, -86_401));
    await file().keep(entry(2, {}, -86_000));

    assertEquals(await mappings(), [saved(2)]);
  });

  it("keeps what a process holds that runs, whatever its clock said when it wrote", async () => {
    await file().keep({ ...entry(1), expiresAt: 3_600_000, owner: { pid: process.ppid } });
    await file().keep({ ...entry(2), expiresAt: 3_600_000, owner: { pid: 0x7fff_fff0 } });
    await file().keep(entry(3));

    assertEquals(await mappings(), [saved(1), saved(3)]);
  });

  it("keeps 4096 entries at most, the newest", async () => {
    await file().keep(entry(1));
    const content = JSON.parse(await readFile(path, "utf8"));
    content.entries = Array.from({ length: 5000 }, (_, i) => (
      { ...content.entries[0], mapping: saved(i + 1) }
    ));
    await writeFile(path, JSON.stringify(content));

    await file().keep(entry(6000));

    const found = await mappings();
    assertEquals([found.length, found.at(-1)], [4096, saved(6000)]);
  });

  it("never takes the place of a folder", async () => {
    await mkdir(path, { recursive: true });

    const error = await assertRejects(() => file().load(), CommandError);
    await file().keep(entry(1));

    assertEquals(error.message, `${path} is a folder, no file`);
    assert((await stat(path)).isDirectory());
  });

  it("leaves a device alone", { skip: process.platform === "win32" }, async () => {
    assertEquals(await file("/dev/null").load(), []);
    await file("/dev/null").keep(entry(1));

    assert((await stat("/dev/null")).isCharacterDevice());
    assertEquals(warnings, []);
  });

  it("follows a link", { skip: process.platform === "win32" }, async () => {
    await mkdir(join(folder, "deep"));
    const target = join(folder, "target.json");
    await writeFile(target, "");
    await symlink(target, path);

    await file().keep(entry(1));

    assertEquals(await mappings(target), [saved(1)]);
  });

  it("follows a link to where no file is yet, and leaves one alone that leads to itself", {
    skip: process.platform === "win32",
  }, async () => {
    await mkdir(join(folder, "deep"));
    await symlink("second.json", path);
    await symlink("../there/state.json", join(folder, "deep", "second.json"));
    await file().keep(entry(1));
    assertEquals(await mappings(join(folder, "there", "state.json")), [saved(1)]);
    assertEquals([await mappings(), warnings], [[saved(1)], []]);

    const own = join(folder, "own.json");
    await symlink("own.json", own);
    await file(own).keep(entry(1));
    assertEquals(warnings.map((text) => text.split(";")[0]), [`Cannot write ${own}: ELOOP`]);
  });

  it("warns where it cannot write, and fails nobody", async () => {
    await writeFile(join(folder, "deep"), "a file in the place of the folder");

    await file().keep(entry(1));

    assertStringIncludes(warnings.join(), `Cannot write ${path}`);
  });

  it("warns where the system lets nobody make the folder, as in /proc", {
    skip: process.platform !== "linux",
  }, async () => {
    const path = "/proc/natkit/deep/state.json";

    await file(path).keep(entry(1));

    assertEquals(warnings.map((text) => text.split(";")[0]), [`Cannot write ${path}: ENOENT`]);
  });

  it("keeps nothing without a path", async () => {
    const nowhere = new StateFile(undefined, (text) => warnings.push(text));

    await nowhere.keep(entry(1));

    assertEquals(await nowhere.load(), []);
    assertEquals(warnings, []);
  });
});
