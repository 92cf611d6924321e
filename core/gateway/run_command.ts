/**
 * Carries out a scenario command, and says in a sentence what it did.
 *
 * @module
 */
import type { Instant } from "../machine.ts";
import type { TableEntry, TableFault } from "../table/entry.ts";
import type { SimulatedGateway } from "./gateway.ts";
import { type CommandHelp, COMMANDS, type GatewayCommand, listCommands } from "./scenario.ts";

/** What a command came to. */
export interface CommandOutcome {
  /** Whether it was done. */
  readonly isDone: boolean;
  /** What was done, or why not. */
  readonly message: string;
  /** The table's entries, in the answer to `list`. */
  readonly entries?: readonly TableEntry[];
  /** The commands, in the answer to `help`. */
  readonly commands?: readonly CommandHelp[];
}

const TABLE_FAULTS: Readonly<Record<TableFault, string>> = {
  "no-resources": "no port is left",
  "over-quota": "the client has as many mappings as it may",
  "external-unavailable": "the external port is taken",
  "already-mapped": "there is such a mapping",
  "not-entirely-available": "some of the ports belong to others",
};

/**
 * Carries out a command. `quit` is left to whoever runs the gateway: it only says so.
 *
 * @example
 * ```ts
 * import { seededRandom } from "@natkit/natkit/core";
 * import { runCommand, SimulatedGateway } from "@natkit/natkit/testing";
 * const gateway = new SimulatedGateway({
 *   externalAddresses: ["203.0.113.7"],
 *   random: seededRandom(1),
 * });
 * const outcome = runCommand(gateway, { name: "external", addresses: ["198.51.100.9"] }, 0);
 * console.assert(outcome.isDone && gateway.table.externalAddresses[0] === "198.51.100.9");
 * ```
 */
export function runCommand(
  gateway: SimulatedGateway,
  command: GatewayCommand,
  now: Instant,
): CommandOutcome {
  switch (command.name) {
    case "help":
      return { ...done(listCommands()), commands: COMMANDS };
    case "list": {
      const entries = gateway.list(now);
      return {
        ...done(`${entries.length} ${entries.length === 1 ? "mapping" : "mappings"}`),
        entries,
      };
    }
    case "quit":
      return done("the gateway ends");
    default:
      try {
        return perform(gateway, command, now);
      } catch (error) {
        // What this gateway cannot do at all: NAT-PMP or an external address without a NAT.
        if (!(error instanceof TypeError || error instanceof RangeError)) throw error;
        return { isDone: false, message: error.message };
      }
  }
}

function done(message: string): CommandOutcome {
  return { isDone: true, message };
}

function perform(
  gateway: SimulatedGateway,
  command: Exclude<GatewayCommand, { name: "help" | "list" | "quit" }>,
  now: Instant,
): CommandOutcome {
  switch (command.name) {
    case "reboot":
      gateway.reboot(now);
      return done("the table is lost, the epoch starts anew, announced");
    case "forget":
      gateway.forget(now);
      return done("the table is lost, in silence");
    case "epoch":
      gateway.setEpoch(command.seconds, now);
      return done(`the epoch is ${command.seconds} s`);
    case "external":
      gateway.setExternalAddresses(command.addresses, now);
      return done(
        command.addresses.length === 0
          ? "the WAN is down"
          : `the external address is ${command.addresses.join(", ")}`,
      );
    case "static": {
      const { protocol, externalPort, address, internalPort } = command;
      const entry = gateway.addStatic(protocol, externalPort, { address, port: internalPort }, now);
      return typeof entry === "string"
        ? { isDone: false, message: `Cannot add the mapping: ${TABLE_FAULTS[entry]}` }
        : done(`port ${externalPort}/${protocol} goes to ${address}, port ${internalPort}`);
    }
    case "nat":
      gateway.setNat(command.on, now);
      return done(command.on ? "it acts as a NAT" : "it is no NAT: nothing listens");
    case "protocol":
      gateway.setProtocol(command.protocol, command.on, now);
      return done(`${command.protocol} is ${onOff(command.on)}`);
    case "exhaust":
      gateway.setExhausted(command.on, now);
      return done(command.on ? "every external port is taken" : "external ports are free");
    case "refuse":
      gateway.setRefusal(command.code, now);
      return done(
        command.code === undefined
          ? "requests are served"
          : `every request is refused with ${command.code}`,
      );
    case "delay":
      gateway.disturb({ delayMs: command.delayMs }, now);
      return done(`replies are ${command.delayMs} ms late`);
    case "loss":
      gateway.disturb({ lossRate: command.probability }, now);
      return done(`replies are lost with probability ${command.probability}`);
    case "deaf":
      gateway.setDeaf(command.packets, now);
      return done(`the next ${command.packets} packets are not heard`);
    case "duplicate":
      gateway.disturb({ duplicate: command.on }, now);
      return done(`replies are sent ${command.on ? "twice" : "once"}`);
    case "reorder":
      gateway.disturb({ reorderMs: command.windowMs }, now);
      return done(`replies are up to ${command.windowMs} ms late, each by its own time`);
    case "wrong-source":
      gateway.disturb({ wrongSource: command.on }, now);
      return done(`replies come from ${command.on ? "another port" : "the port asked"}`);
    case "client":
      gateway.setPermission(command.address, command.isAllowed, now);
      return done(`${command.address} may ${command.isAllowed ? "" : "not "}have mappings`);
    case "announce":
      gateway.announce(now);
      return done("it announces itself");
  }
}

function onOff(isOn: boolean): string {
  return isOn ? "on" : "off";
}
