import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { toCliEvent } from "../../../adapters/cli/commands/gateway_events.ts";
import type { ServerEvent } from "../../../core/table/server_request.ts";
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
