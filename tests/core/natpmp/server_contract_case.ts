import type { Endpoint } from "../../../core/machine.ts";
import { encodeAddressRequest, encodeMapRequest } from "../../../core/natpmp/codec.ts";
import { NatPmpServer } from "../../../core/natpmp/server.ts";
import { seededRandom } from "../../../core/random.ts";
import { MappingTable } from "../../../core/table/table.ts";
import type { MachineCase } from "../machine_case.ts";

const CLIENTS: readonly Endpoint[] = [
  { address: "192.168.1.100", port: 40001 },
  { address: "192.168.1.101", port: 40002 },
];

/** A server that announces, holds mappings of several lifetimes and has answered a few requests. */
export const natPmpServerCase: MachineCase = {
  name: "NatPmpServer",
  create(seed) {
    const table = new MappingTable({
      externalAddresses: ["203.0.113.7"],
      random: seededRandom(seed),
    });
    const server = new NatPmpServer({ table, trace: true });
    return {
      machine: server,
      begin(now) {
        server.start(now);
        for (const from of CLIENTS) {
          server.handleDatagram(encodeAddressRequest(), from, "server", now);
          for (const [i, lifetimeSeconds] of [1, 60, 7200].entries()) {
            const fields = { internalPort: 8000 + i, suggestedExternalPort: 0, lifetimeSeconds };
            const protocol = i % 2 === 0 ? "tcp" : "udp";
            server.handleDatagram(encodeMapRequest({ protocol, ...fields }), from, "server", now);
          }
        }
      },
      // A client that renews each mapping it is granted, until its patience ends.
      reply({ to, data }) {
        if (data.length !== 16 || data[3] !== 0 || data[12]! + data[13]! + data[14]! > 0) {
          return undefined;
        }
        const request = encodeMapRequest({
          protocol: data[1] === 129 ? "udp" : "tcp",
          internalPort: (data[8]! << 8) | data[9]!,
          suggestedExternalPort: (data[10]! << 8) | data[11]!,
          lifetimeSeconds: Math.max(0, data[15]! - 1),
        });
        return { data: request, from: to };
      },
    };
  },
};
