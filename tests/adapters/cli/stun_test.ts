import { describe, it } from "node:test";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { runCommandLine } from "../../../adapters/cli/command_line.ts";
import { systemRuntime } from "../../../adapters/auto.ts";
import type { Runtime, UdpHandlers } from "../../../adapters/runtime.ts";
import { startStunServer } from "../../../adapters/stun_server.ts";
import { NatError } from "../../../core/errors.ts";
import { formatEndpoint } from "../../../core/ip.ts";
import { FakeIo } from "./fakes.ts";
import { recordingHandlers } from "../fake_runtime.ts";

const LOCAL = { address: "127.0.0.1", port: 0 };

async function run(io: FakeIo, ...words: string[]): Promise<number> {
  return await runCommandLine(words, io);
}

/** This runtime, on which a hundred seconds are one. */
function hurried(): Runtime {
  const system = systemRuntime();
  return {
    ...system,
    now: () => 100 * system.now(),
    setTimer: (ms, callback, keepAlive) => system.setTimer(ms / 100, callback, keepAlive),
  };
}

describe("natkit stun", () => {
  it("tells the reflexive address as an event and as text, over UDP and TCP", async () => {
    const server = await startStunServer({ listen: LOCAL });
    const name = formatEndpoint(server.endpoint);
    try {
      for (const more of [[], ["--tcp"]]) {
        const io = new FakeIo();
        assertEquals(await run(io, "stun", name, "--json", ...more), 0);
        const [{ address, port, local, ...rest }] = io.events as [Record<string, unknown>];
        assertEquals([address, local], ["127.0.0.1", { address, port }]);
        assertEquals(rest, { event: "address", via: "stun", server: name, elapsedMs: 0 });
      }
      const io = new FakeIo();
      assertEquals(await run(io, "stun", `localhost:${server.endpoint.port}`), 0);
      assert(/^127\.0\.0\.1:\d+ is how 127\.0\.0\.1:\d+ sees 127\.0\.0\.1:\d+\n$/.test(io.out));
    } finally {
      await server.close();
    }
  });

  it("ends with 1 where nobody answers, and with 2 where no server is named", async () => {
    const server = await startStunServer({ listen: LOCAL });
    const name = formatEndpoint(server.endpoint);
    await server.close();
    const io = new FakeIo();
    assertEquals(await run(io, "stun", name, "--tcp", "--json"), 1);
    const [{ code, message }] = io.events as [Record<string, string>];
    assertEquals(code, "no-answer");
    assertStringIncludes(message!, name);
    assertEquals(await run(new FakeIo(), "stun"), 2);
    const wrong = new FakeIo();
    assertEquals(await run(wrong, "stun", "1.2.3:x"), 2);
    assertStringIncludes(
      wrong.err,
      'HOST[:PORT] must be HOST, HOST:PORT or [IPV6]:PORT: current value is "1.2.3:x"',
    );
  });
});

describe("natkit stun at a server that is silent", () => {
  /** Somebody who hears and says nothing. */
  async function silent(address = LOCAL.address): Promise<{ name: string; close(): void }> {
    const handlers = { onDatagram() {}, onUnreachable() {}, onError() {} };
    const socket = await systemRuntime().openUdp({ local: { address, port: 0 } }, handlers);
    return { name: formatEndpoint(socket.local), close: () => socket.close() };
  }

  it("ends with 130 where it is interrupted, and says to a person what it waits for", async () => {
    const { name, close } = await silent();
    const system = systemRuntime();
    const io = new FakeIo();
    // Half a second is over at once.
    const runtime: Runtime = {
      ...system,
      setTimer: (ms, callback, keepAlive) =>
        system.setTimer(ms === 500 ? 0 : ms, callback, keepAlive),
    };
    const running = runCommandLine(["stun", name], io, { runtime });
    while (io.err === "") await new Promise((resolve) => setTimeout(resolve, 1));
    io.signal("SIGINT");

    assertEquals(await running, 130);
    assertEquals(
      io.err,
      `Waiting for the STUN server ${name}…\nnatkit: Interrupted by SIGINT\n`,
    );
    close();
  });

  it("says what came of the family that the server has, whichever that is", async () => {
    for (const address of ["127.0.0.1", "::1"]) {
      const { name, close } = await silent(address);
      const io = new FakeIo();
      const words = ["stun", name, "--timeout", "5", "--json"];
      assertEquals(await runCommandLine(words, io, { runtime: hurried() }), 1);
      assertEquals(io.events, [{
        event: "error",
        code: "no-answer",
        message: `Cannot ask the STUN server ${name}: no answer`,
        attempts: [],
      }]);
      close();
    }
  });

  it("says that the name has no address", async () => {
    const io = new FakeIo();
    assertEquals(await run(io, "stun", "no-such-host.invalid", "--json"), 1);
    assertEquals(io.events.map(({ code }) => code), ["network"]);
    assertStringIncludes(io.err, "Cannot look up no-such-host.invalid");
  });
});

describe("natkit nat-type", () => {
  it("tells all that was found, as an event and as text", async () => {
    const other = await startStunServer({ listen: { address: "127.0.0.2", port: 0 } });
    await other.close();
    const server = await startStunServer({ listen: LOCAL, alternate: other.endpoint });
    const name = formatEndpoint(server.endpoint);
    try {
      const io = new FakeIo();
      assertEquals(await run(io, "nat-type", "--stun", name, "--json"), 0);
      const [event] = io.events as [Record<string, unknown>];
      assertEquals([event.event, event.type, event.mapping, event.filtering], [
        "nat-type",
        "open",
        "endpoint-independent",
        "endpoint-independent",
      ]);
      assertEquals(event.external, event.local);
      const text = new FakeIo();
      assertEquals(await run(text, "nat-type", "--stun", name), 0);
      assertStringIncludes(text.out, "NAT type: no NAT, open to all\n");
      assertStringIncludes(text.out, `server     ${name}: answered`);
    } finally {
      await server.close();
    }
  });

  it("ends with 1 where UDP is blocked, once it has told so", async () => {
    const server = await startStunServer({ listen: LOCAL });
    const name = formatEndpoint(server.endpoint);
    await server.close();
    const io = new FakeIo();
    const bound = new Set<string | undefined>();
    const system = hurried();
    const runtime: Runtime = {
      ...system,
      openUdp: (options, handlers) => {
        bound.add(options.local?.address);
        return system.openUdp(options, handlers);
      },
    };
    const words = ["nat-type", "--stun", name, "--json", "--internal-address", "127.0.0.2"];
    assertEquals(await runCommandLine(words, io, { runtime }), 1);
    assertEquals([...bound], ["127.0.0.2"]);
    assertEquals(io.events.map(({ event, type }) => [event, type]), [
      ["nat-type", "blocked"],
      ["error", undefined],
    ]);
    const why = `natkit: No STUN server answered over UDP: ${name}\n`;
    assertEquals([io.err, io.events[1]!.code], [why, "no-answer"]);
    const text = new FakeIo();
    const plain = ["nat-type", "--stun", name];
    assertEquals(await runCommandLine(plain, text, { runtime: hurried() }), 1);
    assertEquals(text.err, `Waiting for STUN servers…\n${why}`);
  });

  it("needs a server, and takes no wrong one", async () => {
    const io = new FakeIo();
    assertEquals(await run(io, "nat-type"), 2);
    assertEquals(io.err, "natkit: natkit nat-type needs --stun HOST:PORT\n");
    assertEquals(await run(new FakeIo(), "nat-type", "--stun", "a b"), 2);
  });
});

describe("natkit stun-server", () => {
  it("tells where it listens, answers, and ends at SIGINT with 130", async () => {
    const io = new FakeIo();
    const opened: UdpHandlers[] = [];
    const runtime = recordingHandlers(systemRuntime(), opened);
    const words = ["stun-server", "--listen", "127.0.0.1:0", "--json"];
    const running = runCommandLine(words, io, { runtime });
    const { port, ...rest } = await io.event("listening");
    assertEquals(rest, { event: "listening", address: "127.0.0.1", tcp: true });
    const { address } = LOCAL;
    opened[0]!.onError(new NatError("network", "no route"));
    assertEquals(io.err, "natkit: warning: no route\n");
    const asking = new FakeIo();
    assertEquals(await run(asking, "stun", `${address}:${port}`), 0);
    io.signal("SIGINT");
    assertEquals(await running, 130);
    assertEquals(io.listeners, 0);
  });

  it("listens on every address at STUN's port where nothing is said", async () => {
    const asked: unknown[] = [];
    const runtime: Runtime = {
      ...systemRuntime(),
      openUdp: ({ local }) => {
        asked.push(local);
        return Promise.reject(new NatError("network", "no more of this"));
      },
    };
    const io = new FakeIo();
    assertEquals(await runCommandLine(["stun-server"], io, { runtime }), 1);
    assertEquals(asked, [{ address: "0.0.0.0", port: 3478 }]);
  });

  it("tells both of its addresses", async () => {
    const other = await startStunServer({ listen: { address: "127.0.0.2", port: 0 } });
    await other.close();
    const alternate = formatEndpoint(other.endpoint);
    const io = new FakeIo();
    const running = run(io, "stun-server", "--listen", "127.0.0.1:0", "--alternate", alternate);
    await io.until(({ out }) => out.includes("listening"));
    assert(io.out.endsWith(` and ${alternate}: STUN over UDP and TCP\n`), io.out);
    io.signal("SIGHUP");
    assertEquals([await running, io.err.includes("warning")], [129, false]);
  });

  it("warns where the alternate address cannot be had", async () => {
    const io = new FakeIo();
    const running = run(io, "stun-server", "--listen", "127.0.0.1:0", "--alternate", "192.0.2.1:9");
    await io.until(({ err }) => err !== "");
    assertEquals(
      io.err,
      "natkit: warning: --alternate cannot be used: not all of the four sockets could be opened. " +
        "NAT behaviour discovery is off\n",
    );
    assertStringIncludes(io.out, "STUN over UDP and TCP");
    io.signal("SIGTERM");
    assertEquals(await running, 143);
  });

  it("ends with 1 where the port is taken, and with 2 where flags cannot be", async () => {
    const server = await startStunServer({ listen: LOCAL });
    const io = new FakeIo();
    const name = formatEndpoint(server.endpoint);
    assertEquals(await run(io, "stun-server", "--listen", name, "--json"), 1);
    assertEquals((io.events[0] as { code: string }).code, "address-in-use");
    assertEquals(io.err, `natkit: Cannot listen on ${name}: the port is in use\n`);
    await server.close();
    const foreign = new FakeIo();
    assertEquals(await run(foreign, "stun-server", "--listen", "192.0.2.1:0", "--json"), 1);
    assertEquals((foreign.events[0] as { code: string }).code, "network");
    for (
      const words of [
        ["--listen", "127.0.0.1:0", "--alternate", "[::1]:9"],
        ["--listen", "127.0.0.1:9", "--alternate", "127.0.0.1:10"],
        ["--alternate", "127.0.0.2:10"],
      ]
    ) {
      const wrong = new FakeIo();
      assertEquals(await run(wrong, "stun-server", ...words), 2, wrong.err);
    }
  });
});
