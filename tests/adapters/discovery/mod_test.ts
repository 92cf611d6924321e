import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { describe, it } from "node:test";
import { type DiscoveryRuntime, findGateways } from "../../../adapters/discovery/mod.ts";
import type { InterfaceAddress } from "../../../adapters/runtime.ts";
import { NatError } from "../../../core/errors.ts";

const ZERO = "0".repeat(32);
const ROUTE_V4 = `Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
tun0 00000000 0100080A 0003 0 0 0 00000000 0 0 0
eth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0
`;
const ROUTE_V6 = `${ZERO} 00 ${ZERO} 00 fe8${"0".repeat(28)}1 00000064 5 0 00000003 eth0\n`;
const IF_INET6 = `20010db8${"0".repeat(20)}aaaa 02 40 00 01     eth0\n`;

const INTERFACES: InterfaceAddress[] = [
  { name: "eth0", address: "192.168.1.23", prefixLength: 24, internal: false },
  { name: "eth0", address: "fe80::23%eth0", prefixLength: 64, internal: false },
  { name: "eth0", address: "2001:db8::aaaa", prefixLength: 64, internal: false },
  { name: "eth0", address: "2001:db8::23", prefixLength: 64, internal: false },
  { name: "tun0", address: "10.8.0.2", prefixLength: 24, internal: false },
];

class NotCapable extends Error {
  override name = "NotCapable";
}

/** A system of texts by file path or program line; what it lacks fails with `missing`. */
function systemOf(
  platform: string,
  texts: Record<string, string>,
  missing: (what: string) => Error = (what) => new Error(`ENOENT ${what}`),
): DiscoveryRuntime & { asked: string[] } {
  const asked: string[] = [];
  const answer = (what: string): Promise<string> => {
    asked.push(what);
    const text = texts[what];
    return text === undefined ? Promise.reject(missing(what)) : Promise.resolve(text);
  };
  return {
    asked,
    platform,
    interfaces: () => INTERFACES,
    readTextFile: answer,
    run: (command, args) => answer([command, ...args.slice(0, 2)].join(" ")),
  };
}

describe("findGateways()", () => {
  it("reads Linux' files: the LAN before the tunnel, IPv6 from a lasting global address", async () => {
    const system = systemOf("linux", {
      "/proc/net/route": ROUTE_V4,
      "/proc/net/ipv6_route": ROUTE_V6,
      "/proc/net/if_inet6": IF_INET6,
    });

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

  it("asks 'ip' where the files may not be read", async () => {
    const texts = {
      "ip -4 route": "default via 192.168.1.1 dev eth0 metric 100\n",
      "ip -6 route": "",
    };
    const system = systemOf("linux", texts, (what) => new NotCapable(what));

    const gateways = await findGateways(system);

    assertEquals(gateways.map(({ address, source }) => [address, source]), [["192.168.1.1", "ip"]]);
  });

  it("asks nobody else where a table was read that has no default route", async () => {
    const system = systemOf("linux", { "/proc/net/route": "Iface\n", "/proc/net/ipv6_route": "" });

    assertEquals(await findGateways(system), []);
    assertEquals(system.asked, ["/proc/net/route", "/proc/net/ipv6_route"]);
  });

  it("finds nothing, and throws nothing, on a system that tells nothing", async () => {
    for (const platform of ["linux", "darwin", "win32", "freebsd", "aix"]) {
      assertEquals(await findGateways(systemOf(platform, {})), []);
    }
  });

  it("names the flag where the runtime forbids every way", async () => {
    const flags = { linux: "--allow-run=ip ", darwin: "--allow-run=netstat,route " };
    for (const [platform, flag] of Object.entries(flags)) {
      const system = systemOf(platform, {}, (what) => new NotCapable(what));

      const error = await assertRejects(() => findGateways(system), NatError);

      assertEquals(error.code, "permission");
      assertStringIncludes(error.message, flag);
    }
  });

  it("tells a gateway without its local address where interfaces may not be read", async () => {
    const system = systemOf("linux", { "/proc/net/route": ROUTE_V4, "/proc/net/ipv6_route": "" });
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
    const second = await findGateways(systemOf("darwin", { "route -n get": route }));

    assertEquals(first.map(({ source, localAddress }) => [source, localAddress]), [
      ["netstat", "192.168.1.23"],
    ]);
    assertEquals(second.map(({ source }) => source), ["route"]);
  });

  it("asks Windows' PowerShell, and 'route print' where there is none", async () => {
    const json = '{"NextHop":"192.168.1.1","InterfaceAlias":"eth0","InterfaceIndex":3}';
    const print = "  0.0.0.0   0.0.0.0   192.168.1.1   192.168.1.23   25\n";

    const first = await findGateways(
      systemOf("win32", { "powershell.exe -NoProfile -NonInteractive": json }),
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
});
