import { describe, it } from "node:test";
import { assertEquals, assertRejects } from "@std/assert";
import { EventStream } from "../../../adapters/api/events.ts";
import { parseFilter, parseGateway } from "../../../adapters/api/options.ts";
import { firstSuccess, type Way } from "../../../adapters/api/stagger.ts";
import { waitFor } from "../../../adapters/api/wait.ts";
import { systemRuntime } from "../../../adapters/auto.ts";
import { formatCidr } from "../../../core/cidr.ts";

const runtime = systemRuntime();

describe("EventStream", () => {
  it("gives each reader what comes after it began", async () => {
    const stream = new EventStream<string>((older, newer) => older + newer);
    stream.push("unheard");
    const early = stream.read();
    const first = early.next();
    stream.push("a");
    const late = stream.read();
    stream.push("b");
    assertEquals(await first, { done: false, value: "a" });
    assertEquals(await early.next(), { done: false, value: "b" });
    assertEquals(await late.next(), { done: false, value: "b" });
  });

  it("merges what a reader has not taken, so that it costs one event", async () => {
    const stream = new EventStream<string>((older, newer) => older + newer);
    const reader = stream.read();
    for (const event of ["a", "b", "c"]) stream.push(event);
    assertEquals((await reader.next()).value, "abc");
  });

  it("ends every reader, after what waits", async () => {
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
    assertEquals((await stream.read().next()).done, true);
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
  it("cleans up once, however it ends", async () => {
    const ends: string[] = [];
    const wait = (begin: Parameters<typeof waitFor<number>>[3], timeoutMs = 60_000) =>
      waitFor<number>(runtime, { timeoutMs }, () => new Error("late"), begin);
    assertEquals(
      await wait((settle) => {
        settle.resolve(1);
        settle.resolve(2);
        return (outcome) => ends.push(outcome);
      }),
      1,
    );
    await assertRejects(
      () =>
        wait((settle) => {
          queueMicrotask(() => settle.reject(new Error("no")));
          return (outcome) => ends.push(outcome);
        }),
      Error,
      "no",
    );
    await assertRejects(() => wait(() => (outcome) => ends.push(outcome), 0), Error, "late");
    await assertRejects(
      () =>
        wait(() => {
          throw new TypeError("bad");
        }),
      TypeError,
      "bad",
    );
    assertEquals(ends, ["settled", "settled", "given up"]);
  });
});

describe("firstSuccess()", () => {
  const fails = (text: string): Way<string> => () => Promise.reject(new Error(text));
  const hangs = (ended: string[], name: string): Way<string> => (signal) =>
    new Promise((_, reject) =>
      signal.addEventListener("abort", () => {
        ended.push(name);
        reject(signal.reason);
      })
    );

  it("starts the next way when the one before has failed, without waiting", async () => {
    const ways = [fails("a"), () => Promise.resolve("b"), fails("c")];
    assertEquals(await firstSuccess(runtime, ways, 3_600_000, undefined), "b");
  });

  it("starts the next way when the one before takes too long, and ends the loser", async () => {
    const ended: string[] = [];
    const ways = [hangs(ended, "slow"), () => Promise.resolve("fast")];
    assertEquals(await firstSuccess(runtime, ways, 0, undefined), "fast");
    assertEquals(ended, ["slow"]);
  });

  it("throws every reason where all fail", async () => {
    const outcome = await firstSuccess(runtime, [fails("a"), fails("b")], 0, undefined)
      .catch((errors) => (errors as Error[]).map(({ message }) => message));
    assertEquals(outcome, ["a", "b"]);
  });

  it("ends all ways with the caller's signal", async () => {
    const ended: string[] = [];
    const controller = new AbortController();
    const outcome = firstSuccess(
      runtime,
      [hangs(ended, "a"), hangs(ended, "b")],
      0,
      controller.signal,
    );
    await new Promise((resolve) => setTimeout(resolve, 20));
    controller.abort(new Error("enough"));
    await assertRejects(() => outcome, Error, "enough");
    assertEquals(ended, ["a", "b"]);
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
