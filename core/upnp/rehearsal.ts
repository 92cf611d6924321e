/**
 * What a client does from a device's answer to a mapping, once, with a device that is none.
 *
 * Each function takes several times as long when it runs for the first time in a process, ten
 * milliseconds in all, and a search leaves the time for that: devices take fifty and more to answer.
 *
 * @module
 */
import type { HttpRequest, HttpResponse } from "../machine.ts";
import type { RandomSource } from "../random.ts";
import { IgdClient } from "./client.ts";
import { IGD_ERROR, IGD_SERVICE } from "./igd.ts";
import { decodeCall, encodeFault, encodeResult, type SoapArguments } from "./soap.ts";
import { SSDP_PORT } from "./ssdp.ts";

/** Two hosts of no network (RFC 5737). */
const DEVICE = "192.0.2.1", HOST = "192.0.2.2";
const NO_RANDOM: RandomSource = { u32: () => 0, fill: (bytes) => void bytes.fill(0) };

const SEARCH_ANSWER = `HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nUSN: uuid:0\r\n` +
  `LOCATION: http://${DEVICE}/\r\n\r\n`;
const DESCRIPTION = "<root><device><serviceList><service>" +
  `<serviceType>${IGD_SERVICE.WAN_IP_2}</serviceType><controlURL>/c</controlURL>` +
  "<eventSubURL>/e</eventSubURL></service></serviceList></device></root>";
const ANSWERS: Readonly<Record<string, SoapArguments>> = {
  GetExternalIPAddress: { NewExternalIPAddress: "192.0.2.3" },
  AddAnyPortMapping: { NewReservedPort: "1" },
};

/**
 * Has a client find a device, and map a port there: nothing leaves, and nothing is kept.
 *
 * @returns Whether it came to a mapping.
 */
export function rehearse(): boolean {
  let isMapped = false;
  const client = new IgdClient({
    gateway: { address: DEVICE, port: SSDP_PORT },
    localAddress: HOST,
    random: NO_RANDOM,
    announcements: false,
  });
  client.probe(0);
  const { key } = client.sockets()[0]!;
  client.handleSocket(key, { ok: true, local: { address: HOST, port: 1 } }, 0);
  const answer = new TextEncoder().encode(SEARCH_ANSWER);
  client.handleDatagram(answer, { address: DEVICE, port: SSDP_PORT }, key, 0);
  for (let action = client.poll(); action; action = client.poll()) {
    if (action.type === "request") {
      client.handleResponse(action.id, { ok: true, ...answerTo(action.request) }, 0);
    } else if (action.type === "event") {
      if (action.event.type === "external-address") {
        client.map({ protocol: "tcp", internalPort: 1 }, 0);
      }
      isMapped ||= action.event.type === "mapped";
    }
  }
  return isMapped;
}

function answerTo(request: HttpRequest): HttpResponse {
  const call = decodeCall(request);
  if (typeof call === "string") {
    return { status: 200, headers: [], body: new TextEncoder().encode(DESCRIPTION) };
  }
  const args = ANSWERS[call.action];
  return args ? encodeResult({ ...call, args }) : encodeFault(IGD_ERROR.NoSuchEntryInArray, "");
}
