/**
 * The bounds of the IGD client from both sides: how old an address may be, how much shorter a lease,
 * how often something is asked, how much of a table is read.
 */
import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { hostPrefix } from "../../../core/cidr.ts";
import type { MappingRequest } from "../../../core/mapping.ts";
import { seededRandom } from "../../../core/random.ts";
import { IgdClient } from "../../../core/upnp/client.ts";
import { encodeSearchResponse } from "../../../core/upnp/ssdp.ts";
import { holding, Rig, told } from "./rig.ts";
import { HOST, NEIGHBOUR, type RouterOptions, ScriptedRouter } from "./scripted_igd.ts";

const OTHER = "198.51.100.9";

/** Shows each of its leases changed. */
function showing(lease: (seconds: number, asked: number) => number): RouterOptions {
  let asked = 0;
  return {
    acts: {
      AddPortMapping: (args, now, router) => {
        asked = Number(args["NewLeaseDuration"]);
        return router.AddPortMapping(args, now);
      },
      GetSpecificPortMappingEntry: (args, now, router) => {
        const entry = router.GetSpecificPortMappingEntry(args, now);
        if (typeof entry === "number") return entry;
        const shown = lease(Number(entry["NewLeaseDuration"]), asked);
        return { ...entry, NewLeaseDuration: String(shown) };
      },
    },
  };
}

describe("the external address", () => {
  it("is asked for again for a new mapping where it was told more than a minute ago", () => {
    for (const [ms, isAsked] of [[59_999, false], [60_000, false], [60_001, true]] as const) {
      const rig = holding();
      // Events work from the first one on: that is doubted, and then nothing is asked meanwhile.
      rig.event(rig.router.event({ Uptime: "1" }));
      rig.run(3000);
      const toldAt = rig.now;
      rig.router.takeActions();
      rig.runTo(toldAt + ms);
      rig.router.takeActions();
      rig.map({ internalPort: 81 });
      assertEquals(rig.router.takeActions().includes("GetExternalIPAddress"), isAsked, `${ms}`);
    }
  });

  it("is looked for three seconds after there was none, and from then on once a minute", () => {
    const rig = holding();
    rig.router.options = { external: "0.0.0.0" };
    rig.event(rig.router.event({ ExternalIPAddress: "0.0.0.0" }));
    const from = rig.now, asked: number[] = [];
    for (let ms = 1; ms <= 9000; ms++) {
      rig.runTo(from + ms);
      if (rig.router.takeActions().includes("GetExternalIPAddress")) asked.push(ms);
    }
    assertEquals(asked, [3000, 6000, 9000]);
    rig.router.options = { external: OTHER };
    rig.run(3000);
    assertEquals(rig.types(), ["moved", "external-address"]);
    rig.router.takeActions();
    rig.run(56_999);
    assertEquals(rig.router.takeActions(), []);
  });
});

describe("a lease", () => {
  it("shown up to ten seconds shorter than asked for is the one that was asked for", () => {
    for (const [shorter, lifetimeSeconds] of [[0, 7200], [10, 7200], [11, 7189]] as const) {
      const rig = new Rig({ router: new ScriptedRouter(showing((_, asked) => asked - shorter)) });
      const id = rig.map();
      assertEquals(rig.client.mapping(id)?.lifetimeSeconds, lifetimeSeconds, `${shorter}`);
      const types = ["external-address", "mapped"];
      assertEquals(rig.types(), shorter > 10 ? [...types, "renewed"] : types);
    }
  });

  it("that a renewal left as it was is deleted and made anew; one that it made longer is not", () => {
    // Half of the lease is left at the renewal: 3600 s.
    for (const [left, isMadeAnew] of [[3599, true], [3600, true], [3601, false]] as const) {
      let isRenewed = false;
      const rig = holding(showing((seconds) => isRenewed ? left : seconds));
      rig.runTo(3_599_999);
      rig.router.takeActions();
      isRenewed = true;
      // The look before the renewal tells what was left then, the one after it what is left.
      const { acts } = rig.router.options;
      let looks = 0;
      rig.router.options = {
        acts: {
          ...acts,
          GetSpecificPortMappingEntry: (args, now, router) => {
            const entry = router.GetSpecificPortMappingEntry(args, now);
            if (typeof entry === "number") return entry;
            return { ...entry, NewLeaseDuration: String(++looks === 1 ? 3600 : left) };
          },
        },
      };
      rig.runTo(3_600_000);
      const deleted = rig.router.takeActions().includes("DeletePortMapping");
      assertEquals(deleted, isMadeAnew, `${left} s are left`);
    }
  });

  it("of 4 294 967 295 s is asked of version 1, a week of version 2", () => {
    for (const [version, seconds] of [[1, "4294967295"], [2, "604800"]] as const) {
      const rig = new Rig({ router: new ScriptedRouter({ version }) });
      rig.map({ lifetimeSeconds: 4_294_967_295 });
      const added = rig.router.calls.find(({ action }) => action.startsWith("Add"));
      assertEquals(added?.args["NewLeaseDuration"], seconds);
    }
  });
});

describe("a port", () => {
  it("is asked for at twelve external ones, each once, those chosen from 1024 on", () => {
    const rig = new Rig({ router: new ScriptedRouter({ acts: { AddPortMapping: () => 718 } }) });
    rig.map({ internalPort: 80, suggestedExternal: { port: 81 }, mode: "once" });
    const ports = rig.router.calls.filter(({ action }) => action === "AddPortMapping")
      .map(({ args }) => Number(args["NewExternalPort"]));
    assertEquals(ports.slice(0, 2), [81, 80]);
    assertEquals([ports.length, new Set(ports).size], [12, 12]);
    assertEquals(ports.slice(2).filter((port) => port < 1024 || port > 65_535), []);
  });

  it("below 1024 that is refused to everybody is another one from there on (quirk 58)", () => {
    for (const [port, isMapped] of [[1023, true], [1024, false]] as const) {
      const acts: RouterOptions["acts"] = {
        AddPortMapping: (args, now, router) =>
          Number(args["NewExternalPort"]) === port ? 606 : router.AddPortMapping(args, now),
      };
      const rig = new Rig({ router: new ScriptedRouter({ acts }) });
      rig.map({ internalPort: port, mode: "once" });
      assertEquals(rig.types().at(-1), isMapped ? "mapped" : "failed");
    }
  });

  it("that AddAnyPortMapping tells is believed where it is one", () => {
    const given = (text: string) => {
      const acts: RouterOptions["acts"] = {
        AddAnyPortMapping: (args, now, router) => {
          router.AddPortMapping({ ...args, NewExternalPort: text.trim() }, now);
          return { NewReservedPort: text };
        },
      };
      const rig = new Rig({ router: new ScriptedRouter({ version: 2, acts }) });
      const id = rig.map({ mode: "once" });
      return rig.client.mapping(id)?.external?.port;
    };
    // Where it is none AddPortMapping is asked for the port that is wished.
    assertEquals(["1", "65535", " 7000 ", "0", "65536", "x"].map(given), [
      1,
      65_535,
      7000,
      8080,
      8080,
      8080,
    ]);
  });
});

describe("the table", () => {
  /** What is told of it. */
  function listed(router: ScriptedRouter) {
    const rig = new Rig({ router });
    rig.do((client, now) => client.list(now));
    return told(rig.take().find(({ type }) => type === "table-told"), "table-told");
  }

  it("is read entry by entry to its end, however long", () => {
    const router = new ScriptedRouter();
    for (let port = 1; port <= 1001; port++) router.occupy(port);
    const { entries, isCut } = listed(router);
    assertEquals([entries.length, isCut], [1001, false]);
    const asked = router.takeActions().filter((name) => name === "GetGenericPortMappingEntry");
    assertEquals(asked.length, 1002);
  });

  it("is told as the device has it, whichever way it is read", () => {
    for (const version of [1, 2] as const) {
      const router = new ScriptedRouter({ version });
      router.AddPortMapping({
        NewRemoteHost: OTHER,
        NewExternalPort: "80",
        NewProtocol: "TCP",
        NewInternalPort: "8080",
        NewInternalClient: HOST,
        NewPortMappingDescription: "web",
        NewLeaseDuration: "3600",
      }, 0);
      router.occupy(53, "UDP");
      assertEquals(listed(router).entries, [
        {
          protocol: "tcp",
          externalPort: 80,
          remoteHost: OTHER,
          internalClient: HOST,
          internalPort: 8080,
          isEnabled: true,
          description: "web",
          leaseSeconds: 3600,
        },
        {
          protocol: "udp",
          externalPort: 53,
          remoteHost: "",
          internalClient: NEIGHBOUR,
          internalPort: 53,
          isEnabled: true,
          description: "other",
          leaseSeconds: 0,
        },
      ]);
    }
  });

  it("leaves out what is no entry, and takes for the rest what is usual", () => {
    const entry = {
      NewExternalPort: "80",
      NewProtocol: " Tcp ",
      NewInternalPort: "8080",
      NewEnabled: "0",
    };
    const answers: Record<string, string>[] = [
      { ...entry, NewProtocol: "SCTP" },
      { ...entry, NewExternalPort: "eighty" },
      { ...entry, NewInternalPort: "" },
      { ...entry, NewExternalPort: "12345678901" },
      entry,
    ];
    const router = new ScriptedRouter({
      acts: {
        GetGenericPortMappingEntry: (args) => answers[Number(args["NewPortMappingIndex"])] ?? 713,
      },
    });
    assertEquals(listed(router).entries, [{
      protocol: "tcp",
      externalPort: 80,
      remoteHost: "",
      internalClient: "",
      internalPort: 8080,
      isEnabled: false,
      description: "",
      leaseSeconds: 0,
    }]);
  });

  it("ends at any error but at the first entry, where one says that it is empty or is not told", () => {
    const of = (first: number | undefined, code: number) => {
      const router = new ScriptedRouter({
        acts: {
          GetGenericPortMappingEntry: (args, now, self) =>
            args["NewPortMappingIndex"] === "0" && first === undefined
              ? self.GetGenericPortMappingEntry(args, now)
              : first ?? code,
        },
      });
      router.occupy(80);
      const { entries, failure } = listed(router);
      return [entries.length, failure?.kind];
    };
    assertEquals([of(undefined, 501), of(undefined, 713)], [[1, undefined], [1, undefined]]);
    assertEquals([of(713, 0), of(714, 0), of(501, 0)], [
      [0, undefined],
      [0, undefined],
      [0, "refused"],
    ]);
  });
});

describe("the search", () => {
  const NEIGHBOUR_AT = { address: NEIGHBOUR, port: 1900 };

  it("asks for the device in each of its words, the first two twice, within 1.1 s", () => {
    const rig = new Rig();
    rig.router.isDead = true;
    rig.do((client, now) => client.probe(now));
    const asked: (readonly [ms: number, target: string])[] = [];
    for (let ms = 0; rig.events.length === 0; ms++) {
      rig.runTo(ms);
      for (const { target, to } of rig.router.searches.splice(0)) {
        if (to.address === "239.255.255.250") asked.push([ms, target]);
      }
    }
    const service = "urn:schemas-upnp-org:service";
    const gateway = "urn:schemas-upnp-org:device:InternetGatewayDevice";
    assertEquals(asked, [
      [0, `${gateway}:1`],
      [200, `${gateway}:1`],
      [250, `${gateway}:2`],
      [600, `${gateway}:2`],
      [650, "upnp:rootdevice"],
      [1000, `${service}:WANIPConnection:1`],
      [1050, `${service}:WANPPPConnection:1`],
      [1100, `${service}:WANIPConnection:2`],
    ]);
    // The last may be answered for a second, and answers take a while.
    assertEquals(rig.now, 2300);
  });

  it("looks at another device than the gateway's a second after it began, or as it comes then", () => {
    for (const answeredAt of [0, 999, 1000, 1500]) {
      const silent = new ScriptedRouter({ answers: () => false });
      const other = new ScriptedRouter({
        from: NEIGHBOUR_AT,
        location: `http://${NEIGHBOUR}:5000/desc.xml`,
      });
      const rig = new Rig({ router: silent, others: [{ address: NEIGHBOUR, router: other }] });
      other.options = { ...other.options, answers: () => false };
      rig.do((client, now) => client.probe(now));
      rig.runTo(answeredAt);
      const [socket] = rig.client.sockets();
      const data = encodeSearchResponse({
        target: "upnp:rootdevice",
        usn: "uuid:1::upnp:rootdevice",
        location: other.location,
      });
      rig.client.handleDatagram(data, NEIGHBOUR_AT, socket!.key, rig.now);
      rig.settle();
      for (let ms = answeredAt; rig.events.length === 0; ms++) rig.runTo(ms);
      assertEquals(rig.now, Math.max(1000, answeredAt));
    }
  });

  it("follows a description twice to where it has moved, and no further", () => {
    const found = (moves: number) => {
      const router = new ScriptedRouter({
        get: (path) => {
          const at = path === "/desc.xml" ? 0 : Number(path.slice(1));
          if (at >= moves) return undefined;
          const headers = [["Location", `/${at + 1}`]] as const;
          return { ok: true, status: 301, headers, body: new Uint8Array(0) };
        },
      });
      const rig = new Rig({ router });
      rig.do((client, now) => client.probe(now));
      rig.run(3000);
      const gets = router.asked.filter((line) => line.startsWith("GET")).length;
      return [rig.types(), gets];
    };
    assertEquals([0, 1, 2, 3].map(found), [
      [["external-address"], 1],
      [["external-address"], 2],
      [["external-address"], 3],
      [["external-address-failed"], 3],
    ]);
  });

  it("takes no address of this host itself, or of nobody, for the external one", () => {
    const told0 = (external: string) => {
      const rig = new Rig({ router: new ScriptedRouter({ external }) });
      rig.do((client, now) => client.probe(now));
      rig.run(3000);
      const [event] = rig.take();
      return event?.type === "external-address" ? event.address : event?.type;
    };
    assertEquals(
      ["127.0.0.1", "0.0.0.0", "2001:db8::7", "", "203.0.113.256", " 10.1.2.3 "].map(told0),
      [...new Array(5).fill("external-address-failed"), "10.1.2.3"],
    );
  });

  it("rests half a minute where the device is there and has no way out", () => {
    const rig = new Rig({ router: new ScriptedRouter({ external: "0.0.0.0" }) });
    rig.map();
    rig.runTo(3000);
    const failed = told(rig.take().find(({ type }) => type === "failed"), "failed");
    assertEquals(failed.failure, {
      kind: "refused",
      code: 0,
      name: "not connected",
      retryAt: 30_000,
    });
  });
});

describe("searches for what was lost", () => {
  it("follow each other eight times, then pause two minutes, which doubles to 1024 s", () => {
    const rig = new Rig();
    rig.map({ lifetimeSeconds: 60 });
    rig.router.isDead = true;
    const at: number[] = [];
    let before = rig.client.stats.searches;
    while (rig.now < 10 * 3_600_000) {
      rig.runTo(rig.client.nextTimeout() ?? Infinity);
      if (rig.client.stats.searches > before) at.push(rig.now);
      before = rig.client.stats.searches;
    }
    const gaps = at.map((ms, i) => ms - (at[i - 1] ?? 0)).slice(1);
    assertEquals(gaps.slice(0, 7).filter((ms) => ms > 15_000), []);
    // A search takes 2.3 s, and whoever wants one asks once a minute at most.
    const pauses = [120, 240, 480, 960, 1024, 1024].map((seconds) => 1000 * seconds + 2300);
    const later = gaps.slice(7, 13).map((ms, i) => ms - pauses[i]!);
    assertEquals(later, [24_000, 0, 0, 0, 56_000, 56_000]);
  });
});

describe("a client that is closed", () => {
  it("wakes for nothing but what it deletes, and asks nothing else", () => {
    const rig = holding();
    rig.holds = true;
    rig.do((client, now) => client.close(now));
    assertEquals(rig.router.takeActions(), ["GetSpecificPortMappingEntry"]);
    assertEquals(rig.client.debugTimeout(), { at: 7_200_000, reason: "deleting, mapping 1" });
    rig.run(600_000);
    assertEquals([rig.router.takeActions(), rig.client.nextTimeout()], [[], 7_200_000]);
  });
});

describe("what UPnP cannot do", () => {
  const web: MappingRequest = { protocol: "tcp", internalPort: 80 };

  function unfit(request: Partial<MappingRequest>, localAddress = HOST): string | undefined {
    const address = localAddress === HOST ? "192.168.1.1" : "2001:db8::1";
    const gateway = { address, port: 1900 };
    return new IgdClient({ gateway, localAddress, random: seededRandom(1) })
      .unfit({ ...web, ...request });
  }

  it("is a filter of more than one host, a second one, and over IPv4 its port", () => {
    const four = hostPrefix(OTHER), six = hostPrefix("2001:db8:1::7");
    const at6 = "2001:db8::100";
    assertEquals(unfit({ filters: [{ prefix: four, port: 0 }] }), undefined);
    assertEquals(unfit({ filters: [{ prefix: six, port: 443 }] }, at6), undefined);
    assertEquals(
      [
        unfit({ filters: [{ prefix: { ...four, prefixLength: 31 }, port: 0 }] }),
        unfit({ filters: [{ prefix: { ...six, prefixLength: 127 }, port: 0 }] }, at6),
        unfit({ filters: [{ prefix: four, port: 0 }, { prefix: four, port: 0 }] }),
        unfit({ filters: [{ prefix: four, port: 1 }] }),
        unfit({ preferFailure: true, suggestedExternal: { port: 81 } }, at6),
      ],
      [
        `'filters.prefix' must be one host: current value is ${OTHER}/31`,
        "'filters.prefix' must be one host: current value is 2001:db8:1::7/127",
        "'filters' must hold one host: current length is 2",
        "'filters.port' must be 0: current value is 1",
        "'suggestedExternal.port' must be the internal one in a firewall: current value is 81",
      ],
    );
    assertEquals(unfit({ suggestedExternal: { port: 81 } }, at6), undefined);
    assertEquals(unfit({ preferFailure: true, suggestedExternal: { port: 81 } }), undefined);
  });
});
