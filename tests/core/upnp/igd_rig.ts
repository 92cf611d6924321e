/**
 * A simulated Internet gateway device driven by hand: calls, searches, descriptions, events.
 *
 * @module
 */
import { SimulatedGateway, type SimulatedGatewayOptions } from "../../../core/gateway/gateway.ts";
import { type CommandOutcome, runCommand } from "../../../core/gateway/run_command.ts";
import { parseCommand } from "../../../core/gateway/scenario.ts";
import type {
  Endpoint,
  HttpHeaders,
  HttpRequest,
  HttpResponse,
  Instant,
  RequestAction,
  SendAction,
} from "../../../core/machine.ts";
import { seededRandom } from "../../../core/random.ts";
import type { ServerEvent } from "../../../core/table/server_request.ts";
import {
  allServices,
  type Description,
  readDescription,
  type Service,
} from "../../../core/upnp/description.ts";
import { IGD_SERVICE } from "../../../core/upnp/igd.ts";
import { decodeResult, encodeCall, type SoapArguments } from "../../../core/upnp/soap.ts";
import { decodeSsdp, encodeSearch, type SsdpMessage } from "../../../core/upnp/ssdp.ts";

export const ALICE: Endpoint = { address: "192.168.1.100", port: 40001 };
export const BOB: Endpoint = { address: "192.168.1.101", port: 40002 };
export const OWN = "192.168.1.1";
export const EXTERNAL = "203.0.113.7";
export const HTTP_PORT = 5000;
export const SSDP = { address: "239.255.255.250", port: 1900 };
const HOST: HttpHeaders = [["Host", `${OWN}:${HTTP_PORT}`]];

/** A mapping's arguments. */
export function mapping(
  externalPort: number,
  more: Partial<{
    remote: string;
    protocol: string;
    internalPort: number | string;
    client: string;
    enabled: string;
    description: string;
    lease: number | string;
  }> = {},
): SoapArguments {
  return {
    NewRemoteHost: more.remote ?? "",
    NewExternalPort: `${externalPort}`,
    NewProtocol: more.protocol ?? "TCP",
    NewInternalPort: `${more.internalPort ?? externalPort}`,
    NewInternalClient: more.client ?? ALICE.address,
    NewEnabled: more.enabled ?? "1",
    NewPortMappingDescription: more.description ?? "test",
    NewLeaseDuration: `${more.lease ?? 3600}`,
  };
}

/** What names a mapping. */
export function named(
  externalPort: number,
  protocol: string = "TCP",
  remote: string = "",
): SoapArguments {
  return { NewRemoteHost: remote, NewExternalPort: `${externalPort}`, NewProtocol: protocol };
}

/** What left, by kind. */
export interface Left {
  readonly sent: SendAction[];
  readonly responses: { readonly id: number; readonly response: HttpResponse }[];
  readonly requests: RequestAction[];
}

/** A gateway with UPnP that has booted, with its sockets open, at 0. */
export class IgdRig {
  readonly gateway: SimulatedGateway;
  readonly events: ServerEvent[] = [];
  now: Instant = 0;
  #lastId = 0;

  constructor(options: Partial<SimulatedGatewayOptions> = {}) {
    this.gateway = new SimulatedGateway({
      externalAddresses: [EXTERNAL],
      protocols: ["upnp"],
      random: seededRandom(1),
      announceTo: [],
      ...options,
      upnp: { interfaces: [{ address: OWN, prefixLength: 24 }], ...options.upnp },
    });
    this.gateway.start(0);
    this.openSockets();
  }

  /** Opens what is listed: HTTP at port 5000, the rest where it wants to be. */
  openSockets(): void {
    for (const { key, kind, local } of this.gateway.sockets!()) {
      const port = kind === "http" ? HTTP_PORT : local!.port || 1901;
      this.gateway.handleSocket(key, { ok: true, local: { ...local!, port } }, this.now);
    }
  }

  drain(): Left {
    const left: Left = { sent: [], responses: [], requests: [] };
    for (let action = this.gateway.poll(); action; action = this.gateway.poll()) {
      if (action.type === "send") left.sent.push(action);
      else if (action.type === "respond") left.responses.push(action);
      else if (action.type === "request") left.requests.push(action);
      else if (action.type === "event") this.events.push(action.event);
    }
    return left;
  }

  /** Runs the timers up to `until`. */
  runTo(until: Instant): (SendAction & { readonly at: Instant })[] {
    const sent: (SendAction & { readonly at: Instant })[] = [];
    for (;;) {
      const at = this.gateway.nextTimeout();
      if (at === undefined || at > until) break;
      this.now = Math.max(this.now, at);
      this.gateway.handleTimeout(this.now);
      for (const action of this.drain().sent) sent.push({ ...action, at: this.now });
    }
    this.now = until;
    return sent;
  }

  /** Asks by HTTP; the answer, where it comes at once. */
  ask(request: HttpRequest, from: Endpoint = ALICE, headers: HttpHeaders = HOST): Left {
    const id = ++this.#lastId;
    const whole = { ...request, headers: [...headers, ...request.headers] };
    this.gateway.handleRequest(id, whole, from, this.now);
    return this.drain();
  }

  get(path: string, from: Endpoint = ALICE, headers: HttpHeaders = HOST): HttpResponse | undefined {
    return this.ask({ method: "GET", path, headers: [] }, from, headers).responses[0]?.response;
  }

  describe(): Description {
    const description = readDescription(this.get("/rootDesc.xml")!.body);
    if (typeof description === "string") throw new Error(description);
    return description;
  }

  services(): readonly Service[] {
    return allServices(this.describe().device);
  }

  /** Calls an action of WANIPConnection; what it returns, or the error code. */
  call(
    action: string,
    args: SoapArguments = {},
    from: Endpoint = ALICE,
    service: string = IGD_SERVICE.WAN_IP_2,
    path: string = "/ctl/IPConn1",
  ): SoapArguments | number | string | undefined {
    const { responses } = this.ask(encodeCall({ service, action, args }, path), from);
    if (!responses[0]) return undefined;
    const result = decodeResult(responses[0].response);
    if (typeof result === "string") return `${responses[0].response.status}`;
    return result.ok ? result.args : result.code;
  }

  add(port: number, more: Parameters<typeof mapping>[1] = {}, from: Endpoint = ALICE): unknown {
    return this.call("AddPortMapping", mapping(port, { client: from.address, ...more }), from);
  }

  /** `external/protocol→inside` of each mapping. */
  table(): string[] {
    return this.gateway.list(this.now).map(({ external, protocol, internal }) =>
      `${external.port}/${protocol}→${internal.address}:${internal.port}`
    );
  }

  /** Searches; what is answered up to `until`, with its time. */
  search(
    target: string,
    { mx, from = ALICE, until = this.now + 6000 }: {
      mx?: number;
      from?: Endpoint;
      until?: Instant;
    } = {},
  ): { readonly at: Instant; readonly socket: string; readonly message: SsdpMessage }[] {
    const data = encodeSearch({ host: SSDP, target, ...mx !== undefined && { mx } });
    const socket = mx === undefined ? `ssdp ${OWN}` : `ssdp-group ${OWN}`;
    this.gateway.handleDatagram(data, from, socket, this.now);
    const at = this.now;
    const sent = [...this.drain().sent.map((action) => ({ ...action, at })), ...this.runTo(until)];
    return sent.filter(({ to }) => to.address === from.address && to.port === from.port)
      .map(({ at, socket, data }) => ({ at, socket, message: messageOf(data) }));
  }

  command(line: string): CommandOutcome {
    const parsed = parseCommand(line);
    if (!parsed.ok) return { isDone: false, message: parsed.message };
    return runCommand(this.gateway, parsed.command, this.now);
  }
}

export function messageOf(data: Uint8Array): SsdpMessage {
  const message = decodeSsdp(data);
  if (typeof message === "string") throw new Error(`${message}: ${new TextDecoder().decode(data)}`);
  return message;
}
