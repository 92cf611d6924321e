/** How a socket of the application asks STUN servers, too. */
import { describe, it } from "node:test";
import { assertEquals, assertNotEquals } from "@std/assert";
import { SeenSocket } from "../../../adapters/api/seen_socket.ts";
import { readStunServers } from "../../../adapters/host_name.ts";
import { FakeRuntime } from "../fake_runtime.ts";

const NOBODY = { onDatagram() {}, onUnreachable() {}, onError() {} };

describe("a socket that STUN servers see", () => {
  it("asks them, and at once again where the network is another one", async () => {
    const runtime = new FakeRuntime();
    const seen = await SeenSocket.open(runtime, { address: "0.0.0.0", port: 0 }, NOBODY);
    const { sent } = runtime.sockets[0]!;
    await seen.networkChanged();
    await seen.ask([]);
    assertEquals(sent, []);

    await seen.ask(readStunServers("stunServers", ["192.0.2.1"]));
    assertEquals(sent.map(({ to }) => to), [{ address: "192.0.2.1", port: 3478 }]);

    await seen.networkChanged();
    assertEquals(sent.map(({ to }) => to.port), [3478, 3478]);
    // Another request: the answer to the first one tells of the network of before.
    assertNotEquals(sent[0], sent[1]);

    seen.close();
    await seen.networkChanged();
    assertEquals([sent.length, runtime.sockets[0]!.isClosed], [2, true]);
  });
});
