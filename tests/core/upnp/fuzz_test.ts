import { describe, it } from "node:test";
import { assert } from "@std/assert";
import type { HttpResult, Machine } from "../../../core/machine.ts";
import { below, type RandomSource, seededRandom } from "../../../core/random.ts";
import {
  readDescription,
  readScpd,
  writeDescription,
  writeScpd,
} from "../../../core/upnp/description.ts";
import { decodeEvent, decodeSubscribe, encodeEvent } from "../../../core/upnp/gena.ts";
import { IGD_SERVICE } from "../../../core/upnp/igd.ts";
import { igdScpd } from "../../../core/upnp/igd_scpd.ts";
import {
  decodeCall,
  decodeResult,
  encodeCall,
  encodeFault,
  encodeResult,
} from "../../../core/upnp/soap.ts";
import {
  decodeSsdp,
  encodeAdvert,
  encodeSearch,
  encodeSearchResponse,
} from "../../../core/upnp/ssdp.ts";
import { resolveLocal } from "../../../core/upnp/url.ts";
import { drain, type MachineCase } from "../machine_case.ts";
import { igdClientCase } from "./contract_case.ts";
import { controlPointCase } from "./control_point_contract_case.ts";
import { deviceSearchCase } from "./search_contract_case.ts";
import { igdServerCase } from "./server_contract_case.ts";
import { heapAfterCollection } from "../heap.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

/** What has a meaning somewhere. */
const TOKENS = [
  ..."<>&\"'/=:;?#%@[]()\0\r\n\t ",
  ...["</", "/>", "<!--", "-->", "<![CDATA[", "]]>", "<?xml", "?>", "&#x", "&#0;", "&amp;", "<a>"],
  ...['<!DOCTYPE a [<!ENTITY b "c">]>', "xmlns:", "s:Body", "errorCode", "Response", "urn:"],
  ...["\r\n\r\n", "HTTP/1.1 200 OK\r\n", "NOTIFY * HTTP/1.1\r\n", "ST:", "USN:", "LOCATION:"],
  ...["http://", "192.168.1.1", "127.0.0.1", "[::1]", "..", "uuid:", "max-age=", "99999999999"],
  ...["\ufeff", "\ud800", "ü", "🙂", "__proto__"],
].map(bytes);

/** A document or datagram with a few parts changed, cut, doubled, swapped or put in. */
function mutate(data: Uint8Array, random: RandomSource): Uint8Array {
  let out: Uint8Array = data;
  for (let changes = below(random, 4); changes > 0; changes--) {
    const at = below(random, out.length + 1);
    const end = Math.min(out.length, at + 1 + below(random, 1 + below(random, 200)));
    const part = out.subarray(at, end);
    switch (below(random, 6)) {
      case 0:
        out = out.slice();
        if (at < out.length) out[at] = random.u32();
        break;
      case 1:
        out = join(out.subarray(0, at), out.subarray(end));
        break;
      case 2:
        out = out.slice(0, at);
        break;
      case 3:
        out = join(out.subarray(0, at), ...times(below(random, 20), part), out.subarray(at));
        break;
      default:
        out = join(out.subarray(0, at), TOKENS[below(random, TOKENS.length)]!, out.subarray(at));
    }
  }
  return out.length > 10_000 ? out.slice(0, 10_000) : out;
}

function times(count: number, part: Uint8Array): Uint8Array[] {
  return Array.from({ length: count }, () => part);
}

function join(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const GROUP = { address: "239.255.255.250", port: 1900 };
const ADVERT = {
  target: "upnp:rootdevice",
  usn: "uuid:1::upnp:rootdevice",
  location: "http://192.168.1.1:5000/desc.xml",
  server: "Linux UPnP/1.1 MiniUPnPd/2.3",
  bootId: 1,
  configId: 2,
};
const SERVICE = {
  serviceType: IGD_SERVICE.WAN_IP_1,
  serviceId: "urn:upnp-org:serviceId:WANIPConn1",
  controlUrl: "/ctl",
  eventUrl: "/evt",
  scpdUrl: "/scpd.xml",
};
const INNER = {
  deviceType: "urn:schemas-upnp-org:device:WANDevice:1",
  friendlyName: "WANDevice",
  manufacturer: "MiniUPnP",
  modelName: "WAN Device",
  udn: "uuid:2",
  services: [SERVICE],
  devices: [],
};
const CALL = {
  service: IGD_SERVICE.WAN_IP_1,
  action: "DeletePortMapping",
  args: { NewRemoteHost: "", NewExternalPort: "6000", NewProtocol: "TCP" },
};
const EVENT = { sid: "uuid:3", sequence: 0, properties: { ExternalIPAddress: "203.0.113.7" } };

/** A reader: what it is given, whether it could read it, and how often it is tried. */
interface Reader {
  readonly count: number;
  readonly seeds: readonly Uint8Array[];
  readonly read: (data: Uint8Array) => unknown;
}

const body = (request: { readonly body?: Uint8Array }) => request.body!;

const READERS: Record<string, Reader> = {
  "SSDP": {
    count: 400_000,
    seeds: [
      encodeSearch({ host: GROUP, target: "ssdp:all", mx: 2 }),
      encodeSearchResponse(ADVERT),
      encodeAdvert("alive", GROUP, ADVERT),
      encodeAdvert("byebye", GROUP, ADVERT),
    ],
    read: decodeSsdp,
  },
  "URLs": {
    count: 250_000,
    seeds: ["/ctl?a", "http://192.168.1.1:5000/a/../b", "ctl", "http://[fe80::1]/x"].map(bytes),
    read: (data) =>
      resolveLocal(new TextDecoder().decode(data), ADVERT.location, { address: "192.168.1.1" }),
  },
  "descriptions": {
    count: 15_000,
    seeds: [
      writeDescription({ device: { ...INNER, devices: [INNER] }, urlBase: "http://192.168.1.1" }),
    ],
    read: readDescription,
  },
  "descriptions of services": {
    count: 8_000,
    seeds: [writeScpd({ ...igdScpd("Layer3Forwarding", 1) })],
    read: readScpd,
  },
  "results": {
    count: 50_000,
    seeds: [
      encodeResult({ ...CALL, args: { NewExternalIPAddress: "203.0.113.7" } }).body,
      encodeFault(718, "ConflictInMappingEntry").body,
    ],
    read: (data) => decodeResult({ status: 200, headers: [], body: data }),
  },
  "calls": {
    count: 40_000,
    seeds: [body(encodeCall(CALL, "/ctl"))],
    read: (data) => decodeCall({ ...encodeCall(CALL, "/ctl"), body: data }),
  },
  "events": {
    count: 25_000,
    seeds: [body(encodeEvent("/", EVENT))],
    read: (data) => decodeEvent({ ...encodeEvent("/", EVENT), body: data }),
  },
  "fields of subscriptions": {
    count: 62_000,
    seeds: [bytes("<http://192.168.1.1/a><http://192.168.1.1/b>"), bytes("Second-300")],
    read: (data) => {
      const value = new TextDecoder().decode(data);
      const headers = [["CALLBACK", value], ["NT", "upnp:event"], ["TIMEOUT", value]] as const;
      return decodeSubscribe({ method: "SUBSCRIBE", path: "/", headers });
    },
  },
};

describe("UPnP under fire: 1,000,000 mutated documents and datagrams", () => {
  for (const [name, { count, seeds, read }] of Object.entries(READERS)) {
    it(`${count} ${name}: nothing thrown, nothing kept`, () => {
      const random = seededRandom(count);
      let good = 0, heapBytes = 0;
      for (let i = 0; i < count; i++) {
        if (i === count >> 2) heapBytes = heapAfterCollection();
        const seed = seeds[below(random, seeds.length)]!;
        if (typeof read(mutate(seed, random)) === "object") good++;
      }
      const grownMiB = (heapAfterCollection() - heapBytes) / 2 ** 20;
      assert(grownMiB < 8, `${grownMiB} MiB more`);
      // Else it was noise that was tried, or the reader takes anything.
      assert(good > count / 20 && good < count, `${good} were read`);
    });
  }

  const MACHINES: Record<string, readonly [kind: MachineCase, count: number]> = {
    "a search": [deviceSearchCase, 100_000],
    "a control point": [controlPointCase, 30_000],
    "an IGD client": [igdClientCase, 10_000],
    "an IGD": [igdServerCase, 10_000],
  };

  for (const [name, [kind, count]] of Object.entries(MACHINES)) {
    it(`${count} at ${name}: nothing thrown, memory and queues bounded`, () => {
      const random = seededRandom(count + name.length);
      const run = new Siege(kind, random);
      let heapBytes = 0;
      for (let fed = 0; fed < count;) {
        const before = fed;
        fed += run.step();
        if (before < count >> 2 && fed >= count >> 2) heapBytes = heapAfterCollection();
      }
      const grownMiB = (heapAfterCollection() - heapBytes) / 2 ** 20;
      assert(grownMiB < 16, `${grownMiB} MiB more`);
      assert(run.most <= 5000, `${run.most} actions waited`);
    });
  }
});

/** A machine whose world answers, and what it answers is mutated; whoever may talks to it unasked. */
class Siege {
  /** The most actions that waited. */
  most = 0;
  readonly #random: RandomSource;
  readonly #test;
  #now = 0;
  #lastRequest = 1000;

  constructor(kind: MachineCase, random: RandomSource) {
    this.#random = random;
    this.#test = kind.create(1);
    this.#test.begin(0);
  }

  /** Lives through one thing; answers how many documents and datagrams that took. */
  step(): number {
    const random = this.#random;
    const { machine } = this.#test;
    let fed = 1;
    this.#unasked();
    // Every so often nobody drains for a while.
    if (below(random, 20) > 0) {
      const actions = drain(machine);
      this.most = Math.max(this.most, actions.length);
      for (const action of actions) {
        if (action.type === "send") {
          const reply = this.#test.reply(action, this.#now);
          if (!reply) continue;
          const data = mutate(reply.data, random);
          machine.handleDatagram(data, reply.from, action.socket, this.#now);
          fed++;
        } else if (action.type === "request") {
          this.#test.perform?.(action, this.#mutating(machine), this.#now);
          fed++;
        }
      }
    }
    this.#now += below(random, 200);
    const next = machine.nextTimeout();
    if (next !== undefined) {
      if (below(random, 4) === 0) this.#now = Math.max(this.#now, next);
      if (next <= this.#now) machine.handleTimeout(this.#now);
    }
    if (below(random, 500) === 0) this.#test.ids?.disturb(random, this.#now, []);
    if (below(random, 200) === 0) this.#test.ids?.begin(random, this.#now);
    return fed;
  }

  #unasked(): void {
    const random = this.#random;
    const { machine } = this.#test;
    const sockets = machine.sockets?.() ?? [];
    const socket = sockets[below(random, Math.max(1, sockets.length))]?.key ?? "client";
    const from = { address: `192.168.1.${below(random, 6)}`, port: 1900 };
    const location = `http://192.168.1.${below(random, 6)}:5000/${below(random, 2000)}`;
    const advert = { ...ADVERT, location, usn: `uuid:${below(random, 2000)}::upnp:rootdevice` };
    const kinds = ["alive", "byebye"] as const;
    const data = below(random, 3) > 0
      ? encodeAdvert(kinds[below(random, 2)]!, GROUP, advert)
      : READERS["SSDP"]!.seeds[below(random, 4)]!;
    machine.handleDatagram(mutate(data, random), from, socket, this.#now);
    if (!machine.handleRequest || below(random, 2) > 0) return;
    const request = below(random, 4) > 0
      ? encodeCall(CALL, "/ctl/IPConn1")
      : encodeEvent("/", EVENT);
    const headers = [["Host", "192.168.1.1:5000"] as const, ...request.headers];
    const spoilt = { ...request, headers, body: mutate(request.body!, random) };
    machine.handleRequest(++this.#lastRequest, spoilt, from, this.#now);
  }

  /** The machine, for who feeds it answers. */
  #mutating(machine: Machine<unknown>): Machine<unknown> {
    const random = this.#random;
    const handleResponse = (id: number, result: HttpResult, now: number): void =>
      machine.handleResponse!(
        id,
        result.ok ? { ...result, body: mutate(result.body, random) } : result,
        now,
      );
    return new Proxy(machine, {
      get: (target, name) => name === "handleResponse" ? handleResponse : Reflect.get(target, name),
    });
  }
}
