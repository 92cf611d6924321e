/**
 * One mapping by one of the peers, in a fresh process: `client.js PEER GATEWAY LOCAL [PORT]`. PEER
 * may be followed by ", default options", ", told the gateway", ", UPnP alone" or ", all protocols".
 * Prints one line of JSON,
 * `{elapsedMs, ok, detail}`. It is copied beside the peers' `node_modules`.
 */
// deno-lint-ignore-file no-console no-process-global
import { createSocket } from "node:dgram";

const [name, gateway, local, port = "6000"] = process.argv.slice(2);
const PORT = Number(port);

const peers = {
  "natkit": ({ gateway, upnp }) => async () => {
    const { openPort } = await import("natkit");
    const options = upnp ? { protocols: ["upnp"] } : gateway ? { gateway } : {};
    return async () => (await openPort(PORT, options)).via;
  },
  // What the network and the gateway take by themselves: NAT-PMP's request for a TCP port.
  "bare request": () => () => () =>
    new Promise((resolve) => {
      const request = Buffer.from([0, 2, 0, 0, PORT >> 8, PORT & 255, 0, 0, 0, 0, 14, 16]);
      const socket = createSocket("udp4").once("message", () => resolve("nat-pmp"));
      socket.send(request, 5351, gateway);
    }),
  // As its README shows, with UPnP left out where nothing speaks it: it would wait for it.
  "port-mapper": ({ upnp: _, ...options }) => async () => {
    const { open } = await import("port-mapper");
    return () =>
      new Promise((resolve, reject) => {
        const wanted = { ipv6: false, protocol: "tcp", ...options };
        open(PORT, wanted, (error, mapping) => error ? reject(error) : resolve(mapping.via));
      });
  },
  "@silentbot1/nat-api": ({ gateway, upnp = false }) => async () => {
    const { default: NatAPI } = await import("@silentbot1/nat-api");
    return async () => {
      const client = new NatAPI({ enableUPNP: upnp, enablePMP: !upnp, gateway });
      const done = await client.map({ publicPort: PORT, privatePort: PORT, protocol: "TCP" });
      if (!done) throw new Error("map() told false");
      return upnp ? "upnp" : "nat-pmp";
    };
  },
  "@achingbrain/nat-port-mapper": ({ upnp }, gateway, local) => async () => {
    const { pmpNat, upnpNat } = await import("@achingbrain/nat-port-mapper");
    return async () => {
      const options = { protocol: "tcp", autoRefresh: false };
      if (upnp) {
        for await (const found of upnpNat().findGateways({ signal: AbortSignal.timeout(10_000) })) {
          await found.map(PORT, local, options);
          return "upnp";
        }
        throw new Error("no gateway found");
      }
      await pmpNat(gateway).map(PORT, local, options);
      return "nat-pmp";
    };
  },
};

const [peer, variant] = name.split(", ");
const isUpnp = variant === "UPnP alone";
const options = {
  ...(variant === "default options" ? {} : { protocols: isUpnp ? ["upnp"] : ["pcp", "natpmp"] }),
  ...(isUpnp ? { upnp: true } : {}),
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
