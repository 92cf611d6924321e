/**
 * A libp2p node that is reached from outside: natkit maps the ports on which it listens.
 *
 *   deno run -A scripts/examples/apps/libp2p.ts
 */
// deno-lint-ignore-file no-console
import { noise } from "@chainsafe/libp2p-noise";
import { yamux } from "@chainsafe/libp2p-yamux";
import { tcp } from "@libp2p/tcp";
import { portMapping } from "@natkit/natkit/libp2p";
import { createLibp2p } from "libp2p";

const node = await createLibp2p({
  addresses: { listen: ["/ip4/0.0.0.0/tcp/0"] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  // Without AutoNAT: it wants peers that try whether they reach this one.
  services: { portMapping: portMapping({ autoConfirmAddress: true }) },
});
node.addEventListener("self:peer:update", () => {
  for (const address of node.getMultiaddrs()) console.log(`reachable at ${address}`);
});
process.once("SIGINT", async () => {
  await node.stop(); // unmaps
  process.exit();
});
