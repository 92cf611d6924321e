/**
 * How the search for UPnP devices joins the machine contract's table of tests.
 *
 * @module
 */
import { DeviceSearch } from "../../../core/upnp/search.ts";
import { decodeSsdp, encodeSearchResponse, isGroup } from "../../../core/upnp/ssdp.ts";
import type { MachineCase } from "../machine_case.ts";

const GATEWAY = { address: "192.168.1.1", port: 1900 };

/** A search at two places, one with a gateway that answers what comes to it alone. */
export const deviceSearchCase: MachineCase = {
  name: "DeviceSearch",
  create() {
    const machine = new DeviceSearch({
      places: [
        { local: "192.168.1.100", gateway: GATEWAY.address },
        { local: "fe80::1%eth0", interface: "eth0" },
      ],
    });
    return {
      machine,
      begin(now) {
        machine.search(now);
        for (const { key, local } of machine.sockets()) {
          machine.handleSocket(
            key,
            { ok: true, local: { address: local!.address, port: 4000 } },
            now,
          );
        }
      },
      reply(sent) {
        const message = decodeSsdp(sent.data);
        if (typeof message === "string" || isGroup(sent.to)) return undefined;
        const { target } = message;
        const data = encodeSearchResponse({
          target,
          usn: `uuid:1::${target}`,
          location: "http://192.168.1.1:5000/desc.xml",
          bootId: 1,
        });
        return { data, from: GATEWAY };
      },
    };
  },
};
