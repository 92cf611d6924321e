import { it } from "node:test";
import { assertEquals } from "@std/assert";
import { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import type { PcpEvent } from "../../../core/pcp/client.ts";
import { PcpClient } from "../../../core/pcp/client.ts";
import { seededRandom } from "../../../core/random.ts";

const server = { address: "192.168.1.1", port: 5351 };
const self = { address: "192.168.1.100", port: 40_000 };

it("an answer to renew() that a restart's announcement overtook is told as renewed", () => {
  const gateway = new SimulatedGateway({
    externalAddresses: ["203.0.113.7"],
    random: seededRandom(1),
  });
  const client = new PcpClient({
    servers: [server],
    localAddress: self.address,
    random: seededRandom(2),
  });
  const answers: Uint8Array[] = [];
  const announcements: Uint8Array[] = [];
  const told: PcpEvent["type"][] = [];
  const toGateway = (now: number) => {
    for (let action = client.poll(); action; action = client.poll()) {
      if (action.type === "send") gateway.handleDatagram(action.data, self, "server", now);
      else if (action.type === "event") told.push(action.event.type);
    }
    for (let action = gateway.poll(); action; action = gateway.poll()) {
      if (action.type !== "send" || action.data[0] !== 2) continue;
      (action.to.port === self.port ? answers : announcements).push(action.data);
    }
  };
  gateway.start(0);
  gateway.setEpoch(86_400, 0);
  const id = client.map({ protocol: 6, internalPort: 8080 }, 1000);
  toGateway(1000);
  client.handleDatagram(answers.shift()!, server, "client", 1001);
  announcements.length = 0;
  gateway.reboot(1002);
  client.renew(id, undefined, 1003);
  toGateway(1003);
  told.length = 0;

  client.handleDatagram(announcements[0]!, server, "client", 1004);
  client.handleDatagram(answers.shift()!, server, "client", 1005);
  toGateway(1005);

  assertEquals(told, ["gateway-restarted", "renewed"]);
});
