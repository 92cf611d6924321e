/**
 * ICE by werift, for the lab: prints SDP, reads SDP up to an empty line, connects, pipes lines.
 *
 * Arguments: controlling or controlled, and a STUN server as ADDRESS:PORT.
 *
 * @module
 */
// deno-lint-ignore-file no-console
import process from "node:process";
import { createInterface } from "node:readline";
import { candidateFromSdp, candidateToSdp, RTCIceGatherer, RTCIceTransport } from "werift";

const [role, stun] = process.argv.slice(2);
const [address, port] = stun!.split(":");
const gatherer = new RTCIceGatherer({ stunServer: [address!, Number(port)], useIpv6: false });
const transport = new RTCIceTransport(gatherer);
const { connection } = transport;
connection.iceControlling = role === "controlling";
await transport.gather();
console.log(`a=ice-ufrag:${connection.localUsername}\na=ice-pwd:${connection.localPassword}`);
for (const candidate of transport.localCandidates) {
  console.log(`a=candidate:${candidateToSdp(candidate)}`);
}
console.log("");
connection.onData.subscribe((data) => console.log(data.toString()));
const told = { iceLite: false, usernameFragment: "", password: "" };
for await (const line of createInterface({ input: process.stdin })) {
  if (line === "") break;
  const [name, value] = [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1)];
  if (name === "a=ice-ufrag") told.usernameFragment = value;
  else if (name === "a=ice-pwd") told.password = value;
  else if (name === "a=candidate") await transport.addRemoteCandidate(candidateFromSdp(value));
}
transport.setRemoteParams(told as never);
await transport.addRemoteCandidate(undefined);
await transport.start();
await connection.send(new TextEncoder().encode("from the other stack") as never);
