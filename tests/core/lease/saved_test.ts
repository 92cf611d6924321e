/**
 * What a lease leaves behind, and what is read of it again.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import { type Grant, Lease } from "../../../core/lease/lease.ts";
import {
  protocolName,
  readSaved,
  readState,
  savedKey,
  type SavedMapping,
  type SavedState,
  saveLease,
} from "../../../core/lease/saved.ts";
import { checkMappingRequest, type MappingRequest } from "../../../core/mapping.ts";

const GATEWAY = "192.168.1.1";
const EXTERNAL = { address: "203.0.113.7", port: 8080 };
const NONCE = "000102030405060708090a0b";
const web = { protocol: "tcp", internalPort: 8080 } as const;

function lease(request: Partial<MappingRequest> = {}, nonce?: string): Lease<unknown> {
  return new Lease<unknown>(1, "key", checkMappingRequest({ ...web, ...request }), nonce);
}

function granted(request: Partial<MappingRequest>, grant: Partial<Grant> = {}): Lease<unknown> {
  const one = lease(request);
  one.take({ external: EXTERNAL, lifetimeSeconds: one.lifetimeSeconds, ...grant }, 0);
  return one;
}

const save = (one: Lease<unknown>, now = 0) => saveLease(one, "pcp", GATEWAY, now);
const saved: SavedMapping = {
  ...web,
  via: "pcp",
  gateway: GATEWAY,
  lifetimeSeconds: 7200,
  mode: "keep-alive",
};

describe("saveLease()", () => {
  it("keeps what asks for it again, and nothing that says nothing", () => {
    assertEquals(save(lease()), saved);
    assertEquals(save(lease({}, NONCE)).nonce, NONCE);
  });

  it("keeps what the gateway assigned", () => {
    assertEquals(save(granted({})).external, EXTERNAL);
    const portOnly = granted({}, { external: { address: "", port: 8080 } });
    assertEquals(save(portOnly).external, { port: 8080 });
  });

  it("keeps what was lost, too, until the gateway has refused it", () => {
    const one = granted({});
    one.expiresAt = undefined;
    assertEquals(save(one).external, EXTERNAL);
    one.remembered = undefined;
    assertEquals("external" in save(one), false);
  });

  const requests: readonly (readonly [string, Partial<MappingRequest>])[] = [
    ["a plain one", {}],
    ["a protocol by its number", { protocol: 47, internalPort: 0 }],
    ["UDP", { protocol: "udp" }],
    ["a peer", { remote: { address: "198.51.100.1", port: 9 } }],
    ["a suggested port", { suggestedExternal: { port: 9 } }],
    ["a suggested address", { suggestedExternal: { address: "203.0.113.9" } }],
    ["both", { suggestedExternal: { address: "203.0.113.9", port: 9 } }],
    ["one that insists", { suggestedExternal: { port: 9 }, preferFailure: true }],
    ["filters", {
      filters: [{ prefix: { family: 4, address: "192.0.2.0", prefixLength: 24 }, port: 9 }],
    }],
    ["another host", { thirdParty: "192.168.1.9" }],
    ["a description", { description: "web" }],
    ["an empty description", { description: "" }],
    ["a set", { portSet: { size: 4, parity: true } }],
    ["a lifetime", { lifetimeSeconds: 60 }],
    ["a mode", { mode: 5 }],
    ["once", { mode: "once" }],
  ];
  for (const [what, request] of requests) {
    it(`of ${what} reads the same again, through JSON`, () => {
      const one = lease(request, NONCE);
      const read = readSaved(JSON.parse(JSON.stringify(save(one))));
      assertEquals(read, { wanted: one.wanted, nonce: NONCE, external: undefined });
    });
  }

  it("says for how long it is wanted from here on, in lifetimes that make it up", () => {
    const wanted = (mode: number | "once", lifetimeSeconds: number, now: number) => {
      const { mode: left, lifetimeSeconds: each } = save(granted({ mode, lifetimeSeconds }), now);
      return [left, each];
    };
    assertEquals(wanted("once", 600, 0), ["once", 600]);
    assertEquals(wanted("once", 600, 100_500), ["once", 500]);
    assertEquals(wanted("once", 600, 599_500), ["once", 1]);
    assertEquals(wanted("once", 600, 700_000), ["once", 1]);
    assertEquals(wanted(3, 600, 0), [3, 600]);
    assertEquals(wanted(3, 600, 1), [3, 600]);
    assertEquals(wanted(3, 600, 1000), [3, 600]);
    assertEquals(wanted(3, 600, 300_000), [3, 500]);
    assertEquals(wanted(3, 600, 600_000), [2, 600]);
    assertEquals(wanted(3, 600, 1_500_000), ["once", 300]);
  });
});

describe("readSaved()", () => {
  it("reads what the gateway assigned, with or without an address", () => {
    assertEquals(readSaved({ ...saved, external: EXTERNAL }).external, EXTERNAL);
    assertEquals(readSaved({ ...saved, external: { port: 0 } }).external, {
      address: "",
      port: 0,
    });
  });

  it("reads what was saved on another network than the reader's own", () => {
    assertThrows(
      () => readSaved({ ...saved, thirdParty: "192.168.1.9" }, "192.168.1.9"),
      TypeError,
      "'thirdParty'",
    );
    assertEquals(readSaved(saved, "192.168.1.9").wanted.internalPort, 8080);
  });

  const wrong: readonly (readonly [unknown, string])[] = [
    [null, "'state.mappings' must hold objects: current value is null"],
    ["8080", "'state.mappings' must hold objects"],
    [{ ...saved, via: "stun" }, "'via'"],
    [{ ...saved, via: undefined }, "'via'"],
    [{ ...saved, gateway: "router" }, "'gateway'"],
    [{ ...saved, nonce: 7 }, "'nonce' must be 24 hexadecimal digits: current value is 7"],
    [{ ...saved, nonce: "00" }, "'nonce'"],
    [{ ...saved, nonce: `${"0".repeat(24)}0` }, "'nonce'"],
    [{ ...saved, nonce: `x${"0".repeat(24)}` }, "'nonce'"],
    [{ ...saved, nonce: null }, "'nonce'"],
    [{ ...saved, external: { address: "here", port: 1 } }, "'external.address'"],
    [{ ...saved, external: { port: 65_536 } }, "'external.port'"],
    [{ ...saved, external: {} }, "'external.port'"],
    [{ ...saved, external: null }, "'external' must be an object: current value is null"],
    [{ ...saved, internalPort: -1 }, "'internalPort'"],
    [{ ...saved, mode: "always" }, "'mode'"],
  ];
  for (const [value, message] of wrong) {
    it(`names what is wrong in ${JSON.stringify(value)}`, () => {
      assertThrows(() => readSaved(value as SavedMapping), Error, message);
    });
  }
});

describe("readState()", () => {
  it("reads the mappings in their order", () => {
    const mappings = [saved, { ...saved, internalPort: 9 }];
    const ports = readState({ version: 1, mappings }).map(({ wanted }) => wanted.internalPort);
    assertEquals(ports, [8080, 9]);
  });

  const wrong: readonly (readonly [unknown, string])[] = [
    [null, "'state' must be an object: current value is null"],
    ["{}", "'state' must be an object"],
    [{ version: 2, mappings: [] }, "'state.version'"],
    [{ mappings: [] }, "'state.version'"],
    [{ version: 1 }, "'state.mappings' must be an array: current value is undefined"],
    [{ version: 1, mappings: { 0: saved } }, "'state.mappings' must be an array"],
    [{ version: 1, mappings: [saved, 7] }, "'state.mappings' must hold objects"],
  ];
  for (const [value, message] of wrong) {
    it(`names what is wrong in ${JSON.stringify(value)}`, () => {
      assertThrows(() => readState(value as SavedState), Error, message);
    });
  }
});

describe("savedKey()", () => {
  it("is the same for a protocol by its name and its number, and where only hints differ", () => {
    const key = savedKey(web);
    assertEquals(savedKey({ ...web, protocol: 6 }), key);
    assertEquals(savedKey({ ...web, description: "x", suggestedExternal: { port: 9 } }), key);
    assertEquals(savedKey(saved), key);
  });

  it("differs where a gateway would hold two", () => {
    const remote = { address: "198.51.100.1", port: 9 };
    const keys = [
      web,
      { ...web, protocol: "udp" as const },
      { ...web, protocol: 7 },
      { ...web, internalPort: 9 },
      { ...web, thirdParty: "192.168.1.9" },
      { ...web, remote },
      { ...web, remote: { ...remote, port: 10 } },
      { ...web, remote: { ...remote, address: "198.51.100.2" } },
      { ...web, remote, thirdParty: "192.168.1.9" },
    ].map(savedKey);
    assertEquals(new Set(keys).size, keys.length);
  });
});

describe("protocolName()", () => {
  it("names TCP and UDP, and leaves the others numbers", () => {
    assertEquals([6, 17, 47, 0].map(protocolName), ["tcp", "udp", 47, 0]);
  });
});
