/**
 * The check list: what is checked next, what waits for what, and how many pairs there may be.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import type { Candidate } from "../../../core/ice/candidate.ts";
import { type Base, CheckList } from "../../../core/ice/check_list.ts";

const BASE: Base = {
  socket: "a",
  local: { address: "192.0.2.1", port: 1 },
  priority: 1000,
  foundation: "1",
};
const remote = (port: number, more: Partial<Candidate> = {}): Candidate => ({
  foundation: `${port}`,
  transport: "udp",
  priority: port,
  address: "203.0.113.1",
  port,
  type: "host",
  ...more,
});

describe("a check list", () => {
  it("keeps a pair for each socket and endpoint, best first by RFC 8445 §6.1.2.3", () => {
    const list = new CheckList();
    const one = list.add(BASE, remote(5));
    assertEquals(one?.triggeredAt, -Infinity);
    assertEquals(list.add(BASE, remote(5)), one);
    list.add(BASE, remote(9));
    list.add({ ...BASE, socket: "b" }, remote(5));
    assertEquals(list.pairs.map((pair) => pair.remote.port), [9, 5, 5]);
    assertEquals(list.find("a", { address: "203.0.113.1", port: 5 }), one);
    assertEquals(list.find("c", { address: "203.0.113.1", port: 5 }), undefined);
    const before = one!.priority;
    list.setRole(false);
    assertEquals(before - one!.priority, 1n, "G > D counts one more");
  });

  it("checks one of each foundation first, and those alike once it succeeded (§6.1.2.6)", () => {
    const list = new CheckList();
    const alike = [3, 2, 1].map((port) => list.add(BASE, remote(port, { foundation: "x" }))!);
    const other = list.add(BASE, remote(4))!;
    assertEquals([...alike, other].map(({ state }) => state), [
      "waiting",
      "frozen",
      "frozen",
      "waiting",
    ]);
    const next = list.next()!;
    assertEquals([next.pair.remote.port, next.isTriggered], [4, false]);
    other.state = "in-progress";
    assertEquals(list.next()!.pair.remote.port, 3);
    list.succeed(alike[0]!);
    assertEquals(alike.map(({ state }) => state), ["succeeded", "waiting", "waiting"]);
    assertEquals(list.add(BASE, remote(8, { foundation: "x" }))!.state, "waiting");
  });

  it("counts what is in each state, and has work while one of them waits or is frozen", () => {
    const list = new CheckList();
    assertEquals([list.hasWork, list.count("waiting")], [false, 0]);
    const [one, other] = [2, 1].map((port) => list.add(BASE, remote(port, { foundation: "x" }))!);
    const states = ["frozen", "waiting", "in-progress", "succeeded", "failed"] as const;
    for (const state of states) {
      one!.state = other!.state = state;
      assertEquals(
        states.map((each) => list.count(each)),
        states.map((each) => +(each === state) * 2),
      );
      assertEquals(list.hasWork, state === "frozen" || state === "waiting", state);
      other!.state = "succeeded";
      assertEquals(list.hasWork, state === "frozen" || state === "waiting", state);
    }
    one!.state = "failed";
    list.trigger(one!);
    one!.state = "in-progress";
    assertEquals(list.hasWork, true, "it was asked for");
  });

  it("leaves what waits for one alike behind what waits for nobody, whoever else is under way", () => {
    const list = new CheckList();
    const [alike, frozen] = [9, 8].map((port) =>
      list.add(BASE, remote(port, { foundation: "x" }))!
    );
    const [stranger, free] = [7, 6].map((port) =>
      list.add(BASE, remote(port, { foundation: "y" }))!
    );
    alike!.state = "in-progress";
    stranger!.state = "failed";
    assertEquals([frozen!.state, free!.state, list.next()!.pair], ["frozen", "frozen", free]);
    const more = list.add(BASE, remote(5))!;
    more.state = "in-progress";
    assertEquals(list.next()!.pair, free);
  });

  it("thaws what waits for nobody, and at last what waits for one that is slow", () => {
    const list = new CheckList();
    const [first, second] = [2, 1].map((port) =>
      list.add(BASE, remote(port, { foundation: "x" }))!
    );
    first!.state = "failed";
    assertEquals(list.next()!.pair, second);
    first!.state = "in-progress";
    assertEquals(list.next()!.pair, second);
    second!.state = "failed";
    assertEquals(list.next(), undefined);
    list.retry();
    assertEquals([first!.state, second!.state], ["in-progress", "waiting"]);
  });

  it("does first what the peer asked for, in its order, each once (§6.1.4.1)", () => {
    const list = new CheckList();
    const [a, b, c] = [30, 20, 10].map((port) => list.add(BASE, remote(port))!);
    c!.state = "failed";
    b!.state = "succeeded";
    for (const pair of [c!, b!, c!]) list.trigger(pair);
    assertEquals([c!.state, b!.state], ["waiting", "succeeded"]);
    assert(list.hasWork);
    assertEquals([list.next(), list.next()], [
      { pair: c!, isTriggered: true },
      { pair: b!, isTriggered: true },
    ]);
    assertEquals(list.next(), { pair: a!, isTriggered: false });
  });

  it("has no more than a hundred pairs: a better one takes the place of the worst", () => {
    const list = new CheckList();
    for (let port = 1; port <= 100; port++) list.add(BASE, remote(100 + port));
    assertEquals(list.add(BASE, remote(50)), undefined);
    assertEquals(
      list.add(BASE, remote(1, { priority: 101 })),
      undefined,
      "no better than the worst",
    );
    const heard = list.add(BASE, remote(2, { priority: 1 }), true)!;
    assertEquals(list.find("a", heard.remote), heard, "the peer was heard there");
    assertEquals([list.pairs.length, list.find("a", { ...heard.remote, port: 101 })], [
      100,
      undefined,
    ]);
    list.leave("b");
    assertEquals(list.pairs.length, 100);
    const asked = list.find("a", { address: "203.0.113.1", port: 150 })!;
    assertEquals(asked.isNominated, false);
    list.trigger(asked);
    assert(list.add(BASE, remote(998)));
    assertEquals(list.next()?.pair, asked, "what was asked for is not forgotten for that");
    const worst = list.find("a", { address: "203.0.113.1", port: 102 })!;
    list.trigger(worst);
    assert(list.add(BASE, remote(999)));
    assertEquals(list.pairs.length, 100);
    assertEquals(list.find("a", worst.remote), undefined);
    assertEquals(list.next()!.isTriggered, false, "what is gone is not checked");
    for (const pair of list.pairs) pair.state = "succeeded";
    assertEquals(list.add(BASE, remote(2000)), undefined, "what works stays");
    list.clear();
    assertEquals([list.pairs.length, list.hasWork], [0, false]);
  });
});
