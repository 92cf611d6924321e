import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import type { HttpHeaders, HttpRequest } from "../../../core/machine.ts";
import {
  decodeEvent,
  decodeSubscribe,
  decodeSubscribed,
  encodeEvent,
  encodeResubscribe,
  encodeSubscribe,
  encodeSubscribed,
  encodeUnsubscribe,
  type GenaFault,
  genaStatus,
} from "../../../core/upnp/gena.ts";

const SID = "uuid:00000000-0000-0000-0000-00000000000a";
const CALLBACK = "http://192.168.1.100:4000/x";

function request(method: string, headers: HttpHeaders, body?: string): HttpRequest {
  return {
    method,
    path: "/evt",
    headers,
    ...(body !== undefined && { body: new TextEncoder().encode(body) }),
  };
}

describe("encodeSubscribe(), encodeResubscribe(), encodeUnsubscribe()", () => {
  it("write to the letter: an id or a callback, never both", () => {
    assertEquals(
      encodeSubscribe("/evt?x", CALLBACK, 300),
      {
        method: "SUBSCRIBE",
        path: "/evt?x",
        headers: [["CALLBACK", `<${CALLBACK}>`], ["NT", "upnp:event"], ["TIMEOUT", "Second-300"]],
      },
    );
    assertEquals(
      encodeResubscribe("/evt", SID),
      request("SUBSCRIBE", [["SID", SID], ["TIMEOUT", "Second-1800"]]),
    );
    assertEquals(encodeUnsubscribe("/evt", SID), request("UNSUBSCRIBE", [["SID", SID]]));
  });

  it("refuse fields of two lines, and a time that is none", () => {
    assertThrows(() => encodeSubscribe("/", "a\r\nb"), TypeError, "'callback'");
    assertThrows(() => encodeResubscribe("/", "a\nb"), TypeError, "'sid'");
    assertThrows(() => encodeUnsubscribe("/", "a\0b"), TypeError, "'sid'");
    assertThrows(() => encodeSubscribe("/", CALLBACK, 0), RangeError, "'timeoutSeconds'");
    assertThrows(() => encodeSubscribe("/", CALLBACK, 2 ** 31), RangeError, "'timeoutSeconds'");
  });
});

describe("decodeSubscribe()", () => {
  it("reads the three back", () => {
    assertEquals(decodeSubscribe(encodeSubscribe("/", CALLBACK, 300)), {
      kind: "subscribe",
      callbacks: [CALLBACK],
      timeoutSeconds: 300,
    });
    assertEquals(decodeSubscribe(encodeResubscribe("/", SID, 9)), {
      kind: "renew",
      sid: SID,
      timeoutSeconds: 9,
    });
    assertEquals(decodeSubscribe(encodeUnsubscribe("/", SID)), { kind: "unsubscribe", sid: SID });
  });

  it("reads several callbacks, four at most, and any time", () => {
    const subscribe = (callback: string, timeout?: string) =>
      decodeSubscribe(request("SUBSCRIBE", [
        ["callback", callback],
        ["nt", "upnp:event"],
        ...(timeout === undefined ? [] : [["timeout", timeout] as const]),
      ]));
    const wanted = (callbacks: readonly string[], timeoutSeconds: number | undefined) => ({
      kind: "subscribe",
      callbacks,
      timeoutSeconds,
    });

    assertEquals(subscribe("<a><> < b >", "second-5"), wanted(["a", "b"], 5));
    assertEquals(subscribe("<1><2><3><4><5>"), wanted(["1", "2", "3", "4"], 1800));
    assertEquals(subscribe("<a>", "Second-infinite"), wanted(["a"], undefined));
    for (const useless of ["infinite", "5", "Second-", "Second-x", "Second-99999999999"]) {
      assertEquals(subscribe("<a>", useless), wanted(["a"], 1800), useless);
    }
  });

  it("names what is wrong, which has a status of its own (UDA §4.1)", () => {
    const callback = ["CALLBACK", "<a>"] as const;
    const type = ["NT", "upnp:event"] as const;
    const sid = ["SID", SID] as const;
    const wrong: readonly (readonly [HttpRequest, GenaFault, number])[] = [
      [request("GET", [callback, type]), "not-gena", 405],
      [request("SUBSCRIBE", [callback, sid]), "both", 400],
      [request("SUBSCRIBE", [type, sid]), "both", 400],
      [request("UNSUBSCRIBE", [callback, sid]), "both", 400],
      [request("SUBSCRIBE", [type]), "precondition", 412],
      [request("SUBSCRIBE", [type, ["CALLBACK", "http://a/"]]), "precondition", 412],
      [request("SUBSCRIBE", [callback]), "precondition", 412],
      [request("SUBSCRIBE", [callback, ["NT", "other"]]), "precondition", 412],
      [request("UNSUBSCRIBE", []), "no-sid", 412],
      [request("UNSUBSCRIBE", [["SID", " "]]), "no-sid", 412],
    ];

    for (const [it, fault, status] of wrong) {
      assertEquals(decodeSubscribe(it), fault);
      assertEquals(genaStatus(fault), status);
    }
  });
});

describe("encodeSubscribed() and decodeSubscribed()", () => {
  it("are each other's reverse, for good too", () => {
    for (const timeoutSeconds of [1, 1800, undefined]) {
      const subscription = { sid: SID, timeoutSeconds };
      assertEquals(decodeSubscribed(encodeSubscribed(subscription)), subscription);
    }
  });

  it("name what is wrong", () => {
    const body = new Uint8Array(0);

    assertEquals(decodeSubscribed({ status: 412, headers: [["SID", SID]], body }), "not-gena");
    assertEquals(decodeSubscribed({ status: 200, headers: [], body }), "no-sid");
    assertEquals(decodeSubscribed({ status: 200, headers: [["sid", SID]], body }), {
      sid: SID,
      timeoutSeconds: 1800,
    });
  });
});

describe("encodeEvent() and decodeEvent()", () => {
  const event = {
    sid: SID,
    sequence: 0,
    properties: { ExternalIPAddress: "203.0.113.7", Name: "<&>" },
  };

  it("write to the letter", () => {
    const { method, path, headers, body } = encodeEvent("/x", event);

    assertEquals([method, path], ["NOTIFY", "/x"]);
    assertEquals(headers, [
      ["Content-Type", 'text/xml; charset="utf-8"'],
      ["NT", "upnp:event"],
      ["NTS", "upnp:propchange"],
      ["SID", SID],
      ["SEQ", "0"],
    ]);
    assertEquals(
      new TextDecoder().decode(body),
      '<?xml version="1.0"?><e:propertyset xmlns:e="urn:schemas-upnp-org:event-1-0"><e:property>' +
        "<ExternalIPAddress>203.0.113.7</ExternalIPAddress></e:property><e:property>" +
        "<Name>&lt;&amp;&gt;</Name></e:property></e:propertyset>",
    );
  });

  it("are each other's reverse", () => {
    assertEquals(decodeEvent(encodeEvent("/", event)), event);
    const last = { ...event, sequence: 0xffff_ffff, properties: {} };
    assertEquals(decodeEvent(encodeEvent("/", last)), last);
    assertThrows(() => encodeEvent("/", { ...event, sequence: 2 ** 32 }), RangeError, "'sequence'");
  });

  it("take several variables in one property", () => {
    const { headers } = encodeEvent("/", event);
    const body = "<propertyset><property><A>1</A><B>2</B></property><x><C>3</C></x></propertyset>";

    assertEquals(decodeEvent(request("NOTIFY", headers, body)), {
      ...event,
      properties: { A: "1", B: "2" },
    });
  });

  it("name what is wrong", () => {
    const { headers } = encodeEvent("/", event);
    const without = (name: string) => headers.filter(([key]) => key !== name);
    const set = "<propertyset/>";

    assertEquals(decodeEvent(request("POST", headers, set)), "not-gena");
    assertEquals(decodeEvent(request("NOTIFY", without("NT"), set)), "precondition");
    assertEquals(decodeEvent(request("NOTIFY", without("NTS"), set)), "precondition");
    assertEquals(decodeEvent(request("NOTIFY", without("SID"), set)), "no-sid");
    assertEquals(decodeEvent(request("NOTIFY", without("SEQ"), set)), "no-sid");
    assertEquals(
      decodeEvent(request("NOTIFY", [...without("SEQ"), ["SEQ", "4294967296"]], set)),
      "no-sid",
    );
    assertEquals(decodeEvent(request("NOTIFY", headers)), "not-xml");
    assertEquals(decodeEvent(request("NOTIFY", headers, `<a>${"x".repeat(65_536)}`)), "too-long");
  });
});
