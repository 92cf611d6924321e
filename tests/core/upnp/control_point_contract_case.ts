/**
 * How the control point joins the machine contract's table of tests.
 *
 * @module
 */
import type { HttpResult } from "../../../core/machine.ts";
import { below } from "../../../core/random.ts";
import { ControlPoint, type FoundService } from "../../../core/upnp/control_point.ts";
import { writeDescription, writeScpd } from "../../../core/upnp/description.ts";
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
  eventUrl: "",
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
};

/** What the device answers to what a control point asks. */
function answerTo({ request }: WorldAction & { readonly type: "request" }): HttpResult {
  const page = (body: Uint8Array): HttpResult => ({ ok: true, status: 200, headers: [], body });
  if (request.path === "/desc.xml") {
    return page(
      writeDescription({ device: { ...ROOT, services: [SERVICE], devices: [] }, urlBase: "" }),
    );
  }
  if (request.path === "/scpd.xml") return page(writeScpd({ actions: [], variables: [] }));
  const call = { service: SERVICE.serviceType, action: "Do", args: { Result: "1" } };
  return { ok: true, ...encodeResult(call) };
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
          if (below(random, 2)) return;
          machine.cancel(id, now);
          return "given up";
        },
        disturb(random, now) {
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
          return ["described", "called", "failed"].includes(type);
        },
        close: (now) => machine.close(now),
      },
    };
  },
};
