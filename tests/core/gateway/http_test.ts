import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { UNDISTURBED } from "../../../core/gateway/egress.ts";
import {
  aboutOf,
  type HttpChange,
  HttpEgress,
  type HttpMatch,
  refuseCall,
  reshapeResponse,
} from "../../../core/gateway/http.ts";
import type { HttpRequest, HttpResponse } from "../../../core/machine.ts";
import { type RandomSource, seededRandom } from "../../../core/random.ts";
import { decodeResult, encodeCall } from "../../../core/upnp/soap.ts";

const CALL = encodeCall(
  { service: "urn:x:service:A:1", action: "Do", args: { B: "1" } },
  "/ctl/A1",
);
const GET: HttpRequest = { method: "GET", path: "/rootDesc.xml", headers: [] };

function answer(text: string, status = 200): HttpResponse {
  return { status, headers: [["Content-Type", "text/xml"]], body: new TextEncoder().encode(text) };
}

function bodyOf({ body }: HttpResponse): string {
  return new TextDecoder().decode(body);
}

function reshaped(text: string, ...then: HttpChange[]): HttpResponse {
  return reshapeResponse(GET, answer(text), [{ when: {}, then }]);
}

describe("reshapeResponse()", () => {
  it("gives the answer itself where no rule fits", () => {
    const response = answer("<a>");
    const rules = [{ when: { about: "control" }, then: [{ kind: "body", text: "" }] }] as const;
    assertEquals(reshapeResponse(GET, response, rules) === response, true);
  });

  it("replaces texts, spans, heads, ends and wholes", () => {
    assertEquals(bodyOf(reshaped("a b a", { kind: "replace", from: "a", to: "ä" })), "ä b ä");
    const span = { kind: "replace-span", from: "<", until: ">", to: "-" } as const;
    assertEquals(bodyOf(reshaped("x<a>y<b>", span)), "x-y<b>");
    assertEquals(bodyOf(reshaped("x<a", span)), "x<a");
    assertEquals(bodyOf(reshaped("x", span)), "x");
    assertEquals(bodyOf(reshaped("a", { kind: "prepend", text: "\n" })), "\na");
    assertEquals(bodyOf(reshaped("abc", { kind: "drop-end", bytes: 2 })), "a");
    assertEquals(bodyOf(reshaped("abc", { kind: "body", text: "d" })), "d");
    assertEquals(reshaped("a", { kind: "status", status: 404 }).status, 404);
    const order = [{ kind: "prepend", text: "a" }, {
      kind: "replace",
      from: "aa",
      to: "b",
    }] as const;
    assertEquals(bodyOf(reshaped("a", ...order)), "b");
  });

  it("cuts an answer off, the length of all told", () => {
    const cut = reshaped("abcdef", { kind: "cut", length: 2 });
    assertEquals([bodyOf(cut), cut.headers.at(-1)], ["ab", ["Content-Length", "6"]]);
  });

  it("changes a field, whatever its case, and leaves one out", () => {
    const other = reshaped("a", { kind: "header", name: "CONTENT-type", value: "text/html" });
    assertEquals(other.headers, [["CONTENT-type", "text/html"]]);
    assertEquals(reshaped("a", { kind: "header", name: "content-type" }).headers, []);
  });

  it("is for what was asked, by which action, and how it went", () => {
    const seen = (when: HttpMatch, request: HttpRequest, status = 200) =>
      bodyOf(
        reshapeResponse(request, answer("a", status), [{
          when,
          then: [{ kind: "body", text: "b" }],
        }]),
      ) === "b";
    assertEquals(
      [
        seen({ about: "description" }, GET),
        seen({ about: "control" }, GET),
        seen({ about: "control" }, CALL),
        seen({ actions: ["Do"] }, CALL),
        seen({ actions: ["Undo"] }, CALL),
        seen({ actions: ["Do"] }, GET),
        seen({ isError: true }, CALL),
        seen({ isError: true }, CALL, 500),
        seen({ isError: false }, CALL, 500),
        seen({ isError: true }, CALL, 299),
        seen({ isError: true }, CALL, 300),
      ],
      [true, false, true, true, false, false, false, true, false, false, true],
    );
  });

  it("knows what a path is about, also where it is a query", () => {
    const about = (path: string) => aboutOf({ ...GET, path });
    assertEquals(
      ["/ctl/A", "/x?ctl/A", "/evt/A", "/scpd/A", "/a/scpd/A", "/rootDesc.xml", "/ctl"].map(about),
      ["control", "control", "event", "scpd", "scpd", "description", "description"],
    );
  });
});

describe("refuseCall()", () => {
  it("takes a call that is as it should be, and what is no call", () => {
    const strictness = [
      { wants: "no-newlines", otherwise: { status: 400 } },
      { wants: "exact-content-type", otherwise: { status: 400 } },
    ] as const;
    assertEquals(refuseCall(CALL, strictness), undefined);
    assertEquals(refuseCall(GET, strictness), undefined);
    assertEquals(refuseCall(CALL, []), undefined);
  });

  it("answers with the first that is not met: a bare status, or a fault", () => {
    const call = { ...CALL, body: new TextEncoder().encode("\n") };
    const status = refuseCall(call, [{ wants: "no-newlines", otherwise: { status: 418 } }]);
    assertEquals([status?.status, status?.body.length], [418, 0]);
    const fault = refuseCall(call, [
      { wants: "exact-content-type", otherwise: { status: 415 } },
      { wants: "no-newlines", otherwise: { fault: 402 } },
    ]);
    assertEquals(decodeResult(fault!), { ok: false, code: 402, description: "InvalidArgs" });
  });
});

describe("HttpEgress", () => {
  function make(seed: number = 1) {
    const left: number[] = [];
    const egress = new HttpEgress(seededRandom(seed), (id) => left.push(id));
    return { egress, left };
  }

  it("lets answers leave at once, or as late as they are to be", () => {
    const left: number[] = [];
    // What is not disturbed draws nothing: the same seed goes on as it would without.
    const none = { u32: () => assert(false) } as unknown as RandomSource;
    const egress = new HttpEgress(none, (id) => left.push(id));
    egress.send(1, answer(""), UNDISTURBED, 0, 100);
    egress.send(2, answer(""), { ...UNDISTURBED, delayMs: 50 }, 10, 100);
    assertEquals([left, egress.waiting, egress.nextAt(), egress.next()?.reason], [
      [1],
      1,
      160,
      "send a delayed answer",
    ]);
    egress.handleTimeout(159);
    assertEquals(left, [1]);
    egress.handleTimeout(160);
    assertEquals([left, egress.waiting, egress.nextAt()], [[1, 2], 0, undefined]);
    assertEquals(egress.stats, { sent: 2, lost: 0, overflowed: 0 });
  });

  it("spreads them where they are to overtake each other", () => {
    const { egress } = make();
    const at = [1, 2, 3, 4, 5, 6, 7, 8].map((id) => {
      const { egress: own } = make(id);
      own.send(id, answer(""), { ...UNDISTURBED, reorderMs: 1000 }, 0, 0);
      return own.nextAt()!;
    });
    assert(at.every((ms) => ms > 0 && ms < 1000) && new Set(at).size === 8);
    assertEquals(egress.waiting, 0);
  });

  it("makes a loss late: a second, then two more, and so on; after six there is no answer", () => {
    const { egress, left } = make();
    for (let id = 1; id <= 1000; id++) {
      egress.send(id, answer(""), { ...UNDISTURBED, lossRate: 0.5 }, 0, 0);
      if (id % 100 === 0) { while (egress.waiting > 0) egress.handleTimeout(egress.nextAt()!); }
    }
    const { sent, lost } = egress.stats;
    assertEquals([sent + lost, left.length], [1000, sent]);
    assert(lost > 2 && lost < 40, `${lost}`);
    const all = make().egress;
    all.send(1, answer(""), { ...UNDISTURBED, lossRate: 1 }, 0, 0);
    assertEquals([all.stats.lost, all.waiting], [1, 0]);
    const delays = new Set<number>();
    for (let seed = 1; seed < 200; seed++) {
      const { egress: own } = make(seed);
      own.send(1, answer(""), { ...UNDISTURBED, lossRate: 0.5 }, 0, 0);
      delays.add(own.nextAt() ?? 0);
    }
    assertEquals([...delays].sort((a, b) => a - b), [0, 1000, 3000, 7000, 15_000, 31_000]);
  });

  it("is bounded, and forgets all at once", () => {
    const { egress, left } = make();
    for (let id = 0; id < 300; id++) {
      egress.send(id, answer(""), { ...UNDISTURBED, delayMs: 1 }, 0, 0);
    }
    assertEquals([egress.waiting, egress.stats.overflowed], [256, 44]);
    egress.clear();
    egress.handleTimeout(1000);
    assertEquals([egress.waiting, egress.nextAt(), left], [0, undefined, []]);
  });
});
