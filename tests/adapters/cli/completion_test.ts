/** The scripts of `natkit completion`, in the shells themselves. */
import { afterEach, beforeEach, describe, it } from "node:test";
import { execFile, execFileSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { COMMON_FLAGS } from "../../../adapters/cli/args.ts";
import { completionFor, type Shell } from "../../../adapters/cli/commands/completion.ts";
import { COMMANDS } from "../../../adapters/cli/commands/mod.ts";
import { type Flag, FLAGS } from "../../../adapters/cli/flags.ts";
import { runCommandLine } from "../../../adapters/cli/command_line.ts";
import { FakeIo } from "./fakes.ts";

/** What is typed, and all that may follow; a line's last word is completed. */
const CASES: readonly (readonly [line: string, words: readonly string[]])[] = [
  ["", [...COMMANDS.map(({ name }) => name), "help", "version"]],
  ["un", ["unmap"]],
  ["--json un", ["unmap"]],
  ["--gateway 192.168.1.1 un", ["unmap"]],
  ["--gateway=192.168.1.1:5351 un", ["unmap"]],
  ["help ma", ["map"]],
  ["help map ", []],
  ["map ", []],
  ["map 6000 --mo", ["--mode"]],
  ["map --lifetime 60 --exte", ["--external-address", "--external-port"]],
  ["list --v", ["--verbose", "--version"]],
  ["map --mode ", ["keep-alive", "once"]],
  ["map --mode=o", ["once"]],
  ["map --lifetime ", []],
  ["map --via n", ["nat-pmp"]],
  ["gateway --profile miniupnpd-p", ["miniupnpd-private-wan"]],
  ["upnp ", ["services", "actions", "call"]],
  ["upnp services ", []],
  ["completion b", ["bash"]],
  ["--vers", ["--version"]],
];

/** Lists: what is written of it stays, and is not offered again. */
const LISTS: readonly (readonly [line: string, words: readonly string[]])[] = [
  ["map --via ", ["pcp", "nat-pmp", "upnp"]],
  ["map --via pcp,", ["pcp,nat-pmp", "pcp,upnp"]],
  ["map --via=upnp,p", ["upnp,pcp"]],
];

/** Splits as bash does for completion: `=` and `:` are words of their own. */
function bashWords(line: string): string[] {
  return `natkit ${line}`.split(" ").flatMap((word) =>
    word.split(/([=:])/).filter((part, i, all) => part !== "" || all.length === 1 && i === 0)
  );
}

function available(shell: Shell): boolean {
  try {
    execFileSync(shell, ["-c", "exit 0"]);
    return true;
  } catch {
    return false;
  }
}

function run(command: string, args: string[], env: Record<string, string>): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { env: { PATH: process.env.PATH ?? "", LC_ALL: "C.UTF-8", ...env } };
    execFile(command, args, options, (error, stdout, stderr) => {
      if (error) reject(new Error(`${error.message}\n${stderr}`));
      else resolve(stdout + stderr);
    });
  });
}

const sorted = (words: Iterable<string>) => [...words].sort();

describe("natkit completion", () => {
  let folder = "";
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "natkit-"));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  /** What a shell offers for each of these lines. */
  const offered: Readonly<Record<Shell, (lines: readonly string[]) => Promise<string[][]>>> = {
    async bash(lines) {
      const asked = lines.map((line) => {
        const words = bashWords(line).map((word) => `'${word}'`).join(" ");
        return `COMP_WORDS=(${words}); COMP_CWORD=$((\${#COMP_WORDS[@]} - 1)); _natkit; ` +
          `echo ":\${COMPREPLY[*]}"`;
      });
      await writeFile(join(folder, "script"), completionFor("bash", COMMANDS));
      const script = `source '${folder}/script'\n${asked.join("\n")}`;
      return answers(await run("bash", ["--norc", "-c", script], {}));
    },
    async zsh(lines) {
      // What would go to the line editor is told in the place of it.
      const asked = lines.map((line) => {
        const words = `natkit ${line}`.split(" ").map((word) => `'${word}'`).join(" ");
        return `words=(${words}); CURRENT=$#words; PREFIX=$words[-1]; told=(); _natkit; ` +
          `print -r -- ":$told"`;
      });
      const stubs = `
compdef() { :; }
take() { local one; for one in "$@"; do [[ $one == "$PREFIX"* ]] && told+=("$one"); done }
compset() { PREFIX=\${PREFIX#*=} }
compadd() { shift; take "$@" }
_describe() { [[ $1 == -o ]] && shift; local -a rows; rows=("\${(@P)2}"); take "\${(@)rows%%:*}" }
_values() { local done=; [[ $PREFIX == *,* ]] && done=\${PREFIX%,*},; shift 3
  local one; for one in "$@"; do [[ ,$done == *,$one,* ]] || take "$done$one"; done }
_files() { told+=(FILES) }
_message() { : }
`;
      await writeFile(join(folder, "script"), completionFor("zsh", COMMANDS));
      const script = `${stubs}source '${folder}/script'\n${asked.join("\n")}`;
      return answers(await run("zsh", ["-f", "-c", script], { HOME: folder }));
    },
    async fish(lines) {
      const asked = lines.map((line) =>
        `set told (complete -C 'natkit ${line}' | string split -f 1 \\t); echo ":$told"`
      );
      await writeFile(join(folder, "script"), completionFor("fish", COMMANDS));
      const script = `source '${folder}/script'\n${asked.join("\n")}`;
      return answers(await run("fish", ["--no-config", "-c", script], { HOME: folder }));
    },
  };

  function answers(said: string): string[][] {
    const lines = said.trimEnd().split("\n");
    assert(lines.every((line) => line.startsWith(":")), said);
    return lines.map((line) => line.slice(1).split(" ").filter((word) => word !== ""));
  }

  for (const shell of ["bash", "zsh", "fish"] as const) {
    const skip = available(shell) ? false : `there is no ${shell}`;

    it(`completes commands, flags and their values in ${shell}`, { skip }, async () => {
      const cases = [...CASES, ...LISTS];
      const all = await offered[shell](cases.map(([line]) => line));
      cases.forEach(([line, words], i) => {
        // fish offers a joined value whole.
        const joined = /(--[a-z-]+=)[^ ]*$/.exec(line)?.[1] ?? "";
        const plain = all[i]!.map((word) =>
          word.startsWith(joined) ? word.slice(joined.length) : word
        );
        assertEquals(sorted(plain), sorted(words), `${shell}: natkit ${line}`);
      });
    });

    it(`knows every flag of every command in ${shell}`, { skip }, async () => {
      const all = await offered[shell](COMMANDS.map(({ name }) => `${name} --`));
      COMMANDS.forEach(({ name, flags }, i) => {
        const names = [...flags, ...COMMON_FLAGS].map((flag) => `--${flag}`);
        assertEquals(sorted(all[i]!), sorted(names), `${shell}: natkit ${name} --`);
      });
    });

    it(`completes a file in ${shell}`, { skip }, async () => {
      await writeFile(join(folder, "it's here.json"), "");
      const [said] = await offered[shell]([`map --state ${folder}/it`]);
      assertStringIncludes(said!.join(" "), shell === "zsh" ? "FILES" : "it's here.json");
    });
  }

  it(
    "quotes what it says of a flag or command for the shell",
    { skip: !available("zsh") },
    async () => {
      const odd = { ...COMMANDS[0]!, name: "odd", summary: "it's $(exit 3) `exit 4` \\' \"x\"" };
      for (const shell of ["zsh", "fish", "bash"] as const) {
        if (!available(shell)) continue;
        await writeFile(join(folder, "odd"), completionFor(shell, [odd]));
        const stubs = shell === "zsh" ? "compdef() { :; }; " : "";
        await run(shell, ["-c", `${stubs}source '${folder}/odd'`], { HOME: folder });
      }
    },
  );

  it("writes the script, and as JSON an event", async () => {
    const io = new FakeIo();
    assertEquals(await runCommandLine(["completion", "bash"], io), 0);
    assertEquals(io.out.trimEnd(), completionFor("bash", COMMANDS).trimEnd());
    const json = new FakeIo();
    await runCommandLine(["completion", "fish", "--json"], json);
    assertEquals(json.events, [
      { event: "completion", shell: "fish", text: completionFor("fish", COMMANDS) },
    ]);
  });

  it("offers only words that the parser takes", () => {
    for (const [name, { words, read }] of Object.entries<Flag>(FLAGS)) {
      for (const word of words ?? []) read!(`--${name}`, word);
    }
  });
});
