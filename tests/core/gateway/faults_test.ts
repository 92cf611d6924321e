import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import type { Endpoint } from "../../../core/machine.ts";
import * as pcp from "../../../core/pcp/codec.ts";
import { PCP_RESULT } from "../../../core/pcp/constants.ts";
import type { PcpOption } from "../../../core/pcp/options.ts";
import {
  ALICE,
  ALICE6,
  type Ask,
  BOB,
  EXTERNAL,
  natPmpMap,
  NONCE,
  OTHER_NONCE,
  pcpMap,
  pcpPeer,
  Rig,
} from "./rig.ts";

const SECOND = "203.0.113.8";
const PREFER_FAILURE: readonly PcpOption[] = [{ type: "prefer-failure" }];

/** A gateway whose chosen ports are these alone. */
const few = (first: number, last: number) => ({ table: { chosenPorts: [{ first, last }] } });

/** The inside of each mapping and its outside, in short. */
function told(rig: Rig): string[] {
  return rig.gateway.list(rig.now).map(({ protocol, internal, external }) =>
    `${protocol} ${internal.address}:${internal.port} ${external.address}:${external.port}`
  );
}

function portSet(size: number, firstInternalPort: number): readonly PcpOption[] {
  return [{ type: "port-set", size, firstInternalPort, parity: false }];
}

/** All replies to a PCP request: result code, internal port, lifetime. */
function answers(rig: Rig, port: number, ask: Ask): [number, number, number][] {
  return rig.feed(pcpMap(port, ask), ask.from ?? ALICE).flatMap(({ data }) => {
    const reply = pcp.decodeResponse(data);
    return typeof reply === "object" && reply.kind === "map"
      ? [[reply.resultCode, reply.internalPort, reply.lifetimeSeconds] as [number, number, number]]
      : [];
  });
}

describe("the companion's port of a NAT-PMP mapping", () => {
  const udp = { protocol: "udp" } as const;
  const bobGets = (rig: Rig, port: number) =>
    rig.mapPcp(9000, { ...udp, from: BOB, suggested: port })![1];

  it("is kept where NAT-PMP renews what PCP made", () => {
    const rig = new Rig().start();
    rig.mapPcp(80, { suggested: 8080 });
    rig.mapNatPmp(80);
    assertEquals(bobGets(rig, 8080) === 8080, false);
    rig.mapNatPmp(80, { lifetime: 0 });
    assertEquals(rig.mapPcp(9001, { ...udp, from: BOB, suggested: 8080 })![1], 8080);
  });

  it("is kept where NAT-PMP joins an outbound mapping", () => {
    const rig = new Rig().start();
    rig.feed(pcpPeer(80));
    const [, port] = rig.mapNatPmp(80)!;
    assertEquals(bobGets(rig, port) === port, false);
  });

  it("is left to another host that has it already", () => {
    const rig = new Rig().start();
    rig.mapPcp(80, { suggested: 8080 });
    assertEquals(bobGets(rig, 8080), 8080);
    assertEquals(rig.mapNatPmp(80)?.slice(0, 2), [0, 8080]);
    rig.mapNatPmp(80, { lifetime: 0 });
    assertEquals(rig.mapPcp(9000, { ...udp, from: BOB })?.slice(0, 2), [0, 8080]);
  });

  it("stands against all TCP for another host", () => {
    const rig = new Rig().start();
    rig.mapNatPmp(80, { ...udp, suggested: 8080 });
    assertEquals(rig.mapPcp(0, { from: BOB })?.[0], PCP_RESULT.UNSUPP_PROTOCOL);
    assertEquals(rig.mapPcp(0)?.[0], 0);
  });

  it("is given to its own host when no other is left", () => {
    const rig = new Rig(few(5000, 5001)).start();
    rig.mapNatPmp(80, { suggested: 5000 });
    rig.mapPcp(90, { ...udp, suggested: 5001, from: BOB });
    assertEquals(rig.mapPcp(91, { ...udp, from: BOB })?.[0], PCP_RESULT.NO_RESOURCES);
    assertEquals(rig.mapPcp(81, udp)?.slice(0, 2), [0, 5000]);
  });

  it("is not chosen where the other protocol's port is another host's", () => {
    const rig = new Rig(few(5000, 5002)).start();
    rig.mapPcp(90, { ...udp, suggested: 5000, from: BOB });
    rig.mapPcp(91, { ...udp, suggested: 5001, from: BOB });
    assertEquals(rig.mapNatPmp(80)?.slice(0, 2), [0, 5002]);
    assertEquals(rig.mapNatPmp(81)?.[0], 4);
  });
});

describe("a mapping that two protocols asked for", () => {
  it("lasts for as long as the longer promise, whoever made it and renews last", () => {
    const rig = new Rig().start();
    const end = () => rig.gateway.list(rig.now)[0]!.expiresAt;
    rig.mapPcp(80, { lifetime: 3600 });
    rig.mapNatPmp(80, { lifetime: 7200 });
    // What it tells is its own: the longer lease is its client's to take back.
    assertEquals(rig.mapPcp(80, { lifetime: 600 })?.[2], 600);
    assertEquals(end(), 7_200_000);
    rig.mapNatPmp(80, { lifetime: 60 });
    assertEquals(end(), 600_000);
  });

  it("goes when either deletes it", () => {
    const rig = new Rig().start();
    rig.mapPcp(80, { lifetime: 3600 });
    rig.mapNatPmp(80, { lifetime: 7200 });
    assertEquals(rig.mapPcp(80, { lifetime: 0 }), [0, 0, 0]);
    assertEquals(rig.gateway.list(0), []);
  });

  it("is shortened again once the other's promise is gone with a take-over", () => {
    const rig = new Rig({ profile: "miniupnpd-2.3.1" }).start();
    rig.mapPcp(80, { lifetime: 7200 });
    rig.mapNatPmp(80, { lifetime: 600 });
    assertEquals(rig.gateway.list(0).map(({ expiresAt }) => expiresAt), [600_000]);
  });

  it("tells PCP's client of a move where that client is", () => {
    const rig = new Rig({ announceTo: [] }).start();
    rig.feed(natPmpMap(80), { address: ALICE.address, port: 50_000 });
    rig.feed(pcpMap(80));
    rig.feed(natPmpMap(80), { address: ALICE.address, port: 50_000 });
    rig.gateway.setExternalAddresses([SECOND], 0);
    assertEquals(rig.drain().map(({ to }) => to), [ALICE]);
  });
});

describe("of several external addresses", () => {
  it("NAT-PMP tells the one on which its mappings are, whatever PCP asks for meanwhile", () => {
    const rig = new Rig({ externalAddresses: [EXTERNAL, SECOND] }).start();
    rig.mapNatPmp(80);
    rig.mapPcp(81, { suggestedAddress: SECOND, suggested: 8081 });
    assertEquals(told(rig).at(-1), `6 ${ALICE.address}:81 ${SECOND}:8081`);
    assertEquals(rig.address(), EXTERNAL);
    rig.mapNatPmp(82);
    assertEquals(told(rig).at(-1)?.split(" ")[2]?.split(":")[0], EXTERNAL);
  });

  it("NAT-PMP joins no flow on another address than the one it tells", () => {
    const rig = new Rig({ externalAddresses: [EXTERNAL, SECOND] }).start();
    rig.mapNatPmp(80);
    rig.gateway.table.mapOutbound({
      origin: "traffic",
      protocol: 6,
      internal: { address: ALICE.address, port: 90 },
      remote: { address: "198.51.100.20", port: 443 },
      suggestedAddress: SECOND,
      suggestedPort: 90,
      isExact: true,
      expiresAt: 7_200_000,
    }, 0);
    assertEquals(rig.mapNatPmp(90)?.[0], 4);
  });
});

describe("a suggestion", () => {
  it("with PREFER_FAILURE for all ports has the same answer each time", () => {
    const rig = new Rig().start();
    const ask = { suggested: 8080, options: PREFER_FAILURE };
    const first = rig.mapPcp(0, ask)?.[0];
    assertEquals([first, rig.mapPcp(0, ask)?.[0]], [
      PCP_RESULT.CANNOT_PROVIDE_EXTERNAL,
      PCP_RESULT.CANNOT_PROVIDE_EXTERNAL,
    ]);
    assertEquals(rig.gateway.list(0), []);
  });

  it("does no harm: where it is taken, what would be granted without it is", () => {
    const rig = new Rig(few(2000, 2000)).start();
    rig.mapPcp(1999, { suggested: 3000, from: BOB });
    rig.mapNatPmp(2000, { protocol: "udp", suggested: 2000 });
    assertEquals(rig.mapPcp(2000, { suggested: 3000 })?.slice(0, 2), [0, 2000]);
  });

  it("does no harm to who comes back to the port that was its own", () => {
    const rig = new Rig(few(2000, 2000)).start();
    rig.mapPcp(90, { suggested: 3000, from: BOB });
    rig.mapPcp(80);
    rig.mapPcp(80, { lifetime: 0 });
    assertEquals(rig.mapPcp(81, { from: BOB })?.[0], PCP_RESULT.NO_RESOURCES);
    assertEquals(rig.mapPcp(80, { suggested: 3000 })?.slice(0, 2), [0, 2000]);
  });
});

describe("a port set", () => {
  it("that is deleted leaves nothing but the port that a PEER joined", () => {
    const rig = new Rig().start();
    rig.mapPcp(6000, { suggested: 6000, options: portSet(8, 6000) });
    rig.feed(pcpPeer(6003));
    rig.mapPcp(6000, { lifetime: 0, options: portSet(8, 6000) });
    assertEquals(told(rig), [`6 ${ALICE.address}:6003 ${EXTERNAL}:6003`]);
    rig.runTo(7_441_000);
    rig.feed(pcpPeer(6003));
    const bob = [6002, 6003, 6004].map((suggested) =>
      rig.mapPcp(suggested, { from: BOB, suggested })![1]
    );
    assertEquals([bob[0], bob[1] === 6003, bob[2]], [6002, false, 6004]);
    // The port that is left can be mapped alone, and goes at last.
    assertEquals(rig.mapPcp(6003)?.slice(0, 2), [0, 6003]);
    rig.mapPcp(6003, { lifetime: 0 });
    assertEquals(rig.gateway.table.portsOf(ALICE.address), 1);
  });

  it("is deleted as often as it is asked for, though a PEER is left of it; no other is", () => {
    const rig = new Rig().start();
    const ask = { lifetime: 0 };
    rig.mapPcp(80);
    rig.feed(pcpPeer(80));
    assertEquals([rig.mapPcp(80, ask)?.[0], rig.mapPcp(80, ask)?.[0]], [0, 0]);
    assertEquals(rig.mapPcp(80, { ...ask, nonce: OTHER_NONCE })?.[0], 2);
    const set = { type: "port-set", size: 2, firstInternalPort: 90, parity: false } as const;
    rig.mapPcp(90, { options: [set] });
    rig.feed(pcpPeer(91));
    assertEquals([91, 91].map((port) => rig.mapPcp(port, ask)?.[0]), [0, 0]);
    // What never was more than a flow is not MAP's to delete.
    rig.feed(pcpPeer(70));
    assertEquals(rig.mapPcp(70, ask)?.[0], 2);
  });

  it("is renewed where it is one's own, though another's mapping is among its ports", () => {
    const rig = new Rig().start();
    rig.mapPcp(6000);
    rig.mapPcp(6002, { nonce: OTHER_NONCE });
    rig.mapPcp(6004);
    const ask = { lifetime: 9000, options: portSet(8, 6000) };
    const { NOT_AUTHORIZED } = PCP_RESULT;
    assertEquals(answers(rig, 6000, ask), [[0, 6000, 9000], [NOT_AUTHORIZED, 6002, 7200], [
      0,
      6004,
      9000,
    ]]);
    assertEquals(rig.gateway.list(0).map(({ expiresAt }) => expiresAt / 1000), [9000, 7200, 9000]);
    assertEquals(answers(rig, 6000, { ...ask, lifetime: 0 }), [
      [0, 6000, 0],
      [NOT_AUTHORIZED, 6002, 7200],
      [0, 6004, 0],
    ]);
    assertEquals(rig.gateway.list(0).map(({ nonce }) => nonce), [OTHER_NONCE]);
  });

  it("is judged by the nonce of each mapping that it meets, not by the first one's", () => {
    const rig = new Rig().start();
    rig.mapPcp(6000, { nonce: OTHER_NONCE });
    rig.mapPcp(6001);
    const ask = { lifetime: 9000, options: portSet(2, 6000) };
    assertEquals(answers(rig, 6000, ask).map(([code]) => code), [PCP_RESULT.NOT_AUTHORIZED, 0]);
  });

  it("that has no place whole at a new address goes, and does not shrink", () => {
    const rig = new Rig(few(6000, 6007)).start();
    rig.mapPcp(6000, { suggested: 6000, options: portSet(8, 6000) });
    rig.gateway.addStatic("tcp", 6005, { address: BOB.address, port: 1 }, 0);
    const { table } = rig.gateway;
    table.setExternalAddresses([EXTERNAL, SECOND], 0);
    table.mapInbound({
      kind: "static",
      origin: "admin",
      protocol: 6,
      internal: { address: BOB.address, port: 2 },
      suggestedAddress: SECOND,
      suggestedPort: 6005,
      isExact: true,
      expiresAt: Infinity,
    }, 0);
    rig.gateway.setExternalAddresses([SECOND], 0);
    assertEquals(rig.gateway.list(0).filter(({ kind }) => kind === "explicit"), []);
  });
});

describe("THIRD_PARTY", () => {
  const forHost = (internalAddress: string, from: Endpoint = ALICE) => ({
    from,
    options: [{ type: "third-party", internalAddress }] as const,
  });
  const { NOT_AUTHORIZED } = PCP_RESULT;

  it("is for inside addresses alone", () => {
    const rig = new Rig({ allowThirdParty: true }).start();
    for (
      const address of [
        "0.0.0.0",
        EXTERNAL,
        "224.0.0.1",
        "255.255.255.255",
        "127.0.0.1",
        "8.8.8.8",
        "2001:db8::9",
      ]
    ) {
      assertEquals([address, rig.mapPcp(80, forHost(address))?.[0]], [address, NOT_AUTHORIZED]);
    }
    assertEquals(rig.mapPcp(80, forHost(BOB.address))?.[0], 0);
    assertEquals(rig.mapPcp(80, forHost("10.7.0.1"))?.[0], 0);
    assertEquals(rig.gateway.list(0).length, 2);
  });

  it("is for the prefixes that are the inside, where those are told", () => {
    const internalPrefixes = ["192.168.1.0/24", "11.0.0.0/24"];
    const rig = new Rig({ allowThirdParty: true, internalPrefixes }).start();
    assertEquals(rig.mapPcp(80, forHost("10.7.0.1"))?.[0], NOT_AUTHORIZED);
    assertEquals(rig.mapPcp(80, forHost("11.0.0.9"))?.[0], 0);
  });

  it("is for the hosts behind an IPv6 firewall, not for groups and loopback", () => {
    const rig = new Rig({ allowThirdParty: true }, true).start();
    assertEquals(rig.mapPcp(80, forHost("2001:db8::9", ALICE6))?.[0], 0);
    for (const address of ["ff02::1", "::1", "::", "192.168.1.9"]) {
      const code = rig.mapPcp(80, forHost(address, ALICE6))?.[0];
      assertEquals([address, code], [address, NOT_AUTHORIZED]);
    }
  });
});

describe("what is not a client's to take", () => {
  it("all TCP is not granted over another host's DMZ", () => {
    const rig = new Rig().start();
    const dmz = pcp.encodeRequest({
      kind: "map",
      lifetimeSeconds: 7200,
      clientAddress: BOB.address,
      nonce: NONCE,
      protocol: 0,
      internalPort: 0,
      suggestedPort: 0,
      suggestedAddress: "0.0.0.0",
      options: [],
    });
    rig.feed(dmz, BOB);
    assertEquals(rig.gateway.list(0).length, 1);
    assertEquals(rig.mapPcp(0)?.[0], PCP_RESULT.UNSUPP_PROTOCOL);
  });

  it("NAT-PMP's delete-all leaves PEER's mappings and the administrator's", () => {
    const rig = new Rig().start();
    rig.feed(pcpPeer(80));
    rig.gateway.addStatic("tcp", 7000, { address: ALICE.address, port: 70 }, 0);
    rig.mapNatPmp(90);
    rig.mapNatPmp(0, { lifetime: 0 });
    assertEquals(rig.gateway.list(0).map(({ kind }) => kind), ["outbound", "static"]);
  });

  it("a host whose address lease is over keeps what the administrator made", () => {
    const rig = new Rig().start();
    rig.gateway.addStatic("tcp", 7000, { address: ALICE.address, port: 70 }, 0);
    rig.mapPcp(80);
    rig.gateway.forgetClient(ALICE.address, 0);
    assertEquals(rig.gateway.list(0).map(({ kind }) => kind), ["static"]);
  });
});
