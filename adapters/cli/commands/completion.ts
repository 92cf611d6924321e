/**
 * `natkit completion`: a script with which a shell completes what natkit takes. It is made from the
 * tables of commands and flags, and like the parser it lets flags stand anywhere.
 *
 * @module
 */
import { PROFILES } from "../../../core/gateway/profiles.ts";
import { type CommandSpec, COMMON_FLAGS } from "../args.ts";
import type { Context } from "../command.ts";
import { type Flag, type FlagName, FLAGS } from "../flags.ts";
import { UsageError } from "../values.ts";

/** What may stand for a flag's value: words, several of them with commas between, or what there is. */
type Values =
  | { readonly of: "words" | "list"; readonly words: readonly string[] }
  | { readonly of: "files" | "programs" | "anything" };

/** A shell for which there is a script. */
export type Shell = "bash" | "zsh" | "fish";

type Writer = (commands: readonly CommandSpec[]) => string;

/** Runs the command; answers the exit status. */
export function run({ output, positionals, commands }: Context): Promise<number> {
  const shell = positionals[0]!;
  if (!Object.hasOwn(WRITERS, shell)) {
    const names = Object.keys(WRITERS).join(", ").replace(/, ([^,]*)$/, " or $1");
    throw new UsageError(`natkit completion needs ${names}: current value is "${shell}"`);
  }
  output.event({ event: "completion", shell, text: completionFor(shell as Shell, commands) });
  return Promise.resolve(0);
}

/** The script for a shell. */
export function completionFor(shell: Shell, commands: readonly CommandSpec[]): string {
  return WRITERS[shell](commands);
}

/** What else stands in the place of a command. */
const WORDS = [["help", "tells about a command"], ["version", "tells the version"]] as const;

function valuesOf(name: FlagName): Values | undefined {
  const { placeholder, words, isList }: Flag = FLAGS[name];
  if (placeholder === undefined) return undefined;
  if (words) return { of: isList ? "list" : "words", words };
  if (name === "profile") return { of: "words", words: Object.keys(PROFILES) };
  if (placeholder === "FILE") return { of: "files" };
  return { of: placeholder === "CMD" ? "programs" : "anything" };
}

/** The flags that take a value, those together that take the same. */
function valueFlags(): [flags: readonly string[], values: Values][] {
  const groups = new Map<string, [string[], Values]>();
  for (const name of Object.keys(FLAGS) as FlagName[]) {
    const values = valuesOf(name);
    if (!values) continue;
    const key = JSON.stringify(values);
    if (!groups.has(key)) groups.set(key, [[], values]);
    groups.get(key)![0].push(`--${name}`);
  }
  return [...groups.values()];
}

function flagsOf({ flags }: CommandSpec): readonly FlagName[] {
  return [...flags, ...COMMON_FLAGS];
}

/** The words that may follow a command, where its form lists them: `services|actions|call`. */
function wordsAfter({ positionals }: CommandSpec): readonly string[] {
  const [form = ""] = positionals;
  return /^[a-z-]+(\|[a-z-]+)+$/.test(form) ? form.split("|") : [];
}

function dashed(names: readonly FlagName[]): string {
  return names.map((name) => `--${name}`).join(" ");
}

/** In single quotes; within them, only these end them. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function indented(lines: readonly string[], depth: number): string {
  return lines.map((line) => "  ".repeat(depth) + line).join("\n");
}

/** For bash 3.2 and later; it takes `=` and `:` for ends of words. */
function bash(commands: readonly CommandSpec[]): string {
  const cases = valueFlags().map(([flags, values]) => {
    const then = values.of === "words"
      ? `words="${values.words.join(" ")}"`
      : values.of === "list"
      ? `list="${values.words.join(" ")}"`
      : values.of === "files"
      ? "kind=-f"
      : values.of === "programs"
      ? "kind=-c"
      : "return";
    return `${flags.join("|")}) ${then} ;;`;
  });
  const taking = valueFlags().flatMap(([flags]) => flags).join("|");
  const names = commands.map(({ name }) => name);
  return `# Completion of natkit for bash, made by: natkit completion bash
_natkit() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} words= list= kind= start= i
  local -a seen=()
  COMPREPLY=()
  if [[ $cur == = ]]; then cur=
  elif [[ $prev == = ]]; then prev=\${COMP_WORDS[COMP_CWORD-2]}
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    case \${COMP_WORDS[i]} in
      ${taking})
        [[ \${COMP_WORDS[i+1]} == = ]] && ((i++))
        ((i++)) ;;
      :) ((i++)) ;;
      -*|=) ;;
      *) seen+=("\${COMP_WORDS[i]}") ;;
    esac
  done
  case $prev in
${indented(cases, 2)}
    *)
      if [[ $cur == -* ]]; then
        case \${seen[0]} in
${
    indented(
      commands.map((command) => `${command.name}) words="${dashed(flagsOf(command))}" ;;`),
      5,
    )
  }
          *) words="${dashed(COMMON_FLAGS)}" ;;
        esac
      elif [[ \${#seen[@]} -eq 0 ]]; then words="${
    [...names, ...WORDS.map(([word]) => word)].join(" ")
  }"
      elif [[ \${#seen[@]} -eq 1 ]]; then
        case \${seen[0]} in
          help) words="${names.join(" ")}" ;;
${
    indented(
      commands.filter((command) => wordsAfter(command).length > 0)
        .map((command) => `${command.name}) words="${wordsAfter(command).join(" ")}" ;;`),
      5,
    )
  }
        esac
      fi ;;
  esac
  if [[ $kind ]]; then
    [[ $kind == -f ]] && compopt -o filenames 2>/dev/null
    while IFS= read -r i; do COMPREPLY+=("$i"); done < <(compgen $kind -- "$cur")
    return
  fi
  if [[ $list ]]; then
    compopt -o nospace 2>/dev/null
    [[ $cur == *,* ]] && start=\${cur%,*},
    for i in $list; do [[ ,$start == *,$i,* ]] || words+=" $start$i"; done
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -F _natkit natkit
`;
}

/** For zsh; a colon ends a term in what `_describe` takes. */
function zsh(commands: readonly CommandSpec[]): string {
  const described = (term: string, text: string) => quoted(`${term}:${text}`);
  const flags = (names: readonly FlagName[]) =>
    names.map((name) => described(`--${name}`, FLAGS[name].summary)).join(" ");
  const cases = valueFlags().map(([flags, values]) => {
    const then = values.of === "words"
      ? `compadd -- ${values.words.join(" ")}`
      : values.of === "list"
      ? `_values -s , value ${values.words.join(" ")}`
      : values.of === "files"
      ? "_files"
      : values.of === "programs"
      ? "_command_names -e"
      : "_message value";
    return `(${flags.join("|")}) ${then}; return ;;`;
  });
  const taking = valueFlags().flatMap(([flags]) => flags).join("|");
  const rows = commands.map(({ name, summary }) => described(name, summary));
  return `#compdef natkit
# Completion of natkit for zsh, made by: natkit completion zsh
_natkit() {
  local prev=$words[CURRENT-1] i
  local -a seen flags commands
  for ((i = 2; i < CURRENT; i++)); do
    case $words[i] in
      (${taking}) ((i++)) ;;
      (-*) ;;
      (*) seen+=($words[i]) ;;
    esac
  done
  if [[ $PREFIX == --*=* ]]; then
    prev=\${PREFIX%%=*}
    compset -P '*='
  fi
  case $prev in
${indented(cases, 2)}
  esac
  if [[ $PREFIX == -* ]]; then
    case $seen[1] in
${indented(commands.map((command) => `(${command.name}) flags=(${flags(command.flags)}) ;;`), 3)}
    esac
    flags+=(${flags(COMMON_FLAGS)})
    _describe -o flag flags
    return
  fi
  commands=(
${indented(rows, 2)}
  )
  if (( $#seen == 0 )); then
    commands+=(${WORDS.map(([word, text]) => described(word, text)).join(" ")})
    _describe command commands
  elif (( $#seen == 1 )); then
    case $seen[1] in
      (help) _describe command commands ;;
${
    indented(
      commands.filter((command) => wordsAfter(command).length > 0)
        .map((command) => `(${command.name}) compadd -- ${wordsAfter(command).join(" ")} ;;`),
      3,
    )
  }
    esac
  fi
}
if [[ $funcstack[1] == _natkit ]]; then _natkit "$@"; else compdef _natkit natkit; fi
`;
}

/** For fish 3.0 and later. */
function fish(commands: readonly CommandSpec[]): string {
  const taking = valueFlags().flatMap(([flags]) => flags);
  // In fish's quotes a backslash and a quote stand after a backslash.
  const quote = (text: string) => `'${text.replace(/[\\']/g, "\\$&")}'`;
  const line = (condition: string, rest: string) =>
    `complete -c natkit -n ${quote(condition)} ${rest}`;
  const flag = (condition: string, name: FlagName): string => {
    const values = valuesOf(name);
    const takes = !values
      ? ""
      : values.of === "words"
      ? ` -x -a ${quote(values.words.join(" "))}`
      : values.of === "list"
      ? ` -x -a ${quote(`(__natkit_list ${values.words.join(" ")})`)}`
      : values.of === "files"
      ? " -r -F"
      : values.of === "programs"
      ? ` -x -a ${quote("(__fish_complete_command)")}`
      : " -x";
    return line(condition, `-l ${name}${takes} -d ${quote(FLAGS[name].summary)}`);
  };
  const names = commands.map(({ name }) => name);
  return `# Completion of natkit for fish, made by: natkit completion fish
function __natkit_seen
  set -l skip no
  for word in (commandline -opc)[2..-1]
    if test $skip = yes
      set skip no
    else if contains -- $word ${taking.join(" ")}
      set skip yes
    else if not string match -q -- '-*' $word
      echo $word
    end
  end
end
function __natkit_at
  set -l seen (__natkit_seen)
  test (count $seen) -eq $argv[1]
  and contains -- "$seen[1]" $argv[2..-1] ''
end
function __natkit_is
  set -l seen (__natkit_seen)
  contains -- "$seen[1]" $argv
end
function __natkit_list
  set -l start (string replace -r -- '[^,=]*$' '' (commandline -ct) | string replace -r -- '^--[^=]*=' '')
  for word in $argv
    string match -q -- "*,$word,*" ",$start"; or echo $start$word
  end
end
complete -c natkit -f
${
    [
      ...commands.map(({ name, summary }) =>
        line("__natkit_at 0", `-a ${name} -d ${quote(summary)}`)
      ),
      ...WORDS.map(([word, text]) => line("__natkit_at 0", `-a ${word} -d ${quote(text)}`)),
      line("__natkit_at 1 help", `-a ${quote(names.join(" "))}`),
      ...commands.filter((command) => wordsAfter(command).length > 0).map((command) =>
        line(`__natkit_at 1 ${command.name}`, `-a ${quote(wordsAfter(command).join(" "))}`)
      ),
      ...commands.flatMap((command) =>
        command.flags.map((name) => flag(`__natkit_is ${command.name}`, name))
      ),
      ...COMMON_FLAGS.map((name) => flag("true", name)),
    ].join("\n")
  }
`;
}

const WRITERS: Readonly<Record<Shell, Writer>> = { bash, zsh, fish };
