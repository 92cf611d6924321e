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

/** Runs the program with these flags; on other runtimes there are no such flags to try. */
async function runWith(...flags: string[]): Promise<unknown[] | undefined> {
  if (runtime.name !== "deno") return undefined;
  const code = `data:text/javascript,${encodeURIComponent(PROGRAM)}`;
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

  it("needs no more than --allow-net toward loopback", async () => {
    for (const unstable of [[], ["--unstable-net"]]) {
      const said = await runWith("--allow-import", "--allow-read", "--allow-net", ...unstable);

      assertEquals(said?.slice(1), onDeno(["127.0.0.1", true, 5]));
    }
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
