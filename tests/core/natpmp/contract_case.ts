/**
 * How the NAT-PMP client joins the machine contract's table of tests.
 *
 * @module
 */
import { NatPmpClient } from "../../../core/natpmp/client.ts";
import { decodeRequest } from "../../../core/natpmp/codec.ts";
import { seededRandom } from "../../../core/random.ts";
import type { MachineCase } from "../machine_case.ts";
import { GATEWAY, ObligingGateway } from "./rig.ts";

/** A client that asks for its address and for three mappings. */
export const natPmpClientCase: MachineCase = {
  name: "NatPmpClient",
  create(seed) {
    const machine = new NatPmpClient({ gateway: GATEWAY, random: seededRandom(seed) });
    const gateway = new ObligingGateway();
    // Replies are made without a clock; an epoch that leaps ahead is never wrong in NAT-PMP.
    let epochMs = 0;
    return {
      machine,
      begin(now) {
        machine.externalAddress(now);
        machine.map({ protocol: "tcp", internalPort: 8080, suggestedExternalPort: 80 }, now);
        machine.map({ protocol: "udp", internalPort: 5000, lifetimeSeconds: 60 }, now);
        machine.map({ protocol: "udp", internalPort: 5001, mode: "once" }, now);
      },
      reply(sent) {
        const request = decodeRequest(sent.data);
        if (typeof request === "string") return undefined;
        const data = gateway.answer(request, epochMs += 1e8);
        return data && { data, from: GATEWAY };
      },
    };
  },
};
