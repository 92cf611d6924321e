import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { examineWithoutGateway } from "../../../adapters/api/diagnose.ts";
import { Nat } from "../../../adapters/api/nat.ts";
import type { Diagnosis } from "../../../core/portmap/diagnosis.ts";
import { FakeNetwork, routeHex, turn } from "./fake_network.ts";

/** Diagnoses in virtual time; how long it took. */
async function diagnosed(
  net: FakeNetwork,
  options: { timeoutMs?: number } = {},
): Promise<{ diagnosis: Diagnosis; ms: number }> {
  const opening = Nat.open({ announcements: false, runtime: net });
  await net.pass(50);
  const nat = await opening;
  // What it needs is loaded in real time, in which virtual time must not pass.
  const idle = async (isOver: () => boolean) => {
    while (!isOver()) {
      await turn();
      net.advance(0);
    }
  };
  let isLoaded = false;
  void nat.diagnose({ timeoutMs: 0 }).then(() => isLoaded = true);
  await idle(() => isLoaded);
  const since = net.time, asked = net.requests.length;
  let found: { diagnosis: Diagnosis; ms: number } | undefined;
  void nat.diagnose(options).then((diagnosis) => found = { diagnosis, ms: net.time - since });
  await idle(() => net.requests.length > asked);
  while (!found) await net.pass(50);
  const closed = nat.close();
  await net.pass(3000);
  await closed;
  return found;
}

const outcomes = ({ gateways }: Diagnosis) =>
  gateways.map(({ gateway, protocols }) =>
    [gateway, ...protocols.map(({ via, outcome, external }) => `${via} ${external ?? outcome}`)]
      .join(" ")
  );

describe("Nat.diagnose()", () => {
  it("asks every gateway by every protocol, and leaves nothing there", async () => {
    const net = new FakeNetwork();
    net.addGateway("192.0.2.2", "203.0.113.8", ["nat-pmp"]);
    net.defaultRoutes = ["192.0.2.1", "192.0.2.2"];
    net.addresses = [
      { name: "eth0", address: "192.0.2.7", prefixLength: 24, internal: false },
    ];
    const { diagnosis, ms } = await diagnosed(net);

    assertEquals(outcomes(diagnosis), [
      "192.0.2.1 pcp 203.0.113.7 nat-pmp 203.0.113.7 upnp no answer",
      "192.0.2.2 pcp unsupported version (speaks 0) nat-pmp 203.0.113.8 upnp no answer",
    ]);
    assertEquals(diagnosis.findings.map(({ code }) => code), ["unverified", "no-ipv6", "open"]);
    const [first, second] = diagnosis.gateways;
    assertEquals([first!.family, first!.interface, first!.localAddress], [4, "eth0", "192.0.2.7"]);
    assertEquals([second!.interface, "localAddress" in second!], ["eth1", false]);
    assertEquals(diagnosis.localAddresses, ["192.0.2.7"]);
    // As long as UPnP's search, which is longer than the others take together.
    assert(ms <= 3000, `${ms} ms`);
    assertEquals(net.ports(), []);
  });

  it("waits for who is silent as long as is said, and tells what the others said", async () => {
    for (const [timeoutMs, expected] of [[undefined, 2500], [60_000, 2500], [500, 500]] as const) {
      const net = new FakeNetwork();
      net.silent.add("pcp");
      const { diagnosis, ms } = await diagnosed(net, timeoutMs === undefined ? {} : { timeoutMs });
      assertEquals(outcomes(diagnosis), [
        "192.0.2.1 pcp no answer nat-pmp 203.0.113.7 upnp no answer",
      ]);
      assert(ms >= expected && ms <= expected + 200, `${ms} ms`);
    }
  });

  it("waits for a gateway that is silent altogether for four seconds", async () => {
    const net = new FakeNetwork();
    for (const via of ["pcp", "nat-pmp"] as const) net.silent.add(via);
    const { diagnosis, ms } = await diagnosed(net);
    assertEquals(outcomes(diagnosis), [
      "192.0.2.1 pcp no answer nat-pmp no answer upnp no answer",
    ]);
    assert(ms >= 4000 && ms <= 4200, `${ms} ms`);
  });

  it("tells of a host without a gateway", async () => {
    const net = new FakeNetwork();
    net.defaultRoutes = [];
    const { findings, ...rest } = await examineWithoutGateway(net);
    assertEquals(findings.map(({ code }) => code), ["no-gateway", "no-ipv6"]);
    assertEquals(rest, { gateways: [], detours: [], localAddresses: [], reflexive: [] });
  });

  it("tells which way the traffic goes past the gateway", async () => {
    const net = new FakeNetwork();
    const half = (destination: string) =>
      `tun0 ${destination} ${routeHex("10.8.0.1")} 0003 0 0 0 00000080 0 0 0\n`;
    net.moreRoutes = half("00000000") + half("00000080");
    const { diagnosis: { detours } } = await diagnosed(net);
    assertEquals(detours.map(({ family, interface: name }) => [family, name]), [[4, "tun0"]]);
    const [{ message } = { message: "" }] = detours;
    assert(message.includes("through the tunnel tun0, whose gateway is 10.8.0.1"), message);
  });
});
