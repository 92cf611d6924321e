/**
 * How the PCP client joins the machine contract's table of tests.
 *
 * @module
 */
import { PcpClient } from "../../../core/pcp/client.ts";
import { decodeRequest, encodeResponse } from "../../../core/pcp/codec.ts";
import type { Endpoint, Instant } from "../../../core/machine.ts";
import { seededRandom } from "../../../core/random.ts";
import type { MachineCase } from "../machine_case.ts";
import { LOCAL, SERVER, success } from "./harness.ts";

/** Remembers the time, so that answers can carry an epoch that runs with it. */
class ClockedClient extends PcpClient {
  lastNow: Instant = 0;

  override handleTimeout(now: Instant): void {
    this.lastNow = now;
    super.handleTimeout(now);
  }

  override handleDatagram(data: Uint8Array, from: Endpoint, now: Instant): boolean {
    this.lastNow = now;
    return super.handleDatagram(data, from, now);
  }
}

/** A client that asks for the server's epoch, for two inbound mappings and an outbound one. */
export const pcpClientCase: MachineCase = {
  name: "PcpClient",
  create(seed) {
    const machine = new ClockedClient({
      servers: [SERVER],
      localAddress: LOCAL,
      random: seededRandom(seed),
    });
    return {
      machine,
      begin(now) {
        machine.lastNow = now;
        machine.announce(now);
        machine.map({ protocol: 6, internalPort: 8080, lifetimeSeconds: 120 }, now);
        machine.map({ protocol: 17, internalPort: 5000, mode: "once" }, now);
        const remote = { address: "198.51.100.20", port: 443 };
        machine.peer({ protocol: 6, internalPort: 49152, remote, mode: 2 }, now);
      },
      reply(sent) {
        const request = decodeRequest(sent.data);
        if (typeof request === "string") return undefined;
        const epochSeconds = Math.floor(machine.lastNow / 1000);
        const data = request.kind === "announce"
          ? encodeResponse({
            kind: "announce",
            resultCode: 0,
            lifetimeSeconds: 0,
            epochSeconds,
            options: [],
          })
          : success(request, { epochSeconds });
        return { data, from: SERVER };
      },
    };
  },
};
