import { describe, it } from "node:test";
import { assertEquals, assertRejects } from "@std/assert";
import { resolveServer } from "../../adapters/names.ts";
import { parseServer } from "../../adapters/host_name.ts";
import { NatError } from "../../core/errors.ts";

describe("parseServer()", () => {
  it("reads names and addresses, with and without a port", () => {
    const read = (text: string) => parseServer(text, 3478);
    assertEquals(read("stun.example.org"), { host: "stun.example.org", port: 3478 });
    assertEquals(read("stun.example.org:19302"), { host: "stun.example.org", port: 19302 });
    assertEquals(read("localhost:1"), { host: "localhost", port: 1 });
    assertEquals(read("xn--bcher-kva.example."), { host: "xn--bcher-kva.example.", port: 3478 });
    assertEquals(read("192.0.2.1"), { host: "192.0.2.1", port: 3478 });
    assertEquals(read("192.0.2.1:65535"), { host: "192.0.2.1", port: 65535 });
    assertEquals(read("2001:DB8::1"), { host: "2001:db8::1", port: 3478 });
    assertEquals(read("[2001:db8::1]:5"), { host: "2001:db8::1", port: 5 });
  });

  it("reads nothing else", () => {
    for (
      const text of [
        "",
        ":3478",
        "host:",
        "host:0",
        "host:65536",
        "host:1x",
        "1.2.3",
        "1.2.3.4.5",
        "256.0.0.1",
        "192.0.2.1:0",
        "a b",
        "a..b",
        "-a.org",
        "stun:host:3478",
        "http://host",
        `${"a".repeat(64)}.org`,
        "a.".repeat(130),
      ]
    ) {
      assertEquals(parseServer(text, 3478), undefined, text);
    }
  });
});

describe("resolveServer()", () => {
  it("looks a name up, and takes an address as it is", async () => {
    const found = await resolveServer({ host: "localhost", port: 7 }, 4);
    assertEquals(found, [{ address: "127.0.0.1", port: 7 }]);
    assertEquals(await resolveServer({ host: "192.0.2.1", port: 7 }), [
      { address: "192.0.2.1", port: 7 },
    ]);
  });

  it("rejects with the name where there is no such address", async () => {
    const of = (host: string, family?: 4 | 6) =>
      assertRejects(() => resolveServer({ host, port: 7 }, family), NatError, host);
    assertEquals((await of("192.0.2.1", 6)).code, "network");
    assertEquals((await of("2001:db8::1", 4)).code, "network");
    assertEquals((await of("no-such-host.invalid")).code, "network");
  });
});
