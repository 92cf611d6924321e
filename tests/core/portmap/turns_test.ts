/** Turns of fate that the simulation found; each is named in `tests/sim/seeds.txt`, too. */
import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { rig } from "./rig.ts";

const web = { protocol: "tcp", internalPort: 8080, suggestedExternal: { port: 8080 } } as const;
const game = { protocol: "udp", internalPort: 27015, suggestedExternal: { port: 27015 } } as const;

describe("a session", () => {
  it("does not take the second no to PCP for one to NAT-PMP", () => {
    const lab = rig({ gateway: { protocols: ["nat-pmp"] } });
    lab.mapper((mapper, now) => mapper.map(web, now));
    // The first request's no comes while the second one is on its way.
    lab.world.runFor(1);
    lab.mapper((mapper, now) => mapper.map(game, now));
    lab.world.runFor(100);
    assertEquals(lab.types(), ["mapped", "mapped"]);
    assertEquals(lab.ports(), [8080, 27015]);
  });

  it("gets a lost mapping back that the gateway refused by 'no such opcode'", () => {
    const lab = rig();
    lab.mapper((mapper, now) => mapper.map({ ...web, lifetimeSeconds: 600 }, now));
    lab.world.runFor(100);
    lab.gateway((gateway, now) => gateway.setRefusal(4, now));
    lab.gateway((gateway, now) => gateway.reboot(now));
    lab.world.runFor(2 * 3_600_000);
    lab.gateway((gateway, now) => gateway.setRefusal(undefined, now));
    lab.world.runFor(3_600_000);
    const types = lab.types();
    assertEquals(types.filter((type) => type === "lost").length, 1, types.join(" "));
    assertEquals(types.filter((type) => type === "recovered").length, 1, types.join(" "));
    assertEquals(lab.ports(), [8080]);
  });

  it("asks for a lost mapping by PCP again where NAT-PMP is not spoken", () => {
    const lab = rig({ gateway: { protocols: ["pcp"] } });
    lab.mapper((mapper, now) => mapper.map({ ...web, lifetimeSeconds: 600 }, now));
    lab.world.runFor(100);
    lab.gateway((gateway, now) => gateway.setRefusal(4, now));
    lab.world.runFor(2 * 3_600_000);
    lab.gateway((gateway, now) => gateway.setRefusal(undefined, now));
    lab.world.runFor(3_600_000);
    const types = lab.types();
    assertEquals(types.includes("lost"), true, types.join(" "));
    assertEquals(lab.mapper((mapper) => mapper.mapping(1)?.via), "pcp");
    assertEquals(lab.ports(), [8080]);
  });

  it("keeps the address of what NAT-PMP holds true after a race that PCP won", () => {
    const lab = rig({ gateway: { protocols: ["nat-pmp"] } });
    lab.mapper((mapper, now) => mapper.map({ ...web, lifetimeSeconds: 600 }, now));
    lab.world.runFor(100);
    lab.gateway((gateway, now) => gateway.setProtocol("pcp", true, now));
    // NAT-PMP's probe is lost; PCP wins and the probe is taken back.
    lab.filter((data) => data.length !== 2);
    lab.mapper((mapper, now) => mapper.map(game, now));
    lab.world.runFor(100);
    lab.filter(() => true);
    lab.host.suspend(); // no announcement is heard
    lab.gateway((gateway, now) => gateway.setExternalAddresses(["203.0.113.99"], now));
    lab.world.runFor(200_000);
    lab.host.resume();
    lab.world.runFor(600_000);
    const { via, external } = lab.mapper((mapper) => mapper.mapping(1)!);
    assertEquals([via, external.address], ["nat-pmp", "203.0.113.99"]);
  });

  it("turns to NAT-PMP for what PCP refused before it fell silent", () => {
    const lab = rig({ gateway: { profile: "pcp-silent", protocols: ["pcp", "nat-pmp"] } });
    lab.mapper((mapper, now) => mapper.map({ ...web, lifetimeSeconds: 600 }, now));
    lab.world.runFor(100);
    lab.gateway((gateway, now) => gateway.forget(now));
    lab.gateway((gateway, now) => gateway.setRefusal(8, now)); // NO_RESOURCES, 30 s
    lab.world.runFor(600_000);
    const told = lab.types().filter((type) => type !== "renewed" && type !== "renewal-failed");
    assertEquals(told, ["mapped", "lost"]);
    lab.gateway((gateway, now) => gateway.setRefusal(undefined, now));
    lab.gateway((gateway, now) => gateway.setProtocol("pcp", false, now));
    lab.world.runFor(1_800_000);
    assertEquals(lab.mapper((mapper) => mapper.mapping(1)?.via), "nat-pmp");
    assertEquals(lab.ports(), [8080]);
  });

  it("leaves PCP alone for half an hour where its renewal met UNSUPP_VERSION, and NAT-PMP nothing", () => {
    const lab = rig();
    lab.mapper((mapper, now) => mapper.map({ ...web, lifetimeSeconds: 600 }, now));
    lab.world.runFor(100);
    lab.gateway((gateway, now) => gateway.setProtocol("pcp", false, now));
    // NAT-PMP answers the probe alone, so that it takes over from PCP, and comes to nothing.
    lab.filter((data) => data[0] === 2 || data.length === 2);
    lab.world.runFor(400_000);
    const lostAt = lab.events().find(({ type }) => type === "lost")!.at;
    lab.sent.length = 0;
    lab.world.runUntil(lostAt + 1_790_000);
    const early = lab.sent.filter(({ data }) => data[0] === 2).map(({ at }) => at - lostAt);
    assertEquals(early, []);
    lab.gateway((gateway, now) => gateway.setProtocol("pcp", true, now));
    lab.world.runFor(200_000);
    assertEquals(lab.mapper((mapper) => mapper.mapping(1)?.via), "pcp");
  });
});
