import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { parseCidr } from "../../../core/cidr.ts";
import type { Endpoint } from "../../../core/machine.ts";
import { IGD_SERVICE } from "../../../core/upnp/igd.ts";
import type { SoapArguments } from "../../../core/upnp/soap.ts";
import { ALICE, IgdRig } from "./igd_rig.ts";

const CAROL: Endpoint = { address: "2001:db8::100", port: 40_000 };
const DAVE: Endpoint = { address: "2001:db8::101", port: 40_001 };
const REMOTE = "2001:db8:ffff::9";

interface Hole {
  readonly host?: string;
  readonly remotePort?: number | string;
  readonly client?: string;
  readonly port?: number | string;
  readonly protocol?: number | string;
  readonly lease?: number | string;
}

/** A dual-stack gateway that is asked over IPv6. */
class FirewallRig extends IgdRig {
  constructor(pinholes: "allowed" | "off" | "closed" = "allowed", trace: boolean = false) {
    super({
      trace,
      upnp: {
        pinholes,
        interfaces: [
          { address: "192.168.1.1", prefixLength: 24 },
          { address: "2001:db8::1", prefixLength: 64 },
        ],
      },
    });
    this.drain();
  }

  ask6(action: string, args: SoapArguments, from: Endpoint = CAROL): unknown {
    return this.call(action, args, from, IGD_SERVICE.FIREWALL_1, "/ctl/IP6FC");
  }

  /** Opens a pinhole; its id, or the error code. */
  open(hole: Hole = {}, from: Endpoint = CAROL): number {
    const result = this.ask6("AddPinhole", {
      RemoteHost: hole.host ?? "",
      RemotePort: `${hole.remotePort ?? 0}`,
      InternalClient: hole.client ?? from.address,
      InternalPort: `${hole.port ?? 8080}`,
      Protocol: `${hole.protocol ?? 6}`,
      LeaseTime: `${hole.lease ?? 600}`,
    }, from);
    return typeof result === "number" ? result : Number((result as SoapArguments)["UniqueID"]);
  }

  /** Whether a packet comes in. */
  admits(remote: string, remotePort: number = 1000, port: number = 8080): boolean {
    const at = { address: CAROL.address, port };
    const from = { address: remote, port: remotePort };
    return this.gateway.lookupInbound(6, at, from, this.now) !== undefined;
  }
}

describe("IgdServer: pinholes", () => {
  it("opens, tells, counts, extends and closes one", () => {
    const rig = new FirewallRig();
    assertEquals(rig.admits(REMOTE), false);
    const id = rig.open();
    const UniqueID = `${id}`;
    assertEquals(rig.ask6("GetPinholePackets", { UniqueID }), { PinholePackets: "0" });
    assertEquals(rig.ask6("CheckPinholeWorking", { UniqueID }), 709);
    assertEquals([rig.admits(REMOTE), rig.admits("2001:db8:ffff::10")], [true, true]);
    assertEquals(rig.ask6("GetPinholePackets", { UniqueID }), { PinholePackets: "2" });
    assertEquals(rig.ask6("CheckPinholeWorking", { UniqueID }), { IsWorking: "1" });
    rig.runTo(599_000);
    assertEquals(rig.ask6("UpdatePinhole", { UniqueID, NewLeaseTime: "600" }), {});
    rig.runTo(1_198_000);
    assertEquals(rig.admits(REMOTE), true);
    assertEquals(rig.ask6("DeletePinhole", { UniqueID }), {});
    assertEquals([rig.admits(REMOTE), rig.gateway.list(rig.now)], [false, []]);
    assertEquals(rig.ask6("DeletePinhole", { UniqueID }), 704);
    assertEquals(rig.ask6("UpdatePinhole", { UniqueID, NewLeaseTime: "600" }), 704);
  });

  it("the same five again lasts longer and keeps its id; others have ids of their own", () => {
    const rig = new FirewallRig();
    const id = rig.open({ host: REMOTE, remotePort: 1000, lease: 100 });
    rig.now = 50_000;
    assertEquals(rig.open({ host: REMOTE, remotePort: 1000, lease: 100 }), id);
    rig.runTo(149_000);
    assertEquals(rig.admits(REMOTE, 1000), true);
    assertEquals(new Set([id, rig.open({ host: REMOTE }), rig.open({ port: 8081 })]).size, 3);
    assertEquals(rig.gateway.list(rig.now).map(({ filters }) => filters.length), [2, 0]);
  });

  it("is for its protocol and its inside alone", () => {
    const rig = new FirewallRig();
    rig.open({ protocol: 17, host: REMOTE });
    rig.open({ port: 8081, host: REMOTE });
    rig.open({}, DAVE);
    assertEquals([rig.admits(REMOTE), rig.admits(REMOTE, 1, 8081)], [false, true]);
    rig.open({ host: "2001:db8:ffff::10" });
    assertEquals([rig.admits(REMOTE), rig.admits("2001:db8:ffff::10")], [false, true]);
    // Whoever it is, from that port.
    rig.open({ remotePort: 443 });
    assertEquals(["::2", "8000::1", "fd00::1"].map((remote) => rig.admits(remote, 443)), [
      true,
      true,
      true,
    ]);
  });

  it("lets in whom any pinhole of an inside lets in, for as long as that one lasts", () => {
    const rig = new FirewallRig();
    rig.open({ host: REMOTE, remotePort: 1000, lease: 100 });
    rig.open({ host: "2001:db8:ffff::10", lease: 200 });
    const seen = () => [
      rig.admits(REMOTE, 1000),
      rig.admits(REMOTE, 1001),
      rig.admits("2001:db8:ffff::10", 5),
      rig.admits("2001:db8:ffff::11", 5),
    ];
    assertEquals(seen(), [true, false, true, false]);
    const all = rig.open({ lease: 60 });
    assertEquals(seen(), [true, true, true, true]);
    rig.ask6("DeletePinhole", { UniqueID: `${all}` });
    assertEquals(seen(), [true, false, true, false]);
    rig.runTo(100_000);
    assertEquals(seen(), [false, false, true, false]);
    rig.runTo(200_000);
    assertEquals([seen(), rig.gateway.list(rig.now)], [[false, false, false, false], []]);
    const port = rig.open({ remotePort: 443 });
    assertEquals([rig.admits(REMOTE, 443), rig.admits(REMOTE, 444), port >= 0], [
      true,
      false,
      true,
    ]);
  });

  it("is for the host itself, its address spelled as it likes, and ports from 1024", () => {
    const rig = new FirewallRig();
    assertEquals(rig.open({ client: DAVE.address }), 606);
    assertEquals(rig.open({ port: 1023 }), 606);
    assertEquals(rig.open({ port: 1024 }) < 600, true);
    assertEquals(rig.open({ client: "2001:DB8:0::100" }) < 600, true);
    // Over IPv4 nobody has an address that a pinhole could be for.
    assertEquals(rig.open({ client: CAROL.address }, ALICE), 606);
    const id = `${rig.open({ port: 9000 })}`;
    for (const action of ["DeletePinhole", "GetPinholePackets", "CheckPinholeWorking"]) {
      assertEquals(rig.ask6(action, { UniqueID: id }, DAVE), 606);
    }
    assertEquals(rig.ask6("UpdatePinhole", { UniqueID: id, NewLeaseTime: "1" }, DAVE), 606);
  });

  it("705, 706 and 707 for what it does not open, 402 for what is none", () => {
    const rig = new FirewallRig();
    assertEquals(
      [
        rig.open({ protocol: 1 }),
        rig.open({ port: 0 }),
        rig.open({ protocol: 65_535 }),
        rig.open({ lease: 0 }),
        rig.open({ lease: 86_401 }),
        rig.open({ host: "name" }),
        rig.open({ host: "192.0.2.1" }),
        rig.open({ client: "192.168.1.100" }),
        rig.open({ client: "" }),
        rig.open({ remotePort: 65_536 }),
        rig.open({ port: "x" }),
      ],
      [705, 706, 707, 402, 402, 402, 402, 402, 402, 402, 402],
    );
    assertEquals(rig.open({ lease: 86_400 }) < 600, true);
    const id = `${rig.open({ protocol: 132 })}`;
    assertEquals(rig.ask6("UpdatePinhole", { UniqueID: id, NewLeaseTime: "0" }), 402);
    assertEquals(rig.ask6("DeletePinhole", { UniqueID: "x" }), 402);
    assertEquals(rig.ask6("DeletePinhole", { UniqueID: "65535" }), 704);
  });

  it("702 where there is no firewall, 703 where it opens nothing; both tell their status", () => {
    const off = new FirewallRig("off"), closed = new FirewallRig("closed");
    assertEquals([off.open(), closed.open()], [702, 703]);
    assertEquals(off.ask6("GetFirewallStatus", {}), {
      FirewallEnabled: "0",
      InboundPinholeAllowed: "0",
    });
    assertEquals(closed.ask6("GetFirewallStatus", {}), {
      FirewallEnabled: "1",
      InboundPinholeAllowed: "0",
    });
  });

  it("tells how long an outgoing flow lasts", () => {
    const rig = new FirewallRig();
    const outbound = (protocol: string) =>
      rig.ask6("GetOutboundPinholeTimeout", {
        RemoteHost: REMOTE,
        RemotePort: "443",
        InternalClient: CAROL.address,
        InternalPort: "50000",
        Protocol: protocol,
      });
    assertEquals(outbound("6"), { OutboundPinholeTimeout: "7440" });
    assertEquals([outbound("17"), outbound("132")], [
      { OutboundPinholeTimeout: "120" },
      { OutboundPinholeTimeout: "120" },
    ]);
    assertEquals(outbound("tcp"), 402);
  });

  it("ids die with a boot, and with a table that is lost", () => {
    for (const command of ["reboot", "forget"]) {
      const rig = new FirewallRig();
      const id = rig.open();
      rig.command(command);
      rig.drain();
      assertEquals(rig.ask6("UpdatePinhole", { UniqueID: `${id}`, NewLeaseTime: "60" }), 704);
      assertEquals([rig.admits(REMOTE), rig.gateway.list(rig.now)], [false, []]);
    }
  });

  it("leaves what PCP opened as it is, but for lasting longer", () => {
    const rig = new FirewallRig();
    rig.gateway.table.mapInbound({
      origin: "pcp",
      protocol: 6,
      internal: { address: CAROL.address, port: 8080 },
      expiresAt: 100_000,
    }, 0);
    const id = rig.open({ host: REMOTE, lease: 200 });
    assertEquals(rig.admits("2001:db8:ffff::77"), true);
    rig.ask6("DeletePinhole", { UniqueID: `${id}` });
    const [left] = rig.gateway.list(rig.now);
    assertEquals([left?.origin, left?.expiresAt], ["pcp", 100_000]);
    rig.open({ host: REMOTE, lease: 200 });
    rig.runTo(150_000);
    assertEquals(rig.gateway.list(rig.now).length, 1);
    assertEquals([rig.admits(REMOTE), rig.admits("2001:db8:ffff::77")], [true, false]);
    rig.runTo(200_000);
    assertEquals(rig.gateway.list(rig.now).length, 0);
  });

  it("ends, and leaves to PCP's client what that one was granted meanwhile", () => {
    const rig = new FirewallRig();
    const id = rig.open({ host: REMOTE, lease: 100 });
    const [entry] = [...rig.gateway.table.entries()];
    const other = "2001:db8:ffff::10";
    const filters = [{ prefix: parseCidr(`${other}/128`)!, port: 0 }];
    rig.gateway.table.renew(entry!, { by: "pcp", expiresAt: 300_000, filters });
    rig.ask6("UpdatePinhole", { UniqueID: `${id}`, NewLeaseTime: "200" });
    assertEquals([rig.admits(REMOTE), rig.admits(other)], [true, true]);
    rig.runTo(200_000);
    assertEquals([rig.admits(REMOTE), rig.admits(other)], [false, true]);
    rig.runTo(300_000);
    assertEquals(rig.gateway.list(rig.now), []);
  });

  it("is gone with its mapping, and does not come back with another one", () => {
    const rig = new FirewallRig();
    const ids = [rig.open({ host: REMOTE }), rig.open({ host: "2001:db8:ffff::10" })];
    rig.gateway.forgetClient(CAROL.address, rig.now);
    const UniqueID = `${ids[0]}`;
    assertEquals(rig.ask6("GetPinholePackets", { UniqueID }), 704);
    assertEquals(rig.ask6("UpdatePinhole", { UniqueID, NewLeaseTime: "600" }), 704);
    const again = rig.open({ host: REMOTE });
    assertEquals(ids.includes(again), false);
    assertEquals([rig.admits(REMOTE), rig.admits("2001:db8:ffff::10")], [true, false]);

    // Nor does one whose brother's time is over.
    rig.open({ port: 9000, lease: 60 });
    rig.open({ port: 9000, host: REMOTE, lease: 600 });
    rig.gateway.forgetClient(CAROL.address, rig.now);
    rig.runTo(60_000);
    assertEquals(rig.admits(REMOTE, 1, 9000), false);
  });

  it("is as good as open where the administrator opened it", () => {
    const rig = new FirewallRig();
    const internal = { address: CAROL.address, port: 8080 };
    const request = { protocol: 6, internal, expiresAt: Infinity };
    rig.gateway.table.mapInbound({ kind: "static", origin: "admin", ...request }, 0);
    const id = rig.open({ host: REMOTE, lease: 100 });
    assertEquals(rig.ask6("UpdatePinhole", { UniqueID: `${id}`, NewLeaseTime: "60" }), {});
    rig.runTo(100_000);
    assertEquals(rig.gateway.list(rig.now).map(({ kind }) => kind), ["static"]);
  });

  it("701 where the table has no room", () => {
    const rig = new FirewallRig();
    rig.command("exhaust on");
    assertEquals(rig.open(), 701);
    rig.command("exhaust off");
    assertEquals(rig.open() < 600, true);
  });

  it("are traced as they were granted: the inside as their outside, and for how long", () => {
    const rig = new FirewallRig("allowed", true);
    const granted = () => {
      const event = rig.events.findLast(({ type }) => type === "response");
      return event?.type === "response" && event.via === "upnp" &&
        [event.action, event.resultCode, event.external, event.lifetimeSeconds];
    };
    const id = rig.open({ lease: 600 });
    const external = { address: CAROL.address, port: 8080 };
    const told = [granted()];
    rig.ask6("UpdatePinhole", { UniqueID: `${id}`, NewLeaseTime: "60" });
    told.push(granted());
    rig.ask6("DeletePinhole", { UniqueID: `${id}` });
    told.push(granted());
    assertEquals(told, [
      ["AddPinhole", 0, external, 600],
      ["UpdatePinhole", 0, external, 60],
      ["DeletePinhole", 0, undefined, undefined],
    ]);
  });
});
