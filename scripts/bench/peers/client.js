/**
 * One mapping by one of the peers, in a fresh process: `client.js PEER GATEWAY LOCAL [PORT]`. PEER
 * may be followed by ", default options" or ", told the gateway". Prints one line of JSON,
 * `{elapsedMs, ok, detail}`. It is copied beside the peers' `node_modules`.
 */
// deno-lint-ignore-file no-console no-process-global
import { createSocket } from "node:dgram";

const [name, gateway, local, port = "6000"] = process.argv.slice(2);
const PORT = Number(port);

const peers = {
  "natkit": ({ gateway }) => async () => {
    const { openPort } = await import("natkit");
    return async () => (await openPort(PORT, { gateway })).via;
  },
  // What the network and the gateway take by themselves: NAT-PMP's request for a TCP port.
  "bare request": () => () => () =>
    new Promise((resolve) => {
      const request = Buffer.from([0, 2, 0, 0, PORT >> 8, PORT & 255, 0, 0, 0, 0, 14, 16]);
      const socket = createSocket("udp4").once("message", () => resolve("nat-pmp"));
      socket.send(request, 5351, gateway);
    }),
  // As its README shows, with UPnP left out: nothing here speaks it, and it would wait for it.
  "port-mapper": (options) => async () => {
    const { open } = await import("port-mapper");
    return () =>
      new Promise((resolve, reject) => {
        const wanted = { ipv6: false, protocol: "tcp", ...options };
        open(PORT, wanted, (error, mapping) => error ? reject(error) : resolve(mapping.via));
      });
  },
  "@silentbot1/nat-api": ({ gateway }) => async () => {
    const { default: NatAPI } = await import("@silentbot1/nat-api");
    return async () => {
      const client = new NatAPI({ enableUPNP: false, gateway });
      const done = await client.map({ publicPort: PORT, privatePort: PORT, protocol: "TCP" });
      if (!done) throw new Error("map() told false");
      return "nat-pmp";
    };
  },
  "@achingbrain/nat-port-mapper": (_, gateway, local) => async () => {
    const { pmpNat } = await import("@achingbrain/nat-port-mapper");
    return async () => {
      const options = { protocol: "tcp", autoRefresh: false };
      await pmpNat(gateway).map(PORT, local, options);
      return "nat-pmp";
    };
  },
};

const [peer, variant] = name.split(", ");
const options = {
  ...(variant === "default options" ? {} : { protocols: ["pcp", "natpmp"] }),
  ...(variant === "told the gateway" ? { gateway } : {}),
};
const map = await peers[peer](options, gateway, local)();
const from = performance.now();
const outcome = await map().then(
  (detail) => ({ ok: true, detail }),
  (error) => ({ ok: false, detail: error.message.split("\n")[0] }),
);
console.log(JSON.stringify({ elapsedMs: performance.now() - from, ...outcome }));
process.exit(0);
