import { assertEquals, assertMatch } from "@std/assert";
import { describe, it } from "node:test";
import {
  diagnose,
  type DiagnosisFacts,
  type FindingCode,
  type GatewayReport,
  type ProtocolReport,
} from "../../../core/portmap/diagnosis.ts";

const answered = (via: ProtocolReport["via"], external: string): ProtocolReport => ({
  via,
  outcome: "answered",
  elapsedMs: 2,
  external,
});
const failed = (via: ProtocolReport["via"], outcome: string): ProtocolReport => ({
  via,
  outcome,
  elapsedMs: 2,
});
const v4 = (...protocols: ProtocolReport[]): GatewayReport => ({
  gateway: "192.168.1.1",
  family: 4,
  protocols,
});
const v6 = (...protocols: ProtocolReport[]): GatewayReport => ({
  gateway: "fe80::1%eth0",
  family: 6,
  protocols,
});
const seenAs = (address: string) => [
  { server: "stun.example:3478", address, outcome: "answered", elapsedMs: 20 },
];
const OWN6 = "2001:db8:a::10";

/** What is found out, by name, and what follows from it, the weightiest first. */
const CASES: readonly (readonly [string, Partial<DiagnosisFacts>, readonly FindingCode[]])[] = [
  ["all is well", {
    gateways: [v4(answered("pcp", "11.0.0.1"), answered("nat-pmp", "11.0.0.1"))],
    reflexive: seenAs("11.0.0.1"),
  }, ["no-ipv6", "open"]],
  ["one of two gateways tells an address, by one of its protocols", {
    gateways: [
      { ...v4(failed("pcp", "no answer")), gateway: "192.168.2.1" },
      v4(failed("pcp", "no answer"), answered("nat-pmp", "11.0.0.1")),
    ],
    reflexive: seenAs("11.0.0.1"),
  }, ["no-ipv6", "open"]],
  ["nobody outside was asked", {
    gateways: [v4(answered("pcp", "11.0.0.1"))],
  }, ["unverified", "no-ipv6", "open"]],
  ["a NAT lets holes be punched", {
    gateways: [v4(answered("pcp", "11.0.0.1"))],
    reflexive: seenAs("11.0.0.1"),
    nat: { type: "port-restricted-cone" },
  }, ["no-ipv6", "open", "punchable"]],
  ["there is no NAT", {
    gateways: [v4(answered("pcp", "11.0.0.1"))],
    reflexive: seenAs("11.0.0.1"),
    nat: { type: "firewall" },
  }, ["no-ipv6", "open", "punchable"]],
  ["a NAT gives each peer another port", {
    gateways: [v4(failed("pcp", "no answer"))],
    nat: { type: "symmetric" },
  }, ["all-silent", "hard-nat", "no-ipv6"]],
  ["UDP does not come through", {
    gateways: [v4(failed("pcp", "no answer"))],
    nat: { type: "blocked" },
  }, ["all-silent", "udp-blocked", "no-ipv6"]],
  ["the NAT could not be made out", {
    gateways: [v4(failed("pcp", "no answer"))],
    nat: { type: "unknown" },
  }, ["all-silent", "no-ipv6"]],
  ["UPnP alone answers", {
    gateways: [v4(failed("pcp", "unreachable"), answered("upnp", "11.0.0.1"))],
    reflexive: seenAs("11.0.0.1"),
  }, ["upnp-only", "no-ipv6", "open"]],
  ["all is silent", {
    gateways: [v4(failed("pcp", "no answer"), failed("nat-pmp", "unreachable"))],
  }, ["all-silent", "no-ipv6"]],
  ["a protocol of another version", {
    gateways: [v4(failed("pcp", "unsupported version (speaks 0)"), failed("nat-pmp", "no answer"))],
  }, ["all-silent", "no-ipv6"]],
  ["nothing leaves", {
    gateways: [{ ...v4(), failure: "Cannot send: EPERM" }],
  }, ["all-silent", "no-ipv6"]],
  ["nobody may map", {
    gateways: [v4(failed("pcp", "NOT_AUTHORIZED"), failed("nat-pmp", "NOT_AUTHORIZED"))],
  }, ["refused", "no-ipv6"]],
  ["the gateway has no address", {
    gateways: [v4(failed("pcp", "NO_RESOURCES"), failed("nat-pmp", "NETWORK_FAILURE"))],
  }, ["no-external-address", "no-ipv6"]],
  ["the gateway tells 0.0.0.0", {
    gateways: [
      v4(failed("nat-pmp", "protocol violation (a success without an address or a port)")),
    ],
  }, ["no-external-address", "no-ipv6"]],
  ["a private address", {
    gateways: [v4(answered("nat-pmp", "10.0.0.2"))],
  }, ["double-nat", "no-ipv6"]],
  ["a shared address", {
    gateways: [v4(answered("pcp", "100.64.0.2"))],
  }, ["carrier-nat", "no-ipv6"]],
  ["a reserved address", {
    gateways: [v4(answered("pcp", "198.18.0.2"))],
  }, ["reserved-address", "no-ipv6"]],
  ["the internet sees another address", {
    gateways: [v4(answered("pcp", "11.0.0.1"))],
    reflexive: seenAs("11.0.0.9"),
  }, ["other-address", "no-ipv6"]],
  ["what is seen over IPv6 says nothing of IPv4", {
    gateways: [v4(answered("pcp", "11.0.0.1"))],
    reflexive: seenAs("2001:db8::1"),
  }, ["unverified", "no-ipv6", "open"]],
  ["the second gateway answers", {
    gateways: [v4(failed("pcp", "no answer")), v4(answered("pcp", "11.0.0.1"))],
    reflexive: seenAs("11.0.0.1"),
  }, ["no-ipv6", "open"]],
  ["no route", {}, ["no-gateway", "no-ipv6"]],
  ["a tunnel past the gateway", {
    gateways: [v4(answered("pcp", "11.0.0.1"))],
    detours: [{ family: 4, interface: "wg0", message: "IPv4 traffic leaves through wg0" }],
    reflexive: seenAs("11.0.0.1"),
  }, ["tunnel", "no-ipv6", "open"]],
  ["a tunnel alone", {
    detours: [{ family: 4, message: "IPv4 traffic leaves through a tunnel" }],
  }, ["tunnel", "no-ipv6"]],
  ["IPv6 that is opened", {
    gateways: [v6(answered("pcp", OWN6))],
    localAddresses: ["192.168.1.5", OWN6],
  }, ["ipv6-open"]],
  ["IPv6 that nobody opens", {
    gateways: [v6(failed("pcp", "no answer"))],
    localAddresses: [OWN6],
  }, ["ipv6-firewall"]],
  ["unique local addresses alone", {
    gateways: [v6(answered("pcp", "fd00::5"))],
    localAddresses: ["fd00::5", "fe80::1%eth0"],
  }, ["no-ipv6"]],
];

describe("diagnose()", () => {
  for (const [name, facts, codes] of CASES) {
    it(name, () => {
      const none = { gateways: [], detours: [], localAddresses: [], reflexive: [] };
      const diagnosis = diagnose({ ...none, ...facts });
      assertEquals(diagnosis.findings.map(({ code }) => code), codes);
      assertEquals({ ...none, ...facts, findings: diagnosis.findings }, diagnosis);
      const problems = diagnosis.findings.filter(({ severity }) => severity === "problem");
      for (const { message, remedy } of problems) {
        assertMatch(message, /\w/);
        assertMatch(remedy!, /\w/);
      }
    });
  }

  it("says of STUN servers that were asked in vain what they came to", () => {
    const [first] = diagnose({
      gateways: [v4(answered("pcp", "11.0.0.1"))],
      detours: [],
      localAddresses: [],
      reflexive: [{ server: "stun.example", outcome: "Cannot look up stun.example", elapsedMs: 1 }],
    }).findings;
    assertMatch(first!.message, /\(stun\.example: Cannot look up stun\.example\)/);
    assertMatch(first!.remedy!, /another STUN server/);
  });

  it("names the gateway, what was tried, and what the internet sees", () => {
    const [first] = diagnose({
      gateways: [v4(answered("nat-pmp", "10.0.0.2"))],
      detours: [],
      localAddresses: [],
      reflexive: seenAs("11.0.0.9"),
    }).findings;
    assertEquals(
      first?.message,
      "192.168.1.1 has the external address 10.0.0.2, which is a private one: another NAT stands " +
        "above it; the internet sees 11.0.0.9",
    );
  });

  it("says of what nobody outside has seen no more than that, and who could be asked", () => {
    const of = (external: string, more: Partial<DiagnosisFacts> = {}) =>
      diagnose({
        ...{ gateways: [v4(answered("pcp", external))], detours: [], localAddresses: [] },
        ...{ reflexive: [], ...more },
      }).findings.map(({ message, remedy = "" }) => `${message}. ${remedy}`);
    assertEquals(
      of("11.0.0.1")[0],
      "Nobody outside was asked whether 11.0.0.1 is what the internet sees. " +
        "Name a STUN server with --stun HOST:PORT",
    );
    assertMatch(of("10.0.0.2")[0]!, /another NAT stands above it\. /);
    for (const type of ["open", "firewall"] as const) {
      assertMatch(of("11.0.0.1", { nat: { type } }).join(), /punched: no NAT stands in between/);
    }
    const type = "port-restricted-cone";
    assertMatch(of("11.0.0.1", { nat: { type } }).join(), /punched: the NAT has one port for all/);
  });
});
