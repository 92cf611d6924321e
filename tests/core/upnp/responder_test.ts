import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { IGD_DEVICE, IGD_SERVICE } from "../../../core/upnp/igd.ts";
import { encodeAdvert, encodeSearch, encodeSearchResponse } from "../../../core/upnp/ssdp.ts";
import { ALICE, BOB, HTTP_PORT, IgdRig, messageOf, OWN, SSDP } from "./igd_rig.ts";

const LOCATION = `http://${OWN}:${HTTP_PORT}/rootDesc.xml`;

/** The rig with its start's announcements over. */
function quietRig(options: ConstructorParameters<typeof IgdRig>[0] = {}): IgdRig {
  const rig = new IgdRig(options);
  rig.drain();
  rig.runTo(10_000);
  return rig;
}

describe("IgdServer: searches", () => {
  it("a unicast search is answered at once, with all that a client needs", () => {
    const rig = quietRig();
    const [answer, ...others] = rig.search(IGD_DEVICE.GATEWAY_2);
    assertEquals([answer?.at, answer?.socket, others.length], [10_000, `ssdp ${OWN}`, 0]);
    const { udn } = rig.describe().device;
    assertEquals(answer?.message, {
      kind: "response",
      target: IGD_DEVICE.GATEWAY_2,
      usn: `${udn}::${IGD_DEVICE.GATEWAY_2}`,
      location: LOCATION,
      maxAgeSeconds: 1800,
      bootId: 1,
      configId: 1,
      server: "natkit/1.0 UPnP/1.1 natkit/1.0",
    });
  });

  it("a multicast search is answered within its MX, at most 5 s, and not at all without one", () => {
    const rig = quietRig();
    const seen: number[] = [];
    for (let port = 1; port <= 200; port++) {
      const from = rig.now;
      seen.push(rig.search("upnp:rootdevice", { mx: 2, from: { ...ALICE, port } })[0]!.at - from);
    }
    assert(seen.every((ms) => ms >= 0 && ms <= 2000));
    assert(Math.max(...seen) > 1800 && Math.min(...seen) < 200);
    // More than five seconds are five.
    const text = new TextDecoder().decode(
      encodeSearch({ host: SSDP, target: "upnp:rootdevice", mx: 5 }),
    );
    const longer = new TextEncoder().encode(text.replace("MX: 5", "MX: 120"));
    rig.gateway.handleDatagram(longer, ALICE, `ssdp-group ${OWN}`, rig.now);
    assertEquals(rig.runTo(rig.now + 5000).length, 1);
    const none = new TextEncoder().encode(text.replace("MX: 5\r\n", ""));
    rig.gateway.handleDatagram(none, ALICE, `ssdp-group ${OWN}`, rig.now);
    assertEquals(rig.drain().sent.length + rig.runTo(rig.now + 10_000).length, 0);
  });

  it("answers a search that comes three times once, while the answer waits", () => {
    const rig = quietRig();
    const data = encodeSearch({ host: SSDP, target: IGD_SERVICE.WAN_IP_1, mx: 3 });
    for (let i = 0; i < 3; i++) {
      rig.gateway.handleDatagram(data, ALICE, `ssdp-group ${OWN}`, rig.now);
    }
    rig.gateway.handleDatagram(data, BOB, `ssdp-group ${OWN}`, rig.now);
    assertEquals(rig.runTo(rig.now + 3000).map(({ to }) => to.port).sort(), [
      ALICE.port,
      BOB.port,
    ]);
    // It leaves when it was to leave at first, however often the search is heard meanwhile.
    rig.gateway.handleDatagram(data, ALICE, `ssdp-group ${OWN}`, rig.now);
    const at = rig.gateway.nextTimeout();
    for (let i = 0; i < 5; i++) {
      rig.gateway.handleDatagram(data, ALICE, `ssdp-group ${OWN}`, rig.now);
      assertEquals(rig.gateway.nextTimeout(), at);
    }
  });

  it("knows every target: devices, UUIDs, services, lower versions as they are asked for", () => {
    const rig = quietRig();
    const { device } = rig.describe();
    const targets = (target: string) => rig.search(target).map(({ message }) => message.target);
    for (
      const target of [
        "upnp:rootdevice",
        device.udn,
        device.devices[0]!.udn,
        IGD_DEVICE.GATEWAY_2,
        IGD_DEVICE.GATEWAY_1,
        IGD_DEVICE.WAN_1,
        IGD_DEVICE.CONNECTION_1,
        IGD_SERVICE.WAN_IP_2,
        IGD_SERVICE.WAN_IP_1,
        IGD_SERVICE.FIREWALL_1,
        IGD_SERVICE.COMMON_1,
        IGD_SERVICE.FORWARDING_1,
      ]
    ) {
      assertEquals(targets(target), [target]);
    }
    for (
      const target of [
        IGD_SERVICE.WAN_PPP_1,
        IGD_SERVICE.WAN_IP_2.replace(":2", ":3"),
        IGD_SERVICE.WAN_IP_2.replace(":2", ":0"),
        "uuid:none",
        "ssdp:nothing",
      ]
    ) {
      assertEquals(targets(target), []);
    }
    const [one] = rig.search(IGD_SERVICE.WAN_IP_1);
    assert(one?.message.usn.endsWith(`::${IGD_SERVICE.WAN_IP_1}`));
    const all = rig.search("ssdp:all");
    // Root device; three devices by UUID and type; four services.
    assertEquals(all.length, 1 + 3 * 2 + 4);
    assertEquals(new Set(all.map(({ message }) => message.usn)).size, all.length);
  });

  it("hears nothing that is no search, comes from outside, or has no quotes around ssdp:discover", () => {
    const rig = quietRig();
    const text = new TextDecoder().decode(encodeSearch({ host: SSDP, target: "ssdp:all", mx: 1 }));
    const hear = (text: string, from = ALICE) =>
      rig.gateway.handleDatagram(new TextEncoder().encode(text), from, `ssdp ${OWN}`, rig.now);
    assertEquals(hear(text.replaceAll('"', "")), false);
    assertEquals(hear(text.replace("M-SEARCH", "NOTIFY")), false);
    assertEquals(hear("\r\n\r\n"), false);
    const advert = { target: "upnp:rootdevice", usn: "uuid:x", location: "http://192.168.1.9/" };
    assertEquals(hear(new TextDecoder().decode(encodeAdvert("alive", SSDP, advert))), false);
    assertEquals(hear(new TextDecoder().decode(encodeSearchResponse(advert))), false);
    assertEquals(hear(text, { address: "192.168.2.1", port: 1 }), false);
    assertEquals(hear(text), true);
    assertEquals(rig.gateway.stats.upnp?.ssdp.ignored, 5);
    assertEquals(rig.gateway.stats.upnp?.dropped.outside, 1);
  });

  it("hears both kinds of search, or the one alone that it is peculiar to hear", () => {
    const busy = quietRig({ upnp: { habits: { ssdp: { busyMs: 100 } } } });
    const answersAt = (at: number) => {
      busy.runTo(10_000 + at);
      return busy.search("upnp:rootdevice", { until: busy.now }).length;
    };
    assertEquals([0, 99, 100, 199, 200].map(answersAt), [1, 0, 1, 0, 1], "one in so many ms");
    const heard = (hears?: "unicast" | "multicast") => {
      const rig = quietRig({ upnp: { habits: { ssdp: hears ? { hears } : {} } } });
      return [undefined, 1].map((mx) =>
        rig.search("upnp:rootdevice", mx === undefined ? {} : { mx }).length
      );
    };
    assertEquals([heard(), heard("unicast"), heard("multicast")], [[1, 1], [1, 0], [0, 1]]);
  });

  it("hears unicast searches at PCP's port as well, and answers from there", () => {
    const rig = quietRig({ protocols: ["pcp", "upnp"] });
    const data = encodeSearch({ host: { ...SSDP, address: OWN }, target: "upnp:rootdevice" });
    assertEquals(rig.gateway.handleDatagram(data, ALICE, "server", rig.now), true);
    const [answer, ...others] = rig.drain().sent;
    assertEquals([answer?.socket, messageOf(answer!.data).location, others], [
      "server",
      LOCATION,
      [],
    ]);
    rig.command("protocol upnp off");
    rig.drain();
    rig.gateway.handleDatagram(data, ALICE, "server", rig.now);
    // To PCP it is an unknown version.
    assertEquals(rig.drain().sent.map(({ data }) => data[0]), [2]);
  });

  it("counts for a search what it answers, and answers nothing for what it is not", () => {
    const habits = { ssdp: { tiresAfter: 2, rootFirst: true } };
    const rig = quietRig({ upnp: { habits } });
    const targets = (target: string) => rig.search(target).map(({ message }) => message.target);
    assertEquals([targets("uuid:none"), targets("ssdp:nothing")], [[], []]);
    const root = "upnp:rootdevice";
    assertEquals(targets(IGD_SERVICE.WAN_IP_1), [root, IGD_SERVICE.WAN_IP_1]);
    assertEquals([targets(root).length > 0, targets(root)], [true, []]);
    const { searches, ignored } = rig.gateway.stats.upnp!.ssdp;
    assertEquals([searches, ignored], [2, 3]);
  });

  it("bounds the answers that wait", () => {
    const rig = quietRig();
    const data = encodeSearch({ host: SSDP, target: "ssdp:all", mx: 5 });
    for (let port = 1; port <= 1000; port++) {
      rig.gateway.handleDatagram(data, { ...ALICE, port }, `ssdp-group ${OWN}`, rig.now);
    }
    // Eleven for each who asks, of which 1024 wait.
    const { searches, overflowed } = rig.gateway.stats.upnp!.ssdp;
    assertEquals([searches, overflowed], [1000, 11_000 - 1024]);
    assertEquals(rig.runTo(rig.now + 5000).length, 1024);
  });

  it("on several networks tells each its own address, also where a multicast comes by both sockets", () => {
    const rig = new IgdRig({
      upnp: {
        interfaces: [{ address: OWN, prefixLength: 24 }, { address: "10.0.0.1", prefixLength: 8 }],
      },
    });
    rig.drain();
    rig.runTo(10_000);
    const data = encodeSearch({ host: SSDP, target: "upnp:rootdevice", mx: 1 });
    for (const address of [ALICE.address, "10.1.2.3"]) {
      const from = { address, port: 4000 };
      for (const socket of [`ssdp-group ${OWN}`, "ssdp-group 10.0.0.1"]) {
        rig.gateway.handleDatagram(data, from, socket, rig.now);
      }
      const sent = rig.runTo(rig.now + 1000);
      const own = address === ALICE.address ? OWN : "10.0.0.1";
      assertEquals(sent.map(({ socket, data }) => [socket, messageOf(data).location]), [
        [`ssdp ${own}`, `http://${own}:${HTTP_PORT}/rootDesc.xml`],
      ]);
    }
  });
});

describe("IgdServer: announcements", () => {
  const kinds = (
    sent: { readonly data: Uint8Array }[],
  ) => [...new Set(sent.map(({ data }) => messageOf(data).kind))];

  it("says three times at the start what it is, and anew before that runs out", () => {
    const rig = new IgdRig();
    const first = rig.drain().sent;
    assertEquals(first.length, 11);
    for (const { to, socket, data } of first) {
      const { kind, location, bootId, maxAgeSeconds } = messageOf(data);
      assertEquals([to, socket], [SSDP, `ssdp ${OWN}`]);
      assertEquals([kind, location, bootId, maxAgeSeconds], ["alive", LOCATION, 1, 1800]);
    }
    const second = rig.runTo(60_000);
    assertEquals(second.length, 22);
    assertEquals([...new Set(second.map(({ at }) => at))], [250, 750]);
    // Anew at 45 % of the half hour that the last one counts.
    const later = rig.runTo(1_800_000).filter((_, i) => i % 11 === 0).map(({ at }) => at);
    assertEquals(later.slice(0, 4), [810_750, 811_000, 811_500, 1_621_500]);
  });

  it("a reboot makes BOOTID grow, without goodbye; on and off says goodbye, and hello", () => {
    const rig = quietRig();
    rig.command("reboot");
    const boot = rig.drain().sent;
    assertEquals(kinds(boot), ["alive"]);
    assertEquals(messageOf(boot[0]!.data).bootId, 2);
    rig.runTo(rig.now + 10_000);
    rig.command("protocol upnp off");
    const bye = rig.drain().sent;
    assertEquals([bye.length, kinds(bye)], [11, ["byebye"]]);
    assertEquals([rig.gateway.sockets!(), rig.runTo(rig.now + 3_600_000)], [[], []]);
    assertEquals(rig.search("ssdp:all"), []);
    assertEquals(rig.get("/rootDesc.xml"), undefined);
    rig.command("protocol upnp on");
    rig.openSockets();
    const hello = rig.drain().sent;
    assertEquals(kinds(hello), ["alive"]);
    assertEquals(messageOf(hello[0]!.data).bootId, 3);
    rig.command("nat off");
    assertEquals(rig.drain().sent, []);
    assertEquals(rig.gateway.sockets!(), []);
  });

  it("ssdp:update before BOOTID jumps", () => {
    const rig = quietRig();
    rig.command("epoch 77");
    const sent = rig.drain().sent.map(({ data }) => messageOf(data));
    assertEquals(sent.length, 11);
    assertEquals([sent[0]?.kind, sent[0]?.bootId, sent[0]?.nextBootId], ["update", 1, 77]);
    assertEquals(rig.search("upnp:rootdevice")[0]?.message.bootId, 77);
  });

  it("tells the port of its searches where that is another than SSDP's, from 49152 on (UDA 1.1)", () => {
    for (const [ssdpPort, searchPort] of [[49_151, undefined], [49_152, 49_152]] as const) {
      const rig = new IgdRig({ upnp: { ssdpPort } });
      const { data, to } = rig.drain().sent[0]!;
      assertEquals([messageOf(data).searchPort, to.port], [searchPort, ssdpPort]);
    }
  });

  it("says nothing where it is quiet, or off, whatever is asked of it", () => {
    const quiet = new IgdRig({ upnp: { habits: { ssdp: { isQuiet: true } } } });
    const off = new IgdRig();
    off.command("protocol upnp off");
    for (const rig of [quiet, off]) {
      rig.drain();
      for (const line of ["epoch 77", "announce", "protocol upnp off"]) {
        rig.command(line);
        assertEquals([rig.drain().sent, rig.runTo(rig.now + 3_600_000)], [[], []], line);
      }
    }
  });

  it("announce says it again, three times", () => {
    const rig = quietRig();
    rig.command("announce");
    assertEquals(rig.drain().sent.length, 11);
    assertEquals(rig.runTo(rig.now + 1000).length, 22);
  });
});
