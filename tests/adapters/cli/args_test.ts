import { describe, it } from "node:test";
import { assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { type CommandSpec, parse, wantsJson } from "../../../adapters/cli/args.ts";
import { type Flag, type FlagName, FLAGS, type FlagValues } from "../../../adapters/cli/flags.ts";
import { UsageError } from "../../../adapters/cli/values.ts";

const EVERY_FLAG = Object.keys(FLAGS) as FlagName[];

const COMMANDS: readonly CommandSpec[] = [
  {
    name: "do",
    summary: "",
    positionals: ["A", "B"],
    minPositionals: 1,
    flags: EVERY_FLAG,
    notes: "",
    examples: [],
  },
  {
    name: "rest",
    summary: "",
    positionals: [],
    minPositionals: 0,
    flags: [],
    notes: "",
    examples: [],
  },
];

const LONG = "é".repeat(508);

/** Every flag that takes a value, a way to write it, and what it means. */
const GOOD: readonly [flag: string, text: string, value: unknown][] = [
  ["external-port", "0", 0],
  ["external-port", "65535", 65535],
  ["external-port", "0080", 80],
  ["external-address", "203.0.113.7", "203.0.113.7"],
  ["external-address", "2001:DB8::1", "2001:db8::1"],
  ["lifetime", "1", 1],
  ["lifetime", "4294967295", 4294967295],
  ["via", "pcp", ["pcp"]],
  ["via", "nat-pmp,pcp", ["nat-pmp", "pcp"]],
  ["gateway", "192.168.1.1", { address: "192.168.1.1", port: 5351 }],
  ["gateway", "192.168.1.1:9999", { address: "192.168.1.1", port: 9999 }],
  ["gateway", "fe80::1%eth0", { address: "fe80::1%eth0", port: 5351 }],
  ["gateway", "[fe80::1%eth0]:1", { address: "fe80::1%eth0", port: 1 }],
  ["gateway", "::ffff:10.0.0.1", { address: "10.0.0.1", port: 5351 }],
  ["internal-address", "10.0.0.2", "10.0.0.2"],
  ["mode", "keep-alive", "keep-alive"],
  ["mode", "once", "once"],
  ["mode", "3", 3],
  ["mode", "4294967295", 4294967295],
  ["third-party", "10.0.0.3", "10.0.0.3"],
  ["description", "a b", "a b"],
  ["description", "", ""],
  ["description", LONG, LONG],
  ["listen", "::1", { address: "::1" }],
  ["listen", "0.0.0.0", { address: "0.0.0.0" }],
  ["listen", "0.0.0.0:0", { address: "0.0.0.0", port: 0 }],
  ["listen", "[2001:DB8::1]:3478", { address: "2001:db8::1", port: 3478 }],
  ["alternate", "192.0.2.2:3479", { address: "192.0.2.2", port: 3479 }],
  ["max-lifetime", "4", 4],
  ["max-lifetime", "3600", 3600],
  ["port", "0", 0],
  ["external", "198.51.100.1", "198.51.100.1"],
  ["protocols", "pcp", ["pcp"]],
  ["profile", "miniupnpd", "miniupnpd"],
  ["announce-port", "5350", 5350],
  ["announce-port", "1", 1],
  ["http-port", "0", 0],
  ["http-port", "65535", 65535],
  ["exec", "echo x", "echo x"],
  ["scan", "1", 1],
  ["scan", "600", 600],
  ["device", "lamp", "lamp"],
  ["target", "upnp:rootdevice", ["upnp:rootdevice"]],
  ["stun", "stun.example:3478", ["stun.example:3478"]],
  ["turn", "u:p:@q@turn.example:5", [
    { username: "u", password: "p:@q", server: "turn.example:5" },
  ]],
  ["filter", "192.0.2.9", [
    { prefix: { address: "192.0.2.9", prefixLength: 32, family: 4 }, port: 0 },
  ]],
  ["epoch", "0", 0],
  ["epoch", "4294967295", 4294967295],
  ["state", "/tmp/x.json", "/tmp/x.json"],
  ["timeout", "1", 1],
  ["timeout", "86400", 86_400],
];

const NO_NUMBERS = ["", "0x10", "1e3", "+5", " 5", "5 ", "5.0", "1_000", "٣", "five", "NaN"];
const NO_ADDRESSES = [
  "",
  "localhost",
  "1.2.3",
  "1.2.3.4.5",
  "01.2.3.4",
  "256.1.1.1",
  ":::",
  "1.2.3.4/8",
];

/** Every flag that takes a value, and ways to get it wrong. */
const BAD: readonly [flag: string, texts: readonly string[]][] = [
  ["external-port", [...NO_NUMBERS, "65536", "99999999999999999999"]],
  ["external-address", [...NO_ADDRESSES, "0.0.0.0", "224.0.0.1", "255.255.255.255", "::"]],
  ["lifetime", [...NO_NUMBERS, "0", "4294967296"]],
  ["via", ["", "pcp,", "PCP", "pcp nat-pmp", "pcp,pcp", "natpmp", "stun"]],
  ["gateway", [
    ...NO_ADDRESSES,
    "1.2.3.4:",
    "1.2.3.4:0",
    "1.2.3.4:65536",
    "1.2.3.4:0x1",
    "[::1]:",
    "0.0.0.0",
    "[1.2.3.4]:5",
    "224.0.0.1",
    "fe80::1",
    "[fe80::1]:5351",
    "010.0.0.1",
    "http://10.0.0.1",
    "::ffff:0.0.0.0",
  ]],
  ["internal-address", [...NO_ADDRESSES, "0.0.0.0", "::", "ff02::1"]],
  ["mode", [...NO_NUMBERS, "0", "4294967296", "9007199254740993", "Once", "keepalive"]],
  ["filter", [
    "",
    "10.0.0.0/33",
    "10.0.0.0/",
    "10.0.0.0/8:65536",
    "10.0.0.0/8:x",
    "::/129",
    "[::/64]:",

    "10.0.0/8",
    "example.org/8",
  ]],
  ["third-party", [...NO_ADDRESSES, "0.0.0.0"]],
  ["listen", [...NO_ADDRESSES, "1.2.3.4:", "1.2.3.4:65536", "host:3478"]],
  ["alternate", [...NO_ADDRESSES, "1.2.3.4", "1.2.3.4:0", "0.0.0.0:1", "host:3478"]],
  ["stun", ["", "a b", "1.2.3", "host:0", "host:65536", "host:x", "[::1]:0", "-x.org", "a..b"]],
  ["max-lifetime", [...NO_NUMBERS, "3", "3601"]],
  ["port", [...NO_NUMBERS, "65536"]],
  ["external", [...NO_ADDRESSES, "0.0.0.0"]],
  ["protocols", ["", "igd", "pcp,,nat-pmp"]],
  ["profile", [""]],
  ["announce-port", [...NO_NUMBERS, "0", "65536"]],
  ["epoch", [...NO_NUMBERS, "4294967296"]],
  ["http-port", [...NO_NUMBERS, "65536"]],
  ["exec", [""]],
  ["scan", [...NO_NUMBERS, "0", "601"]],
  ["device", [""]],
  ["target", [""]],
  ["state", [""]],
  ["timeout", [...NO_NUMBERS, "0", "86401"]],
];

function messageOf(...args: string[]): string {
  return assertThrows(() => parse(args, COMMANDS), UsageError).message;
}

function flagsOf(...args: string[]): FlagValues {
  return parse(args, COMMANDS).flags;
}

describe("parse() reads", () => {
  for (const [flag, text, value] of GOOD) {
    const shown = text.length > 40 ? `${text.length} characters` : text;
    it(`--${flag} ${shown}`, () => {
      const apart = flagsOf("do", "x", `--${flag}`, text);
      const joined = flagsOf("do", "x", `--${flag}=${text}`);

      assertEquals(apart, { [flag]: value });
      assertEquals(joined, apart);
    });
  }

  it("each flag that takes a value, and no other is left untried", () => {
    const taking = Object.entries<Flag>(FLAGS).filter(([, { read }]) => read).map(([name]) => name);
    for (const table of [GOOD, BAD]) {
      const tried = new Set(table.map(([name]) => name));
      // A password is not shown in a message.
      assertEquals(
        taking.filter((name) => !tried.has(name) && name !== "turn" && name !== "description"),
        [],
      );
    }
  });

  it("filters with and without a port, as often as they are given", () => {
    const { filter } = flagsOf(
      "do",
      "x",
      ...["--filter", "10.1.2.3/8"],
      ...["--filter=192.0.2.1/32:80"],
      ...["--filter", "[2001:db8::/32]:443"],
      ...["--filter", "2001:db8::1/128"],
      ...["--filter", "192.0.2.9"],
    );

    assertEquals(filter, [
      { prefix: { address: "10.0.0.0", prefixLength: 8, family: 4 }, port: 0 },
      { prefix: { address: "192.0.2.1", prefixLength: 32, family: 4 }, port: 80 },
      { prefix: { address: "2001:db8::", prefixLength: 32, family: 6 }, port: 443 },
      { prefix: { address: "2001:db8::1", prefixLength: 128, family: 6 }, port: 0 },
      { prefix: { address: "192.0.2.9", prefixLength: 32, family: 4 }, port: 0 },
    ]);
  });

  it("what may be repeated as often as it is given, in that order", () => {
    const again = (flag: string, ...texts: string[]) =>
      flagsOf("do", "x", ...texts.map((text) => `--${flag}=${text}`));
    assertEquals(again("target", "a", "b", "c"), { target: ["a", "b", "c"] });
    assertEquals(again("stun", "a.example", "b.example:1"), {
      stun: ["a.example", "b.example:1"],
    });
    const { turn } = again("turn", "u:p@a.example", "v:q@b.example:5");
    assertEquals(turn?.length, 2);
  });

  it("flags before, between and after the command and its positionals", () => {
    const expected = { json: true, lifetime: 60, all: true };

    for (
      const args of [
        ["--json", "--lifetime", "60", "--all", "do", "a", "b"],
        ["do", "--lifetime=60", "a", "--json", "b", "--all"],
        ["do", "a", "b", "--all", "--json", "--lifetime", "60"],
      ]
    ) {
      const { command, positionals, flags } = parse(args, COMMANDS);
      assertEquals([command?.name, positionals, flags], ["do", ["a", "b"], expected]);
    }
  });

  it("what follows -- as positionals", () => {
    const { positionals } = parse(["do", "--", "--json", "-x"], COMMANDS);

    assertEquals(positionals, ["--json", "-x"]);
  });

  it("-h as --help, -V and -v as --version", () => {
    assertEquals(flagsOf("-h"), { help: true });
    assertEquals(flagsOf("-V"), { version: true });
    assertEquals(flagsOf("do", "-v"), { version: true });
  });

  it("help and version as words", () => {
    assertEquals(parse(["version"], COMMANDS).flags, { version: true });
    assertEquals(parse(["help", "--json"], COMMANDS).flags, { help: true, json: true });
    const { command, flags } = parse(["help", "do"], COMMANDS);
    assertEquals([command?.name, flags], ["do", { help: true }]);
  });

  it("--help and --version without a command and without its positionals", () => {
    assertEquals(flagsOf("--version"), { version: true });
    assertEquals(flagsOf("do", "--help"), { help: true });
  });

  it("a value that begins with a dash, where it is joined by =", () => {
    assertEquals(flagsOf("do", "x", "--description=-5"), { description: "-5" });
  });
});

describe("parse() refuses", () => {
  for (const [flag, texts] of BAD) {
    it(`bad values of --${flag}, naming flag and value`, () => {
      for (const text of texts) {
        const message = messageOf("do", "x", `--${flag}=${text}`);

        assertStringIncludes(message, `--${flag}`);
        assertStringIncludes(message, `"${text}"`);
      }
    });
  }

  it("every flag that takes a value without one", () => {
    for (const [flag] of BAD) {
      assertMatch(messageOf("do", "x", `--${flag}`), new RegExp(`^--${flag} needs a value [A-Z]`));
    }
  });

  it("a flag in the place of a value", () => {
    assertEquals(
      messageOf("do", "x", "--lifetime", "--json"),
      '--lifetime needs a value S: "--json" looks like a flag (write --lifetime=--json where it is none)',
    );
  });

  it("a description over 1016 bytes", () => {
    assertMatch(messageOf("do", "x", `--description=${LONG}x`), /--description .* 1016 .* 1017/);
  });

  it("a value for a flag that takes none", () => {
    for (const flag of ["json", "help", "version", "all", "prefer-failure"]) {
      assertEquals(
        messageOf("do", "x", `--${flag}=yes`),
        `--${flag} takes no value: current value is "yes"`,
      );
    }
  });

  it("a value given twice, but not a switch", () => {
    assertEquals(
      messageOf("do", "x", "--lifetime", "5", "--lifetime", "6"),
      '--lifetime is given twice: the second value is "6"',
    );
    assertEquals(flagsOf("do", "x", "--json", "--json"), { json: true });
  });

  it("flags that do not exist", () => {
    for (const flag of ["--jsn", "-x", "--no-json", "--__proto__", "--constructor", "-5"]) {
      assertStringIncludes(messageOf("do", "x", flag), `Unknown flag ${flag}`);
    }
    assertEquals(messageOf("do", "x", "--colour=red"), 'Unknown flag --colour="red"');
  });

  it("flags of another command", () => {
    assertEquals(messageOf("rest", "--lifetime", "5"), "--lifetime is no flag of natkit rest");
    assertEquals(messageOf("--lifetime", "5"), "--lifetime needs a command");
  });

  it("commands that do not exist", () => {
    assertEquals(messageOf("redo it"), 'Unknown command "redo it": commands are do, rest');
    assertEquals(messageOf(""), 'Unknown command "": commands are do, rest');
    assertEquals(messageOf("help", "x"), 'Unknown command "x": commands are do, rest');
  });

  it("a slip of the fingers, with the word that may have been meant", () => {
    // Two letters that have changed places are one slip; elsewhere they would be two.
    assertEquals(
      messageOf("rets"),
      'Unknown command "rets" (did you mean rest?): commands are do, rest',
    );
    const guess = (word: string) => /\(did you mean (\S+)\?\)/.exec(messageOf(word))?.[1];
    assertEquals(["rset", "reste", "res", "rust", "undo"].map(guess), [
      "rest",
      "rest",
      "rest",
      "rest",
      "do",
    ]);
    assertEquals(guess("od"), "do");
    assertEquals(["restful", "r", "d"].map(guess), [undefined, undefined, undefined]);
    const flag = messageOf("do", "x", "--lifetmie=5");
    assertEquals(flag, 'Unknown flag --lifetmie="5" (did you mean --lifetime?)');
    // Not one that this command does not have.
    assertEquals(messageOf("rest", "--lifetmie"), "Unknown flag --lifetmie");
  });

  it("too few and too many positionals", () => {
    assertEquals(messageOf("do"), "natkit do needs A B");
    assertEquals(messageOf("do", "1", "2", "3"), 'natkit do takes 2 arguments: "3" is too much');
    assertEquals(messageOf("rest", "1"), 'natkit rest takes no arguments: "1" is too much');
    const many = { ...COMMANDS[1]!, name: "many", positionals: ["A…"], maxPositionals: 3 };
    assertThrows(
      () => parse(["many", "1", "2", "3", "4"], [many]),
      UsageError,
      'natkit many takes 3 arguments: "4" is too much',
    );
  });
});

describe("wantsJson()", () => {
  it("finds --json among arguments that are wrong", () => {
    assertEquals(wantsJson(["nonsense", "--x", "--json", "--lifetime"]), true);
    assertEquals(wantsJson(["map", "--lifetime", "--json"]), true);
    assertEquals(wantsJson(["map", "--json=yes"]), true);
    assertEquals(wantsJson(["map", "--", "--json"]), false);
    assertEquals(wantsJson(["map", "--jsonp"]), false);
    assertEquals(wantsJson([]), false);
  });
});
