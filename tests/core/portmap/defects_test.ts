/**
 * Defects seen in other libraries' NAT-PMP, and in their ways to ask a gateway by several protocols;
 * each is a test here, by its number in the survey (1d). UPnP's are in `upnp/quirks_test.ts`.
 *
 * @module
 */
import { it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import type { SocketSpec } from "../../../core/machine.ts";
import { decodeRequest } from "../../../core/natpmp/codec.ts";
import type { MapperEvent } from "../../../core/portmap/managed.ts";
import { PortMapper } from "../../../core/portmap/mapper.ts";
import { Net, SIX } from "./net.ts";
import { GATEWAY, openMapper, type Rig, rig, told, versions } from "./rig.ts";

const web = { protocol: "tcp", internalPort: 8080 } as const;
const HOUR = 3_600_000;

/** A home whose gateway is asked by NAT-PMP alone. */
const natPmpOnly = () => rig({ mapper: { protocols: ["nat-pmp"] } });

/** The mapping requests of NAT-PMP that left since they were last taken. */
function takeRequests(lab: Rig) {
  return lab.sent.splice(0).flatMap(({ data }) => {
    const request = decodeRequest(data);
    return typeof request === "object" && request.kind === "map" ? [request] : [];
  });
}

it("#1 a renewal that never fires: here there is one in each of ten periods", () => {
  const lab = natPmpOnly();
  lab.mapper((mapper, now) => mapper.map({ ...web, lifetimeSeconds: 7200 }, now));
  lab.world.runFor(HOUR / 2);
  takeRequests(lab);
  for (let period = 1; period <= 10; period++) {
    lab.world.runFor(HOUR);
    assertEquals(takeRequests(lab).length, 1);
  }
});

it("#7, #8 a lifetime in milliseconds, and another external port than was wished: not here", () => {
  const lab = natPmpOnly();
  const wish = { internalPort: 4000, suggestedExternal: { port: 5000 }, lifetimeSeconds: 3600 };
  lab.mapper((mapper, now) => mapper.map({ ...web, ...wish }, now));
  lab.world.runFor(1000);
  const [request] = takeRequests(lab);
  assertEquals([request?.internalPort, request?.suggestedExternalPort], [4000, 5000]);
  assertEquals(request?.lifetimeSeconds, 3600);
});

it("#10 renewals that go on, and ever faster, after the end: here one deletion is all", () => {
  const lab = natPmpOnly();
  const id = lab.mapper((mapper, now) => mapper.map(web, now));
  lab.world.runFor(1000);
  takeRequests(lab);
  lab.mapper((mapper, now) => mapper.revoke(id, now));
  lab.world.runFor(5 * HOUR);
  assertEquals(takeRequests(lab).map(({ lifetimeSeconds }) => lifetimeSeconds), [0]);
});

it("#11, #2 timers that multiply: here two mappings of one port have two renewals a period", () => {
  const lab = natPmpOnly();
  for (const protocol of ["tcp", "udp"] as const) {
    lab.mapper((mapper, now) => mapper.map({ ...web, protocol, lifetimeSeconds: 7200 }, now));
  }
  lab.world.runFor(HOUR / 2);
  takeRequests(lab);
  for (let period = 1; period <= 6; period++) {
    lab.world.runFor(HOUR);
    assertEquals(takeRequests(lab).length, 2);
  }
});

it("#15 waiting for every probe, though one answered at once: here the first grant ends it", () => {
  for (const via of ["pcp", "nat-pmp"] as const) {
    const lab = rig({ gateway: { protocols: [via] } });
    lab.mapper((mapper, now) => mapper.map(web, now));
    lab.world.runFor(4000);
    const mapped = told(lab.events()[0], "mapped");
    assertEquals(mapped.mapping.via, via);
    assert(mapped.at <= 4, `${via}: ${mapped.at} ms`);
  }
});

it("#16 a gateway silent to PCP is never asked by NAT-PMP: here the second packet is NAT-PMP's", () => {
  const lab = rig({ gateway: { profile: "pcp-silent" } });
  lab.mapper((mapper, now) => mapper.map(web, now));
  lab.world.runFor(10_000);
  assertEquals(versions(lab.sent), "pcp nat-pmp nat-pmp");
  assertEquals(told(lab.events()[0], "mapped").mapping.via, "nat-pmp");
});

it("#4, #9 one lost reply fails every later request: here the next one is served", () => {
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

it("#18 no client where no interface has IPv4: here one is made, and maps over IPv6", () => {
  const net = new Net();
  const id = net.do((mapper, now) => mapper.map(web, now));
  net.add(SIX, "");
  net.connect([SIX]);
  assertEquals(net.takeTypes(), ["mapped"]);
  assertEquals(net.mapper.mapping(id)?.internal.address, SIX.localAddress);
});

it("#19 no second request: here what is lost is sent again after 250 ms", () => {
  const lab = natPmpOnly();
  let isFirst = true;
  lab.filter(() => !isFirst || (isFirst = false));
  lab.mapper((mapper, now) => mapper.map(web, now));
  lab.world.runFor(2000);
  const mapped = told(lab.events()[0], "mapped");
  assert(mapped.at >= 250 && mapped.at < 300, `${mapped.at} ms`);
});

it("#19 one client on a host, whose port 5350 is taken for the next: here there is room", () => {
  const lab = natPmpOnly();
  const mapper = new PortMapper({ random: lab.world.fork(), protocols: ["nat-pmp"] });
  const second = lab.host.run<MapperEvent, PortMapper>(mapper, {});
  second.do((machine, now) => machine.networkChanged([{ gateway: GATEWAY }], now));
  const id = second.do((machine, now) => machine.map({ ...web, internalPort: 9090 }, now));
  lab.mapper((machine, now) => machine.map(web, now));
  lab.world.runFor(60_000);
  assertEquals(lab.ports(), [8080, 9090]);
  // Both hear at that port that the gateway has begun anew.
  second.takeEvents();
  lab.events();
  lab.gateway((gateway, now) => gateway.reboot(now));
  lab.world.runFor(15_000);
  assertEquals(lab.types()[0], "gateway-restarted");
  assertEquals(second.takeEvents()[0]?.event.type, "gateway-restarted");
  assertEquals(mapper.mapping(id)?.external.port, 9090);
});

it("#19 an answer that anybody may have sent: here the gateway's alone is taken", () => {
  const mapper = openMapper({ protocols: ["nat-pmp"] });
  mapper.map(web, 0);
  const [{ key }] = mapper.sockets() as [SocketSpec];
  const answer = Uint8Array.of(0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 66);
  assert(!mapper.handleDatagram(answer, { ...GATEWAY, address: "192.168.1.66" }, key, 1));
  const { wrongSource } = mapper.stats;
  mapper.handleDatagram(answer, GATEWAY, key, 2);
  const sent = [];
  for (let action = mapper.poll(); action; action = mapper.poll()) {
    if (action.type === "send") sent.push(action.data.length);
  }
  // The question for the address; and, once the gateway has answered that, the mapping.
  assertEquals([wrongSource, sent], [1, [2, 12]]);
});
