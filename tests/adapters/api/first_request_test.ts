/** A program's first request waits for the one socket that it needs. */
import { assertEquals } from "@std/assert";
import { describe, it } from "node:test";
import { Driver } from "../../../adapters/driver.ts";
import type { UdpHandlers, UdpOptions, UdpSocket } from "../../../adapters/runtime.ts";
import type { MapperEvent } from "../../../core/portmap/managed.ts";
import { PortMapper } from "../../../core/portmap/mapper.ts";
import { FakeRuntime } from "../fake_runtime.ts";

const GATEWAY = { address: "192.0.2.1", port: 5351 };

/** Tells in which order sockets are opened and datagrams sent. */
class Recorder extends FakeRuntime {
  readonly log: string[] = [];

  override async openUdp(options: UdpOptions, handlers: UdpHandlers): Promise<UdpSocket> {
    this.log.push(options.multicast ? "opens announcements" : "opens the gateway's");
    const socket = await super.openUdp(options, handlers);
    return { ...socket, send: (data) => void this.log.push(`sends ${data.length} bytes`) };
  }
}

describe("the first request", () => {
  it("leaves before the socket for announcements is opened", async () => {
    const runtime = new Recorder();
    const driver = new Driver<MapperEvent, PortMapper>(runtime, () => {});
    driver.start(new PortMapper({ random: runtime.random }));

    driver.do((mapper, now) => mapper.networkChanged([{ gateway: GATEWAY }], now));
    driver.do((mapper, now) => mapper.map({ protocol: "tcp", internalPort: 8080 }, now));
    await new Promise((resolve) => setTimeout(resolve));
    driver.close();

    assertEquals(runtime.log, [
      "opens the gateway's",
      "sends 60 bytes",
      "sends 2 bytes",
      "opens announcements",
    ]);
  });
});
