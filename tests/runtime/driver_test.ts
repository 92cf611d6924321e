import { assertEquals } from "@std/assert";
import { describe, it } from "node:test";
import { Driver } from "../../adapters/driver.ts";
import type { Endpoint } from "../../core/machine.ts";
import { type PingEvent, PingMachine } from "./ping_machine.ts";
import { guarded, open, openEcho, runtime } from "./support.ts";

/** Runs a driver toward `peer` until `wanted` events came. */
async function pingUntil(peer: Endpoint, wanted: number, maxSent: number): Promise<PingEvent[]> {
  const events: PingEvent[] = [];
  let finish = (): void => {};
  const finished = new Promise<void>((resolve) => (finish = resolve));
  const driver = new Driver<PingEvent, PingMachine>(runtime, (event) => {
    if (events.push(event) === wanted) finish();
  });
  await driver.open({ key: "client", connect: peer });
  driver.start(new PingMachine(peer, maxSent));
  for (let id = 1; id <= wanted; id++) driver.do((machine, now) => machine.ping(id, now));
  await guarded(finished).finally(() => driver.close());
  return events;
}

describe("Driver on this runtime", () => {
  for (const address of ["127.0.0.1", "::1"]) {
    it(`runs a machine against an echo on ${address}`, async () => {
      const echo = await openEcho(address);

      const events = await pingUntil(echo.local, 20, 100);

      assertEquals(events.filter(({ type }) => type !== "pong"), []);
      assertEquals(events.length, 20);
      echo.close();
    });
  }

  it("fires the machine's deadlines where nobody answers", async () => {
    const mute = await open({ local: { address: "127.0.0.1", port: 0 } });

    const events = await pingUntil(mute.socket.local, 1, 2);

    assertEquals(events, [{ type: "silence", id: 1 }]);
    assertEquals(mute.inbox.rest.length, 2);
    mute.socket.close();
  });

  it("tells the machine of ICMP errors where the runtime knows, else leaves it to time", async () => {
    const gone = await openEcho("127.0.0.1");
    gone.close();

    const [event] = await pingUntil(gone.local, 1, 2);

    assertEquals(event?.type, runtime.name === "deno" ? "silence" : "unreachable");
  });
});
