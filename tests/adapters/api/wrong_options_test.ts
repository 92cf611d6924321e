/** What is wrong with an option is told at once, by its name and with its value. */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { bestInterfaceAddress } from "../../../adapters/api/gateways.ts";
import { Nat } from "../../../adapters/api/nat.ts";
import { NatPmpClient } from "../../../adapters/api/nat_pmp_client.ts";
import { PcpClient } from "../../../adapters/api/pcp_client.ts";
import { UdpRendezvous } from "../../../adapters/api/punch.ts";
import { TcpRendezvous } from "../../../adapters/api/punch_tcp.ts";
import { natBehaviour, reflexiveAddress } from "../../../adapters/api/stun.ts";
import { UpnpClient } from "../../../adapters/api/upnp_client.ts";
import { startGateway } from "../../../adapters/gateway_server.ts";
import { FakeRuntime } from "../fake_runtime.ts";
import { any } from "./fake_network.ts";

const GATEWAY = "192.0.2.1";
const SERVER = "192.0.2.9";

type Call = (options: Record<string, unknown>, runtime: FakeRuntime) => unknown;

/** Calls a method of a context, which is closed again. */
function ofNat(call: (nat: Nat, options: Record<string, unknown>) => unknown): Call {
  return async (options, runtime) => {
    const nat = await Nat.open({ gateway: GATEWAY, runtime });
    // Its own sockets are no sign that something has begun.
    const before = runtime.sockets.splice(0);
    try {
      return await call(nat, options);
    } finally {
      for (const socket of before) socket.close();
      await nat.close();
    }
  };
}

const NO_LIST = [null, 5, "host", true, {}] as const;
const NO_FUNCTION = [null, 5, "f", {}, []] as const;
const NO_SIGNAL = [null, 5, "s", {}] as const;
const NO_SERVERS = [...NO_LIST, [5], [null], [{}], ["a b"]] as const;
const NO_FAMILY = [null, 5, "4", true] as const;
const NO_TIME = [null, -1, NaN, "5"] as const;

const WRONG: readonly [name: string, call: Call, Readonly<Record<string, readonly unknown[]>>][] = [
  ["Nat.open()", (options, runtime) => Nat.open({ gateway: GATEWAY, runtime, ...options }), {
    gateway: [5, "router", {}],
    internalAddress: [null, 5, "host", "", {}],
    protocols: [5, "pcp", ["igd"], [null]],
    state: [null, 5, "s", {}, { version: 1, mappings: "" }],
    onState: NO_FUNCTION,
    stunServers: NO_SERVERS,
    signal: NO_SIGNAL,
  }],
  ["nat.map()", ofNat((nat, options) => nat.map(80, options)), {
    protocol: ["sctp", 6],
    externalPort: [-1, 65536, "80"],
    externalAddress: [null, 5, "host"],
    lifetimeSeconds: [0, 1.5, "60"],
    mode: [0, "twice", null],
    thirdParty: [null, 5, "host"],
    description: [null, 5, {}],
    family: NO_FAMILY,
    filters: [null, 5, "192.0.2.0/24", ["host"], [{}], [null]],
    portSetSize: [null, 1, "2"],
    timeoutMs: NO_TIME,
    signal: NO_SIGNAL,
  }],
  ["nat.bindUdp()", ofNat((nat, options) => nat.bindUdp(options)), {
    port: [null, -1, 65536, "80"],
    address: [5, "host"],
    externalPort: [-1, "80"],
    onDatagram: NO_FUNCTION,
    onUnreachable: NO_FUNCTION,
    onError: NO_FUNCTION,
  }],
  ["nat.listenTcp()", ofNat((nat, { server }) => nat.listenTcp(any(server))), {
    server: [null, 5, "s", {}, []],
  }],
  ["nat.addServers()", ofNat((nat, { stunServers }) => nat.addServers(any(stunServers))), {
    stunServers: NO_SERVERS,
  }],
  ["nat.externalAddresses()", ofNat((nat, options) => nat.externalAddresses(options)), {
    protocols: [5, "pcp", ["igd"]],
    onAddress: NO_FUNCTION,
    timeoutMs: NO_TIME,
    signal: NO_SIGNAL,
  }],
  ["nat.diagnose()", ofNat((nat, options) => nat.diagnose(options)), {
    stunServers: NO_SERVERS,
    timeoutMs: NO_TIME,
    signal: NO_SIGNAL,
  }],
  ["PcpClient.open()", (options, runtime) => {
    return PcpClient.open({ server: GATEWAY, runtime, ...options });
  }, { server: [5, "router", {}], internalAddress: [null, 5, "host", "::1"], state: [5, {}] }],
  ["NatPmpClient.open()", (options, runtime) => {
    return NatPmpClient.open({ gateway: GATEWAY, runtime, ...options });
  }, { gateway: [5, "router", {}], internalAddress: [null, 5, "host", "::1"], state: [5, {}] }],
  ["UpnpClient.open()", (options, runtime) => UpnpClient.open({ runtime, ...options }), {
    targets: [null, 5, "igd", {}, [5], []],
    places: [5, "eth0", {}],
    mx: [0, "1"],
    port: [0, "1900"],
  }],
  ["reflexiveAddress()", (options, runtime) => reflexiveAddress(SERVER, { runtime, ...options }), {
    transport: ["sctp", 6],
    localPort: [-1, "80"],
    family: NO_FAMILY,
    credentials: [
      null,
      5,
      {},
      { type: "long-term" },
      { type: "long-term", username: "u", password: 5 },
      { type: "other", username: "u", password: "p" },
    ],
    timeoutMs: NO_TIME,
    signal: NO_SIGNAL,
  }],
  ["natBehaviour()", (options, runtime) => natBehaviour([SERVER], { runtime, ...options }), {
    family: NO_FAMILY,
    localAddress: [5, "host"],
    maxLifetimeSeconds: [3, 3601, "60"],
    signal: NO_SIGNAL,
  }],
  ["bestInterfaceAddress()", ({ family }, runtime) => bestInterfaceAddress(any(family), runtime), {
    family: NO_FAMILY,
  }],
  ...Object.entries({ UdpRendezvous, TcpRendezvous }).map((
    [name, side],
  ): (typeof WRONG)[number] => [
    `${name}.open()`,
    (options, runtime) => side.open({ localAddresses: ["192.0.2.7"], runtime, ...options }),
    {
      stunServers: NO_SERVERS,
      turnServers: [...NO_LIST, [5], [null], [{ server: SERVER }], [{
        server: SERVER,
        username: "u",
        password: 5,
      }]],
      nat: [null, 5, {}],
      localPort: [-1, "80"],
      localAddresses: [...NO_LIST, [], ["host"]],
      role: [null, "leader", 1],
      timeoutMs: [0, -1, "5"],
      signal: NO_SIGNAL,
    },
  ]),
  ["startGateway()", (options, runtime) => startGateway({ runtime, ...options }), {
    listen: [null, 5, "host"],
    port: [-1, "80"],
    external: [null, 5, {}, "host", ["host"], "2001:db8::1"],
    protocols: [5, {}, "pcp", ["igd"]],
    profile: [null, 5, true, "none"],
    announceTo: [5, {}, [null], [{ address: "host", port: 1 }]],
    epochSeconds: [-1, "1"],
    onEvent: NO_FUNCTION,
    onSocketError: NO_FUNCTION,
  }],
];

describe("an option that cannot be", () => {
  for (const [name, call, options] of WRONG) {
    it(`of ${name} is told by its name, and leaves nothing open`, async () => {
      for (const [option, values] of Object.entries(options)) {
        for (const value of values) {
          const what = `${name} with ${option} ${JSON.stringify(value)}`;
          const runtime = new FakeRuntime();
          const address = "192.0.2.7";
          runtime.addresses.push({ name: "eth0", address, prefixLength: 24, internal: false });
          const result = await new Promise((resolve) => resolve(call({ [option]: value }, runtime)))
            .then(() => "is taken", (error: unknown) => error);
          const isMistake = result instanceof TypeError || result instanceof RangeError;
          assert(isMistake && result.message.includes(`'${option}`), `${what}: ${result}`);
          const open = runtime.sockets.filter((socket) => !socket.isClosed);
          assertEquals(open.length, 0, `${what} leaves a socket`);
        }
      }
    });
  }
});
