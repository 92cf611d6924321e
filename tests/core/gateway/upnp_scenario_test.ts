import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { IGD_SERVICE } from "../../../core/upnp/igd.ts";
import { ALICE, BOB, EXTERNAL, IgdRig, mapping, named } from "../upnp/igd_rig.ts";

const V1 = { upnp: { version: 1 } } as const;

function add(rig: IgdRig, port = 80, from = ALICE): unknown {
  const service = IGD_SERVICE.WAN_IP_1;
  return rig.call("AddPortMapping", mapping(port, { client: from.address }), from, service);
}

describe("scenarios reach UPnP", () => {
  it("refuse: UPnP's codes as they are, PCP's as RFC 6970 has them", () => {
    const seen = (code: number, options = {}) => {
      const rig = new IgdRig(options);
      assertEquals(rig.command(`refuse ${code}`).isDone, true);
      const result = add(rig);
      assertEquals(rig.call("GetExternalIPAddress", {}, ALICE, IGD_SERVICE.WAN_IP_1), result);
      assertEquals(rig.table(), []);
      rig.command("refuse off");
      assertEquals(add(rig), {});
      return result;
    };
    assertEquals([2, 3, 8, 10, 11, 12, 255].map((code) => seen(code)), [
      606,
      501,
      728,
      728,
      718,
      501,
      501,
    ]);
    assertEquals([2, 8, 10, 11].map((code) => seen(code, V1)), [718, 501, 501, 718]);
    assertEquals([256, 402, 718, 725, 899].map((code) => seen(code)), [256, 402, 718, 725, 899]);
  });

  it("refuse with a code of UPnP's leaves the others alone", () => {
    const rig = new IgdRig({ protocols: ["nat-pmp", "upnp"] });
    rig.drain();
    rig.command("refuse 718");
    rig.gateway.handleDatagram(Uint8Array.of(0, 0), ALICE, "server", rig.now);
    assertEquals(rig.drain().sent[0]?.data[3], 0);
    rig.command("refuse 2");
    rig.gateway.handleDatagram(Uint8Array.of(0, 0), ALICE, "server", rig.now);
    assertEquals(rig.drain().sent[0]?.data[3], 2);
  });

  it("client deny: no mappings for that one, its questions are answered", () => {
    const rig = new IgdRig();
    rig.command(`client ${ALICE.address} deny`);
    assertEquals([add(rig), add(rig, 80, BOB)], [606, {}]);
    assertEquals(rig.call("GetExternalIPAddress"), { NewExternalIPAddress: EXTERNAL });
    assertEquals(rig.call("GetStatusInfo") instanceof Object, true);
    assertEquals(rig.call("DeletePortMapping", named(80)), 606);
    rig.command(`client ${ALICE.address} allow`);
    assertEquals(rig.call("DeletePortMapping", named(80)), 606);
    assertEquals(add(rig, 81), {});
  });

  it("deaf: the next requests, by HTTP and by SSDP, are not heard", () => {
    const rig = new IgdRig();
    rig.drain();
    rig.runTo(10_000);
    rig.command("deaf 2");
    assertEquals(rig.search("upnp:rootdevice"), []);
    assertEquals([rig.get("/rootDesc.xml"), rig.get("/rootDesc.xml")?.status], [undefined, 200]);
    assertEquals(rig.gateway.stats.dropped.deaf, 2);
  });

  it("delay and duplicate: SSDP's answers are late and doubled, HTTP's late", () => {
    const rig = new IgdRig();
    rig.drain();
    rig.runTo(10_000);
    rig.command("delay 300");
    rig.command("duplicate on");
    assertEquals(rig.search("upnp:rootdevice").map(({ at }) => at), [10_300, 10_300]);
    assertEquals(rig.get("/rootDesc.xml"), undefined);
    assertEquals(rig.gateway.stats.answers.waiting, 1);
    const from = rig.now;
    assertEquals(rig.gateway.nextTimeout(), from + 300);
    rig.now = from + 300;
    rig.gateway.handleTimeout(rig.now);
    assertEquals(rig.drain().responses.length, 1);
  });

  it("wrong-source: SSDP answers from another port", () => {
    const rig = new IgdRig();
    rig.command("wrong-source on");
    assertEquals(rig.search("upnp:rootdevice").map(({ socket }) => socket), ["other"]);
    assert(rig.gateway.sockets!().some(({ key }) => key === "other"));
  });

  it("a policy of the caller's own may refuse, drop and delay", () => {
    const rig = new IgdRig({
      decide: ({ via, action }) =>
        via !== "upnp"
          ? undefined
          : action === "AddPortMapping"
          ? { kind: "refuse", code: 501 }
          : action === "GetStatusInfo"
          ? { kind: "drop" }
          : { kind: "delay", delayMs: 70 },
    });
    assertEquals([add(rig), rig.call("GetStatusInfo")], [501, undefined]);
    assertEquals([rig.call("GetExternalIPAddress"), rig.gateway.stats.answers.waiting], [
      undefined,
      1,
    ]);
    assertEquals(rig.gateway.stats.upnp?.dropped.policy, 1);
  });

  it("profiles of PCP and NAT-PMP have their UPnP, too", () => {
    const upnp = { protocols: ["pcp", "nat-pmp", "upnp"] } as const;
    const real = new IgdRig({ ...upnp, profile: "miniupnpd-2.3.1" });
    assertEquals(real.add(80, { client: BOB.address }), 718);
    assertEquals(real.call("DeletePortMapping", named(80)), {});
    assertEquals(add(new IgdRig({ ...upnp, profile: "not-authorized" })), 606);
    assertEquals(
      ["no-external-address", "private-external-address"].map((profile) =>
        new IgdRig({ ...upnp, profile }).call("GetExternalIPAddress")
      ),
      [{ NewExternalIPAddress: "0.0.0.0" }, { NewExternalIPAddress: "10.64.0.2" }],
    );
  });

  it("a policy's code that is none of UPnP's is Action Failed", () => {
    const seen = (code: number) => add(new IgdRig({ decide: () => ({ kind: "refuse", code }) }));
    assertEquals([seen(2), seen(0), seen(1000), seen(1.5), seen(725)], [606, 501, 501, 501, 725]);
  });

  it("is made without UPnP, with it off, and with it on", () => {
    const off = new IgdRig({ protocols: ["pcp"] });
    assertEquals(off.gateway.sockets!().map(({ key }) => key), []);
    assertEquals(off.command("protocol upnp on").isDone, true);
    off.openSockets();
    assertEquals(off.get("/rootDesc.xml")?.status, 200);
    assertEquals(off.gateway.protocols, ["pcp", "upnp"]);
  });
});
