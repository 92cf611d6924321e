/**
 * `natkit punch` between two homes whose NATs are Linux's, in the modes that are met in the field:
 * UDP and TCP, one runtime on this side and another one on the other.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { LabContext, LabTest } from "../../scripts/lab/main.ts";
import { Natkit, natkitCommand, type RunningNatkit } from "../../scripts/lab/natkit.ts";
import type { LabProcess } from "../../scripts/lab/process.ts";
import { type NatMode, SECOND, setNatMode, upSecondHome } from "../../scripts/lab/second_home.ts";
import { ADDRESS } from "../../scripts/lab/topology.ts";
import { ROOT } from "../../scripts/lib/files.ts";
import { must } from "../../scripts/lib/process.ts";
import type { Runtime } from "../../scripts/lib/runtimes.ts";
import { field, pause } from "./support.ts";

/** Who is at the other end. */
const OTHER: Readonly<Record<Runtime, Runtime>> = { Deno: "Node", Node: "Bun", Bun: "Deno" };

const STUN = ["--stun", `${ADDRESS.pub}:3478`, "--stun", `${SECOND.pubOther}:3479`];

/** Runs a test with both homes up in these modes, and STUN on the public host. */
async function between(
  { lab, natkit, runtime }: LabContext,
  modes: readonly [NatMode, NatMode],
  test: (host: Natkit, peer: Natkit) => Promise<void>,
): Promise<void> {
  await upSecondHome(lab);
  const peer = new Natkit(lab, await natkitCommand(OTHER[runtime]), "peer");
  const server = natkit.at("pub").start(
    "stun-server",
    ...["--listen", `${ADDRESS.pub}:3478`, "--alternate", `${SECOND.pubOther}:3479`],
  );
  try {
    await setNatMode(lab, "gw", modes[0]);
    await setNatMode(lab, "gw2", modes[1]);
    await server.event("listening");
    await test(natkit, peer);
  } finally {
    await server.end("SIGTERM");
    await setNatMode(lab, "gw", "keeping");
    await setNatMode(lab, "gw2", "keeping");
  }
}

/** Starts both ends and carries their tickets, the second one late. */
async function trade(
  host: Natkit,
  peer: Natkit,
  lateMs: number,
  ...flags: string[]
): Promise<readonly [RunningNatkit, RunningNatkit]> {
  const ends = [host, peer].map((natkit) => natkit.start("punch", ...STUN, ...flags));
  const [a, b] = ends as [RunningNatkit, RunningNatkit];
  const [forB, forA] = await Promise.all([a.event("ticket"), b.event("ticket")]);
  await a.write(String(forA.ticket));
  await pause(lateMs);
  await b.write(String(forB.ticket));
  return [a, b];
}

/** They meet, and a line goes each way. */
function meets(
  protocol: "udp" | "tcp",
  modes: readonly [NatMode, NatMode],
  lateMs = 0,
): LabTest {
  return (context) =>
    between(context, modes, async (host, peer) => {
      const [a, b] = await trade(host, peer, lateMs, `--${protocol}`);
      try {
        const [atA, atB] = await Promise.all([
          a.event("punched", 40_000),
          b.event("punched", 40_000),
        ]);
        assertEquals(atA.protocol, protocol);
        assertEquals(field(atA, "remote.address"), SECOND.wan);
        assertEquals(field(atB, "remote.address"), ADDRESS.wan);
        assertEquals([atA.remote, atB.remote], [atB.mapped, atA.mapped]);
        await Promise.all([a.write("from the host"), b.write("from the peer")]);
        const [heardA, heardB] = await Promise.all([a.event("data"), b.event("data")]);
        const end = protocol === "tcp" ? "\n" : "";
        assertEquals(heardA.text, `from the peer${end}`);
        assertEquals(heardB.text, `from the host${end}`);
      } finally {
        await Promise.all([a.end("SIGTERM"), b.end("SIGTERM")]);
      }
    });
}

/** They do not, and both are told why. */
function fails(
  protocol: "udp" | "tcp",
  modes: readonly [NatMode, NatMode],
  code: string,
): LabTest {
  return (context) =>
    between(context, modes, async (host, peer) => {
      const ends = await trade(host, peer, 0, `--${protocol}`, "--timeout", "6");
      for (const end of ends) {
        const done = await end.end();
        assertEquals(done.code, 1, done.said);
        assertEquals(done.events.at(-1)?.code, code, done.said);
      }
    });
}

/** A relay (coturn) is the way where there is no other; one side knows it. */
const byRelay: LabTest = (context) =>
  between(context, ["symmetric", "symmetric"], async (host, peer) => {
    const { lab } = context;
    const coturn = lab.spawn("pub", [
      ...["turnserver", "-n", "--no-cli", "--no-tls", "--no-dtls", "--log-file", "stdout"],
      ...["--lt-cred-mech", "-r", "example.org", "-u", "natkit:secret", "-p", "3500"],
      ...["-L", ADDRESS.pub, "-E", ADDRESS.pub, "--userdb", `${lab.folder}/relaydb`],
      ...["--pidfile", `${lab.folder}/relay.pid`],
    ]);
    try {
      await coturn.line((line) => line.includes("IO method (admin thread)"));
      const turn = ["--turn", `natkit:secret@${ADDRESS.pub}:3500`];
      const ends = [
        host.start("punch", "--udp", ...STUN, ...turn),
        peer.start("punch", "--udp", ...STUN),
      ];
      const [a, b] = ends as [RunningNatkit, RunningNatkit];
      const [forB, forA] = await Promise.all([a.event("ticket"), b.event("ticket")]);
      await Promise.all([a.write(String(forA.ticket)), b.write(String(forB.ticket))]);
      try {
        const [, atB] = await Promise.all([a.event("punched", 40_000), b.event("punched", 40_000)]);
        assertEquals(field(atB, "remote.address"), ADDRESS.pub);
        await Promise.all([a.write("from the host"), b.write("from the peer")]);
        assertEquals((await a.event("data")).text, "from the peer");
        assertEquals((await b.event("data")).text, "from the host");
      } finally {
        await Promise.all([a.end("SIGTERM"), b.end("SIGTERM")]);
      }
    } finally {
      coturn.signal("SIGKILL");
      await coturn.status;
    }
  });

/** Another ICE stack at the other end: its program prints SDP, reads SDP, then pipes lines. */
function beside(program: readonly string[], role: "controlling" | "controlled"): LabTest {
  return (context) =>
    between(context, ["keeping", "keeping"], async (host) => {
      const { lab } = context;
      const other = role === "controlling" ? "controlled" : "controlling";
      const own = host.start("punch", ...STUN, "--sdp", `--${role}`);
      const argv = [...program, other, `${ADDRESS.pub}:3478`];
      const peer = lab.spawn("peer", argv, { takesLines: true, cwd: ROOT });
      try {
        const ticket = await own.event("ticket");
        await peer.line((line) => line === "", 30_000);
        for (const line of peer.lines) await own.write(line);
        for (const line of ticket.sdp as string[]) await peer.write(line);
        await peer.write("");
        const punched = await own.event("punched", 40_000);
        assertEquals(field(punched, "remote.address"), SECOND.wan);
        await own.write("from natkit");
        await peer.line((line) => line === "from natkit");
        assertEquals((await own.event("data")).text, "from the other stack");
        // Consent is asked for and given meanwhile.
        await pause(12_000);
        await own.write("still here");
        await peer.line((line) => line === "still here");
      } finally {
        peer.signal("SIGKILL");
        await own.end("SIGTERM");
      }
    });
}

const PEERS = `${ROOT}/scripts/lab/peers`;
const AIOICE = ["/usr/bin/python3", `${PEERS}/aioice_peer.py`];
const WERIFT = [Deno.execPath(), "run", "-A", "--cached-only", `${PEERS}/werift_peer.ts`];

/** Ends what a shell pipeline started; its last line says how it went. */
async function done(process: LabProcess): Promise<void> {
  const { code } = await process.status;
  assertEquals(code, 0, process.said());
}

export const tests: Record<string, LabTest> = {
  "punch UDP: keeping x keeping": meets("udp", ["keeping", "keeping"]),
  "punch UDP: keeping x keeping, 2.5 s late": meets("udp", ["keeping", "keeping"], 2500),
  "punch UDP: full cone x keeping": meets("udp", ["full cone", "keeping"]),
  "punch UDP: restricted x symmetric": meets("udp", ["restricted", "symmetric"]),
  "punch UDP: symmetric x full cone": meets("udp", ["symmetric", "full cone"]),
  "punch UDP: keeping x symmetric, by guessing": meets("udp", ["keeping", "symmetric"]),
  "punch UDP: symmetric x symmetric fails with the reason": fails(
    "udp",
    ["symmetric", "symmetric"],
    "hard-nat",
  ),
  "punch UDP: symmetric x symmetric by a relay": byRelay,
  "punch TCP: keeping x keeping": meets("tcp", ["keeping", "keeping"]),
  "punch TCP: keeping x keeping, 2.5 s late": meets("tcp", ["keeping", "keeping"], 2500),
  // Where both reset, and nothing takes time, it is luck: that is tried in the virtual network.
  "punch TCP: keeping x resetting": meets("tcp", ["keeping", "resetting"]),
  "punch TCP: resetting x keeping, 1 s late": meets("tcp", ["resetting", "keeping"], 1000),
  "punch TCP: keeping x resetting, 1 s late": meets("tcp", ["keeping", "resetting"], 1000),
  "punch TCP: full cone x symmetric": meets("tcp", ["full cone", "symmetric"]),
  "punch TCP: symmetric x symmetric fails with the reason": fails(
    "tcp",
    ["symmetric", "symmetric"],
    "hard-nat",
  ),
  "punch with aioice, controlling": beside(AIOICE, "controlling"),
  "punch with aioice, controlled": beside(AIOICE, "controlled"),
  "punch with werift, controlling": beside(WERIFT, "controlling"),
  "punch with werift, controlled": beside(WERIFT, "controlled"),

  "punch TCP: a file of 10 MB arrives whole": (context) =>
    between(context, ["keeping", "keeping"], async () => {
      const { lab, runtime } = context;
      const [big, arrived] = [`${lab.folder}/sent`, `${lab.folder}/arrived`];
      await must(["dd", "if=/dev/urandom", `of=${big}`, "bs=1M", "count=10", "status=none"]);
      // The peer's ticket comes first; whoever sends appends the file.
      const pipe = (command: readonly string[], after: string, then: string) => [
        "sh",
        "-c",
        `{ IFS= read -r ticket; printf '%s\\n' "$ticket"; ${after}; } | ` +
        `${command.join(" ")} punch --tcp ${STUN.join(" ")} | ` +
        `{ IFS= read -r ticket; printf '%s\\n' "$ticket"; ${then}; }`,
      ];
      const [own, other] = [await natkitCommand(runtime), await natkitCommand(OTHER[runtime])];
      const options = { takesLines: true, cwd: lab.folder };
      const a = lab.spawn("host", pipe(own, `cat ${big}`, "cat"), options);
      const b = lab.spawn("peer", pipe(other, ":", `cat > ${arrived}`), options);
      const isTicket = (line: string) => line.startsWith("natkit1:");
      const [forB, forA] = [await a.line(isTicket), await b.line(isTicket)];
      await a.write(forA);
      await b.write(forB);
      await Promise.all([done(a), done(b)]);
      const { stdout } = await must(["sha256sum", big, arrived]);
      const [sent, got] = stdout.split("\n").map((line) => line.split(" ")[0]);
      assert(sent !== undefined && sent.length === 64);
      assertEquals(got, sent);
      await must(["rm", "-f", big, arrived]);
    }),
};
