import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import type { Endpoint, SendAction } from "../../../core/machine.ts";
import {
  type DeviceEvent,
  DeviceSearch,
  type DeviceSearchOptions,
  IGD_TARGETS,
  type LocalAddress,
  searchPlaces,
} from "../../../core/upnp/search.ts";
import {
  decodeSsdp,
  encodeAdvert,
  encodeSearch,
  encodeSearchResponse,
  type SsdpAdvert,
} from "../../../core/upnp/ssdp.ts";
import { drain, timed } from "../machine_case.ts";

const HOST = "192.168.1.100";
const GATEWAY: Endpoint = { address: "192.168.1.1", port: 1900 };
const GROUP: Endpoint = { address: "239.255.255.250", port: 1900 };
const PLACE = { local: HOST, networks: ["192.168.1.0/24"], gateway: GATEWAY.address };
const KEY = `search ${HOST}`;
const ADVERTS = `adverts ${HOST}`;
const LOCATION = "http://192.168.1.1:5000/desc.xml";
const IGD = IGD_TARGETS[0]!;

const advertOf = (rest: Partial<SsdpAdvert> = {}): SsdpAdvert => ({
  target: IGD,
  usn: `uuid:1::${IGD}`,
  location: LOCATION,
  ...rest,
});
const response = (rest?: Partial<SsdpAdvert>) => encodeSearchResponse(advertOf(rest));
const alive = (rest?: Partial<SsdpAdvert>) => encodeAdvert("alive", GROUP, advertOf(rest));
const byebye = (rest?: Partial<SsdpAdvert>) => encodeAdvert("byebye", GROUP, advertOf(rest));

/** A search with its sockets open. */
function open(options: Partial<DeviceSearchOptions> = {}): DeviceSearch {
  const search = timed(new DeviceSearch({ places: [PLACE], ...options }));
  for (const { key, local } of search.sockets()) {
    search.handleSocket(key, { ok: true, local: { address: local!.address, port: 4000 } }, 0);
  }
  return search;
}

function events(search: DeviceSearch): DeviceEvent[] {
  return drain(search).flatMap((action) =>
    action.type === "event" ? [action.event as DeviceEvent] : []
  );
}

/** What events tell, in a word and the device's URL. */
const told = (search: DeviceSearch): string[] =>
  events(search).map((event) =>
    "device" in event ? `${event.type} ${event.device.location}` : event.type
  );

/** What was sent: when, by which socket, where to, for what, with what delay. */
function sent(search: DeviceSearch, until: number, from: number = 0): string[] {
  const lines: string[] = [];
  let now = from;
  for (;;) {
    for (const action of drain(search)) {
      if (action.type === "send") lines.push(`${now} ${line(action)}`);
    }
    const next = search.nextTimeout();
    if (next === undefined || next > until) return lines;
    now = next;
    search.handleTimeout(now);
  }
}

function line({ to, data }: SendAction): string {
  const message = decodeSsdp(data);
  if (typeof message === "string") throw new Error(message);
  return `${to.address}:${to.port} ${message.target} ${message.mx}`;
}

describe("DeviceSearch", () => {
  it("asks the gateway first, then the group, one target after the other, three times", () => {
    const search = open({ targets: ["a", "b"] });
    search.search(0);

    const twice = (at: number, target: string) => [
      `${at} 192.168.1.1:1900 ${target} undefined`,
      `${at} 239.255.255.250:1900 ${target} 1`,
    ];
    assertEquals(sent(search, 10_000), [
      ...twice(0, "a"),
      ...twice(50, "b"),
      ...twice(500, "a"),
      ...twice(550, "b"),
      ...twice(2000, "a"),
      ...twice(2050, "b"),
    ]);
    assertEquals(search.stats.sent, 12);
  });

  it("searches for what finds any gateway (quirks 20, 24)", () => {
    const search = open();
    search.search(0);

    const targets = sent(search, 499).filter((text) => text.includes("239.")).map((text) =>
      text.split(" ")[2]
    );
    assertEquals(targets, [
      "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
      "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
      "urn:schemas-upnp-org:service:WANIPConnection:1",
      "urn:schemas-upnp-org:service:WANPPPConnection:1",
      "upnp:rootdevice",
    ]);
  });

  it("ends when the last answer may have come, and a second later", () => {
    const search = open({ targets: ["a"], mx: 2 });
    search.search(100);
    sent(search, 2100, 100);

    assertEquals(search.nextTimeout(), 100 + 2000 + 2000 + 1000);
    search.handleTimeout(5099);
    assertEquals([search.isSearching, told(search)], [true, []]);
    search.handleTimeout(5100);
    assertEquals(search.isSearching, false);
    assertEquals(events(search), [{ type: "searched", found: 0, failures: [] }]);
    assertEquals(search.nextTimeout(), undefined);
  });

  it("ends after the time that it was given", () => {
    const search = open({ targets: ["a"], durationMs: 300 });
    search.search(0);

    assertEquals(sent(search, 10_000).length, 2);
    assertEquals([search.isSearching, search.nextTimeout()], [false, undefined]);
  });

  it("is ended early, and hears announcements on", () => {
    const search = open();
    search.search(0);
    drain(search);

    search.endSearch(10);
    assertEquals(told(search), ["searched"]);
    search.endSearch(11);
    assertEquals(told(search), []);
    assertEquals(search.nextTimeout(), undefined);
    search.handleDatagram(alive(), GATEWAY, ADVERTS, 20);
    assertEquals(told(search), [`found ${LOCATION}`]);
  });

  it("starts over when it is asked again, and tells no device twice", () => {
    const search = open({ targets: ["a"] });
    search.search(0);
    drain(search);
    search.handleDatagram(response(), GATEWAY, KEY, 5);
    assertEquals(told(search), [`found ${LOCATION}`]);

    search.search(300);
    search.handleDatagram(response(), GATEWAY, KEY, 310);
    assertEquals(sent(search, 2400, 300).map((text) => text.split(" ")[0]), [
      ...["300", "300"],
      ...["800", "800"],
      ...["2300", "2300"],
    ]);
    search.handleTimeout(300 + 4000);
    assertEquals(events(search), [{ type: "searched", found: 1, failures: [] }]);
    assertEquals(search.devices.length, 1);
  });

  it("tells where a device is to be found, and what it said", () => {
    const search = open();
    search.search(0);
    drain(search);
    search.handleDatagram(
      response({ usn: "uuid:ABC::x", server: "s", bootId: 7 }),
      { address: "192.168.1.1", port: 40_000 },
      KEY,
      5,
    );

    const device = {
      location: LOCATION,
      to: { address: "192.168.1.1", port: 5000 },
      path: "/desc.xml",
      from: { address: "192.168.1.1", port: 40_000 },
      local: HOST,
      udn: "uuid:abc",
      target: IGD,
      server: "s",
      bootId: 7,
    };
    assertEquals(events(search), [{ type: "found", device }]);
    assertEquals(search.devices, [device]);
  });

  it("waits for its socket, and goes by each socket's own time", () => {
    const other = { local: "10.0.0.2" };
    const search = new DeviceSearch({ places: [PLACE, other], targets: ["a"] });
    search.search(0);
    assertEquals(sent(search, 99), []);

    search.handleSocket(KEY, { ok: true, local: { address: HOST, port: 1 } }, 100);
    search.handleSocket(
      "search 10.0.0.2",
      { ok: true, local: { address: "10.0.0.2", port: 1 } },
      200,
    );
    assertEquals(sent(search, 699, 200), [
      "200 192.168.1.1:1900 a undefined",
      "200 239.255.255.250:1900 a 1",
      "200 239.255.255.250:1900 a 1",
      "600 192.168.1.1:1900 a undefined",
      "600 239.255.255.250:1900 a 1",
    ]);
  });

  it("lists a socket to search by for each place, and one for announcements in the group", () => {
    const search = new DeviceSearch({
      places: [PLACE, { local: "fe80::5%eth1" }, { local: "2001:db8::5" }],
      port: 1901,
    });

    assertEquals(search.sockets(), [
      { key: KEY, local: { address: HOST, port: 0 } },
      {
        key: ADVERTS,
        local: { address: "239.255.255.250", port: 1901 },
        group: "239.255.255.250",
        interface: HOST,
        reuse: true,
      },
      { key: "search fe80::5%eth1", local: { address: "fe80::5%eth1", port: 0 } },
      {
        key: "adverts fe80::5%eth1",
        local: { address: "ff02::c", port: 1901 },
        group: "ff02::c",
        interface: "eth1",
        reuse: true,
      },
      { key: "search 2001:db8::5", local: { address: "2001:db8::5", port: 0 } },
    ]);
    assertEquals(search.sockets(), search.sockets());
    const deaf = new DeviceSearch({ places: [PLACE], listen: false });
    assertEquals(deaf.sockets().map(({ key }) => key), [KEY]);
  });

  it("searches on IPv6 in the group of the link", () => {
    const search = new DeviceSearch({ places: [{ local: "fe80::5%eth1" }], targets: ["a"] });
    search.search(0);
    const local = { address: "fe80::5%eth1", port: 1 };
    search.handleSocket("search fe80::5%eth1", { ok: true, local }, 0);
    assertEquals(sent(search, 0), ["0 ff02::c%eth1:1900 a 1"]);

    const location = "http://[fe80::1]:5000/d";
    const from = { address: "fe80::1%eth1", port: 1900 };
    search.handleDatagram(response({ location }), from, "search fe80::5%eth1", 1);
    assertEquals(search.devices[0]?.to, { address: "fe80::1%eth1", port: 5000 });
  });

  it("drops what comes from outside of the network, or leads there", () => {
    const search = open();
    const from = (address: string) => ({ address, port: 1900 });
    const take = (location: string, address: string) =>
      search.handleDatagram(response({ location, usn: `uuid:${location}` }), from(address), KEY, 0);

    assertEquals(take("http://203.0.113.9/d", "203.0.113.9"), true);
    assertEquals(take("http://10.0.0.9/d", "10.0.0.9"), true);
    assertEquals([search.stats.foreign, search.stats.received], [2, 0]);
    take("http://203.0.113.9/d", GATEWAY.address);
    take("http://router.local/d", GATEWAY.address);
    take("https://192.168.1.1/d", GATEWAY.address);
    take("http://127.0.0.1/d", GATEWAY.address);
    assertEquals([search.stats.badUrl, search.stats.received], [4, 4]);
    assertEquals(drain(search), []);
    // Another address of the same network: gateways that share one answer from their own (quirk 19).
    take("http://192.168.1.2/d", GATEWAY.address);
    assertEquals(told(search), ["found http://192.168.1.2/d"]);
  });

  it("takes for local what is private where nobody says which network it is", () => {
    const search = open({ places: [{ local: HOST }], listen: false });
    const take = (address: string) => {
      const location = `http://${address.includes(":") ? `[${address}]` : address}/d`;
      search.handleDatagram(response({ location, usn: address }), { address, port: 1900 }, KEY, 0);
      return drain(search).length === 1;
    };

    const near = ["10.0.0.9", "172.16.0.1", "169.254.1.1"];
    const far = ["8.8.8.8", "127.0.0.1", "224.0.0.1", "2001:db8::1", "fd00::1"];
    assertEquals([near.filter(take), far.filter(take)], [near, []]);
  });

  it("hears a gateway whose address is no private one, itself, and who is next to it", () => {
    const places = [{ local: "11.0.0.5", gateway: "11.9.0.1" }];
    const search = open({ places, listen: false });
    const take = (address: string) => {
      const location = `http://${address}/d`;
      const data = response({ location, usn: address });
      search.handleDatagram(data, { address, port: 1900 }, "search 11.0.0.5", 0);
      return drain(search).length === 1;
    };

    const near = ["11.9.0.1", "11.0.0.5", "11.0.0.9"];
    const far = ["11.0.1.5", "11.9.0.2"];
    assertEquals([near.filter(take), far.filter(take)], [near, []]);
  });

  it("takes an answer for whatever target, but announcements of what it searches only", () => {
    const search = open({ targets: [IGD] });
    const other = { target: "urn:x:device:TV:1", usn: "uuid:tv" };

    search.handleDatagram(alive(other), GATEWAY, ADVERTS, 0);
    assertEquals([told(search), search.stats.unwanted], [[], 1]);
    search.handleDatagram(response(other), GATEWAY, KEY, 0);
    assertEquals(told(search), [`found ${LOCATION}`]);
    const all = open({ targets: ["ssdp:all"] });
    all.handleDatagram(alive(other), GATEWAY, ADVERTS, 0);
    assertEquals(told(all), [`found ${LOCATION}`]);
  });

  it("lets searches of others be, and counts what is broken", () => {
    const search = open();

    assertEquals(
      search.handleDatagram(encodeSearch({ host: GROUP, target: "a", mx: 1 }), GATEWAY, ADVERTS, 0),
      true,
    );
    assertEquals(search.handleDatagram(new Uint8Array(9), GATEWAY, KEY, 0), false);
    assertEquals(search.handleDatagram(response(), GATEWAY, "client", 0), false);
    search.handleDatagram(response({ location: "" }), GATEWAY, KEY, 0);
    search.handleUnreachable(GATEWAY, KEY, 0);
    const { searches, malformed, foreign, badUrl, unreachable } = search.stats;
    assertEquals([searches, malformed, foreign, badUrl, unreachable], [1, 1, 1, 1, 1]);
    assertEquals(drain(search), []);
  });

  it("tells a device that started anew by its boot number, and one that goes", () => {
    const search = open();
    search.handleDatagram(response({ bootId: 5 }), GATEWAY, KEY, 0);
    search.handleDatagram(alive({ bootId: 5 }), GATEWAY, ADVERTS, 1);
    assertEquals(told(search), [`found ${LOCATION}`]);

    search.handleDatagram(alive({ bootId: 9 }), GATEWAY, ADVERTS, 2);
    search.handleDatagram(alive({ bootId: 9 }), GATEWAY, ADVERTS, 3);
    search.handleDatagram(alive(), GATEWAY, ADVERTS, 3);
    assertEquals(told(search), [`rebooted ${LOCATION}`]);
    assertEquals(search.devices[0]?.bootId, 9);
    search.handleDatagram(response({ bootId: 2 }), GATEWAY, KEY, 4);
    assertEquals(told(search), [`rebooted ${LOCATION}`]);

    search.handleDatagram(byebye({ usn: "uuid:1::upnp:rootdevice" }), GATEWAY, ADVERTS, 5);
    search.handleDatagram(byebye(), GATEWAY, ADVERTS, 6);
    assertEquals(told(search), [`gone ${LOCATION}`]);
    assertEquals(search.devices, []);
    search.handleDatagram(alive({ bootId: 10 }), GATEWAY, ADVERTS, 7);
    assertEquals(told(search), [`found ${LOCATION}`]);
  });

  it("knows a device by the devices in it too, 16 at most", () => {
    const search = open();
    for (let i = 0; i < 20; i++) {
      search.handleDatagram(response({ usn: `uuid:${i}::x` }), GATEWAY, KEY, 0);
    }
    assertEquals(told(search), [`found ${LOCATION}`]);

    search.handleDatagram(byebye({ usn: "uuid:16" }), GATEWAY, ADVERTS, 1);
    assertEquals(told(search), []);
    search.handleDatagram(byebye({ usn: "uuid:15" }), GATEWAY, ADVERTS, 1);
    assertEquals(told(search), [`gone ${LOCATION}`]);
  });

  it("takes a boot number that was announced for no start (ssdp:update)", () => {
    for (const withUrl of [true, false]) {
      const search = open();
      search.handleDatagram(alive({ bootId: 5 }), GATEWAY, ADVERTS, 0);
      drain(search);
      const { location: _, ...bare } = advertOf({ bootId: 5, nextBootId: 6 });
      const update = withUrl ? { ...bare, location: LOCATION } : bare;
      search.handleDatagram(encodeAdvert("update", GROUP, update), GATEWAY, ADVERTS, 1);
      search.handleDatagram(alive({ bootId: 6 }), GATEWAY, ADVERTS, 2);
      assertEquals(told(search), []);
      search.handleDatagram(alive({ bootId: 7 }), GATEWAY, ADVERTS, 3);
      assertEquals(told(search), [`rebooted ${LOCATION}`]);
      search.handleDatagram(alive({ bootId: 6 }), GATEWAY, ADVERTS, 4);
      assertEquals(told(search), [`rebooted ${LOCATION}`]);
    }
    const search = open();
    search.handleDatagram(encodeAdvert("update", GROUP, advertOf()), GATEWAY, ADVERTS, 0);
    assertEquals(told(search), []);
  });

  it("takes the first boot number that it hears for no start", () => {
    const search = open();
    search.handleDatagram(response(), GATEWAY, KEY, 0);
    drain(search);
    search.handleDatagram(alive({ bootId: 1 }), GATEWAY, ADVERTS, 1);
    assertEquals(told(search), []);
  });

  it("tells a device that comes back at another URL, and that it is gone from the old one", () => {
    const search = open();
    search.handleDatagram(response(), GATEWAY, KEY, 0);
    drain(search);
    const moved = "http://192.168.1.1:6000/desc.xml";

    search.handleDatagram(alive({ location: moved }), GATEWAY, ADVERTS, 1);
    assertEquals(told(search), [`gone ${LOCATION}`, `found ${moved}`]);
    // There are devices with two descriptions, which take turns.
    search.handleDatagram(response(), GATEWAY, KEY, 2);
    assertEquals(told(search), [`found ${LOCATION}`]);
    assertEquals(search.devices.length, 2);
  });

  it("lets nobody else speak for a device", () => {
    const search = open();
    const other = { address: "192.168.1.66", port: 1900 };
    search.handleDatagram(response({ bootId: 1 }), GATEWAY, KEY, 0);
    drain(search);

    search.handleDatagram(alive({ bootId: 2 }), other, ADVERTS, 1);
    search.handleDatagram(byebye(), other, ADVERTS, 2);
    assertEquals([told(search), search.stats.foreign], [[], 1]);
    search.handleDatagram(byebye({ usn: "" }), GATEWAY, ADVERTS, 3);
    assertEquals(told(search), []);
  });

  it("lets a device speak for itself though another named it first", () => {
    const search = open();
    const other = { address: "192.168.1.66", port: 1900 };
    search.handleDatagram(response({ bootId: 1 }), other, KEY, 0);
    assertEquals(events(search).length, 1);

    search.handleDatagram(response({ bootId: 2 }), GATEWAY, KEY, 1);
    assertEquals(told(search), [`rebooted ${LOCATION}`]);
    search.handleDatagram(byebye(), other, ADVERTS, 2);
    assertEquals([told(search), search.devices[0]?.from], [[], GATEWAY]);
  });

  it("stays bounded under a thousand answers, and keeps a place for the gateway", () => {
    const search = open();
    const flood = (address: string, count: number) => {
      for (let i = 0; i < count; i++) {
        const data = response({ location: `http://${address}/${i}`, usn: `uuid:${address}-${i}` });
        search.handleDatagram(data, { address, port: 1900 }, KEY, 0);
      }
    };

    flood("192.168.1.66", 1000);
    assertEquals([search.devices.length, search.stats.overLimit], [8, 992]);
    for (let i = 2; i < 60; i++) flood(`192.168.1.${i}`, 20);
    assertEquals(search.devices.length, 64);
    flood(GATEWAY.address, 20);
    assertEquals(search.devices.length, 72);
    assertEquals(drain(search).length, 72);
  });

  it("lets who is silent make room: past its time, or where it does not answer a search", () => {
    const search = open();
    const locations = Array.from({ length: 9 }, (_, i) => `http://192.168.1.66/${i}`);
    const from = { address: "192.168.1.66", port: 1900 };
    const hear = (i: number, now: number, maxAgeSeconds = 100) => {
      const fields = { location: locations[i]!, usn: `uuid:${i}`, maxAgeSeconds };
      search.handleDatagram(response(fields), from, KEY, now);
      return told(search);
    };
    for (let i = 0; i < 8; i++) {
      assertEquals(hear(i, 0, i === 3 ? 50 : 100), [`found ${locations[i]}`]);
    }

    assertEquals(hear(8, 49_999), []);
    assertEquals(hear(8, 50_000), [`gone ${locations[3]}`, `found ${locations[8]}`]);
    assertEquals(hear(3, 50_001), []);
    search.search(50_002);
    told(search);
    for (const i of [0, 1, 4, 5, 6, 7, 8]) assertEquals(hear(i, 50_003), []);
    assertEquals(hear(3, 50_004), [`gone ${locations[2]}`, `found ${locations[3]}`]);
    assertEquals(hear(2, 50_005), []);
  });

  it("lets who is silent make room for another host, too", () => {
    const search = open();
    const hear = (host: number, i: number) => {
      const address = `192.168.1.${host}`;
      const fields = { location: `http://${address}/${i}`, usn: `uuid:${address}-${i}` };
      search.handleDatagram(response(fields), { address, port: 1900 }, KEY, 0);
    };
    for (let host = 10; host < 18; host++) for (let i = 0; i < 8; i++) hear(host, i);
    hear(20, 0);
    assertEquals([search.devices.length, search.stats.overLimit], [64, 1]);

    search.search(0);
    hear(20, 0);
    assertEquals(search.devices.length, 64);
    assertEquals(search.devices.at(-1)?.location, "http://192.168.1.20/0");
    assertEquals(search.devices[0]?.location, "http://192.168.1.10/1");
  });

  it("stays bounded by who comes and goes while nobody drains it", () => {
    const search = open();
    for (let i = 0; i < 5000; i++) {
      const fields = { location: `http://192.168.1.1/${i}`, usn: `uuid:${i}` };
      search.handleDatagram(response(fields), GATEWAY, KEY, i);
      search.handleDatagram(byebye(fields), GATEWAY, ADVERTS, i);
    }
    assertEquals(drain(search), []);
    search.handleDatagram(response(), GATEWAY, KEY, 5000);
    assertEquals(told(search), [`found ${LOCATION}`]);
  });

  it("makes one event of two that nobody has heard", () => {
    const search = open();
    search.handleDatagram(response({ bootId: 1 }), GATEWAY, KEY, 0);
    search.handleDatagram(response({ bootId: 2 }), GATEWAY, KEY, 1);
    const [event] = events(search);
    assert(event?.type === "found" && event.device.bootId === 2);

    search.handleDatagram(byebye(), GATEWAY, ADVERTS, 2);
    search.handleDatagram(response({ bootId: 3 }), GATEWAY, KEY, 3);
    assertEquals(told(search), [`rebooted ${LOCATION}`]);
    search.handleDatagram(alive({ bootId: 4 }), GATEWAY, ADVERTS, 4);
    search.handleDatagram(byebye(), GATEWAY, ADVERTS, 5);
    assertEquals(told(search), [`gone ${LOCATION}`]);
  });

  it("tells at its end what this host did not let it do, and ends at once without a socket", () => {
    const search = new DeviceSearch({ places: [PLACE, { local: "10.0.0.2" }] });
    const failure = { code: "permission", message: "Cannot bind" } as const;
    search.search(0);
    search.handleSocket(ADVERTS, { ok: false, isOpen: false, ...failure }, 1);
    search.handleSocket(KEY, { ok: false, isOpen: false, ...failure }, 2);
    assertEquals(told(search), []);

    const network = { code: "network", message: "no route" } as const;
    search.handleSocket("search 10.0.0.2", { ok: false, isOpen: false, ...network }, 3);
    assertEquals(events(search), [{
      type: "searched",
      found: 0,
      failures: [{ local: HOST, ...failure }, { local: "10.0.0.2", ...network }],
    }]);
    search.search(10);
    assertEquals(told(search), ["searched"]);
  });

  it("remembers what failed where places come and go", () => {
    const search = new DeviceSearch({ places: [PLACE] });
    const failure = { code: "network", message: "no" } as const;
    search.setPlaces([PLACE, { local: "10.0.0.2" }], 0);
    search.search(0);
    search.handleSocket(KEY, { ok: false, isOpen: false, ...failure }, 1);
    search.setPlaces([PLACE, { local: "10.0.0.3" }], 2);
    assertEquals(told(search), []);
    search.handleSocket("search 10.0.0.3", { ok: false, isOpen: false, ...failure }, 3);

    const failures = [{ local: HOST, ...failure }, { local: "10.0.0.3", ...failure }];
    assertEquals(events(search), [{ type: "searched", found: 0, failures }]);
  });

  it("goes on where a datagram did not leave, and tells so at the end", () => {
    const search = open({ targets: ["a"] });
    search.search(0);
    const failure = { code: "network", message: "Network is unreachable" } as const;
    search.handleSocket(KEY, { ok: false, isOpen: true, ...failure }, 1);
    assertEquals(sent(search, 600).length, 4);
    search.handleTimeout(4000);
    assertEquals(events(search), [{
      type: "searched",
      found: 0,
      failures: [{ local: HOST, ...failure }],
    }]);
  });

  it("ends at once where there is no place", () => {
    const search = new DeviceSearch({ places: [] });
    search.search(0);
    assertEquals(events(search), [{ type: "searched", found: 0, failures: [] }]);
  });

  it("goes on at other places, and forgets what was at the old ones", () => {
    const search = open({ targets: ["a"] });
    search.search(0);
    search.handleDatagram(response(), GATEWAY, KEY, 1);
    drain(search);

    const before = search.sockets();
    search.setPlaces([PLACE, { local: "10.0.0.2" }], 10);
    assertEquals(search.sockets().slice(0, 2), before);
    assertEquals([drain(search), search.devices.length], [[], 1]);
    search.handleSocket(
      "search 10.0.0.2",
      { ok: true, local: { address: "10.0.0.2", port: 1 } },
      20,
    );
    assertEquals(sent(search, 520, 20), [
      "20 239.255.255.250:1900 a 1",
      "500 192.168.1.1:1900 a undefined",
      "500 239.255.255.250:1900 a 1",
      "520 239.255.255.250:1900 a 1",
    ]);
    search.setPlaces([{ local: "10.0.0.2" }], 530);
    assertEquals([told(search), search.devices], [[`gone ${LOCATION}`], []]);
    assertEquals(sent(search, 2100, 530), ["2020 239.255.255.250:1900 a 1"]);
    search.handleTimeout(4000);
    assertEquals(told(search), ["searched"]);
  });

  it("asks a gateway that is another one now", () => {
    const search = open({ targets: ["a"] });
    search.search(0);
    sent(search, 10);
    search.setPlaces([{ ...PLACE, gateway: "192.168.1.254" }], 20);

    assertEquals(sent(search, 30, 20), [
      "20 192.168.1.254:1900 a undefined",
      "20 239.255.255.250:1900 a 1",
    ]);
  });

  it("lists nothing once closed, and does nothing", () => {
    const search = open();
    search.search(0);
    drain(search);
    search.close(1);
    search.search(2);
    search.setPlaces([PLACE], 3);
    search.handleDatagram(response(), GATEWAY, KEY, 4);

    assertEquals([search.sockets(), drain(search), search.nextTimeout()], [[], [], undefined]);
  });

  it("asks to be drained at the last time that it was told anything (rule 3)", () => {
    const search = open({ targets: ["a"] });
    search.search(0);
    const calls: ((now: number) => unknown)[] = [
      (now) => search.handleUnreachable(GATEWAY, KEY, now),
      (now) => search.handleDatagram(new Uint8Array(0), GATEWAY, KEY, now),
      (now) => search.handleSocket("other", { ok: true, local: GATEWAY }, now),
      (now) => search.handleTimeout(now),
      (now) => search.setPlaces([PLACE], now),
      (now) => search.endSearch(now),
      (now) => search.search(now),
      (now) => search.close(now),
    ];
    for (const [i, call] of calls.entries()) {
      call(10 + i);
      assertEquals(search.nextTimeout(), 10 + i);
    }
  });

  it("sends no burst after sleep", () => {
    const search = open({ durationMs: 600_000 });
    search.search(0);
    drain(search);
    search.handleTimeout(100_000);
    assertEquals(drain(search).length, 2);
    assertEquals(search.nextTimeout(), 100_050);
  });

  it("names the caller's mistakes", () => {
    const wrong: readonly (readonly [Partial<DeviceSearchOptions>, string])[] = [
      [{ places: [{ local: "host" }] }, "'local' must be an IP address: current value is \"host\""],
      [{ places: [{ local: HOST, gateway: "gw" }] }, "'gateway' must be an IP address"],
      [{ places: [{ local: HOST, networks: ["lan"] }] }, "'networks' must be prefixes"],
      [{ places: Array.from({ length: 17 }, () => PLACE) }, "'places.length' must be an integer"],
      [{ targets: [] }, "'targets.length' must be an integer in 1..16"],
      [{ targets: ["a\r\nb"] }, "'targets' must be text"],
      [{ mx: 6 }, "'mx' must be an integer in 1..5"],
      [{ durationMs: 0 }, "'durationMs' must be an integer"],
      [{ port: 0 }, "'port' must be an integer"],
    ];

    for (const [options, message] of wrong) {
      assertThrows(() => new DeviceSearch({ places: [PLACE], ...options }), Error, message);
    }
  });
});

describe("searchPlaces()", () => {
  const address = (name: string, address: string, prefixLength: number): LocalAddress => ({
    name,
    address,
    prefixLength,
    internal: name === "lo",
  });
  const INTERFACES = [
    address("lo", "127.0.0.1", 8),
    address("lo", "::1", 128),
    address("eth0", "192.168.1.100", 24),
    address("eth0", "2001:db8:1::5", 64),
    address("eth0", "fe80::5%eth0", 64),
    address("eth0", "192.168.1.101", 24),
    address("tun0", "10.8.0.2", 32),
  ];

  it("lists one IPv4 address and the link-local IPv6 one of each interface", () => {
    const networks = ["192.168.1.100/24", "2001:db8:1::5/64", "fe80::5/64", "192.168.1.101/24"];

    const addresses = ["192.168.1.100", "2001:db8:1::5", "fe80::5%eth0", "192.168.1.101"];
    const eth0 = { addresses, networks, interface: "eth0" };
    const tun0 = { addresses: ["10.8.0.2"], networks: ["10.8.0.2/32"], interface: "tun0" };
    assertEquals(searchPlaces(INTERFACES, ["192.168.1.1", "fe80::1%eth0"]), [
      { local: "192.168.1.100", ...eth0, gateway: "192.168.1.1" },
      { local: "fe80::5%eth0", ...eth0, gateway: "fe80::1%eth0" },
      { local: "10.8.0.2", ...tun0 },
    ]);
  });

  it("gives a gateway to the interface that leads there", () => {
    const gateways = (...all: string[]) =>
      searchPlaces(INTERFACES, all).map(({ gateway }) => gateway);

    assertEquals(gateways("10.8.0.2"), [undefined, undefined, "10.8.0.2"]);
    assertEquals(gateways("2001:db8:1::1"), [undefined, "2001:db8:1::1", undefined]);
    assertEquals(gateways("fe80::1%eth1", "192.168.2.1"), [undefined, undefined, undefined]);
  });

  it("lists what a search takes", () => {
    const crowd = Array.from({ length: 40 }, (_, i) => address(`e${i}`, `10.0.${i}.2`, 24));

    assertEquals(new DeviceSearch({ places: searchPlaces(crowd) }).sockets().length, 32);
  });
});
