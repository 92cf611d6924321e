/** HTTP and TCP of the machine contract, on the runtime that the tests run on. */
import { assert, assertEquals } from "@std/assert";
import { afterEach, describe, it } from "node:test";
import type { Socket } from "node:net";
import { Driver } from "../../adapters/driver.ts";
import { openHttp } from "../../adapters/net.ts";
import type { Http } from "../../adapters/runtime.ts";
import type { Endpoint, HttpRequest, HttpResult } from "../../core/machine.ts";
import { Courier, type CourierEvent } from "../core/courier.ts";
import { guarded, runtime } from "./support.ts";

type Told<T extends CourierEvent["type"]> = Extract<CourierEvent, { readonly type: T }>;

/** A courier on a driver, with what it tells. */
class Station {
  readonly driver: Driver<CourierEvent, Courier>;
  readonly #told: CourierEvent[] = [];
  #wake = () => {};

  constructor(address: string) {
    this.driver = new Driver<CourierEvent, Courier>(runtime, (event) => {
      this.#told.push(event);
      this.#wake();
    });
    this.driver.start(new Courier(address));
  }

  /** The next event of a type, about an id where one is given; the others stay. */
  async next<T extends CourierEvent["type"]>(type: T, id?: number): Promise<Told<T>> {
    for (;;) {
      const at = this.#told.findIndex((event) =>
        event.type === type && (id === undefined || ("id" in event && event.id === id))
      );
      if (at >= 0) return this.#told.splice(at, 1)[0] as Told<T>;
      await guarded(new Promise<void>((resolve) => (this.#wake = resolve)));
    }
  }

  /** Lets it listen. */
  async listen(kind: "http" | "tcp", port: number = 0): Promise<Endpoint> {
    this.driver.do((courier, now) => courier.listen([kind], now, port));
    const { result } = await this.next("socket");
    if (!result.ok) throw new Error(result.message);
    return result.local;
  }

  ask(to: Endpoint, method: string, path: string, body?: string): Promise<Told<"answered">> {
    const id = this.driver.do((courier, now) => courier.ask(to, method, path, body, now));
    return this.next("answered", id);
  }

  dial(to: Endpoint, text: string, local?: Endpoint): number {
    return this.driver.do((courier, now) => courier.dial(to, text, now, local));
  }
}

describe("HTTP and streams on this runtime", () => {
  const open: { close(): void }[] = [];

  afterEach(() => {
    for (const one of open.splice(0)) one.close();
  });

  function station(address: string = "127.0.0.1"): Station {
    const made = new Station(address);
    open.push(made.driver);
    return made;
  }

  /** HTTP without a machine: what it answers, and the results of what it asks. */
  async function bare(answer: (http: Http, id: number, request: HttpRequest) => void = () => {}) {
    const results: ((result: HttpResult) => void)[] = [];
    const http: Http = await openHttp({
      onResult: (id, result) => results[id]!(result),
      onRequest: (id, request) => answer(http, id, request),
    });
    open.push(http);
    let lastId = 0;
    const ask = (to: Endpoint, limits = {}, path = "/"): Promise<HttpResult> =>
      guarded(
        new Promise((resolve) => {
          results[++lastId] = resolve;
          const request = { method: "GET", path, headers: [] };
          const defaults = { maxBytes: 1000, timeoutMs: 5000 };
          http.request({ type: "request", id: lastId, to, request, ...defaults, ...limits });
        }),
      );
    return { http, ask };
  }

  const LOOPBACK = { address: "127.0.0.1", port: 0 };

  for (const address of ["127.0.0.1", "::1"]) {
    it(`asks and answers on ${address}, with UPnP's methods and a field as it is spelled`, async () => {
      const [server, client] = [station(address), station(address)];
      const to = await server.listen("http");

      for (const method of ["POST", "SUBSCRIBE", "NOTIFY", "UNSUBSCRIBE"]) {
        const { status, body } = await client.ask(to, method, "/ctl?x=1", "<e/>");
        assertEquals([status, body], [200, `${method} /ctl?x=1 "urn:x#Test" <e/>`]);
      }
      assertEquals((await client.ask(to, "GET", "/")).body, 'GET / "urn:x#Test" ');
      assertEquals((await server.next("asked")).body, "<e/>");
    });
  }

  it("tells once that nobody listens, that an answer is too large and that it does not come", async () => {
    const body = new Uint8Array(1001);
    const { http, ask } = await bare((it, id, { path }) => {
      if (path === "/large") {
        it.respond({ type: "respond", id, response: { status: 200, headers: [], body } });
      }
    });
    const { local } = await http.listen(LOOPBACK);
    const gone = await http.listen(LOOPBACK);
    gone.close();

    assertEquals(await ask(gone.local), { ok: false, reason: "refused" });
    assertEquals(await ask(local, {}, "/large"), { ok: false, reason: "too-large" });
    const fits = await ask(local, { maxBytes: 1001 }, "/large");
    assertEquals(fits.ok && fits.body.length, 1001);
    assertEquals(await ask(local, { timeoutMs: 20 }, "/mute"), { ok: false, reason: "timeout" });
  });

  it("looks no name up and follows no redirect", async () => {
    const paths: string[] = [];
    const { http, ask } = await bare((it, id, { path }) => {
      paths.push(path);
      const headers = [["Location", "/elsewhere"]] as const;
      it.respond({
        type: "respond",
        id,
        response: { status: 302, headers, body: new Uint8Array(0) },
      });
    });
    const { local } = await http.listen(LOOPBACK);

    const result = await ask(local, {}, "/first");
    assertEquals([result.ok && result.status, paths], [302, ["/first"]]);
    assert(result.ok && result.headers.some(([, value]) => value === "/elsewhere"));
    const named = await ask({ address: "localhost", port: local.port });
    assertEquals(named, { ok: false, reason: "failed" });
  });

  it("refuses a request whose body is larger than it takes", async () => {
    const [server, client] = [station(), station()];
    const to = await server.listen("http");

    const { status } = await client.ask(to, "POST", "/", "x".repeat(70_000));

    assertEquals(status, 413);
  });

  it("dials, is heard and answered, and hears that the other side closed", async () => {
    const [server, client] = [station(), station()];
    const to = await server.listen("tcp");

    const id = client.dial(to, "hello");
    const there = (await server.next("connected")).id;

    assert(there < 0);
    assertEquals((await server.next("heard", there)).text, "hello");
    assertEquals((await client.next("heard", id)).text, "hello");
    server.driver.do((courier, now) => courier.end(there, now));
    assertEquals((await client.next("over", id)).reason, "ended");
  });

  it("tells that nobody listens, and that a second listener has no port", async () => {
    const [server, client] = [station(), station()];
    const to = await server.listen("tcp");
    const second = station();
    const failing = second.listen("tcp", to.port).catch((error: Error) => error.message);

    assert(/127\.0\.0\.1:\d+/.test(`${await failing}`));
    server.driver.close();
    const id = client.dial(to, "hello");
    assertEquals((await client.next("over", id)).reason, "refused");
  });

  it("dials several peers from one port, and then listens on it", async () => {
    const [a, b, puncher] = [station(), station(), station()];
    const first = puncher.dial(await a.listen("tcp"), "one", LOOPBACK);
    const { local } = await puncher.next("connected", first);

    const second = puncher.dial(await b.listen("tcp"), "two", local);
    assertEquals((await puncher.next("connected", second)).local, local);
    assertEquals(await puncher.listen("tcp", local.port), local);
    const third = b.dial(local, "three");

    assertEquals((await b.next("heard", third)).text, "three");
    assertEquals((await puncher.next("heard", second)).text, "two");
  });

  it("hands a stream over with what was not read, and tells nothing more of it", async () => {
    const [server, client] = [station(), station()];
    const to = await server.listen("tcp");
    const id = client.dial(to, "keep: the rest");
    const over = await server.next("over");
    assertEquals(over.reason, "handed over");

    const stream = server.driver.take(over.id)!;
    const socket = stream.socket as Socket;
    open.push({ close: () => socket.destroy() });
    const read = new Promise<string>((resolve) => {
      socket.on("data", (data: Uint8Array) => resolve(new TextDecoder().decode(data)));
    });
    socket.resume();
    socket.write("from the application");

    assertEquals(await guarded(read), ": the rest");
    assertEquals((await client.next("heard", id)).text, "from the application");
    assertEquals(server.driver.take(over.id), undefined);
  });
});
