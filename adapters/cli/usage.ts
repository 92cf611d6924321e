/**
 * The help texts, made from the tables of flags and commands.
 *
 * @module
 */
import { type CommandSpec, COMMON_FLAGS, type HelpList, type HelpRow } from "./args.ts";
import { type Flag, type FlagName, FLAGS } from "./flags.ts";

const WIDTH = 96;

/** `natkit --help`. */
export function generalHelp(commands: readonly CommandSpec[]): string {
  const rows = commands.map((command) => [synopsis(command), command.summary] as const);
  return [
    ...wrap(
      "natkit makes a program behind a NAT reachable: it opens ports on the home gateway by PCP, " +
        "NAT-PMP and UPnP, punches holes between two NATs, and is a gateway to test against.",
      WIDTH,
    ),
    "",
    "Usage: natkit COMMAND [FLAGS]",
    "",
    "Commands:",
    ...table(rows),
    "",
    "Flags of every command:",
    ...table(COMMON_FLAGS.map(flagRow)),
    "",
    "natkit help COMMAND tells more. Flags may stand anywhere.",
    "Exit status: 0 done, 1 failed, 2 wrong usage; 129 after SIGHUP, 130 after SIGINT and 143 after",
    "SIGTERM, with mappings deleted. A second signal ends natkit at once.",
    "",
  ].join("\n");
}

/** `natkit COMMAND --help`, with the command's own lists at the end. */
export function commandHelp(command: CommandSpec, lists: readonly HelpList[] = []): string {
  const flags = [...command.flags, ...COMMON_FLAGS.filter((name) => name !== "version")];
  return [
    `Usage: natkit ${synopsis(command)} [FLAGS]`,
    "",
    ...wrap(`natkit ${command.name} ${command.summary}.`, WIDTH),
    ...(command.notes === "" ? [] : ["", ...command.notes.split("\n")]),
    "",
    "Flags:",
    ...table(flags.map(flagRow)),
    ...lists.flatMap(([title, rows]) => ["", `${title}:`, ...table(rows)]),
    "",
    command.examples.length === 1 ? "Example:" : "Examples:",
    ...command.examples.map((line) => `  natkit ${line}`),
    "",
  ].join("\n");
}

/** The command with its positionals. */
export function synopsis({ name, synopsis, positionals }: CommandSpec): string {
  return [name, ...synopsis === undefined ? positionals : [synopsis]].join(" ");
}

function flagRow(name: FlagName): HelpRow {
  const flag: Flag = FLAGS[name];
  return [`--${name}${flag.placeholder ? ` ${flag.placeholder}` : ""}`, flag.summary];
}

function table(rows: readonly HelpRow[]): string[] {
  const left = Math.max(...rows.map(([term]) => term.length)) + 4;
  return rows.flatMap(([term, text]) => {
    const [first = "", ...rest] = wrap(text, WIDTH - left);
    return [`  ${term}`.padEnd(left) + first, ...rest.map((line) => " ".repeat(left) + line)];
  });
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  lines.push(line);
  return lines;
}
