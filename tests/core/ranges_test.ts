/**
 * The numbers that the library takes: what is none is refused by name, with the range, which is the
 * one that the option's documentation tells.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assertThrows } from "@std/assert";
import { IceAgent, type IceAgentOptions } from "../../core/ice/agent.ts";
import { TcpPunch, type TcpPunchOptions } from "../../core/ice/tcp.ts";
import { createRendezvous } from "../../core/ice/ticket.ts";
import { SimulatedGateway } from "../../core/gateway/gateway.ts";
import { NatPmpServer, type NatPmpServerOptions } from "../../core/natpmp/server.ts";
import { PcpClient } from "../../core/pcp/client.ts";
import { PcpServer, type PcpServerOptions } from "../../core/pcp/server.ts";
import { seededRandom } from "../../core/random.ts";
import { Link } from "../../core/sim/link.ts";
import { Trace } from "../../core/sim/trace.ts";
import { World } from "../../core/sim/world.ts";
import { NatBehaviour } from "../../core/stun/behaviour.ts";
import { StunClient, type StunRequest } from "../../core/stun/client.ts";
import { ReflexiveKeeper } from "../../core/stun/reflexive.ts";
import { StunServer } from "../../core/stun/server.ts";
import { TurnClient } from "../../core/stun/turn.ts";
import { MappingTable, type MappingTableOptions } from "../../core/table/mod.ts";
import { ControlPoint } from "../../core/upnp/control_point.ts";
import { encodeEvent, encodeSubscribe } from "../../core/upnp/gena.ts";
import { DeviceSearch, type DeviceSearchOptions } from "../../core/upnp/search.ts";
import { IgdServer, type IgdServerOptions } from "../../core/upnp/server.ts";
import { encodeFault } from "../../core/upnp/soap.ts";
import { encodeSearch } from "../../core/upnp/ssdp.ts";

const random = seededRandom(1);
const address = "192.0.2.1", at = { address, port: 3478 };
const table = new MappingTable({ externalAddresses: ["203.0.113.7"] });

const agent = (options: Partial<IceAgentOptions>) =>
  new IceAgent({ random, hosts: [address], ...options });
const punch = (options: Partial<TcpPunchOptions>) =>
  new TcpPunch({ random, hosts: [address], ...options });
const stun = (request: Partial<StunRequest>) =>
  new StunClient({ random }).request({ server: at, ...request }, 0);
const tables = (options: Partial<MappingTableOptions>) =>
  new MappingTable({ externalAddresses: ["203.0.113.7"], ...options });
const natPmp = (options: Partial<NatPmpServerOptions>) => new NatPmpServer({ table, ...options });
const pcp = (options: Partial<PcpServerOptions>) => new PcpServer({ table, ...options });
const search = (options: Partial<DeviceSearchOptions>) =>
  new DeviceSearch({ places: [{ local: address }], ...options });
const igd = (options: Partial<IgdServerOptions>) =>
  new IgdServer({ table, random, interfaces: [{ address, prefixLength: 24 }], ...options });

/** Whose number it is, its name, its range, and who is to refuse half of one. */
const NUMBERS: readonly (readonly [
  owner: string,
  name: string,
  range: string,
  make: (half: number) => unknown,
])[] = [
  ["IceAgent", "port", "0..65535", (port) => agent({ port })],
  ["IceAgent", "pacingMs", "5..10000", (pacingMs) => agent({ pacingMs })],
  ["IceAgent", "gatherTimeoutMs", "1..120000", (ms) => agent({ gatherTimeoutMs: ms })],
  ["IceAgent", "timeoutMs", "1..86400000", (timeoutMs) => agent({ timeoutMs })],
  ["IceAgent", "packetsPerSecond", "1..10000", (n) => agent({ budget: { packetsPerSecond: n } })],
  ["IceAgent", "probes", "0..100000", (probes) => agent({ budget: { probes } })],
  ["IceAgent", "sockets", "0..1024", (sockets) => agent({ budget: { sockets } })],
  ["IceAgent", "servers", "1..65535", (port) => agent({ servers: [{ address, port }] })],
  ["IceAgent", "relays", "1..65535", (port) => {
    return agent({ relays: [{ server: { address, port }, username: "", password: "" }] });
  }],
  ["IceAgent", "delayMs", "0..3600000", (delayMs) => {
    const it = agent({});
    it.gather(0);
    it.setRemote(createRendezvous([], random).public, 0, { delayMs });
  }],
  ["TcpPunch", "port", "0..65535", (port) => punch({ port })],
  ["TcpPunch", "gatherTimeoutMs", "1..120000", (ms) => punch({ gatherTimeoutMs: ms })],
  ["TcpPunch", "timeoutMs", "1..86400000", (timeoutMs) => punch({ timeoutMs })],
  ["TcpPunch", "servers", "1..65535", (port) => punch({ servers: [{ address, port }] })],
  ["TcpPunch", "delayMs", "0..3600000", (delayMs) => {
    return punch({}).setRemote(createRendezvous([], random).public, 0, { delayMs });
  }],
  ["StunClient", "initialRtoMs", "1..60000", (ms) => new StunClient({ random, initialRtoMs: ms })],
  ["StunClient", "maxSends", "1..16", (maxSends) => stun({ maxSends })],
  ["StunClient", "lastWait", "1..64", (lastWait) => stun({ lastWait })],
  ["StunServer", "maxPerSecond", "1..1000000000", (n) => {
    return new StunServer({ listen: at, maxPerSecond: n });
  }],
  ["NatBehaviour", "servers.port", "1..65535", (port) => {
    return new NatBehaviour({ servers: [{ address, port }], localAddress: address, random });
  }],
  ["NatBehaviour", "maxLifetimeSeconds", "4..3600", (seconds) => {
    const options = { servers: [at], localAddress: address, random };
    return new NatBehaviour({ ...options, maxLifetimeSeconds: seconds });
  }],
  ["TurnClient", "lifetimeSeconds", "60..3600", (seconds) => {
    const options = { server: at, username: "", password: "", random };
    return new TurnClient({ ...options, lifetimeSeconds: seconds });
  }],
  ["Link", "mtu", "0..65535", (mtu) => new Link({ mtu })],
  ["Trace", "size", "0..10000000", (size) => new Trace({ size })],
  ["World", "maxStepsPerInstant", `1..${Number.MAX_SAFE_INTEGER}`, (n) => {
    return new World({ maxStepsPerInstant: n });
  }],
  ["Nat", "timeoutMs", `1..${2 ** 40}`, (timeoutMs) => nat({ timeoutMs })],
  ["Nat", "maxMappings", `1..${2 ** 24}`, (maxMappings) => nat({ maxMappings })],
  ["MappingTable", "maxEntries", `1..${2 ** 24}`, (n) => tables({ maxEntries: n })],
  ["MappingTable", "maxPortsPerClient", `0..${2 ** 24}`, (n) => tables({ maxPortsPerClient: n })],
  ["MappingTable", "maxQuarantined", `0..${2 ** 24}`, (n) => tables({ maxQuarantined: n })],
  ["MappingTable", "samePortProtocols[0]", "1..255", (n) => tables({ samePortProtocols: [n] })],
  ["MappingTable", "quarantine.udpSeconds", "0..4294967295", (udpSeconds) => {
    return tables({ quarantine: { udpSeconds } });
  }],
  ["MappingTable", "limit", `1..${2 ** 24}`, (limit) => tables({}).watch(limit)],
  ["NatPmpServer", "announceCopies", "0..10", (n) => natPmp({ announceCopies: n })],
  ["NatPmpServer", "maxLifetimeSeconds", "1..4294967295", (n) => natPmp({ maxLifetimeSeconds: n })],
  ["PcpServer", "announceCopies", "0..10", (n) => pcp({ announceCopies: n })],
  ["PcpServer", "maxLifetimeSeconds", "1..4294967294", (n) => pcp({ maxLifetimeSeconds: n })],
  ["PcpServer", "minLifetimeSeconds", "1..86400", (n) => pcp({ minLifetimeSeconds: n })],
  ["PcpServer", "minPeerLifetimeSeconds", "1..86400", (n) => pcp({ minPeerLifetimeSeconds: n })],
  ["PcpServer", "shortErrorSeconds", "0..4294967295", (n) => pcp({ shortErrorSeconds: n })],
  ["PcpServer", "longErrorSeconds", "0..4294967295", (n) => pcp({ longErrorSeconds: n })],
  ["PcpServer", "maxFilters", "1..32", (n) => pcp({ maxFilters: n })],
  ["PcpServer", "maxDescriptionBytes", "0..1016", (n) => pcp({ maxDescriptionBytes: n })],
  ["PcpServer", "maxPortSetSize", "1..4096", (n) => pcp({ maxPortSetSize: n })],
  ["PcpServer", "protocols[0]", "1..255", (n) => pcp({ protocols: [n] })],
  ["PcpClient", "maxAttempts", `0..${Number.MAX_SAFE_INTEGER}`, (maxAttempts) => {
    return new PcpClient({ servers: [at], localAddress: address, random, maxAttempts });
  }],
  ["SimulatedGateway", "code", "1..999", (code) => {
    return new SimulatedGateway({ random, externalAddresses: [address] }).setRefusal(code, 0);
  }],
  ["DeviceSearch", "mx", "1..5", (mx) => search({ mx })],
  ["DeviceSearch", "port", "1..65535", (port) => search({ port })],
  ["DeviceSearch", "durationMs", "1..600000", (durationMs) => search({ durationMs })],
  ["DeviceSearch.search()", "durationMs", "1..600000", (ms) => search({}).search(0, ms)],
  ["ControlPoint", "timeoutMs", "1..600000", (timeoutMs) => {
    return new ControlPoint({ places: [{ local: address }], timeoutMs });
  }],
  ["IgdServer", "version", "1..2", (version) => igd({ version: version as 1 })],
  ["IgdServer", "ssdpPort", "0..65535", (ssdpPort) => igd({ ssdpPort })],
  ["IgdServer", "httpPort", "0..65535", (httpPort) => igd({ httpPort })],
  ["IgdServer", "maxAgeSeconds", "60..86400", (maxAgeSeconds) => igd({ maxAgeSeconds })],
  ["IgdServer", "maxLeaseSeconds", "1..4294967295", (n) => igd({ maxLeaseSeconds: n })],
  ["IgdServer", "interfaces[0].prefixLength", "0..32", (prefixLength) => {
    return igd({ interfaces: [{ address, prefixLength }] });
  }],
  ["IgdServer", "interfaces[0].prefixLength", "0..128", (prefixLength) => {
    return igd({ interfaces: [{ address: "2001:db8::1", prefixLength }] });
  }],
  ["SUBSCRIBE", "timeoutSeconds", "1..2147483647", (n) => encodeSubscribe("/", "http://a/", n)],
  ["an event", "sequence", "0..4294967295", (sequence) => {
    return encodeEvent("/", { sid: "uuid:1", sequence, properties: {} });
  }],
  ["a fault", "code", "100..999", (code) => encodeFault(code, "")],
  ["M-SEARCH", "mx", "1..5", (mx) => encodeSearch({ host: at, target: "ssdp:all", mx })],
];

function nat(options: { readonly timeoutMs?: number; readonly maxMappings?: number }): unknown {
  const world = new World(), inside = world.segment("lan"), outside = world.segment("internet");
  return world.nat("nat", {
    inside: [inside, "192.168.1.1"],
    outside: [outside, "203.0.113.1"],
    ...options,
  });
}

describe("half a number is refused by its name and with its range", () => {
  for (const [owner, name, range, make] of NUMBERS) {
    it(`${owner}: ${name}, ${range}`, () => {
      assertThrows(() => make(0.5), RangeError, `'${name}' must be an integer in ${range}:`);
    });
  }

  it("a list of servers that is too long or too short likewise, by its length", () => {
    const make = (count: number) =>
      new NatBehaviour({
        servers: Array.from({ length: count }, () => at),
        localAddress: address,
        random,
      });
    for (const count of [0, 9]) {
      assertThrows(() => make(count), RangeError, "'servers.length' must be an integer in 1..8:");
    }
    const keep = (count: number) =>
      new ReflexiveKeeper({
        servers: Array.from({ length: count }, (_, i) => ({ address, port: i + 1 })),
        random,
      });
    assertThrows(() => keep(9), RangeError, "'servers.length' must be an integer in 0..8:");
  });
});
