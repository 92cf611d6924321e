import { assert, assertEquals } from "@std/assert";
import { describe, it } from "node:test";
import { makeClock, startTimer, systemNow } from "../../adapters/clock.ts";

function virtualClocks() {
  const at = { monotonic: 50, wall: 1_700_000_000_000 };
  const now = makeClock(() => at.monotonic, () => at.wall);
  const awake = (ms: number) => {
    at.monotonic += ms;
    at.wall += ms;
  };
  return { at, now, awake };
}

describe("makeClock()", () => {
  it("runs with the monotonic clock", () => {
    const { now, awake } = virtualClocks();
    const start = now();

    awake(1234);

    assertEquals(now() - start, 1234);
  });

  it("adds sleep, during which only the wall clock ran", () => {
    const { at, now, awake } = virtualClocks();
    const start = now();

    awake(100);
    at.wall += 3_600_000;
    awake(100);

    assertEquals(now() - start, 3_600_200);
    assertEquals(now() - start, 3_600_200);
  });

  it("does not take small corrections of the wall clock for sleep, however many", () => {
    const { at, now, awake } = virtualClocks();
    const start = now();

    for (let i = 0; i < 100; i++) {
      at.wall += 1900;
      awake(10);
      now();
    }

    assertEquals(now() - start, 1000);
  });

  it("never goes back when the wall clock does", () => {
    const { at, now, awake } = virtualClocks();
    const start = now();

    at.wall -= 86_400_000;
    awake(10);
    const after = now();
    awake(10);

    assertEquals([after - start, now() - start], [10, 20]);
  });

  it("counts sleep after the wall clock was set back", () => {
    const { at, now } = virtualClocks();
    const start = now();

    at.wall -= 86_400_000;
    now();
    at.wall += 60_000;

    assertEquals(now() - start, 60_000);
  });
});

describe("makeClock() with the system's uptime", () => {
  /** Clocks of a computer whose uptime is told in whole seconds. */
  const computer = () => {
    const at = { monotonic: 50, wall: 1_700_000_000_000, up: 7_300 };
    const now = makeClock(
      () => at.monotonic,
      () => at.wall,
      () => Math.floor(at.up / 1000) * 1000,
    );
    const sleep = (ms: number) => {
      at.wall += ms;
      at.up += ms;
    };
    const awake = (ms: number) => {
      at.monotonic += ms;
      sleep(ms);
    };
    return { at, now, awake, sleep };
  };

  it("does not take a wall clock that is set forward for sleep", () => {
    const { at, now, awake } = computer();
    const start = now();

    for (const step of [3_000, 3_600_000, 20 * 365 * 86_400_000]) {
      at.wall += step;
      awake(500);
      now();
    }

    assertEquals(now() - start, 1500);
  });

  it("counts sleep to the millisecond", () => {
    const { now, awake, sleep } = computer();
    const start = now();

    awake(100);
    sleep(3_600_789);
    awake(100);

    assertEquals(now() - start, 3_600_989);
  });

  it("counts sleep to the second where the wall clock is set on waking", () => {
    for (const step of [-86_400_000, 86_400_000]) {
      const { at, now, sleep } = computer();
      const start = now();

      sleep(60_789);
      at.wall += step;

      assert(Math.abs(now() - start - 60_789) < 1000);
    }
  });

  it("counts each sleep once, before and after the clock is set", () => {
    const { at, now, awake, sleep } = computer();
    const start = now();

    sleep(60_000);
    now();
    at.wall += 3_600_000;
    now();
    awake(10);
    sleep(30_000);

    assertEquals(now() - start, 90_010);
  });

  it("asks for the uptime only where the others move apart", () => {
    let asked = 0;
    const at = { monotonic: 0, wall: 0 };
    const now = makeClock(() => at.monotonic, () => at.wall, () => {
      asked++;
      return at.monotonic;
    });

    for (let i = 0; i < 100; i++) {
      at.monotonic += 100;
      at.wall += 100;
      now();
    }

    assertEquals(asked, 1);
  });
});

describe("systemNow()", () => {
  it("gives finite milliseconds that do not go back", () => {
    const first = systemNow(), second = systemNow();

    assert(Number.isFinite(first) && second >= first);
  });
});

/** Runs `action` with a `setTimeout` that only records; returns the delays it was given. */
function withFakeTimeouts(action: (fire: () => void) => void): number[] {
  const { setTimeout: realSet, clearTimeout: realClear } = globalThis;
  const delays: number[] = [];
  const pending: (() => void)[] = [];
  const fake = (callback: () => void, delay: number) => {
    delays.push(delay);
    pending.push(callback);
    return { unref() {} };
  };
  Object.assign(globalThis, { setTimeout: fake, clearTimeout: () => (pending.length = 0) });
  try {
    action(() => pending.shift()?.());
  } finally {
    Object.assign(globalThis, { setTimeout: realSet, clearTimeout: realClear });
  }
  return delays;
}

describe("startTimer()", () => {
  it("splits a delay beyond 2³¹ − 1 ms", () => {
    let fired = 0;

    const delays = withFakeTimeouts((fire) => {
      startTimer(2 ** 32, () => fired++, true);
      fire();
      fire();
      assertEquals(fired, 0);
      fire();
    });

    assertEquals(delays, [2 ** 31 - 1, 2 ** 31 - 1, 2]);
    assertEquals(fired, 1);
  });

  it("rounds up, so that it does not fire before the deadline, and takes what is past as 0", () => {
    const delays = withFakeTimeouts(() => {
      startTimer(0.2, () => {}, false);
      startTimer(-5, () => {}, true);
    });

    assertEquals(delays, [1, 0]);
  });

  it("is cancelled between two parts of a long delay", () => {
    let fired = 0;

    const delays = withFakeTimeouts((fire) => {
      const cancel = startTimer(2 ** 31, () => fired++, true);
      fire();
      cancel();
      cancel();
      fire();
    });

    assertEquals([delays.length, fired], [2, 0]);
  });
});
