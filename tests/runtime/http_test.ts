/** HTTP as routers speak it, on the runtime that the tests run on. */
import { assert, assertEquals } from "@std/assert";
import { Buffer } from "node:buffer";
import { Agent } from "node:http";
import { connect, createServer, type Server, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { afterEach, describe, it } from "node:test";
import { NodeHttp, rehearseHttp } from "../../adapters/http.ts";
import { openHttp } from "../../adapters/net.ts";
import type { Http } from "../../adapters/runtime.ts";
import type { Endpoint, HttpRequest, HttpResult, RequestAction } from "../../core/machine.ts";
import { closedAfterEach, guarded } from "./support.ts";

const BODY = "<a>hello</a>";
const LENGTH = `Content-Length: ${BODY.length}`;

/** What ends an answer: the device closes, or breaks the connection. */
const CLOSES = "\x01";
const BREAKS = "\x02";

/** Answers of devices from which the body is to be had. */
const SLOPPY: Record<string, string> = {
  "as it should be": `HTTP/1.1 200 OK\r\n${LENGTH}\r\n\r\n${BODY}`,
  "HTTP/1.0, which ends with the connection": `HTTP/1.0 200 OK\r\n\r\n${BODY}${CLOSES}`,
  "in chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" +
    "5\r\n<a>he\r\n7\r\nllo</a>\r\n0\r\n\r\n",
  "in chunks, and a length that is wrong":
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" +
    `c\r\n${BODY}\r\n0\r\n\r\n`,
  "in chunks without the last one":
    `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nc\r\n${BODY}\r\n${CLOSES}`,
  "with line feeds alone": `HTTP/1.1 200 OK\n${LENGTH}\n\n${BODY}`,
  "without a reason": `HTTP/1.1 200\r\n${LENGTH}\r\n\r\n${BODY}`,
  "with Latin-1, empty fields and folded ones":
    `HTTP/1.1 200 OK\r\nServer: B\xfcro\r\nEXT:\r\nX: a\r\n b\r\n${LENGTH}\r\n\r\n${BODY}`,
  "behind an empty line": `\r\nHTTP/1.1 200 OK\r\n${LENGTH}\r\n\r\n${BODY}`,
  "behind 100 Continue": `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n${LENGTH}\r\n\r\n${BODY}`,
  "without a length, as the device does not close either": `HTTP/1.1 200 OK\r\n\r\n${BODY}`,
  "cut short": `HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n${BODY}${CLOSES}`,
  "and breaks the connection": `HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n${BODY}${BREAKS}`,
};

/** Answers that are none. */
const BROKEN: Record<string, string> = {
  "nothing": CLOSES,
  "no HTTP": `<html></html>\r\n\r\n${CLOSES}`,
  "a header without an end": `HTTP/1.1 200 OK\r\nX: y\r\n${CLOSES}`,
  "a header that is larger than any": `HTTP/1.1 200 OK\r\n${"X: yyyyyyyy\r\n".repeat(8000)}\r\n`,
  "a length and no body": `HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n${CLOSES}`,
};

it("a rehearsal of HTTP gets the answer of nobody, but on Bun", async () => {
  const result = await rehearseHttp();
  if ("Bun" in globalThis) assertEquals(result, undefined);
  else assert(result?.ok && result.status === 200 && result.body[0] === 0x31);
});

it("a request names its host, without the port that is HTTP's own, but on Bun, where nothing is seen", async () => {
  const asked: string[] = [];
  class Listening extends Agent {
    override createConnection(): Duplex {
      const connection = new Duplex({
        read() {},
        write(data, _, done) {
          asked.push(/^Host: (.*)\r$/m.exec(String(data))![1]!);
          done();
          connection.push("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        },
      });
      return connection;
    }
  }
  if ("Bun" in globalThis) return;
  for (
    const to of [
      { address: "192.0.2.1", port: 80 },
      { address: "192.0.2.1", port: 8080 },
      { address: "2001:db8::1", port: 80 },
    ]
  ) {
    await guarded(
      new Promise<void>((resolve) => {
        const http = new NodeHttp({ onResult: () => resolve(), onRequest() {} }, new Listening());
        const request = { method: "GET", path: "/", headers: [] } as const;
        http.request({ type: "request", id: 1, to, request, maxBytes: 9, timeoutMs: 5000 });
      }),
    );
  }
  assertEquals(asked, ["192.0.2.1", "192.0.2.1:8080", "[2001:db8::1]"]);
});

describe("HTTP of devices on this runtime", () => {
  const { open, handTimers } = closedAfterEach(afterEach);

  /** A device that is told by what each of its connections hears. */
  async function device(
    hear: (socket: Socket, request: string, connection: number) => void,
  ): Promise<{ to: Endpoint; connections: () => number }> {
    let connections = 0;
    const sockets = new Set<Socket>();
    const server: Server = createServer((socket) => {
      const connection = ++connections;
      sockets.add(socket);
      socket.on("error", () => {});
      let heard = "";
      socket.on("data", (data: Uint8Array) => {
        heard += Buffer.from(data).toString("latin1");
        for (let end = endOf(heard); end > 0; end = endOf(heard)) {
          const request = heard.slice(0, end);
          heard = heard.slice(end);
          hear(socket, request, connection);
        }
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    open.push(() => {
      server.close();
      for (const socket of sockets) socket.destroy();
    });
    const { port } = server.address() as { port: number };
    return { to: { address: "127.0.0.1", port }, connections: () => connections };
  }

  /** Where the first request ends, 0 where it is not complete. */
  function endOf(heard: string): number {
    const header = heard.indexOf("\r\n\r\n");
    const length = Number(/content-length: *(\d+)/i.exec(heard)?.[1] ?? 0);
    const end = header + 4 + length;
    return header >= 0 && heard.length >= end ? end : 0;
  }

  function say(socket: Socket, answer: string): void {
    const text = answer.replace(CLOSES, "").replace(BREAKS, "");
    socket.write(Buffer.from(text, "latin1"), () => {
      if (answer.endsWith(CLOSES)) socket.end();
      else if (answer.endsWith(BREAKS)) setTimeout(() => socket.resetAndDestroy(), 20);
    });
  }

  async function client(): Promise<
    (to: Endpoint, part?: Partial<RequestAction>) => Promise<HttpResult>
  > {
    const results: ((result: HttpResult) => void)[] = [];
    const http: Http = await openHttp({
      onResult: (id, result) => results[id]!(result),
      onRequest: () => {},
    });
    open.push(() => http.close());
    let lastId = 0;
    return (to, part = {}) =>
      guarded(
        new Promise((resolve) => {
          results[++lastId] = resolve;
          const request: HttpRequest = { method: "GET", path: "/desc.xml", headers: [] };
          const limits = { maxBytes: 1000, timeoutMs: 5000 };
          http.request({ type: "request", id: lastId, to, request, ...limits, ...part });
        }),
      );
  }

  it("connects to nobody for what was given up before it left", async () => {
    const { to, connections } = await device((socket) => say(socket, SLOPPY["as it should be"]!));
    const handlers = { onResult: () => assert(false, "told"), onRequest: () => {} };
    const closed: Http = await openHttp(handlers);
    const request: HttpRequest = { method: "GET", path: "/", headers: [] };
    closed.request({ type: "request", id: 1, to, request, maxBytes: 1000, timeoutMs: 5000 });
    closed.close();
    const ask = await client();
    assert((await ask(to)).ok);
    assertEquals(connections(), 1);
  });

  for (const [name, answer] of Object.entries(SLOPPY)) {
    it(`takes an answer ${name}`, async () => {
      const { to } = await device((socket) => say(socket, answer));
      const ask = await client();

      const result = await ask(to);

      assert(result.ok, JSON.stringify(result));
      if (!result.ok) return;
      assertEquals([result.status, new TextDecoder().decode(result.body)], [200, BODY]);
    });
  }

  for (const [name, answer] of Object.entries(BROKEN)) {
    it(`gives up ${name}`, async () => {
      const { to } = await device((socket) => say(socket, answer));
      const ask = await client();

      assertEquals(await ask(to), { ok: false, reason: "failed" });
    });
  }

  it("asks by one connection what comes one after the other, each with its own Host first", async () => {
    const heard: string[] = [];
    const { to, connections } = await device((socket, request) => {
      heard.push(request);
      say(socket, `HTTP/1.1 200 OK\r\n${LENGTH}\r\n\r\n${BODY}`);
    });
    const ask = await client();
    const request = {
      method: "POST",
      path: "/ctl?x",
      headers: [["Content-Type", 'text/xml; charset="utf-8"'], ["SOAPAction", '"urn:x#Y"']],
      body: new TextEncoder().encode("<e/>"),
    } as const;

    for (let i = 0; i < 5; i++) assert((await ask(to, { request })).ok);

    assertEquals(connections(), 1);
    const wanted = `POST /ctl?x HTTP/1.1\r\nHost: 127.0.0.1:${to.port}\r\n` +
      'Content-Type: text/xml; charset="utf-8"\r\nSOAPAction: "urn:x#Y"\r\n' +
      "Content-Length: 4\r\nConnection: keep-alive\r\n\r\n<e/>";
    assertEquals(heard, Array.from({ length: 5 }, () => wanted));
  });

  it("asks one device one thing at a time, though it is told at once", async () => {
    let busy = 0, most = 0;
    const { to } = await device((socket) => {
      most = Math.max(most, ++busy);
      setTimeout(() => {
        busy--;
        say(socket, `HTTP/1.1 200 OK\r\n${LENGTH}\r\n\r\n${BODY}`);
      }, 5);
    });
    const ask = await client();

    const results = await Promise.all([1, 2, 3, 4].map(() => ask(to)));

    assertEquals([results.every(({ ok }) => ok), most], [true, 1]);
  });

  it("asks again by a new connection where the one that was kept is closed", async () => {
    const { to, connections } = await device((socket, _, connection) => {
      // The first one takes one request and drops dead at the second.
      if (connection === 1 && socket.bytesWritten > 0) socket.destroy();
      else say(socket, `HTTP/1.1 200 OK\r\n${LENGTH}\r\n\r\n${BODY}`);
    });
    const ask = await client();

    assert((await ask(to)).ok);
    assert((await ask(to)).ok);
    assertEquals(connections(), 2);
  });

  it("does not ask again where a new connection is closed", async () => {
    let asked = 0;
    const { to } = await device((socket) => {
      asked++;
      socket.destroy();
    });
    const ask = await client();

    assertEquals([await ask(to), asked], [{ ok: false, reason: "failed" }, 1]);
  });

  it("keeps a connection for the next request for a second, and then closes it", async () => {
    let ended = () => {};
    const end = new Promise<void>((resolve) => (ended = resolve));
    const { to, connections } = await device((socket) => {
      socket.on("close", ended);
      say(socket, `HTTP/1.1 200 OK\r\n${LENGTH}\r\n\r\n${BODY}`);
    });
    const ask = await client();
    const timers = handTimers(1000);

    assert((await ask(to)).ok);
    assertEquals(timers.waiting, 1);
    // The next one begins the second anew.
    const next = ask(to);
    assertEquals(timers.waiting, 0);
    assert((await next).ok);
    assertEquals([timers.waiting, timers.keepAlive, connections()], [1, 0, 1]);
    timers.fire();
    await guarded(end);
  });

  it("keeps neither a connection nor a timer once it is closed", async () => {
    let ended = () => {}, told = () => {};
    const end = new Promise<void>((resolve) => ended = resolve);
    const answered = new Promise<void>((resolve) => told = resolve);
    const { to } = await device((socket) => {
      socket.on("close", ended);
      say(socket, `HTTP/1.1 200 OK\r\n${LENGTH}\r\n\r\n${BODY}`);
    });
    const http: Http = await openHttp({ onResult: () => told(), onRequest: () => {} });
    const timers = handTimers(1000);
    const request: HttpRequest = { method: "GET", path: "/", headers: [] };
    http.request({ type: "request", id: 1, to, request, maxBytes: 1000, timeoutMs: 5000 });
    await guarded(answered);
    assertEquals(timers.waiting, 1);
    http.close();
    assertEquals(timers.waiting, 0);
    await guarded(end);
  });

  it("takes fields as they are given: its own Host and length, and one name twice", async () => {
    let heard = "";
    const { to } = await device((socket, request) => {
      heard = request;
      say(socket, `HTTP/1.1 200 OK\r\n${LENGTH}\r\n\r\n${BODY}`);
    });
    const ask = await client();
    const headers = [["HOST", "x"], ["X", "1"], ["content-length", "4"], ["X", "2"], ["X", "3"]];
    const body = new TextEncoder().encode("<e/>");

    assert((await ask(to, { request: { method: "POST", path: "/", headers, body } as never })).ok);

    const fields = heard.split("\r\n").filter((line) => /^(host|x|content-length):/i.test(line));
    assertEquals(fields.sort(), ["HOST: x", "X: 1", "X: 2", "X: 3", "content-length: 4"]);
  });

  it("takes a body of as many bytes as it may, whether told before or not, and not one more", async () => {
    for (const header of [`${LENGTH}\r\n`, ""]) {
      const { to } = await device((socket) =>
        say(socket, `HTTP/1.1 200 OK\r\n${header}\r\n${BODY}${CLOSES}`)
      );
      const ask = await client();

      const whole = await ask(to, { maxBytes: BODY.length });
      assertEquals(whole.ok && new TextDecoder().decode(whole.body), BODY);
      const less = await ask(to, { maxBytes: BODY.length - 1 });
      assertEquals(less, { ok: false, reason: "too-large" });
    }
  });

  it("says nothing more of what is under way when it is closed", async () => {
    const told: HttpResult[] = [];
    const http = await openHttp({ onResult: (_, result) => told.push(result), onRequest() {} });
    let gone = () => {};
    const end = new Promise<void>((resolve) => (gone = resolve));
    let heard = () => {};
    const asked = new Promise<void>((resolve) => (heard = resolve));
    const { to } = await device((socket) => {
      socket.on("close", gone);
      heard();
    });
    const timers = handTimers(4321);
    const request: HttpRequest = { method: "GET", path: "/", headers: [] };
    http.request({ type: "request", id: 1, to, request, maxBytes: 1, timeoutMs: 4321 });
    await guarded(asked);
    assertEquals([timers.waiting, timers.keepAlive], [1, 0]);

    http.close();
    await guarded(end);
    assertEquals([told, timers.waiting], [[], 0]);
  });

  it("fails what cannot be sent, and asks on", async () => {
    const { to } = await device((socket) => say(socket, SLOPPY["as it should be"]!));
    const ask = await client();
    const bad = { method: "GET", path: "/a b\r\nX: y", headers: [] };
    assertEquals(await ask(to, { request: bad }), { ok: false, reason: "failed" });
    assertEquals(await ask({ address: "router", port: 80 }), { ok: false, reason: "failed" });
    assert((await ask(to)).ok);
  });

  it("stops at the bytes that it may take: told by the length, or by the body itself", async () => {
    for (const header of ["Content-Length: 4000000000\r\n", "", "Transfer-Encoding: chunked\r\n"]) {
      const { to } = await device((socket) => {
        socket.write(`HTTP/1.1 200 OK\r\n${header}\r\n`);
        const part = "x".repeat(500);
        const more = () => {
          const chunk = header.startsWith("T") ? `1f4\r\n${part}\r\n` : part;
          if (!socket.destroyed) socket.write(chunk, () => setTimeout(more, 1));
        };
        if (!header.startsWith("C")) more();
      });
      const ask = await client();

      assertEquals(await ask(to), { ok: false, reason: "too-large" }, header);
    }
  });

  it("stops at its time whatever dribbles in: a header, or a body (slow-loris)", async () => {
    const beginnings = [
      "HTTP/1.1 200 OK\r\nX: ",
      "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n",
      "",
    ];
    for (const beginning of beginnings) {
      const { to } = await device((socket) => {
        socket.write(beginning);
        const more = () => {
          if (!socket.destroyed) socket.write("x", () => setTimeout(more, 5));
        };
        if (beginning !== "") more();
      });
      const ask = await client();

      assertEquals(await ask(to, { timeoutMs: 150 }), { ok: false, reason: "timeout" }, beginning);
    }
  });

  it("asks the next thing in time after one that was given up", async () => {
    let isMute = true;
    const { to } = await device((socket) => {
      if (!isMute) say(socket, `HTTP/1.1 200 OK\r\n${LENGTH}\r\n\r\n${BODY}`);
    });
    const ask = await client();

    assertEquals(await ask(to, { timeoutMs: 50 }), { ok: false, reason: "timeout" });
    isMute = false;
    assert((await ask(to)).ok);
  });

  it("leaves by the address that it is told", async () => {
    const { to } = await device((socket) => {
      say(socket, `HTTP/1.1 200 OK\r\n\r\n${socket.remoteAddress}${CLOSES}`);
    });
    const ask = await client();

    const result = await ask(to, { local: "127.0.0.7" });
    assertEquals(result.ok && new TextDecoder().decode(result.body), "127.0.0.7");
  });

  describe("asked", () => {
    /** How many requests for silence have come, and who waits for more. */
    let muted = 0;
    let onMute = (): void => {};

    async function server(
      onClose: (close: () => void) => void = () => {},
      onRequest: (request: HttpRequest, from: Endpoint) => void = () => {},
    ): Promise<Endpoint> {
      const body = new TextEncoder().encode(BODY);
      const http = await openHttp({
        onResult: () => {},
        onRequest: (id, request, from) => {
          onRequest(request, from);
          const { path } = request;
          if (path === "/mute") return onMute();
          const headers = path === "/last"
            ? [["Connection", "close"] as const]
            : path === "/sized"
            ? [["content-length", `${BODY.length}`], ["connection", "close"]] as const
            : [];
          const response = { status: 200, headers, body };
          http.respond({ type: "respond", id, response });
          http.respond({ type: "respond", id, response: { ...response, status: 500 } });
        },
      });
      open.push(() => http.close());
      onClose(() => http.close());
      return (await http.listen({ address: "127.0.0.1", port: 0 })).local;
    }

    /** What comes by a connection until it ends. */
    function talk(to: Endpoint, text: string): { socket: Socket; end: Promise<string> } {
      const socket = connect(to.port, to.address);
      open.push(() => socket.destroy());
      let heard = "";
      socket.on("data", (data: Uint8Array) => heard += Buffer.from(data).toString());
      const end = new Promise<string>((resolve) => {
        socket.on("error", () => resolve(heard));
        socket.on("close", () => resolve(heard));
      });
      socket.write(text);
      return { socket, end: guarded(end) };
    }

    it("answers several requests by one connection, until it is to be the last", async () => {
      const to = await server();
      const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`;
      const timers = handTimers(10_000, 30_000);

      const heard = await talk(to, get("/") + get("/") + get("/last")).end;

      assertEquals([heard.split(BODY).length, timers.waiting], [4, 0]);
    });

    it("tells the length of its answer, once, and answers one request once", async () => {
      const to = await server();
      const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`;
      for (const path of ["/last", "/sized"]) {
        const heard = await talk(to, get(path)).end;
        assertEquals(heard.match(/content-length: (\d+)/gi)?.length, 1);
        assertEquals(heard.split("HTTP/1.1 ").length, 2);
        assert(heard.startsWith("HTTP/1.1 200 OK") && heard.endsWith(BODY), heard);
      }
    });

    it("tells a request as it came, with its body where there is one, and from whom", async () => {
      const asked: [HttpRequest, Endpoint][] = [];
      const to = await server(undefined, (request, from) => asked.push([request, from]));
      const { socket, end } = talk(to, "GET /a?b HTTP/1.1\r\nHost: x\r\nX-Y: 1\r\n\r\n");
      await guarded(new Promise<void>((resolve) => socket.once("data", () => resolve())));
      const { localPort } = socket;
      socket.write("POST /last HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
      await end;

      const from = { address: "127.0.0.1", port: localPort! };
      assertEquals(asked, [
        [{ method: "GET", path: "/a?b", headers: [["Host", "x"], ["X-Y", "1"]] }, from],
        [{
          method: "POST",
          path: "/last",
          headers: [["Host", "x"], ["Content-Length", "2"]],
          body: new Uint8Array([104, 105]),
        }, from],
      ] as never);
    });

    it("takes a body of 65,536 bytes, and refuses one more", async () => {
      const to = await server();
      const post = (length: number) =>
        `POST /last HTTP/1.1\r\nHost: x\r\nContent-Length: ${length}\r\n\r\n` +
        "x".repeat(length);

      const [most, more] = [talk(to, post(65_536)), talk(to, post(65_537))];
      assertEquals((await most.end).slice(0, 12), "HTTP/1.1 200");
      // The rest is not read: the connection breaks with it on the way.
      assert(/^(HTTP\/1.1 413|$)/.test(await more.end));
    });

    it("forgets a request that breaks off", async () => {
      let asked = 0;
      const to = await server(undefined, () => asked++);
      const { socket, end } = talk(to, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nh");
      socket.end();
      await end;
      await talk(to, "GET /last HTTP/1.1\r\nHost: x\r\n\r\n").end;

      assertEquals(asked, 1);
    });

    describe("by one who dawdles, waits 10 s", () => {
      it("for the header, and then breaks off", async () => {
        const to = await server();
        const timers = handTimers(10_000);
        const { end } = talk(to, "GET / HTTP/1.1\r\nX: ");
        await timers.armed();
        assertEquals(timers.keepAlive, 0);
        timers.fire();
        assertEquals(await end, "");
      });

      it("for the body, whatever the header took, and then says so", async () => {
        const to = await server();
        const timers = handTimers(10_000);
        const { end } = talk(to, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nh");
        await timers.armed(2);
        assertEquals([timers.waiting, timers.keepAlive], [1, 0]);
        timers.fire();
        const heard = await end;
        assert(heard.startsWith("HTTP/1.1 408 ") && /connection: close/i.test(heard), heard);
      });
    });

    it("says after 30 s that there is no answer yet", async () => {
      const to = await server();
      onMute = () => {};
      const timers = handTimers(10_000, 30_000);
      const { end } = talk(to, "GET /mute HTTP/1.1\r\nHost: x\r\n\r\n");
      await timers.armed(3);
      assertEquals([timers.waiting, timers.keepAlive], [1, 0]);
      timers.fire();
      assert((await end).startsWith("HTTP/1.1 503 "));
    });

    it("lets 64 wait for their answers, and tells the next one that it is busy", async () => {
      const to = await server();
      const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`;
      muted = 0;
      const all = new Promise<void>((resolve) => onMute = () => void (++muted === 64 && resolve()));
      const waiting = Array.from({ length: 64 }, () => talk(to, get("/mute")).socket);
      await guarded(all);

      const heard = await talk(to, get("/last")).end;
      assert(heard.startsWith("HTTP/1.1 503 "), heard);
      for (const socket of waiting.slice(0, 5)) socket.destroy();
      let answer = heard;
      while (!answer.includes(BODY)) answer = await talk(to, get("/last")).end;
    });

    it("ends the connections of others when it is closed", async () => {
      let close = () => {};
      const to = await server((it) => close = it);
      const { socket, end } = talk(to, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
      await guarded(new Promise<void>((resolve) => socket.once("data", () => resolve())));

      close();
      assert((await end).includes(BODY));
      // Nor does it take new ones.
      assertEquals(await talk(to, "GET /last HTTP/1.1\r\nHost: x\r\n\r\n").end, "");
    });

    it("lets 128 connect, and turns the next one away", async () => {
      const to = await server();
      const get = "GET /last HTTP/1.1\r\nHost: x\r\n\r\n";
      const idle = Array.from({ length: 128 }, () => talk(to, "GET / HTTP/1.1\r\n").socket);
      await guarded(
        Promise.all(
          idle.map((socket) =>
            new Promise<void>((resolve) =>
              socket.readyState === "open" ? resolve() : socket.once("connect", resolve)
            )
          ),
        ),
      );

      assertEquals(await talk(to, get).end, "");
      for (const socket of idle.slice(0, 5)) socket.destroy();
      // The server hears of it a moment later.
      let heard = "";
      while (heard === "") heard = await talk(to, get).end;
      assert(heard.includes(BODY));
    });
  });
});
