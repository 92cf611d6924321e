/**
 * A home network with a real gateway, in network namespaces: Linux's NAT and Debian's miniupnpd.
 * Needs root. Every name carries a prefix, so that several labs stand side by side; all of it is
 * removed by {@linkcode Lab.down}, when the script is ended by a signal, and by the next lab where
 * the script was killed outright.
 *
 * @module
 */
import { beforeLeaving, must, run, type RunOptions, type RunResult } from "../lib/process.ts";
import { miniupnpdConfig, type MiniupnpdOptions } from "./miniupnpd.ts";
import { LabProcess, type SpawnOptions } from "./process.ts";
import {
  ADDRESS,
  FLUSH,
  FORWARDING,
  INSIDE,
  makeNamespaces,
  type Place,
  PLACES,
  RULES,
} from "./topology.ts";

/** Programs the lab runs, and the Debian packages they come in. */
const PROGRAMS: Readonly<Record<string, string>> = {
  ip: "iproute2",
  nft: "nftables",
  unshare: "util-linux",
  miniupnpd: "miniupnpd miniupnpd-nftables",
  upnpc: "miniupnpc",
  "gssdp-discover": "gupnp-tools",
  "transmission-cli": "transmission-cli",
  natpmpc: "natpmpc",
  turnserver: "coturn",
  stun: "stun-client",
  minidlnad: "minidlna",
  curl: "curl",
  node: "Node 20 or later, from nodejs.org",
};

/** UDP ports of PCP and NAT-PMP, and of SSDP. */
const PORT = { natPmp: 5351, ssdp: 1900 } as const;
/** A daemon that is not ready by then will not be. */
const READY_WITHIN_MS = 10_000;
let labs = 0;

/** Names everything this machine lacks for a lab; empty if it can have one. */
export async function whatLabLacks(): Promise<string[]> {
  if (Deno.build.os !== "linux") return ["Linux (network namespaces)"];
  const lacks: string[] = [];
  // Where administrators' programs are, which not every shell looks for.
  Deno.env.set("PATH", `${Deno.env.get("PATH") ?? ""}:/usr/sbin:/sbin`);
  if (Deno.uid() !== 0) lacks.push("root (namespaces, NAT rules)");
  for (const [program, source] of Object.entries(PROGRAMS)) {
    const found = await run(["sh", "-c", `command -v ${program}`]);
    if (found.code !== 0) lacks.push(`${program} (${source})`);
  }
  return lacks;
}

/** One home network with its gateway. */
export class Lab {
  /** Starts the name of every namespace. */
  readonly prefix: string;
  /** A temporary folder, removed with the lab. */
  readonly folder: string;
  readonly #processes = new Set<LabProcess>();
  #gateway: { process: LabProcess; options: MiniupnpdOptions } | undefined;
  #epochAt = 0;
  #wanAddress: string = ADDRESS.wan;
  #isDown = false;

  private constructor(prefix: string, folder: string) {
    this.prefix = prefix;
    this.folder = folder;
  }

  /**
   * Brings a lab up, with miniupnpd running.
   *
   * @throws If the machine cannot: see {@linkcode whatLabLacks}.
   */
  static async up(options: MiniupnpdOptions = {}): Promise<Lab> {
    const lacks = await whatLabLacks();
    if (lacks.length > 0) throw new Error(`The lab lacks: ${lacks.join(", ")}`);
    await removeLeftovers();
    const prefix = `natkit${Deno.pid}.${++labs}-`;
    const lab = new Lab(prefix, await Deno.makeTempDir({ prefix: "natkit-lab-" }));
    beforeLeaving(() => lab.down());
    try {
      await must(["ip", "-batch", "-"], { stdin: makeNamespaces((place) => lab.name(place)) });
      await Promise.all(
        PLACES.map((place) =>
          must(["ip", "-n", lab.name(place), "-batch", "-"], { stdin: INSIDE[place] })
        ),
      );
      await must(lab.#inside("gw", ["sh", "-c", `${FORWARDING}; exec nft -f -`]), { stdin: RULES });
      await lab.startMiniupnpd(options);
      return lab;
    } catch (error) {
      await lab.down();
      throw error;
    }
  }

  /** The full name of a namespace. */
  name(place: Place): string {
    return this.prefix + place;
  }

  /** The age of the epoch the gateway tells: since its start, or the last change of its address. */
  get epochMs(): number {
    return performance.now() - this.#epochAt;
  }

  /** The gateway's address on the internet. */
  get wanAddress(): string {
    return this.#wanAddress;
  }

  /** Runs a command in a namespace to its end. */
  exec(place: Place, argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    return run(this.#inside(place, argv), options);
  }

  /** Starts a command in a namespace; it is ended with the lab. */
  spawn(place: Place, argv: readonly string[], options: SpawnOptions = {}): LabProcess {
    const process = new LabProcess(this.#inside(place, argv), options);
    this.#processes.add(process);
    void process.status.then(() => this.#processes.delete(process));
    return process;
  }

  /** Starts the gateway's daemon, with an empty table, and waits until it can be asked. */
  async startMiniupnpd(options: MiniupnpdOptions = {}): Promise<void> {
    if (this.#gateway !== undefined) throw new Error("miniupnpd runs already");
    await must(this.#inside("gw", ["nft", "-f", "-"]), { stdin: FLUSH });
    const config = `${this.folder}/miniupnpd.conf`;
    await Deno.writeTextFile(config, miniupnpdConfig(options, this.folder));
    // Without a syslogd it writes every line to the console, a slow one: in a mount namespace of
    // its own that is /dev/null. Each exec keeps the process id, so the child is the daemon.
    const start = `mount --bind /dev/null /dev/console && exec miniupnpd -d -f ${config} ` +
      `-P ${this.folder}/miniupnpd.pid 2>> ${this.folder}/miniupnpd.log`;
    const process = this.spawn("gw", ["unshare", "-m", "sh", "-c", start]);
    this.#gateway = { process, options };
    this.#epochAt = performance.now();
    const port = options.natPmp ?? true ? PORT.natPmp : PORT.ssdp;
    await untilBound(process, port, () => this.miniupnpdLog());
  }

  /** Ends the daemon as an administrator would; its rules stay until the next start. */
  async stopMiniupnpd(): Promise<void> {
    this.#gateway?.process.signal("SIGTERM");
    await this.#gateway?.process.status;
    this.#gateway = undefined;
  }

  /** Ends the daemon and starts it with an empty table, and other options if they are given. */
  async restartMiniupnpd(options?: MiniupnpdOptions): Promise<void> {
    const next = options ?? this.#gateway?.options ?? {};
    await this.stopMiniupnpd();
    await this.startMiniupnpd(next);
  }

  /** Everything the daemon has logged. */
  miniupnpdLog(): Promise<string> {
    return Deno.readTextFile(`${this.folder}/miniupnpd.log`).catch(() => "");
  }

  /** The gateway gets another address from its provider. */
  async setWanAddress(address: string): Promise<void> {
    const commands = [
      `addr del ${this.#wanAddress}/24 dev wan`,
      `addr add ${address}/24 dev wan`,
    ];
    await must(["ip", "-n", this.name("gw"), "-batch", "-"], { stdin: commands.join("\n") });
    this.#wanAddress = address;
    this.#epochAt = performance.now();
  }

  /** Ends what a failed test has left running and empties the gateway's table. */
  async clean(options: MiniupnpdOptions): Promise<void> {
    await this.#endProcesses();
    this.#gateway = undefined;
    if (this.#wanAddress !== ADDRESS.wan) await this.setWanAddress(ADDRESS.wan);
    await this.startMiniupnpd(options);
  }

  /** Ends every process of the lab and removes its namespaces. Calling it again does nothing. */
  async down(): Promise<void> {
    if (this.#isDown) return;
    this.#isDown = true;
    await this.#endProcesses();
    await removeNamespaces(this.prefix);
    await Deno.remove(this.folder, { recursive: true }).catch(() => {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.down();
  }

  async #endProcesses(): Promise<void> {
    const processes = [...this.#processes];
    for (const process of processes) process.signal("SIGKILL");
    await Promise.all(processes.map(({ status }) => status));
  }

  #inside(place: Place, argv: readonly string[]): string[] {
    return ["ip", "netns", "exec", this.name(place), ...argv];
  }
}

/** Removes what a lab left whose script was killed: its process id is in the names. */
async function removeLeftovers(): Promise<void> {
  const stale = new Set<string>();
  for (const name of await namespaces()) {
    const match = /^natkit(\d+)\.\d+-/.exec(name);
    if (match === null) continue;
    const alive = await Deno.stat(`/proc/${match[1]}`).then(() => true, () => false);
    if (!alive) stale.add(match[0]);
  }
  for (const prefix of stale) await removeNamespaces(prefix);
}

/** A namespace lives as long as a process in it: those go first. */
async function removeNamespaces(prefix: string): Promise<void> {
  const names = (await namespaces()).filter((name) => name.startsWith(prefix));
  for (const name of names) {
    const { stdout } = await run(["ip", "netns", "pids", name]);
    for (const pid of stdout.split(/\s+/).filter((word) => word !== "")) {
      try {
        Deno.kill(Number(pid), "SIGKILL");
      } catch {
        // It has ended by itself.
      }
    }
  }
  await run(["ip", "-force", "-batch", "-"], {
    stdin: names.map((name) => `netns del ${name}\n`).join(""),
  });
}

async function namespaces(): Promise<string[]> {
  const { stdout } = await run(["ip", "netns", "list"]);
  return stdout.split("\n").map((line) => line.split(" ")[0] ?? "").filter((name) => name !== "");
}

async function untilBound(
  daemon: LabProcess,
  portNumber: number,
  log: () => Promise<string>,
): Promise<void> {
  const port = `:${portNumber.toString(16).toUpperCase().padStart(4, "0")} `;
  const deadline = performance.now() + READY_WITHIN_MS;
  const isBound = async (table: string) =>
    (await Deno.readTextFile(`/proc/${daemon.pid}/net/${table}`).catch(() => "")).includes(port);
  while (!(await isBound("udp") && await isBound("udp6"))) {
    if (daemon.hasEnded || performance.now() > deadline) {
      throw new Error(`miniupnpd does not listen:\n${daemon.errors}${await log()}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
