/**
 * What a caller is told of his mistakes, and what the counters say of a client's work.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { PcpClient, type PcpClientOptions } from "../../../core/pcp/client.ts";
import { PCP_RESULT } from "../../../core/pcp/codec.ts";
import { seededRandom } from "../../../core/random.ts";
import { LOCAL, Rig, SERVER } from "./harness.ts";

const TCP = { protocol: 6, internalPort: 8080 } as const;

describe("PcpClient's options", () => {
  const wrong: readonly (readonly [Record<string, unknown>, string])[] = [
    [{ servers: [] }, "'servers' must list at least one address"],
    [{ servers: undefined }, "'servers' must list at least one address"],
    [{ servers: [null] }, "'servers.address'"],
    [{ servers: [{ address: "router", port: 5351 }] }, "'servers.address'"],
    [{ servers: [{ address: "192.168.1.1" }] }, "'servers.port'"],
    [{ localAddress: "here" }, "'localAddress'"],
    [{ fastStart: 1 }, "'fastStart'"],
    [{ maxAttempts: -1 }, "'maxAttempts'"],
    [{ maxAttempts: 1.5 }, "'maxAttempts'"],
  ];
  for (const [fields, message] of wrong) {
    it(`are refused with ${message} at ${JSON.stringify(fields)}`, () => {
      const options = {
        servers: [SERVER],
        localAddress: LOCAL,
        random: seededRandom(1),
        ...fields,
      } as unknown as PcpClientOptions;
      assertThrows(() => new PcpClient(options), Error, message);
    });
  }
});

describe("PcpClient's commands", () => {
  it("name the id that was never given out", () => {
    const rig = new Rig();
    rig.mapped();
    for (const id of [0, 2, 1.5]) {
      const { client } = rig;
      assertThrows(() => client.renew(id, undefined, 0), RangeError, "'id'");
      assertThrows(() => client.revoke(id, 0), RangeError, "'id'");
      assertThrows(() => client.abandon(id, 0), RangeError, "'id'");
      assertThrows(() => client.withdraw(id, 0), RangeError, "'id'");
    }
    assertEquals(rig.drain(), []);
  });

  it("name what else is wrong, and nothing leaves", () => {
    const rig = new Rig();
    const id = rig.mapped();
    const { client } = rig;
    assertThrows(() => client.renew(id, 0, 0), RangeError, "'lifetimeSeconds'");
    assertThrows(() => client.networkChanged("here", 0), TypeError, "'localAddress'");
    const short = new Uint8Array(11);
    assertThrows(() => client.map({ ...TCP, nonce: short }, 0), TypeError, "current length is 11");
    assertThrows(() => client.unmap({ ...TCP, nonce: short }, 0), TypeError, "'nonce'");
    const none = undefined as never;
    assertThrows(() => client.peer({ ...TCP, remote: none }, 0), TypeError, "'remote.address'");
    client.close(0);
    const again = () => client.map({ ...TCP, internalPort: 9 }, 0);
    assertThrows(again, TypeError, "the client is closed");
    assertEquals(rig.drain().map(({ request }) => request.lifetimeSeconds), [0]);
  });

  it("refuse options that leave no room for the answer, by their length", () => {
    const rig = new Rig();
    const filters = Array.from({ length: 50 }, (_, port) => ({
      prefix: { family: 4, address: "192.0.2.0", prefixLength: 24 } as const,
      port,
    }));
    const request = { ...TCP, filters };
    assertThrows(() => rig.client.map(request, 0), TypeError, "current length is");
    assertEquals(rig.client.isIdle, true);
  });

  it("keep a nonce of their own", () => {
    const rig = new Rig(), nonce = new Uint8Array(12).fill(1);
    const id = rig.client.map({ ...TCP, nonce }, 0);
    nonce.fill(2);
    rig.client.mapping(id)!.nonce.fill(3);
    assertEquals(rig.client.mapping(id)!.nonce, new Uint8Array(12).fill(1));
  });
});

describe("PcpClient's counters", () => {
  it("count what was sent by kind, and what came of it", () => {
    const rig = new Rig();
    const id = rig.mapped();
    rig.client.peer({ ...TCP, remote: { address: "198.51.100.1", port: 9 } }, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.NOT_AUTHORIZED, 60);
    rig.client.probe(0);
    rig.advance(300);
    rig.client.endProbe(rig.now);
    rig.client.revoke(id, rig.now);
    rig.drain();
    rig.grant();
    const { sent, received, granted, refused, retransmitted } = rig.client.stats;
    assertEquals(sent, { map: 1, peer: 1, delete: 1, announce: 2 });
    assertEquals([received, granted, refused, retransmitted], [3, 1, 1, 0]);
    assertEquals(rig.heard(), ["mapped", "failed", "unmapped"]);
  });

  it("count requests that are sent again", () => {
    const rig = new Rig();
    rig.client.map(TCP, 0);
    rig.advance(1000);
    assertEquals([rig.client.stats.sent.map, rig.client.stats.retransmitted], [3, 2]);
  });
});

describe("an answer", () => {
  it("is taken for one's own whatever it says", () => {
    const rig = new Rig();
    rig.client.map({ ...TCP, description: "Minecraft" }, 0);
    rig.drain();
    assert(rig.refuse(PCP_RESULT.MALFORMED_OPTION, 60));
    assertEquals(rig.client.stats.refused, 1);
    assert(rig.refuse(PCP_RESULT.NOT_AUTHORIZED, 60));
    rig.advance(60_000);
    assert(rig.grant());
    assertEquals(rig.heard(), ["failed", "mapped"]);
  });

  it("to the question whether the server is there may be a refusal, with its time", () => {
    const rig = new Rig();
    rig.client.probe(0);
    rig.drain();
    rig.refuse(PCP_RESULT.NOT_AUTHORIZED, 60);
    assertEquals(rig.events, [{
      type: "announce-failed",
      failure: { kind: "refused", code: 2, name: "NOT_AUTHORIZED", retryAt: 60_000 },
    }]);
    assertEquals(rig.client.isIdle, true);
  });

  it("of a malformed option has a request sent without the set, and with what needs no padding", () => {
    const rig = new Rig();
    rig.client.map({ ...TCP, portSet: { size: 4 }, description: "Mine" }, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.MALFORMED_OPTION, 60);
    assertEquals(rig.last.options, [{ type: "description", text: "Mine" }]);
    rig.grant();
    assertEquals(rig.heard(), ["mapped"]);
  });
});

describe("a closed client", () => {
  it("asks no more whether the server is there", () => {
    const rig = new Rig();
    rig.client.probe(0);
    rig.drain();
    rig.client.close(0);
    assertEquals([rig.client.isIdle, rig.client.nextTimeout()], [true, undefined]);
    assertEquals(rig.advance(60_000), []);
  });
});

describe("a server without resources", () => {
  it("is left alone for as long as its longest word", () => {
    const rig = new Rig();
    const ids = [1, 2].map((internalPort) => rig.mapped({ internalPort }));
    for (const [i, seconds] of [600, 60].entries()) {
      rig.client.renew(ids[i]!, undefined, 0);
      rig.drain();
      rig.refuse(PCP_RESULT.NO_RESOURCES, seconds);
    }
    const third = rig.client.map({ ...TCP, internalPort: 3 }, 0);
    assertEquals(rig.drain(), []);
    const failure = {
      kind: "refused",
      code: PCP_RESULT.NO_RESOURCES,
      name: "NO_RESOURCES",
      retryAt: 600_000,
    } as const;
    assertEquals(rig.events.at(-1), { type: "failed", id: third, failure, retryAt: 600_000 });
  });
});

describe("a state without a nonce", () => {
  it("is asked for with a new one", () => {
    const rig = new Rig();
    rig.mapped();
    const { mappings: [saved] } = rig.client.exportState(0);
    const { nonce: _, ...rest } = saved!;
    const next = new Rig({ state: { version: 1, mappings: [rest] } });
    next.advance(0);
    assertEquals(next.sent.length, 1);
    assert(next.last.nonce.some((byte) => byte !== 0));
    assertEquals(next.client.mapping(1)!.nonce, next.last.nonce);
  });
});
