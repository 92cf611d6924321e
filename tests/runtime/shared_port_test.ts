import { describe, it } from "node:test";
import { createSocket } from "node:dgram";
import process from "node:process";
import { assertEquals } from "@std/assert";
import { systemRuntime } from "../../adapters/auto.ts";

const HANDLERS = { onDatagram() {}, onUnreachable() {}, onError() {} };

describe("openUdp() with reuseAddress", () => {
  // Other programs' announcement listeners use node:dgram's way, SO_REUSEADDR.
  it("shares a port with another program's listener", {
    skip: process.platform === "win32",
  }, async () => {
    const other = createSocket({ type: "udp4", reuseAddr: true });
    await new Promise<void>((resolve) => other.bind(0, "224.0.0.1", resolve));
    const { port } = other.address();

    const socket = await systemRuntime().openUdp({
      local: { address: "224.0.0.1", port },
      reuseAddress: true,
      multicast: { group: "224.0.0.1", interface: "127.0.0.1" },
    }, HANDLERS);

    assertEquals(socket.local.port, port);
    socket.close();
    other.close();
  });
});
