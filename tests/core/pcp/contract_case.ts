/**
 * How the PCP client joins the machine contract's table of tests.
 *
 * @module
 */
import { PcpClient } from "../../../core/pcp/client.ts";
import { seededRandom } from "../../../core/random.ts";
import type { MachineCase } from "../machine_case.ts";
import { mappingIds } from "../mapping_ids.ts";
import { LOCAL, newGateway, SERVER } from "./harness.ts";

/** A client that asks for the server's epoch, for two inbound mappings and an outbound one. */
export const pcpClientCase: MachineCase = {
  name: "PcpClient",
  create(seed) {
    const random = seededRandom(seed);
    const machine = new PcpClient({ servers: [SERVER], localAddress: LOCAL, random });
    const gateway = newGateway(4, { announceTo: [] });
    return {
      machine,
      ids: mappingIds(machine, gateway, SERVER),
      begin(now) {
        machine.probe(now);
        machine.map({ protocol: 6, internalPort: 8080, lifetimeSeconds: 120 }, now);
        machine.map({ protocol: 17, internalPort: 5000, mode: "once" }, now);
        const remote = { address: "198.51.100.20", port: 443 };
        machine.peer({ protocol: 6, internalPort: 49152, remote, mode: 2 }, now);
      },
      reply(sent, now) {
        gateway.handleDatagram(sent.data, { address: LOCAL, port: 40_000 }, "server", now);
        const action = gateway.poll();
        return action?.type === "send" ? { data: action.data, from: SERVER } : undefined;
      },
    };
  },
};
