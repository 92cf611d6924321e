import { assert, assertEquals, assertMatch, assertNotEquals, assertRejects } from "@std/assert";
import { assertStringIncludes } from "@std/assert";
import { describe, it } from "node:test";
import {
  type DiscoveryRuntime,
  explainDetour,
  findGateways,
  gatewayNotFound,
  networkFingerprint,
  readLocalAddresses,
  readNetwork,
} from "../../../adapters/discovery/mod.ts";
import { PUBLIC_ADDRESS } from "../../../adapters/discovery/route.ts";
import type { InterfaceAddress } from "../../../adapters/runtime.ts";
import { NatError } from "../../../core/errors.ts";

const ZERO = "0".repeat(32);
const DEFAULT_V4 = "eth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0\n";
const HALVES_V4 = `tun0 00000000 0100080A 0003 0 0 0 00000080 0 0 0
tun0 00000080 0100080A 0003 0 0 0 00000080 0 0 0
`;
const ROUTE_V4 = `Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
tun0 00000000 0100080A 0003 0 0 0 00000000 0 0 0
${DEFAULT_V4}`;
const ROUTE_V6 = `${ZERO} 00 ${ZERO} 00 fe8${"0".repeat(28)}1 00000064 5 0 00000003 eth0\n`;
const IF_INET6 = `20010db8${"0".repeat(20)}aaaa 02 40 00 01     eth0\n`;

const address = (name: string, text: string, prefixLength: number): InterfaceAddress => ({
  name,
  address: text,
  prefixLength,
  internal: name === "lo",
});
const LAN = [address("eth0", "192.168.1.23", 24)];
const TUN = [...LAN, address("tun0", "10.8.0.2", 24)];
const WIREGUARD = [...LAN, address("wg0", "10.2.0.2", 32)];
const INTERFACES = [
  address("lo", "127.0.0.1", 8),
  address("eth0", "192.168.1.23", 24),
  address("eth0", "fe80::23%eth0", 64),
  address("eth0", "2001:db8::aaaa", 64),
  address("eth0", "2001:db8::23", 64),
  address("tun0", "10.8.0.2", 24),
];

class NotCapable extends Error {
  override name = "NotCapable";
}

interface System extends DiscoveryRuntime {
  readonly texts: Record<string, string>;
  readonly asked: string[];
  /** Programs with all of their arguments. */
  readonly lines: string[];
}

/** A system of texts by file path or program line; what it lacks fails with `missing`. */
function systemOf(
  platform: string,
  texts: Record<string, string>,
  own: readonly InterfaceAddress[] = INTERFACES,
  missing: (what: string) => Error = (what) => new Error(`ENOENT ${what}`),
): System {
  const asked: string[] = [], lines: string[] = [];
  const answer = (what: string): Promise<string> => {
    asked.push(what);
    const text = texts[what];
    return text === undefined ? Promise.reject(missing(what)) : Promise.resolve(text);
  };
  return {
    texts,
    asked,
    lines,
    platform,
    interfaces: () => [...own],
    readTextFile: answer,
    run: (command, args) => {
      lines.push([command, ...args].join(" "));
      return answer([command, ...args.slice(0, 3)].join(" "));
    },
  };
}

/** Linux whose files may be read, with a socket's word on where packets leave from. */
function linuxOf(
  routes: { v4?: string; v6?: string; flags?: string },
  own: readonly InterfaceAddress[],
  leavesFrom?: { 4?: string; 6?: string },
): System {
  const system = systemOf("linux", {
    "/proc/net/route": routes.v4 ?? "",
    "/proc/net/ipv6_route": routes.v6 ?? "",
    "/proc/net/if_inet6": routes.flags ?? "",
  }, own);
  if (leavesFrom) {
    system.addressToward = (to) => Promise.resolve(leavesFrom[to.includes(":") ? 6 : 4]);
  }
  return system;
}

describe("findGateways()", () => {
  it("reads Linux' files: the LAN before the tunnel, IPv6 from a lasting global address", async () => {
    const system = linuxOf({ v4: ROUTE_V4, v6: ROUTE_V6, flags: IF_INET6 }, INTERFACES);

    const gateways = await findGateways(system);

    assertEquals(gateways, [
      {
        address: "192.168.1.1",
        family: 4,
        interface: "eth0",
        localAddress: "192.168.1.23",
        metric: 100,
        source: "proc",
      },
      {
        address: "fe80::1%eth0",
        family: 6,
        interface: "eth0",
        localAddress: "2001:db8::23",
        metric: 100,
        source: "proc",
      },
      {
        address: "10.8.0.1",
        family: 4,
        interface: "tun0",
        localAddress: "10.8.0.2",
        metric: 0,
        source: "proc",
      },
    ]);
  });

  it("asks 'ip' where the files may not be read, for the states of addresses too", async () => {
    const texts = {
      "ip -4 route show": "default via 192.168.1.1 dev eth0 metric 100\n",
      "ip -4 route get": "198.41.0.4 via 192.168.1.1 dev eth0 src 192.168.1.23 uid 0\n",
      "ip -6 route show": "default via fe80::1 dev eth0 metric 100\n",
      "ip -6 addr show": "    inet6 2001:db8::aaaa/64 scope global temporary dynamic\n",
    };
    const system = systemOf("linux", texts, INTERFACES, (what) => new NotCapable(what));

    const gateways = await findGateways(system);

    assertEquals(
      gateways.map(({ address, localAddress, source }) => [
        address,
        localAddress,
        source,
      ]),
      [["192.168.1.1", "192.168.1.23", "ip"], ["fe80::1%eth0", "2001:db8::23", "ip"]],
    );
  });

  it("asks programs for the routes to one address of the internet, as tables may be long", async () => {
    const system = systemOf("linux", {});
    await findGateways(system);
    for (const [flag, family] of [["-4", 4], ["-6", 6]] as const) {
      const line = `ip ${flag} route show match ${PUBLIC_ADDRESS[family]}`;
      assert(system.lines.includes(line), `${line} is not among ${system.lines.join(", ")}`);
    }
  });

  it("asks for the states of addresses only where there is a choice", async () => {
    const v6 = { "ip -6 route show": "default via fe80::1 dev eth0 metric 100\n" };
    const own = [...LAN, address("eth0", "fe80::23%eth0", 64), address("eth0", "2001:db8::23", 64)];
    const one = systemOf("linux", v6, own);
    const two = systemOf("linux", v6, [...own, address("eth0", "2001:db8::aaaa", 64)]);

    for (const system of [one, two]) await readNetwork(system);

    const isAsked = ({ asked }: System) => asked.includes("ip -6 addr show");
    assertEquals([isAsked(one), isAsked(two)], [false, true]);
  });

  it("asks the system for its way out only where there are two", async () => {
    const alone = systemOf("linux", {}, [...LAN, address("docker0", "fe80::1%docker0", 64)]);
    const withTunnel = systemOf("linux", {}, TUN);

    for (const system of [alone, withTunnel]) await readNetwork(system);

    const isAsked = ({ asked }: System) => asked.includes("ip -4 route get");
    assertEquals([isAsked(alone), isAsked(withTunnel)], [false, true]);
  });

  it("runs no program where the files can be read and one interface has all addresses", async () => {
    for (const v4 of ["Iface\n", DEFAULT_V4]) {
      const system = linuxOf({ v4 }, [...LAN, address("eth0", "2001:db8::23", 64)]);

      assertEquals((await findGateways(system)).length, v4 === DEFAULT_V4 ? 1 : 0);
      assertEquals(system.asked, ["/proc/net/route", "/proc/net/ipv6_route"]);
    }
  });

  it("asks 'ip' where a file without a route is so long that it may have been cut off", async () => {
    const isAsked = async (v4: string) => {
      const system = linuxOf({ v4 }, LAN);
      await readNetwork(system);
      return system.asked.includes("ip -4 route show");
    };
    assertEquals(await isAsked("\n".repeat(9_999_999)), false);
    assertEquals(await isAsked("\n".repeat(10_000_000)), true);
    assertEquals(await isAsked(DEFAULT_V4.padEnd(10_000_000, "\n")), false);
  });

  it("finds nothing, and throws nothing, on a system that tells nothing", async () => {
    for (const platform of ["linux", "darwin", "win32", "freebsd", "aix"]) {
      assertEquals(await findGateways(systemOf(platform, {})), []);
    }
  });

  it("names the flag where the runtime forbids every way", async () => {
    const flags = {
      linux: "--allow-run=ip ",
      android: "--allow-run=ip ",
      darwin: "--allow-run=netstat,route ",
      win32: "--allow-run=powershell.exe,route.exe ",
    };
    for (const [platform, flag] of Object.entries(flags)) {
      const system = systemOf(platform, {}, INTERFACES, (what) => new NotCapable(what));

      const error = await assertRejects(() => findGateways(system), NatError);

      assertEquals(error.code, "permission");
      assertStringIncludes(error.message, flag);
    }
  });

  it("finds none, without an error, where what may be read has none", async () => {
    const texts = { "ip -4 route show": "", "ip -6 route show": "" };
    const system = systemOf("linux", texts, LAN, (what) => new NotCapable(what));

    assertEquals(await findGateways(system), []);
  });

  it("tells a gateway without its local address where interfaces may not be read", async () => {
    const system = linuxOf({ v4: ROUTE_V4 }, []);
    system.interfaces = () => {
      throw new NatError("permission", "--allow-sys=networkInterfaces is needed");
    };

    const [gateway] = await findGateways(system);

    assertEquals([gateway?.address, gateway?.localAddress], ["192.168.1.1", undefined]);
  });

  it("asks macOS' 'netstat', and 'route' where that says nothing", async () => {
    const netstat = "Destination Gateway Flags Netif\ndefault 192.168.1.1 UGScg eth0\n";
    const route = "    gateway: 192.168.1.1\n  interface: eth0\n";

    const first = await findGateways(systemOf("darwin", { "netstat -rn": netstat }));
    const second = await findGateways(systemOf("darwin", { "route -n get default": route }));
    const third = await findGateways(
      systemOf("darwin", { "route -n get -inet6": route.replace("192.168.1.1", "fe80::1") }),
    );

    assertEquals(first.map(({ source, localAddress }) => [source, localAddress]), [
      ["netstat", "192.168.1.23"],
    ]);
    assertEquals(second.map(({ address, source }) => [address, source]), [[
      "192.168.1.1",
      "route",
    ]]);
    assertEquals(third.map(({ address, source }) => [address, source]), [[
      "fe80::1%eth0",
      "route",
    ]]);
  });

  it("asks macOS' 'ifconfig' which address stays", async () => {
    const system = systemOf("darwin", {
      "netstat -rn":
        "Internet6:\nDestination Gateway Flags Netif\ndefault fe80::1%eth0 UGcg eth0\n",
      "ifconfig": "eth0:\n\tinet6 2001:db8::aaaa prefixlen 64 autoconf temporary\n",
    });

    const [gateway] = await findGateways(system);

    assertEquals(gateway?.localAddress, "2001:db8::23");
  });

  it("asks Windows' PowerShell, and 'route print' where there is none", async () => {
    const json = '{"DestinationPrefix":"0.0.0.0/0","NextHop":"192.168.1.1",' +
      '"InterfaceAlias":"eth0","InterfaceIndex":3}';
    const print = "  0.0.0.0   0.0.0.0   192.168.1.1   192.168.1.23   25\n";

    const first = await findGateways(
      systemOf("win32", { "powershell.exe -NoProfile -NonInteractive -Command": json }),
    );
    const second = await findGateways(systemOf("win32", { "route.exe print": print }));

    assertEquals(first.map(({ source }) => source), ["powershell"]);
    assertEquals(second, [{
      address: "192.168.1.1",
      family: 4,
      interface: "eth0",
      localAddress: "192.168.1.23",
      metric: 25,
      source: "route-print",
    }]);
  });

  it("finds on Windows the interface of a link-local gateway by its index", async () => {
    const own = [
      address("Ethernet", "2001:db8::5", 64),
      address("Wi-Fi", "2001:db8::6", 64),
      address("Wi-Fi", "fe80::6%14", 64),
    ];
    const print = " 14    306 ::/0                     fe80::1\n";

    const [gateway] = await findGateways(systemOf("win32", { "route.exe print": print }, own));

    assertEquals(gateway, {
      address: "fe80::1%14",
      family: 6,
      interface: "Wi-Fi",
      localAddress: "2001:db8::6",
      metric: 306,
      source: "route-print",
    });
  });
});

describe("readNetwork() where a tunnel takes the traffic", () => {
  const detour = {
    family: 4,
    interface: "tun0",
    localAddress: "10.8.0.2",
    gateway: "10.8.0.1",
    passes: "192.168.1.1",
  } as const;

  it("tells of the halves that OpenVPN lays over the default route", async () => {
    const v4 = DEFAULT_V4 + HALVES_V4;

    for (const leavesFrom of [{ 4: "10.8.0.2" }, undefined]) {
      const { gateways, detours } = await readNetwork(linuxOf({ v4 }, TUN, leavesFrom));

      assertEquals(gateways.map((one) => one.address), ["192.168.1.1", "10.8.0.1"]);
      assertEquals(detours, [detour]);
    }
  });

  it("tells of a default route into a tunnel that names no gateway", async () => {
    const v4 = "wg0 00000000 00000000 0001 0 0 0 00000000 0 0 0\n";

    for (const leavesFrom of [{ 4: "10.2.0.2" }, undefined]) {
      const network = await readNetwork(linuxOf({ v4 }, WIREGUARD, leavesFrom));

      assertEquals(network, {
        gateways: [],
        detours: [{
          family: 4,
          interface: "wg0",
          localAddress: "10.2.0.2",
          gateway: undefined,
          passes: undefined,
        }],
      });
    }
  });

  it("tells of rules, which only the system knows: a socket's word", async () => {
    const { gateways, detours } = await readNetwork(
      linuxOf({ v4: DEFAULT_V4 }, WIREGUARD, { 4: "10.2.0.2" }),
    );

    assertEquals(gateways.map((one) => one.address), ["192.168.1.1"]);
    assertEquals(detours, [{
      family: 4,
      interface: "wg0",
      localAddress: "10.2.0.2",
      gateway: undefined,
      passes: "192.168.1.1",
    }]);
  });

  it("tells of rules by the word of 'ip route get', with the gateway they lead to", async () => {
    const system = linuxOf({ v4: DEFAULT_V4 }, [...LAN, address("tun0", "10.8.0.9", 24), ...TUN]);
    system.texts["ip -4 route get"] =
      "198.41.0.4 via 10.8.0.1 dev tun0 table 100 src 10.8.0.2 uid 0\n";

    const { gateways, detours } = await readNetwork(system);

    assertEquals(
      gateways.map(({ address, localAddress, source }) => [
        address,
        localAddress,
        source,
      ]),
      [["192.168.1.1", "192.168.1.23", "proc"], ["10.8.0.1", "10.8.0.2", "ip"]],
    );
    assertEquals(detours, [detour]);
  });

  it("tells of IPv6's apart from IPv4's", async () => {
    const wide = `2${"0".repeat(31)} 03 ${ZERO} 00 ${ZERO} 00000400 1 0 00000001 tun0\n`;
    const own = [...INTERFACES, address("tun0", "fd00:8::2", 64)];
    const system = linuxOf({ v4: DEFAULT_V4, v6: ROUTE_V6 + wide }, own, {
      4: "192.168.1.23",
      6: "fd00:8::2",
    });

    const { detours } = await readNetwork(system);

    assertEquals(detours, [{
      family: 6,
      interface: "tun0",
      localAddress: "fd00:8::2",
      gateway: undefined,
      passes: "fe80::1%eth0",
    }]);
  });

  it("tells of none where the first gateway's interface takes it, or nothing leads out", async () => {
    const v4 = DEFAULT_V4 + "docker0 000011AC 00000000 0001 0 0 0 0000FFFF 0 0 0\n";
    const own = [...LAN, address("docker0", "172.17.0.1", 16)];

    for (const leavesFrom of [{ 4: "192.168.1.23" }, {}, undefined]) {
      assertEquals((await readNetwork(linuxOf({ v4 }, own, leavesFrom))).detours, []);
    }
  });

  it("tells of macOS' and Windows' by their tables", async () => {
    const netstat = `Internet:
Destination Gateway Flags Netif
0/1 10.8.0.1 UGScg tun0
default 192.168.1.1 UGScg eth0
128.0/1 10.8.0.1 UGSc tun0
`;
    const print = `  0.0.0.0   0.0.0.0    192.168.1.1   192.168.1.23   25
  0.0.0.0   128.0.0.0  10.8.0.1      10.8.0.2       281
  128.0.0.0 128.0.0.0  10.8.0.1      10.8.0.2       281
`;

    const mac = await readNetwork(systemOf("darwin", { "netstat -rn": netstat }, TUN));
    const windows = await readNetwork(systemOf("win32", { "route.exe print": print }, TUN));

    assertEquals([mac.detours, windows.detours], [[detour], [detour]]);
  });

  it("is explained with the tunnel, the gateway passed by, and what to do", () => {
    const text = explainDetour(detour);

    assertMatch(text, /IPv4 .*tunnel tun0.*10\.8\.0\.1.*192\.168\.1\.1.*--gateway/);
  });
});

describe("gatewayNotFound()", () => {
  it("is a tunnel only where its name is one's", () => {
    const detour = { family: 4, localAddress: undefined, gateway: "10.0.0.9", passes: undefined };
    const said = (name: string) => explainDetour({ ...detour, interface: name } as never);
    assertEquals(
      said("eth1"),
      "IPv4 traffic leaves through the interface eth1, whose gateway is 10.0.0.9: name it with " +
        "--gateway",
    );
    assertStringIncludes(said("wg0"), "through the tunnel wg0,");
  });

  it("names --gateway, and the tunnel where there is one", async () => {
    const nothing = gatewayNotFound({ gateways: [], detours: [] });
    const v4 = "wg0 00000000 00000000 0001 0 0 0 00000000 0 0 0\n";
    const tunnel = gatewayNotFound(await readNetwork(linuxOf({ v4 }, WIREGUARD)), 4);

    assertEquals([nothing.code, tunnel.code], ["gateway-not-found", "gateway-not-found"]);
    assertEquals(
      nothing.message,
      "Cannot find a gateway: this host has no default route; --gateway names one",
    );
    const none6 = gatewayNotFound({ gateways: [], detours: [] }, 6);
    assertEquals(
      none6.message,
      "Cannot find a gateway for IPv6: this host has no default route for IPv6; --gateway names one",
    );
    assertMatch(tunnel.message, /IPv4.*wg0.*--gateway/);
  });
});

describe("readLocalAddresses()", () => {
  it("tells those that stay and reach far, IPv4's before IPv6's", async () => {
    const mixed = [...INTERFACES].reverse();
    assertEquals(await readLocalAddresses(linuxOf({ flags: IF_INET6 }, mixed)), [
      "10.8.0.2",
      "192.168.1.23",
      "2001:db8::23",
    ]);
    assertEquals(await readLocalAddresses(linuxOf({}, [INTERFACES[0]!, INTERFACES[2]!])), []);
  });
});

describe("networkFingerprint()", () => {
  const other = "eth0 00000000 FE01A8C0 0003 0 0 100 00000000 0 0 0\n";
  const host = { v4: DEFAULT_V4, v6: ROUTE_V6, flags: "" };
  const textOf = async (system: DiscoveryRuntime) => (await networkFingerprint(system)).text;

  it("is the same as long as nothing changes, and files alone are cheap to read", async () => {
    const leavesFrom = { 4: "192.168.1.23" };
    const first = await networkFingerprint(linuxOf(host, INTERFACES, leavesFrom));
    // Counters of use go up, and the order of interfaces is nobody's promise.
    const used = ROUTE_V6.replace(" 5 0 ", " 9 7 ");
    const second = await networkFingerprint(
      linuxOf({ ...host, v6: used }, [...INTERFACES].reverse(), leavesFrom),
    );

    assertEquals(first, second);
    assertEquals(first.readAgainMs, 2_000);
  });

  it("differs where the default route, an address, its state or a way out does", async () => {
    const known = await textOf(linuxOf(host, INTERFACES));
    const wg = [...INTERFACES, address("wg0", "10.2.0.2", 32)];
    const changed = [
      linuxOf({ ...host, v4: other }, INTERFACES),
      linuxOf({ ...host, v4: "" }, INTERFACES),
      linuxOf({ ...host, v6: "" }, INTERFACES),
      linuxOf({ ...host, flags: IF_INET6.replace(" 01 ", " 20 ") }, INTERFACES),
      linuxOf(host, [...INTERFACES, address("eth0", "2001:db8:1::1", 64)]),
      linuxOf(host, INTERFACES.slice(1)),
      linuxOf(host, wg, { 4: "192.168.1.23" }),
      linuxOf(host, wg, { 4: "10.2.0.2" }),
    ];

    const texts = await Promise.all(changed.map(textOf));

    assertEquals(new Set([known, ...texts]).size, 9);
  });

  it("is read every two seconds where that runs no program, and every five where it does", async () => {
    const readAgain = async (system: DiscoveryRuntime) =>
      (await networkFingerprint(system)).readAgainMs;
    // With one way out there is nothing to ask, with two a socket is, or else 'ip'.
    assertEquals(await readAgain(linuxOf(host, LAN)), 2_000);
    assertEquals(await readAgain(linuxOf(host, TUN, { 4: "192.168.1.23" })), 2_000);
    const asking = linuxOf(host, TUN);
    asking.texts["ip -4 route get"] = "198.41.0.4 via 10.8.0.1 dev tun0 src 10.8.0.2 uid 0\n";
    assertEquals(await readAgain(asking), 5_000);
  });

  it("is read every five seconds where a table is long", async () => {
    const ms = [999_999, 1_000_000].map(async (length) => {
      const long = linuxOf({ ...host, v4: DEFAULT_V4.padEnd(length, "\n") }, LAN);
      return (await networkFingerprint(long)).readAgainMs;
    });
    assertEquals(await Promise.all(ms), [2_000, 5_000]);
  });

  it("asks programs less often, and never PowerShell", async () => {
    const print = "  0.0.0.0   0.0.0.0    192.168.1.1   192.168.1.23   25\n";
    const windows = systemOf("win32", { "route.exe print": print });
    const linux = systemOf("linux", { "ip -4 route show": "default via 192.168.1.1 dev eth0\n" });

    const seen = [await networkFingerprint(windows), await networkFingerprint(linux)];

    assertEquals(seen.map(({ readAgainMs }) => readAgainMs), [5_000, 5_000]);
    assertEquals(windows.asked, ["route.exe print"]);
    assertNotEquals(seen[1]?.text, await textOf(systemOf("linux", {})));
  });

  it("does not fail where nothing can be read", async () => {
    const system = systemOf("linux", {}, INTERFACES, (what) => new NotCapable(what));
    system.interfaces = () => {
      throw new NatError("permission", "--allow-sys=networkInterfaces is needed");
    };

    assertEquals(await textOf(system), await textOf(system));
  });

  it("sees the routes to the internet only, of a table that has others", async () => {
    const network = "eth0 0001A8C0 00000000 0001 0 0 100 00FFFFFF 0 0 0\n";

    const texts = [DEFAULT_V4, DEFAULT_V4 + network]
      .map((v4) => textOf(linuxOf({ ...host, v4 }, INTERFACES)));

    assertEquals(await texts[0], await texts[1]);
    assertEquals(PUBLIC_ADDRESS[4].startsWith("192.168.1."), false);
  });
});
