// One test for each client clause of RFC 6887, by its id.
import { describe } from "node:test";
import { parseCidr } from "../../core/cidr.ts";
import { pickLocalAddress } from "../../adapters/discovery/local_address.ts";
import type { InterfaceAddress } from "../../adapters/runtime.ts";
import { equalBytes, fromHex } from "../../core/bytes.ts";
import type { Endpoint } from "../../core/machine.ts";
import {
  decodeRequest,
  decodeResponse,
  encodeRequest,
  PCP_RESULT,
  type PcpRequest,
} from "../../core/pcp/codec.ts";
import type { PcpEvent } from "../../core/pcp/client.ts";
import { PortMapper } from "../../core/portmap/mapper.ts";
import { World } from "../../core/sim/mod.ts";
import { seededRandom } from "../../core/random.ts";
import { rig as mapperRig } from "../core/portmap/rig.ts";
import { EXTERNAL, forge, LOCAL, Rig, SERVER } from "../core/pcp/harness.ts";
import { assertEquals, assertNotEquals, assertThrows, claim, it } from "./clause.ts";

const REMOTE = { address: "198.51.100.20", port: 443 };
const TCP = { protocol: 6, internalPort: 8080 } as const;
const STRANGER = { address: "192.168.1.66", port: 5351 };
const MOVED = { address: "203.0.113.8", port: 40999 };
const NEIGHBOUR = "192.168.1.77";
const DAY_MS = 86_400_000;

/** A gateway's host that hears what it is asked and answers nothing. */
function listeningBox() {
  const world = new World({ seed: 1 });
  const lan = world.segment("lan", { delayMs: 1 });
  const box = world.host("gateway");
  box.attach(lan, SERVER.address);
  const asked: { readonly from: Endpoint; readonly data: Uint8Array }[] = [];
  box.bind({ port: SERVER.port }).onDatagram = (data, from) =>
    asked.push({ from, data: data.slice() });
  return { world, lan, asked };
}

/** The gaps between requests, milliseconds. */
function gaps(sent: readonly { readonly at: number }[]): number[] {
  return sent.slice(1).map(({ at }, i) => at - sent[i]!.at);
}

function failureOf(event: PcpEvent | undefined): unknown {
  return event && "failure" in event ? event.failure : undefined;
}

describe("PCP client", () => {
  it("PCP-C-01: requests are datagrams of at most 1100 bytes and a multiple of 4", () => {
    const rig = new Rig();
    rig.client.map({ ...TCP, description: "x".repeat(1001) }, 0);
    rig.client.map({ ...TCP, internalPort: 1, description: "odd" }, 0);
    rig.client.peer({ ...TCP, remote: REMOTE }, 0);
    rig.client.probe(0);
    for (const { data } of rig.drain()) claim(data.length <= 1100 && data.length % 4 === 0);
    assertThrows(() => rig.client.map({ ...TCP, protocol: 17, description: "x".repeat(1016) }, 0));
  });

  it("PCP-C-02: version 2, R clear, reserved bytes zero on sending and ignored on receipt", () => {
    const rig = new Rig();
    const id = rig.client.map(TCP, 0);
    const [{ data }] = rig.drain() as [ReturnType<Rig["drain"]>[0]];
    assertEquals([...data.subarray(0, 4)], [2, 1, 0, 0]);
    assertEquals([...data.subarray(37, 40)], [0, 0, 0]);
    const answer = rig.ask();
    answer.fill(0xff, 12, 24).fill(0xff, 37, 40).fill(0xff, 2, 3);
    rig.receive(answer);
    assertEquals(rig.client.mapping(id)!.state, "running");
  });

  it("PCP-C-03: IPv4 is ::ffff/96 with all 96 bits looked at; each family has its all-zeros", () => {
    const rig = new Rig();
    rig.client.map(TCP, 0);
    const [{ data }] = rig.drain() as [ReturnType<Rig["drain"]>[0]];
    assertEquals(data.subarray(8, 24), fromHex("00000000000000000000ffffc0a80164"));
    assertEquals(data.subarray(44, 60), fromHex("00000000000000000000ffff00000000"));
    const answer = rig.ask();
    answer[44] = 1; // one bit of the 96 is another
    const decoded = decodeResponse(answer);
    claim(typeof decoded === "object" && decoded.kind === "map");
    assertEquals(decoded.externalAddress, "100::ffff:cb00:7107");
    const six = new Rig({ localAddress: "2001:db8::100" });
    six.client.map(TCP, 0);
    six.drain();
    assertEquals(six.last.suggestedAddress, "::");
  });

  it("PCP-C-04: requests go to the server that is configured", () => {
    const server = { address: "10.9.8.7", port: 5351 };
    const rig = new Rig({ servers: [server] });
    rig.client.map(TCP, 0);
    rig.client.probe(0);
    for (const { to } of rig.drain()) assertEquals(to, server);
  });

  it("PCP-C-05: the source port is the system's to choose, and each client has its own", () => {
    const { world, lan, asked } = listeningBox();
    const host = world.host("host");
    host.attach(lan, LOCAL);
    for (const port of [1, 2]) {
      const mapper = new PortMapper({ random: world.fork(), protocols: ["pcp"] });
      host.run(mapper, {}).do((machine, now) => {
        machine.networkChanged([{ gateway: SERVER }], now);
        assertEquals(machine.sockets()[0]!.local?.port ?? 0, 0);
        machine.map({ protocol: "tcp", internalPort: port }, now);
      });
    }
    world.runFor(100);
    assertEquals(new Set(asked.map(({ from }) => from.port)).size, 2);
    claim(asked.every(({ from }) => from.port !== SERVER.port));
  });

  it("PCP-C-06: the client address field is the address that the packet leaves from", () => {
    const rig = new Rig({ localAddress: "::ffff:10.0.0.3" });
    rig.client.map(TCP, 0);
    rig.client.peer({ ...TCP, remote: REMOTE }, 0);
    rig.client.probe(0);
    for (const { request } of rig.drain()) assertEquals(request.clientAddress, "10.0.0.3");
    // A host with two addresses, and then with another one: whichever its packets leave from.
    const { world, lan, asked } = listeningBox();
    const host = world.host("host");
    host.attach(lan, [LOCAL, NEIGHBOUR]);
    const mapper = new PortMapper({ random: world.fork(), protocols: ["pcp"] });
    const process = host.run(mapper, {});
    const leaveFrom = (localAddress: string) => {
      process.do((machine, now) =>
        machine.networkChanged([{ gateway: SERVER, localAddress, way: localAddress }], now)
      );
      world.runFor(10_000);
    };
    process.do((machine, now) => machine.map({ protocol: "tcp", internalPort: 8080 }, now));
    leaveFrom(NEIGHBOUR);
    leaveFrom(LOCAL);
    const claimed = asked.map(({ data }) => (decodeRequest(data) as PcpRequest).clientAddress);
    assertEquals(claimed, asked.map(({ from }) => from.address));
    assertEquals([...new Set(claimed)], [NEIGHBOUR, LOCAL]);
  });

  it("PCP-C-07: an inner NAT's external address can be put there", () => {
    const rig = new Rig();
    rig.client.networkChanged("100.64.0.9", 0);
    rig.client.map(TCP, 0);
    rig.drain();
    assertEquals(rig.last.clientAddress, "100.64.0.9");
  });

  it("PCP-C-08: retransmissions are the same bytes, nonce included", () => {
    const rig = new Rig();
    rig.client.map(TCP, 0);
    const sent = rig.advance(200_000);
    claim(sent.length > 5);
    for (const { data } of sent) assertEquals(data, sent[0]!.data);
  });

  it("PCP-C-09: 3 s, doubling to 1024 s, each with ±10 %; no limit of count or duration", () => {
    const exact = new Rig({ fastStart: false });
    exact.client.map(TCP, 0);
    const waits = gaps(exact.advance(20 * 1_126_400));
    claim(waits.length >= 18);
    let previous = 1500;
    for (const wait of waits) {
      const base = Math.min(2 * previous, 1_024_000);
      claim(wait >= 0.9 * base && wait <= 1.1 * base, `${wait} around ${base}`);
      previous = wait;
    }
    const fast = new Rig();
    fast.client.map(TCP, 0);
    const at = fast.advance(12_000).map((sent) => sent.at);
    assertEquals(at.slice(0, 3), [0, 250, 750]);
    claim(at[3]! >= 2700 && at[3]! <= 3300 && at[4]! >= 7500 && at[4]! <= 10_600);
    const other = new Rig({ fastStart: false }, 2);
    other.client.map(TCP, 0);
    assertNotEquals(gaps(other.advance(100_000)), waits.slice(0, 5));
  });

  it("PCP-C-10: once answered, the next request is the renewal, to the same server", () => {
    const servers = [SERVER, { address: "192.168.1.2", port: 5351 }];
    const rig = new Rig({ servers });
    rig.client.map({ ...TCP, lifetimeSeconds: 1000 }, 0);
    rig.drain();
    rig.client.handleUnreachable(SERVER, "client", 0);
    assertEquals(rig.drain().length, 1);
    rig.grant();
    assertEquals(rig.advance(499_000), []);
    const [renewal] = rig.advance(200_000);
    assertEquals(renewal!.to, servers[1]);
  });

  it("PCP-C-11: what comes from another address or port is dropped", () => {
    const rig = new Rig();
    rig.client.map(TCP, 0);
    rig.drain();
    claim(!rig.receive(rig.ask(), STRANGER));
    rig.gateway.disturb({ wrongSource: true }, 0);
    claim(!rig.grant(), "from another port");
    assertEquals(rig.heard(), []);
    assertEquals(rig.client.stats.dropped["wrong-source"], 2);
  });

  it("PCP-C-12: under 4 bytes, or with R clear, is dropped", () => {
    const rig = new Rig();
    rig.client.map(TCP, 0);
    rig.drain();
    const answer = rig.ask();
    claim(!rig.receive(answer.subarray(0, 3)));
    answer[1]! &= 0x7f;
    claim(!rig.receive(answer));
    assertEquals(rig.heard(), []);
    assertEquals(rig.client.stats.dropped["too-short"], 1);
    assertEquals(rig.client.stats.dropped["not-a-response"], 1);
  });

  it("PCP-C-13: UNSUPP_VERSION counts whatever its length", () => {
    for (const hex of ["02810001", "0381000100000708", "0181000100"]) {
      const rig = new Rig();
      rig.client.map(TCP, 0);
      rig.drain();
      claim(rig.receive(fromHex(hex)), hex);
      assertEquals(rig.heard(), ["failed"]);
    }
  });

  it("PCP-C-14: under 24 bytes, over 1100 or no multiple of 4 is ignored", () => {
    const rig = new Rig();
    rig.client.map(TCP, 0);
    rig.drain();
    const answer = rig.ask();
    const long = new Uint8Array(1104), odd = new Uint8Array(62);
    long.set(answer);
    odd.set(answer);
    for (const data of [answer.subarray(0, 20), long, odd]) claim(!rig.receive(data));
    assertEquals(rig.heard(), []);
    assertEquals(rig.client.stats.dropped["bad-length"], 2);
    const longest = new Uint8Array(1100);
    longest.set(answer);
    claim(rig.receive(longest));
    assertEquals(rig.heard(), ["mapped"]);
  });

  it("PCP-C-15: an opcode or fields of no request are ignored", () => {
    const rig = new Rig();
    rig.client.peer({ ...TCP, remote: REMOTE }, 0);
    rig.drain();
    const { kind: _kind, ...fields } = rig.last;
    const asMap = encodeRequest({ kind: "map", ...fields });
    const request = decodeRequest(asMap);
    claim(typeof request === "object");
    claim(!rig.grant({}, { ...rig.sent[0]!, data: asMap, request }));
    claim(!rig.receive(fromHex("0283000e 00000000 00000000 00000000 00000000 00000000")));
    assertEquals(rig.heard(), []);
    assertEquals(rig.client.stats.dropped.unmatched, 2);
  });

  it("PCP-C-16: a MAP response matches by internal address, protocol, port and nonce", () => {
    const rig = new Rig();
    rig.client.map({ ...TCP, thirdParty: "192.168.1.50" }, 0);
    rig.drain();
    const { last } = rig;
    // Forged, so made by hand.
    claim(!rig.receive(forge(last, { options: [] })), "no THIRD_PARTY");
    const another = [{ type: "third-party", internalAddress: "192.168.1.51" }] as const;
    claim(!rig.receive(forge(last, { options: another })), "another's");
    for (const offset of [24, 35, 36, 40]) {
      const wrong = rig.ask();
      wrong[offset]! ^= 1;
      claim(!rig.receive(wrong), `byte ${offset}`);
    }
    assertEquals(rig.heard(), []);
    claim(rig.grant());
    assertEquals(rig.heard(), ["mapped"]);
  });

  it("PCP-C-17: a PEER response matches by the remote address and port too", () => {
    const rig = new Rig();
    rig.client.peer({ ...TCP, remote: REMOTE }, 0);
    rig.drain();
    for (const offset of [24, 36, 40, 60, 79]) {
      const wrong = rig.ask();
      wrong[offset]! ^= 1;
      claim(!rig.receive(wrong), `byte ${offset}`);
    }
    claim(rig.grant());
    assertEquals(rig.heard(), ["mapped"]);
  });

  it("PCP-C-18: the epoch of what does not match is not looked at", () => {
    const rig = new Rig();
    rig.gateway.setEpoch(5000, 0);
    rig.mapped();
    rig.gateway.setEpoch(0, 0);
    const wrong = rig.ask();
    wrong[30]! ^= 1;
    claim(!rig.receive(wrong));
    assertEquals(rig.heard(), ["mapped"]);
    assertEquals(rig.advance(6000), []);
  });

  it("PCP-C-19: later and different answers to one request are followed", () => {
    const rig = new Rig();
    rig.mapped();
    const request = rig.sent.at(-1)!;
    rig.grant({ external: MOVED });
    rig.refuse(PCP_RESULT.NOT_AUTHORIZED, 1800);
    rig.grant({}, request);
    assertEquals(rig.heard(), ["mapped", "moved", "renewal-failed", "moved"]);
  });

  it("PCP-C-20: answers to requests never sent are ignored", () => {
    const stranger = new Rig({}, 7);
    stranger.client.map(TCP, 0);
    stranger.drain();
    const rig = new Rig();
    claim(!rig.receive(stranger.ask()));
    rig.mapped();
    stranger.scenario((gateway, now) => gateway.setExternalAddresses([MOVED.address], now));
    claim(!rig.receive(stranger.ask()));
    assertEquals(rig.heard(), ["mapped"]);
    assertEquals(rig.client.stats.dropped["wrong-nonce"], 1);
  });

  it("PCP-C-21: absurd lifetimes count as a day, of grants and of errors", () => {
    const rig = new Rig();
    const id = rig.mapped({}, { lifetimeSeconds: 0xffff_ffff });
    assertEquals(rig.client.mapping(id)!.expiresAt, DAY_MS);
    const [renewal] = rig.advance(DAY_MS);
    claim(renewal!.at >= DAY_MS / 2 && renewal!.at <= DAY_MS * 5 / 8);
    const refused = new Rig();
    refused.client.map(TCP, 0);
    refused.drain();
    refused.refuse(PCP_RESULT.NOT_AUTHORIZED, 0xffff_ffff);
    assertEquals(refused.advance(DAY_MS - 1), []);
    assertEquals(refused.advance(1).length, 1);
  });

  it("PCP-C-22: a refused request is not repeated within the error's lifetime", () => {
    const rig = new Rig();
    const id = rig.client.map(TCP, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.NOT_AUTHORIZED, 1800);
    const failure = { kind: "refused", code: 2, name: "NOT_AUTHORIZED", retryAt: 1_800_000 };
    const failed = { type: "failed", id, failure, retryAt: 1_800_000 } as PcpEvent;
    assertEquals(rig.events.splice(0), [failed]);
    assertEquals(rig.client.mapping(id)!.state, "error");
    assertEquals(rig.advance(1_799_999), []);
    assertEquals(rig.advance(1).length, 1);
    rig.grant();
    assertEquals(rig.heard(), ["mapped"]);
  });

  it("PCP-C-23: in another network the hold times of the old one do not count", () => {
    const rig = new Rig();
    rig.client.map(TCP, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.NO_RESOURCES, 1800);
    rig.client.networkChanged("10.0.0.2", 1000);
    assertEquals(rig.drain().length, 1);
  });

  it("PCP-C-24: a global address, not a unique local one; a changed one is asked for from there", () => {
    const nic = (...addresses: string[]): InterfaceAddress[] =>
      addresses.map((address) => ({ name: "eth0", address, prefixLength: 64, internal: false }));
    const global = "2001:db8::aaaa", local = "fd00::1", private4 = "10.0.0.5";
    assertEquals(pickLocalAddress(nic(local, global), 6), global);
    assertEquals(pickLocalAddress(nic("fe80::1%eth0", local), 6), local);
    assertEquals(pickLocalAddress(nic(private4), 4), private4);
    const rig = new Rig({ localAddress: global });
    rig.mapped();
    rig.client.networkChanged("2001:db8::bbbb", 50_000);
    const [again] = rig.drain();
    assertEquals(again!.request.clientAddress, "2001:db8::bbbb");
    rig.now = 50_000;
    rig.grant();
    assertEquals(rig.heard(), ["mapped", "moved"]);
  });

  it("PCP-C-25: time comes from outside; a late call does what is due once", () => {
    const rig = new Rig();
    rig.mapped({ lifetimeSeconds: 3600 });
    assertEquals(rig.sleep(3_000_000).length, 1);
    assertEquals(rig.sleep(0), []);
    assertEquals(rig.heard(), ["mapped"]);
  });

  it("PCP-C-26: an epoch that does not fit has every mapping asked for again", () => {
    const rig = new Rig();
    for (let port = 1; port <= 3; port++) rig.mapped({ internalPort: port });
    rig.now = 60_000;
    rig.gateway.setEpoch(3, rig.now);
    rig.grant();
    assertEquals(rig.heard().slice(3), ["gateway-restarted", "renewed"]);
    const ports = rig.advance(5000).map(({ request }) => (request as typeof rig.last).internalPort);
    assertEquals(ports.sort(), [1, 2]);
  });

  it("PCP-C-27: UNSUPP_VERSION with version 0 says that NAT-PMP may be spoken", () => {
    const rig = new Rig({ gateway: { protocols: ["nat-pmp"] } });
    rig.client.map(TCP, 0);
    rig.drain();
    rig.grant();
    assertEquals(failureOf(rig.events[0]), { kind: "unsupported-version", version: 0 });
  });

  it("PCP-C-28: a server without version 2 is asked again after min(30 min, lifetime)", () => {
    const cases = [["00000708", 1_800_000], ["0000003c", 60_000], ["00015180", 1_800_000]] as const;
    for (const [lifetime, waitMs] of cases) {
      const rig = new Rig();
      rig.client.map(TCP, 0);
      rig.drain();
      rig.receive(fromHex(`03810001 ${lifetime} 00000000`));
      assertEquals(failureOf(rig.events[0]), { kind: "unsupported-version", version: 3 });
      assertEquals(rig.advance(waitMs - 1), []);
      assertEquals(rig.advance(1).length, 1);
    }
  });

  it("PCP-C-29: requests leave the server room for its answer", () => {
    const rig = new Rig();
    const filters = (n: number) =>
      new Array(n).fill({ prefix: parseCidr("198.51.100.0/24")!, port: 0 });
    rig.client.map({ ...TCP, filters: filters(41) }, 0);
    claim(rig.drain()[0]!.data.length <= 1100 - 24);
    assertThrows(() => rig.client.map({ ...TCP, protocol: 17, filters: filters(42) }, 0));
  });

  it("PCP-C-30: options of an answer that are not understood are ignored, mandatory ones too", () => {
    const rig = new Rig();
    rig.client.map(TCP, 0);
    rig.drain();
    const data = new Uint8Array(4);
    const options = [77, 200].map((code) => ({ type: "unknown", code, data } as const));
    // No gateway by the RFC answers with options that were not asked for: made by hand.
    claim(rig.receive(forge(rig.last, { options })));
    assertEquals(rig.heard(), ["mapped"]);
  });

  it("PCP-C-31: options have a zero reserved byte, a length without padding, zeros as padding", () => {
    const rig = new Rig();
    rig.client.map({ ...TCP, description: "Minecraft" }, 0);
    const [{ data }] = rig.drain() as [ReturnType<Rig["drain"]>[0]];
    assertEquals(data.subarray(60), fromHex("80000009 4d696e65 63726166 74000000"));
  });

  it("PCP-C-32: opcodes carry only the options they permit", () => {
    const rig = new Rig();
    assertThrows(
      () => rig.client.peer({ ...TCP, remote: REMOTE, preferFailure: true } as never, 0),
      TypeError,
      "preferFailure",
    );
    const filters = [{ prefix: parseCidr("10.0.0.0/8")!, port: 0 }];
    rig.client.peer({ ...TCP, remote: REMOTE, filters, portSet: { size: 4 } } as never, 0);
    rig.client.probe(0);
    for (const { request } of rig.drain()) {
      claim(request.kind !== "other");
      assertEquals(request.options, []);
    }
  });

  it("PCP-C-33: nothing is told as mapped before a positive answer", () => {
    const rig = new Rig();
    const id = rig.client.map({ ...TCP, suggestedExternal: EXTERNAL }, 0);
    rig.advance(60_000);
    assertEquals(rig.heard(), []);
    assertEquals(rig.client.mapping(id)!.external, undefined);
    rig.grant();
    assertEquals(rig.client.mapping(id)!.external, EXTERNAL);
  });

  it("PCP-C-34: one internal address, protocol and port has one mapping", () => {
    const rig = new Rig();
    rig.mapped();
    assertThrows(() => rig.client.map(TCP, 0), TypeError, "8080");
  });

  it("PCP-C-35: protocol 0 and protocols without ports go with port 0", () => {
    const rig = new Rig();
    for (const protocol of [0, 47, 1]) {
      assertThrows(() => rig.client.map({ protocol, internalPort: 1 }, 0), RangeError);
      rig.client.map({ protocol, internalPort: 0 }, 0);
      rig.drain();
      assertEquals([rig.last.protocol, rig.last.internalPort], [protocol, 0]);
      // The simulated gateway maps all protocols, and of those without ports none: made by hand.
      const byHand = forge(rig.last, { external: { ...EXTERNAL, port: 0 } });
      claim(protocol === 0 ? rig.grant() : rig.receive(byHand));
    }
    assertEquals(rig.heard(), ["mapped", "mapped", "mapped"]);
  });

  it("PCP-C-36: without preference port 0 and the family's all-zeros are suggested", () => {
    for (const [localAddress, zeros] of [[LOCAL, "0.0.0.0"], ["2001:db8::1", "::"]] as const) {
      const rig = new Rig({ localAddress });
      rig.client.map(TCP, 0);
      rig.drain();
      assertEquals([rig.last.suggestedPort, rig.last.suggestedAddress], [0, zeros]);
    }
    const wished = new Rig();
    wished.client.map({ ...TCP, suggestedExternal: { port: 80 } }, 0);
    wished.drain();
    assertEquals([wished.last.suggestedPort, wished.last.suggestedAddress], [80, "0.0.0.0"]);
  });

  it("PCP-C-37: another external endpoint than suggested is taken", () => {
    const rig = new Rig();
    rig.gateway.addStatic("tcp", 80, { address: NEIGHBOUR, port: 80 }, 0);
    const id = rig.mapped({ suggestedExternal: { port: 80, address: "203.0.113.99" } });
    assertEquals(rig.client.mapping(id)!.external, EXTERNAL);
  });

  it("PCP-C-38: each mapping has a nonce of its own, filled by the random source", () => {
    const nonces = [1, 2].flatMap((seed) => {
      const rig = new Rig({}, seed);
      rig.client.map(TCP, 0);
      rig.client.map({ ...TCP, internalPort: 1 }, 0);
      return rig.drain().map(({ request }) => (request as typeof rig.last).nonce);
    });
    for (const a of nonces) {
      assertEquals(nonces.filter((b) => equalBytes(a, b)).length, 1);
      claim(a.some((byte) => byte !== 0));
    }
  });

  it("PCP-C-39: a renewal before expiry suggests the assigned endpoint with the same nonce", () => {
    const rig = new Rig({ gateway: { maxLifetimeSeconds: 600 } });
    rig.mapped({ lifetimeSeconds: 900 });
    const first = rig.last;
    const [renewal] = rig.advance(599_999);
    claim(renewal!.request.kind === "map");
    assertEquals(renewal!.request, {
      ...first,
      kind: "map",
      suggestedPort: EXTERNAL.port,
      suggestedAddress: EXTERNAL.address,
    });
  });

  it("PCP-C-40: renewals at [1/2, 5/8], [3/4, 13/16]…, never less than 4 s apart", () => {
    const LIFETIME_MS = 600_000;
    const spread = Array.from({ length: 5 }, () => ({ least: Infinity, most: -Infinity }));
    for (let seed = 1; seed <= 200; seed++) {
      const rig = new Rig({}, seed);
      rig.mapped({ lifetimeSeconds: LIFETIME_MS / 1000 });
      const sent = rig.advance(LIFETIME_MS - 1);
      // 1/2, 3/4… until the next would come less than 4 s after the last.
      claim(sent.length >= 6, `${sent.length} renewals`);
      for (const [i, { at }] of sent.entries()) {
        const low = LIFETIME_MS * (1 - 2 ** -(i + 1));
        claim(at >= low, `renewal ${i + 1} at ${at}`);
        if (i >= 5) continue;
        const width = LIFETIME_MS * 2 ** -(i + 3), part = (at - low) / width;
        claim(part <= 1, `renewal ${i + 1} at ${at}`);
        spread[i]!.least = Math.min(spread[i]!.least, part);
        spread[i]!.most = Math.max(spread[i]!.most, part);
      }
      for (const gap of gaps(sent)) claim(gap >= 4000, `gap of ${gap}`);
      for (const gap of gaps(rig.advance(60_000))) claim(gap >= 2700, `gap of ${gap}`);
    }
    // The whole of each interval is used.
    for (const { least, most } of spread) claim(least < 0.1 && most > 0.9, `${least}…${most}`);
  });

  it("PCP-C-41: every success schedules a renewal before the lifetime's end", () => {
    const rig = new Rig();
    rig.mapped({ lifetimeSeconds: 120 });
    for (let i = 0; i < 50; i++) {
      const granted = rig.now;
      const at = rig.client.nextTimeout()!;
      claim(at > granted && at < granted + 120_000);
      rig.advance(at - granted);
      claim(rig.grant());
    }
    assertEquals(rig.heard().length, 51);
  });

  it("PCP-C-42: NO_RESOURCES stops new mappings for its lifetime, and to a deletion nothing else", () => {
    const rig = new Rig();
    const held = rig.mapped({ internalPort: 1, lifetimeSeconds: 600 });
    rig.client.map(TCP, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.NO_RESOURCES, 1000);
    rig.heard();
    const late = rig.client.map({ ...TCP, internalPort: 2 }, 0);
    assertEquals(rig.drain(), []);
    const failure = { kind: "refused", code: 8, name: "NO_RESOURCES", retryAt: 1_000_000 };
    const failed = { type: "failed", id: late, failure, retryAt: 1_000_000 } as PcpEvent;
    assertEquals(rig.events.splice(0), [failed]);
    const renewals = rig.advance(550_000);
    claim(renewals.every(({ request }) => (request as typeof rig.last).internalPort === 1));
    claim(renewals.length > 0, "renewals go on");
    rig.grant();
    assertEquals(rig.advance(449_999).length > 0, true);
    assertEquals(rig.advance(1).length, 2);
    claim(rig.client.mapping(held) !== undefined);

    const deleting = new Rig();
    const gone = deleting.mapped({ internalPort: 1 });
    const other = deleting.mapped({ internalPort: 2, lifetimeSeconds: 200 });
    deleting.client.revoke(gone, 0);
    deleting.drain();
    deleting.refuse(PCP_RESULT.NO_RESOURCES, 150);
    const told = deleting.events.at(-1);
    claim(told?.type === "unmapped" && told.failure?.kind === "refused");
    deleting.client.map({ ...TCP, internalPort: 3 }, 0);
    assertEquals(deleting.drain().length, 1);
    claim(deleting.client.mapping(other) !== undefined);
  });

  it("PCP-C-43: refreshes leave by the socket and address that made the mapping", () => {
    const rig = new Rig();
    const { client } = rig;
    client.map({ ...TCP, lifetimeSeconds: 600 }, 0);
    const first = client.poll();
    claim(first?.type === "send");
    const request = decodeRequest(first.data);
    claim(typeof request === "object");
    client.handleDatagram(rig.ask({ ...first, at: 0, request }), SERVER, "client", 0);
    claim(client.poll()?.type === "event");
    client.handleTimeout(400_000);
    const renewal = client.poll();
    claim(renewal?.type === "send");
    assertEquals(renewal.socket, first.socket);
    assertEquals(renewal.data.subarray(8, 24), first.data.subarray(8, 24));
  });

  it("PCP-C-44: a PEER with protocol 0, a port 0 or PREFER_FAILURE is refused to the caller", () => {
    const { client } = new Rig();
    const peer = { ...TCP, remote: REMOTE };
    for (
      const wrong of [
        { protocol: 0, internalPort: 0 },
        { internalPort: 0 },
        { remote: { ...REMOTE, port: 0 } },
        { preferFailure: true },
      ]
    ) {
      assertThrows(() => client.peer({ ...peer, ...wrong } as never, 0));
    }
    assertEquals(client.poll(), undefined);
  });

  it("PCP-C-45: the first PEER suggests nothing, its recreation what was assigned; none deletes", () => {
    const rig = new Rig();
    const id = rig.client.peer({ ...TCP, remote: REMOTE }, 0);
    rig.drain();
    assertEquals([rig.last.suggestedPort, rig.last.suggestedAddress], [0, "0.0.0.0"]);
    rig.grant();
    rig.now = 60_000;
    rig.announce(0);
    rig.advance(5000);
    assertEquals([rig.last.suggestedPort, rig.last.suggestedAddress], [
      EXTERNAL.port,
      EXTERNAL.address,
    ]);
    rig.client.revoke(id, rig.now);
    assertEquals(rig.drain(), []);
    assertEquals(rig.heard(), ["mapped", "gateway-restarted", "unmapped"]);
  });

  it("PCP-C-46: a PEER's external address may be of another family than the remote's", () => {
    const rig = new Rig({ localAddress: "2001:db8::100" });
    const remote = { address: "64:ff9b::c633:6414", port: 443 };
    const id = rig.client.peer({ ...TCP, remote }, 0);
    rig.drain();
    // NAT64 is nothing the simulated gateway does: its policy changes the answer.
    rig.grant({ external: EXTERNAL });
    assertEquals(rig.client.mapping(id)!.external, EXTERNAL);
  });

  it("PCP-C-47: THIRD_PARTY is sent only when asked for, and never with the own address", () => {
    const rig = new Rig();
    rig.client.map(TCP, 0);
    rig.client.map({ ...TCP, thirdParty: "192.168.1.50" }, 0);
    const [own, third] = rig.drain();
    claim(own!.request.kind === "map" && third!.request.kind === "map");
    assertEquals(own!.request.options, []);
    assertEquals(third!.request.options, [
      { type: "third-party", internalAddress: "192.168.1.50" },
    ]);
    assertThrows(() => rig.client.map({ ...TCP, thirdParty: LOCAL }, 0), TypeError, LOCAL);
  });

  it("PCP-C-48: a success that is not what PREFER_FAILURE suggested is none, and is taken back", () => {
    const suggested = { address: "203.0.113.7", port: 80 };
    const request = { ...TCP, preferFailure: true, suggestedExternal: suggested };
    for (const external of [undefined, { ...suggested, address: "203.0.113.8" }]) {
      // This one takes PREFER_FAILURE for a wish where the port is in use.
      const rig = new Rig({ gateway: { profile: "miniupnpd-2.3.1" } });
      const other = { address: NEIGHBOUR, port: 80 };
      if (!external) rig.gateway.addStatic("tcp", 80, other, 0);
      const id = rig.mapped(request, external && { external });
      const failure = { kind: "protocol-violation", clause: "PCP-C-48" } as const;
      assertEquals(rig.events, [{ type: "failed", id, failure, retryAt: 30_000 }]);
      assertEquals(rig.last.lifetimeSeconds, 0);
    }
    const good = new Rig();
    good.mapped(request);
    assertEquals(good.heard(), ["mapped"]);
    const plain = new Rig();
    plain.mapped();
    assertEquals(plain.last.options, []);
  });

  it("PCP-C-49: IPv4 filter lengths are 96 more; replacing begins with a length of 0", () => {
    const rig = new Rig();
    const filters = [
      { prefix: parseCidr("198.51.100.0/24")!, port: 0 },
      { prefix: parseCidr("192.0.2.1")!, port: 53 },
    ];
    rig.mapped({ filters, lifetimeSeconds: 600 });
    const wire = [
      { type: "filter", prefixLength: 120, remotePort: 0, remoteAddress: "198.51.100.0" },
      { type: "filter", prefixLength: 128, remotePort: 53, remoteAddress: "192.0.2.1" },
    ] as const;
    assertEquals(rig.last.options, wire);
    rig.advance(400_000);
    assertEquals(rig.last.options, [
      { type: "filter", prefixLength: 0, remotePort: 0, remoteAddress: "0.0.0.0" },
      ...wire,
    ]);
    rig.client.revoke(1, rig.now);
    rig.drain();
    assertEquals(rig.last.options, []);
  });

  it("PCP-C-50: an ANNOUNCE request has lifetime 0", () => {
    const rig = new Rig();
    rig.client.probe(0);
    assertEquals(rig.drain()[0]!.request, {
      kind: "announce",
      lifetimeSeconds: 0,
      clientAddress: LOCAL,
      options: [],
    });
  });

  it("PCP-C-51: announcements are listened for by group on the interface used, and taken", () => {
    const groups = (address: string, local: string, path = {}) => {
      const mapper = new PortMapper({ random: seededRandom(1) });
      mapper.networkChanged([{ gateway: { address, port: 5351 }, ...path }], 0);
      mapper.handleSocket(mapper.sockets()[0]!.key, {
        ok: true,
        local: { address: local, port: 40_000 },
      }, 0);
      return mapper.sockets().filter(({ group }) => group !== undefined)
        .map(({ group, local: at, interface: name }) => [group, at?.port, name]);
    };
    assertEquals(groups(SERVER.address, LOCAL), [["224.0.0.1", 5350, LOCAL]]);
    const six = { interface: "eth0" };
    assertEquals(groups("fe80::1%eth0", "2001:db8::100", six), [["ff02::1", 5350, "eth0"]]);
    const rig = new Rig();
    rig.mapped();
    rig.now = 60_000;
    rig.announce(0);
    assertEquals(rig.heard(), ["mapped", "gateway-restarted"]);
  });

  it("PCP-C-52: an announcement counts from the server alone; a broken epoch recreates in 0..5 s", () => {
    const times: number[] = [];
    for (let seed = 1; seed <= 100; seed++) {
      const rig = new Rig({}, seed);
      rig.mapped();
      rig.now = 60_000;
      const restarted = new Rig();
      restarted.gateway.reboot(rig.now);
      const announcement = restarted.gateway.poll();
      claim(announcement?.type === "send");
      claim(!rig.receive(announcement.data, STRANGER));
      claim(!rig.receive(announcement.data, { ...SERVER, port: 5350 }));
      rig.scenario((gateway, now) => gateway.announce(now));
      assertEquals(rig.heard(), ["mapped"]);
      assertEquals(rig.advance(1000), []);
      rig.scenario((gateway, now) => gateway.reboot(now));
      const heardAt = rig.now;
      const sent = rig.advance(5000);
      times.push(sent[0]!.at - heardAt);
      rig.grant();
      assertEquals(rig.heard(), ["gateway-restarted", "renewed"]);
      // Copies of the announcement arrive meanwhile.
      assertEquals(rig.advance(6000), []);
      claim(rig.client.stats.received > 5);
    }
    claim(Math.min(...times) >= 0 && Math.max(...times) <= 5000);
    claim(Math.min(...times) < 500 && Math.max(...times) > 4500, "spread over all of it");
  });

  it("PCP-C-53: a mapping update changes endpoint and lifetime and is told", () => {
    const rig = new Rig();
    const id = rig.mapped({ lifetimeSeconds: 3600 });
    rig.now = 100_000;
    // Unsolicited, and with the epoch running on: made by hand.
    const update = { external: MOVED, lifetimeSeconds: 1000, epochSeconds: 1100 };
    claim(rig.receive(forge(rig.last, update)));
    const mapping = rig.client.mapping(id)!;
    assertEquals(rig.events.at(-1), { type: "moved", id, mapping, revision: 0 });
    assertEquals(mapping.external, MOVED);
    assertEquals(mapping.lifetimeSeconds, 1000);
    assertEquals(mapping.expiresAt, 1_100_000);
    const [renewal] = rig.advance(700_000);
    claim(renewal!.at >= 600_000 && renewal!.at <= 725_000);
  });

  it("PCP-C-54: mappings are renewed by requests alone, and lost when none is answered", () => {
    const rig = new Rig();
    const id = rig.mapped({ lifetimeSeconds: 600 });
    rig.advance(600_000);
    assertEquals(rig.heard(), ["mapped", "lost"]);
    assertEquals(rig.client.mapping(id)!.external, undefined);
    rig.advance(10_000);
    rig.grant();
    assertEquals(rig.heard(), ["recovered"]);
  });

  it("PCP-C-55: a deletion has lifetime 0, suggests nothing and carries the nonce", () => {
    const rig = new Rig();
    for (
      const request of [TCP, { protocol: 17, internalPort: 0 }, { protocol: 0, internalPort: 0 }]
    ) {
      const id = rig.mapped(request);
      const { nonce } = rig.last;
      rig.client.revoke(id, 0);
      rig.drain();
      const { last } = rig;
      assertEquals([last.lifetimeSeconds, last.suggestedPort, last.suggestedAddress], [
        0,
        0,
        "0.0.0.0",
      ]);
      assertEquals(last.nonce, nonce);
    }
  });

  it("PCP-C-56: SCTP is asked for like TCP, and CANNOT_PROVIDE_EXTERNAL is told", () => {
    const rig = new Rig();
    const id = rig.client.map({ protocol: 132, internalPort: 9899, mode: "once" }, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.CANNOT_PROVIDE_EXTERNAL, 30);
    const name = "CANNOT_PROVIDE_EXTERNAL";
    const failure = { kind: "refused", code: 11, name, retryAt: 30_000 } as const;
    assertEquals(rig.events, [{ type: "failed", id, failure }]);
    rig.client.map({ protocol: 132, internalPort: 9900 }, 0);
    rig.drain();
    rig.grant();
    assertEquals(rig.heard(), ["failed", "mapped"]);
  });

  it("PCP-C-57: PCP goes first; UNSUPP_VERSION is told at once, and NAT-PMP maps at once", () => {
    const rig = new Rig({ gateway: { protocols: ["nat-pmp"] } });
    rig.client.map(TCP, 0);
    rig.drain();
    rig.now = 3;
    rig.grant();
    assertEquals(rig.heard(), ["failed"]);
    assertEquals(rig.advance(60_000), []);
    const home = mapperRig({ gateway: { protocols: ["nat-pmp"] } });
    home.mapper((mapper, now) => mapper.map({ protocol: "tcp", internalPort: 8080 }, now));
    home.world.runFor(100);
    assertEquals(home.sent[0]!.data[0], 2, "version 2 first");
    const [maps] = [home.sent.filter(({ data }) => data[0] === 0 && data[1] === 2)];
    assertEquals(maps.map(({ at }) => at), [2], "a round trip later");
  });

  it("PCP-C-58: inbound traffic is asked for with MAP, in the first packet", () => {
    const rig = new Rig();
    rig.client.map(TCP, 0);
    const [first] = rig.drain();
    claim(first!.request.kind === "map" && first!.request.lifetimeSeconds === 7200);
  });
});
