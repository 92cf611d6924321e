/**
 * How the NAT-PMP client joins the machine contract's table of tests.
 *
 * @module
 */
import { NatPmpClient } from "../../../core/natpmp/client.ts";
import { seededRandom } from "../../../core/random.ts";
import type { MachineCase } from "../machine_case.ts";
import { mappingIds } from "../mapping_ids.ts";
import { GATEWAY, HOST, newGateway } from "./rig.ts";

/** A client that asks for its address and for three mappings. */
export const natPmpClientCase: MachineCase = {
  name: "NatPmpClient",
  create(seed) {
    const machine = new NatPmpClient({ gateway: GATEWAY, random: seededRandom(seed) });
    const gateway = newGateway({ announceTo: [] });
    return {
      machine,
      ids: mappingIds(machine, gateway, GATEWAY),
      begin(now) {
        machine.probe(now);
        machine.map({ protocol: "tcp", internalPort: 8080, suggestedExternal: { port: 80 } }, now);
        machine.map({ protocol: "udp", internalPort: 5000, lifetimeSeconds: 60 }, now);
        machine.map({ protocol: "udp", internalPort: 5001, mode: "once" }, now);
      },
      reply(sent, now) {
        gateway.handleDatagram(sent.data, HOST, "server", now);
        const action = gateway.poll();
        return action?.type === "send" ? { data: action.data, from: GATEWAY } : undefined;
      },
    };
  },
};
