/**
 * port-mapper's gateway for PCP and NAT-PMP: `server.js LAN_ADDRESS WAN_ADDRESS`. Grants all and
 * forwards nothing. Prints `{}` when it listens, and ends with its input.
 */
// deno-lint-ignore-file no-console no-process-global
import { createServer } from "port-mapper";

const [lan, wan] = process.argv.slice(2);
const server = createServer({
  interface: lan,
  externalIp: wan,
  protocols: ["pcp", "natpmp"],
  policy: "allow-all",
  maxMappings: 1000,
  maxPerClient: 1000,
});
server.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
server.listen((error) => {
  if (error) throw error;
  console.log("{}");
});
process.stdin.on("data", () => {}).on("end", () => process.exit(0));
