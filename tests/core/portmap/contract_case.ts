/**
 * How the port mapper joins the machine contract's table of tests.
 *
 * @module
 */
import { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import { below, seededRandom } from "../../../core/random.ts";
import type { MachineCase } from "../machine_case.ts";
import { mappingIds } from "../mapping_ids.ts";
import { EXTERNAL, GATEWAY, HOST, openMapper } from "./rig.ts";

const PATH = { gateway: GATEWAY, localAddress: HOST };

/** A mapper that asks for its address and for three mappings by either protocol. */
export const portMapperCase: MachineCase = {
  name: "PortMapper",
  create(seed) {
    const machine = openMapper({ random: seededRandom(seed) });
    const gateway = new SimulatedGateway({
      externalAddresses: [EXTERNAL],
      random: seededRandom(1),
      announceTo: [],
    });
    let now = 0;
    gateway.start(now);
    const ids = mappingIds(machine, gateway, GATEWAY);
    return {
      machine,
      ids: {
        ...ids,
        disturb(random, at, known) {
          if (below(random, 8)) return ids.disturb(random, at, known);
          // The network goes, or comes.
          const isThere = machine.sockets().length > 0;
          machine.networkChanged(isThere ? [] : [PATH], at);
          for (const { key } of machine.sockets()) {
            machine.handleSocket(key, { ok: true, local: { address: HOST, port: 40_000 } }, at);
          }
        },
      },
      begin(at) {
        machine.askAddresses(undefined, at);
        machine.map({ protocol: "tcp", internalPort: 8080, suggestedExternal: { port: 80 } }, at);
        machine.map({ protocol: "udp", internalPort: 5000, lifetimeSeconds: 120 }, at);
        machine.map({ protocol: "udp", internalPort: 5001, protocols: ["nat-pmp"] }, at);
        machine.watch({ protocol: "tcp", internalPort: 9000 }, at);
        machine.mapBoth({ internalPort: 9001 }, at);
      },
      reply(sent) {
        gateway.handleDatagram(sent.data, { address: HOST, port: 40_000 }, "server", ++now);
        for (let action = gateway.poll(); action; action = gateway.poll()) {
          if (action.type === "send") return { data: action.data, from: GATEWAY };
        }
        return undefined;
      },
    };
  },
};
