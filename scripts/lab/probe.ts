/**
 * What one runtime's adapter makes of the network it finds itself in, as lines of JSON: the program
 * that lab tests run in a namespace.
 *
 * - `network`: the gateways, the detours, and the error where there is no gateway
 * - `source ADDRESS`: the address to ask a gateway from
 * - `send ADDRESS PORT [connect]`: sends one datagram; from where, and what was told
 * - `serve PORT`: answers each connection and datagram with who the peer is, `ready` once mapped
 * - `relay SERVER PORT PEER_PORT`: an allocation at a TURN server, and what a peer there answers
 * - `get ADDRESS PORT PATH`: the status and length of what HTTP answers, or why it does not
 * - `follow NAME`: what changes at the first UPnP service of that name, a line each
 * - `watch`: `ready`, then a line for each change of the fingerprint, until it is ended
 *
 * @module
 */
// deno-lint-ignore-file no-console
import process from "node:process";
import { systemRuntime } from "../../adapters/auto.ts";
import {
  gatewayNotFound,
  networkFingerprint,
  readNetwork,
  sourceToward,
} from "../../adapters/discovery/mod.ts";
import { Nat } from "../../adapters/api/nat.ts";
import { UpnpClient } from "../../adapters/api/upnp_client.ts";
import type { Assignment } from "../../core/portmap/managed.ts";
import { Driver } from "../../adapters/driver.ts";
import { NatError } from "../../core/errors.ts";
import type { Endpoint } from "../../core/machine.ts";
import { TurnClient, type TurnEvent } from "../../core/stun/turn.ts";

const runtime = systemRuntime();
const print = (value: unknown) => console.log(JSON.stringify(value));
const pause = (ms: number) =>
  new Promise<void>((resolve) => void runtime.setTimer(ms, resolve, true));

/** Longer than any error of a send takes to be told. */
const SEND_MS = 300;

async function network(): Promise<void> {
  const found = await readNetwork(runtime);
  const error = found.gateways.length === 0 ? gatewayNotFound(found).message : undefined;
  print({ ...found, error });
}

async function send(address: string, port: number, isConnected: boolean): Promise<void> {
  const to = { address, port };
  const told: unknown[] = [];
  const tell = (error: unknown, about?: unknown) => {
    const { code, message } = error as NatError;
    told.push({ isTyped: error instanceof NatError, code, message, to: about });
  };
  try {
    const socket = await runtime.openUdp(isConnected ? { connect: to } : {}, {
      onDatagram() {},
      onUnreachable: (peer) => told.push({ code: "unreachable", to: peer }),
      onError: tell,
    });
    socket.send(Uint8Array.of(1), to);
    await pause(SEND_MS);
    socket.close();
    print({ local: socket.local.address, told });
  } catch (error) {
    tell(error);
    print({ told });
  }
}

async function watch(): Promise<void> {
  let known = await networkFingerprint(runtime);
  print("ready");
  while (true) {
    await pause(known.readAgainMs);
    const seen = await networkFingerprint(runtime);
    if (seen.text !== known.text) print("changed");
    known = seen;
  }
}

/** TCP and UDP on one port, both mapped; over IPv4 and IPv6. */
async function serve(port: number): Promise<void> {
  const nat = await Nat.open({ runtime });
  const tcp = await nat.listenTcp((connection) => void connection.end(connection.remoteAddress), {
    port,
  });
  const udp = await nat.bindUdp({
    port,
    address: "::",
    onDatagram: (_, from) => udp.send(new TextEncoder().encode(from.address), from),
  });
  const isMapped = (assignments: readonly Assignment[]) =>
    [4, 6].every((family) =>
      assignments.some((one) => one.via !== "local" && one.family === family)
    );
  for (const watch of [tcp, udp]) {
    for await (const assignments of watch) if (isMapped(assignments)) break;
  }
  print("ready");
}

/** An address at a TURN server, by which a peer is asked who it takes us for. */
async function relay(server: Endpoint, peer: Endpoint): Promise<void> {
  const random = runtime.random;
  const client = new TurnClient({ server, username: "user", password: "pass", random });
  const driver = new Driver<TurnEvent, TurnClient>(runtime, (event) => {
    if (event.type === "data") print({ ...event, data: new TextDecoder().decode(event.data) });
    else print(event);
    const hello = new TextEncoder().encode("hello");
    if (event.type === "permitted") {
      // Both ways: in an indication, and when it is bound by a channel.
      driver.do((it, now) => it.send(peer, hello, now));
      driver.do((it, now) => it.bindChannel(peer, now));
      runtime.setTimer(SEND_MS, () => driver.do((it, now) => it.send(peer, hello, now)), true);
      runtime.setTimer(2 * SEND_MS, () => {
        driver.do((it, now) => it.close(now));
        print(client.stats.relayed);
        driver.close();
      }, true);
    }
  });
  await driver.open({ key: "client", local: { address: "0.0.0.0", port: 0 } });
  driver.start(client);
  driver.do((it, now) => it.allocate(now));
  driver.do((it, now) => it.permit(peer.address, now));
}

async function get(address: string, port: number, path: string): Promise<void> {
  const http = await runtime.openHttp!({
    onResult: (_, result) => {
      print(result.ok ? { status: result.status, length: result.body.length } : result.reason);
      http.close();
    },
    onRequest() {},
  });
  const request = { method: "GET", path, headers: [] };
  const limits = { maxBytes: 100_000, timeoutMs: 5000 };
  http.request({ type: "request", id: 1, to: { address, port }, request, ...limits });
}

async function follow(name: string): Promise<void> {
  const client = await UpnpClient.open({ runtime });
  for await (const service of client.services()) {
    if (!service.serviceType.includes(`:${name}:`)) continue;
    for await (const properties of service.changes()) print(properties);
  }
}

const [command, address = "", port, flag = ""] = process.argv.slice(2);
switch (command) {
  case "network":
    await network();
    break;
  case "source":
    print(await sourceToward(runtime, address));
    break;
  case "send":
    await send(address, Number(port), flag === "connect");
    break;
  case "relay":
    await relay({ address, port: Number(port) }, { address, port: Number(flag) });
    break;
  case "serve":
    await serve(Number(address));
    break;
  case "get":
    await get(address, Number(port), flag);
    break;
  case "follow":
    await follow(address);
    break;
  case "watch":
    await watch();
}
