/**
 * What can be asked for, and what is said of a request that nobody could grant.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  checkMappingRequest,
  checkMode,
  codeInTime,
  describeFailure,
  describeInternal,
  type MappingRequest,
  type RemoteFilter,
  sameFilters,
  secondsUntil,
} from "../../core/mapping.ts";

const web = { protocol: "tcp", internalPort: 8080 } as const;
const remote = { address: "198.51.100.1", port: 9 };

function filter(address: string, prefixLength: number, port = 0): RemoteFilter {
  const family = address.includes(":") ? 6 : 4;
  return { prefix: { family, address, prefixLength }, port };
}

describe("checkMappingRequest()", () => {
  it("fills in what is not said", () => {
    assertEquals(checkMappingRequest(web), {
      kind: "map",
      protocol: 6,
      internalPort: 8080,
      remote: undefined,
      suggestedAddress: undefined,
      suggestedPort: 0,
      lifetimeSeconds: 7200,
      lifetimes: undefined,
      preferFailure: false,
      filters: [],
      thirdParty: undefined,
      description: undefined,
      portSet: undefined,
    });
  });

  it("takes over what is said", () => {
    const filters = [filter("192.0.2.0", 24, 9), filter("2001:db8::", 32), filter("0.0.0.0", 0)];
    const wanted = checkMappingRequest({
      ...web,
      protocol: "udp",
      suggestedExternal: { address: "203.0.113.7", port: 65_535 },
      lifetimeSeconds: 0xffff_ffff,
      mode: 3,
      preferFailure: true,
      filters,
      thirdParty: "192.168.1.9",
      description: "é".repeat(508),
    }, "192.168.1.100");
    assertEquals([wanted.protocol, wanted.suggestedPort, wanted.suggestedAddress], [
      17,
      65_535,
      "203.0.113.7",
    ]);
    assertEquals([wanted.lifetimeSeconds, wanted.lifetimes, wanted.preferFailure], [
      0xffff_ffff,
      3,
      true,
    ]);
    assertEquals([wanted.filters, wanted.thirdParty], [filters, "192.168.1.9"]);
    assertEquals(wanted.description?.length, 508);
  });

  it("takes all ports of a protocol, all protocols, and those without ports", () => {
    for (
      const [protocol, internalPort] of [
        ["tcp", 0],
        [0, 0],
        [255, 0],
        [47, 0],
        [6, 65_535],
        [17, 1],
        [33, 1],
        [132, 1],
        [136, 1],
      ] as const
    ) {
      const wanted = checkMappingRequest({ protocol, internalPort });
      assertEquals([wanted.kind, wanted.internalPort], ["map", internalPort]);
    }
  });

  it("takes addresses of a link without their zone", () => {
    const wanted = checkMappingRequest({
      ...web,
      suggestedExternal: { address: "fe80::1%eth0" },
      thirdParty: "fe80::2%eth0",
      remote: { address: "fe80::3%eth0", port: 9 },
    }, "fe80::4%eth0");
    assertEquals([wanted.suggestedAddress, wanted.thirdParty, wanted.remote], [
      "fe80::1",
      "fe80::2",
      { address: "fe80::3", port: 9 },
    ]);
  });

  it("makes a peer of a request with a remote end, which has no filters and no set", () => {
    const wanted = checkMappingRequest({
      ...web,
      remote,
      filters: [filter("192.0.2.0", 24)],
      portSet: { size: 4 },
    }, "192.168.1.100");
    assertEquals([wanted.kind, wanted.remote, wanted.filters, wanted.portSet], [
      "peer",
      remote,
      [],
      undefined,
    ]);
  });

  it("takes sets up to the last port, and those that ask for all there are", () => {
    const set = (internalPort: number, size: number) =>
      checkMappingRequest({ ...web, internalPort, portSet: { size } }).portSet;
    assertEquals(set(8080, 2), { size: 2, parity: false });
    assertEquals(set(65_000, 536), { size: 536, parity: false });
    assertEquals(set(1, 65_534), { size: 65_534, parity: false });
    assertEquals(set(60_000, 65_535), { size: 65_535, parity: false });
    const even = checkMappingRequest({ ...web, portSet: { size: 2, parity: true } });
    assertEquals(even.portSet, { size: 2, parity: true });
  });

  const insists = { preferFailure: true, suggestedExternal: { port: 9 } };
  const wrong: readonly (readonly [Record<string, unknown>, string])[] = [
    [{ protocol: "icmp" }, "'protocol'"],
    [{ protocol: undefined }, "'protocol'"],
    [{ protocol: 256 }, "'protocol'"],
    [{ protocol: -1 }, "'protocol'"],
    [{ protocol: 6.5 }, "'protocol'"],
    [{ protocol: 0, internalPort: 0, remote }, "'protocol'"],
    [{ internalPort: 65_536 }, "'internalPort'"],
    [{ internalPort: -1 }, "'internalPort'"],
    [{ internalPort: "80" }, "'internalPort'"],
    [{ internalPort: undefined }, "'internalPort'"],
    [{ internalPort: 0, remote }, "'internalPort'"],
    [
      { protocol: 47 },
      "'internalPort' must be 0 as protocol 47 has no ports: current value is 8080",
    ],
    [{ protocol: 0 }, "'internalPort' must be 0 as protocol 0 has no ports"],
    [{ remote: null }, "'remote.address'"],
    [{ remote: { address: "host", port: 9 } }, "'remote.address'"],
    [{ remote: { address: "2001:db8::1", port: 9 } }, "'remote.address'"],
    [{ remote: { address: "198.51.100.1" } }, "'remote.port'"],
    [{ remote: { address: "198.51.100.1", port: 0 } }, "'remote.port'"],
    [{ suggestedExternal: { address: "wan" } }, "'suggestedExternal.address'"],
    [{ suggestedExternal: { port: 65_536 } }, "'suggestedExternal.port'"],
    [{ suggestedExternal: { port: -1 } }, "'suggestedExternal.port'"],
    [{ lifetimeSeconds: 0 }, "'lifetimeSeconds'"],
    [{ lifetimeSeconds: 2 ** 32 }, "'lifetimeSeconds'"],
    [{ lifetimeSeconds: NaN }, "'lifetimeSeconds'"],
    [{ mode: 0 }, "'mode'"],
    [{ mode: 2 ** 32 }, "'mode'"],
    [{ mode: 1.5 }, "'mode'"],
    [{ mode: "forever" }, "'mode'"],
    [{ preferFailure: 1 }, "'preferFailure'"],
    [{ ...insists, remote }, "'preferFailure' must be false for a PEER"],
    [{ preferFailure: true }, "'preferFailure' needs a 'suggestedExternal.port'"],
    [
      { preferFailure: true, suggestedExternal: { address: "203.0.113.7" } },
      "'preferFailure' needs a 'suggestedExternal.port'",
    ],
    [
      { ...insists, portSet: { size: 4 } },
      "'portSet' and 'preferFailure' exclude each other (RFC 7753 §4.1): current value is 4",
    ],
    [{ filters: [null] }, "'filters.prefix.address'"],
    [{ filters: [{ port: 0 }] }, "'filters.prefix.address'"],
    [{ filters: [filter("peer", 24)] }, "'filters.prefix.address'"],
    [
      { filters: [{ prefix: { family: 6, address: "192.0.2.0", prefixLength: 24 }, port: 0 }] },
      "'filters.prefix.address'",
    ],
    [{ filters: [filter("192.0.2.0", 33)] }, "'filters.prefix.prefixLength'"],
    [{ filters: [filter("192.0.2.0", -1)] }, "'filters.prefix.prefixLength'"],
    [{ filters: [filter("2001:db8::", 129)] }, "'filters.prefix.prefixLength'"],
    [
      { filters: [filter("::", 0)] },
      "'filters.prefix.prefixLength' must be 1..128 for IPv6: current value is 0",
    ],
    [{ filters: [filter("192.0.2.0", 24, 65_536)] }, "'filters.port'"],
    [{ filters: [filter("192.0.2.0", 24), filter("192.0.2.0", 24, -1)] }, "'filters.port'"],
    [{ thirdParty: "host" }, "'thirdParty'"],
    [
      { thirdParty: "192.168.1.100" },
      "'thirdParty' must be another host's address: current value is 192.168.1.100",
    ],
    [{ description: 7 }, "'description' must be a string: current value is 7"],
    [
      { description: `${"é".repeat(508)}x` },
      "'description' must take at most 1016 bytes of UTF-8: current length is 1017",
    ],
    [{ portSet: { size: 1 } }, "'portSet.size'"],
    [{ portSet: { size: 65_536 } }, "'portSet.size'"],
    [{ portSet: {} }, "'portSet.size'"],
    [{ portSet: null }, "'portSet.size'"],
    [{ filters: "192.0.2.0/24" }, "'filters' must be an array"],
    [{ filters: 24 }, "'filters' must be an array"],
    [{ filters: null }, "'filters' must be an array"],
    [{ portSet: { size: 2, parity: 1 } }, "'portSet.parity'"],
    [{ internalPort: 0, portSet: { size: 2 } }, "'internalPort'"],
    [
      { internalPort: 65_000, portSet: { size: 537 } },
      "'portSet.size' must end at port 65535 from 65000 on: current value is 537",
    ],
  ];
  for (const [fields, message] of wrong) {
    it(`throws ${message} at ${JSON.stringify(fields).slice(0, 80)}`, () => {
      const request = { ...web, ...fields } as unknown as MappingRequest;
      assertThrows(() => checkMappingRequest(request, "192.168.1.100"), Error, message);
    });
  }

  for (const request of [null, undefined, 8080, "8080/tcp"]) {
    it(`throws a TypeError that names 'request' at ${request}`, () => {
      assertThrows(
        () => checkMappingRequest(request as unknown as MappingRequest),
        TypeError,
        "'request' must be an object",
      );
    });
  }
});

describe("checkMode()", () => {
  it("tells through how many lifetimes", () => {
    assertEquals(
      [undefined, "keep-alive", "once", 1, 0xffff_ffff].map((mode) =>
        checkMode(mode as Parameters<typeof checkMode>[0])
      ),
      [undefined, undefined, 1, 1, 0xffff_ffff],
    );
  });
});

describe("sameFilters()", () => {
  const a = filter("192.0.2.0", 24), b = filter("198.51.100.0", 24, 9);
  it("minds what is let in, not the order", () => {
    assert(sameFilters([], []));
    assert(sameFilters([a, b], [b, a]));
    assert(!sameFilters([a], []));
    assert(!sameFilters([a, b], [a]));
    assert(!sameFilters([a], [filter("192.0.2.0", 25)]));
    assert(!sameFilters([a], [filter("192.0.2.0", 24, 9)]));
    assert(!sameFilters([a], [filter("192.0.3.0", 24)]));
  });
});

describe("words for people", () => {
  it("name the internal side", () => {
    const one = { kind: "map", protocol: 6, internalPort: 8080 } as const;
    assertEquals(describeInternal(one), "8080/tcp");
    assertEquals(describeInternal({ ...one, protocol: 17 }), "8080/udp");
    assertEquals(
      describeInternal({ ...one, protocol: 47, internalPort: 0 }),
      "internal port 0 of protocol 47",
    );
    assertEquals(
      describeInternal({ ...one, thirdParty: "192.168.1.9", remote }),
      "8080/tcp of 192.168.1.9 to 198.51.100.1:9",
    );
  });

  it("name each failure by what the other side did", () => {
    const refused = { kind: "refused", code: 2, name: "NOT_AUTHORIZED", retryAt: 0 } as const;
    const failures = [
      { kind: "no-answer" },
      { kind: "unreachable" },
      { kind: "unsupported-version", version: 2 },
      refused,
      { kind: "protocol-violation", clause: "PCP-C-48" },
      { kind: "protocol-violation", clause: "no answer of UPnP's" },
      { kind: "expired" },
    ] as const;
    assertEquals(failures.map(describeFailure), [
      "no answer",
      "unreachable",
      "unsupported version (speaks 2)",
      "NOT_AUTHORIZED",
      "protocol violation (another port than the one insisted on)",
      "protocol violation (no answer of UPnP's)",
      "expired",
    ]);
    // Of the words only those of a refusal are a refusal's, also beside others.
    const outcomes = [...failures.map(describeFailure), "mapped", "unmapped", "ConflictInMapping"];
    const alone = outcomes.filter((outcome) => codeInTime([{ outcome }]) === "refused");
    assertEquals(alone, ["NOT_AUTHORIZED", "ConflictInMapping"]);
    assertEquals(codeInTime(outcomes.map((outcome) => ({ outcome }))), "refused");
    assertEquals(codeInTime([]), "no-answer");
  });
});

describe("secondsUntil()", () => {
  it("counts seconds that have begun, and none that only the clock's fractions make up", () => {
    assertEquals([0, 1, 999, 1000, 1001, Infinity].map((ms) => secondsUntil(ms, 0)), [
      0,
      1,
      1,
      1,
      2,
      Infinity,
    ]);
    assertEquals(secondsUntil(1000, 5000), 0);
    // Added to the first and taken off again, 7200 s are more than that by a hair.
    for (const now of [16_500_061.755285634, 86_400_000.1, 1_795_000_000_000.7]) {
      assertEquals(secondsUntil(now + 7_200_000, now), 7200, `${now}`);
    }
  });
});
