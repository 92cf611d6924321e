/**
 * How the control point joins the machine contract's table of tests.
 *
 * @module
 */
import type { HttpResult, Instant } from "../../../core/machine.ts";
import { below } from "../../../core/random.ts";
import { ControlPoint, type FoundService } from "../../../core/upnp/control_point.ts";
import { writeDescription, writeScpd } from "../../../core/upnp/description.ts";
import { encodeEvent, encodeSubscribed } from "../../../core/upnp/gena.ts";
import { encodeFault, encodeResult } from "../../../core/upnp/soap.ts";
import {
  decodeSsdp,
  encodeAdvert,
  encodeSearchResponse,
  isGroup,
} from "../../../core/upnp/ssdp.ts";
import type { MachineCase, WorldAction } from "../machine_case.ts";

const HOST = "192.168.1.100";
const DEVICE = { address: "192.168.1.1", port: 1900 };
const LOCATION = "http://192.168.1.1:5000/desc.xml";
const SERVICE = {
  serviceType: "urn:x:service:A:1",
  serviceId: "urn:x:serviceId:A",
  controlUrl: "/ctl",
  eventUrl: "/evt",
  scpdUrl: "/scpd.xml",
};
const ROOT = {
  deviceType: "urn:x:device:B:1",
  friendlyName: "B",
  manufacturer: "C",
  modelName: "D",
  udn: "uuid:1",
};
const FOUND: FoundService = {
  ...SERVICE,
  device: ROOT,
  root: {
    location: LOCATION,
    to: { address: DEVICE.address, port: 5000 },
    path: "/desc.xml",
    from: DEVICE,
    local: HOST,
    udn: "uuid:1",
    target: "upnp:rootdevice",
  },
  control: { to: { address: DEVICE.address, port: 5000 }, path: "/ctl" },
  scpd: { to: { address: DEVICE.address, port: 5000 }, path: "/scpd.xml" },
  events: { to: { address: DEVICE.address, port: 5000 }, path: "/evt" },
};

/** What the device answers to what a control point asks. */
function answerTo({ request }: WorldAction & { readonly type: "request" }): HttpResult {
  const page = (body: Uint8Array): HttpResult => ({ ok: true, status: 200, headers: [], body });
  if (request.path === "/desc.xml") {
    return page(
      writeDescription({ device: { ...ROOT, services: [SERVICE], devices: [] }, urlBase: "" }),
    );
  }
  if (request.path === "/evt") {
    return { ok: true, ...encodeSubscribed({ sid: "uuid:sid", timeoutSeconds: 300 }) };
  }
  if (request.path === "/scpd.xml") return page(writeScpd({ actions: [], variables: [] }));
  const call = { service: SERVICE.serviceType, action: "Do", args: { Result: "1" } };
  return { ok: true, ...encodeResult(call) };
}

/** Opens the sockets for events, or fails to. */
function listen(machine: ControlPoint, now: Instant, ok = true): void {
  for (const { key, kind, local } of machine.sockets()) {
    if (kind !== "http") continue;
    const failure = { ok: false, code: "network", message: "no", isOpen: false } as const;
    const open = { ok: true, local: { address: local!.address, port: 7000 } } as const;
    machine.handleSocket(key, ok ? open : failure, now);
  }
}

/** A control point beside one device, which is asked for its description and to act. */
export const controlPointCase: MachineCase = {
  name: "ControlPoint",
  create() {
    const machine = new ControlPoint({
      places: [{ local: HOST, gateway: DEVICE.address }],
      targets: ["upnp:rootdevice"],
    });
    const advert = {
      target: "upnp:rootdevice",
      usn: "uuid:1::upnp:rootdevice",
      location: LOCATION,
    };
    let failing: "" | "timeout" | "refuses" = "";
    return {
      machine,
      begin(now) {
        machine.search(now);
        for (const { key, local } of machine.sockets()) {
          machine.handleSocket(
            key,
            { ok: true, local: { address: local!.address, port: 4000 } },
            now,
          );
        }
        machine.describe(FOUND, now);
        machine.call(FOUND, "Do", {}, now);
        machine.subscribe(FOUND, now);
        listen(machine, now);
      },
      reply(sent) {
        const message = decodeSsdp(sent.data);
        if (typeof message === "string" || isGroup(sent.to)) return undefined;
        return { data: encodeSearchResponse(advert), from: DEVICE };
      },
      perform(action, target, now) {
        if (action.type !== "request") return false;
        const { id } = action;
        if (failing === "refuses") {
          target.handleResponse!(id, { ok: true, ...encodeFault(501, "") }, now);
        } else if (failing !== "") {
          target.handleResponse!(id, { ok: false, reason: "timeout" }, now);
        } else target.handleResponse!(id, answerTo(action), now);
        return true;
      },
      ids: {
        begin(random, now) {
          return below(random, 2)
            ? machine.describe(FOUND, now)
            : machine.call(FOUND, "Do", {}, now);
        },
        turn(random, id, now) {
          if (below(random, 2)) machine.unsubscribe(id, now);
          if (below(random, 2)) return;
          machine.cancel(id, now);
          return "given up";
        },
        disturb(random, now, ids) {
          if (below(random, 2)) listen(machine, now, below(random, 4) > 0);
          const id = ids[below(random, Math.max(1, ids.length))] ?? 0;
          const event = { sid: "uuid:sid", sequence: below(random, 3), properties: { A: "1" } };
          machine.handleRequest(1, encodeEvent(`/${id}`, event), DEVICE, now);
          failing = (["", "", "timeout", "refuses"] as const)[below(random, 4)]!;
          if (below(random, 4) === 0) machine.search(now);
          const kind = below(random, 2) ? "alive" : "byebye";
          const data = encodeAdvert(kind, { address: "239.255.255.250", port: 1900 }, {
            ...advert,
            bootId: below(random, 3),
          });
          machine.handleDatagram(data, DEVICE, `adverts ${HOST}`, now);
        },
        isFinal(event) {
          const { type } = event as { readonly type: string };
          return ["described", "called", "failed", "unsubscribed"].includes(type);
        },
        close: (now) => machine.close(now),
      },
    };
  },
};
