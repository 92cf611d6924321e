import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import type {
  Action,
  HttpRequest,
  HttpResult,
  RequestAction,
  RespondAction,
} from "../../../core/machine.ts";
import {
  ControlPoint,
  type ControlPointEvent,
  type ControlPointOptions,
  type FoundService,
} from "../../../core/upnp/control_point.ts";
import { type Device, writeDescription, writeScpd } from "../../../core/upnp/description.ts";
import { encodeEvent, encodeSubscribed } from "../../../core/upnp/gena.ts";
import { encodeFault, encodeResult } from "../../../core/upnp/soap.ts";
import { encodeAdvert, encodeSearchResponse } from "../../../core/upnp/ssdp.ts";
import { drain, timed } from "../machine_case.ts";

const HOST = "192.168.1.100";
const KEY = `search ${HOST}`;
const GROUP = { address: "239.255.255.250", port: 1900 };
const TYPE = "urn:x:service:A:1";

const from = (address: string) => ({ address, port: 1900 });
const locationOf = (address: string, path = "/desc.xml") => `http://${address}:5000${path}`;

function deviceOf(urls: Partial<FoundService> = {}, type: string = TYPE): Device {
  const service = {
    serviceType: type,
    serviceId: "urn:x:serviceId:A",
    controlUrl: "/ctl",
    eventUrl: "",
    scpdUrl: "/scpd.xml",
    ...urls,
  };
  return {
    deviceType: "urn:x:device:B:1",
    friendlyName: "B",
    manufacturer: "",
    modelName: "",
    udn: "uuid:b",
    services: [service],
    devices: [],
  };
}

const okPage = (body: Uint8Array, status = 200): HttpResult => ({
  ok: true,
  status,
  headers: [],
  body,
});
const description = (device: Device, urlBase = ""): HttpResult =>
  okPage(writeDescription({ device, urlBase }));

/** A control point whose sockets are open, with what it asks and tells. */
class Rig {
  readonly point: ControlPoint;
  readonly #actions: Action<ControlPointEvent>[] = [];

  constructor(options: Partial<ControlPointOptions> = {}) {
    this.point = timed(
      new ControlPoint({
        places: [{ local: HOST, networks: ["192.168.1.0/24"] }],
        targets: ["ssdp:all"],
        ...options,
      }),
    );
    for (const { key, local } of this.point.sockets()) {
      this.point.handleSocket(key, { ok: true, local: { address: local!.address, port: 1 } }, 0);
    }
  }

  /** The requests made since it was asked last. */
  requests(): RequestAction[] {
    return this.#take((action) => action.type === "request") as RequestAction[];
  }

  /** What was told since it was asked last. */
  events(): ControlPointEvent[] {
    return this.#take((action) => action.type === "event")
      .map((action) => (action as { event: ControlPointEvent }).event);
  }

  /** The same in words. */
  told(): string[] {
    return this.events().map((event) => {
      if (event.type === "service") return `service ${event.service.serviceType}`;
      if ("root" in event) return `${event.type} ${event.root.location}`;
      return event.type;
    });
  }

  hear(address: string, location = locationOf(address), bootId?: number): void {
    const advert = {
      target: "upnp:rootdevice",
      usn: `uuid:${location}`,
      location,
      ...(bootId !== undefined && { bootId }),
    };
    this.point.handleDatagram(encodeSearchResponse(advert), from(address), KEY, 0);
  }

  bye(address: string, location = locationOf(address)): void {
    const advert = { target: "upnp:rootdevice", usn: `uuid:${location}` };
    const data = encodeAdvert("byebye", GROUP, advert);
    this.point.handleDatagram(data, from(address), `adverts ${HOST}`, 0);
  }

  answer({ id }: RequestAction, result: HttpResult): void {
    this.point.handleResponse(id, result, 0);
  }

  /** Finds a device and reads its description. */
  find(device: Device = deviceOf(), address = "192.168.1.1"): FoundService {
    this.hear(address);
    const [request] = this.requests();
    this.answer(request!, description(device));
    const found = this.events().flatMap((event) => event.type === "service" ? event.service : []);
    return found[0]!;
  }

  /** The statuses of what it answered since it was asked last. */
  responses(): number[] {
    return this.#take((action) => action.type === "respond").map((action) => {
      const { status, headers, body } = (action as RespondAction).response;
      assertEquals([headers, body], [[], new Uint8Array(0)]);
      return status;
    });
  }

  #take(isIt: (action: Action<ControlPointEvent>) => boolean): Action<ControlPointEvent>[] {
    this.#actions.push(...drain(this.point) as Action<ControlPointEvent>[]);
    const taken = this.#actions.filter(isIt);
    const rest = this.#actions.filter((action) => !isIt(action));
    this.#actions.splice(0, this.#actions.length, ...rest);
    return taken;
  }
}

describe("ControlPoint", () => {
  it("searches as it is told, by the sockets that it lists, and tells what it could not", () => {
    const point = new ControlPoint({ places: [{ local: HOST }], targets: ["a"] });
    point.search(5);
    assertEquals([drain(point), point.nextTimeout()], [[], 5 + 4000]);
    assertEquals(point.debugTimeout()?.reason, "the end of the search");
    point.handleSocket(KEY, { ok: true, local: { address: HOST, port: 1 } }, 10);
    assertEquals(point.debugTimeout(), { at: 10, reason: "output waits" });
    assertEquals(drain(point).map(({ type }) => type), ["send"]);
    point.handleTimeout(510);
    assertEquals(drain(point).map(({ type }) => type), ["send"]);

    const failure = { code: "permission", message: "no" } as const;
    point.handleUnreachable(GROUP, KEY, 511);
    point.handleSocket(KEY, { ok: false, isOpen: false, ...failure }, 512);
    const event = { type: "searched", failures: [{ local: HOST, ...failure }] } as const;
    assertEquals(drain(point), [{ type: "event", event }]);
    assertEquals(point.stats.search.unreachable, 1);
  });

  it("fetches the description of what it finds, from where it was announced", () => {
    const rig = new Rig();
    rig.hear("192.168.1.1", "http://192.168.1.1:5000/a/desc.xml?x");

    assertEquals(rig.requests(), [{
      type: "request",
      id: 1,
      to: { address: "192.168.1.1", port: 5000 },
      request: { method: "GET", path: "/a/desc.xml?x", headers: [] },
      maxBytes: 262_144,
      timeoutMs: 10_000,
    }]);
    rig.hear("192.168.1.1", "http://192.168.1.1:5000/a/desc.xml?x");
    assertEquals(rig.requests(), []);
  });

  it("tells each service with its device, and where it is asked", () => {
    const rig = new Rig();
    rig.hear("192.168.1.1", locationOf("192.168.1.1", "/dir/desc.xml"));
    const outer = deviceOf({ controlUrl: "ctl?A", scpdUrl: "" });
    const inner = { ...deviceOf({}, "urn:x:service:C:1"), udn: "uuid:inner" };
    rig.answer(rig.requests()[0]!, description({ ...outer, devices: [inner] }));

    const told = rig.events().map((event) => {
      if (event.type !== "service") return event.type;
      const { serviceType, device, control, scpd } = event.service;
      return [serviceType, device.udn, control, scpd];
    });
    const at = (path: string) => ({ to: { address: "192.168.1.1", port: 5000 }, path });
    assertEquals(told, [
      [TYPE, "uuid:b", at("/dir/ctl?A"), "bad-url"],
      ["urn:x:service:C:1", "uuid:inner", at("/ctl"), at("/scpd.xml")],
    ]);
    assertEquals(rig.point.services.length, 2);
  });

  it("goes by the base of a description, but never off the device", () => {
    const rig = new Rig();
    rig.hear("192.168.1.1");
    const device = { ...deviceOf(), services: [] };
    const services = [
      ...deviceOf({ controlUrl: "ctl" }).services,
      ...deviceOf({ controlUrl: "http://203.0.113.9/ctl" }).services,
      ...deviceOf({ controlUrl: "http://192.168.1.2/ctl" }).services,
    ];
    rig.answer(
      rig.requests()[0]!,
      description({ ...device, services }, "http://192.168.1.1:80/b/"),
    );

    assertEquals(rig.point.services.map(({ control }) => control), [
      { to: { address: "192.168.1.1", port: 80 }, path: "/b/ctl" },
      "off-host",
      "off-host",
    ]);
    const id = rig.point.call(rig.point.services[1]!, "Do", {}, 0);
    rig.told();
    assertEquals(rig.requests(), []);
    const described = rig.point.describe({ ...rig.point.services[1]!, scpd: "off-host" }, 0);
    const failure = { kind: "bad-url", fault: "off-host" } as const;
    assertEquals([id, described, rig.events()], [1, 2, [{ type: "failed", id: 2, failure }]]);
  });

  it("tells a description that is not to be had, and why", () => {
    const results: readonly (readonly [HttpResult, object])[] = [
      [okPage(new Uint8Array(0), 404), { kind: "http-status", status: 404 }],
      [okPage(new Uint8Array(0)), { kind: "malformed", fault: "not-xml" }],
      [okPage(new Uint8Array(0), 199), { kind: "http-status", status: 199 }],
      [okPage(new Uint8Array(0), 299), { kind: "malformed", fault: "not-xml" }],
      [okPage(new Uint8Array(0), 300), { kind: "http-status", status: 300 }],
      [{ ok: false, reason: "too-large" }, { kind: "no-answer", reason: "too-large" }],
    ];
    for (const [result, failure] of results) {
      const rig = new Rig();
      rig.hear("192.168.1.1");
      rig.answer(rig.requests()[0]!, result);
      const [event] = rig.events();
      assertEquals(event?.type === "unreadable" && event.failure, failure);
      const { requests, answers, failures } = rig.point.stats;
      assertEquals([requests, answers, failures], [1, 0, 1]);
    }
  });

  it("asks a device one thing at a time, and others meanwhile", () => {
    const rig = new Rig();
    rig.hear("192.168.1.1", locationOf("192.168.1.1", "/1"));
    rig.hear("192.168.1.1", locationOf("192.168.1.1", "/2"));
    rig.hear("192.168.1.2");
    const [first, other, ...rest] = rig.requests();

    assertEquals([first!.request.path, other!.to.address, rest], ["/1", "192.168.1.2", []]);
    rig.answer(other!, description(deviceOf()));
    assertEquals(rig.requests(), []);
    rig.answer(first!, { ok: false, reason: "timeout" });
    assertEquals(rig.requests().map(({ request }) => request.path), ["/2"]);
  });

  it("reads a service's description", () => {
    const rig = new Rig();
    const service = rig.find();
    const id = rig.point.describe(service, 0);
    const [request] = rig.requests();
    assertEquals([request!.request.path, request!.maxBytes], ["/scpd.xml", 262_144]);
    const scpd = { actions: [{ name: "Do", arguments: [] }], variables: [] };
    rig.answer(request!, okPage(writeScpd(scpd)));
    assertEquals(rig.events(), [{ type: "described", id, scpd }]);

    const again = rig.point.describe(service, 0);
    rig.answer(rig.requests()[0]!, okPage(new Uint8Array(0), 404));
    const failure = { kind: "http-status", status: 404 } as const;
    assertEquals(rig.events(), [{ type: "failed", id: again, failure }]);
  });

  it("calls an action, and tells what it returned, or what the device said", () => {
    const rig = new Rig({ timeoutMs: 7000 });
    const service = rig.find();
    const call = (result: HttpResult) => {
      const id = rig.point.call(service, "Do", { X: "1" }, 0);
      rig.answer(rig.requests()[0]!, result);
      const [event, ...more] = rig.events();
      assertEquals([event && "id" in event && event.id, more], [id, []]);
      return event?.type === "failed" ? event.failure : event?.type === "called" && event.args;
    };
    const done = encodeResult({ service: TYPE, action: "Do", args: { Y: "2" } });

    assertEquals(call({ ok: true, ...done }), { Y: "2" });
    assertEquals(call({ ok: true, ...encodeFault(718, "Conflict") }), {
      kind: "error",
      code: 718,
      description: "Conflict",
    });
    assertEquals(call(okPage(new Uint8Array(0), 500)), { kind: "http-status", status: 500 });
    assertEquals(call(okPage(new Uint8Array(0))), { kind: "malformed", fault: "not-xml" });
    assertEquals(call({ ok: false, reason: "refused" }), { kind: "no-answer", reason: "refused" });
    rig.point.call(service, "Do", {}, 0);
    const [{ request, maxBytes, timeoutMs }] = rig.requests() as [RequestAction];
    assertEquals([request.path, maxBytes, timeoutMs], ["/ctl", 65_536, 7000]);
    assertEquals(request.headers[1], ["SOAPAction", `"${TYPE}#Do"`]);
    const { requests, answers, failures } = rig.point.stats;
    assertEquals([requests, answers, failures], [7, 3, 3]);
  });

  it("calls with M-POST what POST cannot, once", () => {
    const rig = new Rig();
    const service = rig.find();
    const id = rig.point.call(service, "Do", {}, 0);
    const refusal = okPage(new Uint8Array(0), 405);

    rig.answer(rig.requests()[0]!, refusal);
    const [again] = rig.requests();
    assertEquals([again!.request.method, again!.request.headers[2]?.[0]], [
      "M-POST",
      "01-SOAPAction",
    ]);
    rig.answer(again!, refusal);
    const failure = { kind: "http-status", status: 405 } as const;
    assertEquals([rig.requests(), rig.events()], [[], [{ type: "failed", id, failure }]]);
  });

  it("tells nothing of what was given up, and asks what waits behind it", () => {
    const rig = new Rig();
    const service = rig.find();
    const ids = [1, 2, 3].map(() => rig.point.call(service, "Do", {}, 0));
    const [first] = rig.requests();

    rig.point.cancel(ids[0]!, 0);
    rig.point.cancel(ids[1]!, 0);
    assertEquals(rig.requests(), []);
    rig.answer(first!, { ok: true, ...encodeFault(501, "") });
    assertEquals(rig.events(), []);
    const [third, ...rest] = rig.requests();
    assertEquals(rest, []);
    rig.answer(third!, { ok: true, ...encodeFault(501, "") });
    rig.answer(third!, { ok: true, ...encodeFault(501, "") });
    assertEquals(rig.events().map((event) => "id" in event && event.id), [ids[2]]);
    assertEquals(rig.point.stats.stray, 1);
    rig.point.cancel(ids[2]!, 0);
    rig.point.cancel(99, 0);
  });

  it("takes back what it has told and nobody has heard", () => {
    const rig = new Rig();
    const service = rig.find();
    const id = rig.point.call(service, "Do", {}, 0);
    rig.answer(rig.requests()[0]!, { ok: false, reason: "timeout" });
    rig.point.cancel(id, 0);
    assertEquals(drain(rig.point), []);
  });

  it("says that the search is over once it has read what it led to", () => {
    const rig = new Rig();
    rig.point.search(0, 1000);
    rig.hear("192.168.1.1");
    const [request] = rig.requests();
    rig.point.handleTimeout(1000);
    assertEquals([rig.told(), rig.point.isSearching], [[], true]);
    rig.answer(request!, description(deviceOf()));
    assertEquals(rig.told(), [`service ${TYPE}`, "searched"]);
    assertEquals(rig.point.isSearching, false);

    rig.point.search(2000, 100);
    rig.point.endSearch(2001);
    assertEquals(rig.told(), ["searched"]);
  });

  it("forgets a device that went, and reads one anew that started anew", () => {
    const rig = new Rig();
    rig.hear("192.168.1.1", undefined, 1);
    rig.answer(rig.requests()[0]!, description(deviceOf()));
    assertEquals(rig.told(), [`service ${TYPE}`]);

    rig.hear("192.168.1.1", undefined, 2);
    assertEquals(rig.point.services, []);
    rig.answer(rig.requests()[0]!, description(deviceOf({}, "urn:x:service:New:1")));
    assertEquals(rig.told(), ["service urn:x:service:New:1"]);
    rig.bye("192.168.1.1");
    assertEquals(rig.told(), [`gone ${locationOf("192.168.1.1")}`]);
    assertEquals(rig.point.services, []);
  });

  it("takes no description of a device that went meanwhile", () => {
    const rig = new Rig();
    rig.hear("192.168.1.1");
    rig.hear("192.168.1.1", locationOf("192.168.1.1", "/other"));
    const [request] = rig.requests();
    rig.bye("192.168.1.1");
    rig.bye("192.168.1.1", locationOf("192.168.1.1", "/other"));
    rig.answer(request!, description(deviceOf()));

    assertEquals(rig.point.services, []);
    assertEquals([rig.requests(), rig.point.stats.stray], [[], 0]);
    assertEquals(rig.told().filter((text) => text.startsWith("service")), []);
  });

  it("takes the descriptions of devices that stay while another goes", () => {
    const rig = new Rig();
    rig.hear("192.168.1.1");
    rig.hear("192.168.1.2");
    rig.hear("192.168.1.2", locationOf("192.168.1.2", "/other"));
    const [, second] = rig.requests();
    rig.bye("192.168.1.1");
    rig.answer(second!, description(deviceOf()));
    rig.answer(rig.requests()[0]!, description(deviceOf({}, "urn:x:service:Other:1")));

    const told = rig.told().filter((text) => text.startsWith("service"));
    assertEquals(told, [`service ${TYPE}`, "service urn:x:service:Other:1"]);
  });

  it("does not chase who announces ever new descriptions", () => {
    const rig = new Rig();
    for (let i = 0; i < 1000; i++) {
      const location = locationOf("192.168.1.1", `/${i}`);
      rig.hear("192.168.1.1", location);
      rig.bye("192.168.1.1", location);
      for (const request of rig.requests()) rig.answer(request, description(deviceOf()));
      rig.told();
    }
    assertEquals(rig.point.stats.overLimit, 744);
    assertEquals(rig.point.stats.requests, 256);
    rig.point.search(0);
    rig.hear("192.168.1.1");
    assertEquals(rig.requests().length, 1);
  });

  it("tells 256 services of a device at most", () => {
    const rig = new Rig();
    rig.hear("192.168.1.1");
    const [service] = deviceOf().services;
    const services = Array.from({ length: 300 }, () => service!);
    rig.answer(rig.requests()[0]!, description({ ...deviceOf(), services }));
    assertEquals(rig.told().length, 256);
  });

  describe("subscriptions", () => {
    const AT = { address: HOST, port: 7000 };
    const SOCKET = `events ${HOST}`;
    const DEVICE = { address: "192.168.1.1", port: 3000 };
    const made = (sid: string, timeoutSeconds: number | undefined = 300): HttpResult => ({
      ok: true,
      ...encodeSubscribed({ sid, timeoutSeconds }),
    });
    const refusal = okPage(new Uint8Array(0), 412);

    /** A control point that has subscribed; the device has confirmed it. */
    function subscribed(timeoutSeconds?: number): { rig: Rig; id: number; service: FoundService } {
      const rig = new Rig();
      const service = rig.find(deviceOf({ eventUrl: "/evt?A" }));
      const id = rig.point.subscribe(service, 0);
      rig.point.handleSocket(SOCKET, { ok: true, local: AT }, 0);
      rig.answer(rig.requests()[0]!, made("uuid:1", timeoutSeconds));
      return { rig, id, service };
    }

    let lastHttp = 0;
    /** Lets an event come; answers with the status that it got, undefined where it got none. */
    function notify(
      rig: Rig,
      id: number,
      sequence: number,
      { sid = "uuid:1", from = DEVICE, value = `${sequence}` } = {},
    ): number | undefined {
      const request = encodeEvent(`/${id}`, { sid, sequence, properties: { A: value } });
      rig.point.handleRequest(++lastHttp, request, from, 0);
      return rig.responses().at(-1);
    }

    it("are made once there is a socket for their events, at this host's address there", () => {
      const rig = new Rig();
      const service = rig.find(deviceOf({ eventUrl: "/evt?A" }));
      const id = rig.point.subscribe(service, 0);

      assertEquals(rig.point.sockets().at(-1), {
        kind: "http",
        key: SOCKET,
        local: { address: HOST, port: 0 },
      });
      assertEquals(rig.requests(), []);
      rig.point.handleSocket(SOCKET, { ok: true, local: AT }, 0);
      const [{ to, request }] = rig.requests() as [RequestAction];
      assertEquals([to, request.method, request.path], [
        { address: "192.168.1.1", port: 5000 },
        "SUBSCRIBE",
        "/evt?A",
      ]);
      assertEquals(request.headers, [
        ["CALLBACK", `<http://${HOST}:7000/${id}>`],
        ["NT", "upnp:event"],
        ["TIMEOUT", "Second-1800"],
      ]);
      const before = rig.point.sockets();
      assertEquals(rig.point.sockets() === before, true);
    });

    it("name an address that the device reaches: over IPv6 no link-local one, where there is another", () => {
      const local = "fe80::5%eth0";
      const callback = (addresses: readonly string[]) => {
        const place = { local, addresses, networks: ["2001:db8::/64"] };
        const point = new ControlPoint({ places: [place], targets: ["ssdp:all"] });
        const found = new Rig().find(deviceOf({ eventUrl: "/evt" }));
        const to = { address: "2001:db8::1", port: 5000 };
        const service = { ...found, root: { ...found.root, local }, events: { to, path: "/" } };
        point.subscribe(service, 0);
        const spec = point.sockets().at(-1);
        assertEquals(spec?.local, { address: "::", port: 0 });
        point.handleSocket(spec!.key, { ok: true, local: { address: "::", port: 7000 } }, 0);
        const [request] = drain(point) as [RequestAction];
        return request.request.headers[0]?.[1];
      };

      assertEquals(
        callback(["192.168.1.5", local, "2001:db8::5"]),
        "<http://[2001:db8::5]:7000/1>",
      );
      assertEquals(callback(["192.168.1.5", local]), "<http://[fe80::5]:7000/1>");
    });

    it("have a socket for each of this host's addresses", () => {
      const other = "10.0.0.2";
      const point = new ControlPoint({
        places: [{ local: HOST }, { local: other }],
        listen: false,
      });
      const service = new Rig().find(deviceOf({ eventUrl: "/evt" }));
      const to = { address: "10.0.0.1", port: 5000 };
      const away = {
        ...service,
        root: { ...service.root, local: other },
        events: { to, path: "/e" },
      };
      for (const each of [service, away, away]) point.subscribe(each, 0);
      const keys = point.sockets().filter(({ kind }) => kind === "http").map(({ key }) => key);
      assertEquals(keys, [SOCKET, `events ${other}`]);

      point.handleSocket(`events ${other}`, { ok: true, local: { address: other, port: 7 } }, 0);
      const requests = drain(point) as RequestAction[];
      assertEquals(requests.map((each) => each.request.headers[0]?.[1]), ["<http://10.0.0.2:7/2>"]);
      point.handleSocket(SOCKET, { ok: true, local: AT }, 0);
      assertEquals(drain(point).length, 1);
    });

    it("tell what changed, in the order of its numbers", () => {
      const { rig, id } = subscribed();

      assertEquals([0, 1].map((sequence) => notify(rig, id, sequence)), [200, 200]);
      assertEquals(rig.events(), [
        { type: "changed", id, properties: { A: "0" } },
        { type: "changed", id, properties: { A: "1" } },
      ]);
      for (const [i, properties] of [{ A: "2", B: "2" }, { B: "3", C: "3" }].entries()) {
        const event = encodeEvent(`/${id}`, { sid: "uuid:1", sequence: 2 + i, properties });
        rig.point.handleRequest(++lastHttp, event, DEVICE, 0);
      }
      const properties = { A: "2", B: "3", C: "3" };
      assertEquals(rig.events(), [{ type: "changed", id, properties }]);
      assertEquals([rig.point.stats.events, rig.point.stats.badEvents], [4, 0]);
    });

    it("drop and count what comes from elsewhere, for another one, or is no event", () => {
      const { rig, id } = subscribed();
      const stranger = { address: "192.168.1.66", port: 3000 };

      assertEquals(notify(rig, id, 0, { from: stranger }), 412);
      assertEquals(notify(rig, id, 0, { sid: "uuid:2" }), 412);
      assertEquals(notify(rig, id + 1, 0), 412);
      const ask = (request: HttpRequest) => {
        rig.point.handleRequest(++lastHttp, request, DEVICE, 0);
        return rig.responses().at(-1);
      };
      const event = encodeEvent(`/${id}`, { sid: "uuid:1", sequence: 0, properties: {} });
      assertEquals(ask({ ...event, method: "GET" }), 405);
      assertEquals(ask({ ...event, headers: [] }), 412);
      assertEquals(ask({ ...event, path: "*" }), 412);
      assertEquals([rig.events(), rig.point.stats.badEvents], [[], 6]);
      assertEquals(notify(rig, id, 0), 200);
      assertEquals(rig.told(), ["changed"]);
    });

    it("hear the first event though it comes before the id that it bears", () => {
      const rig = new Rig();
      const service = rig.find(deviceOf({ eventUrl: "/evt" }));
      const id = rig.point.subscribe(service, 0);
      rig.point.handleSocket(SOCKET, { ok: true, local: AT }, 0);
      const [request] = rig.requests();

      assertEquals(notify(rig, id, 0), 200);
      assertEquals(notify(rig, id, 0, { value: "second" }), 200);
      assertEquals(rig.events(), []);
      rig.answer(request!, made("uuid:1"));
      assertEquals(rig.events(), [{ type: "changed", id, properties: { A: "0" } }]);
      notify(rig, id, 1);
      assertEquals(rig.told(), ["changed"]);
    });

    it("believe no first event that bears another id", () => {
      const rig = new Rig();
      const id = rig.point.subscribe(rig.find(deviceOf({ eventUrl: "/evt" })), 0);
      assertEquals(notify(rig, id, 0), 412);
      rig.point.handleSocket(SOCKET, { ok: true, local: AT }, 0);
      const [request] = rig.requests();
      assertEquals(notify(rig, id, 1), 412);
      assertEquals(notify(rig, id, 0, { sid: "uuid:9" }), 200);
      rig.answer(request!, made("uuid:1"));
      assertEquals([rig.events(), rig.point.stats.badEvents], [[], 3]);
    });

    it("are made anew where an event is missing, which tells everything", () => {
      const { rig, id } = subscribed();
      notify(rig, id, 0);
      rig.events();

      assertEquals(notify(rig, id, 2), 200);
      const [leave] = rig.requests();
      assertEquals([leave!.request.method, leave!.request.headers], [
        "UNSUBSCRIBE",
        [["SID", "uuid:1"]],
      ]);
      assertEquals(notify(rig, id, 3), 412);
      rig.answer(leave!, refusal);
      const [again] = rig.requests();
      assertEquals([again!.request.method, again!.request.headers[1]?.[0]], ["SUBSCRIBE", "NT"]);
      rig.answer(again!, made("uuid:2"));
      assertEquals(rig.events(), []);
      notify(rig, id, 0, { sid: "uuid:2" });
      assertEquals([rig.told(), rig.point.stats.gaps], [["changed"], 1]);
    });

    it("are renewed at half their time, as long as the device wishes", () => {
      const { rig, id } = subscribed(300);
      assertEquals(rig.point.debugTimeout()?.at, 150_000);
      rig.point.handleTimeout(149_999);
      assertEquals(rig.requests(), []);
      rig.point.handleTimeout(150_000);
      const [renewal] = rig.requests();
      assertEquals([renewal!.request.method, renewal!.request.headers], [
        "SUBSCRIBE",
        [["SID", "uuid:1"], ["TIMEOUT", "Second-1800"]],
      ]);
      assertEquals([renewal!.maxBytes, renewal!.timeoutMs], [65_536, 10_000]);
      rig.point.handleResponse(renewal!.id, made("uuid:1", 1), 150_010);
      assertEquals(rig.point.nextTimeout(), 151_010);
      assertEquals(subscribed(3).rig.point.debugTimeout(), {
        at: 1500,
        reason: "renew a subscription",
      });
      notify(rig, id, 0);
      assertEquals(rig.told(), ["changed"]);

      const forever = new Rig();
      forever.point.subscribe(forever.find(deviceOf({ eventUrl: "/e" })), 0);
      forever.point.handleSocket(SOCKET, { ok: true, local: AT }, 0);
      const infinite: HttpResult = {
        ok: true,
        ...encodeSubscribed({ sid: "uuid:1", timeoutSeconds: undefined }),
      };
      forever.answer(forever.requests()[0]!, infinite);
      assertEquals([forever.told(), forever.point.nextTimeout()], [[], undefined]);
    });

    it("are made anew where they cannot be renewed, and fail where that fails", () => {
      for (
        const failing of [refusal, made("uuid:other"), { ok: false, reason: "timeout" }] as const
      ) {
        const { rig, id } = subscribed();
        rig.point.handleTimeout(150_000);
        rig.answer(rig.requests()[0]!, failing);
        const [anew] = rig.requests();
        assertEquals(anew!.request.headers[0]?.[0], "CALLBACK");
        rig.answer(anew!, refusal);
        const failure = { kind: "http-status", status: 412 } as const;
        assertEquals(rig.events(), [{ type: "failed", id, failure }]);
        assertEquals(rig.point.sockets().some(({ kind }) => kind === "http"), false);
      }
    });

    it("end at the device, and their socket with the last", () => {
      const { rig, id, service } = subscribed();
      const other = rig.point.subscribe(service, 0);
      rig.answer(rig.requests()[0]!, made("uuid:2"));
      rig.point.unsubscribe(id, 0);
      rig.point.unsubscribe(id, 0);
      const [leave, ...more] = rig.requests();
      assertEquals([leave!.request.method, more], ["UNSUBSCRIBE", []]);
      assertEquals(notify(rig, id, 0), 412);
      rig.answer(leave!, okPage(new Uint8Array(0)));
      assertEquals(rig.events(), [{ type: "unsubscribed", id }]);
      assertEquals(rig.point.sockets().some(({ kind }) => kind === "http"), true);

      rig.point.unsubscribe(other, 0);
      rig.answer(rig.requests()[0]!, { ok: false, reason: "timeout" });
      assertEquals(rig.events(), [{ type: "unsubscribed", id: other }]);
      assertEquals(rig.point.sockets().some(({ kind }) => kind === "http"), false);
      assertEquals(rig.point.nextTimeout(), undefined);
    });

    it("end once what is asked about them is answered", () => {
      const rig = new Rig();
      const service = rig.find(deviceOf({ eventUrl: "/evt" }));
      const early = rig.point.subscribe(service, 0);
      rig.point.unsubscribe(early, 0);
      assertEquals(rig.events(), [{ type: "unsubscribed", id: early }]);

      const id = rig.point.subscribe(service, 0);
      rig.point.handleSocket(SOCKET, { ok: true, local: AT }, 0);
      const [request] = rig.requests();
      rig.point.unsubscribe(id, 0);
      assertEquals(rig.requests(), []);
      rig.answer(request!, made("uuid:1"));
      const [leave] = rig.requests();
      assertEquals(leave!.request.headers, [["SID", "uuid:1"]]);
      rig.answer(leave!, refusal);
      assertEquals(rig.events(), [{ type: "unsubscribed", id }]);

      const refused = rig.point.subscribe(service, 0);
      rig.point.handleSocket(SOCKET, { ok: true, local: AT }, 0);
      const [last] = rig.requests();
      rig.point.unsubscribe(refused, 0);
      rig.answer(last!, refusal);
      assertEquals([rig.requests(), rig.events()], [[], [{ type: "unsubscribed", id: refused }]]);
    });

    it("fail where this host cannot listen, and where the service has no events", () => {
      const rig = new Rig();
      const service = rig.find(deviceOf({ eventUrl: "/evt" }));
      const id = rig.point.subscribe(service, 0);
      const failure = { code: "permission", message: "no" } as const;
      rig.point.handleSocket(SOCKET, { ok: false, isOpen: false, ...failure }, 0);
      const told = { type: "failed", id, failure: { kind: "cannot-listen", ...failure } } as const;
      assertEquals(rig.events(), [told]);
      const again = rig.point.subscribe(service, 0);
      assertEquals(rig.events(), []);
      rig.point.handleSocket(SOCKET, { ok: true, local: AT }, 0);
      assertEquals(rig.requests().length, 1);
      rig.point.cancel(again, 0);

      const mute = new Rig();
      const without = mute.point.subscribe(mute.find(deviceOf()), 0);
      const badUrl = { kind: "bad-url", fault: "bad-url" } as const;
      assertEquals(mute.events(), [{ type: "failed", id: without, failure: badUrl }]);
    });

    it("fail with their device, and with the machine", () => {
      const { rig, id, service } = subscribed();
      rig.bye("192.168.1.1");
      assertEquals(rig.events()[0], { type: "failed", id, failure: { kind: "gone" } });
      assertEquals(rig.point.nextTimeout(), undefined);

      const other = rig.point.subscribe(service, 0);
      rig.point.close(1);
      const late = rig.point.subscribe(service, 2);
      const failure = { kind: "closed" } as const;
      assertEquals(rig.events(), [other, late].map((id) => ({ type: "failed", id, failure })));
      assertEquals(rig.point.sockets(), []);
    });

    it("that fail while they are asked for keep the device to one question at a time", () => {
      const rig = new Rig();
      const service = rig.find(deviceOf({ eventUrl: "/evt" }));
      rig.point.subscribe(service, 0);
      rig.point.handleSocket(SOCKET, { ok: true, local: AT }, 0);
      const [request] = rig.requests();
      rig.bye("192.168.1.1");
      rig.point.call(service, "Do", {}, 0);
      assertEquals(rig.requests(), []);
      rig.answer(request!, made("uuid:1"));
      assertEquals(rig.requests().map(({ request: { method } }) => method), ["POST"]);
      assertEquals(rig.point.stats.stray, 0);
    });

    it("are asked for once where their socket is told of twice meanwhile", () => {
      const rig = new Rig();
      rig.point.subscribe(rig.find(deviceOf({ eventUrl: "/evt" })), 0);
      for (let i = 0; i < 2; i++) rig.point.handleSocket(SOCKET, { ok: true, local: AT }, 0);
      rig.answer(rig.requests()[0]!, made("uuid:1"));
      assertEquals(rig.requests(), []);
    });

    it("end as it was wished where their device goes meanwhile", () => {
      const { rig, id } = subscribed();
      rig.point.unsubscribe(id, 0);
      const [leave] = rig.requests();
      rig.bye("192.168.1.1");
      assertEquals(rig.events()[0], { type: "unsubscribed", id });
      rig.answer(leave!, refusal);
      assertEquals(rig.events(), []);
    });

    it("are given up without a word, and end at the device all the same", () => {
      const { rig, id, service } = subscribed();
      rig.point.cancel(id, 0);
      const [leave] = rig.requests();
      const { request, maxBytes, timeoutMs } = leave!;
      assertEquals([request.method, maxBytes, timeoutMs], ["UNSUBSCRIBE", 65_536, 10_000]);
      assertEquals(notify(rig, id, 1), 412);
      rig.answer(leave!, refusal);
      assertEquals([rig.events(), rig.point.debugTimeout()], [[], undefined]);

      const waiting = rig.point.subscribe(service, 0);
      rig.point.cancel(waiting, 0);
      assertEquals([rig.requests(), rig.events()], [[], []]);
    });

    it("do not keep the end of a search waiting", () => {
      const { rig } = subscribed();
      rig.point.search(0, 10);
      rig.point.handleTimeout(150_000);
      assertEquals(rig.requests().length, 1);
      assertEquals(rig.told(), ["searched"]);
    });
  });

  it("ends what was asked when it is closed, and asks nothing afterwards", () => {
    const rig = new Rig();
    const service = rig.find();
    const asked = rig.point.call(service, "Do", {}, 0);
    const waiting = rig.point.describe(service, 0);
    rig.requests();
    rig.point.close(1);
    const late = rig.point.call(service, "Do", {}, 2);

    const failure = { kind: "closed" } as const;
    assertEquals(
      rig.events(),
      [asked, waiting, late].map((id) => ({ type: "failed", id, failure })),
    );
    assertEquals([rig.requests(), rig.point.sockets(), rig.point.nextTimeout()], [
      [],
      [],
      undefined,
    ]);
  });

  it("asks to be drained at the last time that it was told anything (rule 3)", () => {
    const point = new ControlPoint({ places: [{ local: HOST }], targets: ["a"] });
    const service = new Rig().find();
    point.search(0);
    const calls: ((now: number) => unknown)[] = [
      (now) => point.handleSocket(KEY, { ok: true, local: GROUP }, now),
      (now) => point.handleUnreachable(GROUP, KEY, now),
      (now) => point.handleDatagram(new Uint8Array(0), GROUP, KEY, now),
      (now) => point.handleResponse(7, { ok: false, reason: "failed" }, now),
      (now) => point.handleTimeout(now),
      (now) => point.describe(service, now),
      (now) => point.call(service, "A", {}, now),
      (now) => point.cancel(1, now),
      (now) => point.endSearch(now),
      (now) => point.search(now),
      (now) => point.close(now),
    ];
    for (const [i, call] of calls.entries()) {
      call(10 + i);
      assertEquals(point.nextTimeout(), 10 + i);
    }
  });

  it("names the caller's mistakes, before anything is asked", () => {
    const rig = new Rig();
    const service = rig.find();

    assertThrows(() => rig.point.call(service, "A B", {}, 0), TypeError, "'action'");
    assertThrows(() => rig.point.call(service, "A", { "": "" }, 0), TypeError, "'argument'");
    assertThrows(() => rig.point.search(0, 0), RangeError, "'durationMs'");
    for (const timeoutMs of [0, 600_001]) {
      assertThrows(() => new Rig({ timeoutMs }), RangeError, "'timeoutMs'");
    }
    for (const timeoutMs of [1, 600_000, undefined]) {
      const patient = new Rig(timeoutMs === undefined ? {} : { timeoutMs });
      patient.point.call(patient.find(), "A", {}, 0);
      assertEquals(patient.requests()[0]?.timeoutMs, timeoutMs ?? 30_000);
    }
    assertEquals(drain(rig.point), []);
    assertEquals(rig.point.call(service, "A", {}, 0), 1);
  });
});
