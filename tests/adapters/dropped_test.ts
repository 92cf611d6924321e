import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { countDropped, reasonSince } from "../../adapters/dropped.ts";

const PCP = Uint8Array.of(2, 0x81), NAT_PMP = Uint8Array.of(0, 0x81), SSDP = Uint8Array.of(0x48);

/** The counters of a mapper, of which some have grown. */
function stats(grown: readonly string[] = []): object {
  const one = (name: string) => grown.includes(name) ? 3 : 2;
  return {
    wrongSource: one("wrongSource"),
    paths: one("paths"),
    clients: {
      "192.0.2.1 pcp": {
        sent: { map: one("sent") },
        dropped: { "wrong-nonce": one("nonce"), "wrong-version": one("version") },
      },
      "192.0.2.1 nat-pmp": { dropped: { "too-short": one("short"), "unsolicited": one("stray") } },
      "192.0.2.1 upnp": { dropped: { "off-link": one("link"), "unsolicited": one("other") } },
    },
  };
}

describe("why a datagram was dropped", () => {
  const before = countDropped(stats());
  const reason = (grown: readonly string[], data: Uint8Array) =>
    reasonSince(before, stats(grown), data);

  it("is what its own protocol's client counted", () => {
    assertEquals(reason(["nonce", "short", "link"], PCP), "wrong nonce");
    assertEquals(reason(["nonce", "short", "link"], NAT_PMP), "too short");
    assertEquals(reason(["nonce", "short", "link"], SSDP), "off link");
    assertEquals(reason(["wrongSource"], PCP), "wrong source");
  });

  it("is what another one counted where its own has nothing to say", () => {
    assertEquals(reason(["link"], PCP), "off link");
    assertEquals(reason(["nonce", "version"], PCP), "wrong nonce");
    assertEquals(reason(["version"], PCP), "wrong version");
    assertEquals(reason(["stray", "other"], PCP), "unsolicited");
  });

  it("is no vague word where there is another one", () => {
    for (const vague of ["unsolicited", "unmatched", "wrong-version", "notAResponse"]) {
      const stats = { a: { dropped: { [vague]: 1, "bad-url": 1 } } };
      assertEquals(reasonSince(new Map(), stats, SSDP), "bad url", vague);
    }
  });

  it("is looked for as deep as counters lie, and no deeper", () => {
    const dropped = { deep: 1 };
    assertEquals(reasonSince(new Map(), { a: { b: { c: { dropped } } } }, SSDP), "deep");
    const deeper = { a: { b: { c: { d: { dropped } } } } };
    assertEquals(reasonSince(new Map(), deeper, SSDP), "not asked for");
  });

  it("is no counter of something else", () => {
    assertEquals(reason(["sent", "paths"], PCP), "not asked for");
    assertEquals(reasonSince(new Map(), {}, new Uint8Array(0)), "not asked for");
  });

  it("is also told by a client that has come since", () => {
    assertEquals(reasonSince(new Map(), { a: { dropped: { "bad-url": 1 } } }, SSDP), "bad url");
  });
});
