import { it } from "node:test";
import { assertEquals } from "@std/assert";
import { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import { seededRandom } from "../../../core/random.ts";
import { EXTERNAL, GATEWAY, HOST, openMapper } from "./rig.ts";

it("a mapper tells recovered only to who was told mapped", () => {
  for (const isToldMapped of [false, true]) {
    const random = seededRandom(1);
    const gateway = new SimulatedGateway({ externalAddresses: [EXTERNAL], random, announceTo: [] });
    const mapper = openMapper({ random });
    const { key } = mapper.sockets()[0]!;
    /** Takes what waits; the gateway's answers are handed in afterwards. */
    const turn = (now: number): string[] => {
      const types: string[] = [];
      for (let action = mapper.poll(); action; action = mapper.poll()) {
        if (action.type === "event") types.push(action.event.type);
        if (action.type !== "send") continue;
        gateway.handleDatagram(action.data, { address: HOST, port: 40_000 }, "server", now);
      }
      for (let reply = gateway.poll(); reply; reply = gateway.poll()) {
        if (reply.type === "send") mapper.handleDatagram(reply.data, GATEWAY, key, now);
      }
      return types;
    };
    gateway.start(0);
    const request = { internalPort: 8080, lifetimeSeconds: 600, protocols: ["pcp"] } as const;
    mapper.map({ protocol: "tcp", ...request }, 0);
    assertEquals(turn(0), []);
    if (isToldMapped) assertEquals(turn(1), ["mapped"]);

    // The loop comes back when the lifetime is over.
    mapper.handleTimeout(601_000);
    const lost = turn(601_000);

    assertEquals(lost, ["lost"]);
    assertEquals(turn(601_001), [isToldMapped ? "recovered" : "mapped"]);
  }
});
