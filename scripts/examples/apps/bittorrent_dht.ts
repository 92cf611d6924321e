/**
 * A node of BitTorrent's DHT that answers peers from outside: its UDP port is mapped.
 *
 *   deno bundle --platform=deno scripts/examples/apps/bittorrent_dht.ts -o dht.mjs && node dht.mjs
 */
// deno-lint-ignore-file no-console
import { openPort } from "@natkit/natkit";
import DHT from "bittorrent-dht";

const dht = new DHT({ bootstrap: process.argv.slice(2) });
dht.listen(0, async () => {
  const port = await openPort(dht.address().port, { protocol: "udp" });
  process.once("SIGINT", async () => {
    await port.close();
    dht.destroy();
  });
  console.log(`reachable at ${port.external.address}:${port.external.port}`);
});
