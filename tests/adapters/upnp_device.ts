/**
 * A UPnP device on loopback, with an SSDP port of its own: a lamp that can be switched, whose answers
 * a test can spoil.
 *
 * @module
 */
import { systemRuntime } from "../../adapters/auto.ts";
import type { UpnpClientOptions } from "../../adapters/api/upnp_client.ts";
import { openHttp } from "../../adapters/net.ts";
import type { Http, UdpSocket } from "../../adapters/runtime.ts";
import type { Endpoint, HttpRequest, HttpResponse } from "../../core/machine.ts";
import { writeDescription, writeScpd } from "../../core/upnp/description.ts";
import { decodeSubscribe, encodeEvent, encodeSubscribed } from "../../core/upnp/gena.ts";
import { decodeCall, encodeFault, encodeResult } from "../../core/upnp/soap.ts";
import { decodeSsdp, encodeSearchResponse } from "../../core/upnp/ssdp.ts";

const HOST = "127.0.0.1";

/** The lamp's service. */
export const POWER = "urn:schemas-upnp-org:service:SwitchPower:1";

/** What it answers, where a test wants something else; undefined where it keeps silent. */
export type Spoil = (request: HttpRequest) => HttpResponse | "silence" | undefined;

/** A page with a status. */
export function page(status: number, text: string = ""): HttpResponse {
  return { status, headers: [], body: new TextEncoder().encode(text) };
}

/** The device. */
export class UpnpDevice implements AsyncDisposable {
  /** What it was asked over HTTP: method, path, and the action with its arguments. */
  readonly asked: string[] = [];
  /** What it answers instead. */
  spoil: Spoil = () => undefined;
  /** Whether it answers searches. */
  isHeard = true;
  /** Where its changes are told. */
  readonly #subscribers = new Map<
    string,
    { readonly to: Endpoint; readonly path: string; sequence: number }
  >();
  /** Requests that it keeps silent about. */
  readonly #held: number[] = [];
  #isOn = false;
  #lastId = 0;
  #http: Http | undefined;
  #socket: UdpSocket | undefined;
  #location = "";

  /** Lets it appear. */
  static async start(): Promise<UpnpDevice> {
    const device = new UpnpDevice();
    device.#http = await openHttp({
      onResult: () => {},
      onRequest: (id, request) => {
        const response = device.#answer(request);
        if (response) device.#http!.respond({ type: "respond", id, response });
        else device.#held.push(id);
      },
    });
    const { local } = await device.#http.listen({ address: HOST, port: 0 });
    device.#location = `http://${HOST}:${local.port}/desc.xml`;
    device.#socket = await systemRuntime().openUdp({ local: { address: HOST, port: 0 } }, {
      onDatagram: (data, from) => {
        const message = decodeSsdp(data);
        if (typeof message === "string" || message.kind !== "search" || !device.isHeard) return;
        const { target } = message;
        const usn = `uuid:lamp::${target}`;
        const answer = encodeSearchResponse({ target, usn, location: device.#location });
        device.#socket!.send(answer, from);
      },
      onUnreachable() {},
      onError() {},
    });
    return device;
  }

  /** How to search where it is. */
  get options(): UpnpClientOptions {
    const { port } = this.#socket!.local;
    return { places: [{ local: HOST, networks: ["127.0.0.0/8"], gateway: HOST }], port };
  }

  /** The URL of its description. */
  get location(): string {
    return this.#location;
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#http?.close();
    this.#socket?.close();
    return Promise.resolve();
  }

  /** Refuses what it has kept silent about. */
  release(): void {
    for (const id of this.#held.splice(0)) {
      this.#http!.respond({ type: "respond", id, response: page(500) });
    }
  }

  /** How many follow its changes. */
  get subscribers(): number {
    return this.#subscribers.size;
  }

  #subscribe(request: HttpRequest): HttpResponse {
    const asked = decodeSubscribe(request);
    if (typeof asked === "string") return page(400);
    if (asked.kind === "unsubscribe") return page(this.#subscribers.delete(asked.sid) ? 200 : 412);
    if (asked.kind === "renew") return page(412);
    const { hostname, port, pathname: path } = new URL(asked.callbacks[0]!);
    const sid = `uuid:${++this.#lastId}`;
    this.#subscribers.set(sid, {
      to: { address: hostname, port: Number(port) },
      path,
      sequence: 0,
    });
    this.#notify(sid);
    return encodeSubscribed({ sid, timeoutSeconds: 300 });
  }

  #notify(sid: string): void {
    const subscriber = this.#subscribers.get(sid)!;
    const { to, path } = subscriber;
    const properties = { Status: this.#isOn ? "1" : "0" };
    const request = encodeEvent(path, { sid, sequence: subscriber.sequence++, properties });
    const limits = { maxBytes: 1000, timeoutMs: 5000 };
    this.#http!.request({ type: "request", id: ++this.#lastId, to, request, ...limits });
  }

  #answer(request: HttpRequest): HttpResponse | undefined {
    const call = request.method === "POST" ? decodeCall(request) : "no-action";
    const what = typeof call === "object" ? ` ${call.action} ${JSON.stringify(call.args)}` : "";
    this.asked.push(`${request.method} ${request.path}${what}`);
    const spoilt = this.spoil(request);
    if (spoilt) return spoilt === "silence" ? undefined : spoilt;
    if (request.path === "/evt/power") return this.#subscribe(request);
    if (request.path === "/desc.xml") return { ...page(200), body: describeDevice() };
    if (request.path === "/power.xml") return { ...page(200), body: describeService() };
    if (typeof call === "string") return page(404);
    const { action, args } = call;
    if (action === "SetTarget") {
      if (!/^[01]$/.test(args["NewTarget"] ?? "")) return encodeFault(402, "Invalid Args");
      this.#isOn = args["NewTarget"] === "1";
      for (const sid of this.#subscribers.keys()) this.#notify(sid);
      return encodeResult({ service: POWER, action, args: {} });
    }
    if (action === "GetStatus") {
      const status = { ResultStatus: this.#isOn ? "1" : "0" };
      return encodeResult({ service: POWER, action, args: status });
    }
    return encodeFault(401, "");
  }
}

function describeDevice(): Uint8Array {
  const service = {
    serviceType: POWER,
    serviceId: "urn:upnp-org:serviceId:SwitchPower",
    controlUrl: "ctl/power",
    eventUrl: "/evt/power",
    scpdUrl: "/power.xml",
  };
  const device = {
    deviceType: "urn:schemas-upnp-org:device:BinaryLight:1",
    friendlyName: "Lamp",
    manufacturer: "natkit",
    modelName: "1",
    udn: "uuid:lamp",
    services: [
      service,
      {
        ...service,
        serviceType: "urn:x:service:Other:2",
        serviceId: "x",
        scpdUrl: "",
        eventUrl: "",
      },
    ],
    devices: [],
  };
  return writeDescription({ device, urlBase: "" });
}

function describeService(): Uint8Array {
  const target = { relatedVariable: "Target", type: "boolean" } as const;
  return writeScpd({
    actions: [
      {
        name: "SetTarget",
        arguments: [
          { name: "NewTarget", direction: "in", ...target },
          { name: "NewReason", direction: "in", relatedVariable: "Reason", type: "string" },
        ],
      },
      { name: "GetStatus", arguments: [{ name: "ResultStatus", direction: "out", ...target }] },
    ],
    variables: [
      { name: "Target", type: "boolean", isEvented: false },
      { name: "Reason", type: "string", isEvented: false },
    ],
  });
}
