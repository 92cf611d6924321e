import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import { IGD_PROFILES } from "../../../core/gateway/igd_profiles.ts";
import type { Action, HttpRequest } from "../../../core/machine.ts";
import { type RandomSource, seededRandom } from "../../../core/random.ts";
import { encodeSubscribe, encodeUnsubscribe } from "../../../core/upnp/gena.ts";
import { IGD_SERVICE } from "../../../core/upnp/igd.ts";
import { argumentNames, IGD_ACTIONS } from "../../../core/upnp/igd_scpd.ts";
import { encodeCall } from "../../../core/upnp/soap.ts";
import { encodeSearch } from "../../../core/upnp/ssdp.ts";
import { EXTERNAL, HTTP_PORT, mapping, OWN, SSDP } from "../upnp/igd_rig.ts";

const HOST: [string, string] = ["Host", `${OWN}:${HTTP_PORT}`];

function pick<T>(random: RandomSource, all: readonly T[]): T {
  return all[random.u32() % all.length]!;
}

/** What hostile or broken clients put into arguments. */
const VALUES = [
  "",
  "0",
  "1",
  "80",
  "65535",
  "65536",
  "-1",
  "4294967296",
  "1e3",
  "TCP",
  "udp",
  "x".repeat(5000),
  "192.168.1.100",
  "255.255.255.255",
  "::",
  "2001:db8::100",
  "fe80::1%eth0",
  "]]>",
  "<a>",
  "\u0000\ud800",
  "constructor",
];

const PLACES = [
  ["WANIPConnection", IGD_SERVICE.WAN_IP_2, "/ctl/IPConn1"],
  ["WANIPConnection", IGD_SERVICE.WAN_IP_1, "/ctl/IPConn1"],
  ["WANIPv6FirewallControl", IGD_SERVICE.FIREWALL_1, "/ctl/IP6FC"],
  ["WANCommonInterfaceConfig", IGD_SERVICE.COMMON_1, "/ctl/CmnIfCfg"],
  ["Layer3Forwarding", IGD_SERVICE.FORWARDING_1, "/ctl/L3F"],
] as const;

/** A request that is right in form, with values that need not be. */
function seed(random: RandomSource, client: string): HttpRequest {
  const kind = random.u32() % 10;
  if (kind === 0) {
    const path = pick(random, ["/rootDesc.xml", "/scpd/IPConn1", "/scpd/IP6FC", "/", "*", "/..//"]);
    return { method: pick(random, ["GET", "HEAD", "POST", "OPTIONS", ""]), path, headers: [] };
  }
  if (kind === 1) {
    const path = pick(random, ["/evt/IPConn1", "/evt/L3F", "/evt/none"]);
    const callback = pick(random, [
      `http://${client}:7000/`,
      "http://10.0.0.1/",
      "x",
      `<<http://>`,
    ]);
    return random.u32() % 3 === 0
      ? encodeUnsubscribe(path, "uuid:1")
      : encodeSubscribe(path, callback, 1 + random.u32() % 100_000);
  }
  const [name, service, path] = pick(random, PLACES);
  const action = pick(random, Object.keys(IGD_ACTIONS[name]));
  const names = argumentNames(IGD_ACTIONS[name][action]!.in);
  const right: Record<string, string> = {
    ...mapping(1 + random.u32() % 65_535, { client, lease: 1 + random.u32() % 100 }),
    NewPortMappingIndex: `${random.u32() % 50}`,
    NewStartPort: "1",
    NewEndPort: "65535",
    NewManage: "1",
    NewNumberOfPorts: "0",
  };
  const args = Object.fromEntries(names.map((one) => [
    one,
    random.u32() % 5 > 0 && right[one] !== undefined ? right[one] : pick(random, VALUES),
  ]));
  return encodeCall({ service, action, args }, path);
}

/** Breaks some requests: bytes, fields, methods, lengths. */
function mutate(random: RandomSource, request: HttpRequest): HttpRequest {
  const how = random.u32() % 8;
  let { method, path, body } = request;
  let headers = [HOST, ...request.headers];
  if (how === 0 && body) {
    const bytes = new Uint8Array(body);
    for (let i = random.u32() % 20; i >= 0; i--) bytes[random.u32() % bytes.length] = random.u32();
    body = bytes;
  } else if (how === 1 && body) {
    body = body.subarray(0, random.u32() % body.length);
  } else if (how === 2) {
    headers = headers.filter(() => random.u32() % 3 > 0);
  } else if (how === 3) {
    path += pick(random, ["?", "/", "%00", "x".repeat(3000), "\r\n"]);
  } else if (how === 4) {
    method = pick(random, ["M-POST", "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE", "__proto__"]);
  } else if (how === 6) {
    const which = random.u32() % headers.length;
    headers = headers.map(([name, value], i) => {
      const at = random.u32() % (value.length + 1);
      const added = i === which ? pick(random, ["<", '"', "#", "&", "ü", ":"]) : "";
      return [name, value.slice(0, at) + added + value.slice(at)];
    });
  } else if (how === 5) {
    const text = `<a>${"<b>".repeat(random.u32() % 10_000)}`;
    body = new TextEncoder().encode(text);
  }
  return { method, path, headers, ...body && { body } };
}

function datagram(random: RandomSource): Uint8Array {
  const target = pick(random, ["ssdp:all", "upnp:rootdevice", IGD_SERVICE.WAN_IP_1, "uuid:x"]);
  const data = encodeSearch({ host: SSDP, target, mx: 1 + random.u32() % 5 });
  if (random.u32() % 2 === 0) return data;
  const bytes = new Uint8Array(random.u32() % 4 === 0 ? random.u32() % 9000 : data.length);
  bytes.set(data.subarray(0, bytes.length));
  for (let i = random.u32() % 10; i > 0 && bytes.length > 0; i--) {
    bytes[random.u32() % bytes.length] = random.u32();
  }
  return bytes;
}

describe("an Internet gateway device under fire", () => {
  function make(profile?: string): SimulatedGateway {
    const gateway = new SimulatedGateway({
      externalAddresses: [EXTERNAL],
      random: seededRandom(51),
      trace: true,
      protocols: ["pcp", "nat-pmp", "upnp"],
      ...profile !== undefined && { profile },
      listen: { address: OWN, port: 5351 },
      table: { maxEntries: 500, maxPortsPerClient: 20, maxQuarantined: 100 },
    });
    gateway.start(0);
    for (const { key, local } of gateway.sockets!()) {
      const at = { ...local!, port: local!.port || HTTP_PORT };
      gateway.handleSocket(key, { ok: true, local: at }, 0);
    }
    return gateway;
  }

  it("40,000 requests and datagrams from 200 hosts, half of them broken: each answered once, all bounded", () => {
    const random = seededRandom(50);
    const gateway = make();
    const asked = new Set<number>(), events = new Set<number>();
    let now = 0, answers = 0, done = 0;
    const take = (action: Action<unknown>) => {
      if (action.type === "respond") {
        assert(asked.delete(action.id), `${action.id} is answered twice`);
        assert(action.response.status >= 200 && action.response.body.length < 150_000);
        answers++;
        if (action.response.status === 200) done++;
      } else if (action.type === "request") {
        events.add(action.id);
        assertEquals(action.request.method, "NOTIFY");
      }
    };
    for (let i = 1; i <= 40_000; i++) {
      const from = {
        address: `192.168.1.${2 + random.u32() % 200}`,
        port: 1 + random.u32() % 65_000,
      };
      if (random.u32() % 4 === 0) {
        const socket = pick(random, [`ssdp ${OWN}`, `ssdp-group ${OWN}`, "ssdp", "ssdp-group x"]);
        gateway.handleDatagram(datagram(random), from, socket, now);
      } else {
        asked.add(i);
        const request = mutate(random, seed(random, from.address));
        gateway.handleRequest(i, request, from, now);
      }
      if (i % 20 === 0) gateway.handleTimeout(now += 5 + random.u32() % 100);
      for (let action = gateway.poll(); action; action = gateway.poll()) take(action);
      // Some subscribers answer, some never do.
      for (const id of [...events]) {
        if (random.u32() % 3 > 0) continue;
        events.delete(id);
        const isTaken = random.u32() % 2 === 0;
        gateway.handleResponse(
          id,
          isTaken
            ? { ok: true, status: 200, headers: [], body: new Uint8Array() }
            : { ok: false, reason: "timeout" },
          now,
        );
      }
      if (i % 5000 === 0) gateway.setExternalAddresses([`203.0.113.${i / 5000}`], now);
    }
    const { replies, upnp } = gateway.stats;
    assertEquals([asked.size, answers > 25_000, done > 3000], [0, true, true]);
    assert(gateway.table.size <= 500 && replies.waiting <= 4096 && events.size <= 64);
    assert(
      upnp!.events.subscribed > 100 && upnp!.ssdp.searches > 2000 && upnp!.results.faults > 1000,
    );
  });

  it("every profile survives 400 of them", () => {
    const random = seededRandom(60);
    for (const { name } of IGD_PROFILES) {
      const gateway = make(name);
      const from = { address: "192.168.1.2", port: 1000 };
      for (let i = 1; i <= 400; i++) {
        gateway.handleRequest(i, mutate(random, seed(random, from.address)), from, i);
        gateway.handleDatagram(datagram(random), from, `ssdp-group ${OWN}`, i);
        gateway.handleTimeout(i);
        while (gateway.poll());
      }
      assert(gateway.table.size <= 500, name);
    }
  });
});
