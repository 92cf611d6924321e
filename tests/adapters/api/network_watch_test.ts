import { assertEquals } from "@std/assert";
import { describe, it } from "node:test";
import { watchNetwork } from "../../../adapters/api/network_watch.ts";
import { FakeRuntime } from "../fake_runtime.ts";

const HEAD = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";
const routeBy = (name: string) => `${HEAD}${name} 00000000 0102000A 0003 0 0 100 00000000 0 0 0\n`;

/** A host whose default route can be changed, and how often it was read. */
class Host extends FakeRuntime {
  route = routeBy("eth0");
  reads = 0;

  override readTextFile(path: string): Promise<string> {
    if (path !== "/proc/net/route") return super.readTextFile(path);
    this.reads++;
    return Promise.resolve(this.route);
  }

  /** Lets time pass, and what it set off come to its end. */
  async pass(ms: number): Promise<void> {
    this.advance(ms);
    await new Promise((resolve) => setTimeout(resolve));
  }
}

function setUp() {
  const host = new Host();
  const told: string[] = [];
  let isConnected = true;
  const stop = watchNetwork(host, () => {
    told.push(host.route);
    return Promise.resolve(isConnected);
  });
  return { host, told, stop, connect: (is: boolean) => void (isConnected = is) };
}

describe("watchNetwork()", () => {
  it("reads nothing while the gateway is asked for the first time", async () => {
    const { host } = setUp();

    await host.pass(0);

    assertEquals(host.reads, 0);
  });

  it("tells what it reads first: it may have changed since the gateways were found", async () => {
    const { host, told } = setUp();
    host.route = routeBy("wlan0");

    for (let i = 0; i < 5; i++) await host.pass(10_000);

    assertEquals(told, [routeBy("wlan0")]);
    assertEquals(host.reads, 5);
  });

  it("tells each change once, and again where nothing was connected", async () => {
    const { host, told, connect } = setUp();
    await host.pass(10_000);
    told.length = 0;

    host.route = routeBy("wlan0");
    connect(false);
    await host.pass(10_000);
    connect(true);
    for (let i = 0; i < 3; i++) await host.pass(10_000);

    assertEquals(told, [routeBy("wlan0"), routeBy("wlan0")]);
  });

  it("reads no more once it is stopped", async () => {
    const { host, told, stop } = setUp();
    await host.pass(10_000);
    stop();
    host.route = routeBy("wlan0");

    await host.pass(60_000);

    assertEquals([host.reads, told.length, host.timers.size], [1, 1, 0]);
  });
});
