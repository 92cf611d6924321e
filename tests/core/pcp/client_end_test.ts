import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { PCP_RESULT } from "../../../core/pcp/codec.ts";
import { Rig, SERVER } from "./harness.ts";
import { claim } from "./support.ts";

const REMOTE = { address: "198.51.100.20", port: 443 };

describe("PcpClient.revoke()", () => {
  it("deletes, repeats the deletion a few times, and tells when it is answered", () => {
    const rig = new Rig();
    const id = rig.mapped();
    rig.client.revoke(id, rig.now);
    rig.drain();
    assertEquals(rig.client.mapping(id)!.state, "revoked");
    rig.advance(800);
    assertEquals(rig.sent.length, 4);
    assertEquals(rig.sent[3]!.data, rig.sent[1]!.data);
    rig.grant();
    assertEquals(rig.heard(), ["mapped", "unmapped"]);
    claim(rig.client.isIdle === true);
  });

  it("gives up telling a silent server after four attempts", () => {
    const rig = new Rig();
    const id = rig.mapped();
    rig.client.revoke(id, rig.now);
    assertEquals(rig.advance(60_000).length + 0, 4);
    assertEquals(rig.heard(), ["mapped", "unmapped"]);
    assertEquals(rig.client.nextTimeout(), undefined);
  });

  it("is done at the natural end of the mapping", () => {
    const rig = new Rig({ fastStart: false });
    const id = rig.mapped({ lifetimeSeconds: 120 });
    rig.now = 119_000;
    rig.client.revoke(id, rig.now);
    assertEquals(rig.advance(999).length, 1);
    rig.advance(1);
    assertEquals(rig.heard(), ["mapped", "unmapped"]);
    assertEquals(rig.advance(60_000), []);
  });

  it("sends nothing for what was refused, nor for what has not left", () => {
    const rig = new Rig();
    const id = rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.NOT_AUTHORIZED, 1800);
    rig.client.revoke(id, rig.now);
    assertEquals(rig.drain(), []);
    const other = rig.client.map({ protocol: 6, internalPort: 8081 }, 0);
    assertEquals(rig.client.hasAsked(other), true);
    rig.client.revoke(other, rig.now);
    assertEquals([rig.drain(), rig.client.isIdle], [[], true]);
  });

  it("deletes what was asked for though the request was about to be sent again", () => {
    const rig = new Rig();
    const id = rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    rig.drain();
    rig.now = 250;
    rig.client.handleTimeout(rig.now);
    rig.client.revoke(id, rig.now);
    const [deletion, ...rest] = rig.drain();
    claim(deletion?.request.kind === "map" && deletion.request.lifetimeSeconds === 0);
    assertEquals(rest, []);
  });

  it("tells whose nonce the server cannot know, since there is no room to ask for it", () => {
    const rig = new Rig();
    const first = rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.NO_RESOURCES, 30);
    const next = rig.client.map({ protocol: 6, internalPort: 8081 }, 0);
    const nonce = new Uint8Array(12).fill(9);
    const given = rig.client.map({ protocol: 6, internalPort: 8082, nonce }, 0);
    assertEquals([first, next, given].map((id) => rig.client.hasAsked(id)), [true, false, true]);
    assertEquals(rig.client.nonces, 1);
    rig.advance(30_000);
    assertEquals([rig.client.hasAsked(next), rig.client.nonces], [true, 2]);
    // Of one that is over nothing is known.
    rig.client.abandon(next, rig.now);
    assertEquals(rig.client.hasAsked(next), true);
  });

  it("takes a late grant for no answer to the deletion", () => {
    const rig = new Rig();
    const id = rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    const [request] = rig.drain();
    rig.client.revoke(id, rig.now);
    rig.drain();
    claim(!rig.grant({}, request!));
    assertEquals(rig.client.stats.dropped.stale, 1);
    assertEquals(rig.client.mapping(id)!.state, "revoked");
  });

  it("lets the same port be mapped again once the deletion is through", () => {
    const rig = new Rig();
    const first = rig.mapped();
    rig.client.revoke(first, rig.now);
    const second = rig.client.map({ protocol: 6, internalPort: 8080 }, rig.now);
    assertEquals(rig.drain().length, 1);
    assertEquals(rig.client.mapping(second)!.state, "requested");
    rig.grant();
    assertEquals(rig.last.lifetimeSeconds, 7200);
    rig.grant();
    assertEquals(rig.heard(), ["mapped", "unmapped", "mapped"]);
  });

  it('takes NO_RESOURCES for "there is nothing", and leaves the server alone meanwhile', () => {
    const rig = new Rig();
    const id = rig.mapped();
    rig.client.revoke(id, rig.now);
    rig.drain();
    rig.refuse(PCP_RESULT.NO_RESOURCES, 30);
    assertEquals(rig.heard(), ["mapped", "unmapped"]);
  });
});

describe("PcpClient.unmap()", () => {
  it("deletes by the nonce of an earlier run what this client does not hold", () => {
    const rig = new Rig();
    const nonce = new Uint8Array(12).fill(9);
    const id = rig.client.unmap({ protocol: 6, internalPort: 8080, nonce }, 0);
    const [only] = rig.drain();
    claim(only!.request.kind === "map");
    assertEquals([only!.request.lifetimeSeconds, only!.request.nonce], [0, nonce]);
    rig.grant();
    assertEquals(rig.events, [{ type: "unmapped", id, reason: "revoked" }]);
  });

  it("revokes what this client holds, with its nonce", () => {
    const rig = new Rig();
    const id = rig.mapped();
    const { nonce } = rig.last;
    assertEquals(rig.client.unmap({ protocol: 6, internalPort: 8080 }, 0), id);
    rig.drain();
    assertEquals(rig.last.nonce, nonce);
  });

  it("is sent three times to a server that was asked for nothing before, and once then", () => {
    const rig = new Rig();
    rig.client.unmap({ protocol: 6, internalPort: 8080 }, 0);
    assertEquals(rig.advance(700).length, 2);
    assertEquals(rig.advance(60_000).length, 1);
    rig.client.unmap({ protocol: 6, internalPort: 8081 }, rig.now);
    assertEquals(rig.advance(60_000).length, 1);
    assertEquals(rig.heard(), ["unmapped", "unmapped"]);

    const asked = new Rig();
    const id = asked.client.map({ protocol: 6, internalPort: 8080 }, 0);
    asked.drain();
    asked.client.revoke(id, asked.now);
    assertEquals(asked.advance(60_000).length, 1);
  });

  it("tells why nobody confirmed it", () => {
    const silent = new Rig();
    silent.client.unmap({ protocol: 6, internalPort: 8080 }, 0);
    silent.advance(60_000);
    const refused = new Rig();
    refused.client.unmap({ protocol: 6, internalPort: 8080 }, 0);
    refused.drain();
    refused.refuse(PCP_RESULT.NOT_AUTHORIZED, 1800);
    const closed = new Rig();
    closed.client.unmap({ protocol: 6, internalPort: 8080 }, 0);
    closed.drain();
    closed.client.handleUnreachable(SERVER, "client", 0);
    closed.drain();
    assertEquals(
      [silent, refused, closed].map(({ events: [event] }) =>
        event?.type === "unmapped" && event.failure?.kind
      ),
      ["no-answer", "refused", "unreachable"],
    );
  });
});

describe("PcpClient.abandon()", () => {
  it("successts without a packet or an event", () => {
    const rig = new Rig();
    const id = rig.client.map({ protocol: 6, internalPort: 8080 }, 0);
    rig.client.abandon(id, 0);
    assertEquals(rig.drain(), []);
    assertEquals(rig.advance(100_000), []);
    assertEquals(rig.heard(), []);
  });
});

describe("PcpClient.close()", () => {
  it("revokes everything and comes to rest", () => {
    const rig = new Rig();
    rig.mapped();
    rig.mapped({ internalPort: 8081 });
    rig.client.peer({ protocol: 6, internalPort: 8080, remote: REMOTE }, 0);
    rig.client.probe(0);
    rig.drain();
    rig.heard();
    rig.client.close(0);
    const deletions = rig.drain();
    assertEquals(deletions.length, 2);
    for (const sent of deletions) rig.grant({}, sent);
    assertEquals(rig.heard(), ["unmapped", "unmapped", "unmapped"]);
    claim(rig.client.isIdle === true);
    assertEquals(rig.client.nextTimeout(), undefined);
  });
});
