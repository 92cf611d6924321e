import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import { type CommandSpec, parse } from "../../../adapters/cli/args.ts";
import { COMMANDS } from "../../../adapters/cli/commands/mod.ts";
import { commandHelp, generalHelp, synopsis } from "../../../adapters/cli/usage.ts";
import { UsageError } from "../../../adapters/cli/values.ts";

const BREW: CommandSpec = {
  name: "brew",
  summary:
    "brews what is asked for, and goes on to brew it again and again and again until told not to",
  positionals: ["POT", "CUPS…"],
  minPositionals: 1,
  flags: ["gateway", "all"],
  notes: "POT is hot.\nEvents: none.",
  examples: ["brew tea 2"],
};
const REST: CommandSpec = {
  name: "rest",
  summary: "rests",
  positionals: ["A"],
  synopsis: "A | B",
  minPositionals: 0,
  flags: [],
  notes: "",
  examples: ["rest a", "rest b"],
};

const COMMON = [
  "  --json     one JSON object a line on standard output",
  "  --verbose  each packet in a line on standard error: what it says, and why it was dropped",
  "             (NATKIT_DEBUG=1 likewise)",
  "  --help     show this text",
];

describe("the help text", () => {
  it("of all commands has each in a column, and the flags of every one", () => {
    assertEquals(generalHelp([BREW, REST]).split("\n"), [
      "natkit makes a program behind a NAT reachable: it opens ports on the home gateway by PCP,",
      "NAT-PMP and UPnP, punches holes between two NATs, and is a gateway to test against.",
      "",
      "Usage: natkit COMMAND [FLAGS]",
      "",
      "Commands:",
      "  brew POT CUPS…  brews what is asked for, and goes on to brew it again and again and again",
      "                  until told not to",
      "  rest A | B      rests",
      "",
      "Flags of every command:",
      ...COMMON,
      "  --version  show the version",
      "",
      "natkit help COMMAND tells more. Flags may stand anywhere.",
      "Exit status: 0 done, 1 failed, 2 wrong usage; 129 after SIGHUP, 130 after SIGINT and 143 after",
      "SIGTERM, with mappings deleted. A second signal ends natkit at once.",
      "",
    ]);
  });

  it("of one command has its own flags before those of every one, its lists and its examples", () => {
    assertEquals(
      commandHelp(BREW, [["Pots", [["clay", "of clay"], ["tin", "of tin"]]]]).split("\n"),
      [
        "Usage: natkit brew POT CUPS… [FLAGS]",
        "",
        "natkit brew brews what is asked for, and goes on to brew it again and again and again until told",
        "not to.",
        "",
        "POT is hot.",
        "Events: none.",
        "",
        "Flags:",
        "  --gateway G  the gateway: ADDRESS, ADDRESS:PORT or [IPV6%zone]:PORT",
        "  --all        every mapping of this host, as far as the gateway lets us",
        ...COMMON.map((line) => line.replace(/^ {2}(.{9})/, "  $1  ")),
        "",
        "Pots:",
        "  clay  of clay",
        "  tin   of tin",
        "",
        "Example:",
        "  natkit brew tea 2",
        "",
      ],
    );
  });

  it("of a command without notes and lists leaves no gap where they would be", () => {
    assertEquals(commandHelp(REST).split("\n"), [
      "Usage: natkit rest A | B [FLAGS]",
      "",
      "natkit rest rests.",
      "",
      "Flags:",
      ...COMMON,
      "",
      "Examples:",
      "  natkit rest a",
      "  natkit rest b",
      "",
    ]);
  });
});

describe("the commands", () => {
  it("are called and take what people know", () => {
    assertEquals(COMMANDS.map(synopsis), [
      "map PORT[/tcp|/udp]…",
      "unmap PORT[/tcp|/udp]… | --all",
      "peer PORT/tcp|/udp REMOTE_ADDRESS REMOTE_PORT",
      "address",
      "watch PORT[/tcp|/udp]",
      "doctor",
      "list",
      "upnp services|actions|call [SERVICE …]",
      "punch",
      "stun HOST[:PORT]",
      "nat-type --stun HOST:PORT",
      "stun-server",
      "gateway",
      "demo",
      "completion bash|zsh|fish",
    ]);
  });

  it("have examples that are right", () => {
    for (const { name, examples } of COMMANDS) {
      for (const example of examples) {
        const words = example.replace(/ < .*/, "").match(/'[^']*'|\S+/g) ?? [];
        assertEquals(parse(words, COMMANDS).command?.name, name, example);
      }
    }
  });

  it("take so many words at most", () => {
    const words = (count: number) => Array.from({ length: count }, (_, i) => String(i + 1));
    for (const name of ["map", "unmap", "upnp"]) {
      assertEquals(parse([name, ...words(64)], COMMANDS).positionals.length, 64);
      assertThrows(() => parse([name, ...words(65)], COMMANDS), UsageError, '"65" is too much');
    }
  });
});
