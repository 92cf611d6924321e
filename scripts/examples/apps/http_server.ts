/**
 * A web server that is reached from outside, and tells its address at each change.
 *
 *   deno bundle --platform=deno scripts/examples/apps/http_server.ts -o http.mjs && bun http.mjs
 */
// deno-lint-ignore-file no-console
import { createServer } from "node:http";
import { Nat } from "@natkit/natkit";

const nat = await Nat.open();
process.once("SIGINT", () => nat.close());
const server = createServer((_, response) => response.end("hello from behind the NAT\n"));
for await (const assignments of await nat.listenTcp(server)) {
  for (const { via, address, port } of assignments) {
    if (via !== "local") console.log(`reachable at ${address}:${port}`);
  }
}
