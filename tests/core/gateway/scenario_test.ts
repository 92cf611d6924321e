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
  ["announce", { name: "announce" }],
  ["quit", { name: "quit" }],
];

const BAD: readonly string[] = [
  "",
  "   ",
  "restart",
  "constructor",
  "__proto__",
  "toString x",
  "list all",
  "epoch",
  "epoch -1",
  "epoch 1e3",
  "epoch 4294967296",
  "epoch 0x10",
  "external",
  "external 203.0.113",
  "external ::1",
  "external none 203.0.113.1",
  "static tcp 80 192.168.1.5",
  "static tcp 80 192.168.1.5 8080 9",
  "static sctp 80 192.168.1.5 8080",
  "static tcp 0 192.168.1.5 8080",
  "static tcp 80 host 8080",
  "static tcp 80 192.168.1.5 65536",
  "nat",
  "nat yes",
  "nat on off",
  "protocol pcp",
  "protocol igd on",
  "exhaust 1",
  "refuse",
  "refuse 0",
  "refuse 1000",
  "refuse NOT_AUTHORIZED",
  "delay 3600001",
  "delay 1.5",
  "loss 1.1",
  "loss -0.1",
  "loss .5",
  "loss 5%",
  "deaf many",
  "duplicate",
  "reorder on",
  "wrong-source",
  "client deny",
  "client 192.168.1.9 on",
  "quit now",
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

  for (const line of BAD) {
    it(`answers "${line}" with an error that lists the commands`, () => {
      const message = messageOf(parseCommand(line));
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
