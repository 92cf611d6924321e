/**
 * Tickets: one line, bytes and SDP say the same, and none that is hostile gets anywhere.
 *
 * @module
 */
import { describe, it } from "node:test";
import { putU32 } from "../../../core/bytes.ts";
import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { type Candidate, candidatePriority } from "../../../core/ice/candidate.ts";
import {
  checkPublic,
  createRendezvous,
  decodePublic,
  encodePublic,
  formatSdp,
  formatTicket,
  MAX_CANDIDATES,
  parseSdp,
  parseTicket,
  type PublicRendezvous,
  TicketError,
} from "../../../core/ice/ticket.ts";
import { below, seededRandom } from "../../../core/random.ts";
import { fingerprintOf } from "../../../core/stun/integrity.ts";

const HOST: Candidate = {
  foundation: "1",
  transport: "udp",
  priority: candidatePriority(126, 65535),
  address: "192.168.1.2",
  port: 5000,
  type: "host",
};
const CANDIDATES: readonly Candidate[] = [
  HOST,
  { ...HOST, foundation: "2", address: "2001:db8::2", port: 65535 },
  { ...HOST, foundation: "3", address: "203.0.113.7", port: 1, type: "srflx" },
  { ...HOST, foundation: "4", address: "203.0.113.8", type: "relay", priority: 1 },
  { ...HOST, foundation: "5", address: "203.0.113.9", type: "prflx" },
  { ...HOST, foundation: "6", transport: "tcp", tcpType: "so" },
  { ...HOST, foundation: "7", transport: "tcp", tcpType: "passive" },
];
const MORE = {
  hint: { mapping: "address-dependent", ports: [1024, 65535, 7] },
  pacingMs: 5,
} as const;
const told = createRendezvous(CANDIDATES, seededRandom(1), MORE).public;

/** The error's code, of a ticket that cannot be used. */
function codeOf(read: () => unknown): string {
  return assertThrows(read, TicketError, "Cannot use the peer's ticket").code;
}

function withCandidates(candidates: readonly Candidate[]): PublicRendezvous {
  return { ...told, candidates };
}

describe("a rendezvous", () => {
  it("has names that nobody guesses: 24 bits of ufrag and 128 of password at least", () => {
    const [a, b] = [1, 2].map((seed) => createRendezvous([], seededRandom(seed)));
    for (const { public: { ufrag, pwd } } of [a!, b!]) {
      assert(/^[A-Za-z0-9+/]{4,}$/.test(ufrag) && ufrag.length * 6 >= 24, ufrag);
      assert(/^[A-Za-z0-9+/]{22,}$/.test(pwd) && pwd.length * 6 >= 128, pwd);
    }
    assertNotEquals(a!.public.ufrag, b!.public.ufrag);
    assertNotEquals(a!.public.pwd, b!.public.pwd);
    assertNotEquals(a!.private.tieBreaker, b!.private.tieBreaker);
    assert(/^[0-9a-f]{16}$/.test(a!.private.tieBreaker));
    assertEquals(new Set(a!.public.pwd).size > 8, true);
  });

  it("tells what it is given beyond its names", () => {
    const { hint, pacingMs, candidates } = told;
    assertEquals({ hint, pacingMs, candidates }, { ...MORE, candidates: CANDIDATES });
  });

  it("refuses more endpoints than a ticket names, and such as are none", () => {
    const many = new Array<Candidate>(MAX_CANDIDATES + 1).fill(HOST);
    assertEquals(codeOf(() => createRendezvous(many, seededRandom(1))), "too-many-endpoints");
    const wrong = [{ ...HOST, address: "0.0.0.0" }];
    assertEquals(codeOf(() => createRendezvous(wrong, seededRandom(1))), "forbidden-endpoint");
  });
});

describe("a ticket", () => {
  it("is one line without spaces, and says what it was made of", () => {
    const line = formatTicket(told);
    assert(/^natkit1:[A-Za-z0-9_-]+$/.test(line), line);
    assertEquals(parseTicket(line), told);
    assertEquals(parseTicket(`  ${line}\r\n`), told);
    assertEquals(decodePublic(encodePublic(told)), told);
  });

  it("of a home fits into a message", () => {
    const { length } = formatTicket(withCandidates(CANDIDATES.slice(0, 3)));
    assert(length < 180, `${length} characters`);
  });

  it("says nothing of bases, hints and paces that it has not got", () => {
    const { hint: _, pacingMs: __, ...bare } = told;
    const based = { ...HOST, related: { address: "10.0.0.1", port: 1 } };
    assertEquals(parseTicket(formatTicket({ ...bare, candidates: [based] })), {
      ...bare,
      candidates: [HOST],
    });
  });

  it("carries the longest names that ICE lets others have", () => {
    const long = { ...told, ufrag: "u".repeat(255), pwd: "p".repeat(255) };
    assertEquals(parseTicket(formatTicket(long)), long);
  });

  it("that is none, or of another version, says so", () => {
    assertEquals(codeOf(() => parseTicket("")), "not-a-ticket");
    assertEquals(codeOf(() => parseTicket("hello")), "not-a-ticket");
    assertEquals(codeOf(() => parseTicket(`x${formatTicket(told)}`)), "not-a-ticket");
    const next = formatTicket(told).replace("natkit1:", "natkit2:");
    assertEquals(codeOf(() => parseTicket(next)), "other-version");
    assert(assertThrows(() => parseTicket(next), TicketError).message.includes("version 2"));
    const bytes = encodePublic(told);
    bytes[0] = 9;
    assertEquals(codeOf(() => decodePublic(bytes)), "other-version");
  });

  it("that is cut off anywhere is refused, and never taken for a shorter one", () => {
    const line = formatTicket(told);
    for (let length = "natkit1:".length; length < line.length; length++) {
      const code = codeOf(() => parseTicket(line.slice(0, length)));
      assert(code === "truncated" || code === "damaged", `${length}: ${code}`);
    }
    const bytes = encodePublic(told);
    for (let length = 0; length < bytes.length; length++) {
      const code = codeOf(() => decodePublic(bytes.subarray(0, length)));
      assert(code === "truncated" || code === "damaged", `${length}: ${code}`);
    }
  });

  it("with one character changed is refused", () => {
    const line = formatTicket(told);
    for (let at = "natkit1:".length; at < line.length - 1; at++) {
      const other = line[at] === "A" ? "B" : "A";
      const changed = line.slice(0, at) + other + line.slice(at + 1);
      assertThrows(() => parseTicket(changed), TicketError, undefined, changed);
    }
    assertEquals(codeOf(() => parseTicket(`${line}!`)), "damaged");
  });

  it("of 10,000 endpoints is refused, as a ticket, as SDP and as data", () => {
    const many = Array.from({ length: 10_000 }, (_, i) => ({ ...HOST, port: 1 + i }));
    assertEquals(codeOf(() => formatTicket(withCandidates(many))), "too-many-endpoints");
    assertEquals(codeOf(() => formatSdp(withCandidates(many))), "too-many-endpoints");
    const lines = many.map(({ port }) => `a=candidate:1 1 udp 1 192.0.2.1 ${port} typ host`);
    const sdp = [`a=ice-ufrag:${told.ufrag}`, `a=ice-pwd:${told.pwd}`, ...lines].join("\n");
    assertEquals(codeOf(() => parseSdp(sdp)), "too-many-endpoints");
    assertEquals(codeOf(() => parseTicket(`natkit1:${"A".repeat(200_000)}`)), "too-many-endpoints");
    const most = Array.from({ length: MAX_CANDIDATES }, (_, i) => ({ ...HOST, port: 1 + i }));
    assertEquals(parseTicket(formatTicket(withCandidates(most))).candidates.length, MAX_CANDIDATES);
  });

  it("that names what is no host's endpoint is refused, by name", () => {
    const cases = [
      ["0.0.0.0", 5000],
      ["224.0.0.251", 5353],
      ["255.255.255.255", 9],
      ["240.1.2.3", 9],
      ["ff02::1", 9],
      ["192.0.2.1", 0],
    ] as const;
    for (const [address, port] of cases) {
      const line = `a=candidate:1 1 udp 1 ${address} ${port} typ host`;
      const sdp = `a=ice-ufrag:${told.ufrag}\na=ice-pwd:${told.pwd}\n${line}`;
      const error = assertThrows(() => parseSdp(sdp), TicketError);
      assertEquals(error.code, "forbidden-endpoint", address);
      assert(error.message.includes(address), error.message);
      const wrong = withCandidates([{ ...HOST, address, port }]);
      assertEquals(codeOf(() => encodePublic(wrong)), "forbidden-endpoint");
    }
  });

  it("with names that ICE does not know is refused", () => {
    const names = [
      ["ufrag", "abc", "its user fragment must be 4 to 256"],
      ["ufrag", "a b c d", "its user fragment must be"],
      ["pwd", "short", "its password must be 22 to 256"],
    ] as const;
    for (const [name, value, said] of names) {
      const wrong = { ...told, [name]: value };
      assertEquals(codeOf(() => formatTicket(wrong)), "malformed", name);
      assertThrows(() => formatTicket(wrong), TicketError, said);
    }
    assertEquals(codeOf(() => formatTicket({ ...told, ufrag: "u".repeat(257) })), "malformed");
    assertEquals(codeOf(() => formatTicket({ ...told, ufrag: "u".repeat(256) })), "malformed");
    assertEquals(codeOf(() => formatTicket({ ...told, pacingMs: -1 })), "malformed");
    for (
      const more of [
        { foundation: "a\r\nb" },
        { foundation: "" },
        { priority: 0 },
        { priority: 2 ** 31 },
      ]
    ) {
      const wrong = withCandidates([{ ...HOST, ...more }]);
      assertEquals(codeOf(() => formatTicket(wrong)), "malformed", JSON.stringify(more));
    }
    const hint = { mapping: "unknown" as const, ports: new Array<number>(9).fill(1) };
    assertEquals(codeOf(() => formatTicket({ ...told, hint })), "malformed");
  });

  it("whose fields mean nothing is refused, though its checksum is right", () => {
    for (const [place, value] of [[1, 4], [1, 254]] as const) {
      const bytes = encodePublic(told);
      bytes[place] = value;
      putU32(bytes, bytes.length - 4, fingerprintOf(bytes, bytes.length - 4));
      assertEquals(codeOf(() => decodePublic(bytes)), "malformed", `${value}`);
    }
  });

  it("that came as data may be anything, and is refused with its own errors", () => {
    const wrong: readonly (readonly [object, string])[] = [
      [{ ufrag: undefined }, "malformed"],
      [{ pwd: 5 }, "malformed"],
      [{ candidates: undefined }, "malformed"],
      [{ candidates: {} }, "malformed"],
      [{ candidates: [null] }, "malformed"],
      [{ candidates: [{ ...HOST, address: 5 }] }, "malformed"],
      [{ candidates: [{ ...HOST, foundation: undefined }] }, "malformed"],
      [{ candidates: [{ ...HOST, priority: 1.5 }] }, "malformed"],
      [{ candidates: [{ ...HOST, priority: "9" }] }, "malformed"],
      [{ candidates: [{ ...HOST, type: "other" }] }, "malformed"],
      [{ candidates: [{ ...HOST, transport: "sctp" }] }, "malformed"],
      [{ candidates: [{ ...HOST, tcpType: "simultaneous" }] }, "malformed"],
      [{ candidates: [{ ...HOST, port: 80.5 }] }, "forbidden-endpoint"],
      [{ candidates: [{ ...HOST, port: "80" }] }, "forbidden-endpoint"],
      [{ candidates: [{ ...HOST, port: NaN }] }, "forbidden-endpoint"],
      [{ hint: null }, "malformed"],
      [{ hint: { mapping: "endpoint-independent" } }, "malformed"],
      [{ hint: { mapping: "endpoint-independent", ports: "12" } }, "malformed"],
      [{ hint: { mapping: "endpoint-independent", ports: [1.5] } }, "malformed"],
      [{ hint: { mapping: "endpoint-independent", ports: [65_536] } }, "malformed"],
      [{ hint: { mapping: "endpoint-independent", ports: [-1] } }, "malformed"],
      [{ hint: { mapping: "sometimes", ports: [] } }, "malformed"],
      [{ pacingMs: "5" }, "malformed"],
      [{ pacingMs: NaN }, "malformed"],
    ];
    for (const [part, code] of wrong) {
      const data = { ...told, ...part } as PublicRendezvous;
      assertEquals(codeOf(() => checkPublic(data)), code, JSON.stringify(part));
    }
    for (const data of [undefined, null, 7, []]) {
      assertEquals(codeOf(() => checkPublic(data as never)), "malformed");
    }
  });

  it("of random bytes throws nothing but its own errors", () => {
    const random = seededRandom(3);
    const good = encodePublic(told);
    for (let i = 0; i < 20_000; i++) {
      const bytes = good.slice(0, below(random, good.length + 1));
      for (let j = 0; j < 3 && bytes.length > 1; j++) {
        bytes[1 + below(random, bytes.length - 1)] = random.u32();
      }
      try {
        decodePublic(bytes);
      } catch (error) {
        assert(error instanceof TicketError, String(error));
      }
    }
  });
});

describe("SDP", () => {
  it("says what other stacks read, and is read again", () => {
    const lines = formatSdp(told);
    assertEquals(lines[0], `a=ice-ufrag:${told.ufrag}`);
    assertEquals(lines[1], `a=ice-pwd:${told.pwd}`);
    assertEquals(lines.at(-1), "a=end-of-candidates");
    assertEquals(lines.filter((line) => line.startsWith("a=candidate:")).length, 7);
    const { hint: _, ...without } = told;
    const bare = ({ related: __, ...rest }: Candidate) => rest;
    const read = parseSdp(lines.join("\r\n"));
    assertEquals({ ...read, candidates: read.candidates.map(bare) }, without);
  });

  it("passes over what is not about ICE, and candidates that are to be ignored", () => {
    const read = parseSdp(
      [
        "v=0",
        "a=setup:actpass",
        `a=ice-ufrag:${told.ufrag}`,
        `a=ice-pwd:${told.pwd}`,
        "a=candidate:1 1 udp 1 7d1f4e2a.local 5000 typ host",
        "a=candidate:2 2 udp 1 192.0.2.1 5001 typ host",
        "a=candidate:3 1 udp 1 192.0.2.1 5000 typ host",
      ].join("\n"),
    );
    assertEquals(read.candidates.map(({ foundation }) => foundation), ["3"]);
    assertEquals(read.hint, undefined);
  });

  it("without names is none", () => {
    assertEquals(
      codeOf(() => parseSdp("a=candidate:1 1 udp 1 192.0.2.1 1 typ host")),
      "not-a-ticket",
    );
  });
});
