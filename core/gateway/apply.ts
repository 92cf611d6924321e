/**
 * What a scenario command does to a gateway, and what is answered.
 *
 * @module
 */
import { formatEndpoint } from "../ip.ts";
import type { Instant } from "../machine.ts";
import { snapshotEntry, type TableEntry, type TableFault } from "../table/entry.ts";
import type { SimulatedGateway } from "./gateway.ts";
import { COMMANDS, type GatewayCommand } from "./scenario.ts";

/** A mapping as `list` shows it. */
export interface ListedMapping {
  /** `"tcp"`, `"udp"`, or IANA's number of another protocol as text. */
  readonly protocol: string;
  /** The inside. */
  readonly internal: { readonly address: string; readonly port: number };
  /** The outside. */
  readonly external: { readonly address: string; readonly port: number };
  /** What kind of mapping it is. */
  readonly kind: TableEntry["kind"];
  /** Who made it. */
  readonly origin: TableEntry["origin"];
  /** Whole seconds that it has left; undefined: without end. */
  readonly lifetimeSeconds: number | undefined;
  /** The remote peer of an outbound mapping. */
  readonly remote?: { readonly address: string; readonly port: number };
  /** How many adjoining ports, where more than one. */
  readonly size?: number;
  /** What its maker calls it. */
  readonly description?: string;
}

/** The answer to a command. */
export type CommandResult =
  | {
    readonly ok: true;
    /** For a person; several lines for `help` and `list`. */
    readonly text: string;
    /** The answer to `list`. */
    readonly mappings?: readonly ListedMapping[];
    /** The answer to `help`. */
    readonly commands?: readonly string[];
    /** The gateway is to end. */
    readonly quit?: true;
  }
  | { readonly ok: false; readonly message: string };

const FAULTS: Readonly<Record<TableFault, string>> = {
  "no-resources": "the table or the port pool is full",
  "over-quota": "the client has as many mappings as it may",
  "external-unavailable": "the external port is taken",
  "already-mapped": "the internal endpoint has a static mapping already",
  "not-entirely-available": "some of the ports are taken",
};

/**
 * Does what the command says; drain the gateway afterwards, as after every command.
 *
 * @example
 * ```ts
 * import { seededRandom } from "@natkit/natkit/core";
 * import { applyCommand, parseCommand, SimulatedGateway } from "@natkit/natkit/testing";
 * const gateway = new SimulatedGateway({
 *   externalAddresses: ["203.0.113.7"],
 *   random: seededRandom(1),
 * });
 * gateway.start(0);
 * const parsed = parseCommand("static tcp 80 192.168.1.5 8080");
 * if (parsed.ok) applyCommand(gateway, parsed.command, 1000);
 * console.assert(gateway.table.size === 1);
 * ```
 */
export function applyCommand(
  gateway: SimulatedGateway,
  command: GatewayCommand,
  now: Instant,
): CommandResult {
  try {
    return apply(gateway, command, now);
  } catch (error) {
    // What this gateway cannot do (an external address where nothing is translated).
    if (!(error instanceof TypeError)) throw error;
    return { ok: false, message: error.message };
  }
}

function apply(gateway: SimulatedGateway, command: GatewayCommand, now: Instant): CommandResult {
  switch (command.name) {
    case "help":
      return {
        ok: true,
        text: COMMANDS.map(({ usage, summary }) => `${usage}: ${summary}`).join("\n"),
        commands: COMMANDS.map(({ usage }) => usage),
      };
    case "list": {
      const mappings = gateway.list(now).map((entry) => describeMapping(entry, now));
      const text = mappings.length === 0 ? "no mappings" : mappings.map(formatMapping).join("\n");
      return { ok: true, text, mappings };
    }
    case "reboot":
      gateway.reboot(now);
      return done("rebooted: table lost, epoch 0, announced");
    case "forget":
      gateway.forget(now);
      return done("table lost, nothing said");
    case "epoch":
      gateway.setEpoch(command.seconds, now);
      return done(`epoch ${command.seconds}`);
    case "external":
      gateway.setExternalAddresses(command.addresses, now);
      return done(`external ${command.addresses.join(" ") || "none"}`);
    case "static": {
      const { protocol, externalPort, address, internalPort } = command;
      const internal = { address, port: internalPort };
      const entry = gateway.addStatic(protocol, externalPort, internal, now);
      return typeof entry === "string"
        ? { ok: false, message: `Cannot add the static mapping: ${FAULTS[entry]}` }
        : done(`static ${formatMapping(describeMapping(entry, now))}`);
    }
    case "nat":
      gateway.setNat(command.on, now);
      return done(`nat ${onOff(command.on)}`);
    case "protocol":
      gateway.setProtocol(command.protocol, command.on, now);
      return done(`protocol ${command.protocol} ${onOff(command.on)}`);
    case "exhaust":
      gateway.setExhausted(command.on, now);
      return done(`exhaust ${onOff(command.on)}`);
    case "refuse":
      gateway.setRefusal(command.code, now);
      return done(`refuse ${command.code ?? "off"}`);
    case "delay":
      gateway.disturb({ delayMs: command.delayMs }, now);
      return done(`delay ${command.delayMs} ms`);
    case "loss":
      gateway.disturb({ lossRate: command.probability }, now);
      return done(`loss ${command.probability}`);
    case "deaf":
      gateway.setDeaf(command.packets, now);
      return done(`deaf to the next ${command.packets} packets`);
    case "duplicate":
      gateway.disturb({ duplicate: command.on }, now);
      return done(`duplicate ${onOff(command.on)}`);
    case "reorder":
      gateway.disturb({ reorderMs: command.windowMs }, now);
      return done(`reorder ${command.windowMs} ms`);
    case "wrong-source":
      gateway.disturb({ wrongSource: command.on }, now);
      return done(`wrong-source ${onOff(command.on)}`);
    case "client":
      gateway.setPermission(command.address, command.isAllowed, now);
      return done(`client ${command.address} ${command.isAllowed ? "allowed" : "denied"}`);
    case "announce":
      gateway.announce(now);
      return done("announcing");
    case "quit":
      return { ok: true, text: "bye", quit: true };
  }
}

function done(text: string): CommandResult {
  return { ok: true, text };
}

function onOff(on: boolean): string {
  return on ? "on" : "off";
}

/** A mapping as plain, JSON-safe data. */
export function describeMapping(entry: TableEntry, now: Instant): ListedMapping {
  const { protocol, internal, external, kind, origin, remote, size, description, expiresAt } =
    snapshotEntry(entry);
  const lifetimeSeconds = expiresAt === Infinity
    ? undefined
    : Math.max(0, Math.ceil((expiresAt - now) / 1000));
  return {
    protocol: protocol === 6 ? "tcp" : protocol === 17 ? "udp" : String(protocol),
    internal,
    external,
    kind,
    origin,
    lifetimeSeconds,
    ...remote ? { remote } : undefined,
    ...size > 1 ? { size } : undefined,
    ...description === undefined ? undefined : { description },
  };
}

/** A mapping in one line. */
export function formatMapping(mapping: ListedMapping): string {
  const { protocol, external, internal, remote, kind, origin, lifetimeSeconds, size } = mapping;
  const ports = size === undefined ? "" : ` (${size} ports)`;
  const peer = remote ? ` with ${formatEndpoint(remote)}` : "";
  const left = lifetimeSeconds === undefined ? "for good" : `${lifetimeSeconds} s left`;
  const maker = kind === "explicit" ? origin : kind;
  return `${protocol} ${formatEndpoint(external)} -> ${formatEndpoint(internal)}${ports}${peer}, ` +
    `${maker}, ${left}`;
}
