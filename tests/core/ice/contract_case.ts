/**
 * How the ICE agent joins the machine contract's table of tests.
 *
 * @module
 */
import { IceAgent } from "../../../core/ice/agent.ts";
import { createRendezvous } from "../../../core/ice/ticket.ts";
import { seededRandom } from "../../../core/random.ts";
import { decodeStun, encodeStun } from "../../../core/stun/codec.ts";
import { shortTermKey } from "../../../core/stun/integrity.ts";
import type { MachineCase } from "../machine_case.ts";
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
