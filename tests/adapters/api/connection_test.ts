/** The promises of an application over a machine that does what a test says. */
import { describe, it } from "node:test";
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { Connection, type MappingMachine } from "../../../adapters/api/connection.ts";
import { Driver } from "../../../adapters/driver.ts";
import { NatError } from "../../../core/errors.ts";
import { FakeRuntime } from "../fake_runtime.ts";

/** A machine that holds nothing and is never done. */
class Busy implements MappingMachine {
  readonly stats = {};
  readonly did: unknown[] = [];
  isIdle = false;
  renew(id: number): number {
    this.did.push(["renew", id]);
    return 1;
  }
  revoke(id: number): void {
    this.did.push(["revoke", id]);
  }
  abandon(id: number): void {
    this.did.push(["abandon", id]);
  }
  close(): void {
    this.did.push("close");
  }
  handleDatagram(): boolean {
    return false;
  }
  handleUnreachable(): void {}
  handleTimeout(): void {}
  nextTimeout(): undefined {}
  debugTimeout(): undefined {}
  poll(): undefined {}
}

function connect() {
  const runtime = new FakeRuntime();
  const machine = new Busy();
  const connection = new Connection<string, Busy>(runtime, () => ({
    code: "no-answer",
    attempts: [],
  }));
  const driver = new Driver<unknown, Busy>(runtime, () => {});
  driver.start(machine);
  connection.attach(driver);
  const tell = (event: object) => connection.onEvent(event as { type: string });
  return { runtime, machine, connection, driver, tell };
}

const MAPPED = { type: "mapped", id: 5, mapping: "granted" };

describe("Connection", () => {
  it("reads each event up to the answer, and none after it", async () => {
    const { connection, tell } = connect();
    const read: string[] = [];
    const answer = connection.answer<string>(
      "ask",
      {},
      () => "late",
      () => {},
      ({ type }, settle) => {
        read.push(type);
        if (type === "answer") settle.resolve("it");
      },
    );
    for (const type of ["other", "answer", "another"]) tell({ type });
    assertEquals([await answer, read], ["it", ["other", "answer"]]);
  });

  it("waits a second and a half for a gateway that has given something, and not for another", async () => {
    const local = { via: "local" }, outside = { via: "pcp" };
    const heard: readonly (readonly [event: object, ms: number])[] = [
      [{ type: "other" }, 0],
      [{ type: "failed", id: 1 }, 0],
      [{ type: "assignments", assignments: [local] }, 0],
      [{ type: "unmapped", id: 1, failure: { kind: "no-answer" } }, 0],
      [{ type: "unmapped", id: 1 }, 1500],
      [MAPPED, 1500],
      [{ type: "external-address", address: "203.0.113.7" }, 1500],
      [{ type: "assignments", assignments: [local, outside] }, 1500],
    ];
    for (const [event, ms] of heard) {
      const { runtime, machine, connection, tell } = connect();
      tell(event);
      tell({ type: "other" });
      const closed = connection.close();
      assertEquals([runtime.delays, machine.did], [[ms], ["close"]], JSON.stringify(event));
      runtime.advance(ms);
      await closed;
    }
  });

  it("waits no longer than the machine has something to do", async () => {
    const { runtime, machine, connection, driver, tell } = connect();
    tell(MAPPED);
    const closed = connection.close();
    machine.isIdle = true;
    driver.do(() => {});
    await closed;
    assertEquals([...runtime.timers], []);
    assertThrows(() => connection.do(() => {}), NatError, "Cannot go on: it was closed");
  });

  it("gives each follower its own events, and then the end: its own, or that of all", async () => {
    const { connection, tell, runtime } = connect();
    const told: string[] = [];
    const follower = (name: string) => ({
      onEvent: ({ type }: { readonly type: string }) => void told.push(`${name} ${type}`),
      onEnd: () => void told.push(`${name} ends`),
    });
    assertEquals(connection.follow(() => 7, follower("first")), 7);
    connection.follow(() => 8, follower("second"));
    tell({ type: "moved", id: 8 });
    tell({ type: "unmapped", id: 7 });
    tell({ type: "moved", id: 7 });
    assertEquals(told.splice(0), ["second moved", "first ends"]);

    const closed = connection.close();
    assertThrows(() => connection.follow(() => 9, follower("late")), NatError, "closed");
    runtime.advance(1500);
    await closed;
    assertEquals(told, ["second ends"]);
  });

  it("revokes what a follower follows, once, and tells its end when that is answered or the time is up", async () => {
    for (const isAnswered of [true, false]) {
      const { connection, machine, tell, runtime } = connect();
      let ends = 0, events = 0;
      connection.follow(() => 7, { onEvent: () => events++, onEnd: () => ends++ });
      const unfollowed = connection.unfollow(7);
      tell({ type: "lost", id: 7 });
      assertEquals([machine.did, ends, events], [[["revoke", 7]], 0, 0]);
      if (isAnswered) tell({ type: "unmapped", id: 7 });
      else runtime.advance(1500);
      await unfollowed;
      assertEquals(ends, 1);
      await connection.unfollow(7);
      assertEquals([machine.did.length, [...runtime.timers]], [1, []]);
    }
  });

  it("holds a mapping that was granted: its state, its end, and nothing more to be asked of it", async () => {
    const { connection, machine, tell } = connect();
    const request = { verb: "map", name: "port 80/tcp", since: 0, start: () => 5 } as const;
    const asked = connection.request(request, {});
    tell(MAPPED);
    const held = await asked;
    assertEquals([held.mapping, held.state], ["granted", "open"]);
    tell({ type: "lost", id: 5 });
    assertEquals(held.state, "lost");
    tell({ ...MAPPED, type: "recovered", mapping: "again" });
    assertEquals([held.mapping, held.state], ["again", "open"]);
    // It goes on, and so is not over.
    tell({ type: "failed", id: 5, retryAt: 9 });
    assertEquals(held.state, "open");
    tell({ type: "unmapped", id: 5 });
    assertEquals(held.state, "over");

    connection.abandon(held);
    await connection.revoke(held);
    await assertRejects(() => connection.renew(held, 1, {}), NatError, "Cannot renew port 80/tcp");
    assertEquals(machine.did, []);
  });

  it("begins nothing any more while it closes", async () => {
    const { connection, machine, runtime, tell } = connect();
    tell(MAPPED);
    const closed = connection.close();
    const request = { verb: "map", name: "port 80/tcp", since: 0, start: () => 5 } as const;
    await assertRejects(
      () => connection.request(request, {}),
      NatError,
      "Cannot map port 80/tcp: it was closed",
    );
    const command = () => void machine.did.push("asked");
    const asking = () => connection.answer("ask", {}, () => "late", command, () => {});
    await assertRejects(asking, NatError, "Cannot ask: it was closed");
    runtime.advance(1500);
    await closed;
    assertEquals([machine.did, runtime.timers.size], [["close"], 0]);
  });

  it("takes back what was given up before it was granted, once nobody waits for it", async () => {
    const { connection, machine, runtime } = connect();
    const request = { verb: "unmap", name: "port 80/tcp", since: 0, start: () => 5 } as const;
    const short = connection.request(request, { timeoutMs: 10 });
    const long = connection.request(request, { timeoutMs: 20 });
    runtime.advance(10);
    await assertRejects(() => short, NatError);
    assertEquals(machine.did, []);
    runtime.advance(10);
    await assertRejects(() => long, NatError);
    assertEquals(machine.did, [["revoke", 5]]);
  });
});
