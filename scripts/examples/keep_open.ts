/**
 * A server that is reachable from outside, and follows what happens to its port.
 *
 *   deno run -A scripts/examples/keep_open.ts [GATEWAY[:PORT]]
 */
// deno-lint-ignore-file no-console
import { createServer } from "node:net";
import { NatError, openPort } from "@natkit/natkit";

const server = createServer((socket) => socket.end("hello\n")).listen(0);
const { port: listening } = server.address() as { port: number };
const gateway = process.argv[2];
try {
  const port = await openPort(listening, { ...(gateway ? { gateway } : {}), timeoutMs: 5000 });
  process.once("SIGINT", () => port.close()); // deletes the mapping and ends the loop below
  console.log(`reachable at ${port.external.address}:${port.external.port} via ${port.via}`);
  if (port.isDoubleNat) console.log("but that address is behind another NAT");
  for await (const event of port) console.log(event.type);
} catch (error) {
  if (!(error instanceof NatError)) throw error;
  console.error(error.message); // what was tried, by protocol and gateway
  for (const { via, gateway, outcome } of error.attempts) console.error(via, gateway, outcome);
}
server.close();
