/**
 * Servers and connections in the lab, to see whether packets arrive: one-line Node programs, since
 * a runtime's own sockets stay in the namespace it was started in.
 *
 * @module
 */
import type { Lab } from "./lab.ts";
import type { LabProcess } from "./process.ts";
import type { Place } from "./topology.ts";

/** Each answers who it takes the peer for. */
const SERVERS = {
  tcp: `require("node:net").createServer((socket) => {
    socket.on("error", () => {});
    socket.end(socket.remoteAddress);
  }).listen(+process.argv[1], "::", () => console.log("listening"));`,
  udp: `const socket = require("node:dgram").createSocket({ type: "udp6" });
    socket.on("message", (data, from) => socket.send(from.address, from.port, from.address));
    socket.bind(+process.argv[1], () => console.log("listening"));`,
} as const;

/**
 * Each prints the answer, or the error's code, or "silence". With TCP who is greeted need not end
 * the connection.
 */
const CLIENTS = {
  tcp: `const [address, port, patience, hello = ""] = process.argv.slice(1);
    const end = (text) => { console.log(text); process.exit(); };
    setTimeout(() => end("silence"), +patience);
    let answer = "";
    require("node:net").connect({ host: address, port: +port })
      .on("connect", function () { if (hello) this.write(hello); })
      .on("data", (data) => { answer += data; if (hello) end(answer); }).on("end", () => end(answer))
      .on("error", (error) => end(error.code));`,
  udp: `const [address, port, patience, hello = "hello"] = process.argv.slice(1);
    const end = (text) => { console.log(text); process.exit(); };
    setTimeout(() => end("silence"), +patience);
    const socket = require("node:dgram").createSocket(address.includes(":") ? "udp6" : "udp4");
    socket.on("message", (data) => end(String(data)));
    socket.send(hello, +port, address);`,
} as const;

/** How long a client waits for an answer on links without delay. */
const PATIENCE_MS = 600;

/** Starts a server on a port of every address of a place. */
export async function serve(
  lab: Lab,
  place: Place,
  protocol: "tcp" | "udp",
  port: number,
): Promise<LabProcess> {
  const server = lab.spawn(place, ["node", "-e", SERVERS[protocol], String(port)]);
  await server.line((line) => line === "listening");
  return server;
}

/**
 * Connects from a place: what the peer answers, or the error's code, or "silence".
 *
 * @param hello What is said to it first.
 */
export async function reach(
  lab: Lab,
  place: Place,
  protocol: "tcp" | "udp",
  to: { readonly address: string; readonly port: number },
  hello?: string,
): Promise<string> {
  const argv = ["node", "-e", CLIENTS[protocol], to.address, `${to.port}`, `${PATIENCE_MS}`];
  if (hello !== undefined) argv.push(hello);
  const { stdout, stderr } = await lab.exec(place, argv);
  return (stdout + stderr).trim().replace(/^::ffff:/, "");
}
