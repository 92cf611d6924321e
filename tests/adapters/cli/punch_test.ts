/**
 * `natkit punch` over loopback, both ends in this process.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { UdpRendezvous } from "../../../adapters/api/punch.ts";
import { systemRuntime } from "../../../adapters/auto.ts";
import { runCommandLine } from "../../../adapters/cli/command_line.ts";
import type { Runtime } from "../../../adapters/runtime.ts";
import { startStunServer } from "../../../adapters/stun_server.ts";
import { formatEndpoint } from "../../../core/ip.ts";
import { FakeIo } from "./fakes.ts";

const HERE = ["--internal-address", "127.0.0.1"];

/** The role that a check claims by ICE-CONTROLLED or ICE-CONTROLLING (RFC 8445 §7.1.3). */
function roleOf(data: Uint8Array): End["role"] {
  for (let at = 20; at + 4 <= data.length; at += 4) {
    const type = data[at]! * 256 + data[at + 1]!, length = data[at + 2]! * 256 + data[at + 3]!;
    if (length === 8 && type === 0x8029) return "controlled";
    if (length === 8 && type === 0x802a) return "controlling";
  }
  return undefined;
}

/** One end. */
class End {
  readonly io = new FakeIo();
  readonly status: Promise<number>;

  /** Added to this end's clock. */
  skewMs = 0;
  /** Where it has sent to. */
  readonly asked: Set<string> = new Set<string>();
  /** The role that its first check claims. */
  role: "controlling" | "controlled" | undefined;

  constructor(...args: string[]) {
    this.io.clock = performance.now();
    const system = systemRuntime();
    const runtime: Runtime = {
      ...system,
      now: () => system.now() + this.skewMs,
      openUdp: async (options, handlers) => {
        const socket = await system.openUdp(options, handlers);
        return {
          local: socket.local,
          close: () => socket.close(),
          send: (data, to) => {
            this.asked.add(formatEndpoint(to));
            this.role ??= roleOf(data);
            socket.send(data, to);
          },
        };
      },
    };
    this.status = runCommandLine(["punch", ...HERE, ...args], this.io, { runtime }).finally(() => {
      assertEquals(this.io.listeners, 0);
    });
  }

  /** What is told before data. */
  async ticket(lastLine = "\n"): Promise<string> {
    await this.io.until(({ out }) => out.endsWith(lastLine));
    return this.io.out;
  }
}

/** Two ends that have each other's tickets. */
async function pair(...args: string[]): Promise<[End, End]> {
  const ends: [End, End] = [new End(...args), new End(...args)];
  const [a, b] = await Promise.all(ends.map((end) => end.ticket()));
  ends[0].io.input(b!);
  ends[1].io.input(a!);
  return ends;
}

describe("natkit punch", () => {
  it("over UDP tells one line, and then sends each line as a datagram", async () => {
    const [a, b] = await pair("--udp");
    assert(/^natkit1:[\w-]+\n$/.test(a.io.out), a.io.out);
    a.io.input("one\ntw");
    a.io.input("o\r\n\nlast");
    a.io.endInput();
    b.io.endInput();
    assertEquals(await Promise.all([a.status, b.status]), [0, 0], a.io.err + b.io.err);
    assertEquals(b.io.out.split("\n").slice(1).sort(), ["", "", "last", "one", "two"]);
    assertEquals(a.io.out.split("\n").length, 2, "nothing but the ticket");
    const [alone, give, punched, lines] = a.io.err.split("\n");
    assertEquals([alone, give, lines], [
      "Without --stun only peers of this network are reached, and those without NAT",
      "Give that to the peer, and its ticket to this command",
      "Each line is sent as one datagram; datagrams may be lost on the way",
    ]);
    const at = "127\\.0\\.0\\.1:\\d+";
    assertMatch(
      punched!,
      new RegExp(`^punched  ${at}/udp from (${at}), seen as \\1, in [\\d.]+ ms$`),
    );
  });

  it("begins in the role that the flags say, and otherwise in one of two", async () => {
    for (const roles of [["controlling", "controlled"], ["controlled", "controlling"], []]) {
      const ends = [0, 1].map((i) => new End("--udp", ...roles[i] ? [`--${roles[i]}`] : []));
      const [a, b] = await Promise.all(ends.map((end) => end.ticket()));
      ends[0]!.io.input(b!);
      ends[1]!.io.input(a!);
      for (const { io } of ends) io.endInput();
      assertEquals(await Promise.all(ends.map(({ status }) => status)), [0, 0]);
      const claimed = ends.map(({ role }) => role!);
      if (roles.length > 0) assertEquals(claimed, roles);
      else assertEquals(claimed.sort(), ["controlled", "controlling"]);
    }
  });

  it("asks the STUN server that is named, and does not say that there is none", async () => {
    const server = await startStunServer({ listen: { address: "127.0.0.1", port: 0 } });
    const end = new End("--stun", formatEndpoint(server.endpoint));
    await end.ticket();
    end.io.signal("SIGINT");
    assertEquals(await end.status, 130);
    assertEquals([...end.asked], [formatEndpoint(server.endpoint)]);
    assertEquals(
      end.io.err.split("\n")[0],
      "Give that to the peer, and its ticket to this command",
    );
    await server.close();
  });

  it("over UDP puts each datagram on a line of its own, whether it ends as one or not", async () => {
    const end = new End("--udp");
    const peer = await UdpRendezvous.open({ localAddresses: ["127.0.0.1"] });
    end.io.input(`${peer.ticket}\n`);
    const channel = await peer.punch((await end.ticket()).trim());
    for (const text of ["a\n", "b", "\nc", ""]) channel.send(new TextEncoder().encode(text));
    channel.end();
    end.io.endInput();
    assertEquals(await end.status, 0, end.io.err);
    assertEquals(end.io.out.slice(end.io.out.indexOf("\n") + 1).split("\n"), [
      "a",
      "b",
      "",
      "c",
      "",
      "",
    ]);
    await channel.close();
  });

  it("over UDP says that the peer is gone where nothing is heard of it for half a minute", async () => {
    const [a, b] = await pair("--udp");
    for (const { io } of [a, b]) {
      while (!io.err.includes("punched")) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    a.skewMs = 60_000;
    a.io.input("Are you there?\n");
    assertEquals(await a.status, 0);
    assertEquals(a.io.err.split("\n").slice(-2), ["The peer is gone", ""]);
    b.io.signal("SIGTERM");
    assertEquals([await b.status, b.io.err.includes("gone")], [143, false]);
  });

  it("over TCP goes on sending what the peer may still want, once that has no more to say", async () => {
    const [a, b] = await pair("--tcp");
    b.io.input("that is all\n");
    b.io.endInput();
    await a.ticket("that is all\n");
    await new Promise((resolve) => setTimeout(resolve, 20));
    a.io.input("late");
    a.io.endInput();
    assertEquals(await Promise.all([a.status, b.status]), [0, 0], a.io.err + b.io.err);
    assertEquals(b.io.out.split("\n").at(-1), "late");
  });

  it("over UDP sends no line that is too long for a datagram, says so and goes on", async () => {
    const [a, b] = await pair("--udp", "--json");
    await Promise.all([a.io.event("punched"), b.io.event("punched")]);
    a.io.input(`${"x".repeat(65_507)}\n${"x".repeat(65_508)}\n`);
    a.io.input("short\n");
    await b.io.event("data", 2);
    a.io.endInput();
    b.io.endInput();
    assertEquals(await Promise.all([a.status, b.status]), [0, 0], a.io.err + b.io.err);
    const [long, ...rest] = b.io.events.slice(2);
    assertEquals([(long!.text as string).length, rest], [65_507, [
      { event: "data", text: "short" },
    ]]);
    assertEquals(
      a.io.err,
      "natkit: warning: A line of 65508 bytes is too long for a datagram: it was not sent\n",
    );
  });

  it("over TCP is a pipe, both ways, until both inputs have ended", async () => {
    const [a, b] = await pair("--tcp");
    const big = "x".repeat(300_000);
    a.io.input(`first\n${big}`);
    b.io.input("no end of line");
    a.io.endInput();
    b.io.endInput();
    assertEquals(await Promise.all([a.status, b.status]), [0, 0], a.io.err + b.io.err);
    assertEquals(b.io.out.slice(b.io.out.indexOf("\n") + 1), `first\n${big}`);
    assertEquals(a.io.out.slice(a.io.out.indexOf("\n") + 1), "no end of line");
  });

  it("with --json tells ticket, punched and data, and takes the peer's event for its ticket", async () => {
    for (const protocol of ["udp", "tcp"] as const) {
      const [a, b] = await pair("--json", `--${protocol}`);
      await Promise.all([a.io.event("punched"), b.io.event("punched")]);
      a.io.input("\ufeffhello\n");
      a.io.endInput();
      b.io.endInput();
      assertEquals(await Promise.all([a.status, b.status]), [0, 0], a.io.err + b.io.err);
      const [ticket, punched, data] = b.io.events;
      assertEquals(ticket!.event, "ticket");
      const other = a.io.events[1]!;
      const { event, local, mapped, remote, elapsedMs } = punched!;
      assertEquals([event, punched!.protocol], ["punched", protocol]);
      assertEquals([local, mapped, remote], [other.remote, other.remote, other.local]);
      assert(typeof elapsedMs === "number" && elapsedMs >= 0);
      assertEquals(data, { event: "data", text: `\ufeffhello${protocol === "udp" ? "" : "\n"}` });
      assertEquals(a.io.err, "");
    }
  });

  it("with --json tells what is no text as base64", async () => {
    const [a, b] = await pair("--json", "--tcp");
    await Promise.all([a.io.event("punched"), b.io.event("punched")]);
    a.io.bytes(Uint8Array.of(0xff, 0x00, 0xfe));
    a.io.endInput();
    b.io.endInput();
    assertEquals(await Promise.all([a.status, b.status]), [0, 0], a.io.err + b.io.err);
    assertEquals(b.io.events.slice(2), [{ event: "data", base64: "/wD+" }]);
  });

  it("with --sdp tells and takes lines up to an empty one", async () => {
    const a = new End("--sdp", "--controlling"), b = new End("--sdp", "--controlled");
    const [forB, forA] = await Promise.all([a.ticket("\n\n"), b.ticket("\n\n")]);
    for (const name of ["a=ice-ufrag:", "a=ice-pwd:", "a=candidate:"]) {
      assertStringIncludes(forB!, name);
    }
    a.io.input(`\n\n${forA}hi\n`);
    // The end of input ends it, too.
    b.io.input(forB!.trimEnd());
    a.io.endInput();
    b.io.endInput();
    assertEquals(await Promise.all([a.status, b.status]), [0, 0], a.io.err + b.io.err);
    assertEquals(b.io.out.slice(forA!.length), "hi\n");
  });

  it("says what is wrong with a ticket, and when none comes", async () => {
    const wrong = new End("--json");
    await wrong.ticket();
    wrong.io.input("natkit9:AAAA\n");
    assertEquals(await wrong.status, 1);
    const { code, message } = wrong.io.events.at(-1)!;
    assertEquals(code, "ticket");
    assertStringIncludes(String(message), "version 9");

    for (const line of ['{"ticket":5}', "{", "[]"]) {
      const none = new End("--json");
      await none.ticket();
      none.io.input(`${line}\n`);
      assertEquals([await none.status, none.io.events.at(-1)!.code], [1, "ticket"], line);
    }

    for (const flags of [["--json"], ["--json", "--sdp"]]) {
      const silent = new End(...flags);
      await silent.ticket();
      silent.io.endInput();
      assertEquals(await silent.status, 1);
      assertEquals(silent.io.events.at(-1), {
        event: "error",
        code: "ticket",
        message: "Standard input has ended before the peer's ticket came",
        attempts: [],
      });
    }
  });

  it("waits for no end of a ticket that is longer than any", async () => {
    const line = new End("--json"), lines = new End("--json", "--sdp");
    await Promise.all([line.ticket(), lines.ticket()]);
    for (let i = 0; i < 6; i++) line.io.input("x".repeat(65_536));
    for (let i = 0; i < 70; i++) lines.io.input(`a=${"x".repeat(1000)}\n`);
    for (const { status, io } of [line, lines]) {
      assertEquals([await status, io.events.at(-1)!.code], [1, "ticket"]);
    }
  });

  it("fails with the reason when the peer does not come in time", async () => {
    for (const protocol of ["--udp", "--tcp"]) {
      const gone = new End(protocol);
      const ticket = await gone.ticket();
      gone.io.signal("SIGTERM");
      assertEquals(await gone.status, 143);
      const end = new End(protocol, "--json", "--timeout", "1");
      await end.ticket();
      end.io.input(ticket);
      assertEquals(await end.status, 1);
      assertEquals(end.io.events.at(-1)!.code, "no-answer");
      const other = new End(protocol, "--timeout", "1000");
      await other.ticket();
      other.io.input(ticket);
      await new Promise((resolve) => setTimeout(resolve, 20));
      other.io.signal("SIGINT");
      assertEquals(await other.status, 130);
    }
  });

  it("takes neither its own ticket nor one of the other transport for a peer's", async () => {
    const [udp, tcp] = [new End("--udp", "--json"), new End("--tcp", "--json")];
    const ticket = await udp.ticket();
    await tcp.ticket();
    for (const end of [udp, tcp]) {
      end.io.input(ticket);
      assertEquals([await end.status, end.io.events.at(-1)!.code], [1, "ticket"]);
    }
  });

  it("ends at signals, before and after it has punched, and listens to nothing more", async () => {
    for (const protocol of ["--udp", "--tcp"]) {
      const [a, b] = await pair(protocol, "--json");
      await Promise.all([a.io.event("punched"), b.io.event("punched")]);
      a.io.signal("SIGINT");
      assertEquals(await a.status, 130);
      b.io.signal("SIGTERM");
      assertEquals(await b.status, 143);
      assertEquals([a.io.listeners, b.io.listeners], [0, 0]);
    }
  });

  it("refuses flags that contradict each other", async () => {
    for (
      const [flags, word] of [
        [["--udp", "--tcp"], "--tcp"],
        [["--controlling", "--controlled"], "--controlled"],
        [["--tcp", "--sdp"], "--sdp"],
        [["--stun", "a b"], "a b"],
        [["--tcp", "--turn", "a:b@127.0.0.1"], "--turn"],
        [["--turn", "a:b"], "USER:PASSWORD@HOST:PORT"],
        [["--turn", "a:secret@b c"], "USER:PASSWORD@HOST:PORT"],
      ] as const
    ) {
      const end = new End(...flags);
      assertEquals(await end.status, 2);
      assertStringIncludes(end.io.err, word);
      assert(!end.io.err.includes("secret"), "a password is not shown");
    }
  });
});
