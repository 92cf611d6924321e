import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import { PCP_RESULT } from "../../../core/pcp/codec.ts";
import { Rig, SERVER } from "./harness.ts";
import { claim } from "./support.ts";

const SECOND = { address: "192.168.1.2", port: 5351 };

describe("several addresses of one server", () => {
  const servers = [SERVER, SECOND];

  it("asks each four times with the same bytes, then waits 15 minutes", () => {
    const rig = new Rig({ servers });
    const id = rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    const sent = rig.advance(60_000);
    assertEquals(sent.map(({ to }) => to.address), [
      ...new Array(4).fill(SERVER.address),
      ...new Array(4).fill(SECOND.address),
    ]);
    for (const { data } of sent) assertEquals(data, sent[0]!.data);
    const [event] = rig.events;
    claim(event?.type === "failed" && event.id === id && event.retryAt! > 900_000);
    const before = sent.at(-1)!.at;
    const again = rig.advance(900_000);
    assertEquals(again[0]!.to, SERVER);
    claim(again[0]!.at - before >= 900_000);
    assertEquals(rig.client.mapping(id)!.server, SERVER);
  });

  it("goes to the next at once on an ICMP error, and stays where it was answered", () => {
    const rig = new Rig({ servers });
    rig.client.map({ protocol: 6, internalPort: 8080, lifetimeSeconds: 600 }, 0);
    rig.drain();
    rig.client.handleUnreachable(SERVER, "client", 0);
    const [second] = rig.drain();
    assertEquals(second!.to, SECOND);
    claim(!rig.receive(rig.ask(), SERVER));
    assertEquals(rig.client.stats.dropped["other-address"], 1);
    rig.grant();
    assertEquals(rig.heard(), ["server-changed", "mapped"]);
    assertEquals(rig.advance(400_000)[0]!.to, SECOND);
  });

  it("tells that nothing is there where ICMP says so of all", () => {
    const rig = new Rig({ servers });
    const id = rig.client.map({ protocol: 6, internalPort: 8080, mode: "once" }, 0);
    rig.drain();
    rig.client.handleUnreachable(SERVER, "client", 0);
    rig.drain();
    rig.client.handleUnreachable(SECOND, "client", 0);
    rig.drain();
    assertEquals(rig.events, [{ type: "failed", id, failure: { kind: "unreachable" } }]);
    claim(rig.client.isIdle === true);
  });

  it("leaves an address whose renewals stay without an answer", () => {
    const rig = new Rig({ servers });
    rig.mapped({ lifetimeSeconds: 3600 });
    const sent = rig.advance(3_599_000);
    assertEquals(sent.slice(0, 5).map(({ to }) => to.address), [
      ...new Array(4).fill(SERVER.address),
      SECOND.address,
    ]);
    assertEquals(rig.heard(), ["mapped"]);
  });
});

describe("handleUnreachable()", () => {
  it("fails a first request at once; one kept alive is asked for again after rests that grow", () => {
    const rig = new Rig();
    const once = rig.client.map({ protocol: 6, internalPort: 1, mode: "once" }, 0);
    const kept = rig.client.map({ protocol: 6, internalPort: 2 }, 0);
    rig.drain();
    rig.client.handleUnreachable(SECOND, "client", 1);
    rig.drain();
    assertEquals(rig.events, []);
    rig.client.handleUnreachable(SERVER, "client", 1);
    rig.drain();
    const failure = { kind: "unreachable" } as const;
    assertEquals(rig.events.splice(0), [
      { type: "failed", id: once, failure },
      { type: "failed", id: kept, failure, retryAt: 3001 },
    ]);
    assertEquals(rig.client.mapping(kept)!.state, "error");
    assertEquals(rig.advance(3000), []);
    assertEquals(rig.advance(1).length, 1);
    rig.client.handleUnreachable(SERVER, "client", rig.now);
    assertEquals(rig.heard(), ["failed"]);
    assertEquals(rig.advance(5999), []);
    assertEquals(rig.advance(1).length, 1);
    rig.grant();
    assertEquals(rig.heard(), ["mapped"]);
  });

  it("leaves a running mapping alone, and other addresses", () => {
    const rig = new Rig();
    const id = rig.mapped({ lifetimeSeconds: 600 });
    rig.advance(400_000);
    rig.client.handleUnreachable(SERVER, "client", rig.now);
    rig.client.handleUnreachable(SECOND, "client", rig.now);
    assertEquals(rig.heard(), ["mapped"]);
    assertEquals(rig.client.mapping(id)!.state, "updating");
  });
});

describe("networkChanged()", () => {
  it("asks for everything from the new address at once, whatever was refused before", () => {
    const rig = new Rig();
    const held = rig.client.map({ protocol: 17, internalPort: 9 }, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.ADDRESS_MISMATCH, 1800);
    const id = rig.mapped();
    rig.client.networkChanged("10.0.0.9", rig.now);
    const sent = rig.drain();
    assertEquals(sent.length, 2);
    for (const each of sent) {
      claim(each.request.clientAddress === "10.0.0.9");
      rig.grant({}, each);
    }
    // The port is still the old address's.
    assertEquals(rig.heard(), ["failed", "mapped", "mapped", "moved"]);
    assertEquals(rig.client.mapping(held)!.internal.address, "10.0.0.9");
    assertEquals(rig.client.mapping(id)!.state, "running");
    assertThrows(() => rig.client.networkChanged("nowhere", 0), TypeError, "nowhere");
  });

  it("gives up deletions, which the old address alone could ask for", () => {
    const rig = new Rig();
    const id = rig.mapped();
    rig.client.revoke(id, rig.now);
    rig.drain();
    rig.client.networkChanged("10.0.0.9", rig.now);
    assertEquals(rig.drain(), []);
    assertEquals(rig.heard(), ["mapped", "unmapped"]);
  });
});

describe("PcpClient.announce()", () => {
  it("tells the server's epoch", () => {
    const rig = new Rig();
    rig.client.probe(0);
    rig.client.probe(0);
    assertEquals(rig.drain().length, 1);
    rig.gateway.setEpoch(77, 0);
    rig.grant();
    assertEquals(rig.events, [{ type: "announced", epochSeconds: 77 }]);
    assertEquals(rig.advance(100_000), []);
  });

  it("ends after four attempts without an answer, at each of the addresses", () => {
    for (const servers of [[SERVER], [SERVER, SECOND]]) {
      const rig = new Rig({ servers });
      rig.client.probe(0);
      rig.advance(200_000);
      assertEquals(rig.sent.length, 4 * servers.length);
      assertEquals(rig.events, [{ type: "announce-failed", failure: { kind: "no-answer" } }]);
    }
  });

  it("tells a refusal, a version and an ICMP error as failures", () => {
    const rig = new Rig();
    rig.client.probe(0);
    rig.drain();
    rig.refuse(PCP_RESULT.UNSUPP_OPCODE, 1800);
    rig.client.probe(0);
    rig.drain();
    rig.receive(new Uint8Array([0, 0x80, 0, 1, 0, 0, 0, 9]));
    rig.client.probe(0);
    rig.drain();
    rig.client.handleUnreachable(SERVER, "client", 0);
    rig.drain();
    assertEquals(
      rig.events.map((event) => event.type === "announce-failed" && event.failure.kind),
      ["refused", "unsupported-version", "unreachable"],
    );
  });
});

describe("debugTimeout()", () => {
  it("tells the deadline with its reason", () => {
    const rig = new Rig();
    rig.client.map({ protocol: 6, internalPort: 8080 }, 7);
    assertEquals(rig.client.debugTimeout(), { at: 7, reason: "output waits" });
    rig.drain();
    assertEquals(rig.client.debugTimeout(), { at: 257, reason: "retransmit, mapping 1" });
    assertEquals(new Rig().client.debugTimeout(), undefined);
  });
});
