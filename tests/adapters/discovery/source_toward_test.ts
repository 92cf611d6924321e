import { assertEquals, assertRejects } from "@std/assert";
import { describe, it } from "node:test";
import { sourceToward } from "../../../adapters/discovery/source_toward.ts";
import type { DiscoveryRuntime } from "../../../adapters/discovery/system_view.ts";
import { NatError } from "../../../core/errors.ts";

const at = (name: string, address: string, prefixLength: number) => ({
  name,
  address,
  prefixLength,
  internal: name === "lo",
});

const HOST = [
  at("lo", "127.0.0.1", 8),
  at("eth0", "192.168.1.23", 24),
  at("wg0", "10.2.0.2", 32),
  at("eth0", "fd00::23", 64),
  at("eth0", "2001:db8:0:1::a1b2", 64),
  at("eth0", "2001:db8::dead", 64),
  at("eth0", "2001:db8:0:1::23", 64),
  at("eth0", "fe80::23%eth0", 64),
];
/** The second of eth0's global addresses is deprecated, the first temporary. */
const IF_INET6 = `20010db800000001000000000000a1b2 02 40 00 01     eth0
20010db800000000000000000000dead 02 40 00 20     eth0
20010db8000000010000000000000023 02 40 00 00     eth0
`;
const TABLE = `eth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0
wg0 0100020A 00000000 0005 0 0 0 FFFFFFFF 0 0 0
`;

/** A host of which files and programs tell what is given, and nothing else. */
function hostOf(
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
    platform: "linux",
    interfaces: () => HOST,
    readTextFile: answer,
    run: (command, args) => answer([command, ...args].join(" ")),
  };
}

const denied = (what: string) => Object.assign(new Error(what), { name: "NotCapable" });

describe("sourceToward()", () => {
  it("is loopback's for loopback, and the address itself for one of this host's own", async () => {
    const host = hostOf({});

    assertEquals(await sourceToward(host, "127.0.0.53"), "127.0.0.1");
    assertEquals(await sourceToward(host, "::1"), "::1");
    assertEquals(await sourceToward(host, "10.2.0.2"), "10.2.0.2");
    assertEquals(await sourceToward(host, "fe80::23%eth0"), "fe80::23%eth0");
    assertEquals(host.asked, []);
  });

  it("is the address in the peer's network, for which no program is run", async () => {
    const host = hostOf({});

    assertEquals(await sourceToward(host, "192.168.1.1"), "192.168.1.23");
    assertEquals(host.asked, []);
  });

  it("is what the system says for a gateway at the end of a tunnel", async () => {
    const host = hostOf({ "ip -4 route get 10.2.0.1": "10.2.0.1 dev wg0 src 10.2.0.2 uid 0\n" });

    assertEquals(await sourceToward(host, "10.2.0.1"), "10.2.0.2");
  });

  it("is what the table says where 'ip' is missing or may not run", async () => {
    for (const missing of [undefined, denied]) {
      const host = hostOf({ "/proc/net/route": TABLE }, missing);

      assertEquals(await sourceToward(host, "10.2.0.1"), "10.2.0.2");
      assertEquals(await sourceToward(host, "203.0.113.9"), "192.168.1.23");
    }
  });

  it("is what a runtime's socket says, before anything else", async () => {
    const host = hostOf({});
    host.addressToward = () => Promise.resolve("10.2.0.2");

    assertEquals(await sourceToward(host, "192.168.1.1"), "10.2.0.2");
  });

  it("is a socket's word alone where interfaces cannot be read, as on Android", async () => {
    const interfaces = () => {
      throw new Error("uv_interface_addresses returned Unknown system error 13");
    };
    const addressToward = () => Promise.resolve("2001:db8::23");
    const host = { ...hostOf({}), interfaces, addressToward };

    assertEquals(await sourceToward(host, "2001:db8::1"), "2001:db8::23");
  });

  it("is the address in the peer's network though the system says that nothing leads there", async () => {
    const host = hostOf({});
    host.addressToward = () => Promise.resolve(undefined);

    assertEquals(await sourceToward(host, "192.168.1.1"), "192.168.1.23");
    assertEquals(await sourceToward(host, "203.0.113.9"), undefined);
  });

  it("over IPv6 is what the system says where the host has its address on loopback, as routers do", async () => {
    const host = hostOf({});
    host.interfaces = () => [HOST[0]!, at("lo", "2001:db8:9::1", 128)];
    host.addressToward = () => Promise.resolve("2001:db8:9::1");

    assertEquals(await sourceToward(host, "2001:db8:5::1"), "2001:db8:9::1");
  });

  it("is unknown where nothing leads there", async () => {
    const host = hostOf({ "/proc/net/route": "" });

    assertEquals(await sourceToward(host, "203.0.113.9"), undefined);
  });

  it("throws 'permission' where every way to find out is forbidden", async () => {
    const host = hostOf({}, denied);

    const error = await assertRejects(() => sourceToward(host, "10.2.0.1"), NatError);

    assertEquals(error.code, "permission");
    assertEquals(
      error.message,
      "Cannot tell from which address to reach 10.2.0.1: --allow-run=ip (or --allow-all) is needed",
    );
  });

  it("is the only address that can be, where nothing else may be found out", async () => {
    const host = hostOf({}, denied);
    const wifi = at("wlan0", "192.168.1.23", 24);
    host.interfaces = () => [HOST[0]!, wifi, at("wlan0", "169.254.3.4", 16)];

    assertEquals(await sourceToward(host, "203.0.113.9"), "192.168.1.23");
  });

  it("over IPv6 is the stable global address: not temporary, deprecated or unique local", async () => {
    const host = hostOf({ "/proc/net/if_inet6": IF_INET6 });
    const onNode = hostOf({ "/proc/net/if_inet6": IF_INET6 });
    // The system itself would rather send from the temporary one.
    onNode.addressToward = () => Promise.resolve("2001:db8:0:1::a1b2");

    for (const peer of ["fe80::1%eth0", "2001:db8:0:1::1", "fd00::1", "2001:db8::1"]) {
      assertEquals(await sourceToward(host, peer), "2001:db8:0:1::23");
      assertEquals(await sourceToward(onNode, peer), "2001:db8:0:1::23");
    }
  });
});
