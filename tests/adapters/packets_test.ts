import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { describePassing } from "../../adapters/cli/packet_log.ts";
import { describeDatagram, describeRequest, describeResponse } from "../../adapters/packets.ts";
import * as natPmp from "../../core/natpmp/codec.ts";
import * as pcp from "../../core/pcp/codec.ts";
import { seededRandom } from "../../core/random.ts";
import { encodeStun } from "../../core/stun/codec.ts";
import { encodeEvent } from "../../core/upnp/gena.ts";
import { encodeCall, encodeFault, encodeResult } from "../../core/upnp/soap.ts";
import { encodeSearch, encodeSearchResponse } from "../../core/upnp/ssdp.ts";

const SELF = { address: "192.168.1.5", port: 40000 };
const GATEWAY = { address: "192.168.1.1", port: 5351 };
const bytes = (text: string) => new TextEncoder().encode(text);
const nonce = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
const mapping = {
  kind: "map",
  lifetimeSeconds: 7200,
  nonce,
  protocol: 6,
  internalPort: 80,
  options: [],
} as const;
const service = "urn:schemas-upnp-org:service:WANIPConnection:1";
const transactionId = nonce;

/** Each kind of datagram, who sends it, and what it says. */
const DATAGRAMS: readonly (readonly [says: string, data: Uint8Array, from?: typeof SELF])[] = [
  ["nat-pmp address?", natPmp.encodeAddressRequest()],
  [
    "nat-pmp address 203.0.113.7 SUCCESS epoch 9",
    natPmp.encodeAddressResponse({
      resultCode: 0,
      externalAddress: "203.0.113.7",
      epochSeconds: 9,
    }),
    GATEWAY,
  ],
  [
    "nat-pmp map? udp 80→81 7200 s",
    natPmp.encodeMapRequest({
      protocol: "udp",
      internalPort: 80,
      suggestedExternalPort: 81,
      lifetimeSeconds: 7200,
    }),
  ],
  [
    "nat-pmp map udp 80→81 600 s SUCCESS epoch 9",
    natPmp.encodeMapResponse({
      protocol: "udp",
      resultCode: 0,
      epochSeconds: 9,
      internalPort: 80,
      externalPort: 81,
      lifetimeSeconds: 600,
    }),
    GATEWAY,
  ],
  [
    "nat-pmp UNSUPP_VERSION epoch 9",
    natPmp.encodeUnsupportedVersionResponse({ epochSeconds: 9 }),
    GATEWAY,
  ],
  [
    "pcp map? tcp 80→0.0.0.0:0 7200 s nonce 01020304",
    pcp.encodeRequest({
      ...mapping,
      clientAddress: SELF.address,
      suggestedPort: 0,
      suggestedAddress: "0.0.0.0",
    }),
  ],
  [
    "pcp map tcp 80→203.0.113.7:80 7200 s SUCCESS epoch 9 nonce 01020304",
    pcp.encodeResponse({
      ...mapping,
      resultCode: 0,
      epochSeconds: 9,
      externalPort: 80,
      externalAddress: "203.0.113.7",
    }),
    GATEWAY,
  ],
  ["pcp? too-short", Uint8Array.of(2, 0x81, 0), GATEWAY],
  [
    "ssdp search? ssdp:all",
    encodeSearch({ host: { address: "239.255.255.250", port: 1900 }, target: "ssdp:all", mx: 2 }),
  ],
  [
    "ssdp response upnp:rootdevice http://192.168.1.1/d.xml boot 3",
    encodeSearchResponse({
      target: "upnp:rootdevice",
      usn: "uuid:1::upnp:rootdevice",
      location: "http://192.168.1.1/d.xml",
      maxAgeSeconds: 1800,
      bootId: 3,
      configId: 1,
      server: "x",
    }),
  ],
  ["ssdp? man", bytes("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nST: ssdp:all\r\n\r\n")],
  ["stun binding? id 01020304", encodeStun({ class: "request", method: 1, transactionId })],
  [
    "stun binding success 203.0.113.7:5 id 01020304",
    encodeStun({
      class: "success",
      method: 1,
      transactionId,
      attributes: { xorMappedAddress: { address: "203.0.113.7", port: 5 } },
    }),
  ],
  ["stun method 255? id 01020304", encodeStun({ class: "request", method: 255, transactionId })],
  [
    "stun binding success 203.0.113.7:6 id 01020304",
    encodeStun({
      class: "success",
      method: 1,
      transactionId,
      attributes: { mappedAddress: { address: "203.0.113.7", port: 6 } },
    }),
  ],
  [
    "stun binding error 420 Unknown Attribute id 01020304",
    encodeStun({
      class: "error",
      method: 1,
      transactionId,
      attributes: { errorCode: { code: 420, reason: "Unknown Attribute" } },
    }),
  ],
];

describe("a packet in words", () => {
  for (const [says, data, from] of DATAGRAMS) {
    it(says, () => assertEquals(describeDatagram(data, (from ?? SELF).port), says));
  }

  it("is nothing where no protocol of ours speaks so", () => {
    // Of PCP and NAT-PMP the version alone is not enough.
    for (const version of [0, 2]) {
      assertEquals(describeDatagram(Uint8Array.of(version), SELF.port), undefined);
    }
    for (const text of ["", "x", "hello, world", "GET / HTTP/1.1\r\n\r\n"]) {
      assertEquals(describeDatagram(bytes(text), SELF.port), undefined);
    }
  });

  it("names the action that is called, and what came of it", () => {
    const call = encodeCall({ service, action: "GetX", args: { NewA: "1", NewB: "" } }, "/ctl");
    assertEquals(describeRequest(call), "upnp GetX? NewA 1, NewB -");
    assertEquals(
      describeRequest({ method: "GET", path: "/d.xml", headers: [] }),
      "http GET /d.xml",
    );
    const event = encodeEvent("/cb", { sid: "uuid:1", sequence: 0, properties: { A: "b" } });
    assertEquals(describeRequest(event), "gena event 0: A b");
    const done = encodeResult({ service, action: "GetX", args: { NewC: "3" } });
    assertEquals(describeResponse(done), "upnp done NewC 3");
    const fault = encodeFault(718, "ConflictInMappingEntry");
    assertEquals(describeResponse(fault), "upnp fault 718 ConflictInMappingEntry");
    const body = bytes("<root><device/></root>");
    assertEquals(describeResponse({ status: 200, headers: [], body }), "http 200 22 bytes");
    assertEquals(
      describeResponse({ status: 404, headers: [], body: new Uint8Array() }),
      "http 404 0 bytes",
    );
  });

  it("is one line without control characters, of bounded length, whatever was sent", () => {
    const random = seededRandom(7);
    const seeds = DATAGRAMS.map(([, data]) => data);
    for (let i = 0; i < 5000; i++) {
      const data = seeds[i % seeds.length]!.slice(0, 1 + random.u32() % 200);
      for (let n = random.u32() % 8; n > 0; n--) data[random.u32() % data.length] = random.u32();
      const line = describePassing({ type: "received", data, local: SELF, peer: GATEWAY });
      assert(!/[\p{Cc}]/u.test(line) && line.length <= 501, line);
    }
    const description = "\x1b[2J\x9b1m\u202e" + "x".repeat(2000);
    const result = { ok: true, ...encodeFault(718, description) } as const;
    const line = describePassing({ type: "answered", result, peer: GATEWAY });
    assert(!/[\p{Cc}\p{Cf}]/u.test(line) && line.length <= 501, line);
  });

  it("says which way it went, and why it went no further", () => {
    const data = natPmp.encodeAddressRequest();
    assertEquals(
      describePassing({ type: "sent", data, local: SELF, peer: GATEWAY }),
      "sent to 192.168.1.1:5351 from 192.168.1.5:40000: nat-pmp address?",
    );
    assertEquals(
      describePassing({
        type: "sent",
        data,
        local: undefined,
        peer: GATEWAY,
        dropped: "no socket",
      }),
      "sent to 192.168.1.1:5351: nat-pmp address? (not sent: no socket)",
    );
    assertEquals(
      describePassing({
        type: "received",
        data: bytes("zz"),
        local: SELF,
        peer: GATEWAY,
        dropped: "x",
      }),
      "received from 192.168.1.1:5351 at 192.168.1.5:40000: 2 bytes (dropped: x)",
    );
    assertEquals(
      describePassing({ type: "unreachable", peer: GATEWAY }),
      "received for 192.168.1.1:5351: icmp port unreachable",
    );
    assertEquals(
      describePassing({
        type: "answered",
        result: { ok: false, reason: "refused" },
        peer: GATEWAY,
      }),
      "received from 192.168.1.1:5351: no answer by http: refused",
    );
    assertEquals(describePassing({ type: "failed", message: "no route" }), "failed: no route");
  });
});
