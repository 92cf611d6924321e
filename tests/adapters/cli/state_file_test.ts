import { afterEach, beforeEach, describe, it } from "node:test";
import {
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { SavedMapping } from "../../../core/portmap/saved.ts";
import { defaultStatePath, StateFile } from "../../../adapters/cli/state_file.ts";

function saved(internalPort: number, over: Partial<SavedMapping> = {}): SavedMapping {
  return {
    kind: "map",
    via: "pcp",
    gateway: "192.168.1.1",
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

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "natkit-"));
    path = join(folder, "deep", "state.json");
    warnings.length = 0;
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  it("gives back what it was given", async () => {
    await file().keep(saved(6000), 60);
    await file().keep(saved(6001, { via: "nat-pmp" }), 60);

    assertEquals(await file().load(), [saved(6000), saved(6001, { via: "nat-pmp" })]);
    assertEquals(warnings, []);
  });

  it("replaces the entry of the same mapping, and that one alone", async () => {
    const other = { address: "198.51.100.1", port: 1 };
    const kept = [
      saved(6000, { protocol: "udp" }),
      saved(6000, { gateway: "10.0.0.1" }),
      saved(6000, { kind: "peer", remote: { address: "192.0.2.1", port: 5 } }),
      saved(6000, { thirdParty: "192.168.1.9" }),
    ];
    for (const one of [saved(6000), ...kept]) await file().keep(one, 60);

    await file().keep(saved(6000, { external: other }), 60);

    assertEquals(await file().load(), [...kept, saved(6000, { external: other })]);
  });

  it("forgets what it is told to", async () => {
    for (const port of [1, 2, 3]) await file().keep(saved(port), 60);

    await file().forget((one) => one.internalPort === 2);

    assertEquals(await file().load(), [saved(1), saved(3)]);
  });

  it("has nothing where there is no file, and makes none to forget in", async () => {
    assertEquals(await file().load(), []);
    await file().forget(() => true);

    assertEquals(await readdir(join(folder, "deep")), []);
    assertEquals(warnings, []);
  });

  it("is readable by its owner alone", { skip: process.platform === "win32" }, async () => {
    await file().keep(saved(1), 60);

    assertEquals((await stat(path)).mode & 0o777, 0o600);
    assertEquals((await stat(join(folder, "deep"))).mode & 0o077, 0);
  });

  it("leaves no other file behind", async () => {
    await file().keep(saved(1), 60);

    assertEquals(await readdir(join(folder, "deep")), ["state.json"]);
  });

  it("loses nothing where several runs write at once", async () => {
    const ports = Array.from({ length: 20 }, (_, i) => i + 1);

    await Promise.all(ports.map((port) => file().keep(saved(port), 60)));

    const found = (await file().load()).map((one) => one.internalPort);
    assertEquals(found.sort((a, b) => a - b), ports);
  });

  it("takes over the lock of a run that was killed", async () => {
    await mkdir(join(folder, "deep"));
    await writeFile(`${path}.lock`, "");
    await utimes(`${path}.lock`, 1, 1);

    await file().keep(saved(1), 60);

    assertEquals(await file().load(), [saved(1)]);
    assertEquals(await readdir(join(folder, "deep")), ["state.json"]);
  });

  for (
    const [what, text] of [
      ["nothing", ""],
      ["half a file", '{"version":1,"entries":[{"mapp'],
      ["something else", "[1,2,3]"],
      ["null", "null"],
      ["another version", '{"version":2,"entries":[]}'],
    ] as const
  ) {
    it(`warns and goes on with a new file where it finds ${what}`, async () => {
      await mkdir(join(folder, "deep"));
      await writeFile(path, text);

      assertEquals(await file().load(), []);
      assertEquals(warnings.length, 1);
      assertStringIncludes(warnings[0]!, path);
      await file().keep(saved(1), 60);
      assertEquals(await file().load(), [saved(1)]);
    });
  }

  it("leaves out entries that are none", async () => {
    await file().keep(saved(1), 60);
    const content = JSON.parse(await readFile(path, "utf8"));
    const [entry] = content.entries;
    content.entries.push(
      null,
      5,
      { ...entry, expiresAt: "soon" },
      { ...entry, mapping: { ...entry.mapping, nonce: "xyz" } },
      { ...entry, mapping: { ...entry.mapping, external: null } },
      { ...entry, mapping: { ...entry.mapping, internalPort: 70000 } },
    );
    await writeFile(path, JSON.stringify(content));

    assertEquals(await file().load(), [saved(1)]);
  });

  it("drops entries a day after their mapping has ended", async () => {
    await file().keep(saved(1), -86_401);
    await file().keep(saved(2), -86_000);

    assertEquals(await file().load(), [saved(2)]);
  });

  it("keeps 4096 entries at most, the newest", async () => {
    await file().keep(saved(1), 60);
    const content = JSON.parse(await readFile(path, "utf8"));
    content.entries = Array.from({ length: 5000 }, (_, i) => (
      { ...content.entries[0], mapping: saved(i + 1) }
    ));
    await writeFile(path, JSON.stringify(content));

    await file().keep(saved(6000), 60);

    const found = await file().load();
    assertEquals([found.length, found.at(-1)], [4096, saved(6000)]);
  });

  it("never takes the place of a device or a folder", async () => {
    await mkdir(path, { recursive: true });

    await file().keep(saved(1), 60);

    assert((await stat(path)).isDirectory());
    assertStringIncludes(warnings[0]!, "no regular file");
  });

  it("follows a link", { skip: process.platform === "win32" }, async () => {
    await mkdir(join(folder, "deep"));
    const target = join(folder, "target.json");
    await writeFile(target, "");
    await symlink(target, path);

    await file().keep(saved(1), 60);

    assertEquals(await file(target).load(), [saved(1)]);
  });

  it("warns where it cannot write, and fails nobody", async () => {
    await writeFile(join(folder, "deep"), "a file in the place of the folder");

    await file().keep(saved(1), 60);

    assertStringIncludes(warnings.join(), `Cannot write ${path}`);
  });

  it("keeps nothing without a path", async () => {
    const nowhere = new StateFile(undefined, (text) => warnings.push(text));

    await nowhere.keep(saved(1), 60);

    assertEquals(await nowhere.load(), []);
    assertEquals(warnings, []);
  });
});
