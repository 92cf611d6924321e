/**
 * The command language of a simulated gateway: one line of text in, a typed command out. What
 * reads the lines and prints the answers is an adapter's business.
 *
 * @module
 */
import { checkAddress, MAX_LIFETIME_SECONDS } from "../check.ts";
import type { Via } from "../errors.ts";
import type { Transport } from "../mapping.ts";

/** A scenario command. */
export type GatewayCommand =
  /** Lists the commands. */
  | { readonly name: "help" }
  /** Lists the mapping table. */
  | { readonly name: "list" }
  /** Table lost, epoch 0, announcements. */
  | { readonly name: "reboot" }
  /** Loses the table, says nothing. */
  | { readonly name: "forget" }
  /** Sets the epoch. */
  | { readonly name: "epoch"; readonly seconds: number }
  /** Sets the external addresses; none: the WAN is down. */
  | { readonly name: "external"; readonly addresses: readonly string[] }
  /** Adds a static mapping. */
  | {
    readonly name: "static";
    readonly protocol: Transport;
    readonly externalPort: number;
    readonly address: string;
    readonly internalPort: number;
  }
  /** Whether the gateway acts as a NAT. */
  | { readonly name: "nat"; readonly on: boolean }
  /** Switches a protocol. */
  | { readonly name: "protocol"; readonly protocol: Via; readonly on: boolean }
  /** Whether every external port is taken. */
  | { readonly name: "exhaust"; readonly on: boolean }
  /** Refuses every request with a result code; undefined: no longer. */
  | { readonly name: "refuse"; readonly code: number | undefined }
  /** Delays replies, milliseconds. */
  | { readonly name: "delay"; readonly delayMs: number }
  /** Loses replies with this probability. */
  | { readonly name: "loss"; readonly probability: number }
  /** Does not hear the next requests. */
  | { readonly name: "deaf"; readonly packets: number }
  /** Sends each reply twice. */
  | { readonly name: "duplicate"; readonly on: boolean }
  /** Delays each reply by its own random time up to this, milliseconds. */
  | { readonly name: "reorder"; readonly windowMs: number }
  /** Sends replies from another socket. */
  | { readonly name: "wrong-source"; readonly on: boolean }
  /** Whether a client may have mappings. */
  | { readonly name: "client"; readonly address: string; readonly isAllowed: boolean }
  /** Announces, ten times at doubling intervals. */
  | { readonly name: "announce" }
  /** Ends the gateway. */
  | { readonly name: "quit" };

/** A line understood, or what is wrong with it in a sentence that lists the commands. */
export type ParsedCommand =
  | { readonly ok: true; readonly command: GatewayCommand }
  | { readonly ok: false; readonly message: string };

/** How a command is written and what it does. */
export interface CommandHelp {
  /** `"epoch N"`. */
  readonly usage: string;
  /** One line. */
  readonly summary: string;
}

interface Verb extends CommandHelp {
  /** Reads the words after the name; a string says what is wrong with them. */
  readonly read: (words: readonly string[]) => GatewayCommand | string;
}

/** The longest delay a command may ask for, milliseconds: an hour. */
export const MAX_DELAY_MS = 3_600_000;

function bare(name: "help" | "list" | "reboot" | "forget" | "announce" | "quit"): Verb["read"] {
  return (words) => words.length === 0 ? { name } : "takes no words";
}

function switched(name: "nat" | "exhaust" | "duplicate" | "wrong-source"): Verb["read"] {
  return ([word, ...rest]) => {
    const on = onOff(word);
    return on === undefined || rest.length > 0 ? "takes on or off" : { name, on };
  };
}

function onOff(word: string | undefined): boolean | undefined {
  return word === "on" ? true : word === "off" ? false : undefined;
}

/** Plain decimal digits in `low`…`high`, or undefined. */
function integer(word: string | undefined, low: number, high: number): number | undefined {
  if (word === undefined || !/^[0-9]{1,10}$/.test(word)) return undefined;
  const value = Number(word);
  return value >= low && value <= high ? value : undefined;
}

function number(
  words: readonly string[],
  [low, high]: readonly [number, number],
  make: (value: number) => GatewayCommand,
): GatewayCommand | string {
  const value = words.length === 1 ? integer(words[0], low, high) : undefined;
  return value === undefined ? `takes a number in ${low}..${high}` : make(value);
}

function address(word: string | undefined): string | undefined {
  try {
    return checkAddress("address", word);
  } catch {
    return undefined;
  }
}

function readExternal(words: readonly string[]): GatewayCommand | string {
  if (words.length === 1 && words[0] === "none") return { name: "external", addresses: [] };
  const addresses = words.map(address);
  const bad = addresses.findIndex((a) => a === undefined || a.includes(":"));
  if (words.length === 0 || bad >= 0) return "takes IPv4 addresses, or none";
  return { name: "external", addresses: addresses as string[] };
}

function readStatic(words: readonly string[]): GatewayCommand | string {
  const [protocol, external, host, internal] = words;
  if (protocol !== "tcp" && protocol !== "udp") return "takes tcp or udp first";
  const externalPort = integer(external, 1, 65535), internalPort = integer(internal, 1, 65535);
  if (externalPort === undefined || internalPort === undefined || words.length !== 4) {
    return "takes two ports in 1..65535";
  }
  const internalAddress = address(host);
  if (internalAddress === undefined) return "takes an IP address";
  return { name: "static", protocol, externalPort, address: internalAddress, internalPort };
}

function readProtocol([protocol, word, ...rest]: readonly string[]): GatewayCommand | string {
  const on = onOff(word);
  if (on === undefined || rest.length > 0) return "takes a protocol and on or off";
  if (protocol !== "pcp" && protocol !== "nat-pmp" && protocol !== "upnp") {
    return "takes pcp, nat-pmp or upnp";
  }
  return { name: "protocol", protocol, on };
}

function readRefuse(words: readonly string[]): GatewayCommand | string {
  if (words.length === 1 && words[0] === "off") return { name: "refuse", code: undefined };
  const made = number(words, [1, 999], (code) => ({ name: "refuse", code }));
  return typeof made === "string" ? "takes a result code in 1..999, or off" : made;
}

function readLoss(words: readonly string[]): GatewayCommand | string {
  const [word] = words;
  const probability = word !== undefined && /^[0-9]+(\.[0-9]+)?$/.test(word) ? Number(word) : 2;
  return words.length === 1 && probability <= 1
    ? { name: "loss", probability }
    : "takes a probability in 0..1";
}

function readClient([word, verdict, ...rest]: readonly string[]): GatewayCommand | string {
  const client = address(word);
  if (client === undefined || rest.length > 0 || (verdict !== "allow" && verdict !== "deny")) {
    return "takes an IP address and allow or deny";
  }
  return { name: "client", address: client, isAllowed: verdict === "allow" };
}

const VERBS: { readonly [Name in GatewayCommand["name"]]: Verb } = {
  help: { usage: "help", summary: "lists the commands", read: bare("help") },
  list: { usage: "list", summary: "lists the mapping table", read: bare("list") },
  reboot: { usage: "reboot", summary: "table lost, epoch 0, announced", read: bare("reboot") },
  forget: { usage: "forget", summary: "loses the table, says nothing", read: bare("forget") },
  epoch: {
    usage: "epoch N",
    summary: "sets the epoch, seconds (UPnP: BOOTID)",
    read: (words) =>
      number(words, [0, MAX_LIFETIME_SECONDS], (seconds) => ({ name: "epoch", seconds })),
  },
  external: {
    usage: "external A",
    summary: "a new external address (several: A B…, none: the WAN is down)",
    read: readExternal,
  },
  static: {
    usage: "static tcp|udp EXTPORT ADDRESS INTPORT",
    summary: "adds a static mapping",
    read: readStatic,
  },
  nat: { usage: "nat on|off", summary: "whether it acts as a NAT", read: switched("nat") },
  protocol: {
    usage: "protocol pcp|nat-pmp|upnp on|off",
    summary: "switches a protocol",
    read: readProtocol,
  },
  exhaust: {
    usage: "exhaust on|off",
    summary: "whether every external port is taken",
    read: switched("exhaust"),
  },
  refuse: {
    usage: "refuse CODE|off",
    summary: "answers every request with this result code (from 256 on: UPnP's alone)",
    read: readRefuse,
  },
  delay: {
    usage: "delay MS",
    summary: "delays replies",
    read: (words) => number(words, [0, MAX_DELAY_MS], (delayMs) => ({ name: "delay", delayMs })),
  },
  loss: { usage: "loss P", summary: "loses replies, probability 0..1", read: readLoss },
  deaf: {
    usage: "deaf N",
    summary: "does not hear the next N packets",
    read: (words) => number(words, [0, 1_000_000_000], (packets) => ({ name: "deaf", packets })),
  },
  duplicate: {
    usage: "duplicate on|off",
    summary: "sends each reply twice",
    read: switched("duplicate"),
  },
  reorder: {
    usage: "reorder MS",
    summary: "delays each reply by its own random time, so that they overtake each other",
    read: (words) =>
      number(words, [0, MAX_DELAY_MS], (windowMs) => ({ name: "reorder", windowMs })),
  },
  "wrong-source": {
    usage: "wrong-source on|off",
    summary: "replies come from another port",
    read: switched("wrong-source"),
  },
  client: {
    usage: "client ADDRESS allow|deny",
    summary: "whether a client may have mappings",
    read: readClient,
  },
  announce: { usage: "announce", summary: "announces itself", read: bare("announce") },
  quit: { usage: "quit", summary: "ends the gateway", read: bare("quit") },
};

/** Every command with its use, in the order in which `help` lists them. */
export const COMMANDS: readonly CommandHelp[] = Object.values(VERBS);

/**
 * Reads one line. White space around and between words does not matter; an empty line is an
 * error like any other unknown command.
 *
 * @example
 * ```ts
 * import { parseCommand } from "@natkit/natkit/testing";
 * const parsed = parseCommand("external 198.51.100.9");
 * console.assert(parsed.ok && parsed.command.name === "external");
 * ```
 */
export function parseCommand(line: string): ParsedCommand {
  const [name = "", ...words] = line.trim().split(/\s+/);
  const verb = Object.hasOwn(VERBS, name) ? VERBS[name as GatewayCommand["name"]] : undefined;
  if (!verb) return { ok: false, message: `Unknown command "${name}": ${listCommands()}` };
  const made = verb.read(words);
  if (typeof made !== "string") return { ok: true, command: made };
  const message = `Cannot read "${line.trim()}" as '${verb.usage}' ${made}: ${listCommands()}`;
  return { ok: false, message };
}

/** The commands in one sentence. */
export function listCommands(): string {
  return `commands are ${COMMANDS.map((command) => command.usage).join(", ")}`;
}
