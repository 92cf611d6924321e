import { PcpServer } from "../../../core/pcp/server.ts";
import { seededRandom } from "../../../core/random.ts";
import { MappingTable } from "../../../core/table/mod.ts";
import type { MachineCase } from "../machine_case.ts";
import { ALICE, BOB, mapBytes, peerBytes, WAN, WAN2 } from "./server_support.ts";

/** The PCP server joins the contract test: with answers, an update and announcements under way. */
export const pcpServerCase: MachineCase = {
  name: "PcpServer",
  create(seed) {
    const table = new MappingTable({
      externalAddresses: [WAN],
      random: seededRandom(seed),
      prefersSamePort: false,
    });
    const machine = new PcpServer({ table, trace: true });
    return {
      machine,
      begin(now) {
        machine.handleDatagram(mapBytes({ lifetimeSeconds: 200 }), ALICE, "server", now);
        machine.handleDatagram(mapBytes({ from: BOB }), BOB, "server", now);
        machine.handleDatagram(peerBytes(), ALICE, "server", now);
        machine.externalAddressChanged(table.setExternalAddresses([WAN2], now), now);
      },
      reply: () => undefined,
    };
  },
};
