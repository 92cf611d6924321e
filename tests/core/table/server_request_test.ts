import { it } from "node:test";
import { assertEquals, assertNotStrictEquals } from "@std/assert";
import { MappingTable } from "../../../core/table/mod.ts";
import { type ServerRequest, snapshotRequest } from "../../../core/table/server_request.ts";

const NOBODY = { address: "0.0.0.0", port: 0 };

it("a snapshot of a request shares nothing that changes with it", () => {
  const table = new MappingTable({ externalAddresses: ["203.0.113.7"] });
  const internal = { address: "192.168.1.100", port: 80 };
  const existing = table.mapInbound(
    { origin: "pcp", protocol: 6, internal, nonce: new Uint8Array(12), expiresAt: 1000 },
    0,
  );
  if (typeof existing === "string") throw new Error(existing);
  const request: ServerRequest = {
    via: "pcp",
    operation: "map",
    from: internal,
    protocol: 6,
    internal,
    suggested: NOBODY,
    remote: undefined,
    lifetimeSeconds: 600,
    nonce: new Uint8Array(12).fill(1),
    existing,
  };
  const copy = snapshotRequest(request);
  assertEquals(copy.existing?.expiresAt, 1000);
  table.renew(existing, { expiresAt: 5000 });
  request.nonce!.fill(2);
  assertEquals([copy.existing?.expiresAt, copy.nonce?.[0]], [1000, 1]);
  assertNotStrictEquals(copy.existing, existing);
  const bare = snapshotRequest({ ...request, nonce: undefined, existing: undefined });
  assertEquals([bare.nonce, bare.existing], [undefined, undefined]);
});
