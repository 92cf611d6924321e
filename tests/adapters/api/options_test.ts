import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import {
  checkMapBoth,
  checkProtocols,
  checkState,
  parseFilter,
  parseGateway,
  toPeerRequest,
  toPortRequest,
  toWatchRequest,
  withOptionNames,
} from "../../../adapters/api/options.ts";
import { any } from "./fake_network.ts";

describe("what an inbound mapping is asked for", () => {
  it("is by default the same port outside, by TCP, and nothing else", () => {
    assertEquals(toPortRequest(80, {}), {
      protocol: "tcp",
      internalPort: 80,
      suggestedExternal: { port: 80 },
    });
  });

  it("is what the options say, each in the core's words", () => {
    const prefix = { address: "192.0.2.0", prefixLength: 24, family: 4 } as const;
    const common = {
      lifetimeSeconds: 60,
      mode: "once",
      thirdParty: "10.0.0.9",
      description: "x",
      family: 4,
      preferFailure: true,
    } as const;
    const given = {
      ...common,
      protocol: "udp",
      externalPort: 81,
      externalAddress: "203.0.113.7",
      filters: ["192.0.2.0/24:53", { prefix, port: 7 }],
      portSetSize: 4,
      timeoutMs: 5,
      signal: new AbortController().signal,
    } as const;
    assertEquals(toPortRequest(80, given), {
      ...common,
      protocol: "udp",
      internalPort: 80,
      suggestedExternal: { port: 81, address: "203.0.113.7" },
      filters: [{ prefix, port: 53 }, { prefix, port: 7 }],
      portSet: { size: 4 },
    });
  });

  it("suggests nothing where the gateway is to choose, or the address alone", () => {
    const { suggestedExternal: none } = toPortRequest(80, { externalPort: 0 });
    assertEquals(none, undefined);
    const address = "203.0.113.7";
    const { suggestedExternal } = toPortRequest(80, { externalPort: 0, externalAddress: address });
    assertEquals(suggestedExternal, { port: 0, address });
    assertThrows(
      () => toPortRequest(80, { externalPort: 0, externalAddress: address, preferFailure: true }),
      TypeError,
      "'preferFailure'",
    );
    // Not insisting needs no port.
    toPortRequest(80, { externalPort: 0, preferFailure: false });
  });

  it("takes ports to their edges", () => {
    for (const port of [1, 65_535]) {
      assertEquals(toPortRequest(port, { externalPort: 65_535 }).internalPort, port);
    }
    assertThrows(() => toPortRequest(0, {}), RangeError, "'port'");
    assertThrows(() => toPortRequest(65_536, {}), RangeError, "'port'");
    assertThrows(() => toPortRequest(80, { externalPort: 65_536 }), RangeError, "'externalPort'");
    assertThrows(() => toPortRequest(80, { externalPort: -1 }), RangeError, "'externalPort'");
    for (const family of [4, 6] as const) {
      assertEquals(toPortRequest(80, { family }).family, family);
    }
  });
});

describe("what an outbound mapping is asked for", () => {
  it("names no external port of its own accord", () => {
    const remote = { address: "198.51.100.9", port: 443 };
    assertEquals(toPeerRequest(80, remote, {}), { protocol: "tcp", internalPort: 80, remote });
    assertEquals(toPeerRequest(80, remote, { externalPort: 90 }).suggestedExternal, { port: 90 });
    assertThrows(() => toPeerRequest(80, any(null), {}), TypeError, "'remote'");
    assertThrows(() => toPeerRequest(80, any(5), {}), TypeError, "'remote'");
  });
});

describe("what is no option", () => {
  it("of a watch, or of both protocols on one port, is refused by its name", () => {
    for (const name of ["mode", "portSetSize"]) {
      const text = `'${name}' is no option of a watch`;
      assertThrows(() => toWatchRequest(80, any({ [name]: "once" })), TypeError, text);
    }
    assertEquals(toWatchRequest(80, { lifetimeSeconds: 9 }).lifetimeSeconds, 9);
    for (const name of ["protocol", "portSetSize"]) {
      const text = `'${name}' is no option of TCP and UDP`;
      assertThrows(() => checkMapBoth(any({ [name]: "tcp" })), TypeError, text);
    }
    const options = { mode: "once" } as const;
    assertEquals(checkMapBoth(options), options);
    assertThrows(() => checkMapBoth(any(null)), TypeError, "'options'");
  });

  it("is told by the name that the caller knows, whatever the core calls it", () => {
    const rethrown = (error: unknown) => {
      try {
        return withOptionNames(() => {
          throw error;
        });
      } catch (thrown) {
        return (thrown as Error).message;
      }
    };
    assertEquals(
      rethrown(new TypeError("'suggestedExternal.address' must be 'x'")),
      [
        "'externalAddress' must be 'x'",
      ][0],
    );
    assertEquals(rethrown(new RangeError("'portSet.size' must")), "'portSetSize' must");
    assertEquals(rethrown(new RangeError("'portSet' must")), "'portSetSize' must");
    assertEquals(rethrown(new Error("'portSet' must")), "'portSet' must");
    assertEquals(withOptionNames(() => 7), 7);
  });
});

describe("a filter", () => {
  it("is a prefix of either family, with a port up to 65535, or what it says already", () => {
    const told = (text: string) => {
      const { prefix: { address, prefixLength }, port } = parseFilter(text);
      return `${address}/${prefixLength} ${port}`;
    };
    assertEquals(told("[2001:db8::/32]:65535"), "2001:db8::/32 65535");
    assertEquals(told("[2001:db8::/32]"), "2001:db8::/32 0");
    assertEquals(told("192.0.2.0/24:65535"), "192.0.2.0/24 65535");
    for (const text of ["192.0.2.0/24:65536", "[::/0]:65536", "192.0.2.0/24:", "x/8", "[::/0"]) {
      assertThrows(() => parseFilter(text), TypeError, `"${text}"`);
    }
    const filter = { prefix: { address: "::", prefixLength: 0, family: 6 }, port: 1 } as const;
    assertEquals(parseFilter(filter), filter);
  });
});

describe("a gateway", () => {
  it("is an address with a port, PCP's by default, or an endpoint", () => {
    assertEquals(parseGateway("[::1]:1"), { address: "::1", port: 1 });
    assertEquals(parseGateway({ address: "10.0.0.1", port: 65_535 }), {
      address: "10.0.0.1",
      port: 65_535,
    });
    for (const wrong of ["10.0.0.1:0", "router", "", {}, { address: 5, port: 1 }, null, 7]) {
      assertThrows(() => parseGateway(any(wrong), "server"), TypeError, "'server'");
    }
    const zero = { address: "10.0.0.1", port: 0 };
    assertThrows(() => parseGateway(zero, "server"), RangeError, "'server.port'");
  });
});

describe("protocols and states", () => {
  it("are lists of what there is, or absent", () => {
    assertEquals([checkProtocols(undefined), checkState(undefined)], [undefined, []]);
    const all = ["upnp", "pcp", "nat-pmp"] as const;
    assertEquals(checkProtocols(all), all);
    assertThrows(() => checkProtocols(any(["stun"])), TypeError, "'protocols'");
    assertThrows(() => checkProtocols(any("pcp")), TypeError, "'protocols' must be an array");
    const mapping = {
      via: "pcp",
      gateway: "192.0.2.1",
      protocol: "udp",
      internalPort: 80,
      lifetimeSeconds: 60,
      mode: "keep-alive",
    } as const;
    const of = (protocol: unknown) => any({ version: 1, mappings: [{ ...mapping, protocol }] });
    assertEquals(checkState(of("udp")).length, 1);
    // The core knows all of IANA's protocols; a mapping of these two alone can be held here.
    assertThrows(() => checkState(of(132)), TypeError, "'protocol'");
  });
});
