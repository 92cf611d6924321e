import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import type {
  Action,
  DebugTimeout,
  Endpoint,
  HttpRequest,
  HttpResult,
  Instant,
  Machine,
  SocketSpec,
} from "../../../core/machine.ts";
import { seededRandom } from "../../../core/random.ts";
import { World } from "../../../core/sim/mod.ts";
import type { ServerEvent } from "../../../core/table/server_request.ts";
import { decodeEvent, encodeSubscribe } from "../../../core/upnp/gena.ts";
import { IGD_SERVICE } from "../../../core/upnp/igd.ts";
import { encodeCall } from "../../../core/upnp/soap.ts";
import { decodeSsdp, encodeSearch } from "../../../core/upnp/ssdp.ts";

const GATEWAY = "192.168.1.1", CLIENT = "192.168.1.2";
const GROUP = { address: "239.255.255.250", port: 1900 };

interface Told {
  readonly at: Instant;
  readonly location?: string;
  readonly result?: HttpResult;
  readonly event?: string;
}

/** As plain a control point as there is: searches, asks, and takes events. */
class ControlPoint implements Machine<Told> {
  readonly stats = {};
  #out: Action<Told>[] = [];
  #lastId = 0;
  port = 0;

  sockets: () => readonly SocketSpec[] = () => [
    { key: "client" },
    { key: "events", kind: "http", local: { address: CLIENT, port: 0 } },
  ];
  search(target: string): void {
    const data = encodeSearch({ host: GROUP, target, mx: 1 });
    this.#out.push({ type: "send", socket: "client", to: GROUP, data });
  }
  ask(to: Endpoint, request: HttpRequest): void {
    const id = ++this.#lastId;
    this.#out.push({ type: "request", id, to, request, maxBytes: 65_536, timeoutMs: 20_000 });
  }
  handleSocket(key: string, result: { ok: boolean; local?: Endpoint }): void {
    if (key === "events") this.port = result.local!.port;
  }
  handleDatagram(data: Uint8Array, _from: Endpoint, _socket: string, at: Instant): boolean {
    const message = decodeSsdp(data);
    if (typeof message === "string" || message.kind !== "response") return false;
    this.#out.push({ type: "event", event: { at, location: message.location! } });
    return true;
  }
  handleResponse(_id: number, result: HttpResult, at: Instant): void {
    this.#out.push({ type: "event", event: { at, result } });
  }
  handleRequest(id: number, request: HttpRequest, _from: Endpoint, at: Instant): void {
    const event = decodeEvent(request);
    const text = typeof event === "string"
      ? event
      : `${event.sequence} ${event.properties["PortMappingNumberOfEntries"]}`;
    this.#out.push({ type: "event", event: { at, event: text } });
    this.#out.push({
      type: "respond",
      id,
      response: { status: 200, headers: [], body: new Uint8Array() },
    });
  }
  handleUnreachable(): void {}
  handleTimeout(): void {}
  nextTimeout(): undefined {}
  debugTimeout(): DebugTimeout | undefined {
    return undefined;
  }
  poll(): Action<Told> | undefined {
    return this.#out.shift();
  }
}

function home(options: { profile?: string } = {}) {
  const world = new World({ seed: 3 });
  const lan = world.segment("lan", { delayMs: 2 });
  const router = world.host("router"), laptop = world.host("laptop");
  router.attach(lan, GATEWAY);
  laptop.attach(lan, CLIENT);
  const gateway = router.run<ServerEvent, SimulatedGateway>(
    new SimulatedGateway({
      externalAddresses: ["203.0.113.7"],
      random: seededRandom(5),
      protocols: ["pcp", "upnp"],
      listen: { address: GATEWAY, port: 5351 },
      ...options,
    }),
  );
  gateway.do((machine, now) => machine.start(now));
  const client = laptop.run<Told, ControlPoint>(new ControlPoint());
  return { world, gateway, client, lan };
}

function portOf(location: string): number {
  return Number(/:(\d+)\//.exec(location)?.[1]);
}

function addPort(port: number): HttpRequest {
  return encodeCall({
    service: IGD_SERVICE.WAN_IP_2,
    action: "AddPortMapping",
    args: {
      NewRemoteHost: "",
      NewExternalPort: `${port}`,
      NewProtocol: "UDP",
      NewInternalPort: "6000",
      NewInternalClient: CLIENT,
      NewEnabled: "1",
      NewPortMappingDescription: "world",
      NewLeaseDuration: "600",
    },
  }, "/ctl/IPConn1");
}

describe("a gateway with UPnP in the virtual network", () => {
  it("is found by multicast, described, asked to map, and tells who subscribed", () => {
    const { world, gateway, client } = home();
    world.runFor(1000);
    client.do((point) => point.search(IGD_SERVICE.WAN_IP_1));
    world.runFor(1100);
    const [found] = client.takeEvents();
    const location = found!.event.location!;
    assert(/^http:\/\/192\.168\.1\.1:\d+\/rootDesc\.xml$/.test(location), location);
    const to = { address: GATEWAY, port: portOf(location) };
    client.do((point) => point.ask(to, { method: "GET", path: "/rootDesc.xml", headers: [] }));
    world.runFor(100);
    const [described] = client.takeEvents();
    assert(described?.event.result?.ok);
    client.do((point) =>
      point.ask(to, encodeSubscribe("/evt/IPConn1", `http://${CLIENT}:${point.port}/`, 1800))
    );
    world.runFor(100);
    client.do((point) => point.ask(to, addPort(7000)));
    world.runFor(100);
    const told = client.takeEvents().map(({ event }) => event.event ?? event.result?.ok);
    assertEquals(told, [true, "0 0", true, "1 1"]);
    assertEquals(
      gateway.machine.list(world.now).map(({ external, internal, origin }) => [
        external.port,
        internal,
        origin,
      ]),
      [[7000, { address: CLIENT, port: 6000 }, "upnp"]],
    );
    // The lease runs out, and the subscriber hears of it.
    world.runFor(600_000);
    assertEquals(gateway.machine.list(world.now), []);
    assertEquals(client.takeEvents().map(({ event }) => event.event), ["2 0"]);
  });

  it("is late, lossy, deaf and gone by HTTP as it is by datagrams", () => {
    const { world, gateway, client } = home();
    world.runFor(1000);
    const to = { address: GATEWAY, port: portOf(gateway.machine.locations[0]!) };
    const ask = (line?: (machine: SimulatedGateway, now: Instant) => void, ms = 25_000) => {
      if (line) gateway.do(line);
      const from = world.now;
      client.do((point) => point.ask(to, addPort(7000)));
      world.runFor(ms);
      const [told] = client.takeEvents();
      const { at } = told!.event, result = told!.event.result!;
      return [result.ok ? result.status : result.reason, at - from];
    };
    assertEquals(ask(), [200, 8]);
    assertEquals(ask((machine, now) => machine.disturb({ delayMs: 500 }, now)), [200, 508]);
    const lossy = ask((machine, now) => machine.disturb({ delayMs: 0, lossRate: 1 }, now));
    assertEquals(lossy, ["timeout", 20_000]);
    assertEquals(ask((machine, now) => machine.disturb({ lossRate: 0 }, now)), [200, 8]);
    assertEquals(ask((machine, now) => machine.setDeaf(1, now)), ["timeout", 20_000]);
    assertEquals(ask((machine, now) => machine.setRefusal(725, now)), [500, 8]);
    assertEquals(ask((machine, now) => machine.setRefusal(undefined, now)), [200, 8]);
    assertEquals(ask((machine, now) => machine.setProtocol("upnp", false, now)), ["refused", 4]);
    gateway.do((machine, now) => machine.setProtocol("upnp", true, now));
    // The port stays.
    assertEquals(ask(), [200, 8]);
    assertEquals(ask((machine, now) => machine.setNat(false, now)), ["refused", 4]);
  });
});
