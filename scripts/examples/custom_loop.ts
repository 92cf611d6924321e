/**
 * A machine in an event loop of your own: one socket, one timer, no promises.
 *
 *   deno run -A scripts/examples/custom_loop.ts GATEWAY[:PORT] LOCAL_ADDRESS
 */
// deno-lint-ignore-file no-console
import { createSocket } from "node:dgram";
import { parseEndpoint, PortMapper, type RandomSource } from "@natkit/natkit/core";

const gateway = parseEndpoint(process.argv[2] ?? "192.168.1.1", 5351)!;
const localAddress = process.argv[3] ?? "192.168.1.100"; // PCP puts it into its requests
const random: RandomSource = {
  u32: () => crypto.getRandomValues(new Uint32Array(1))[0]!,
  fill: (bytes) => void crypto.getRandomValues(bytes as Uint8Array<ArrayBuffer>),
};
const mapper = new PortMapper({ random, protocols: ["pcp", "nat-pmp"], announcements: false });
mapper.networkChanged([{ gateway, localAddress }], performance.now());
mapper.map({ protocol: "tcp", internalPort: 8080 }, performance.now()); // waits for the socket
const { key } = mapper.sockets()[0]!;
const socket = createSocket("udp4");
socket.connect(gateway.port, gateway.address, () => {
  const local = { address: localAddress, port: socket.address().port };
  feed((now) => mapper.handleSocket(key, { ok: true, local }, now));
});
socket.on("message", (data) => feed((now) => mapper.handleDatagram(data, gateway, key, now)));
socket.on("error", () => feed((now) => mapper.handleUnreachable(gateway, key, now))); // ICMP
let timer: ReturnType<typeof setTimeout> | undefined;

/** The canonical loop: feed one input, drain, sleep until the next deadline. */
function feed(input: (now: number) => unknown): void {
  input(performance.now());
  for (let action = mapper.poll(); action; action = mapper.poll()) {
    if (action.type === "send") socket.send(action.data);
    else if (action.type === "event") told(action.event);
  }
  clearTimeout(timer);
  const next = mapper.nextTimeout();
  if (next === undefined) return void socket.close();
  timer = setTimeout(() => feed((now) => mapper.handleTimeout(now)), next - performance.now());
}

function told(event: { type: string; id?: number }): void {
  console.log(JSON.stringify(event));
  if (event.type === "mapped") queueMicrotask(() => feed((now) => mapper.revoke(event.id!, now)));
}
