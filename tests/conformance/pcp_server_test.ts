import { describe } from "node:test";
import { toHex, u16, u32 } from "../../core/bytes.ts";
import { parseCidr } from "../../core/cidr.ts";
import { decodeResponse, PCP_RESULT } from "../../core/pcp/codec.ts";
import type { PcpOption } from "../../core/pcp/options.ts";
import { prefix64Option } from "../../core/pcp/prefix64.ts";
import { SimulatedGateway } from "../../core/gateway/gateway.ts";
import { seededRandom } from "../../core/random.ts";
import {
  ALICE,
  announceBytes,
  BOB,
  EVE6,
  mapBytes,
  nonceOf,
  PEER,
  peerBytes,
  Rig,
  TCP,
  UDP,
  WAN,
  WAN2,
} from "../core/pcp/server_support.ts";
import { assert, assertEquals, assertNotEquals, claim, it } from "./clause.ts";

const R = PCP_RESULT;
const PREFER_FAILURE: PcpOption = { type: "prefer-failure" };
const filter = (remoteAddress: string, prefixLength: number, remotePort = 0): PcpOption => ({
  type: "filter",
  prefixLength,
  remotePort,
  remoteAddress,
});
const thirdParty = (internalAddress: string): PcpOption => ({
  type: "third-party",
  internalAddress,
});
const unknown = (code: number): PcpOption => ({ type: "unknown", code, data: new Uint8Array(4) });
const portSet = (size: number, firstInternalPort: number, parity = false): PcpOption => ({
  type: "port-set",
  size,
  firstInternalPort,
  parity,
});

/** A request's bytes with an option appended as it is. */
function withRaw(request: Uint8Array, option: readonly number[]): Uint8Array {
  return Uint8Array.from([...request, ...option]);
}

describe("PcpServer, RFC 6887 §8.2: judging a request", () => {
  it("PCP-S-01: requests from outside are ignored in silence", () => {
    const rig = new Rig({ isInside: (address) => address.startsWith("192.168.") });

    const sent = rig.raw(mapBytes({ from: PEER }), PEER);

    assertEquals(sent, []);
    assertEquals(rig.table.size, 0);
    assertEquals(rig.server.stats.dropped, { outside: 1 });
    assertEquals(rig.map().resultCode, R.SUCCESS);
  });

  it("PCP-S-02: fewer than two octets are dropped", () => {
    const rig = new Rig();

    const sent = [...rig.raw(new Uint8Array(0)), ...rig.raw(Uint8Array.of(0))];

    assertEquals(sent, []);
    assertEquals(rig.server.stats.dropped, { "too-short": 2 });
    // Two are enough to tell a version that is not spoken.
    assertEquals(rig.raw(Uint8Array.of(0, 0))[0]!.data[3], R.UNSUPP_VERSION);
  });

  it("PCP-S-03: what has the R bit set is dropped, whatever its version", () => {
    const rig = new Rig();
    const response = mapBytes();
    response[1]! |= 0x80;

    const sent = [...rig.raw(response), ...rig.raw(Uint8Array.of(0, 0x80))];

    assertEquals(sent, []);
    assertEquals(rig.server.stats.dropped, { "not-a-request": 2 });
  });

  it("PCP-S-04: an unsupported version is answered UNSUPP_VERSION with version 2", () => {
    const rig = new Rig();
    for (const version of [0, 1, 3, 255]) {
      const request = mapBytes();
      request[0] = version;

      const [sent] = rig.raw(request);

      assertEquals([...sent!.data.subarray(0, 4)], [2, 0x81, 0, R.UNSUPP_VERSION]);
      assertEquals(rig.table.size, 0);
    }
  });

  it("PCP-S-05: version 2 with fewer than 24 octets is dropped", () => {
    const rig = new Rig();

    const sent = [2, 4, 20, 23].flatMap((length) => rig.raw(mapBytes().subarray(0, length)));

    assertEquals(sent, []);
    assertEquals(rig.server.stats.dropped, { "too-short": 4 });
  });

  it("PCP-S-06: an overloaded server drops requests, or answers NO_RESOURCES", () => {
    let load = 0;
    const rig = new Rig({
      decide: () =>
        load === 1
          ? { kind: "drop" }
          : load === 2
          ? { kind: "refuse", code: R.NO_RESOURCES }
          : undefined,
    });

    load = 1;
    assertEquals(rig.raw(mapBytes()), []);
    load = 2;
    const busy = rig.map();
    load = 0;
    const served = rig.map();

    assertEquals([busy.resultCode, busy.lifetimeSeconds], [R.NO_RESOURCES, 30]);
    assertEquals(served.resultCode, R.SUCCESS);
    assertEquals(rig.server.stats.dropped, { policy: 1 });
  });

  it("PCP-S-07: a length that cannot be is MALFORMED_REQUEST, cut to 1100 octets", () => {
    const rig = new Rig();
    const long = new Uint8Array(1300);
    long.set(mapBytes());
    const cases: [Uint8Array, number][] = [
      [long, 1100],
      [mapBytes().subarray(0, 59), 60],
      [mapBytes().subarray(0, 56), 56],
      [peerBytes().subarray(0, 76), 76],
      [announceBytes().subarray(0, 24).slice(), 24],
    ];
    for (const [request, length] of cases.slice(0, 4)) {
      const [sent] = rig.raw(request);

      assertEquals(sent!.data[3], R.MALFORMED_REQUEST);
      assertEquals(sent!.data.length, length);
    }
    assertEquals(rig.raw(cases[4]![0])[0]!.data[3], R.SUCCESS);
    assertEquals(rig.table.size, 0);
  });

  it("PCP-S-08: a client address that is not the source's is ADDRESS_MISMATCH", () => {
    const rig = new Rig();

    const response = rig.map({ clientAddress: "10.0.0.7" });

    assertEquals([response.resultCode, response.lifetimeSeconds], [R.ADDRESS_MISMATCH, 1800]);
    assertEquals(rig.table.size, 0);
  });

  it("PCP-S-09: an unknown opcode is UNSUPP_OPCODE with the payload as it came", () => {
    const rig = new Rig();
    const request = mapBytes();
    request[1] = 99;

    const [sent] = rig.raw(request);

    assertEquals([sent!.data[1], sent!.data[3]], [0x80 | 99, R.UNSUPP_OPCODE]);
    assertEquals(toHex(sent!.data.subarray(24)), toHex(request.subarray(24)));
  });

  it("PCP-S-10: options that cannot be told apart are MALFORMED_OPTION", () => {
    const rig = new Rig();
    const pastTheEnd = withRaw(mapBytes(), [2, 0, 0, 8]);

    const [sent] = rig.raw(pastTheEnd);

    assertEquals(sent!.data[3], R.MALFORMED_OPTION);
    assertEquals(sent!.data.length, pastTheEnd.length);
    // The address is judged before the options (D-05).
    assertEquals(rig.raw(pastTheEnd, BOB)[0]!.data[3], R.ADDRESS_MISMATCH);
  });

  it("PCP-S-11: options are processed in the order of the packet", () => {
    const rig = new Rig();

    const first = rig.map({ options: [unknown(50), filter("10.0.0.0", 8)] });
    const second = rig.map({ options: [filter("10.0.0.0", 8), unknown(50)] });

    assertEquals(first.resultCode, R.UNSUPP_OPTION);
    assertEquals(second.resultCode, R.MALFORMED_OPTION);
    // The same filters mean different things in another order: 0 clears what came before it.
    rig.map({ options: [filter("10.0.0.0", 104), filter("0.0.0.0", 0)] });
    assertEquals(rig.table.inbound(TCP, ALICE.address, 8080)!.filters, []);
    rig.map({ options: [filter("0.0.0.0", 0), filter("10.0.0.0", 104)] });
    assertEquals(rig.table.inbound(TCP, ALICE.address, 8080)!.filters.length, 1);
  });

  it("PCP-S-12: a mandatory option is MALFORMED_OPTION if malformed, UNSUPP_OPTION if not for you", () => {
    const rig = new Rig({ allowPreferFailure: false });

    const malformed = rig.raw(withRaw(mapBytes(), [1, 0, 0, 4, 1, 2, 3, 4]));
    const codes = [unknown(4), unknown(127), thirdParty("192.168.1.50"), PREFER_FAILURE]
      .map((option) => rig.map({ suggestedPort: 80, options: [option] }).resultCode);

    assertEquals(malformed[0]!.data[3], R.MALFORMED_OPTION);
    assertEquals(codes, [R.UNSUPP_OPTION, R.UNSUPP_OPTION, R.UNSUPP_OPTION, R.UNSUPP_OPTION]);
    assertEquals(rig.table.size, 0);
  });

  it("PCP-S-13: an optional option that is not known is ignored and not sent back", () => {
    const rig = new Rig();

    const response = rig.map({ options: [unknown(200)] });

    assertEquals(response.resultCode, R.SUCCESS);
    assertEquals(response.options, []);
  });

  it("PCP-S-14: a once-only option that comes twice is MALFORMED_OPTION", () => {
    const rig = new Rig({ allowThirdParty: true });
    const text: PcpOption = { type: "description", text: "x" };

    const codes = [thirdParty("192.168.1.50"), PREFER_FAILURE, text, portSet(4, 8080)]
      .map((option) => rig.map({ suggestedPort: 80, options: [option, option] }).resultCode);

    assertEquals(codes, new Array(4).fill(R.MALFORMED_OPTION));
    // What is not understood may come as often as it likes; filters may anyway.
    assertEquals(rig.map({ options: [unknown(200), unknown(200)] }).resultCode, R.SUCCESS);
    const two = [filter("10.0.0.0", 104), filter("10.1.0.0", 112)];
    assertEquals(rig.map({ options: two }).resultCode, R.SUCCESS);
  });

  it("PCP-S-15: an error leaves the table as it was", () => {
    const rig = new Rig({ maxFilters: 2 }, { maxPortsPerClient: 2 });
    rig.map({ options: [filter("10.0.0.0", 104)] });
    rig.map({ internalPort: 8081 });
    const before = rig.snapshot();

    const codes = [
      rig.map({ nonce: nonceOf(2) }),
      rig.map({ options: [filter("10.1.0.0", 112), unknown(9)] }),
      rig.map({ options: [filter("10.1.0.0", 112), filter("10.2.0.0", 112)] }),
      rig.map({ suggestedPort: 99, options: [PREFER_FAILURE] }),
      rig.map({ internalPort: 8082 }),
      rig.map({ lifetimeSeconds: 0, nonce: nonceOf(2) }),
    ].map((response) => response.resultCode);

    assertEquals(codes, [
      R.NOT_AUTHORIZED,
      R.UNSUPP_OPTION,
      R.EXCESSIVE_REMOTE_PEERS,
      R.CANNOT_PROVIDE_EXTERNAL,
      R.USER_EX_QUOTA,
      R.NOT_AUTHORIZED,
    ]);
    assertEquals(rig.snapshot(), before);
    assertEquals(rig.table.quarantined, 0);
  });

  it("PCP-S-16: an error reply is the whole request with R, result, lifetime and epoch set", () => {
    const rig = new Rig();
    rig.now = 77_000;
    const request = mapBytes({ options: [filter("10.0.0.0", 104, 5), unknown(9), unknown(201)] });

    const [sent] = rig.raw(request);

    assertEquals(sent!.data.length, request.length);
    assertEquals([...sent!.data.subarray(0, 4)], [2, 0x81, 0, R.UNSUPP_OPTION]);
    assertEquals([u32(sent!.data, 4), u32(sent!.data, 8)], [1800, 77]);
    assertEquals(toHex(sent!.data.subarray(12, 24)), "00".repeat(12));
    assertEquals(toHex(sent!.data.subarray(24)), toHex(request.subarray(24)));
  });

  it("PCP-S-17: a success reply has the processed options only, in the request's order", () => {
    const rig = new Rig({ allowThirdParty: true });
    const options: PcpOption[] = [
      { type: "description", text: "Minecraft" },
      unknown(222),
      filter("198.51.100.0", 120),
      thirdParty("192.168.1.50"),
    ];

    const response = rig.map({ options });

    assertEquals([response.resultCode, response.lifetimeSeconds], [R.SUCCESS, 3600]);
    assertEquals(response.options, [options[0]!, options[2]!, options[3]!]);
  });

  it("PCP-S-18: a reply that would exceed 1100 octets is MALFORMED_REQUEST, and nothing is made", () => {
    const ipv4Prefixes = Array.from({ length: 170 }, () => parseCidr("198.51.100.0/24")!);
    const prefix64 = {
      prefix: new Uint8Array(12),
      suffix: new Uint8Array(0),
      ipv4Prefixes,
    };
    const rig = new Rig({ prefix64 });
    const asking = prefix64Option({ ...prefix64, ipv4Prefixes: [] });

    const fits = rig.ask(announceBytes(ALICE, [asking]));
    const response = rig.map({ options: [asking, filter("10.0.0.0", 104)] });

    assertEquals(fits.kind === "announce" && fits.resultCode, R.SUCCESS);
    assertEquals(response.resultCode, R.MALFORMED_REQUEST);
    assertEquals(rig.table.size, 0);
  });

  it("PCP-S-19: passing errors last 30 s and lasting ones 30 minutes, as specific as can be", () => {
    const rig = new Rig({}, { maxPortsPerClient: 0 });
    const quota = rig.map();
    const empty = new Rig({}, { externalAddresses: [] }).map();
    const full = new Rig({}, { chosenPorts: [] }).map({ protocol: UDP, internalPort: 5351 });
    const lasting = rig.map({ protocol: 99 });

    assertEquals([quota.resultCode, quota.lifetimeSeconds], [R.USER_EX_QUOTA, 30]);
    assertEquals([empty.resultCode, empty.lifetimeSeconds], [R.NETWORK_FAILURE, 30]);
    assertEquals([full.resultCode, full.lifetimeSeconds], [R.NO_RESOURCES, 30]);
    assertEquals([lasting.resultCode, lasting.lifetimeSeconds], [R.UNSUPP_PROTOCOL, 1800]);
  });

  it("PCP-S-20: every reply has version 2, R set and its reserved bits clear", () => {
    const rig = new Rig();
    const noisy = mapBytes();
    noisy[2] = 0xff;
    noisy[3] = 0xff;
    noisy[37] = 0xff;

    const replies = [
      rig.raw(noisy)[0]!,
      rig.raw(peerBytes())[0]!,
      rig.raw(announceBytes())[0]!,
      rig.raw(mapBytes({ protocol: 99 }))[0]!,
    ].map(({ data }) => data);

    for (const data of replies) {
      assertEquals([data[0], data[1]! & 0x80, data[2]], [2, 0x80, 0]);
      assertEquals(toHex(data.subarray(12, 24)), "00".repeat(12));
    }
    assertEquals(toHex(replies[0]!.subarray(37, 40)), "000000");
    assertEquals(toHex(replies[1]!.subarray(62, 64)), "0000");
  });

  it("PCP-S-21: the epoch counts seconds and begins anew with lost state or a new address", () => {
    const rig = new Rig();
    const epochAt = (now: number): number => {
      rig.now = now;
      const response = rig.ask(announceBytes());
      return response.kind === "announce" ? response.epochSeconds : -1;
    };

    assertEquals([epochAt(0), epochAt(999), epochAt(1000), epochAt(3_600_000)], [0, 0, 1, 3600]);
    rig.server.reset(3_600_500);
    rig.drain();
    assertEquals([epochAt(3_601_400), epochAt(3_601_500)], [0, 1]);
    rig.server.externalAddressChanged([], 3_700_000);
    rig.drain();
    assertEquals(epochAt(3_705_000), 5);
  });

  it("PCP-S-22: whichever side of its range a version is on, the answer names the nearest: 2", () => {
    const rig = new Rig();

    const named = [0, 1, 3, 200].map((version) => {
      const request = announceBytes();
      request[0] = version;
      return rig.raw(request)[0]!.data[0];
    });

    assertEquals(named, [2, 2, 2, 2]);
  });
});

describe("PcpServer, RFC 6887 §10 and §11: MAP", () => {
  it("PCP-S-23: no suggestion keeps a client on its address, a suggested address is tried", () => {
    const rig = new Rig({}, { externalAddresses: [WAN, WAN2] });

    const suggested = rig.map({ suggestedAddress: WAN2 });
    const next = rig.map({ internalPort: 8081 });
    const other = rig.map({ from: BOB });

    assertEquals(suggested.externalAddress, WAN2);
    assertEquals(next.externalAddress, WAN2);
    assertEquals(other.externalAddress, WAN);
  });

  it("PCP-S-24: MAP and PEER can be switched off, each by itself", () => {
    const noMap = new Rig({ mapEnabled: false });
    const noPeer = new Rig({ peerEnabled: false });

    const codes = [noMap.map(), noMap.peer(), noPeer.map(), noPeer.peer()]
      .map((response) => response.resultCode);

    assertEquals(codes, [R.UNSUPP_OPCODE, R.SUCCESS, R.SUCCESS, R.UNSUPP_OPCODE]);
  });

  it("PCP-S-26: success copies protocol, port, nonce and THIRD_PARTY; an error the suggestion too", () => {
    const rig = new Rig({ allowThirdParty: true });
    const nonce = Uint8Array.of(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);
    const options = [thirdParty("192.168.1.50")];

    const good = rig.map({ nonce, protocol: UDP, internalPort: 5000, options });
    const suggestion = { suggestedPort: 777, suggestedAddress: "192.0.2.9" };
    const bad = rig.map({ nonce, protocol: 99, internalPort: 5001, ...suggestion });

    assertEquals([good.protocol, good.internalPort, toHex(good.nonce)], [UDP, 5000, toHex(nonce)]);
    assertEquals(good.options, options);
    assertEquals([bad.protocol, bad.internalPort, toHex(bad.nonce)], [99, 5001, toHex(nonce)]);
    assertEquals([bad.externalPort, bad.externalAddress], [777, "192.0.2.9"]);
  });

  it("PCP-S-27: one port, all ports, all protocols: each done wholly or UNSUPP_PROTOCOL", () => {
    const rig = new Rig();

    const one = rig.map();
    const strange = rig.map({ protocol: 99 });
    const impossible = rig.map({ protocol: 0, internalPort: 1 });
    const allOfBob = rig.map({ from: BOB, internalPort: 0 });
    const dmzOfBob = rig.map({ from: BOB, protocol: 0, internalPort: 0 });
    const allOfAlice = rig.map({ internalPort: 0 });
    const dmzOfAlice = rig.map({ protocol: 0, internalPort: 0 });

    assertEquals(one.resultCode, R.SUCCESS);
    assertEquals(strange.resultCode, R.UNSUPP_PROTOCOL);
    assertEquals(impossible.resultCode, R.MALFORMED_REQUEST);
    // One TCP port is Alice's, so Bob cannot have them all, but Alice can.
    assertEquals([allOfBob.resultCode, dmzOfBob.resultCode], [9, 9]);
    assertEquals([allOfAlice.resultCode, dmzOfAlice.resultCode], [0, 0]);
    assertEquals([allOfAlice.externalPort, dmzOfAlice.externalPort], [0, 0]);
    // And what is wholly hers stays so.
    assertEquals(rig.map({ from: BOB, protocol: UDP }).resultCode, R.NO_RESOURCES);
    const off = new Rig({ allowWildcards: false });
    assertEquals(off.map({ internalPort: 0 }).resultCode, R.UNSUPP_PROTOCOL);
  });

  it("PCP-S-28: another nonce is NOT_AUTHORIZED for as long as the mapping lasts", () => {
    const rig = new Rig();
    rig.map({ lifetimeSeconds: 3600 });
    rig.now = 600_000;

    const response = rig.map({ nonce: nonceOf(2) });

    assertEquals([response.resultCode, response.lifetimeSeconds], [R.NOT_AUTHORIZED, 3000]);
    assertEquals(rig.map().resultCode, R.SUCCESS);
  });

  it("PCP-S-29: a static mapping answers any nonce, without end, and remembers none", () => {
    const rig = new Rig();
    rig.table.mapInbound({
      kind: "static",
      origin: "admin",
      protocol: TCP,
      internal: { address: ALICE.address, port: 8080 },
      suggestedPort: 80,
      expiresAt: Infinity,
    }, 0);

    const replies = [1, 2].map((byte) => rig.map({ nonce: nonceOf(byte), suggestedPort: 99 }));

    for (const [i, reply] of replies.entries()) {
      assertEquals([reply.resultCode, reply.lifetimeSeconds], [R.SUCCESS, 0xffff_ffff]);
      assertEquals([reply.externalPort, toHex(reply.nonce)], [80, toHex(nonceOf(i + 1))]);
    }
    assertEquals(rig.table.inbound(TCP, ALICE.address, 8080)!.nonce, undefined);
  });

  it("PCP-S-30: a mandatory option that makes no sense is MALFORMED_OPTION", () => {
    const rig = new Rig();

    const code = rig.map({ lifetimeSeconds: 0, suggestedPort: 80, options: [PREFER_FAILURE] })
      .resultCode;

    assertEquals(code, R.MALFORMED_OPTION);
  });

  it("PCP-S-31: a device that translates nothing answers with the inside as the outside", () => {
    const rig = new Rig();

    const response = rig.map({ from: EVE6, internalPort: 22, suggestedPort: 2222 });
    const peer = rig.peer({ from: EVE6, remote: { address: "2001:db8:1::9", port: 80 } });

    assertEquals([response.externalAddress, response.externalPort], [EVE6.address, 22]);
    assertEquals([peer.externalAddress, peer.externalPort], [EVE6.address, 50_000]);
  });

  it("PCP-S-32: PREFER_FAILURE on a mapping that lies elsewhere is CANNOT_PROVIDE_EXTERNAL", () => {
    const rig = new Rig();
    const { externalPort } = rig.map();

    const elsewhere = rig.map({ suggestedPort: externalPort + 1, options: [PREFER_FAILURE] });
    const address = rig.map({
      suggestedPort: externalPort,
      suggestedAddress: WAN2,
      options: [PREFER_FAILURE],
    });
    const there = rig.map({ suggestedPort: externalPort, options: [PREFER_FAILURE] });

    assertEquals([elsewhere.resultCode, address.resultCode, there.resultCode], [11, 11, 0]);
  });

  it("PCP-S-33: an existing mapping keeps its outside, and its lifetime is updated", () => {
    const rig = new Rig();
    const first = rig.map({ lifetimeSeconds: 600, suggestedPort: 4000 });
    rig.now = 300_000;

    const second = rig.map({ lifetimeSeconds: 900, suggestedPort: 5000, suggestedAddress: WAN2 });
    const shorter = rig.map({ lifetimeSeconds: 200 });

    assertEquals([first.externalPort, second.externalPort], [4000, 4000]);
    assertEquals([second.lifetimeSeconds, shorter.lifetimeSeconds], [900, 200]);
    assertEquals(rig.table.size, 1);
    assertEquals(rig.table.nextTimeout(), 500_000);
  });

  it("PCP-S-34: an inbound mapping takes the outside of the outbound one, and leaves it be", () => {
    const rig = new Rig();
    const out = rig.peer({ internalPort: 8080 });
    const traffic = rig.table.mapOutbound({
      origin: "traffic",
      protocol: UDP,
      internal: { address: ALICE.address, port: 7000 },
      suggestedPort: 7777,
      remote: PEER,
      expiresAt: 120_000,
    }, 0);

    const inbound = rig.map({ internalPort: 8080, suggestedPort: 9999 });
    const second = rig.map({ protocol: UDP, internalPort: 7000, nonce: nonceOf(9) });
    const elsewhere = rig.peer({ internalPort: 6000 });
    const exact = rig.map({ internalPort: 6000, suggestedPort: 9999, options: [PREFER_FAILURE] });

    assertEquals(typeof traffic, "object");
    assertEquals(inbound.externalPort, out.externalPort);
    assertEquals(second.externalPort, 7777);
    assertEquals([elsewhere.resultCode, exact.resultCode], [0, 11]);
    rig.map({ internalPort: 8080, lifetimeSeconds: 0 });
    assertEquals(rig.table.outbounds(TCP, ALICE.address, 8080).length, 1);
  });

  it("PCP-S-35: a suggestion that is free is taken", () => {
    const rig = new Rig({}, { externalAddresses: [WAN, WAN2] });

    const response = rig.map({ suggestedAddress: WAN2, suggestedPort: 80 });

    assertEquals([response.externalAddress, response.externalPort], [WAN2, 80]);
  });

  it("PCP-S-36: external UDP 5350 and 5351 are never mapped", () => {
    const rig = new Rig();

    const ports = [5350, 5351].flatMap((port) => [
      rig.map({ protocol: UDP, internalPort: port }).externalPort,
      rig.map({ protocol: UDP, internalPort: port + 100, suggestedPort: port }).externalPort,
    ]);
    const exact = rig.map({
      protocol: UDP,
      internalPort: 7,
      suggestedPort: 5351,
      options: [PREFER_FAILURE],
    });

    assertEquals(ports.filter((port) => port === 5350 || port === 5351 || port === 0), []);
    assertEquals(exact.resultCode, R.CANNOT_PROVIDE_EXTERNAL);
    assertEquals(rig.map({ protocol: TCP, suggestedPort: 5351 }).externalPort, 5351);
  });

  it("PCP-S-37: a poor suggestion gives another port, and only PREFER_FAILURE makes it fail", () => {
    const rig = new Rig();
    rig.map({ suggestedPort: 8080 });
    const poor = [
      { suggestedPort: 8080 },
      { suggestedPort: 80, suggestedAddress: "127.0.0.1" },
      { suggestedPort: 81, suggestedAddress: "224.0.0.1" },
      { suggestedPort: 82, suggestedAddress: "198.51.100.1" },
      { suggestedAddress: "::" },
      { suggestedAddress: "2001:db8::1" },
    ];

    const replies = poor.map((wish, i) => rig.map({ from: BOB, internalPort: 100 + i, ...wish }));
    const exact = poor.slice(0, 4).map((wish, i) =>
      rig.map({ from: BOB, internalPort: 200 + i, ...wish, options: [PREFER_FAILURE] })
    );

    for (const { resultCode, externalAddress, externalPort } of replies) {
      assertEquals([resultCode, externalAddress], [R.SUCCESS, WAN]);
      assertNotEquals(externalPort, 8080);
    }
    assertEquals(exact.map(({ resultCode }) => resultCode), [11, 11, 11, 11]);
  });

  it("PCP-S-38: no other protocol is mapped along", () => {
    const rig = new Rig();

    rig.map({ protocol: TCP });

    assertEquals([...rig.table.entries()].map((entry) => entry.protocol), [TCP]);
    assertEquals(rig.table.external(UDP, WAN, 8080), undefined);
  });

  it("PCP-S-39: a client that has its quota gets USER_EX_QUOTA, and others are served", () => {
    const rig = new Rig({}, { maxPortsPerClient: 3 });

    const codes = [1, 2, 3, 4].map((port) => rig.map({ internalPort: port }).resultCode);

    assertEquals(codes, [0, 0, 0, R.USER_EX_QUOTA]);
    assertEquals(rig.peer().resultCode, R.USER_EX_QUOTA);
    assertEquals(rig.map({ from: BOB }).resultCode, R.SUCCESS);
    assertEquals(rig.map({ internalPort: 1 }).resultCode, R.SUCCESS);
    rig.map({ internalPort: 2, lifetimeSeconds: 0 });
    assertEquals(rig.map({ internalPort: 4 }).resultCode, R.SUCCESS);
  });
});

describe("PcpServer, RFC 6887 §12: PEER", () => {
  it("PCP-S-40: a suggestion that cannot be had is an error; PREFER_FAILURE is MALFORMED_REQUEST", () => {
    const rig = new Rig();
    rig.map({ from: BOB, suggestedPort: 8080 });

    const honoured = rig.peer({ suggestedPort: 9000 });
    const taken = rig.peer({ internalPort: 50_001, suggestedPort: 8080 });
    const foreign = rig.peer({ internalPort: 50_002, suggestedAddress: WAN2 });
    const preferring = rig.peer({ suggestedPort: 1, options: [PREFER_FAILURE] });

    assertEquals([honoured.resultCode, honoured.externalPort], [R.SUCCESS, 9000]);
    assertEquals([taken.resultCode, foreign.resultCode], [11, 11]);
    assertEquals(preferring.resultCode, R.MALFORMED_REQUEST);
    assertEquals(rig.table.size, 2);
  });

  it("PCP-S-41: a remote address that cannot be one is MALFORMED_REQUEST", () => {
    const rig = new Rig();
    const remotes = ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "169.254.1.1"];

    const codes = remotes.map((address) => rig.peer({ remote: { address, port: 1 } }).resultCode);
    const zeros = [
      rig.peer({ remote: { address: PEER.address, port: 0 } }),
      rig.peer({ internalPort: 0 }),
      rig.peer({ protocol: 0 }),
    ].map((response) => response.resultCode);

    assertEquals([...codes, ...zeros], new Array(8).fill(R.MALFORMED_REQUEST));
    assertEquals(rig.table.size, 0);
  });

  it("PCP-S-42: the first PEER adopts a flow as it is; after that its nonce guards it", () => {
    const rig = new Rig();
    rig.table.mapOutbound({
      origin: "traffic",
      protocol: TCP,
      internal: { address: ALICE.address, port: 50_000 },
      suggestedPort: 6000,
      remote: PEER,
      expiresAt: 120_000,
    }, 0);

    const adopted = rig.peer({ suggestedPort: 7000, lifetimeSeconds: 3600 });
    const stranger = rig.peer({ nonce: nonceOf(2) });
    const sameFlow = rig.peer({ lifetimeSeconds: 7200 });

    assertEquals([adopted.resultCode, adopted.externalPort], [R.SUCCESS, 6000]);
    assertEquals(adopted.lifetimeSeconds, 7440, "as long as its traffic keeps it anyway");
    assertEquals([stranger.resultCode, stranger.lifetimeSeconds], [R.NOT_AUTHORIZED, 7440]);
    assertEquals([sameFlow.resultCode, rig.table.size], [R.SUCCESS, 1]);
    // Another peer of the same inside is another mapping on the same outside.
    const second = rig.peer({ remote: { address: "198.51.100.21", port: 443 } });
    assertEquals([second.externalPort, rig.table.size], [6000, 2]);
  });

  it("PCP-S-43: PEER lasts longer than implicit mappings, and a short wish only asks", () => {
    const rig = new Rig();

    const short = rig.peer({ protocol: UDP, lifetimeSeconds: 1 });
    const long = rig.peer({ protocol: UDP, lifetimeSeconds: 3600 });
    rig.now = 1_000_000;
    const query = rig.peer({ protocol: UDP, lifetimeSeconds: 1 });
    const zero = rig.peer({ protocol: UDP, lifetimeSeconds: 0 });

    assertEquals(short.lifetimeSeconds, 300, "longer than UDP's 120 s");
    assertEquals(long.lifetimeSeconds, 3600);
    assertEquals([query.lifetimeSeconds, zero.lifetimeSeconds], [2600, 2600]);
  });
});

describe("PcpServer, RFC 6887 §13: options", () => {
  it("PCP-S-44: THIRD_PARTY is off by default, for the authorised, and never for oneself", () => {
    const off = new Rig();
    const on = new Rig({ allowThirdParty: (client) => client === ALICE.address });
    const options = [thirdParty("192.168.1.50")];

    assertEquals(off.map({ options }).resultCode, R.UNSUPP_OPTION);
    assertEquals(on.map({ from: BOB, options }).resultCode, R.UNSUPP_OPTION);
    assertEquals(on.map({ options: [thirdParty(ALICE.address)] }).resultCode, R.MALFORMED_REQUEST);
    assertEquals(on.map({ options }).resultCode, R.SUCCESS);
    assertEquals(on.peer({ options }).resultCode, R.SUCCESS);
    assertEquals(on.table.entriesOf("192.168.1.50").length, 2);
    assertEquals(on.table.entriesOf(ALICE.address), []);
  });

  it("PCP-S-45: PREFER_FAILURE without a port is MALFORMED_OPTION; a conflict lasts as its cause", () => {
    const rig = new Rig();
    rig.map({ from: BOB, suggestedPort: 80, lifetimeSeconds: 1000 });
    rig.now = 400_000;

    const noPort = rig.map({ options: [PREFER_FAILURE] });
    const conflict = rig.map({ suggestedPort: 80, options: [PREFER_FAILURE] });
    const other = rig.map({ suggestedPort: 81, options: [PREFER_FAILURE] });

    assertEquals(noPort.resultCode, R.MALFORMED_OPTION);
    // What is left of Bob's mapping, and RFC 793's TIME_WAIT of four minutes.
    assertEquals([conflict.resultCode, conflict.lifetimeSeconds], [11, 600 + 240]);
    assertEquals([other.resultCode, other.externalPort], [R.SUCCESS, 81]);
    assertEquals(other.options, [PREFER_FAILURE]);
  });

  it("PCP-S-46: filters add up to a bound, 0 clears them, bad ones are MALFORMED_OPTION", () => {
    const rig = new Rig({ maxFilters: 2 });
    const [a, b, c] = ["198.51.100.0", "198.51.101.0", "198.51.102.0"].map((x) => filter(x, 120));
    const add = (...options: PcpOption[]): number => rig.map({ options }).resultCode;
    const held = (): number => rig.table.inbound(TCP, ALICE.address, 8080)!.filters.length;

    assertEquals([add(a!), add(b!), held()], [R.SUCCESS, R.SUCCESS, 2]);
    assertEquals([add(c!), held()], [R.EXCESSIVE_REMOTE_PEERS, 2]);
    assertEquals([add(a!, b!), held()], [R.SUCCESS, 2], "a renewal repeats its filters");
    assertEquals([add(filter("0.0.0.0", 0), c!), held()], [R.SUCCESS, 1]);
    const bad = [filter("10.0.0.0", 95), filter("10.0.0.0", 129), filter("2001:db8::", 129)];
    assertEquals(bad.map((option) => add(option)), [6, 6, 6]);
    assertEquals(add(filter("2001:db8::", 1)), R.SUCCESS);
    const deletion = rig.map({ lifetimeSeconds: 0, options: [a!] });
    assertEquals(deletion.resultCode, R.MALFORMED_OPTION);
    const inside = { address: "198.51.102.9", port: 5 },
      outside = { address: "192.0.2.1", port: 5 };
    const external = { address: WAN, port: 8080 };
    assert(rig.table.admit(TCP, external, inside));
    assertEquals(rig.table.admit(TCP, external, outside), undefined);
  });
});

describe("PcpServer, RFC 6887 §14: rapid recovery", () => {
  it("PCP-S-47: lost state is announced, and a changed mapping is told to its client", () => {
    const rig = new Rig();
    rig.map();
    rig.server.reset(1000);
    const announced = rig.drain().map(({ to }) => to.address);

    const moved = rig.table.setExternalAddresses([WAN2], 2000);
    rig.server.externalAddressChanged(moved, 2000);
    const told = rig.drain().map(({ to }) => to.address);

    assertEquals(announced, ["224.0.0.1", "ff02::1"]);
    assertEquals(told.sort(), [ALICE.address, "224.0.0.1", "ff02::1"]);
  });

  it("PCP-S-48: ANNOUNCE is answered SUCCESS with lifetime 0, with or without options", () => {
    const rig = new Rig();
    rig.now = 12_000;

    const bytes = rig.raw(announceBytes())[0]!.data;
    const optional = rig.raw(announceBytes(ALICE, [unknown(200)]))[0]!.data;
    const mandatory = rig.raw(announceBytes(ALICE, [unknown(20)]))[0]!.data;

    assertEquals(toHex(bytes), "02800000" + "00000000" + "0000000c" + "00".repeat(12));
    assertEquals(toHex(optional), toHex(bytes));
    assertEquals(mandatory[3], R.UNSUPP_OPTION);
    assertEquals(rig.table.size, 0);
  });

  it("PCP-S-49: a restart is announced with result 0 to each family's group, port 5350", () => {
    const rig = new Rig();

    rig.server.reset(5000);
    const sent = rig.drain();

    assertEquals(sent.map(({ socket, to }) => [socket, to]), [
      ["server", { address: "224.0.0.1", port: 5350 }],
      ["server", { address: "ff02::1", port: 5350 }],
    ]);
    for (const { data } of sent) assertEquals(toHex(data), "0280" + "00".repeat(22));
  });

  it("PCP-S-50: ten copies, 250 ms after the first, then after twice as long, the epoch fresh", () => {
    const rig = new Rig({ announceTo: [{ address: "224.0.0.1", port: 5350 }] });
    rig.server.reset(0);

    const sent = rig.runTo(600_000);

    const gaps = [0, 250, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000];
    let at = 0;
    const times = gaps.map((gap) => at += gap);
    assertEquals(sent.map(({ at }) => at), times);
    assertEquals(sent.map(({ sent }) => u32(sent.data, 8)), times.map((t) => Math.floor(t / 1000)));
    assertEquals(new Rig({ announceCopies: 0 }).runTo(1000), []);
  });

  it("PCP-S-51: a mapping update goes three times to where the client last asked from", () => {
    const rig = new Rig({ announceCopies: 0, allowThirdParty: true });
    const elsewhere = { address: ALICE.address, port: 55_555 };
    const text: PcpOption = { type: "description", text: "x" };
    const options = [filter("198.51.100.0", 120), thirdParty("192.168.1.50"), text];
    rig.map({ options });
    rig.map({ from: elsewhere, options });
    const insisting = { options: [PREFER_FAILURE] };
    rig.map({ internalPort: 81, suggestedPort: 81, suggestedAddress: WAN, ...insisting });
    rig.map({ internalPort: 83, suggestedPort: 83, ...insisting });
    rig.peer({ internalPort: 82 });
    rig.now = 10_000;
    const moved = rig.table.setExternalAddresses([WAN2], rig.now);

    rig.server.externalAddressChanged(moved, rig.now);
    const first = rig.runTo(10_100);
    rig.peer({ internalPort: 82 });
    const rest = rig.runTo(60_000);

    const seen = [...first, ...rest].map(({ at, sent }) => ({
      at,
      to: sent.to.port,
      response: decodeResponse(sent.data),
    }));
    const of = (port: number) =>
      seen.filter(({ response }) =>
        typeof response === "object" && "internalPort" in response && response.internalPort === port
      );
    const updates = of(8080);
    assertEquals(updates.map(({ at, to }) => [at, to]), [
      [10_000, 55_555],
      [10_250, 55_555],
      [10_750, 55_555],
    ]);
    const [update] = updates;
    const told = update!.response;
    claim(typeof told === "object" && told.kind === "map", "a MAP response");
    assertEquals(told.externalAddress, WAN2);
    assertEquals(told.options.map(({ type }) => type).sort(), [
      "filter",
      "third-party",
    ]);
    const refused = of(81)[0]!.response;
    claim(typeof refused === "object" && refused.kind === "map", "a MAP response");
    assertEquals(of(81).length, 3);
    assertEquals(refused.resultCode, R.CANNOT_PROVIDE_EXTERNAL);
    const moved83 = of(83)[0]!.response;
    claim(typeof moved83 === "object" && moved83.kind === "map", "a MAP response");
    assertEquals([moved83.externalAddress, moved83.externalPort], [WAN2, 83], "the port is kept");
    assertEquals(of(82).length, 1, "once refreshed it ceases");
    assertEquals(rig.server.nextTimeout(), rig.table.nextTimeout());
  });
});

describe("PcpServer, RFC 6887 §15 and on: lifetimes, deletion, security", () => {
  it("PCP-S-52: lifetimes are granted between 120 s and a day, both configurable", () => {
    const usual = new Rig();
    const own = new Rig({ minLifetimeSeconds: 10, maxLifetimeSeconds: 100 });
    const granted = (rig: Rig) =>
      [1, 50, 3600, 0xffff_ffff].map((lifetimeSeconds) => rig.map({ lifetimeSeconds }))
        .map((response) => response.lifetimeSeconds);

    assertEquals(granted(usual), [120, 120, 3600, 86_400]);
    assertEquals(granted(own), [10, 50, 100, 100]);
  });

  it("PCP-S-53: no request ends a mapping before its outbound traffic would", () => {
    const rig = new Rig();
    rig.map({ protocol: UDP, lifetimeSeconds: 3600 });
    rig.now = 30_000;
    rig.table.noteTraffic(UDP, { address: ALICE.address, port: 8080 }, rig.now);
    rig.now = 60_000;

    const deleted = rig.map({ protocol: UDP, lifetimeSeconds: 0 });
    const stillThere = rig.table.size;
    rig.runTo(150_000);

    assertEquals([deleted.resultCode, deleted.lifetimeSeconds], [R.SUCCESS, 90]);
    assertEquals([stillThere, rig.table.size], [1, 0]);
  });

  it("PCP-S-54: a freed port stays with its last holder: 2 minutes for UDP, 124 for TCP", () => {
    const free = (protocol: number, afterSeconds: number, wish = {}): boolean => {
      const rig = new Rig();
      rig.map({ protocol, suggestedPort: 4000 });
      rig.map({ protocol, lifetimeSeconds: 0 });
      rig.now = 1000 * afterSeconds;
      return rig.map({ protocol, suggestedPort: 4000, ...wish }).externalPort === 4000;
    };
    const bob = { from: BOB, nonce: nonceOf(2) };

    assertEquals([free(UDP, 119, bob), free(UDP, 120, bob)], [false, true]);
    assertEquals([free(TCP, 7439, bob), free(TCP, 7440, bob)], [false, true]);
    assertEquals(free(TCP, 1), true, "the same internal address, port and nonce");
    assertEquals(free(TCP, 1, { nonce: nonceOf(2) }), false);
    assertEquals(free(TCP, 1, { internalPort: 8081 }), false);
  });

  it("PCP-S-55: what may be deleted is; what is not there is success; the rest NOT_AUTHORIZED", () => {
    const rig = new Rig();
    const internal = { address: ALICE.address, port: 80 };
    const forever = { kind: "static", origin: "admin", expiresAt: Infinity } as const;
    rig.table.mapInbound({ ...forever, protocol: TCP, internal }, 0);
    rig.peer({ internalPort: 81 });
    rig.map({ internalPort: 0 });
    rig.map({ protocol: 0, internalPort: 0 });
    rig.map();
    const remove = (wish = {}) => rig.map({ lifetimeSeconds: 0, ...wish });

    const gone = remove({ suggestedPort: 7, suggestedAddress: "192.0.2.1" });
    assertEquals([gone.resultCode, gone.lifetimeSeconds, gone.internalPort], [0, 0, 8080]);
    assertEquals([gone.externalPort, gone.externalAddress], [7, "192.0.2.1"]);
    assertEquals(remove().resultCode, R.SUCCESS, "a retransmission");
    assertEquals(remove({ internalPort: 80 }).resultCode, R.NOT_AUTHORIZED);
    assertEquals(remove({ internalPort: 81 }).resultCode, R.NOT_AUTHORIZED);
    for (const protocol of [TCP, 0]) {
      const wild = { protocol, internalPort: 0 };
      assertEquals(remove({ ...wild, nonce: nonceOf(2) }).resultCode, R.NOT_AUTHORIZED);
      assertEquals(remove(wild).resultCode, R.SUCCESS);
    }
    assertEquals(remove({ protocol: 0, internalPort: 1 }).resultCode, R.MALFORMED_REQUEST);
    assertEquals([...rig.table.entries()].map((entry) => entry.kind), ["static", "outbound"]);
  });

  it("PCP-S-56: what a transport does never shortens an inbound mapping's lease", () => {
    const rig = new Rig();
    rig.map({ lifetimeSeconds: 3600 });
    rig.peer({ internalPort: 8080 });
    const out = rig.table.outbounds(TCP, ALICE.address, 8080)[0]!;

    // A FIN or RST ends the outbound mapping, and that is all it ends.
    rig.table.remove(out, 1000);
    rig.table.noteTraffic(TCP, { address: ALICE.address, port: 8080 }, 1000);

    const left = [...rig.table.entries()];
    assertEquals(left.map(({ kind, expiresAt }) => [kind, expiresAt]), [["explicit", 3_600_000]]);
  });

  it("PCP-S-57: an address whose own lease is over loses its dynamic mappings", () => {
    const rig = new Rig();
    rig.map();
    rig.peer();
    rig.map({ from: BOB });

    const gone = rig.table.removeAllOf(ALICE.address, 1000);

    assertEquals([gone, rig.table.size, rig.table.entriesOf(ALICE.address)], [2, 1, []]);
  });

  it("PCP-S-58: without authentication a client maps to itself alone, as its packets could", () => {
    const rig = new Rig();

    rig.map();
    rig.peer();
    rig.map({ clientAddress: BOB.address });
    rig.map({ options: [thirdParty(BOB.address)] });

    const insides = [...rig.table.entries()].map(({ internal }) => internal.address);
    assertEquals(insides, [ALICE.address, ALICE.address]);
  });

  it("PCP-S-59: NAT-PMP gets UNSUPP_VERSION in PCP's form, or the NAT-PMP server beside", () => {
    const rig = new Rig();
    rig.now = 99_000;

    const short = rig.raw(Uint8Array.of(0, 0))[0]!.data;
    const map = rig.raw(Uint8Array.of(0, 2, 0, 0, 31, 144, 0, 0, 0, 0, 28, 32))[0]!.data;

    assertEquals(toHex(short), "02800001" + "00000708" + "00000063" + "00".repeat(12));
    assertEquals([map.length, map[0], map[1], map[3]], [24, 2, 0x82, R.UNSUPP_VERSION]);

    const dual = new SimulatedGateway({ externalAddresses: [WAN], random: seededRandom(1) });
    dual.start(0);
    while (dual.poll() !== undefined);
    dual.handleDatagram(Uint8Array.of(0, 0), ALICE, "server", 0);
    let answer: Uint8Array | undefined;
    for (let action = dual.poll(); action; action = dual.poll()) {
      if (action.type === "send" && action.to.port === ALICE.port) answer = action.data;
    }
    assertEquals([answer?.length, answer?.[0], answer?.[1]], [12, 0, 128]);
    assertEquals(u16(answer!, 2), 0);
  });
});
