import { describe, it } from "node:test";
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { FakeRuntime } from "../fake_runtime.ts";
import { attemptsError } from "../../../adapters/api/attempts_error.ts";
import { EventStream } from "../../../adapters/api/events.ts";
import { parseFilter, parseGateway } from "../../../adapters/api/options.ts";
import { type Settle, waitFor } from "../../../adapters/api/wait.ts";
import { systemRuntime } from "../../../adapters/auto.ts";
import { formatCidr } from "../../../core/cidr.ts";
import { mergeMappingEvents } from "../../../core/lease/events.ts";

const runtime = systemRuntime();

describe("EventStream", () => {
  it("misses nothing from its beginning, and later readers begin where they are", async () => {
    const stream = new EventStream<string>((older, newer) => older + newer);
    stream.push("before");
    const early = stream.read();
    stream.push("a");
    const late = stream.read();
    stream.push("b");
    assertEquals(await early.next(), { done: false, value: "before" });
    assertEquals(await early.next(), { done: false, value: "a" });
    assertEquals(await early.next(), { done: false, value: "b" });
    assertEquals(await late.next(), { done: false, value: "b" });
  });

  it("keeps 64 for a reader that is slow, and merges what is more", async () => {
    const stream = new EventStream<number>((older, newer) => older + newer);
    const reader = stream.read();
    for (let i = 1; i <= 66; i++) stream.push(i);
    for (let i = 1; i <= 63; i++) assertEquals((await reader.next()).value, i);
    assertEquals((await reader.next()).value, 64 + 65 + 66);
  });

  it("tells of two moves that wait as one the last, and of a loss and what follows the end", async () => {
    const slow = (types: readonly string[]) => {
      const stream = new EventStream<{ type: string; to: number }>(mergeMappingEvents);
      const reader = stream.read();
      for (let i = 0; i < 63; i++) stream.push({ type: "renewed", to: 0 });
      types.forEach((type, i) => stream.push({ type, to: i + 1 }));
      return reader;
    };
    const last = async (types: readonly string[]) => {
      const reader = slow(types);
      for (let i = 0; i < 63; i++) assertEquals((await reader.next()).value.type, "renewed");
      return (await reader.next()).value;
    };
    assertEquals(await last(["moved", "moved"]), { type: "moved", to: 2 });
    assertEquals(await last(["moved", "moved", "renewed"]), { type: "moved", to: 3 });
    assertEquals(await last(["moved", "lost"]), { type: "lost", to: 2 });
    assertEquals(await last(["lost", "recovered", "unmapped"]), { type: "unmapped", to: 3 });
  });

  it("ends every reader, after what waits; one that comes after it gets the last and the end", async () => {
    const stream = new EventStream<string>((_, newer) => newer);
    const [waiting, full] = [stream.read(), stream.read()];
    const pending = waiting.next();
    stream.push("last");
    const idle = waiting.next();
    stream.end();
    assertEquals((await pending).value, "last");
    assertEquals((await idle).done, true);
    assertEquals((await full.next()).value, "last");
    assertEquals((await full.next()).done, true);
    const after = stream.read();
    assertEquals(await after.next(), { done: false, value: "last" });
    assertEquals((await after.next()).done, true);
  });

  it("calls back beside the readers, until that is ended", () => {
    const stream = new EventStream<string>((_, newer) => newer);
    const heard: string[] = [];
    const stop = stream.listen((event) => heard.push(event));
    stream.push("a");
    stop();
    stream.push("b");
    assertEquals(heard, ["a"]);
  });

  it("gives a reader that has left nothing of what waited for it", async () => {
    const stream = new EventStream<string>((_, newer) => newer);
    const reader = stream.read();
    stream.push("a");
    stream.push("b");
    assertEquals((await reader.next()).value, "a");
    assertEquals(await reader.return?.(), { done: true, value: undefined });
    assertEquals((await reader.next()).done, true);
    // It was the first: who comes later begins later all the same.
    const late = stream.read();
    stream.push("c");
    assertEquals((await late.next()).value, "c");
  });

  it("tells the end to who listens, once, and nothing to who listens after it", () => {
    const stream = new EventStream<string>((_, newer) => newer);
    const heard: string[] = [];
    stream.listen((event) => heard.push(event), () => heard.push("end"));
    const stop = stream.listen(() => {}, () => heard.push("never"));
    stop();
    stream.end();
    stream.end();
    stream.listen((event) => heard.push(event), () => heard.push("late"));
    stream.push("x");
    assertEquals(heard, ["end"]);
  });

  it("forgets a reader that leaves", async () => {
    const stream = new EventStream<string>((_, newer) => newer);
    const reader = stream.read();
    const pending = reader.next();
    await reader.return?.();
    stream.push("too late");
    assertEquals([(await pending).done, (await reader.next()).done], [true, true]);
  });
});

describe("waitFor()", () => {
  it("waits anew for what goes on, and no more once it is over", async () => {
    const runtime = new FakeRuntime();
    let settle: Settle<number> | undefined;
    const wait = () =>
      waitFor<number>(runtime, { timeoutMs: 100 }, () => new Error("late"), (it) => settle = it);
    const first = wait();
    runtime.advance(99);
    settle!.goesOn();
    runtime.advance(99);
    settle!.resolve(1);
    settle!.goesOn();
    assertEquals([await first, runtime.timers.size], [1, 0]);
    const second = wait();
    settle!.goesOn();
    const late = assertRejects(() => second, Error, "late");
    runtime.advance(100);
    await late;
    assertEquals(runtime.timers.size, 0);
  });

  it("cleans up once, however it ends", async () => {
    const ends: boolean[] = [];
    const note = (isResolved: boolean) => void ends.push(isResolved);
    const wait = (begin: Parameters<typeof waitFor<number>>[3], timeoutMs = 60_000) =>
      waitFor<number>(runtime, { timeoutMs }, () => new Error("late"), begin);
    assertEquals(
      await wait((settle) => {
        settle.resolve(1);
        settle.resolve(2);
        settle.onEnd(note);
      }),
      1,
    );
    assertEquals(
      await wait((settle) => {
        settle.onEnd(note);
        settle.resolve(3);
        settle.reject(new Error("late"));
      }),
      3,
    );
    await assertRejects(
      () =>
        wait((settle) => {
          queueMicrotask(() => settle.reject(new Error("no")));
          settle.onEnd(note);
        }),
      Error,
      "no",
    );
    await assertRejects(() => wait((settle) => settle.onEnd(note), 0), Error, "late");
    await assertRejects(
      () =>
        wait((settle) => {
          settle.onEnd(note);
          throw new TypeError("bad");
        }),
      TypeError,
      "bad",
    );
    assertEquals(ends, [true, true, false, false, false]);
  });
});

describe("attemptsError()", () => {
  const message = (outcome: string, more: object = {}) => {
    const attempts = [{ via: "pcp" as const, gateway: "192.0.2.1", outcome, elapsedMs: 1 }];
    return attemptsError("map port 80/tcp", { code: "refused", attempts, ...more }).message;
  };

  it("says what was tried, and the remedy where there is one", () => {
    const begin = "Cannot map port 80/tcp: ";
    assertEquals(message("NO_RESOURCES"), `${begin}pcp at 192.0.2.1: NO_RESOURCES`);
    for (const name of ["NOT_AUTHORIZED", "CONFLICT"]) {
      const text = `${begin}pcp at 192.0.2.1: ${name} (the gateway does not allow it, or an ` +
        "earlier run holds the port: hand in the state that it saved";
      assertEquals(message(name), `${text})`);
      assertEquals(message(name, { retryAfterSeconds: 30 }), `${text}, or wait 30 s)`);
    }
    assertMatch(message("ADDRESS_MISMATCH"), /: ADDRESS_MISMATCH \(another NAT stands between/);
    assertEquals(
      message("no answer", { message: "the system forbids it" }),
      `${begin}the system forbids it; pcp at 192.0.2.1: no answer`,
    );
    const nothing = attemptsError("map port 80/tcp", { code: "unsupported", attempts: [] });
    assertEquals(nothing.message, `${begin}nothing was tried`);
  });
});

describe("options", () => {
  it("read filters", () => {
    const filters: readonly (readonly [string, string])[] = [
      ["198.51.100.0/24", "198.51.100.0/24 0"],
      ["198.51.100.7:443", "198.51.100.7/32 443"],
      ["0.0.0.0/0:22", "0.0.0.0/0 22"],
      ["2001:db8::/32", "2001:db8::/32 0"],
      ["[2001:db8::/32]:443", "2001:db8::/32 443"],
    ];
    for (const [text, expected] of filters) {
      const { prefix, port } = parseFilter(text);
      assertEquals(`${formatCidr(prefix)} ${port}`, expected);
    }
  });

  it("read gateways", () => {
    assertEquals(parseGateway("10.0.0.1"), { address: "10.0.0.1", port: 5351 });
    assertEquals(parseGateway("[fe80::1%eth0]:99"), { address: "fe80::1%eth0", port: 99 });
    assertEquals(parseGateway({ address: "::ffff:10.0.0.1", port: 1 }).address, "10.0.0.1");
  });
});
