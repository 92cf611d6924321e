/**
 * Programs that natkit makes reachable with a few lines: libp2p, BitTorrent's DHT, a web server.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { readdirSync } from "node:fs";
import type { LabTest } from "../../scripts/lab/main.ts";
import { appCommand } from "../../scripts/lab/natkit.ts";
import { ADDRESS } from "../../scripts/lab/topology.ts";
import { reach } from "../../scripts/lab/traffic.ts";
import { ROOT } from "../../scripts/lib/files.ts";
import type { Runtime } from "../../scripts/lib/runtimes.ts";
import { table, until } from "./support.ts";

/** A program, what the public host says to it, and what it answers. */
interface App {
  readonly file: string;
  readonly protocol: "tcp" | "udp";
  readonly hello: string;
  readonly answer: RegExp;
}

const APPS: Readonly<Record<Runtime, App>> = {
  // The first message of a libp2p connection, with its length: which protocol shall it be?
  Deno: {
    file: "libp2p.ts",
    protocol: "tcp",
    hello: "\x13/multistream/1.0.0\n",
    answer: /\/multistream\/1\.0\.0$/,
  },
  // KRPC's ping (BEP 5).
  Node: {
    file: "bittorrent_dht.ts",
    protocol: "udp",
    hello: "d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe",
    answer: /1:t2:aa.*1:y1:re/s,
  },
  Bun: {
    file: "http_server.ts",
    protocol: "tcp",
    hello: "GET / HTTP/1.0\r\n\r\n",
    answer: /^HTTP\/1\.[01] 200 [^]*hello from behind the NAT/,
  },
};

export const tests: Record<string, LabTest> = {
  "a program of other hands is reached from outside": async ({ lab, runtime }) => {
    const files = readdirSync(`${ROOT}/scripts/examples/apps`).sort();
    assertEquals(files, Object.values(APPS).map(({ file }) => file).sort());
    const { protocol, hello, answer } = APPS[runtime];
    const app = lab.spawn("host", await appCommand(runtime), { env: { NO_COLOR: "1" } });

    const outside = /reachable at (?:\/ip4\/)?(11\.[\d.]+)(?::|\/tcp\/)(\d+)/;
    const [, address = "", port] = outside.exec(await app.line((line) => outside.test(line)))!;
    assertEquals(address, ADDRESS.wan);
    assertEquals((await table(lab)).length, 1);
    // A DHT's node answers once it has found its own place.
    await until("the program's answer", async () => {
      return answer.test(await reach(lab, "pub", protocol, { address, port: Number(port) }, hello));
    }, 10_000);

    app.signal("SIGINT");
    assertEquals((await app.status).code, 0, app.said());
    assertEquals(await table(lab), []);
  },
};
