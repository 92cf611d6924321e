/**
 * Defects seen in other libraries' ways to ask a gateway by several protocols; each is a test here.
 *
 * @module
 */
import { it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { rig, told, versions } from "./rig.ts";

const web = { protocol: "tcp", internalPort: 8080 } as const;

it("waiting for every probe, though one answered at once: here the first grant ends it", () => {
  for (const via of ["pcp", "nat-pmp"] as const) {
    const lab = rig({ gateway: { protocols: [via] } });
    lab.mapper((mapper, now) => mapper.map(web, now));
    lab.world.runFor(4000);
    const mapped = told(lab.events()[0], "mapped");
    assertEquals(mapped.mapping.via, via);
    assert(mapped.at <= 4, `${via}: ${mapped.at} ms`);
  }
});

it("a gateway silent to PCP is never asked by NAT-PMP: here the second packet is NAT-PMP's", () => {
  const lab = rig({ gateway: { profile: "pcp-silent" } });
  lab.mapper((mapper, now) => mapper.map(web, now));
  lab.world.runFor(10_000);
  assertEquals(versions(lab.sent), "pcp nat-pmp nat-pmp");
  assertEquals(told(lab.events()[0], "mapped").mapping.via, "nat-pmp");
});

it("one lost reply fails every later request: here the next one is served", () => {
  const lab = rig();
  lab.lan.link.set({ loss: 1 });
  const id = lab.mapper((mapper, now) => mapper.map(web, now));
  lab.world.runFor(2000);
  lab.mapper((mapper, now) => mapper.revoke(id, now));
  lab.lan.link.set({ loss: 0 });
  lab.events();
  lab.mapper((mapper, now) => mapper.map({ protocol: "udp", internalPort: 9090 }, now));
  lab.world.runFor(1000);
  assertEquals(lab.types().filter((type) => type === "mapped"), ["mapped"]);
});
