import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import {
  decodeSsdp,
  deviceOf,
  encodeAdvert,
  encodeSearch,
  encodeSearchResponse,
  isGroup,
  SSDP_GROUP_V4,
  SSDP_GROUP_V6,
  SSDP_PORT,
} from "../../../core/upnp/ssdp.ts";

const text = (data: Uint8Array) => new TextDecoder().decode(data);
const bytes = (text: string) => new TextEncoder().encode(text);
const decode = (text: string) => decodeSsdp(bytes(text));

const GROUP = { address: SSDP_GROUP_V4, port: SSDP_PORT };
const IGD = "urn:schemas-upnp-org:device:InternetGatewayDevice:1";
const USN = `uuid:00000000-0000-0000-0000-000000000001::${IGD}`;
const LOCATION = "http://192.168.1.1:5000/rootDesc.xml";
const SERVER = "Debian UPnP/1.1 MiniUPnPd/2.3.1";

describe("encodeSearch()", () => {
  it("writes a search to the group to the letter (quirk 21)", () => {
    assertEquals(
      text(encodeSearch({ host: GROUP, target: IGD, mx: 2 })),
      "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n" +
        `MAN: "ssdp:discover"\r\nMX: 2\r\nST: ${IGD}\r\n\r\n`,
    );
  });

  it("writes no MX to a device, and IPv6 in brackets without the zone", () => {
    const host = { address: "fe80::1%eth0", port: 1900 };

    assertEquals(
      text(encodeSearch({ host, target: "ssdp:all" })),
      'M-SEARCH * HTTP/1.1\r\nHOST: [FE80::1]:1900\r\nMAN: "ssdp:discover"\r\nST: ssdp:all\r\n\r\n',
    );
  });

  it("refuses a target of two lines, and a delay that no device keeps to", () => {
    assertThrows(
      () => encodeSearch({ host: GROUP, target: "a\r\nMX: 9", mx: 1 }),
      TypeError,
      "'target' must be text without control characters",
    );
    for (const mx of [0, 6, 1.5]) {
      assertThrows(() => encodeSearch({ host: GROUP, target: IGD, mx }), RangeError, `${mx}`);
    }
  });
});

describe("encodeSearchResponse() and encodeAdvert()", () => {
  const advert = { target: IGD, usn: USN, location: LOCATION, server: SERVER };

  it("write what a device says of itself", () => {
    assertEquals(
      text(encodeSearchResponse({ ...advert, maxAgeSeconds: 120, bootId: 7, configId: 0 }, "now")),
      `HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nDATE: now\r\nEXT:\r\nLOCATION: ${LOCATION}\r\n` +
        `SERVER: ${SERVER}\r\nST: ${IGD}\r\nUSN: ${USN}\r\nBOOTID.UPNP.ORG: 7\r\n` +
        "CONFIGID.UPNP.ORG: 0\r\n\r\n",
    );
    assertEquals(
      text(encodeAdvert("alive", GROUP, advert)),
      "NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nCACHE-CONTROL: max-age=1800\r\n" +
        `LOCATION: ${LOCATION}\r\nNT: ${IGD}\r\nNTS: ssdp:alive\r\nSERVER: ${SERVER}\r\n` +
        `USN: ${USN}\r\n\r\n`,
    );
  });

  it("say of one that goes only which, and of an update what its number will be", () => {
    assertEquals(
      text(encodeAdvert("byebye", GROUP, { ...advert, bootId: 7 })),
      `NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nNT: ${IGD}\r\nNTS: ssdp:byebye\r\n` +
        `USN: ${USN}\r\nBOOTID.UPNP.ORG: 7\r\n\r\n`,
    );
    assertEquals(
      text(encodeAdvert("update", GROUP, { ...advert, bootId: 7, nextBootId: 8 })),
      `NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nLOCATION: ${LOCATION}\r\nNT: ${IGD}\r\n` +
        `NTS: ssdp:update\r\nUSN: ${USN}\r\nBOOTID.UPNP.ORG: 7\r\nNEXTBOOTID.UPNP.ORG: 8\r\n\r\n`,
    );
  });

  it("are read back", () => {
    const full = { ...advert, maxAgeSeconds: 5, bootId: 1, configId: 2, searchPort: 49_152 };

    assertEquals(decodeSsdp(encodeSearchResponse(full)), { kind: "response", ...full });
    assertEquals(decodeSsdp(encodeAdvert("alive", GROUP, full)), { kind: "alive", ...full });
    const { server: _, maxAgeSeconds: __, ...update } = { ...full, nextBootId: 2 };
    assertEquals(decodeSsdp(encodeAdvert("update", GROUP, update)), { kind: "update", ...update });
    const { location: ___, ...byebye } = { ...update, nextBootId: undefined };
    const { nextBootId: ____, ...gone } = byebye;
    assertEquals(decodeSsdp(encodeAdvert("byebye", GROUP, gone)), { kind: "byebye", ...gone });
  });

  it("refuse a URL of two lines", () => {
    assertThrows(() => encodeSearchResponse({ ...advert, location: "http://a/\nX: y" }), TypeError);
  });
});

describe("decodeSsdp()", () => {
  it("reads a search", () => {
    assertEquals(decodeSsdp(encodeSearch({ host: GROUP, target: IGD, mx: 5 })), {
      kind: "search",
      target: IGD,
      usn: "",
      mx: 5,
    });
  });

  it("reads sloppy answers: case, spaces, bare line feeds, no end, NULs behind it", () => {
    const wanted = { kind: "response", target: IGD, usn: USN, location: LOCATION } as const;
    const sloppy = [
      `HTTP/1.1 200 OK\nst:${IGD}\nusn:${USN}\nlocation:${LOCATION}`,
      `HTTP/1.0  200 \r\nSt :  ${IGD} \r\nUSN:${USN}\r\nLocation :${LOCATION}\t\r\n`,
      `\r\nhttp/1.1 200 Whatever\r\nST: ${IGD}\r\nUSN: ${USN}\r\nLOCATION: ${LOCATION}\r\n\r\n\0\0`,
      `HTTP/1.1 200 OK\r\nbroken line\r\n: x\r\nST: ${IGD}\r\nUSN: ${USN}\r\nLOCATION: ${LOCATION}\r\n`,
    ];

    for (const answer of sloppy) assertEquals(decode(answer), wanted, JSON.stringify(answer));
  });

  it("reads numbers as far as they are any", () => {
    const answer = (fields: string) => decode(`HTTP/1.1 200 OK\r\nST: x\r\n${fields}\r\n\r\n`);

    assertEquals(answer('CACHE-CONTROL: no-cache="Ext", max-age = 5000, x'), {
      kind: "response",
      target: "x",
      usn: "",
      maxAgeSeconds: 5000,
    });
    for (
      const useless of [
        "CACHE-CONTROL: max-age=",
        "CACHE-CONTROL: max-age=99999999999",
        "BOOTID.UPNP.ORG: -1",
        "BOOTID.UPNP.ORG: 1e3",
        "BOOTID.UPNP.ORG: 2147483648",
        "SEARCHPORT.UPNP.ORG: 65536",
        "LOCATION:",
        "MX: 2",
      ]
    ) {
      assertEquals(answer(useless), { kind: "response", target: "x", usn: "" }, useless);
    }
  });

  it("takes the first of fields that come twice", () => {
    const message = decode("HTTP/1.1 200 OK\r\nST: a\r\nst: b\r\nUSN: c\r\nUSN: d\r\n\r\n");

    assertEquals(message, { kind: "response", target: "a", usn: "c" });
  });

  it("names what is wrong", () => {
    const search = (man: string) => `M-SEARCH * HTTP/1.1\r\n${man}\r\nST: x\r\n\r\n`;
    const faults: Record<string, string> = {
      "": "not-ssdp",
      "\0\x02\0\0": "not-ssdp",
      "GET / HTTP/1.1\r\nST: x\r\n\r\n": "not-ssdp",
      "M-SEARCH /x HTTP/1.1\r\n": "not-ssdp",
      "HTTP/1.1 404 Not Found\r\nST: x\r\n": "status",
      "HTTP/1.1 2000 OK\r\nST: x\r\n": "not-ssdp",
      [search("MAN: ssdp:discover")]: "man",
      [search('MAN: "ssdp:other"')]: "man",
      [search("X: y")]: "man",
      'M-SEARCH * HTTP/1.1\r\nMAN: "ssdp:discover"\r\n\r\n': "no-target",
      "HTTP/1.1 200 OK\r\nNT: x\r\n": "no-target",
      "HTTP/1.1 200 OK\r\nST:\r\n": "no-target",
      "NOTIFY * HTTP/1.1\r\nNTS: ssdp:alive\r\nST: x\r\n": "no-target",
      "NOTIFY * HTTP/1.1\r\nNT: x\r\n": "nts",
      "NOTIFY * HTTP/1.1\r\nNT: x\r\nNTS: upnp:propchange\r\n": "nts",
      [`HTTP/1.1 200 OK\r\nST: x\r\n${"A: b\r\n".repeat(63)}`]: "too-long",
      [`HTTP/1.1 200 OK\r\nST: ${"x".repeat(8192)}\r\n`]: "too-long",
    };
    for (const [datagram, fault] of Object.entries(faults)) {
      assertEquals(decode(datagram), fault, datagram.slice(0, 60));
    }
  });
});

describe("deviceOf() and isGroup()", () => {
  it("tell a device by its UUID, whatever its case and the service", () => {
    assertEquals(deviceOf("uuid:ABC::upnp:rootdevice"), "uuid:abc");
    assertEquals(deviceOf("uuid:abc"), "uuid:abc");
    assertEquals(deviceOf(""), "");
  });

  it("tell a group from a device", () => {
    assertEquals(isGroup(GROUP), true);
    assertEquals(isGroup({ address: SSDP_GROUP_V6, port: 1900 }), true);
    assertEquals(isGroup({ address: "192.168.1.1", port: 1900 }), false);
  });
});
