import { afterEach, describe, it } from "node:test";
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { Nat } from "../../adapters/api/nat.ts";
import { systemRuntime } from "../../adapters/auto.ts";
import {
  type GatewayServer,
  type GatewayServerOptions,
  startGateway,
} from "../../adapters/gateway_server.ts";
import type { Runtime, UdpHandlers, UdpOptions } from "../../adapters/runtime.ts";
import { Driver } from "../../adapters/driver.ts";
import { NatError } from "../../core/errors.ts";
import { type DeviceEvent, DeviceSearch, type FoundDevice } from "../../core/upnp/search.ts";
import type { ServerEvent } from "../../core/table/server_request.ts";
import type { Endpoint } from "../../core/machine.ts";
import { decodeResponse, encodeAddressRequest } from "../../core/natpmp/codec.ts";
import { recordingHandlers } from "./fake_runtime.ts";

describe("startGateway()", () => {
  const open: { close(): unknown }[] = [];

  afterEach(async () => {
    for (const one of open.splice(0).reverse()) await one.close();
  });

  async function start(options: GatewayServerOptions = {}): Promise<GatewayServer> {
    const server = await startGateway({ announceTo: [], ...options });
    open.push(server);
    return server;
  }

  /** A socket, and what comes to it: the next datagram, or ICMP's word that nobody is there. */
  async function ask(to: Endpoint): Promise<(data: Uint8Array) => Promise<string | Endpoint>> {
    let tell = (_: string | Endpoint) => {};
    const socket = await systemRuntime().openUdp({}, {
      onDatagram: (data, from) => {
        const response = decodeResponse(data);
        tell(typeof response === "object" && response.kind === "address" ? from : "odd");
      },
      onUnreachable: () => tell("unreachable"),
      onError: (error) => tell(String(error)),
    });
    open.push(socket);
    return (data) =>
      new Promise((resolve) => {
        tell = resolve;
        socket.send(data, to);
      });
  }

  it("listens on loopback at a free port by default and answers from there", async () => {
    const server = await start();
    const asked = await ask(server.endpoint);

    assertEquals(server.endpoint.address, "127.0.0.1");
    assert(server.endpoint.port > 0);
    assertEquals(await asked(encodeAddressRequest()), server.endpoint);
  });

  it("claims to be up for a day, or for as long as it is told, so that a reboot is noticed", async () => {
    const epochs = async (server: GatewayServer) =>
      await server.do((gateway, now) =>
        (["pcp", "nat-pmp"] as const).map((via) => Math.round(gateway.epochSeconds(via, now) / 60))
      );
    assertEquals(await epochs(await start({ epochSeconds: 600 })), [10, 10]);
    for (const protocol of ["pcp", "nat-pmp"] as const) {
      // Once rebooted it is a few seconds old.
      const server = await start();
      assertEquals(await epochs(server), [1440, 1440]);
      const nat = await Nat.open({ gateway: server.endpoint, protocols: [protocol] });
      open.push(nat);
      const lost = await nat.map(8080);
      const kept = await nat.map(8081);
      const heard = new Promise<string>((resolve) => {
        lost.onEvent(({ type }) => resolve(type));
      });
      await server.command("reboot");
      // The answer to one tells that the other is lost, too.
      await kept.renew();
      assertEquals(await heard === "renewed" || await heard === "recovered", true, protocol);
      assertEquals(server.entries().map(({ internal }) => internal.port).sort(), [8080, 8081]);
      await nat.close();
    }
  });

  it("gives ports by both protocols, and tells of each", async () => {
    const events: ServerEvent[] = [];
    const server = await start({ external: "198.51.100.1", onEvent: (e) => events.push(e) });
    for (const via of ["pcp", "nat-pmp"] as const) {
      const nat = await Nat.open({ gateway: server.endpoint, protocols: [via] });
      open.push(nat);

      const mapping = await nat.map(via === "pcp" ? 8080 : 8081);

      assertEquals([mapping.via, mapping.external.address], [via, "198.51.100.1"]);
    }

    assertEquals(server.entries().map(({ origin, internal }) => [origin, internal.port]), [
      ["pcp", 8080],
      ["nat-pmp", 8081],
    ]);
    const told = events.filter(({ type }) => type === "mapping");
    assertEquals(told.map((event) => event.type === "mapping" && event.change), [
      "added",
      "added",
    ]);
    assertEquals(server.stats.dropped.off, 0);
  });

  it("speaks UPnP where it is to: its own sockets, a client, and a search that only it hears", async () => {
    const events: ServerEvent[] = [];
    const server = await start({ protocols: ["upnp"], onEvent: (event) => events.push(event) });
    assertMatch(server.descriptions.join(), /^http:\/\/127\.0\.0\.1:\d+\/rootDesc\.xml$/);
    assert(server.ssdpPort !== undefined && server.ssdpPort > 0 && server.ssdpPort !== 1900);
    const described = await fetch(server.descriptions[0]!);
    assertEquals([described.status, (await described.text()).slice(0, 21)], [
      200,
      '<?xml version="1.0"?>',
    ]);
    let found = (_: FoundDevice) => {};
    const device = new Promise<FoundDevice>((resolve) => found = resolve);
    const runtime = systemRuntime();
    const driver = new Driver<DeviceEvent, DeviceSearch>(runtime, (event) => {
      if (event.type === "found") found(event.device);
    });
    open.push(driver);
    driver.start(
      new DeviceSearch({
        places: [{ local: "127.0.0.1", gateway: "127.0.0.1", networks: ["127.0.0.0/8"] }],
        port: server.ssdpPort!,
        listen: false,
      }),
    );
    driver.do((search, now) => search.search(now));
    const { location } = await device;
    assertEquals(location, server.descriptions[0]);
    assert(events.some(({ type }) => type === "request"));
    await server.command("protocol upnp off");
    assertEquals([server.descriptions, server.ssdpPort], [[], undefined]);
    await assertRejects(() => fetch(location));
  });

  it("is asked by UPnP at its endpoint, as by the others", async () => {
    const server = await start({ protocols: ["upnp"] });
    const nat = await Nat.open({ gateway: server.endpoint, protocols: ["upnp"] });
    open.push(nat);

    const mapping = await nat.map(8080);

    assertEquals([mapping.via, mapping.external], ["upnp", {
      address: "203.0.113.7",
      port: 8080,
    }]);
    assertEquals(server.entries().map(({ origin }) => origin), ["upnp"]);
    await mapping.close();
    assertEquals(server.entries(), []);
  });

  it("does what its scenario commands say", async () => {
    const server = await start();

    const { isDone, message } = await server.command("external 198.51.100.9");
    assertEquals([isDone, message], [true, "the external address is 198.51.100.9"]);
    assertEquals(server.externalAddresses, ["198.51.100.9"]);

    await server.command("static tcp 80 10.0.0.1 8080");
    const again = await server.command("static tcp 80 10.0.0.2 8080");
    assertEquals([again.isDone, server.entries().length], [false, 1]);
    assertMatch(again.message, /taken/);

    assertEquals((await server.command("list")).entries, server.entries());
    assert((await server.command("help")).commands!.length > 15);
    await server.command("protocol pcp off");
    assertEquals(server.protocols, ["nat-pmp", "upnp"]);
  });

  it("speaks all that its family has where neither the caller nor the profile says", async () => {
    const spoken = async (options: GatewayServerOptions) => (await start(options)).protocols;
    assertEquals(await spoken({}), ["pcp", "nat-pmp", "upnp"]);
    assertEquals(await spoken({ listen: "::1" }), ["pcp", "upnp"]);
    assertEquals(await spoken({ profile: "miniupnpd" }), ["pcp", "nat-pmp", "upnp"]);
    assertEquals(await spoken({ profile: "archer-a7" }), ["nat-pmp"]);
    assertEquals(await spoken({ protocols: ["nat-pmp"] }), ["nat-pmp"]);
  });

  it("does without UPnP where its sockets cannot be had, unless it was asked for", async () => {
    const runtime = systemRuntime();
    const deaf: Runtime = {
      ...runtime,
      openUdp: (options, handlers) =>
        options.reuseAddress
          ? Promise.reject(new NatError("network", "Cannot open a socket: EADDRINUSE"))
          : runtime.openUdp(options, handlers),
    };
    const errors: unknown[] = [];
    const onSocketError = (error: unknown) => errors.push(error);
    const server = await start({ runtime: deaf, onSocketError });
    assertEquals(server.protocols, ["pcp", "nat-pmp"]);
    assertEquals(errors.map(String), [
      "NatError: UPnP is not spoken: Cannot open a socket: EADDRINUSE",
    ]);
    const nat = await Nat.open({ gateway: server.endpoint });
    open.push(nat);
    assertEquals((await nat.map(8080)).via, "pcp");
    await assertRejects(() => start({ runtime: deaf, protocols: ["pcp", "upnp"] }), NatError);

    const blind: Runtime = {
      ...runtime,
      interfaces: () => {
        throw new NatError("permission", "Cannot list interfaces");
      },
    };
    const other = await start({ runtime: blind, onSocketError });
    assertEquals([other.protocols, errors.length], [["pcp", "nat-pmp"], 2]);
    await assertRejects(() => start({ runtime: blind, upnp: {} }), NatError, "interfaces");
  });

  it("does without UPnP on a link where it cannot listen, and tells so", async () => {
    const interfaces = ["127.0.0.1", "fe80::1%none"].map((address, i) => (
      { name: `lan${i}`, address, prefixLength: 8, internal: false }
    ));
    const errors: unknown[] = [];
    const server = await start({
      runtime: { ...systemRuntime(), interfaces: () => interfaces },
      listen: "0.0.0.0",
      onSocketError: (error) => errors.push(error),
    });
    assertEquals(server.protocols, ["pcp", "nat-pmp", "upnp"]);
    assertEquals(server.descriptions.map((url) => new URL(url).hostname), ["127.0.0.1"]);
    assert(errors.length > 0 && errors.every((error) => String(error).includes("fe80::1%none")));
  });

  it("tells what befalls its sockets once it runs", async () => {
    const opened: UdpHandlers[] = [];
    const runtime = recordingHandlers(systemRuntime(), opened);
    const errors: unknown[] = [];
    await start({ runtime, onSocketError: (error) => errors.push(error) });
    const gone = new NatError("network", "gone");
    opened[0]!.onError(gone);

    assertEquals(errors, [gone]);
  });

  it("describes and announces itself on each interface but the one with the external address, once a link", async () => {
    const named = (name: string, address: string) => (
      { name, address, prefixLength: 8, internal: false }
    );
    const system = systemRuntime();
    const opened: UdpOptions[] = [];
    const runtime: Runtime = {
      ...system,
      openUdp: (options, handlers) => {
        opened.push(options);
        return system.openUdp(options, handlers);
      },
      interfaces: () => [
        named("lan0", "169.254.7.7"),
        named("lan0", "127.0.0.1"),
        named("lan1", "127.0.0.2"),
        named("wan0", "127.0.0.3"),
        named("wan0", "127.0.0.4"),
      ],
    };
    const server = await start({
      runtime,
      listen: "0.0.0.0",
      external: "127.0.0.4",
    });

    const inside = ["127.0.0.1", "127.0.0.2"];
    assertEquals(server.descriptions.map((url) => new URL(url).hostname), inside);
    // Announcements, too, which the system would let leave by the default route alone: to the WAN.
    const anywhere = opened.find(({ local }) => local?.address === "0.0.0.0" && local.port === 0);
    assertEquals(anywhere?.multicastBy, inside);
  });

  it("rejects a command that is none, and lists those that are", async () => {
    const server = await start();

    const error = await assertRejects(() => server.command("explode"), TypeError);
    assertMatch(error.message, /"explode".*reboot/);
  });

  it("leaves its port while it is no NAT, and takes it again", async () => {
    const server = await start();
    const nat = await Nat.open({ gateway: server.endpoint });
    open.push(nat);

    await server.command("nat off");
    // Its port is free: another one can have it.
    const other = await start({ port: server.endpoint.port });
    assertEquals(other.endpoint, server.endpoint);
    await other.close();
    await server.command("nat on");

    assertEquals((await nat.map(8080)).via, "pcp");
  });

  it("has a port of its own though its profile does not listen", async () => {
    const server = await start({ profile: "huawei-hg8145v5" });

    const other = await start({ port: server.endpoint.port });

    assert(server.endpoint.port > 0);
    assertEquals(other.endpoint, server.endpoint);
  });

  it("sends from another port where a wrong source is asked for", async () => {
    const server = await start();
    const asked = await ask(server.endpoint);

    await server.command("wrong-source on");
    const from = await asked(encodeAddressRequest());

    if (typeof from === "string") throw new Error(from);
    assertEquals(from.address, server.endpoint.address);
    assert(from.port !== server.endpoint.port);
  });

  it("opens that other port at the next command where it could not at first", async () => {
    const runtime = systemRuntime();
    let failures = 1, opened = 0;
    const server = await start({
      protocols: ["pcp", "nat-pmp"],
      runtime: {
        ...runtime,
        openUdp(options, handlers) {
          if (++opened > 1 && failures-- > 0) return Promise.reject(new Error("no sockets left"));
          return runtime.openUdp(options, handlers);
        },
      },
    });
    const asked = await ask(server.endpoint);

    await assertRejects(() => server.command("wrong-source on"), Error, "no sockets left");
    await server.command("wrong-source on");
    const from = await asked(encodeAddressRequest());

    if (typeof from === "string") throw new Error(from);
    assert(from.port !== server.endpoint.port);
  });

  it("is a firewall without NAT on IPv6", async () => {
    const server = await start({ listen: "::1" });
    const nat = await Nat.open({ gateway: server.endpoint });
    open.push(nat);

    const mapping = await nat.map(8080);

    assertEquals(server.externalAddresses, []);
    assertEquals([mapping.via, mapping.external], ["pcp", { address: "::1", port: 8080 }]);
  });

  it("rejects where the port is in use", async () => {
    const { port } = (await start()).endpoint;

    const error = await assertRejects(() => startGateway({ port }), NatError);
    assertEquals(error.code, "network");
  });

  for (
    const [what, options, text] of [
      ["an address that is none", { listen: "localhost" }, "'listen'"],
      ["a port that is none", { port: 65536 }, "'port'"],
      ["an external address that is none", { external: "x" }, "'external'"],
      ["an external address for a firewall", { listen: "::1", external: "1.2.3.4" }, "'external'"],
      ["a profile that is none", { profile: "x" }, "'profile'"],
      ["NAT-PMP over IPv6", { listen: "::1", protocols: ["nat-pmp"] }, "'protocols'"],
    ] as const
  ) {
    it(`rejects ${what}`, async () => {
      const error = await assertRejects(() => startGateway(options as GatewayServerOptions));
      assert(error instanceof TypeError || error instanceof RangeError);
      assert(error.message.includes(text), error.message);
    });
  }

  it("frees its port when it is closed, once and again", async () => {
    const server = await start();
    await server.close();
    await server.close();

    const next = await start({ port: server.endpoint.port });
    assertEquals(next.endpoint, server.endpoint);
    await next[Symbol.asyncDispose]();
  });
});
