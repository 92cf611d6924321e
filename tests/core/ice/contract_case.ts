/**
 * How the ICE agent and the TCP punch join the machine contract's table of tests.
 *
 * @module
 */
import { IceAgent } from "../../../core/ice/agent.ts";
import { TcpPunch } from "../../../core/ice/tcp.ts";
import { createRendezvous, type PublicRendezvous } from "../../../core/ice/ticket.ts";
import { seededRandom } from "../../../core/random.ts";
import { decodeStun, encodeStun } from "../../../core/stun/codec.ts";
import { shortTermKey } from "../../../core/stun/integrity.ts";
import type { MachineCase, WorldAction } from "../machine_case.ts";
import { STUN } from "./rig.ts";

const LOCAL = { address: "192.0.2.7", port: 40_000 };
const PEER = { address: "203.0.113.9", port: 50_000 };

/** An agent whose peer answers every check, and whose server tells what it saw. */
export const iceAgentCase: MachineCase = {
  name: "IceAgent",
  create(seed) {
    const machine = new IceAgent({
      random: seededRandom(seed),
      hosts: [LOCAL.address],
      servers: [STUN],
    });
    const { public: peer } = createRendezvous([{
      ...PEER,
      foundation: "1",
      transport: "udp",
      priority: 2 ** 30,
      type: "host",
    }], seededRandom(99));
    return {
      machine,
      begin(now) {
        machine.gather(now);
        machine.handleSocket("ice0", { ok: true, local: LOCAL }, now);
        machine.setRemote(peer, now);
      },
      reply(sent) {
        const request = decodeStun(sent.data);
        if (typeof request === "string" || request.class !== "request") return undefined;
        const { method, transactionId } = request;
        const attributes = { xorMappedAddress: LOCAL };
        const data = encodeStun(
          { class: "success", method, transactionId, attributes },
          sent.to.port === PEER.port ? { key: shortTermKey(peer.pwd), fingerprint: true } : {},
        );
        return { data, from: sent.to };
      },
    };
  },
};

/** The peer's answer to a check on a stream; undefined where it is none. */
function answerOnStream(data: Uint8Array, peer: PublicRendezvous): Uint8Array | undefined {
  const request = decodeStun(data.slice(2));
  if (typeof request === "string" || request.class !== "request") return undefined;
  const { method, transactionId } = request;
  const attributes = { xorMappedAddress: LOCAL };
  const bytes = encodeStun(
    { class: "success", method, transactionId, attributes },
    { key: shortTermKey(peer.pwd), fingerprint: true },
  );
  const framed = new Uint8Array(2 + bytes.length);
  framed[1] = bytes.length;
  framed.set(bytes, 2);
  return framed;
}

/** A punch whose server is silent, and whose peer takes one connection and refuses another. */
export const tcpPunchCase: MachineCase = {
  name: "TcpPunch",
  create(seed) {
    const machine = new TcpPunch({
      random: seededRandom(seed),
      hosts: [LOCAL.address],
      role: "controlling",
    });
    const tcp = { transport: "tcp", tcpType: "so", type: "host", foundation: "1" } as const;
    const { public: peer } = createRendezvous([
      { ...PEER, ...tcp, priority: 2 ** 30 },
      { ...PEER, ...tcp, port: 9, priority: 2 ** 29 },
    ], seededRandom(99));
    return {
      machine,
      begin(now) {
        machine.gather(now);
        machine.handleSocket("tcp0", { ok: true, local: LOCAL }, now);
        machine.handleTimeout(now + 4);
        machine.setRemote(peer, now);
      },
      reply: () => undefined,
      perform(action: WorldAction, it, now) {
        if (action.type !== "stream") return false;
        const { id } = action;
        if (action.do === "connect" && action.to.port === PEER.port) {
          it.handleStream?.(id, { type: "open", local: LOCAL, peer: PEER }, now);
        } else if (action.do === "connect") {
          it.handleStream?.(id, { type: "closed", reason: "refused" }, now);
        } else if (action.do === "write") {
          const data = answerOnStream(action.data, peer);
          if (data) it.handleStream?.(id, { type: "data", data }, now);
        } else return false;
        return true;
      },
    };
  },
};
