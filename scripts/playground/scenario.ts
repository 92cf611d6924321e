/**
 * What is done in the playground, and when: a seed and a list of deeds, which a link holds. The same
 * scenario gives the same packets.
 *
 * As text it is `seed=7&do=0.map-laptop,2400.reboot`: each deed with the milliseconds of virtual time
 * after the start at which it is done.
 *
 * @module
 */
import type { NatDependence, NatPortAssignment } from "../../core/sim/nat_table.ts";

/** How a NAT can be told to behave, by the name that a deed has for it. */
export const NAT_KINDS: Readonly<
  Record<string, {
    /** For people. */
    readonly label: string;
    /** What that comes to. */
    readonly tells: string;
    readonly mapping: NatDependence;
    readonly filtering: NatDependence;
    readonly ports: NatPortAssignment;
  }>
> = {
  open: {
    label: "full cone",
    tells: "lets everybody in",
    mapping: "endpoint-independent",
    filtering: "endpoint-independent",
    ports: "preserving",
  },
  home: {
    label: "port restricted",
    tells: "lets in whom it was sent to",
    mapping: "endpoint-independent",
    filtering: "address-and-port-dependent",
    ports: "preserving",
  },
  steps: {
    label: "symmetric, in steps",
    tells: "another port for each peer, the next one",
    mapping: "address-and-port-dependent",
    filtering: "address-and-port-dependent",
    ports: "contiguous",
  },
  random: {
    label: "symmetric, random",
    tells: "another port for each peer, at random",
    mapping: "address-and-port-dependent",
    filtering: "address-and-port-dependent",
    ports: "random",
  },
};

/** What the gateway can be told to speak, likewise. */
export const SPEAKS: Readonly<
  Record<
    string,
    { readonly label: string; readonly protocols: readonly ("pcp" | "nat-pmp" | "upnp")[] }
  >
> = {
  both: { label: "PCP and NAT-PMP", protocols: ["pcp", "nat-pmp"] },
  pcp: { label: "PCP", protocols: ["pcp"] },
  pmp: { label: "NAT-PMP", protocols: ["nat-pmp"] },
  upnp: { label: "UPnP", protocols: ["upnp"] },
  all: { label: "all three", protocols: ["pcp", "nat-pmp", "upnp"] },
  none: { label: "nothing", protocols: [] },
};

/** How much the links can lose, percent, likewise. */
export const LOSSES: readonly string[] = ["0", "10", "30", "60"];

/** What stands as long as nothing else was chosen. */
export const USUAL = { home: "home", away: "home", speaks: "both", loss: "0" } as const;

/** What needs no more words. */
const PLAIN = [
  "map-laptop",
  "unmap-laptop",
  "map-desktop",
  "unmap-desktop",
  "knock",
  "punch",
  "hang-up",
  "reboot",
  "address",
] as const;

/** Something to do: one of `PLAIN`, or `home-KIND`, `away-KIND`, `speaks-WHAT`, `loss-PERCENT`. */
export type Deed =
  | typeof PLAIN[number]
  | `${"home" | "away" | "speaks" | "loss"}-${string}`;

/** A deed with its time. */
export interface TimedDeed {
  /** Whole milliseconds of virtual time from the start. */
  readonly at: number;
  /** What is done. */
  readonly deed: Deed;
}

/** A run of the playground. */
export interface Scenario {
  /** What chance depends on, 1…999,999. */
  readonly seed: number;
  /** In the order of their times. */
  readonly deeds: readonly TimedDeed[];
}

/** The longest run: a day, milliseconds. */
export const MAX_MS = 86_400_000;
/** The most deeds of a run. */
export const MAX_DEEDS = 100;
const MAX_SEED = 999_999;

/** A scenario that starts one off. */
export interface Story {
  readonly name: string;
  readonly tells: string;
  readonly link: string;
}

/** Scenarios to begin with. */
export const STORIES: readonly Story[] = [
  {
    name: "Open a port",
    tells: "A knock from outside is blocked, the laptop maps its port, and the next knock gets in.",
    link: "seed=1&do=200.knock,900.map-laptop,2500.knock",
  },
  {
    name: "The gateway reboots",
    tells: "Its table is lost; the laptop sees the epoch start anew and gets its port back.",
    link: "seed=1&do=200.map-laptop,2000.reboot,9000.knock",
  },
  {
    name: "Punch a hole",
    tells: "Two hosts behind two NATs meet without a mapping: each opens its own for the other.",
    link: "seed=1&do=200.punch",
  },
  {
    name: "Two hosts, one port",
    tells: "Both want port 27015; the second one is given another.",
    link: "seed=1&do=200.map-laptop,2000.map-desktop,4500.knock",
  },
  {
    name: "UPnP, and a new address",
    tells: "The same by SSDP and SOAP; then the provider changes the gateway's address.",
    link: "seed=1&do=0.speaks-upnp,3000.map-laptop,9000.address",
  },
  {
    name: "Two symmetric NATs",
    tells: "Each peer sees another port. The ports go in steps, so they can be guessed.",
    link: "seed=1&do=0.home-steps,0.away-steps,200.punch",
  },
];

/** A link's fragment, without `#`. */
export function formatScenario({ seed, deeds }: Scenario): string {
  const list = deeds.map(({ at, deed }) => `${at}.${deed}`).join(",");
  return `seed=${seed}${list === "" ? "" : `&do=${list}`}`;
}

/**
 * Reads a link's fragment.
 *
 * @returns The scenario, or in words why it is none.
 */
export function parseScenario(text: string): Scenario | string {
  const seedText = /(?:^|&)seed=([^&]*)/.exec(text)?.[1] ?? "1";
  const seed = Number(seedText);
  if (!/^\d+$/.test(seedText) || seed < 1 || seed > MAX_SEED) {
    return `the seed must be a whole number in 1..${MAX_SEED}: it is "${seedText.slice(0, 20)}"`;
  }
  const list = /(?:^|&)do=([^&]*)/.exec(text)?.[1] ?? "";
  const deeds: TimedDeed[] = [];
  for (const word of list === "" ? [] : list.split(",")) {
    const [, atText, deed] = /^(\d{1,8})\.([a-z0-9-]{1,30})$/.exec(word) ?? [];
    const at = Number(atText);
    if (deed === undefined || !isDeed(deed)) return `there is no deed "${word.slice(0, 40)}"`;
    if (at > MAX_MS) return `a deed must be done within a day: one is at ${at} ms`;
    if (at < (deeds.at(-1)?.at ?? 0)) return "the deeds must be in the order of their times";
    if (deeds.length >= MAX_DEEDS) return `there are at most ${MAX_DEEDS} deeds`;
    deeds.push({ at, deed });
  }
  return { seed, deeds };
}

/** Whether a text names a deed. */
export function isDeed(text: string): text is Deed {
  if ((PLAIN as readonly string[]).includes(text)) return true;
  const [, what, value] = /^(home|away|speaks|loss)-(\w+)$/.exec(text) ?? [];
  if (what === undefined || value === undefined) return false;
  if (what === "loss") return LOSSES.includes(value);
  return Object.hasOwn(what === "speaks" ? SPEAKS : NAT_KINDS, value);
}

const SENTENCES: Readonly<Record<typeof PLAIN[number], string>> = {
  "map-laptop": "The laptop wants its port open",
  "unmap-laptop": "The laptop closes its port",
  "map-desktop": "The desktop wants its port open",
  "unmap-desktop": "The desktop closes its port",
  "knock": "Somebody outside knocks",
  "punch": "The laptop and the friend want to meet",
  "hang-up": "They hang up",
  "reboot": "The gateway reboots",
  "address": "The provider gives the gateway another address",
};

/** A deed as a sentence. */
export function describeDeed(deed: Deed): string {
  if (Object.hasOwn(SENTENCES, deed)) return SENTENCES[deed as keyof typeof SENTENCES];
  const [what, value = ""] = deed.split("-");
  switch (what) {
    case "home":
      return `The gateway's NAT: ${natWords(value)}`;
    case "away":
      return `The friend's NAT: ${natWords(value)}`;
    case "speaks":
      return `The gateway speaks ${SPEAKS[value]!.label}`;
    default:
      return `Links lose ${value} % of the packets`;
  }
}

function natWords(kind: string): string {
  const { label, tells } = NAT_KINDS[kind]!;
  return `${label}, ${tells}`;
}
