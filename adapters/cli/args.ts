/**
 * Takes the command line apart: a command, its positionals and its flags, which may stand
 * anywhere.
 *
 * @module
 */
import { parseArgs, type ParseArgsConfig } from "node:util";
import { type Flag, type FlagName, FLAGS, type FlagValues } from "./flags.ts";
import { UsageError } from "./values.ts";

/** A term and what it means. */
export type HelpRow = readonly [term: string, text: string];

/** A list of them with a title. */
export type HelpList = readonly [title: string, rows: readonly HelpRow[]];

/** What the parser and the help text need to know about a command. */
export interface CommandSpec {
  /** The word that calls it. */
  readonly name: string;
  /** One line. */
  readonly summary: string;
  /** The forms of its positionals: `["PORT[/tcp|/udp]"]`. */
  readonly positionals: readonly string[];
  /** What stands for the positionals in the help text; by default their forms. */
  readonly synopsis?: string;
  /** The fewest positionals it takes. */
  readonly minPositionals: number;
  /** The most; by default as many as have a form. */
  readonly maxPositionals?: number;
  /** Its flags in the order of the help text, without those that every command has. */
  readonly flags: readonly FlagName[];
  /** What the help text says beside that. */
  readonly notes: string;
  /** Command lines that show its use, without the program's name. */
  readonly examples: readonly string[];
}

/** A command line taken apart. */
export interface ParsedArgs<Spec extends CommandSpec> {
  /** The command, where one was given. */
  readonly command: Spec | undefined;
  /** What follows the command. */
  readonly positionals: readonly string[];
  /** The flags. */
  readonly flags: FlagValues;
}

/** The flags that stand with every command and without one. */
export const COMMON_FLAGS: readonly FlagName[] = ["json", "verbose", "help", "version"];

/** As some programs have it, and others `-V`. */
const SHORT_VERSION = "v";

type Token = Readonly<
  NonNullable<ReturnType<typeof parseArgs<ParseArgsConfig & { tokens: true }>>["tokens"]>[number]
>;
type OptionToken = Extract<Token, { kind: "option" }>;

function tokensOf(args: readonly string[]): readonly Token[] {
  const options: NonNullable<ParseArgsConfig["options"]> = {
    help: { type: "boolean", short: "h" },
    version: { type: "boolean", short: "V" },
    [SHORT_VERSION]: { type: "boolean" },
  };
  for (const [name, flag] of Object.entries<Flag>(FLAGS)) {
    options[name] ??= { type: flag.read ? "string" : "boolean" };
  }
  // Not strict: its messages name the flag without the value, and it forgets that --json was there.
  return parseArgs({ args: [...args], options, strict: false, tokens: true }).tokens ?? [];
}

/** Whether `--json` is among the arguments, even where the rest of them is wrong. */
export function wantsJson(args: readonly string[]): boolean {
  const end = args.indexOf("--");
  // Not asked of the parser: for it the flag in `--lifetime --json` is the value of the other one.
  return args.slice(0, end < 0 ? args.length : end).some((arg) => /^--json(=|$)/.test(arg));
}

/**
 * Takes a command line apart and reads every value.
 *
 * @throws {UsageError} At the first thing that is wrong with it.
 */
export function parse<Spec extends CommandSpec>(
  args: readonly string[],
  commands: readonly Spec[],
): ParsedArgs<Spec> {
  const tokens = tokensOf(args);
  const words = tokens.flatMap((token) => token.kind === "positional" ? [token.value] : []);
  const flags: Record<string, unknown> = {};
  // `help` and `version` as words: `natkit help map` is `natkit map --help`.
  const asFlag = words[0] === "help" || words[0] === "version" ? words.shift() : undefined;
  if (asFlag !== undefined) flags[asFlag] = true;
  const [name, ...positionals] = words;
  const command = commands.find((one) => one.name === name);
  if (name !== undefined && !command) throw new UsageError(unknownCommand(name, commands));
  for (const token of tokens) {
    if (token.kind === "option") take(token, command, flags);
  }
  if (command && !flags.help && !flags.version) checkCount(command, positionals);
  return { command, positionals, flags };
}

function unknownCommand(name: string, commands: readonly CommandSpec[]): string {
  const names = commands.map((command) => command.name).join(", ");
  const nearest = nearestTo(name, commands.map((command) => command.name));
  return `Unknown command "${name}"${meant(nearest)}: commands are ${names}`;
}

function meant(nearest: string | undefined): string {
  return nearest === undefined ? "" : ` (did you mean ${nearest}?)`;
}

/** The word that a mistyped one may have been: two slips of the fingers away at most. */
function nearestTo(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined, least = Math.min(3, word.length);
  for (const one of known) {
    const slips = slipsBetween(word, one);
    if (slips < least) [best, least] = [one, slips];
  }
  return best;
}

/** How many letters are too many, missing, wrong or swapped with the next. */
function slipsBetween(a: string, b: string): number {
  let before: number[] = [], last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const isSame = a[i - 1] === b[j - 1];
      row[j] = Math.min(row[j - 1]! + 1, last[j]! + 1, last[j - 1]! + (isSame ? 0 : 1));
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (isSwap) row[j] = Math.min(row[j]!, before[j - 2]! + 1);
    }
    [before, last] = [last, row];
  }
  return last[b.length]!;
}

function take(
  token: OptionToken,
  command: CommandSpec | undefined,
  flags: Record<string, unknown>,
): void {
  const shown = token.rawName;
  const isVersion = shown === `-${SHORT_VERSION}`;
  if (!isVersion && !Object.hasOwn(FLAGS, token.name)) {
    const value = token.value === undefined ? "" : `="${token.value}"`;
    const known = [...COMMON_FLAGS, ...command?.flags ?? []];
    const nearest = nearestTo(token.name, known);
    throw new UsageError(`Unknown flag ${shown}${value}${meant(nearest && `--${nearest}`)}`);
  }
  const name = isVersion ? "version" : token.name as FlagName;
  const flag: Flag = FLAGS[name];
  if (!COMMON_FLAGS.includes(name) && !command?.flags.includes(name)) {
    throw new UsageError(
      command ? `${shown} is no flag of natkit ${command.name}` : `${shown} needs a command`,
    );
  }
  if (!flag.read) {
    if (token.value !== undefined) {
      throw new UsageError(`${shown} takes no value: current value is "${token.value}"`);
    }
    flags[name] = true;
    return;
  }
  const { value } = token;
  if (value === undefined) throw new UsageError(`${shown} needs a value ${flag.placeholder}`);
  if (!token.inlineValue && value.startsWith("-")) {
    throw new UsageError(
      `${shown} needs a value ${flag.placeholder}: "${value}" looks like a flag ` +
        `(write ${shown}=${value} where it is none)`,
    );
  }
  const read = flag.read(shown, value);
  if (flag.isRepeatable) flags[name] = [...(flags[name] as unknown[] ?? []), read];
  else if (!Object.hasOwn(flags, name)) flags[name] = read;
  else throw new UsageError(`${shown} is given twice: the second value is "${value}"`);
}

function checkCount(command: CommandSpec, given: readonly string[]): void {
  const { name, positionals: forms, minPositionals } = command;
  const { maxPositionals = forms.length } = command;
  if (given.length < minPositionals) {
    throw new UsageError(`natkit ${name} needs ${forms.slice(given.length).join(" ")}`);
  }
  if (given.length > maxPositionals) {
    throw new UsageError(
      `natkit ${name} takes ${maxPositionals || "no"} ` +
        `${maxPositionals === 1 ? "argument" : "arguments"}: "${
          given[maxPositionals]
        }" is too much`,
    );
  }
}
