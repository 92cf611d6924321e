import { describe, it } from "node:test";
import { assertEquals, assertStringIncludes } from "@std/assert";
import {
  COMMANDS,
  type GatewayCommand,
  parseCommand,
  type ParsedCommand,
} from "../../../core/gateway/scenario.ts";

const GOOD: readonly (readonly [string, GatewayCommand])[] = [
  ["help", { name: "help" }],
  ["  list  ", { name: "list" }],
  ["reboot", { name: "reboot" }],
  ["forget", { name: "forget" }],
  ["epoch 0", { name: "epoch", seconds: 0 }],
  ["epoch 4294967295", { name: "epoch", seconds: 4294967295 }],
  ["external 203.0.113.9", { name: "external", addresses: ["203.0.113.9"] }],
  ["external 203.0.113.9 203.0.113.10", {
    name: "external",
    addresses: ["203.0.113.9", "203.0.113.10"],
  }],
  ["external none", { name: "external", addresses: [] }],
  ["static tcp 80 192.168.1.5 8080", {
    name: "static",
    protocol: "tcp",
    externalPort: 80,
    address: "192.168.1.5",
    internalPort: 8080,
  }],
  ["static udp 53 2001:DB8:0::5 53", {
    name: "static",
    protocol: "udp",
    externalPort: 53,
    address: "2001:db8::5",
    internalPort: 53,
  }],
  ["nat\toff", { name: "nat", on: false }],
  ["protocol pcp off", { name: "protocol", protocol: "pcp", on: false }],
  ["protocol  nat-pmp  on", { name: "protocol", protocol: "nat-pmp", on: true }],
  ["exhaust on", { name: "exhaust", on: true }],
  ["refuse 2", { name: "refuse", code: 2 }],
  ["refuse off", { name: "refuse", code: undefined }],
  ["delay 250", { name: "delay", delayMs: 250 }],
  ["loss 0.25", { name: "loss", probability: 0.25 }],
  ["loss 1", { name: "loss", probability: 1 }],
  ["deaf 3", { name: "deaf", packets: 3 }],
  ["duplicate on", { name: "duplicate", on: true }],
  ["reorder 100", { name: "reorder", windowMs: 100 }],
  ["wrong-source off", { name: "wrong-source", on: false }],
  ["client 192.168.1.9 deny", { name: "client", address: "192.168.1.9", isAllowed: false }],
  ["client ::1 allow", { name: "client", address: "::1", isAllowed: true }],
  ["nat on", { name: "nat", on: true }],
  ["protocol upnp on", { name: "protocol", protocol: "upnp", on: true }],
  ["exhaust off", { name: "exhaust", on: false }],
  ["refuse 1", { name: "refuse", code: 1 }],
  ["refuse 999", { name: "refuse", code: 999 }],
  ["delay 0", { name: "delay", delayMs: 0 }],
  ["delay 3600000", { name: "delay", delayMs: 3_600_000 }],
  ["loss 0", { name: "loss", probability: 0 }],
  ["deaf 0", { name: "deaf", packets: 0 }],
  ["deaf 1000000000", { name: "deaf", packets: 1_000_000_000 }],
  ["duplicate off", { name: "duplicate", on: false }],
  ["reorder 0", { name: "reorder", windowMs: 0 }],
  ["reorder 3600000", { name: "reorder", windowMs: 3_600_000 }],
  ["wrong-source on", { name: "wrong-source", on: true }],
  ["static tcp 1 192.168.1.5 65535", {
    name: "static",
    protocol: "tcp",
    externalPort: 1,
    address: "192.168.1.5",
    internalPort: 65_535,
  }],
  ["static tcp 65535 192.168.1.5 1", {
    name: "static",
    protocol: "tcp",
    externalPort: 65_535,
    address: "192.168.1.5",
    internalPort: 1,
  }],
  ["announce", { name: "announce" }],
  ["quit", { name: "quit" }],
];

const SWITCH = "takes on or off", PORTS = "takes two ports in 1..65535";
const CODE = "takes a result code in 1..999, or off", LOSS = "takes a probability in 0..1";
const ADDRESSES = "takes IPv4 addresses, or none", EPOCH = "takes a number in 0..4294967295";
const DELAY = "takes a number in 0..3600000", DEAF = "takes a number in 0..1000000000";
const CLIENT = "takes an IP address and allow or deny";

/** What is wrong with each line. */
const BAD: readonly (readonly [line: string, wrong: string])[] = [
  ["", 'Unknown command ""'],
  ["   ", 'Unknown command ""'],
  ["restart", 'Unknown command "restart"'],
  ["constructor", 'Unknown command "constructor"'],
  ["__proto__", 'Unknown command "__proto__"'],
  ["toString x", 'Unknown command "toString"'],
  ["list all", "as 'list' takes no words"],
  ["quit now", "as 'quit' takes no words"],
  ["epoch", EPOCH],
  ["epoch -1", EPOCH],
  ["epoch 1e3", EPOCH],
  ["epoch 4294967296", EPOCH],
  ["epoch 0x10", EPOCH],
  ["epoch 1 2", EPOCH],
  ["external", ADDRESSES],
  ["external 203.0.113", ADDRESSES],
  ["external ::1", ADDRESSES],
  ["external none 203.0.113.1", ADDRESSES],
  ["external 203.0.113.1 none", ADDRESSES],
  ["static tcp 80 192.168.1.5", PORTS],
  ["static tcp 80 192.168.1.5 8080 9", PORTS],
  ["static sctp 80 192.168.1.5 8080", "takes tcp or udp first"],
  ["static tcp 0 192.168.1.5 8080", PORTS],
  ["static tcp 65536 192.168.1.5 8080", PORTS],
  ["static tcp 80 host 8080", "takes an IP address: "],
  ["static tcp 80 192.168.1.5 65536", PORTS],
  ["static tcp 80 192.168.1.5 0", PORTS],
  ["nat", SWITCH],
  ["nat yes", SWITCH],
  ["nat on off", SWITCH],
  ["protocol pcp", "takes a protocol and on or off"],
  ["protocol pcp on off", "takes a protocol and on or off"],
  ["protocol igd on", "takes pcp, nat-pmp or upnp"],
  ["exhaust 1", SWITCH],
  ["refuse", CODE],
  ["refuse 0", CODE],
  ["refuse 1000", CODE],
  ["refuse off off", CODE],
  ["refuse NOT_AUTHORIZED", CODE],
  ["delay 3600001", DELAY],
  ["delay 1.5", DELAY],
  ["loss", LOSS],
  ["loss 1.1", LOSS],
  ["loss -0.1", LOSS],
  ["loss .5", LOSS],
  ["loss 5%", LOSS],
  ["loss 0.5 0.5", LOSS],
  ["deaf many", DEAF],
  ["deaf 1000000001", DEAF],
  ["duplicate", SWITCH],
  ["reorder on", DELAY],
  ["reorder 3600001", DELAY],
  ["wrong-source", SWITCH],
  ["client deny", CLIENT],
  ["client 192.168.1.9 on", CLIENT],
  ["client 192.168.1.9 deny 1", CLIENT],
];

function messageOf(parsed: ParsedCommand): string {
  return parsed.ok ? "" : parsed.message;
}

describe("parseCommand()", () => {
  for (const [line, command] of GOOD) {
    it(`reads ${JSON.stringify(line)}`, () => {
      assertEquals(parseCommand(line), { ok: true, command });
    });
  }

  for (const [line, wrong] of BAD) {
    it(`answers "${line}" with what is wrong, and lists the commands`, () => {
      const message = messageOf(parseCommand(line));
      assertStringIncludes(message, wrong);
      for (const { usage } of COMMANDS) assertStringIncludes(message, usage);
    });
  }

  it("never throws, whatever the line", () => {
    const words = ["static", "tcp", "-1", "\u0000", "99999999999999999999", "🙂", "on", "::", "%"];
    for (let i = 0; i < words.length ** 3; i++) {
      const line = [i % 9, Math.floor(i / 9) % 9, Math.floor(i / 81) % 9].map((k) => words[k]);
      assertEquals(typeof parseCommand(line.join(" ")).ok, "boolean");
    }
  });
});
