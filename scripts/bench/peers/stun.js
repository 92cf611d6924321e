// deno-lint-ignore-file no-console
// Writes and reads STUN Binding messages by one npm package: `node stun.js PACKAGE MILLISECONDS`.
// Prints nanoseconds a message, as JSON.
import { randomBytes } from "node:crypto";

const [name, milliseconds] = process.argv.slice(2);
const COUNT = 500;

/** By package: what encodes a request, and what decodes a response. */
const PACKAGES = {
  async stun() {
    const { default: stun } = await import("stun");
    const { STUN_BINDING_REQUEST, STUN_BINDING_RESPONSE, STUN_ATTR_XOR_MAPPED_ADDRESS } =
      stun.constants;
    const response = stun.createMessage(STUN_BINDING_RESPONSE);
    response.addAttribute(STUN_ATTR_XOR_MAPPED_ADDRESS, "203.0.113.7", 40123);
    return {
      sample: response.toBuffer(),
      encode: (transaction) => stun.createMessage(STUN_BINDING_REQUEST, transaction).toBuffer(),
      decode: (bytes) => stun.decode(bytes),
    };
  },
  async werift() {
    const { Message, parseMessage } = await import("werift");
    const response = new Message({
      messageMethod: 1,
      messageClass: 0x100,
      transactionId: randomBytes(12),
      attributes: [],
    });
    response.setAttribute("XOR-MAPPED-ADDRESS", ["203.0.113.7", 40123]);
    return {
      sample: response.bytes,
      encode: (transactionId) =>
        new Message({ messageMethod: 1, messageClass: 0, transactionId, attributes: [] }).bytes,
      decode: (bytes) => parseMessage(bytes),
    };
  },
};

/** Nanoseconds for one of them. */
function timeOf(act, list) {
  for (let i = 0; i < 20; i++) list.forEach(act);
  const until = performance.now() + Number(milliseconds);
  let best = Infinity;
  do {
    const from = performance.now();
    for (const item of list) act(item);
    best = Math.min(best, performance.now() - from);
  } while (performance.now() < until);
  return best * 1e6 / list.length;
}

const { sample, encode, decode } = await PACKAGES[name]();
const ids = Array.from({ length: COUNT }, () => randomBytes(12));
const responses = ids.map((id) => {
  const bytes = Buffer.from(sample);
  id.copy(bytes, 8);
  return bytes;
});
if (!encode(ids[0]) || !decode(responses[0])) throw new Error(`${name}: does not work`);
console.log(JSON.stringify({ encode: timeOf(encode, ids), decode: timeOf(decode, responses) }));
process.exit(0);
