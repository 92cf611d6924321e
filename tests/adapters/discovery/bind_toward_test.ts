import { assertEquals, assertRejects } from "@std/assert";
import { describe, it } from "node:test";
import { bindToward } from "../../../adapters/discovery/bind_toward.ts";
import type { DiscoveryRuntime } from "../../../adapters/discovery/system_view.ts";
import { NatError } from "../../../core/errors.ts";

const ROUTE = "eth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0\n";

const HOST: DiscoveryRuntime = {
  platform: "linux",
  interfaces: () => [
    { name: "docker0", address: "172.17.0.1", prefixLength: 16, internal: false },
    { name: "eth0", address: "192.168.1.23", prefixLength: 24, internal: false },
    { name: "eth0", address: "fe80::23%eth0", prefixLength: 64, internal: false },
  ],
  readTextFile: (path) => Promise.resolve(path === "/proc/net/route" ? ROUTE : ""),
  run: () => Promise.reject(new Error("no such program")),
};

const peerAt = (address: string) => ({ connect: { address, port: 5351 } });

describe("bindToward()", () => {
  it("finds loopback's address, the one in the peer's network, or the default route's", async () => {
    const found: string[] = [];

    for (const peer of ["127.0.0.53", "::1", "172.17.0.2", "fe80::1%eth0", "203.0.113.9"]) {
      found.push((await bindToward(HOST, peerAt(peer))).address);
    }

    assertEquals(found, ["127.0.0.1", "::1", "172.17.0.1", "fe80::23%eth0", "192.168.1.23"]);
  });

  it("leaves a local address that is given, and keeps the port", async () => {
    const local = { address: "192.168.1.23", port: 4000 };
    const any = { address: "0.0.0.0", port: 4000 };

    assertEquals(await bindToward(HOST, { ...peerAt("172.17.0.2"), local }), local);
    assertEquals(await bindToward(HOST, { ...peerAt("192.168.1.1"), local: any }), local);
    assertEquals(await bindToward(HOST, { local: any }), any);
  });

  it("rejects where no address leads to the peer", async () => {
    const error = await assertRejects(() => bindToward(HOST, peerAt("2001:db8::1")), NatError);

    assertEquals(error.code, "network");
  });
});
