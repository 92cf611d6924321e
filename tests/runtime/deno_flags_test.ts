import { assertEquals, assertStringIncludes } from "@std/assert";
import { describe, it } from "node:test";
import process from "node:process";
import { runtime } from "./support.ts";

const ADAPTER = new URL("../../adapters/auto.ts", import.meta.url).href;

/** What a program that knows nothing of this project does: an exchange, then its gateways. */
const PROGRAM = `
const { systemRuntime } = await import(${JSON.stringify(ADAPTER)});
const runtime = systemRuntime();
const said = [typeof Deno.listenDatagram];
const handlers = (onDatagram) => ({ onDatagram, onUnreachable() {}, onError(e) { tell(e); } });
const tell = (e) => { said.push(e.code + ": " + e.message); end(); };
const end = () => { console.log(JSON.stringify(said)); Deno.exit(0); };
try {
  const local = { address: "127.0.0.1", port: 0 };
  const server = await runtime.openUdp({ local }, handlers((data, from) => server.send(data, from)));
  const client = await runtime.openUdp({ connect: server.local }, handlers((data, from) => {
    said.push(client.local.address, from.port === server.local.port, data.length);
    end();
  }));
  client.send(new Uint8Array(5), server.local);
} catch (error) {
  tell(error);
}
`;

/** Sends ten datagrams in its first turn and closes: what arrives. */
const FIRST_TURN = `
const { systemRuntime } = await import(${JSON.stringify(ADAPTER)});
const heard = [];
const handlers = { onDatagram(data) {
  if (heard.push(data[0]) === 10) { console.log(JSON.stringify(heard)); Deno.exit(0); }
}, onUnreachable() {}, onError(e) { console.log(JSON.stringify([e.message])); Deno.exit(0); } };
const local = { address: "127.0.0.1", port: 0 };
const runtime = systemRuntime();
const server = await runtime.openUdp({ local }, handlers);
const client = await runtime.openUdp({ connect: server.local }, handlers);
for (let i = 0; i < 10; i++) client.send(Uint8Array.of(i), server.local);
client.close();
`;

/** Runs a program with these flags; on other runtimes there are no such flags to try. */
async function runWith(...flags: string[]): Promise<unknown[] | undefined> {
  return await runProgram(PROGRAM, flags);
}

async function runProgram(source: string, flags: string[]): Promise<unknown[] | undefined> {
  if (runtime.name !== "deno") return undefined;
  const code = `data:text/javascript,${encodeURIComponent(source)}`;
  const args = ["run", "--quiet", "--no-config", "--no-lock", "--no-prompt", ...flags, code];
  return JSON.parse(await runtime.run(process.execPath, args));
}

/** What is expected on Deno; nothing elsewhere. */
function onDeno<T>(value: T): T | undefined {
  return runtime.name === "deno" ? value : undefined;
}

describe("a program on Deno outside of the project", () => {
  it("works without --unstable-net, over node:dgram", async () => {
    const said = await runWith("-A");

    assertEquals(said, onDeno(["undefined", "127.0.0.1", true, 5]));
  });

  it("works with --unstable-net, over Deno.listenDatagram", async () => {
    const said = await runWith("-A", "--unstable-net");

    assertEquals(said, onDeno(["function", "127.0.0.1", true, 5]));
  });

  it("sends what it sends in its first turn in order, and all of it before it closes", async () => {
    for (const unstable of [[], ["--unstable-net"]]) {
      const heard = await runProgram(FIRST_TURN, ["-A", ...unstable]);

      assertEquals(heard, onDeno([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
    }
  });

  it("needs no more than --allow-net toward loopback", async () => {
    for (const unstable of [[], ["--unstable-net"]]) {
      const said = await runWith("--allow-import", "--allow-read", "--allow-net", ...unstable);

      assertEquals(said?.slice(1), onDeno(["127.0.0.1", true, 5]));
    }
  });

  it("does without the system's uptime where it may not be read, and asks nobody", async () => {
    const source = `
      const { systemRuntime } = await import(${JSON.stringify(ADAPTER)});
      const { state } = Deno.permissions.querySync({ name: "sys", kind: "osUptime" });
      console.log(JSON.stringify([state, Number.isFinite(systemRuntime().now())]));
    `;

    const said = await runProgram(source, ["--allow-import", "--allow-read"]);

    assertEquals(said, onDeno(["prompt", true]));
  });

  it("is told by name which permission is missing", async () => {
    for (const unstable of [[], ["--unstable-net"]]) {
      const all = await runWith("--allow-import", "--allow-read", ...unstable);
      const peer = await runWith(
        "--allow-import",
        "--allow-read",
        "--allow-net=127.0.0.1:0",
        ...unstable,
      );

      assertStringIncludes(String(all?.[1]), onDeno("permission: ") ?? "");
      assertStringIncludes(String(all?.[1]), onDeno("--allow-net is needed") ?? "");
      assertStringIncludes(String(peer?.[1]), onDeno("--allow-net=127.0.0.1:") ?? "");
    }
  });
});
