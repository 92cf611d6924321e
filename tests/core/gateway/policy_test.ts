import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import {
  GatewayPolicy,
  type RequestMatch,
  type RequestRule,
} from "../../../core/gateway/policy.ts";
import { PCP_RESULT } from "../../../core/pcp/constants.ts";
import type { PcpOption } from "../../../core/pcp/options.ts";
import { MappingTable, type TableEntry } from "../../../core/table/mod.ts";
import type { ServerRequest } from "../../../core/table/server_request.ts";
import { ALICE, BOB, EXTERNAL, NONCE, OTHER_NONCE, pcpAnnounce, pcpMap, pcpPeer } from "./rig.ts";

const REFUSED = { kind: "refuse", code: 99 } as const;
const INTERNAL = { address: ALICE.address, port: 80 };

/** A table with one mapping of Alice's at 8080, made by PCP with the nonce. */
function home(): { table: MappingTable; mine: TableEntry } {
  const table = new MappingTable({ externalAddresses: [EXTERNAL] });
  const mine = table.mapInbound({
    origin: "pcp",
    protocol: 6,
    internal: INTERNAL,
    suggestedPort: 8080,
    nonce: NONCE,
    expiresAt: 1000,
  }, 0) as TableEntry;
  return { table, mine };
}

function requestOf(more: Partial<ServerRequest> = {}): ServerRequest {
  return {
    via: "pcp",
    operation: "map",
    from: ALICE,
    protocol: 6,
    internal: INTERNAL,
    suggested: { address: "0.0.0.0", port: 0 },
    remote: undefined,
    lifetimeSeconds: 60,
    nonce: NONCE,
    existing: undefined,
    ...more,
  };
}

/** Whether a rule is for a request. */
function fits(when: RequestMatch, request: ServerRequest, data: Uint8Array = pcpMap(80)): boolean {
  const policy = new GatewayPolicy(home().table, [{ when, then: { kind: "drop" } }], undefined);
  return policy.decide(request, data, 0)?.kind === "drop";
}

describe("a rule about requests", () => {
  const { mine } = home();
  const suggested = (port: number) => ({ suggested: { address: "0.0.0.0", port } });

  it("is for all where it names nothing, and only for those of which all is so that it names", () => {
    assertEquals(fits({}, requestOf()), true);
    const when = { via: "pcp", operations: ["map", "peer"], family: 4 } as const;
    const asked = [
      requestOf(),
      requestOf({ operation: "peer" }),
      requestOf({ operation: "delete" }),
      requestOf({ via: "nat-pmp" }),
      requestOf({ from: { address: "2001:db8::1", port: 1 } }),
    ];
    assertEquals(asked.map((request) => fits(when, request)), [true, true, false, false, false]);
  });

  const cases: readonly (readonly [keyof RequestMatch, ServerRequest, ServerRequest])[] = [
    ["exists", requestOf({ existing: mine }), requestOf()],
    ["suggestsPort", requestOf(suggested(1)), requestOf(suggested(0))],
    ["isForeign", requestOf({ via: "nat-pmp", existing: mine }), requestOf({ existing: mine })],
    ["isForeign", requestOf({ via: "upnp", existing: mine }), requestOf({ via: "nat-pmp" })],
    [
      "isNonceRight",
      requestOf({ existing: mine }),
      requestOf({ existing: mine, nonce: OTHER_NONCE }),
    ],
    [
      "isNonceRight",
      requestOf({ nonce: OTHER_NONCE }),
      requestOf({ existing: mine, nonce: OTHER_NONCE }),
    ],
    ["isPeer", requestOf({ remote: BOB }), requestOf()],
    [
      "isPortTaken",
      requestOf({ internal: { address: BOB.address, port: 80 }, ...suggested(8080) }),
      requestOf({ internal: { address: BOB.address, port: 80 }, ...suggested(8081) }),
    ],
    [
      "isPortTaken",
      requestOf({ internal: { address: ALICE.address, port: 81 }, ...suggested(8080) }),
      requestOf(suggested(8080)),
    ],
    [
      "isPortTaken",
      requestOf({ internal: { address: BOB.address, port: 80 }, ...suggested(8080) }),
      requestOf({ internal: { address: BOB.address, port: 80 }, ...suggested(8080), protocol: 17 }),
    ],
  ];
  for (const [name, yes, no] of cases) {
    it(`tells by '${name}' what is from what is not`, () => {
      const answers = [true, false].map((wanted) =>
        [yes, no].map((request) => fits({ [name]: wanted }, request))
      );
      assertEquals(answers, [[true, false], [false, true]]);
    });
  }

  it("tells by 'actions' UPnP's actions", () => {
    const when = { actions: ["AddPortMapping", "AddPinhole"] };
    const asked = ["AddPinhole", "AddAnyPortMapping", undefined].map((action) =>
      fits(when, requestOf({ via: "upnp", ...(action !== undefined && { action }) }))
    );
    assertEquals(asked, [true, false, false]);
  });

  it("tells by 'hasPadding' an option that is padded, after whichever opcode's part, at any place", () => {
    const text = (text: string): PcpOption => ({ type: "description", text });
    const even = text("even"), odd = text("odd");
    const when = { hasPadding: true };
    const packets = [
      pcpMap(80),
      pcpMap(80, { options: [even] }),
      pcpMap(80, { options: [odd] }),
      pcpMap(80, { options: [{ type: "prefer-failure" }, odd], suggested: 1 }),
      pcpPeer(80),
      pcpAnnounce(),
    ];
    assertEquals(packets.map((data) => fits(when, requestOf(), data)), [
      false,
      false,
      true,
      true,
      false,
      false,
    ]);
    const append = (packet: Uint8Array, option: readonly number[]) =>
      Uint8Array.from([...packet, ...option]);
    const padded = [128, 0, 0, 3, 97, 98, 99, 0], whole = [128, 0, 0, 4, 97, 98, 99, 100];
    for (const packet of [pcpMap(80), pcpPeer(80), pcpAnnounce()]) {
      assertEquals(fits(when, requestOf(), append(packet, padded)), true);
      assertEquals(fits(when, requestOf(), append(packet, whole)), false);
    }
    assertEquals(fits(when, requestOf({ via: "nat-pmp" }), append(pcpMap(80), padded)), false);
  });

  it("goes before the caller's own policy, and the first that fits before the others", () => {
    const rules: RequestRule[] = [
      { when: { operations: ["delete"] }, then: { kind: "drop" } },
      { when: { via: "pcp" }, then: REFUSED },
      { when: {}, then: { kind: "delay", delayMs: 5 } },
    ];
    const own = { kind: "delay", delayMs: 7 } as const;
    const decide = (rules: readonly RequestRule[], more: Partial<ServerRequest> = {}) =>
      new GatewayPolicy(home().table, rules, () => own).decide(requestOf(more), pcpMap(80), 0);
    assertEquals(
      [
        decide(rules),
        decide(rules, { operation: "delete" }),
        decide(rules, { via: "nat-pmp" }),
        decide(rules.slice(0, 2), { via: "nat-pmp" }),
      ],
      [REFUSED, { kind: "drop" }, { kind: "delay", delayMs: 5 }, own],
    );
  });
});

describe("what an operator says", () => {
  const policyOf = (igdVersion: 1 | 2 = 2) =>
    new GatewayPolicy(home().table, [], undefined, igdVersion);
  const ask = (policy: GatewayPolicy, more: Partial<ServerRequest>) =>
    policy.decide(requestOf(more), pcpMap(80), 0);

  it("refuses all but announcements; from 256 on UPnP's requests alone", () => {
    const policy = policyOf();
    policy.refusal = 255;
    assertEquals([ask(policy, {}), ask(policy, { operation: "announce" })], [
      { kind: "refuse", code: 255 },
      undefined,
    ]);
    policy.refusal = 256;
    assertEquals([ask(policy, {}), ask(policy, { via: "upnp" })], [
      undefined,
      { kind: "refuse", code: 256 },
    ]);
  });

  it("denies a client mappings, not what it only looks at", () => {
    const policy = policyOf();
    policy.setPermission(ALICE.address, false);
    const denied = (["map", "peer", "delete", "delete-all", "address", "read", "announce"] as const)
      .filter((operation) => ask(policy, { operation }) !== undefined);
    assertEquals(denied, ["map", "peer", "delete", "delete-all"]);
    assertEquals(ask(policy, { from: BOB }), undefined);
    policy.setPermission(ALICE.address, true);
    assertEquals(ask(policy, {}), undefined);
  });

  it("is told to UPnP's clients in the words of their version (RFC 6970 §5.4)", () => {
    const codes = [
      PCP_RESULT.NOT_AUTHORIZED,
      PCP_RESULT.NO_RESOURCES,
      PCP_RESULT.USER_EX_QUOTA,
      PCP_RESULT.CANNOT_PROVIDE_EXTERNAL,
      PCP_RESULT.NETWORK_FAILURE,
      255,
      256,
      729,
    ];
    const told = ([1, 2] as const).map((version) =>
      codes.map((code) => {
        const policy = policyOf(version);
        policy.refusal = code;
        const decision = ask(policy, { via: "upnp" });
        return decision?.kind === "refuse" && decision.code;
      })
    );
    assertEquals(told, [
      [718, 501, 501, 718, 501, 501, 256, 729],
      [606, 728, 728, 718, 501, 501, 256, 729],
    ]);
  });
});

describe("a nonce that is adopted", () => {
  it("is the mapping's from then on, for as long as it was granted, and only where it is another", () => {
    const { table, mine } = home();
    const then = { kind: "reshape", changes: [], adoptsNonce: true } as const;
    const policy = new GatewayPolicy(table, [{ when: {}, then }], undefined);
    policy.decide(requestOf({ existing: mine }), pcpMap(80), 0);
    assertEquals(mine.nonce, NONCE);
    policy.decide(requestOf({ existing: mine, nonce: OTHER_NONCE }), pcpMap(80), 0);
    assertEquals([mine.nonce, mine.expiresAt], [OTHER_NONCE, 1000]);
    const { table: other, mine: kept } = home();
    const plain = { kind: "reshape", changes: [] } as const;
    new GatewayPolicy(other, [{ when: {}, then: plain }], undefined)
      .decide(requestOf({ existing: kept, nonce: OTHER_NONCE }), pcpMap(80), 0);
    assertEquals(kept.nonce, NONCE);
  });
});
