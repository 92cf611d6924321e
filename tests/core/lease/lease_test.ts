import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { renewalFraction } from "../../../core/backoff.ts";
import { Lease } from "../../../core/lease/lease.ts";
import { checkMappingRequest } from "../../../core/mapping.ts";
import { seededRandom } from "../../../core/random.ts";

const EXTERNAL = { address: "203.0.113.7", port: 8080 };
const HOUR = 3_600_000, DAY_SECONDS = 86_400;

function granted(lifetimeSeconds: number, request: object = {}): Lease<unknown> {
  const wanted = checkMappingRequest({
    protocol: "tcp",
    internalPort: 8080,
    lifetimeSeconds,
    ...request,
  });
  const lease = new Lease<unknown>(1, "key", wanted, undefined);
  lease.take({ external: EXTERNAL, lifetimeSeconds }, 0);
  return lease;
}

const halving = (attempt: number) => 1 - 2 ** -attempt;

describe("Lease.nextRenewal()", () => {
  it("goes by the fractions, each attempt later than the one before", () => {
    const lease = granted(3600);
    const points = [1, 2, 3, 4].map(() => lease.nextRenewal(halving, 0));
    assertEquals(points, [HOUR / 2, HOUR * 3 / 4, HOUR * 7 / 8, HOUR * 15 / 16]);
  });

  it("skips what was missed in a sleep", () => {
    const lease = granted(3600), random = seededRandom(1);
    const fraction = (attempt: number) => renewalFraction(attempt, random);
    lease.nextRenewal(fraction, 0);
    const at = lease.nextRenewal(fraction, 3_500_000)!;
    assert(at >= 3_500_000 && at < 3_600_000);
  });

  it("leaves 4 s between two, and has nothing where the lease ends before that", () => {
    const short = granted(3);
    short.renewedAt = 0;
    assertEquals(short.nextRenewal(halving, 0), undefined);
    const longer = granted(6);
    longer.renewedAt = 0;
    assertEquals(longer.nextRenewal(halving, 0), 4000);
  });

  it("names no time before the gateway wants to be asked", () => {
    const lease = granted(3600);
    lease.notBefore = HOUR * 0.9;
    assertEquals(lease.nextRenewal(halving, 0), HOUR * 0.9);
  });

  it("takes a lifetime beyond a day day by day, to its end", () => {
    const lease = granted(10 * DAY_SECONDS);
    const days = new Map<number, number>();
    for (let now = 0;;) {
      const at = lease.nextRenewal(halving, now);
      if (at === undefined) break;
      assert(at > now && at < 10 * DAY_SECONDS * 1000);
      const day = Math.floor(at / (DAY_SECONDS * 1000));
      if (!days.has(day)) days.set(day, at / (DAY_SECONDS * 1000) - day);
      lease.renewedAt = now = at;
    }
    assertEquals(days.size, 10);
    // Each day at its middle first.
    assertEquals([...days.values()].filter((part) => part !== 0.5), []);
  });
});

describe("Lease.take()", () => {
  it("takes an absurd lifetime for a day, and what was asked for as it is", () => {
    const lease = granted(3600);
    lease.take({ external: EXTERNAL, lifetimeSeconds: 0xffff_ffff }, 0);
    assertEquals(lease.expiresAt, DAY_SECONDS * 1000);
    assertEquals(lease.mayExistUntil, 0xffff_ffff * 1000);
    assertEquals(granted(2 * DAY_SECONDS).expiresAt, 2 * DAY_SECONDS * 1000);
  });

  it("counts N lifetimes from the first grant on", () => {
    const lease = granted(600, { mode: 3 });
    assertEquals([lease.wantedUntil, lease.wantsRenewal], [1_800_000, true]);
    lease.take({ external: EXTERNAL, lifetimeSeconds: 600 }, 500_000);
    assertEquals(lease.wantedUntil, 1_800_000);
    assertEquals(lease.lifetimeToAsk(1_500_000), 300);
    lease.take({ external: EXTERNAL, lifetimeSeconds: 300 }, 1_500_000);
    assertEquals(lease.wantsRenewal, false);
  });
});
