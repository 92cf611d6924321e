import { describe, it } from "node:test";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { toHex, u32 } from "../../../core/bytes.ts";
import type { CommandOutcome } from "../../../core/gateway/run_command.ts";
import { COMMANDS } from "../../../core/gateway/scenario.ts";
import { decodeResponse as decodePcp } from "../../../core/pcp/codec.ts";
import {
  ADDRESS_REQUEST,
  ALICE,
  announcedBy,
  BOB,
  EXTERNAL,
  natPmpMap,
  pcpAnnounce,
  pcpMap,
  Rig,
} from "./rig.ts";

/** Why a command was not done. */
function messageOf(outcome: CommandOutcome): string {
  return outcome.isDone ? "" : outcome.message;
}

/** A gateway that has been up for an hour and is quiet. */
function upForAnHour(options: ConstructorParameters<typeof Rig>[0] = {}): Rig {
  const rig = new Rig(options).start();
  rig.runTo(3_600_000);
  return rig;
}

describe("scenario commands", () => {
  it("help lists every command", () => {
    const outcome = new Rig().start().command("help");
    assertEquals(outcome.commands, COMMANDS);
    for (const { usage } of COMMANDS) assertStringIncludes(outcome.message, usage);
  });

  it("each says what it did", () => {
    const rig = new Rig({ protocols: ["pcp", "nat-pmp"] }).start();
    const said = (lines: readonly string[]) =>
      lines.map((line) => {
        const { isDone, message } = rig.command(line);
        return `${line}${isDone ? "" : " (not done)"}: ${message}`;
      });
    assertEquals(
      said([
        "reboot",
        "forget",
        "epoch 12",
        "external 198.51.100.4 198.51.100.5",
        "external none",
        `external ${EXTERNAL}`,
        "static tcp 2222 192.168.1.5 22",
        "static tcp 2222 192.168.1.6 22",
        "static tcp 2223 192.168.1.5 22",
        "list",
        "nat off",
        "nat on",
        "protocol pcp off",
        "protocol pcp on",
        "exhaust on",
        "static udp 1 192.168.1.7 1",
        "exhaust off",
        "refuse 2",
        "refuse off",
        "delay 5",
        "loss 0.5",
        "deaf 3",
        "duplicate on",
        "duplicate off",
        "reorder 7",
        "wrong-source on",
        "wrong-source off",
        "client 192.168.1.9 deny",
        "client 192.168.1.9 allow",
        "announce",
        "quit",
      ]),
      [
        "reboot: the table is lost, the epoch starts anew, announced",
        "forget: the table is lost, in silence",
        "epoch 12: the epoch is 12 s",
        "external 198.51.100.4 198.51.100.5: the external address is 198.51.100.4, 198.51.100.5",
        "external none: the WAN is down",
        `external ${EXTERNAL}: the external address is ${EXTERNAL}`,
        "static tcp 2222 192.168.1.5 22: port 2222/tcp goes to 192.168.1.5, port 22",
        "static tcp 2222 192.168.1.6 22 (not done): Cannot add the mapping: the external port is taken",
        "static tcp 2223 192.168.1.5 22 (not done): Cannot add the mapping: there is such a mapping",
        "list: 1 mapping",
        "nat off: it is no NAT: nothing listens",
        "nat on: it acts as a NAT",
        "protocol pcp off: pcp is off",
        "protocol pcp on: pcp is on",
        "exhaust on: every external port is taken",
        "static udp 1 192.168.1.7 1 (not done): Cannot add the mapping: no port is left",
        "exhaust off: external ports are free",
        "refuse 2: every request is refused with 2",
        "refuse off: requests are served",
        "delay 5: replies are 5 ms late",
        "loss 0.5: replies are lost with probability 0.5",
        "deaf 3: the next 3 packets are not heard",
        "duplicate on: replies are sent twice",
        "duplicate off: replies are sent once",
        "reorder 7: replies are up to 7 ms late, each by its own time",
        "wrong-source on: replies come from another port",
        "wrong-source off: replies come from the port asked",
        "client 192.168.1.9 deny: 192.168.1.9 may not have mappings",
        "client 192.168.1.9 allow: 192.168.1.9 may have mappings",
        "announce: it announces itself",
        "quit: the gateway ends",
      ],
    );
  });

  it("list gives copies of the table's entries", () => {
    const rig = new Rig().start();
    assertEquals(rig.command("list"), { isDone: true, message: "0 mappings", entries: [] });
    rig.mapPcp(80, { suggested: 8080 });
    rig.command("static udp 53 192.168.1.5 5353");
    const { message, entries } = rig.command("list");
    assertEquals(message, "2 mappings");
    assertEquals(entries?.map((e) => [e.kind, e.origin, e.protocol, e.internal, e.external.port]), [
      ["explicit", "pcp", 6, { address: ALICE.address, port: 80 }, 8080],
      ["static", "admin", 17, { address: "192.168.1.5", port: 5353 }, 53],
    ]);
    rig.command("external 198.51.100.4");
    assertEquals(entries?.map((e) => e.external.address), [EXTERNAL, EXTERNAL]);
  });

  it("reboot loses the table but static mappings, restarts both epochs and announces", () => {
    const rig = upForAnHour();
    rig.mapPcp(80);
    rig.command("static tcp 22 192.168.1.5 22");
    rig.gateway.disturb({ delayMs: 50 }, rig.now);
    rig.feed(natPmpMap(81));
    rig.gateway.disturb({ delayMs: 0 }, rig.now);
    rig.gateway.reboot(rig.now);
    assertEquals(rig.drain().map(announcedBy), ["nat-pmp", "pcp"]);
    assertEquals(rig.gateway.list(rig.now).map((e) => e.kind), ["static"]);
    rig.now += 5000;
    assertEquals(rig.epochs(), [5, 5]);
    // What was on its way is lost, too.
    assertEquals(rig.gateway.stats.replies.waiting, 0);
  });

  it("forget loses the table in silence, and the epochs run on", () => {
    const rig = upForAnHour();
    rig.mapPcp(80);
    rig.gateway.forget(rig.now);
    assertEquals(rig.drain(), []);
    assertEquals(rig.gateway.table.size, 0);
    assertEquals(rig.epochs(), [3600, 3600]);
    assertEquals(rig.runTo(rig.now + 1_000_000), []);
  });

  it("epoch lets both epochs jump, in silence", () => {
    const rig = upForAnHour();
    assert(rig.command("epoch 12").isDone);
    rig.now += 3000;
    assertEquals(rig.epochs(), [15, 15]);
    assert(rig.command("epoch 4294967295").isDone);
    assertEquals(rig.epochs(), [4294967295, 4294967295]);
  });

  it("external moves mappings along and tells: PCP's epoch restarts, NAT-PMP's runs on", () => {
    const rig = upForAnHour();
    rig.mapPcp(80, { suggested: 8080 });
    rig.gateway.setExternalAddresses(["198.51.100.4"], rig.now);
    const sent = rig.drain();
    assertEquals(sent.map(announcedBy).filter(Boolean).sort(), ["nat-pmp", "pcp"]);
    const update = sent.find((s) => s.to.port === ALICE.port && s.to.address === ALICE.address);
    const told = decodePcp(update!.data);
    assertEquals(
      typeof told === "object" && told.kind === "map" && [told.externalAddress, told.externalPort],
      ["198.51.100.4", 8080],
    );
    assertEquals(rig.address(), "198.51.100.4");
    assertEquals(rig.epochs(), [3600, 0]);
    assertEquals(rig.mapNatPmp(80)?.[1], 8080);
  });

  it("external none is a WAN that is down: NETWORK_FAILURE by both protocols", () => {
    const rig = upForAnHour();
    assert(rig.command("external none").isDone);
    assertEquals(rig.address(), 3);
    assertEquals(rig.mapNatPmp(80)?.[0], 3);
    assertEquals(rig.mapPcp(80)?.[0], 7);
    assert(rig.command("external 198.51.100.4").isDone);
    assertEquals(rig.address(), "198.51.100.4");
    assertEquals(rig.mapPcp(80)?.[0], 0);
  });

  it("external may be private or shared: another NAT stands above", () => {
    for (const address of ["10.1.2.3", "100.64.0.9"]) {
      const rig = upForAnHour();
      assert(rig.command(`external ${address}`).isDone);
      assertEquals(rig.address(), address);
      assertEquals(rig.mapNatPmp(80)?.[0], 0);
    }
  });

  it("static is mapped for good, takes the place of a client's, and cannot be deleted", () => {
    const rig = upForAnHour();
    rig.mapPcp(22, { suggested: 9000 });
    assert(rig.command("static tcp 2222 192.168.1.100 22").isDone);
    assertEquals(rig.mapNatPmp(22)?.slice(0, 2), [0, 2222]);
    assertEquals(rig.mapNatPmp(22, { lifetime: 0 })?.[0], 2);
    assertEquals(rig.mapPcp(22, { lifetime: 0 })?.[0], 2);
    assertEquals(rig.mapPcp(22)?.[2], 0xffffffff);
    assertStringIncludes(messageOf(rig.command("static tcp 2222 192.168.1.7 80")), "is taken");
    assertStringIncludes(messageOf(rig.command("static tcp 1 192.168.1.100 22")), "there is such");
    assertStringIncludes(messageOf(rig.command("static tcp 1 2001:db8::1 22")), "IPv4");
  });

  it("nat off is silence, and nat on a boot", () => {
    const rig = upForAnHour();
    rig.mapPcp(80);
    rig.gateway.reboot(rig.now);
    assert(rig.command("nat off").isDone);
    assertEquals(rig.gateway.isListening, false);
    for (const request of [ADDRESS_REQUEST, pcpMap(80), natPmpMap(80), pcpAnnounce()]) {
      assertEquals(rig.feed(request), []);
    }
    for (const line of ["announce", "external 198.51.100.9", "reboot", "protocol pcp off"]) {
      assert(rig.command(line).isDone);
    }
    assert(rig.command("protocol pcp on").isDone);
    assertEquals(rig.runTo(rig.now + 1_000_000), []);
    rig.gateway.setNat(true, rig.now);
    assertEquals(rig.drain().map(announcedBy), ["nat-pmp", "pcp"]);
    assertEquals(rig.epochs(), [0, 0]);
  });

  it("protocol switches one protocol and leaves the table", () => {
    const rig = upForAnHour();
    rig.mapPcp(80, { suggested: 8080 });
    assert(rig.command("protocol pcp off").isDone);
    assertEquals(toHex(rig.ask(pcpMap(80))), "0000000100000e10");
    assertEquals(rig.mapNatPmp(80)?.[1], 8080);
    assert(rig.command("protocol nat-pmp off").isDone);
    assertEquals([rig.gateway.isListening, rig.feed(ADDRESS_REQUEST)], [false, []]);
    assert(rig.command("protocol pcp on").isDone);
    assertEquals(rig.mapPcp(80)?.slice(0, 2), [0, 8080]);
    assertEquals(rig.gateway.protocols, ["pcp"]);
    assertStringIncludes(messageOf(rig.command("protocol upnp on")), "was made without it");
  });

  it("exhaust refuses new mappings and goes on renewing those that are there", () => {
    const rig = upForAnHour();
    rig.mapPcp(80);
    assert(rig.command("exhaust on").isDone);
    assertEquals(rig.mapNatPmp(81), [4, 0, 0]);
    assertEquals(rig.mapPcp(81)?.[0], 8);
    assertEquals(rig.mapPcp(80)?.[0], 0);
    assert(rig.command("exhaust off").isDone);
    assertEquals(rig.mapNatPmp(81)?.[0], 0);
  });

  it("refuse answers everything but ANNOUNCE with the code, and changes nothing", () => {
    const rig = upForAnHour();
    rig.mapPcp(80);
    assert(rig.command("refuse 8").isDone);
    assertEquals([rig.address(), rig.mapNatPmp(81)?.[0], rig.mapPcp(82)?.[0]], [8, 8, 8]);
    assertEquals(rig.mapPcp(80, { lifetime: 0 })?.[0], 8);
    assertEquals(rig.gateway.table.size, 1);
    assertEquals(u32(rig.ask(pcpAnnounce()), 0), 0x02800000);
    // PCP's error lifetimes: 30 s for what passes soon, 30 minutes for what stays.
    assertEquals(u32(rig.ask(pcpMap(82)), 4), 30);
    assert(rig.command("refuse 2").isDone);
    assertEquals(u32(rig.ask(pcpMap(82)), 4), 1800);
    assert(rig.command("refuse off").isDone);
    assertEquals(rig.mapPcp(82)?.[0], 0);
  });

  it("delay makes replies late", () => {
    const rig = upForAnHour();
    assert(rig.command("delay 250").isDone);
    assertEquals(rig.feed(ADDRESS_REQUEST), []);
    assertEquals(rig.gateway.debugTimeout()?.reason, "send a delayed reply");
    assertEquals(rig.runTo(rig.now + 249), []);
    const sent = rig.runTo(rig.now + 1);
    assertEquals(sent.map(({ action }) => action.to), [ALICE]);
  });

  it("loss loses replies; the requests are served all the same", () => {
    const rig = upForAnHour();
    assert(rig.command("loss 1").isDone);
    assertEquals(rig.feed(pcpMap(80)), []);
    assertEquals(rig.gateway.table.size, 1);
    assertEquals(rig.gateway.stats.replies.lost, 1);
  });

  it("deaf does not hear the next requests, then hears again", () => {
    const rig = upForAnHour();
    assert(rig.command("deaf 2").isDone);
    assertEquals([rig.feed(pcpMap(80)), rig.feed(natPmpMap(80))], [[], []]);
    assertEquals(rig.gateway.table.size, 0);
    assertEquals(rig.mapPcp(80)?.[0], 0);
  });

  it("duplicate sends each reply twice", () => {
    const rig = upForAnHour();
    assert(rig.command("duplicate on").isDone);
    const [a, b, ...rest] = rig.feed(ADDRESS_REQUEST);
    assertEquals([a?.data, rest], [b?.data, []]);
  });

  it("reorder lets replies overtake each other", () => {
    const rig = upForAnHour();
    assert(rig.command("reorder 50").isDone);
    for (let port = 1; port <= 20; port++) rig.feed(natPmpMap(port));
    const ports = rig.runTo(rig.now + 50).map(({ action }) => action.data[9]!);
    assertEquals(ports.length, 20);
    assert(ports.join() !== ports.toSorted((x, y) => x - y).join());
  });

  it("wrong-source sends by the other socket", () => {
    const rig = upForAnHour();
    assert(rig.command("wrong-source on").isDone);
    assertEquals(rig.feed(ADDRESS_REQUEST).map((s) => s.socket), ["other"]);
    assert(rig.command("wrong-source off").isDone);
    assertEquals(rig.feed(ADDRESS_REQUEST).map((s) => s.socket), ["server"]);
  });

  it("client deny keeps one client from mappings, and no other", () => {
    const rig = upForAnHour();
    assert(rig.command("client 192.168.1.100 deny").isDone);
    assertEquals([rig.mapPcp(80)?.[0], rig.mapNatPmp(80)?.[0]], [2, 2]);
    assertEquals([rig.address(), rig.mapPcp(80, { from: BOB })?.[0]], [EXTERNAL, 0]);
    assert(rig.command("client 192.168.1.100 allow").isDone);
    assertEquals(rig.mapPcp(81)?.[0], 0);
  });

  it("announce announces by both protocols with the epochs as they are", () => {
    const rig = upForAnHour();
    rig.gateway.announce(rig.now);
    assertEquals(rig.drain().map((s) => [announcedBy(s), u32(s.data, s.data[0] === 2 ? 8 : 4)]), [
      ["nat-pmp", 3600],
      ["pcp", 3600],
    ]);
    assertEquals(rig.runTo(rig.now + 1_000_000).length, 18);
  });

  it("quit is left to whoever runs the gateway", () => {
    assertEquals(new Rig().start().command("quit"), { isDone: true, message: "the gateway ends" });
  });

  it("what a firewall cannot do is an error, not a crash", () => {
    const rig = new Rig({}, true).start();
    assertStringIncludes(messageOf(rig.command("external 203.0.113.9")), "does not translate");
    assertStringIncludes(messageOf(rig.command("protocol nat-pmp on")), "does not translate");
  });
});
