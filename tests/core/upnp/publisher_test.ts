import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import type { Endpoint, HttpResult, RequestAction } from "../../../core/machine.ts";
import {
  decodeEvent,
  decodeSubscribed,
  encodeResubscribe,
  encodeSubscribe,
  encodeUnsubscribe,
} from "../../../core/upnp/gena.ts";
import { randomUuid } from "../../../core/upnp/publisher.ts";
import { IGD_SERVICE } from "../../../core/upnp/igd.ts";
import { encodeCall } from "../../../core/upnp/soap.ts";
import { ALICE, BOB, EXTERNAL, IgdRig, mapping, named } from "./igd_rig.ts";

const PATH = "/evt/IPConn1";
const ADD = {
  service: IGD_SERVICE.WAN_IP_2,
  action: "AddPortMapping",
  args: mapping(5000),
};
const OK: HttpResult = { ok: true, status: 200, headers: [], body: new Uint8Array(0) };

/** What an event tells: its number, then each variable that changed. */
function told({ request, to }: RequestAction): [to: string, sequence: number, object] {
  const event = decodeEvent(request);
  if (typeof event === "string") throw new Error(event);
  return [`${to.address}:${to.port}${request.path}`, event.sequence, event.properties];
}

/** A gateway that someone has subscribed to, with its first event unanswered. */
class EventRig extends IgdRig {
  /** Subscribes; the id and the time, or the status. */
  subscribe(
    { from = ALICE, path = PATH, callback = `http://${from.address}:7000/cb`, seconds = 300 }: {
      from?: Endpoint;
      path?: string;
      callback?: string;
      seconds?: number;
    } = {},
  ): { sid: string; seconds: number | undefined; events: RequestAction[] } | number {
    const { responses, requests } = this.ask(encodeSubscribe(path, callback, seconds), from);
    const { response } = responses[0]!;
    const subscribed = decodeSubscribed(response);
    if (typeof subscribed === "string") return response.status;
    return { sid: subscribed.sid, seconds: subscribed.timeoutSeconds, events: requests };
  }

  subscribed(options: Parameters<EventRig["subscribe"]>[0] = {}) {
    const made = this.subscribe(options);
    if (typeof made === "number") throw new Error(`${made}`);
    return made;
  }

  /** Says what became of an event; what leaves then. */
  answer(id: number, result: HttpResult = OK): RequestAction[] {
    this.gateway.handleResponse(id, result, this.now);
    return this.drain().requests;
  }

  /** The status of a request about a subscription. */
  status(request: Parameters<IgdRig["ask"]>[0], from: Endpoint = ALICE): number | undefined {
    return this.ask(request, from).responses[0]?.response.status;
  }
}

describe("IgdServer: events", () => {
  it("tells a subscriber everything at first, then what has changed", () => {
    const rig = new EventRig();
    const { sid, seconds, events } = rig.subscribed();
    assert(/^uuid:[0-9a-f-]{36}$/.test(sid));
    assertEquals([seconds, events.map(told)], [300, [[`${ALICE.address}:7000/cb`, 0, {
      PossibleConnectionTypes: "IP_Routed",
      ConnectionStatus: "Connected",
      ExternalIPAddress: EXTERNAL,
      PortMappingNumberOfEntries: "0",
      SystemUpdateID: "0",
    }]]]);
    assertEquals(rig.answer(events[0]!.id), []);
    rig.command("external 198.51.100.9");
    const [second, ...others] = rig.drain().requests.map(told);
    assertEquals([second?.slice(1), others], [[1, { ExternalIPAddress: "198.51.100.9" }], []]);
  });

  it("has one event on its way, and puts what changes meanwhile into the next, as it is then", () => {
    const rig = new EventRig();
    const { events: [first] } = rig.subscribed();
    for (const port of [80, 81, 82]) rig.add(port);
    rig.call("DeletePortMapping", named(80));
    rig.command("external 198.51.100.9");
    assertEquals(rig.drain().requests, []);
    const [second, ...others] = rig.answer(first!.id);
    assertEquals([told(second!).slice(1), others], [[1, {
      ExternalIPAddress: "198.51.100.9",
      PortMappingNumberOfEntries: "2",
      SystemUpdateID: "6",
    }], []]);
    assertEquals(rig.answer(second!.id), []);
    rig.command("external none");
    const [third] = rig.drain().requests;
    const [, sequence, properties] = told(third!);
    assertEquals([sequence, (properties as Record<string, string>)["ConnectionStatus"]], [
      2,
      "Disconnected",
    ]);
  });

  it("tells what befell the table without a request: a lease that ended, another protocol's mapping", () => {
    const rig = new EventRig({ protocols: ["nat-pmp", "upnp"] });
    rig.add(80, { lease: 60 });
    const { events: [first] } = rig.subscribed();
    rig.answer(first!.id);
    const request = Uint8Array.of(0, 2, 0, 0, 0, 90, 0, 90, 0, 0, 0, 200);
    rig.gateway.handleDatagram(request, ALICE, "server", rig.now);
    const [second] = rig.drain().requests;
    const count = (action: RequestAction) =>
      (told(action)[2] as Record<string, string>)["PortMappingNumberOfEntries"];
    assertEquals(count(second!), "2");
    rig.answer(second!.id);
    rig.now = 60_000;
    rig.gateway.handleTimeout(rig.now);
    assertEquals(count(rig.drain().requests[0]!), "1");
  });

  it("tells nothing of what is no port mapping: a host's flows, a firewall's pinholes", () => {
    const rig = new EventRig();
    rig.answer(rig.subscribed().events[0]!.id);
    const inside = { address: ALICE.address, port: 80 };
    const remote = { address: "198.51.100.20", port: 443 };
    rig.gateway.noteOutbound(17, inside, { ...inside, address: EXTERNAL }, remote, 60_000, 0);
    rig.gateway.handleTimeout(0);
    assertEquals(rig.drain().requests, []);
    rig.add(5000);
    assertEquals(rig.gateway.stats.upnp!.events.events, 2);
  });

  it("lasts as long as was asked for, from a minute to half an hour, and longer once renewed", () => {
    const rig = new EventRig();
    const lasts = (seconds: number) => rig.subscribed({ seconds }).seconds;
    assertEquals([1, 59, 60, 61].map(lasts), [60, 60, 60, 61]);
    assertEquals([1799, 1800, 1801].map(lasts), [1799, 1800, 1800]);
    const { sid } = rig.subscribed({ seconds: 60 });
    rig.runTo(59_000);
    assertEquals(rig.status(encodeResubscribe(PATH, sid, 60)), 200);
    rig.runTo(118_999);
    assertEquals(rig.status(encodeResubscribe(PATH, sid, 60)), 200);
    rig.runTo(178_999);
    assertEquals(rig.status(encodeResubscribe(PATH, sid, 60)), 412);
    const { subscribed, renewed, refused, expired } = rig.gateway.stats.upnp!.events;
    assertEquals([subscribed, renewed, refused, expired], [8, 2, 1, 5]);
  });

  it("has an id of its own, a random UUID (RFC 9562)", () => {
    const rig = new EventRig();
    const ids = new Set([1, 2, 3, 4, 5, 6, 7, 8].map(() => rig.subscribed().sid));
    const uuid = /^uuid:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
    assertEquals([...ids].filter((id) => uuid.test(id)).length, 8);
    for (
      const [byte, text] of [
        [0, "00000000-0000-4000-8000-000000000000"],
        [255, "ffffffff-ffff-4fff-bfff-ffffffffffff"],
      ] as const
    ) {
      assertEquals(randomUuid({ u32: () => 0, fill: (bytes) => bytes.fill(byte) }), text);
    }
  });

  it("ends by UNSUBSCRIBE; nothing is told afterwards", () => {
    const rig = new EventRig();
    const { sid, events: [first] } = rig.subscribed();
    assertEquals(rig.status(encodeUnsubscribe(PATH, sid), BOB), 412);
    assertEquals(rig.status(encodeUnsubscribe("/evt/L3F", sid)), 412);
    assertEquals(rig.status(encodeUnsubscribe(PATH, sid)), 200);
    assertEquals(rig.status(encodeUnsubscribe(PATH, sid)), 412);
    rig.add(80);
    const { subscribed, unsubscribed, refused, events } = rig.gateway.stats.upnp!.events;
    assertEquals(rig.answer(first!.id), []);
    assertEquals([subscribed, unsubscribed, refused, events], [1, 1, 3, 1]);
  });

  it("calls nobody but the subscriber", () => {
    const rig = new EventRig();
    for (
      const callback of [
        `http://${BOB.address}:7000/`,
        "http://198.51.100.1/",
        "http://evil.example/",
        "http://127.0.0.1:80/",
        `https://${ALICE.address}/`,
        `http://${ALICE.address}@${BOB.address}/`,
        "ftp://x",
        "/path",
      ]
    ) {
      assertEquals(rig.subscribe({ callback }), 412, callback);
    }
    const several = `http://${BOB.address}/><http://${ALICE.address}:1234/second`;
    const { events } = rig.subscribed({ callback: several });
    assertEquals(told(events[0]!)[0], `${ALICE.address}:1234/second`);
  });

  it("refuses what is no subscription as UPnP has it", () => {
    const rig = new EventRig();
    const ask = (...headers: [string, string][]) =>
      rig.status({ method: "SUBSCRIBE", path: PATH, headers });
    const callback: [string, string] = ["CALLBACK", `<http://${ALICE.address}/>`];
    assertEquals(ask(callback), 412);
    assertEquals(ask(["NT", "upnp:event"]), 412);
    assertEquals(ask(callback, ["NT", "upnp:other"]), 412);
    assertEquals(ask(callback, ["NT", "upnp:event"], ["SID", "uuid:1"]), 400);
    assertEquals(ask(["SID", "uuid:1"]), 412);
    assertEquals(rig.status({ method: "UNSUBSCRIBE", path: PATH, headers: [] }), 412);
    assertEquals(rig.gateway.stats.upnp?.events.refused, 6);
  });

  it("has room for eight subscriptions of a host, and for 64 in all", () => {
    const rig = new EventRig();
    for (let i = 0; i < 8; i++) assertEquals(typeof rig.subscribe(), "object");
    assertEquals(rig.subscribe(), 503);
    for (let i = 1; i <= 56; i++) {
      const from = { address: `192.168.1.${i < 50 ? 200 - i : 250 - i}`, port: 5000 };
      if (from.address === ALICE.address) continue;
      rig.subscribe({ from });
    }
    let made = 0;
    for (let i = 2; i < 90; i++) {
      if (typeof rig.subscribe({ from: { address: `192.168.1.${i}`, port: 1 } }) === "object") {
        made++;
      }
    }
    assertEquals(rig.subscribe({ from: BOB }), 503);
    assert(made < 60);
    assertEquals(rig.gateway.stats.upnp?.events.subscribed, 64);
  });

  it("gives a subscriber up who takes three events in a row of none, or knows of no subscription", () => {
    const failure: HttpResult = { ok: false, reason: "refused" };
    const rig = new EventRig();
    let { events: [event] } = rig.subscribed();
    for (const port of [80, 81]) {
      rig.add(port);
      [event] = rig.answer(event!.id, failure);
      assert(event, `${port}`);
    }
    rig.add(82);
    assertEquals(rig.answer(event!.id, failure), []);
    const other = new EventRig();
    const { events: [only] } = other.subscribed();
    other.add(80);
    assertEquals(other.answer(only!.id, { ...OK, status: 412 }), []);
    // An answer below 300 takes the event.
    for (const [status, failed] of [[299, 0], [300, 1], [404, 1]] as const) {
      const taker = new EventRig();
      taker.answer(taker.subscribed().events[0]!.id, { ...OK, status });
      const { events } = taker.gateway.stats.upnp!;
      assertEquals([events.events, events.failed], [1, failed]);
    }
    // One that takes an event in between is no such.
    const third = new EventRig();
    ({ events: [event] } = third.subscribed());
    for (const [i, result] of [failure, failure, OK, failure, failure].entries()) {
      third.add(90 + i);
      [event] = third.answer(event!.id, result);
      assert(event, `${i}`);
    }
  });

  it("tries the callbacks in turn until one takes the event (UDA §4.1.1), the first again for the next", () => {
    const rig = new EventRig();
    const urls = [7000, 7001, 7002].map((port) => `http://${ALICE.address}:${port}/cb`);
    const callback = [urls[0], "http://203.0.113.9/", urls[1], urls[2]].join("><");
    const { sid, events: [first] } = rig.subscribed({ callback });
    const refused = { ok: false, reason: "refused" } as const;
    const [second] = rig.answer(first!.id, refused);
    const busy = { ...OK, status: 503 } as HttpResult;
    const [third] = rig.answer(second!.id, busy);
    assertEquals([first, second, third].map((event) => told(event!)[0]), [
      `${ALICE.address}:7000/cb`,
      `${ALICE.address}:7001/cb`,
      `${ALICE.address}:7002/cb`,
    ]);
    assertEquals(told(third!).slice(1), told(first!).slice(1));
    assertEquals(rig.answer(third!.id), []);
    assertEquals(rig.gateway.stats.upnp!.events.failed, 0);
    const next = rig.ask(encodeCall(ADD, "/ctl/IPConn1")).requests[0]!;
    assertEquals(told(next).slice(0, 2), [`${ALICE.address}:7000/cb`, 1]);
    // Who knows of no such subscription is asked no further.
    assertEquals(rig.answer(next.id, { ...OK, status: 412 } as HttpResult), []);
    assertEquals(rig.status(encodeResubscribe(PATH, sid)), 412);
  });

  it("a boot loses subscriptions, and what was lost in silence is told to nobody", () => {
    const rig = new EventRig();
    const { sid, events: [first] } = rig.subscribed();
    rig.answer(first!.id);
    rig.add(80);
    assertEquals(rig.answer(first!.id + 1), []);
    assertEquals(rig.gateway.stats.upnp?.events.events, 2);
    rig.gateway.forget(rig.now);
    rig.command("nat on");
    assertEquals([rig.drain().requests, rig.table()], [[], []]);
    rig.command("reboot");
    rig.drain();
    assertEquals(rig.status(encodeResubscribe(PATH, sid)), 412);
  });

  it("has events of each service", () => {
    const rig = new EventRig();
    const first = (path: string) => told(rig.subscribed({ path }).events[0]!)[2];
    assertEquals(first("/evt/CmnIfCfg"), { PhysicalLinkStatus: "Up" });
    assertEquals(first("/evt/IP6FC"), { FirewallEnabled: "1", InboundPinholeAllowed: "1" });
    assertEquals(Object.keys(first("/evt/L3F")), ["DefaultConnectionService"]);
    const one = new EventRig({ upnp: { version: 1 } });
    const [event] = one.subscribed().events;
    assert(!("SystemUpdateID" in told(event!)[2]));
  });
});
