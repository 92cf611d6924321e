import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { entryFields, toCliEvent } from "../../../adapters/cli/commands/gateway_events.ts";
import type { TableEntry } from "../../../core/table/entry.ts";
import type { ServerEvent, ServerRequest } from "../../../core/table/server_request.ts";
import { ALICE, EXTERNAL, IgdRig, named } from "../../core/upnp/igd_rig.ts";

describe("events of the gateway's UPnP", () => {
  const told = (rig: IgdRig) =>
    rig.events.splice(0).map((event: ServerEvent) => {
      const { from: _, to: _to, ...rest } = toCliEvent(event, rig.now) as Record<string, unknown>;
      return rest;
    });

  it("each request and its response, in the words of the command line", () => {
    const rig = new IgdRig({ trace: true });
    told(rig);
    rig.add(8080);
    const internal = { address: ALICE.address, port: 8080 };
    const external = { address: EXTERNAL, port: 8080 };
    assertEquals(told(rig), [
      {
        event: "request",
        via: "upnp",
        operation: "map",
        action: "AddPortMapping",
        protocol: "tcp",
        internal,
        suggested: { port: 8080 },
        lifetimeSeconds: 3600,
      },
      {
        event: "response",
        via: "upnp",
        operation: "map",
        action: "AddPortMapping",
        result: "SUCCESS",
        resultCode: 0,
        external,
        lifetimeSeconds: 3600,
      },
      {
        event: "mapping",
        change: "added",
        kind: "explicit",
        via: "upnp",
        protocol: "tcp",
        internal,
        external,
        lifetimeSeconds: 3600,
        description: "test",
      },
    ]);
    rig.call("GetExternalIPAddress");
    assertEquals(told(rig), [
      { event: "request", via: "upnp", operation: "address", action: "GetExternalIPAddress" },
      {
        event: "response",
        via: "upnp",
        operation: "address",
        action: "GetExternalIPAddress",
        result: "SUCCESS",
        resultCode: 0,
        address: EXTERNAL,
      },
    ]);
    rig.call("DeletePortMapping", named(8081));
    assertEquals(
      told(rig).map(({ operation, result, resultCode, suggested }) => [
        operation,
        result,
        resultCode,
        suggested,
      ]),
      [
        ["delete", undefined, undefined, { port: 8081 }],
        ["delete", "NoSuchEntryInArray", 714, undefined],
      ],
    );
    rig.get("/rootDesc.xml");
    rig.call("Nonsense");
    rig.search("upnp:rootdevice");
    assertEquals(
      told(rig).map(({ event, operation, action, resultCode }) => [
        event,
        operation,
        action,
        resultCode,
      ]),
      [
        ["request", "describe", "/rootDesc.xml", undefined],
        ["response", "describe", "/rootDesc.xml", 0],
        ["request", "read", "Nonsense", undefined],
        ["response", "read", "Nonsense", 401],
        ["request", "search", "upnp:rootdevice", undefined],
      ],
    );
  });

  it("nothing where nobody listens to it", () => {
    const rig = new IgdRig();
    rig.add(80);
    rig.search("ssdp:all");
    rig.get("/rootDesc.xml");
    assertEquals(rig.events, []);
  });
});

describe("an entry of the table", () => {
  const entry: TableEntry = {
    id: 1,
    kind: "explicit",
    origin: "pcp",
    protocol: 17,
    internal: { address: "10.0.0.5", port: 6000 },
    external: { address: EXTERNAL, port: 6001 },
    size: 1,
    remote: undefined,
    requester: undefined,
    isExact: false,
    namesAddress: false,
    nonce: undefined,
    description: undefined,
    filters: [],
    expiresAt: 61_000,
  };
  const plain = {
    kind: "explicit",
    via: "pcp",
    protocol: "udp",
    internal: entry.internal,
    external: entry.external,
  };

  it("has what is left of its lifetime, rounded up, and never less than nothing", () => {
    assertEquals(entryFields(entry, 1000), { ...plain, lifetimeSeconds: 60 });
    assertEquals(entryFields(entry, 60_999).lifetimeSeconds, 1);
    assertEquals(entryFields(entry, 61_000).lifetimeSeconds, 0);
    assertEquals(entryFields(entry, 65_000).lifetimeSeconds, 0);
    const lasting = entryFields({ ...entry, expiresAt: Infinity }, 0);
    assertEquals(lasting, plain);
  });

  it("has what is special about it, and nothing that is not", () => {
    const remote = { address: "198.51.100.1", port: 443 };
    const prefix = { address: "192.0.2.0", prefixLength: 24, family: 4 } as const;
    const special = { ...entry, protocol: 132, size: 4, remote, description: "x" };
    assertEquals(entryFields({ ...special, filters: [{ prefix, port: 53 }] }, 1000), {
      ...plain,
      protocol: 132,
      size: 4,
      remote,
      description: "x",
      filters: [{ prefix: "192.0.2.0/24", port: 53 }],
      lifetimeSeconds: 60,
    });
    assertEquals(entryFields({ ...entry, protocol: 6 }, 1000).protocol, "tcp");
  });
});

describe("events of PCP and NAT-PMP", () => {
  const from = { address: "10.0.0.5", port: 6000 };
  const request: ServerRequest = {
    via: "pcp",
    operation: "map",
    from,
    protocol: 6,
    internal: from,
    suggested: { address: "0.0.0.0", port: 0 },
    remote: undefined,
    lifetimeSeconds: 7200,
    nonce: new Uint8Array(12),
    existing: undefined,
  };
  const requested = (over: Partial<ServerRequest>) =>
    toCliEvent({ type: "request", request: { ...request, ...over } }, 0);

  it("each request by what it asks for", () => {
    const map = { event: "request", via: "pcp", from, operation: "map", protocol: "tcp" };
    assertEquals(requested({}), { ...map, internal: from, lifetimeSeconds: 7200 });
    // A deletion is the same request with lifetime 0.
    const none = { lifetimeSeconds: 0, protocol: 17 };
    assertEquals(requested({ ...none, operation: "delete" }), {
      ...map,
      protocol: "udp",
      internal: from,
      lifetimeSeconds: 0,
    });
    const remote = { address: "198.51.100.1", port: 443 };
    assertEquals(requested({ operation: "peer", remote }), {
      ...map,
      operation: "peer",
      internal: from,
      remote,
      lifetimeSeconds: 7200,
    });
    for (const operation of ["announce", "address"] as const) {
      assertEquals(requested({ operation }), { event: "request", via: "pcp", from, operation });
    }
  });

  it("what is suggested, as far as something is", () => {
    const suggested = (address: string, port: number) =>
      (requested({ suggested: { address, port } }) as Record<string, unknown>).suggested;
    assertEquals(suggested("::", 0), undefined);
    assertEquals(suggested("::", 80), { port: 80 });
    assertEquals(suggested("192.0.2.1", 0), { address: "192.0.2.1" });
    assertEquals(suggested("192.0.2.1", 80), { address: "192.0.2.1", port: 80 });
  });

  const answered = (via: "pcp" | "nat-pmp", opcode: number, isUnsolicited = false) => {
    const { event: _, to, ...rest } = toCliEvent({
      type: "response",
      via,
      to: from,
      opcode,
      resultCode: 0,
      result: "SUCCESS",
      epochSeconds: 9,
      lifetimeSeconds: undefined,
      external: { address: EXTERNAL, port: 80 },
      isUnsolicited,
    }, 0) as Record<string, unknown>;
    assertEquals(to, from);
    return rest;
  };

  it("each response by what was asked for", () => {
    const rest = { result: "SUCCESS", resultCode: 0, epochSeconds: 9 };
    const external = { address: EXTERNAL, port: 80 };
    for (
      const [via, opcode, operation] of [
        ["pcp", 0, "announce"],
        ["pcp", 1, "map"],
        ["pcp", 2, "peer"],
        ["pcp", 3, 3],
        ["nat-pmp", 1, "map"],
        ["nat-pmp", 2, "map"],
      ] as const
    ) {
      assertEquals(answered(via, opcode), { via, operation, external, ...rest });
    }
    const address = { via: "nat-pmp", operation: "address", address: EXTERNAL, ...rest };
    assertEquals(answered("nat-pmp", 0), address);
  });

  it("what nobody asked for says so", () => {
    const { operation, isUnsolicited } = answered("nat-pmp", 0, true);
    assertEquals([operation, isUnsolicited], ["announce", true]);
    const update = answered("pcp", 1, true);
    assertEquals([update.operation, update.isUnsolicited], ["map", true]);
  });
});
