import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import type { Profile } from "../../../core/gateway/mod.ts";
import { PCP_RESULT } from "../../../core/pcp/codec.ts";
import { parseCidr } from "../../../core/cidr.ts";
import { EXTERNAL, Rig } from "./harness.ts";
import { claim } from "./support.ts";

const REMOTE = { address: "198.51.100.20", port: 443 };

describe("exportState()", () => {
  it("lets another client adopt the mappings, through JSON", () => {
    const rig = new Rig();
    rig.mapped({
      filters: [{ prefix: parseCidr("198.51.100.0/24")!, port: 53 }],
      description: "tell",
      lifetimeSeconds: 3600,
    });
    const first = rig.last;
    rig.client.peer({ protocol: 17, internalPort: 5, remote: REMOTE, mode: 2 }, 0);
    rig.drain();
    rig.now = 60_000;
    const state = JSON.parse(JSON.stringify(rig.client.exportState(rig.now)));

    const next = new Rig({ state, beside: rig }, 99, 1_000_000);
    assertEquals(next.client.mappings().map(({ state }) => state), ["requested", "requested"]);
    assertEquals(next.client.mappings()[0]!.external, undefined);
    const [map, peer] = next.advance(0);
    claim(map!.request.kind === "map" && peer!.request.kind === "peer");
    assertEquals(map!.request.nonce, first.nonce);
    assertEquals(map!.request.suggestedPort, EXTERNAL.port);
    assertEquals(map!.request.suggestedAddress, EXTERNAL.address);
    assertEquals(map!.request.options.map(({ type }) => type), ["filter", "filter", "description"]);
    next.grant({}, map!);
    assertEquals(next.heard(), ["mapped"]);
  });

  it("gives what is left of a mapping that is not renewed", () => {
    const rig = new Rig();
    rig.mapped({ mode: "once", lifetimeSeconds: 600 });
    rig.now = 200_000;
    const [saved] = rig.client.exportState(rig.now).mappings;
    assertEquals(saved!.lifetimeSeconds, 400);
  });

  it("gives what is left of N lifetimes, in as many as it takes", () => {
    const rig = new Rig();
    rig.mapped({ mode: 3, lifetimeSeconds: 600 });
    rig.advance(400_000);
    rig.grant();
    rig.now = 900_000;
    const state = rig.client.exportState(rig.now);
    assertEquals([state.mappings[0]!.mode, state.mappings[0]!.lifetimeSeconds], [2, 450]);
    const next = new Rig({ state, beside: rig }, 2, rig.now);
    next.advance(0);
    next.grant();
    for (let i = 0; i < 2; i++) {
      next.advance(next.client.nextTimeout()! - next.now);
      next.grant();
    }
    next.advance(1_799_999 - next.now);
    assertEquals(next.heard(), ["mapped", "renewed", "renewed"]);
    next.advance(1000);
    assertEquals(next.heard(), ["unmapped"]);
  });

  it("lets an adopted mapping be deleted without asking for it first", () => {
    const rig = new Rig();
    rig.mapped();
    const next = new Rig({ state: rig.client.exportState(0), beside: rig });
    next.client.revoke(1, 0);
    const [only] = next.drain();
    claim(only!.request.kind === "map" && only!.request.lifetimeSeconds === 0);
    assertEquals(only!.request.nonce, rig.last.nonce);
    next.grant();
    assertEquals(next.heard(), ["unmapped"]);
  });

  it("lets map() claim an adopted mapping, with its id, nonce and endpoint", () => {
    const rig = new Rig();
    rig.mapped();
    const next = new Rig({ state: rig.client.exportState(0), beside: rig }, 2);
    const [adopted] = next.client.mappings();
    const id = next.client.map({ protocol: 6, internalPort: 8080, lifetimeSeconds: 900 }, 0);
    assertEquals(id, adopted!.id);
    const [only, ...others] = next.drain();
    assertEquals([next.last.nonce, next.last.suggestedPort], [rig.last.nonce, EXTERNAL.port]);
    assertEquals([next.last.lifetimeSeconds, others], [900, []]);
    next.grant({}, only!);
    assertEquals(next.heard(), ["mapped"]);
    assertThrows(
      () => next.client.map({ protocol: 6, internalPort: 8080 }, 0),
      TypeError,
      "already",
    );
  });

  it("lets map() claim what is granted already: it is told again, and held as it is wanted", () => {
    const rig = new Rig();
    rig.mapped({ mode: "once", lifetimeSeconds: 600 });
    const next = new Rig({ state: rig.client.exportState(0), beside: rig }, 2);
    next.advance(0);
    next.grant();
    const request = { protocol: 6, internalPort: 8080, lifetimeSeconds: 600 };
    next.client.map({ ...request, mode: "keep-alive" }, next.now);
    assertEquals([next.drain(), next.heard()], [[], ["mapped", "mapped"]]);
    const [renewal] = next.advance(400_000);
    claim(renewal!.at >= 300_000 && renewal!.at <= 375_000);
  });

  it("lets map() claim nothing with another nonce, or another set of ports", () => {
    const rig = new Rig();
    const set = { protocol: 17, internalPort: 6000, portSet: { size: 4 } };
    rig.mapped(set);
    const { client } = new Rig({ state: rig.client.exportState(0), beside: rig }, 2);
    const nonce = new Uint8Array(12).fill(9);
    assertThrows(() => client.map({ ...set, nonce }, 0), TypeError, "already");
    assertThrows(() => client.map({ ...set, portSet: { size: 5 } }, 0), TypeError, "already");
    assertEquals(client.map({ ...set, nonce: rig.last.nonce }, 0), 1);
  });

  it("leaves out what is being deleted", () => {
    const rig = new Rig();
    rig.client.revoke(rig.mapped(), 0);
    assertEquals(rig.client.exportState(0).mappings, []);
  });
});

/** A gateway that keeps that much of options. */
function keeping(pcp: NonNullable<Profile["pcp"]>): Profile {
  return { name: "keeping", device: "none", source: "this test", summary: "options cut", pcp };
}

describe("DESCRIPTION and PORT_SET", () => {
  it("tells the description as the server stored it, and none where it stored none", () => {
    const rig = new Rig({ gateway: { profile: keeping({ maxDescriptionBytes: 6 }) } });
    const id = rig.mapped({ description: "a long tale", lifetimeSeconds: 600 });
    assertEquals(rig.client.mapping(id)!.description, "a long");
    rig.replaceGateway({ profile: keeping({ maxDescriptionBytes: 0 }) });
    rig.advance(400_000);
    rig.grant();
    assertEquals(rig.client.mapping(id)!.description, undefined);
  });

  it("names the set in refreshes and deletions, and tells what was mapped of it", () => {
    const rig = new Rig({ gateway: { profile: keeping({ maxPortSetSize: 8 }) } });
    const set = { type: "port-set", size: 16, firstInternalPort: 6000, parity: true } as const;
    const portSet = { size: 16, parity: true };
    const id = rig.mapped({ protocol: 17, internalPort: 6000, portSet, lifetimeSeconds: 600 });
    assertEquals(rig.last.options, [set]);
    assertEquals(rig.client.mapping(id)!.portSet, {
      size: 8,
      firstInternalPort: 6000,
      parity: true,
    });
    rig.replaceGateway({ profile: keeping({ maxPortSetSize: 1 }) });
    rig.advance(400_000);
    assertEquals(rig.last.options, [set]);
    rig.grant();
    assertEquals(rig.client.mapping(id)!.portSet, undefined);
    rig.client.revoke(id, rig.now);
    rig.drain();
    assertEquals(rig.last.options, [set]);
  });

  it("asks again without what needs padding where the server cannot read it", () => {
    const rig = new Rig();
    rig.client.map({ protocol: 6, internalPort: 8080, description: "Minecraft" }, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.MALFORMED_OPTION, 1800);
    assertEquals(rig.sent.length, 2);
    assertEquals(rig.last.options, []);
    rig.grant();
    assertEquals(rig.heard(), ["mapped"]);
  });

  it("takes MALFORMED_OPTION for a refusal where nothing needs padding", () => {
    const rig = new Rig();
    rig.client.map({ protocol: 6, internalPort: 8080, description: "Mine" }, 0);
    rig.drain();
    rig.refuse(PCP_RESULT.MALFORMED_OPTION, 1800);
    assertEquals(rig.sent.length, 1);
    assertEquals(rig.heard(), ["failed"]);
  });
});

describe("IPv6", () => {
  const servers = [{ address: "fe80::1%eth0", port: 5351 }];
  const MINIUPNPD = { profile: "miniupnpd-2.3.1" };
  const rig6 = (gateway = {}) => new Rig({ servers, localAddress: "2001:db8::100", gateway });
  const external = { address: "2001:db8::100", port: 22 };

  it("maps from the global address, through a link-local server with or without its zone", () => {
    const rig = rig6();
    rig.client.map({ protocol: 6, internalPort: 22 }, 0);
    rig.drain();
    assertEquals(rig.last.suggestedAddress, "::");
    claim(rig.receive(rig.ask(), { address: "fe80::1", port: 5351 }));
    assertEquals(rig.heard(), ["mapped"]);
  });

  it("keeps the known port where a renewed pinhole is answered with port 0", () => {
    const rig = rig6(MINIUPNPD);
    const id = rig.mapped({ internalPort: 22, lifetimeSeconds: 600 });
    rig.advance(400_000);
    rig.grant();
    assertEquals(rig.heard(), ["mapped", "renewed"]);
    assertEquals(rig.client.mapping(id)!.external, external);
  });

  it("takes port 0 beside the host's own address for the internal port: nothing translates", () => {
    const earlier = rig6(MINIUPNPD);
    earlier.mapped({ internalPort: 22 });
    const options = { servers, localAddress: "2001:db8::100", beside: earlier };
    const rig = new Rig(options, 2);
    const id = rig.mapped({ internalPort: 22 });
    assertEquals(rig.client.mapping(id)!.external, external);
  });

  it("publishes no port 0 of a first answer that translates", () => {
    const rig = rig6();
    const other = { address: "2001:db8:1::9", port: 0 };
    rig.mapped({ internalPort: 22 }, { external: other });
    assertEquals(rig.heard(), ["failed"]);
  });
});

describe("10,000 mappings in one client", () => {
  it("are granted, renewed each once in its time, recreated and deleted", () => {
    const rig = new Rig();
    const answer = () => rig.sent.splice(0).forEach((sent) => claim(rig.grant({}, sent)));
    for (let port = 1; port <= 10_000; port++) {
      rig.client.map({ protocol: 17, internalPort: port, lifetimeSeconds: 3600 }, rig.now);
      rig.drain();
      answer();
    }
    assertEquals(rig.heard().length, 10_000);

    assertEquals(rig.advance(1_799_999), []);
    let renewals = 0;
    for (let i = 0; i < 450; i++) {
      rig.advance(1000);
      renewals += rig.sent.length;
      answer();
    }
    assertEquals(renewals, 10_000);
    assertEquals(rig.sleep(0), []);

    rig.announce(0);
    const recreated = rig.advance(2500).length;
    claim(recreated > 4000 && recreated < 6000, "spread over the 5 s");
    rig.client.close(rig.now);
    rig.sent.length = 0;
    assertEquals(rig.drain().length, 10_000);
    answer();
    claim(rig.client.isIdle === true);
  });
});
