import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import type { Action, DebugTimeout, Endpoint, Instant, Machine } from "../../../core/machine.ts";
import { SimulationError, StrictMachine } from "../../../core/sim/mod.ts";

const FROM: Endpoint = { address: "192.168.1.1", port: 5351 };

/** Echoes, and sends a tick a second; a flaw can be put in. */
class Ticker implements Machine<never> {
  stats: Record<string, unknown> = { heard: 0 };
  out: Action<never>[] = [];
  now: Instant = 0;
  due: Instant = 1000;
  told: unknown[] = [];

  constructor(readonly flaw: string = "") {}

  handleDatagram(data: Uint8Array, from: Endpoint, _socket: string, now: Instant): boolean {
    this.now = now;
    this.send(from, this.flaw === "keeps lent data" ? data : new Uint8Array(data));
    if (this.flaw === "bad counter") this.stats.heard = NaN;
    return true;
  }

  handleUnreachable(to: Endpoint, socket: string, now: Instant): void {
    this.told = [to, socket, now];
  }

  handleTimeout(now: Instant): void {
    this.now = now;
    if (now < this.due && this.flaw !== "acts early") return;
    this.due = now + 1000;
    this.send(FROM, new Uint8Array(1));
  }

  nextTimeout(): Instant {
    if (this.out.length === 0 || this.flaw === "hides output") return this.due;
    return this.now;
  }

  poll(): Action<never> | undefined {
    if (this.flaw === "poll moves") this.due += 1;
    return this.out.shift();
  }

  debugTimeout(): DebugTimeout {
    const at = this.flaw === "disagrees" ? this.nextTimeout() + 1 : this.nextTimeout();
    return { at, reason: "tick" };
  }

  send(to: Endpoint, data: Uint8Array): void {
    this.out.push({ type: "send", socket: "client", to, data });
  }
}

function exercise(machine: Ticker): number {
  const strict = new StrictMachine<never, Ticker>(machine);
  let sent = 0;
  for (let now = 0; now < 100_000; now += 500) {
    if (now % 1500 === 0) strict.handleDatagram(Uint8Array.of(1, 2, 3), FROM, "client", now);
    strict.handleTimeout(now);
    for (let action = strict.poll(); action; action = strict.poll()) sent++;
  }
  return sent;
}

describe("StrictMachine", () => {
  it("lets a good machine work", () => {
    assertEquals(exercise(new Ticker()), 99 + 67);
  });

  for (
    const [flaw, rule] of [
      ["keeps lent data", "Rule 4"],
      ["bad counter", "Rule 8"],
      ["acts early", "Rule 2"],
      ["hides output", "Rule 3"],
      ["poll moves", "Rule 1"],
      ["disagrees", "Rule 3"],
    ] as const
  ) {
    it(`catches a machine that ${flaw}`, () => {
      const error = assertThrows(() => exercise(new Ticker(flaw)), SimulationError);
      assertEquals(error.message.slice(0, 6), rule, error.message);
    });
  }

  it("catches time that goes back", () => {
    const strict = new StrictMachine<never, Ticker>(new Ticker());
    strict.handleTimeout(5);
    assertThrows(() => strict.handleTimeout(4), SimulationError, "time went back");
  });

  it("passes on what ICMP says", () => {
    const ticker = new Ticker();
    new StrictMachine<never, Ticker>(ticker).handleUnreachable(FROM, "client", 7);
    assertEquals(ticker.told, [FROM, "client", 7]);
  });

  it("gives commands", () => {
    const strict = new StrictMachine<never, Ticker>(new Ticker());
    strict.command((ticker, now) => (ticker.now = now, ticker.send(FROM, new Uint8Array(7))), 10);
    const action = strict.poll();
    assertEquals(action?.type === "send" && action.data.length, 7);
    assertEquals(strict.poll(), undefined);
  });
});
