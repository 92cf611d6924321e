/**
 * A machine in an event loop of your own: one socket, one timer, no promises.
 *
 *   deno run -A scripts/examples/custom_loop.ts GATEWAY[:PORT] LOCAL_ADDRESS
 */
// deno-lint-ignore-file no-console
import { createSocket } from "node:dgram";
import { GatewaySession, parseEndpoint, type RandomSource } from "@natkit/natkit/core";

const gateway = parseEndpoint(process.argv[2] ?? "192.168.1.1", 5351)!;
const localAddress = process.argv[3] ?? "192.168.1.100"; // PCP puts it into its requests
const random: RandomSource = {
  u32: () => crypto.getRandomValues(new Uint32Array(1))[0]!,
  fill: (bytes) => void crypto.getRandomValues(bytes as Uint8Array<ArrayBuffer>),
};
const socket = createSocket("udp4");
let session: GatewaySession;
let timer: ReturnType<typeof setTimeout> | undefined;

socket.connect(gateway.port, gateway.address, () => {
  session = new GatewaySession({ gateway, localAddress, random });
  feed((now) => session.map({ protocol: "tcp", internalPort: 8080 }, now));
});
socket.on("message", (data) => feed((now) => session.handleDatagram(data, gateway, now)));
socket.on("error", () => feed((now) => session.handleUnreachable(gateway, now))); // ICMP

/** The canonical loop: feed one input, drain, sleep until the next deadline. */
function feed(input: (now: number) => unknown): void {
  input(performance.now());
  for (let action = session.poll(); action; action = session.poll()) {
    if (action.type === "send") socket.send(action.data);
    else if (action.type === "event") told(action.event);
  }
  clearTimeout(timer);
  const next = session.nextTimeout();
  if (next === undefined) return void socket.close();
  timer = setTimeout(() => feed((now) => session.handleTimeout(now)), next - performance.now());
}

function told(event: { type: string; id?: number }): void {
  console.log(JSON.stringify(event));
  // A real program would hold it; this one has seen enough.
  if (event.type === "mapped") queueMicrotask(() => feed((now) => session.revoke(event.id!, now)));
}
