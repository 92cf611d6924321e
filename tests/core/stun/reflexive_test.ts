import { timed } from "../machine_case.ts";
import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import type { Endpoint, Instant } from "../../../core/machine.ts";
import { seededRandom } from "../../../core/random.ts";
import { encodeStun, STUN_METHOD } from "../../../core/stun/codec.ts";
import { ReflexiveKeeper } from "../../../core/stun/reflexive.ts";
import { read, SERVER } from "./rig.ts";

const SECOND: Endpoint = { address: "198.51.100.2", port: 3478 };
const SIX: Endpoint = { address: "2001:db8::53", port: 3478 };
const SEEN = "203.0.113.7:40000";

/** A keeper, and servers that see its socket as `sees` says; undefined: they are silent. */
class Rig {
  readonly keeper: ReflexiveKeeper;
  readonly told: string[] = [];
  readonly asked: { readonly at: Instant; readonly server: string }[] = [];
  readonly answers: Uint8Array[] = [];
  now: Instant = 0;
  sees: (server: string) => string | undefined = () => SEEN;

  constructor(servers: readonly Endpoint[] = [SERVER]) {
    this.keeper = timed(new ReflexiveKeeper({ random: seededRandom(1), servers }));
  }

  do(command: (keeper: ReflexiveKeeper, now: Instant) => void): void {
    command(this.keeper, this.now);
    this.#settle();
  }

  run(ms: number): void {
    const end = this.now + ms;
    for (;;) {
      const at = this.keeper.nextTimeout() ?? Infinity;
      if (at > end) break;
      this.now = Math.max(this.now, at);
      this.do((keeper, now) => keeper.handleTimeout(now));
    }
    this.now = end;
  }

  #settle(): void {
    for (let action = this.keeper.poll(); action; action = this.keeper.poll()) {
      if (action.type === "event") {
        this.told.push(
          action.event.endpoints.map(({ address, port }) => `${address}:${port}`).join(),
        );
      }
      if (action.type !== "send") continue;
      const { to, data, socket } = action;
      this.asked.push({ at: this.now, server: to.address });
      const text = this.sees(to.address);
      if (text === undefined) continue;
      const at = text.lastIndexOf(":");
      const answer = encodeStun({
        class: "success",
        method: STUN_METHOD.BINDING,
        transactionId: read(data).transactionId,
        attributes: {
          xorMappedAddress: { address: text.slice(0, at), port: Number(text.slice(at + 1)) },
        },
      });
      this.answers.push(answer);
      this.keeper.handleDatagram(answer, to, socket, this.now);
    }
  }
}

function asking(servers?: readonly Endpoint[]): Rig {
  const rig = new Rig(servers);
  rig.do((keeper, now) => keeper.ask(now));
  return rig;
}

describe("ReflexiveKeeper", () => {
  it("tells how a server sees the socket, once, and keeps that alive by asking every 15 s", () => {
    const rig = asking();
    rig.run(60_000);
    assertEquals([rig.told, rig.keeper.endpoints], [[SEEN], [
      { address: "203.0.113.7", port: 40_000 },
    ]]);
    assertEquals(rig.asked.map(({ at }) => at), [0, 15_000, 30_000, 45_000, 60_000]);
  });

  it("tells another endpoint, and that there is none where nobody answers any more", () => {
    const rig = asking();
    rig.sees = () => "203.0.113.8:41000";
    rig.run(15_000);
    assertEquals(rig.told, [SEEN, "203.0.113.8:41000"]);
    rig.sees = () => undefined;
    rig.run(55_000);
    assertEquals(rig.told.at(-1), "");
    rig.sees = () => SEEN;
    rig.run(60_000);
    assertEquals(rig.told.at(-1), SEEN);
  });

  it("tells one endpoint a family, whoever sees it", () => {
    const rig = asking([SERVER, SECOND, SIX]);
    rig.sees = (server) => server === SIX.address ? "2001:db8::7:40000" : SEEN;
    rig.do((keeper, now) => keeper.ask(now));
    assertEquals(rig.told.at(-1), `${SEEN},2001:db8::7:40000`);
    assertEquals(rig.keeper.stats.requests, 3 + 3, "IPv6's says nothing against IPv4's");
  });

  it("tells none where the NAT shows each server another one, and does not ask ever faster", () => {
    const rig = new Rig([SERVER, SECOND]);
    rig.sees = (server) => `203.0.113.7:${server === SERVER.address ? 40_000 : 40_001}`;
    rig.do((keeper, now) => keeper.ask(now));
    assertEquals(rig.keeper.endpoints, []);
    const asked = rig.asked.length;
    rig.run(60_000);
    assertEquals([rig.keeper.endpoints, rig.asked.length - asked], [[], 8]);
  });

  it("asks who saw another endpoint before, rather than to take that for such a NAT", () => {
    const rig = asking([SERVER, SECOND]);
    rig.sees = () => "203.0.113.8:41000";
    rig.run(15_000);
    assertEquals([rig.told, rig.keeper.endpoints.length], [[SEEN, "203.0.113.8:41000"], 1]);
    // One that is silent by then does not keep the news back.
    rig.sees = (server) => server === SERVER.address ? "203.0.113.9:42000" : undefined;
    rig.run(15_000);
    assertEquals(rig.told.at(-1), "203.0.113.9:42000");
  });

  it("asks at once where the network has changed, whatever is under way", () => {
    const rig = asking();
    rig.sees = () => undefined;
    rig.do((keeper, now) => keeper.ask(now));
    rig.sees = () => "203.0.113.8:41000";
    rig.do((keeper, now) => keeper.ask(now));
    assertEquals(rig.told, [SEEN, "203.0.113.8:41000"]);
    assertEquals(rig.keeper.stats.requests, 3);
  });

  it("asks once where it is told twice, and leaves the question of before", () => {
    const rig = new Rig();
    rig.keeper.ask(0);
    rig.sees = () => undefined;
    rig.do((keeper, now) => keeper.ask(now));
    assertEquals(rig.asked.length, 1);
    rig.now = 100;
    rig.do((keeper, now) => keeper.ask(now));
    rig.run(39_000);
    const sends = [0, 500, 1500, 3500, 7500, 15_500, 31_500].map((ms) => 100 + ms);
    assertEquals(rig.asked.map(({ at }) => at), [0, ...sends]);
  });

  it("leaves a server alone for a minute that is not there, and takes an address in clear", () => {
    const rig = new Rig();
    rig.sees = () => undefined;
    rig.do((keeper, now) => keeper.ask(now));
    rig.now = 100;
    rig.do((keeper, now) => keeper.handleUnreachable(SERVER, "client", now));
    assertEquals(rig.keeper.nextTimeout(), 60_100);
    const ids: Uint8Array[] = [];
    rig.keeper.ask(200);
    for (let action = rig.keeper.poll(); action; action = rig.keeper.poll()) {
      if (action.type === "send") ids.push(read(action.data).transactionId);
    }
    const answer = encodeStun({
      class: "success",
      method: STUN_METHOD.BINDING,
      transactionId: ids[0]!,
      attributes: { mappedAddress: { address: "203.0.113.7", port: 40_000 } },
    });
    rig.keeper.handleDatagram(answer, SERVER, "client", 200);
    assertEquals(rig.keeper.endpoints, [{ address: "203.0.113.7", port: 40_000 }]);
  });

  it("knows late answers to the last 32 requests, however often each was sent", () => {
    const servers = Array.from({ length: 8 }, (_, i) => ({
      address: `192.0.2.${i + 1}`,
      port: 3478,
    }));
    const rig = new Rig(servers);
    for (let i = 0; i < 4; i++) rig.do((keeper, now) => keeper.ask(now));
    const known = (i: number) =>
      rig.keeper.handleDatagram(rig.answers[i]!, servers[i % 8]!, "client", rig.now);
    assertEquals([rig.answers.length, known(0)], [32, true]);
    rig.sees = () => undefined;
    rig.do((keeper, now) => keeper.setServers(servers.slice(0, 2), now));
    rig.do((keeper, now) => keeper.ask(now));
    rig.run(10_000);
    assertEquals([known(0), known(1), known(8), known(9)], [false, false, true, true]);
  });

  it("takes other servers, each once and eight at most, and keeps what is known of those", () => {
    const rig = asking();
    rig.do((keeper, now) => keeper.setServers([SERVER, SECOND, SECOND], now));
    assertEquals(rig.asked.map(({ server }) => server), [SERVER.address, SECOND.address]);
    rig.sees = () => undefined;
    rig.do((keeper, now) => keeper.ask(now));
    rig.do((keeper, now) => keeper.setServers([SECOND], now));
    rig.asked.length = 0;
    rig.run(60_000);
    assertEquals([...new Set(rig.asked.map(({ server }) => server))], [SECOND.address]);
    const { told } = rig;
    rig.do((keeper, now) => keeper.setServers([], now));
    assertEquals([told.at(-1), rig.keeper.nextTimeout()], ["", undefined]);
    const many = Array.from({ length: 9 }, (_, i) => ({ address: `192.0.2.${i + 1}`, port: 3478 }));
    assertThrows(() => rig.keeper.setServers(many, 0), RangeError, "'servers.length'");
    assertThrows(() => rig.keeper.setServers([{ address: "x", port: 1 }], 0), TypeError, "servers");
  });

  it("takes an endpoint of another family, or of no port, for no answer", () => {
    for (const odd of ["2001:db8::7:40000", "203.0.113.7:0"]) {
      const rig = asking();
      rig.sees = () => odd;
      rig.run(15_000);
      assertEquals(rig.told, [SEEN, ""], odd);
      rig.sees = () => SEEN;
      rig.run(60_000);
      assertEquals(rig.told, [SEEN, "", SEEN], odd);
    }
  });

  it("tells nothing of a server that is asked no more", () => {
    const rig = asking([SERVER, SECOND]);
    rig.sees = () => undefined;
    rig.do((keeper, now) => keeper.setServers([SIX], now));
    assertEquals(rig.told, [SEEN, ""]);
  });

  it("takes an answer that comes twice, as to a request that was sent twice, and from nobody else", () => {
    const rig = asking([SERVER, SECOND]);
    const { answers } = rig;
    const isTaken = [SERVER, SECOND, SIX].map((from) =>
      rig.keeper.handleDatagram(answers.at(-1)!, from, "client", 0)
    );
    assertEquals([isTaken, answers.length, rig.told], [[true, true, false], 2, [SEEN]]);
  });

  it("lets through what is no answer of a server, and says nothing once it is closed", () => {
    const rig = asking();
    assertEquals(rig.keeper.handleDatagram(Uint8Array.of(1, 2, 3), SERVER, "client", 0), false);
    rig.do((keeper, now) => keeper.close(now));
    assertEquals(rig.keeper.nextTimeout(), undefined);
    rig.run(600_000);
    assertEquals([rig.told, rig.asked.length, rig.keeper.nextTimeout()], [[SEEN], 1, undefined]);
  });
});
