/**
 * Pinholes in a router's IPv6 firewall (WANIPv6FirewallControl:1).
 */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { hostPrefix } from "../../../core/cidr.ts";
import { describeFailure } from "../../../core/mapping.ts";
import { Rig, told } from "./rig.ts";
import {
  gatewayDevice,
  PORT,
  type RouterOptions,
  ScriptedRouter,
  SERVICES,
} from "./scripted_igd.ts";

const HOST6 = "2001:db8::100";
const ROUTER6 = "2001:db8::1";

function rig6(options: RouterOptions = {}): Rig {
  const router = new ScriptedRouter({
    from: { address: ROUTER6, port: 1900 },
    location: `http://[${ROUTER6}]:${PORT}/desc.xml`,
    device: gatewayDevice([SERVICES.ip2, SERVICES.firewall], 2),
    ...options,
  });
  return new Rig({
    router,
    isNamed: true,
    gateway: { address: "fe80::1%eth0", port: 1900 },
    localAddress: HOST6,
    others: [{ address: ROUTER6, router }],
  });
}

/** Fails once with this code, `mode: "once"`. */
function refusalOf(code: number): string {
  const rig = rig6({ acts: { AddPinhole: () => code } });
  rig.map({ mode: "once" });
  const failed = rig.take().find(({ type }) => type === "failed");
  return describeFailure(told(failed, "failed").failure);
}

describe("a pinhole", () => {
  it("is for this host's address and port, open to everybody", () => {
    const rig = rig6();
    rig.map({ lifetimeSeconds: 600, protocol: "udp" });
    assertEquals(rig.router.asked, ["GET /desc.xml", "POST /ctl/fw"]);
    assertEquals(Object.entries(rig.router.calls[0]!.args), [
      ["RemoteHost", ""],
      ["RemotePort", "0"],
      ["InternalClient", HOST6],
      ["InternalPort", "8080"],
      ["Protocol", "17"],
      ["LeaseTime", "600"],
    ]);
    const [address, mapped] = rig.take();
    assertEquals(told(address, "external-address").address, HOST6);
    const { mapping } = told(mapped, "mapped");
    assertEquals([mapping.external, mapping.lifetimeSeconds], [
      { address: HOST6, port: 8080 },
      600,
    ]);
    for (const { to } of rig.router.requests) assertEquals(to.address, ROUTER6);
  });

  it("is renewed by its id at half of its lease, which is a day at most", () => {
    const rig = rig6();
    rig.map({ lifetimeSeconds: 1_000_000 });
    const { mapping } = told(rig.take()[1], "mapped");
    assertEquals(mapping.lifetimeSeconds, 86_400);
    rig.router.takeActions();
    rig.runTo(43_200_000);
    assertEquals(rig.types(), ["renewed"]);
    const calls = rig.router.calls.filter(({ action }) => action !== "GetPinholePackets");
    assertEquals(calls.map(({ action, args }) => [action, args]), [
      ["UpdatePinhole", { UniqueID: "1", NewLeaseTime: "86400" }],
    ]);
  });

  it("that a restarted router has forgotten is made anew, when it shows or is renewed", () => {
    for (const hasCheck of [true, false]) {
      const rig = rig6(hasCheck ? {} : { acts: { GetPinholePackets: () => 602 } });
      rig.map();
      rig.take();
      rig.router.pinholes.clear();
      rig.runTo(hasCheck ? 66_000 : 3_600_001);
      assertEquals(rig.router.pinholes.size, 1);
      assertEquals(rig.types(), hasCheck ? ["gateway-restarted", "renewed"] : ["renewed"]);
    }
  });

  it("is looked for elsewhere where the router is no more where it was", () => {
    const rig = rig6();
    rig.map();
    rig.take();
    rig.router.pinholes.clear();
    rig.router.options = { ...rig.router.options, port: PORT + 1 };
    rig.router.options = {
      ...rig.router.options,
      location: `http://[${ROUTER6}]:${PORT + 1}/desc.xml`,
    };
    rig.runTo(66_000);
    assertEquals(rig.types(), ["gateway-restarted", "renewed"]);
    assertEquals(rig.router.pinholes.size, 1);
  });

  it("is closed by its id; one of an earlier run by asking for it again", () => {
    const rig = rig6();
    const id = rig.map();
    rig.router.takeActions();
    rig.do((client, now) => client.revoke(id, now));
    assertEquals(rig.router.takeActions(), ["DeletePinhole"]);
    assertEquals([rig.router.pinholes.size, rig.types().at(-1)], [0, "unmapped"]);

    rig.map({ internalPort: 9090 });
    const later = rig6();
    later.router.pinholes.set(5, [...rig.router.pinholes.values()][0]!);
    later.do((client, now) => client.unmap({ protocol: "tcp", internalPort: 9090 }, now));
    assertEquals(later.router.takeActions(), ["AddPinhole", "DeletePinhole"]);
    assertEquals(told(later.take().at(-1), "unmapped").failure, undefined);
    assertEquals(later.router.pinholes.size, 0);
  });

  it("is another one where this host has another address: its id names the old one's", () => {
    const rig = rig6();
    rig.map();
    rig.take();
    rig.router.takeActions();
    rig.do((client, now) => client.networkChanged("2001:db8::200", now));
    assertEquals(rig.router.takeActions(), ["AddPinhole"]);
    assertEquals(told(rig.take().at(-1), "moved").mapping.external?.address, "2001:db8::200");
  });

  it("that is gone by then is closed", () => {
    const rig = rig6();
    const id = rig.map();
    rig.router.pinholes.clear();
    rig.do((client, now) => client.revoke(id, now));
    assertEquals(told(rig.take().at(-1), "unmapped").failure, undefined);
  });

  it("that the router does not close is told", () => {
    const rig = rig6({ acts: { DeletePinhole: () => 606 } });
    const id = rig.map();
    rig.do((client, now) => client.revoke(id, now));
    const { failure } = told(rig.take().at(-1), "unmapped");
    assertEquals(failure && describeFailure(failure), "ActionNotAuthorized");
  });

  it("is not needed where the firewall is off", () => {
    const rig = rig6({ acts: { AddPinhole: () => 702 } });
    const id = rig.map();
    assertEquals(told(rig.take()[1], "mapped").mapping.external, { address: HOST6, port: 8080 });
    rig.do((client, now) => client.revoke(id, now));
    assertEquals(told(rig.take().at(-1), "unmapped").failure, undefined);
  });

  it("that is refused is told by the firewall's words (59: of a temporary address, too)", () => {
    assertEquals(refusalOf(701), "PinholeSpaceExhausted");
    assertEquals(refusalOf(703), "InboundPinholeNotAllowed");
    assertEquals(refusalOf(606), "ActionNotAuthorized");
  });

  it("can be for one peer and its port alone", () => {
    const rig = rig6();
    rig.map({ filters: [{ prefix: hostPrefix("2001:db8:1::7"), port: 4433 }] });
    const { args } = rig.router.calls[0]!;
    assertEquals([args["RemoteHost"], args["RemotePort"]], ["2001:db8:1::7", "4433"]);
  });

  it("has no other port outside than inside", () => {
    const rig = rig6();
    const web = { protocol: "tcp", internalPort: 80, preferFailure: true } as const;
    const { client } = rig;
    assert(client.unfit({ ...web, suggestedExternal: { port: 81 } }));
    assertEquals(client.unfit({ ...web, suggestedExternal: { port: 80 } }), undefined);
  });

  it("is asked of no router that has no firewall to ask", () => {
    const rig = rig6({ device: gatewayDevice([SERVICES.ip1]) });
    rig.map({ mode: "once" });
    rig.runTo(5000);
    assertEquals(told(rig.take()[0], "failed").failure, { kind: "no-answer" });
  });
});
