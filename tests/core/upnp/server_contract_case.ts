import { encodeSubscribe } from "../../../core/upnp/gena.ts";
import { IgdServer } from "../../../core/upnp/server.ts";
import { encodeCall } from "../../../core/upnp/soap.ts";
import { encodeSearch } from "../../../core/upnp/ssdp.ts";
import { IGD_SERVICE } from "../../../core/upnp/igd.ts";
import { MappingTable } from "../../../core/table/table.ts";
import { type RandomSource, seededRandom } from "../../../core/random.ts";
import { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import type { MachineCase, MachineUnderTest } from "../machine_case.ts";
import { ALICE, BOB, HTTP_PORT, mapping, OWN, SSDP } from "./igd_rig.ts";

/** A device with searches to answer, leases to end, and subscribers of whom one is deaf. */
export const igdServerCase: MachineCase = caseOf("IgdServer", (random) => {
  const table = new MappingTable({ externalAddresses: ["203.0.113.7"], random });
  const interfaces = [{ address: OWN, prefixLength: 24 }];
  return new IgdServer({ table, interfaces, random, trace: true });
});

/** The same in a gateway whose answers are late and out of order. */
export const gatewayWithUpnpCase: MachineCase = caseOf("SimulatedGateway with UPnP", (random) => {
  const gateway = new SimulatedGateway({
    externalAddresses: ["203.0.113.7"],
    random,
    protocols: ["pcp", "nat-pmp", "upnp"],
    listen: { address: OWN, port: 5351 },
    trace: true,
  });
  gateway.disturb({ delayMs: 5, reorderMs: 20, duplicate: true, lossRate: 0.05 }, 0);
  return gateway;
});

function caseOf(
  name: string,
  make: (random: RandomSource) => IgdServer | SimulatedGateway,
): MachineCase {
  return { name, create: (seed) => underTest(make(seededRandom(seed))) };
}

function underTest(machine: IgdServer | SimulatedGateway): MachineUnderTest {
  const host = ["Host", `${OWN}:${HTTP_PORT}`] as const;
  let lastId = 0;
  return {
    machine,
    begin(now) {
      machine.start(now);
      for (const { key, local } of machine.sockets!()) {
        machine.handleSocket(key, { ok: true, local: { ...local!, port: HTTP_PORT } }, now);
      }
      for (const from of [ALICE, BOB]) {
        const search = encodeSearch({ host: SSDP, target: "ssdp:all", mx: 3 });
        machine.handleDatagram(search, from, `ssdp-group ${OWN}`, now);
        const callback = `http://${from.address}:7000/events`;
        const subscribe = encodeSubscribe("/evt/IPConn1", callback, 60);
        const headers = [host, ...subscribe.headers];
        machine.handleRequest(++lastId, { ...subscribe, headers }, from, now);
        for (const [i, lease] of [1, 60, 300].entries()) {
          const call = encodeCall({
            service: IGD_SERVICE.WAN_IP_2,
            action: "AddAnyPortMapping",
            args: mapping(8000 + i, { client: from.address, lease }),
          }, "/ctl/IPConn1");
          const request = { ...call, headers: [host, ...call.headers] };
          machine.handleRequest(++lastId, request, from, now);
        }
      }
    },
    // A client that searches again once it is answered.
    reply({ to, data }) {
      const isAnswer = to.address === ALICE.address && data.length > 350;
      const again = encodeSearch({ host: SSDP, target: "upnp:rootdevice", mx: 1 });
      return isAnswer ? { data: again, from: to } : undefined;
    },
    perform(action, to, now) {
      if (action.type !== "request") return false;
      const isDeaf = action.to.address === BOB.address;
      to.handleResponse?.(
        action.id,
        isDeaf
          ? { ok: false, reason: "timeout" }
          : { ok: true, status: 200, headers: [], body: new Uint8Array(0) },
        now,
      );
      return true;
    },
  };
}
