import { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import { seededRandom } from "../../../core/random.ts";
import type { MachineCase } from "../machine_case.ts";
import { ADDRESS_REQUEST, ALICE, BOB, natPmpMap, pcpAnnounce, pcpMap } from "./rig.ts";

/** A gateway with both servers at work, and every reply late, doubled and out of order. */
export const simulatedGatewayCase: MachineCase = {
  name: "SimulatedGateway",
  create(seed) {
    const gateway = new SimulatedGateway({
      externalAddresses: ["203.0.113.7"],
      random: seededRandom(seed),
      profile: "asus",
      trace: true,
    });
    return {
      machine: gateway,
      begin(now) {
        gateway.start(now);
        gateway.handleDatagram(pcpAnnounce(), ALICE, "server", now);
        gateway.handleDatagram(ADDRESS_REQUEST, BOB, "server", now);
        gateway.disturb({ delayMs: 5, reorderMs: 20, duplicate: true, lossRate: 0.1 }, now);
        for (const from of [ALICE, BOB]) {
          for (const [i, lifetime] of [1, 60, 300, 7200].entries()) {
            gateway.handleDatagram(natPmpMap(8000 + i, { lifetime }), from, "server", now);
            gateway.handleDatagram(pcpMap(9000 + i, { lifetime, from }), from, "server", now);
          }
        }
        gateway.setExternalAddresses(["198.51.100.9"], now);
      },
      // A client that asks for the address again, a bounded number of times a reply.
      reply({ to, data }) {
        const isMapping = data.length === 16 || data.length === 60;
        return isMapping ? { data: ADDRESS_REQUEST, from: to } : undefined;
      },
    };
  },
};
