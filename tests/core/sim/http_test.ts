import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import type {
  Action,
  DebugTimeout,
  Endpoint,
  HttpRequest,
  HttpResponse,
  HttpResult,
  Instant,
  Machine,
  SocketResult,
  SocketSpec,
} from "../../../core/machine.ts";
import { type Host, type LinkOptions, type Process, World } from "../../../core/sim/mod.ts";

interface Told {
  readonly at: Instant;
  readonly result?: HttpResult;
  readonly asked?: HttpRequest;
  readonly from?: Endpoint;
}

/** Asks when told to, and answers what it is asked with what it was asked. */
class Web implements Machine<Told> {
  readonly stats = {};
  readonly opened: SocketResult[] = [];
  answers = true;
  #out: Action<Told>[] = [];
  readonly #local: Endpoint | undefined;
  #lastId = 0;

  constructor(local?: Endpoint) {
    this.#local = local;
  }

  sockets: () => readonly SocketSpec[] = () =>
    this.#local ? [{ key: "web", kind: "http", local: this.#local }] : [];

  ask(
    to: Endpoint,
    request: Partial<HttpRequest> = {},
    timeoutMs = 10_000,
    maxBytes = 1e6,
    local?: string,
  ): void {
    this.#out.push({
      type: "request",
      id: ++this.#lastId,
      to,
      ...(local !== undefined && { local }),
      request: { method: "GET", path: "/", headers: [], ...request },
      maxBytes,
      timeoutMs,
    });
  }

  handleSocket(_key: string, result: SocketResult): void {
    this.opened.push(result);
  }

  handleResponse(_id: number, result: HttpResult, at: Instant): void {
    this.#out.push({ type: "event", event: { at, result } });
  }

  handleRequest(id: number, request: HttpRequest, from: Endpoint, at: Instant): void {
    this.#out.push({ type: "event", event: { at, asked: request, from } });
    if (!this.answers) return;
    const headers = [["X-Path", request.path]] as const;
    this.respond(id, { status: 200, headers, body: request.body ?? new Uint8Array() });
  }

  respond(id: number, response: HttpResponse): void {
    this.#out.push({ type: "respond", id, response });
  }

  handleDatagram(): boolean {
    return false;
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

const SERVER = { address: "192.168.1.1", port: 80 };

interface Net {
  readonly world: World;
  readonly client: Process<Told, Web>;
  readonly server: Process<Told, Web>;
  readonly hosts: { readonly client: Host; readonly server: Host };
}

function net(link: LinkOptions = { delayMs: 10 }, seed = 1): Net {
  const world = new World({ seed });
  const lan = world.segment("lan", link);
  const clientHost = world.host("client"), serverHost = world.host("server");
  clientHost.attach(lan, "192.168.1.2");
  serverHost.attach(lan, "192.168.1.1");
  return {
    world,
    server: serverHost.run<Told, Web>(new Web(SERVER)),
    client: clientHost.run<Told, Web>(new Web()),
    hosts: { client: clientHost, server: serverHost },
  };
}

function resultOf({ client }: Net): Told | undefined {
  return client.takeEvents()[0]?.event;
}

/** The body, or why there is none. */
function bodyOf(told: Told | undefined): Uint8Array | string | undefined {
  const result = told?.result;
  return result && (result.ok ? result.body : result.reason);
}

describe("HTTP between machines of the simulation", () => {
  it("carries method, path, fields and body there and back in two round trips", () => {
    const all = net();
    const body = Uint8Array.of(1, 2, 3);
    const headers = [["SOAPAction", '"a#b"']] as const;
    all.client.do((web) => web.ask(SERVER, { method: "POST", path: "/ctl?x=1", headers, body }));
    all.world.runFor(1000);
    const [asked] = all.server.takeEvents();
    const { address, port } = asked!.event.from!;
    assertEquals([address, all.hosts.client.isBound(address, port)], ["192.168.1.2", false]);
    assertEquals(asked?.event.asked, {
      method: "POST",
      path: "/ctl?x=1",
      headers: [["Host", "192.168.1.1:80"], ["Content-Length", "3"], ["SOAPAction", '"a#b"']],
      body,
    });
    assertEquals(resultOf(all), {
      at: 40,
      result: {
        ok: true,
        status: 200,
        headers: [["Content-Length", "3"], ["X-Path", "/ctl?x=1"]],
        body,
      },
    });
    assertEquals(all.world.nextAt(), undefined);
  });

  it("asks from the address that the request names, and fails where the host has it no more", () => {
    const all = net();
    const [attached] = all.hosts.client.interfaces;
    const askFrom = (local: string) => {
      all.client.do((web) => web.ask(SERVER, {}, 10_000, 1e6, local));
      all.world.runFor(1000);
      return [all.server.takeEvents()[0]?.event.from?.address, bodyOf(resultOf(all))];
    };
    attached!.addAddress("192.168.1.3");
    assertEquals(askFrom("192.168.1.3"), ["192.168.1.3", new Uint8Array()]);
    attached!.removeAddress("192.168.1.3");
    assertEquals(askFrom("192.168.1.3"), [undefined, "failed"]);
  });

  it("sends a large body in parts, whole and in order, whatever overtakes", () => {
    for (let seed = 1; seed <= 20; seed++) {
      const all = net({ delayMs: 5, reorder: 0.5, duplicate: 0.2, loss: 0.1 }, seed);
      const body = Uint8Array.from({ length: 50_000 }, (_, i) => i % 251);
      all.client.do((web) => web.ask(SERVER, { method: "POST", body }, 600_000));
      all.world.runFor(600_000);
      assertEquals(bodyOf(resultOf(all)), body, `seed ${seed}`);
      assertEquals(all.server.takeEvents().length, 1);
    }
  });

  it("makes loss a delay of seconds", () => {
    const all = net();
    const lan = all.hosts.client.interfaces[0]!.segment.link;
    lan.set({ loss: 1 });
    all.client.do((web) => web.ask(SERVER));
    all.world.runFor(2500);
    lan.set({ loss: 0 });
    all.world.runFor(10_000);
    // Said at 0, at 1 s and at 3 s.
    assertEquals(resultOf(all)?.at, 3040);
  });

  it("times out where nothing gets through, and where nobody answers", () => {
    const lost = net({ delayMs: 1, loss: 1 });
    lost.client.do((web) => web.ask(SERVER, {}, 5000));
    lost.world.runFor(60_000);
    assertEquals(resultOf(lost), { at: 5000, result: { ok: false, reason: "timeout" } });
    const mute = net();
    mute.server.machine.answers = false;
    mute.client.do((web) => web.ask(SERVER, {}, 5000));
    mute.client.do((web) => web.ask(SERVER, {}, 60_000));
    mute.world.runFor(100_000);
    const results = mute.client.takeEvents().map(({ event }) => event);
    assertEquals(results[0], { at: 5000, result: { ok: false, reason: "timeout" } });
    const late = results[1]?.result;
    assertEquals(late?.ok && late.status, 503);
  });

  it("is over after its time, if only once the host is awake again", () => {
    const all = net();
    all.server.machine.answers = false;
    all.client.do((web) => web.ask(SERVER, {}, 5000));
    all.world.runFor(1000);
    all.hosts.client.suspend();
    all.world.runFor(60_000);
    assertEquals(resultOf(all), undefined);
    all.hosts.client.resume();
    all.world.runFor(0);
    assertEquals(resultOf(all), { at: 61_000, result: { ok: false, reason: "timeout" } });
  });

  it("is refused where nobody listens, at once, and hears nothing of a silent host", () => {
    const all = net();
    all.client.do((web) => web.ask({ ...SERVER, port: 81 }));
    all.world.runFor(1000);
    assertEquals(resultOf(all), { at: 20, result: { ok: false, reason: "refused" } });
    all.hosts.server.sendsUnreachable = false;
    all.client.do((web) => web.ask({ ...SERVER, port: 81 }, {}, 3000));
    all.world.runFor(60_000);
    assertEquals(resultOf(all), { at: 4000, result: { ok: false, reason: "timeout" } });
  });

  it("fails where the program behind the port is killed meanwhile", () => {
    const all = net();
    all.server.machine.answers = false;
    all.client.do((web) => web.ask(SERVER, { body: new Uint8Array(3000) }, 30_000));
    all.world.runFor(15);
    all.server.stop();
    all.world.runFor(60_000);
    assertEquals(resultOf(all)?.result, { ok: false, reason: "failed" });
  });

  it("takes no larger answer than asked for, and none that was cut off", () => {
    const all = net();
    const body = new Uint8Array(2000);
    all.client.do((web) => web.ask(SERVER, { method: "POST", body }, 10_000, 1999));
    all.world.runFor(1000);
    assertEquals(resultOf(all)?.result, { ok: false, reason: "too-large" });
    all.server.machine.answers = false;
    all.client.do((web) => web.ask(SERVER));
    all.world.runFor(30);
    const headers = [["Content-Length", "20"]] as const;
    all.server.do((web) => web.respond(2, { status: 200, headers, body: new Uint8Array(19) }));
    all.world.runFor(1000);
    assertEquals(resultOf(all)?.result, { ok: false, reason: "failed" });
  });

  it("goes through a NAT by the NAT's endpoint", () => {
    const world = new World();
    const internet = world.segment("internet"), lan = world.segment("lan");
    world.nat("router", { inside: [lan, "192.168.1.1"], outside: [internet, "203.0.113.7"] });
    const far = world.host("far"), near = world.host("near");
    far.attach(internet, "198.51.100.1");
    near.attach(lan, "192.168.1.2", { gateway: "192.168.1.1" });
    const server = far.run<Told, Web>(new Web({ address: "0.0.0.0", port: 80 }));
    const client = near.run<Told, Web>(new Web());
    client.do((web) => web.ask({ address: "198.51.100.1", port: 80 }));
    world.runFor(1000);
    const [asked] = server.takeEvents(), [answered] = client.takeEvents();
    assertEquals(asked?.event.from?.address, "203.0.113.7");
    assertEquals(answered?.event.result?.ok, true);
  });

  it("listens on a free port, tells it, and not twice on one", () => {
    const all = net();
    const free = all.hosts.server.run<Told, Web>(new Web({ address: "192.168.1.1", port: 0 }));
    const [opened] = free.machine.opened;
    const local = opened?.ok ? opened.local : SERVER;
    assert(local.port >= 49152);
    all.client.do((web) => web.ask(local));
    all.world.runFor(1000);
    assertEquals(resultOf(all)?.result?.ok, true);
    const second = all.hosts.server.run<Told, Web>(new Web(SERVER));
    assertEquals(second.machine.opened.map(({ ok }) => ok), [false]);
    all.server.stop();
    all.hosts.server.run<Told, Web>(new Web(SERVER));
    all.client.do((web) => web.ask(SERVER));
    all.world.runFor(1000);
    assertEquals(resultOf(all)?.result?.ok, true);
  });

  it("answers 503 for a program that takes longer than half a minute", () => {
    const all = net();
    all.server.machine.answers = false;
    all.client.do((web) => web.ask(SERVER, {}, 60_000));
    all.world.runFor(30_039);
    assertEquals(resultOf(all), undefined);
    all.world.runFor(1);
    const headers = [["Content-Length", "0"]] as const;
    const body = new Uint8Array(0);
    assertEquals(resultOf(all), { at: 30_040, result: { ok: true, status: 503, headers, body } });
  });

  it("takes 64 requests at a time, refuses the next, and takes others when those are over", () => {
    const all = net();
    all.server.machine.answers = false;
    for (let i = 0; i < 65; i++) all.client.do((web) => web.ask(SERVER, {}, 60_000));
    all.world.runFor(1000);
    assertEquals(all.server.takeEvents().length, 64);
    assertEquals(bodyOf(resultOf(all)), "refused");
    all.world.runFor(60_000);
    all.server.machine.answers = true;
    all.client.takeEvents();
    all.client.do((web) => web.ask(SERVER));
    all.world.runFor(1000);
    assertEquals(bodyOf(resultOf(all)), new Uint8Array(0));
  });

  it("forgets who began and never asked, after half a minute", () => {
    const all = net();
    const { link } = all.hosts.client.interfaces[0]!.segment;
    for (let i = 0; i < 64; i++) all.client.do((web) => web.ask(SERVER, {}, 100));
    all.world.runFor(15);
    link.set({ loss: 1 });
    all.world.runFor(1000);
    link.set({ loss: 0 });
    all.client.takeEvents();
    all.client.do((web) => web.ask(SERVER));
    all.world.runFor(1000);
    assertEquals(bodyOf(resultOf(all)), "refused");
    all.world.runUntil(30_010);
    all.client.do((web) => web.ask(SERVER));
    all.world.runFor(1000);
    assertEquals(bodyOf(resultOf(all)), new Uint8Array(0));
  });

  it("offers its answer for a minute", () => {
    const offered = [[30_000, new Uint8Array(0)], [32_000, "failed"]] as const;
    for (const [downUntil, body] of offered) {
      const all = net();
      const { link } = all.hosts.client.interfaces[0]!.segment;
      all.client.do((web) => web.ask(SERVER, {}, 120_000));
      all.world.runUntil(25);
      link.set({ loss: 1 });
      all.world.runUntil(downUntil);
      link.set({ loss: 0 });
      all.world.runUntil(100_000);
      assertEquals(bodyOf(resultOf(all)), body);
      assertEquals(all.server.takeEvents().length, 1);
    }
  });

  it("takes an answer of as many bytes as asked for, and no more of it than it says", () => {
    const all = net();
    const body = new Uint8Array(2000);
    all.client.do((web) => web.ask(SERVER, { method: "POST", body }, 10_000, 2000));
    all.world.runFor(1000);
    assertEquals(bodyOf(resultOf(all)), body);
    const headers = [["Content-Length", "3"]] as const;
    all.server.machine.handleRequest = function (id) {
      this.respond(id, { status: 200, headers, body: Uint8Array.of(1, 2, 3, 4) });
    };
    all.client.do((web) => web.ask(SERVER, {}, 10_000, 3));
    all.world.runFor(1000);
    assertEquals(bodyOf(resultOf(all)), Uint8Array.of(1, 2, 3));
  });

  it("adds no field that the message has itself, and no length to chunks", () => {
    const all = net();
    const ask = (headers: [string, string][], body?: Uint8Array) => {
      all.client.do((web) => web.ask(SERVER, { headers, ...(body && { body }) }));
      all.world.runFor(1000);
      return all.server.takeEvents()[0]?.event.asked?.headers;
    };
    assertEquals(ask([]), [["Host", "192.168.1.1:80"]]);
    const host: [string, string] = ["HOST", "a"],
      length: [string, string] = ["content-length", "1"];
    const chunks: [string, string] = ["transfer-encoding", "chunked"];
    assertEquals(ask([host, length], new Uint8Array(1)), [host, length]);
    assertEquals(ask([host, chunks], new Uint8Array(1)), [host, chunks]);
  });

  it("fits its packets to a link's usual MTU, and fills them", () => {
    const all = net();
    all.server.machine.handleRequest = function (id) {
      this.respond(id, { status: 200, headers: [], body: new Uint8Array() });
    };
    const { stats } = all.hosts.client.interfaces[0]!.segment.link;
    const head = "POST / HTTP/1.1\r\nHost: 192.168.1.1:80\r\nContent-Length: 2000\r\n\r\n".length;
    const packets = [2800, 2801].map((bytes) => {
      const before = stats.offered;
      const body = new Uint8Array(bytes - head);
      all.client.do((web) => web.ask(SERVER, { method: "POST", body }));
      all.world.runFor(1000);
      return stats.offered - before;
    });
    // Connected, and answered, by two each; each part and its receipt.
    assertEquals([packets, stats.tooBig], [[4 + 2 * 2, 4 + 2 * 3], 0]);
  });
});
