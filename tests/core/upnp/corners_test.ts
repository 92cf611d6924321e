/**
 * Corners of the IGD client in which bugs could hide: what is counted, how long is rested, what an
 * answer to each step of a job comes to.
 */
import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { hostPrefix } from "../../../core/cidr.ts";
import { describeFailure } from "../../../core/mapping.ts";
import { seededRandom } from "../../../core/random.ts";
import { IgdClient } from "../../../core/upnp/client.ts";
import { holding, Rig, told } from "./rig.ts";
import {
  EXTERNAL,
  GATEWAY,
  HOST,
  NEIGHBOUR,
  plain,
  type RouterOptions,
  ScriptedRouter,
} from "./scripted_igd.ts";

const OTHER = "198.51.100.9";

/** How long a kept-alive wish rests after a refusal with this code. */
function restAfter(code: number): number {
  const rig = new Rig({ router: new ScriptedRouter({ acts: { AddPortMapping: () => code } }) });
  rig.map({ suggestedExternal: { port: 8080 }, preferFailure: true });
  const failed = told(rig.take().find(({ type }) => type === "failed"), "failed");
  return failed.retryAt! - rig.now;
}

describe("an IGD client", () => {
  it("counts what it does", () => {
    const rig = new Rig({ router: new ScriptedRouter({ hasEvents: false }) });
    rig.map({ mode: "once" });
    const { searches, requests, answers, restarts } = rig.client.stats;
    assertEquals({ searches, requests, answers, restarts }, {
      searches: 1,
      requests: 5,
      answers: 5,
      restarts: 0,
    });
  });

  it("calls its mappings natkit's where nobody says otherwise", () => {
    const rig = holding();
    assertEquals(rig.router.rows[0]!.description, "natkit");
    rig.map({ internalPort: 81, description: "✓" });
    rig.map({ internalPort: 82, description: "x".repeat(99) });
    assertEquals(rig.router.rows.slice(1).map(({ description }) => description), [
      "?",
      "x".repeat(60),
    ]);
  });

  it("rests half an hour after a no, half a minute where it may be otherwise by then", () => {
    assertEquals([606, 718, 729, 402, 715].map(restAfter), new Array(5).fill(1_800_000));
    assertEquals([501, 603, 728].map(restAfter), new Array(3).fill(30_000));
  });

  it("goes on with AddPortMapping at once where AddAnyPortMapping is refused", () => {
    for (const code of [606, 718, 501]) {
      const router = new ScriptedRouter({ version: 2, acts: { AddAnyPortMapping: () => code } });
      const rig = new Rig({ router });
      rig.map();
      assertEquals(rig.types(), ["external-address", "mapped"]);
    }
  });

  it("insists on a port by AddPortMapping alone, also at an IGD:2", () => {
    const router = new ScriptedRouter({ version: 2 });
    const rig = new Rig({ router });
    rig.map({ suggestedExternal: { port: 8080 }, preferFailure: true });
    assert(!router.takeActions().includes("AddAnyPortMapping"));
    assertEquals(rig.types(), ["external-address", "mapped"]);
  });

  it("takes a lease of an IGD:2 for a week at most, and 0 for a week", () => {
    const router = new ScriptedRouter({ version: 2 });
    const rig = new Rig({ router });
    rig.map({ lifetimeSeconds: 1_000_000 });
    assertEquals(told(rig.take()[1], "mapped").mapping.lifetimeSeconds, 604_800);
    const stubborn = new ScriptedRouter({
      version: 2,
      acts: {
        AddAnyPortMapping: () => 401,
        AddPortMapping: (args, now, self) =>
          args["NewLeaseDuration"] === "0" ? self.AddPortMapping(args, now) : 402,
      },
    });
    const other = new Rig({ router: stubborn });
    other.map();
    assertEquals(told(other.take()[1], "mapped").mapping.lifetimeSeconds, 604_800);
  });

  it("tells silence for silence, at each step", () => {
    for (
      const action of ["GetExternalIPAddress", "GetSpecificPortMappingEntry", "AddPortMapping"]
    ) {
      const router = new ScriptedRouter({ acts: { [action]: () => undefined } });
      const rig = new Rig({ router });
      rig.map({ mode: "once" });
      rig.runTo(3000);
      const failed = told(rig.take().find(({ type }) => type === "failed"), "failed");
      assertEquals(describeFailure(failed.failure), "no answer", action);
    }
  });

  it("looks for a router anew whose service is gone, once, and then takes it as silent", () => {
    const gone = { status: 404, headers: [], body: new Uint8Array(0) };
    const router = new ScriptedRouter({ acts: { AddPortMapping: () => gone } });
    const rig = new Rig({ router });
    rig.map({ mode: "once" });
    rig.runTo(10_000);
    const failed = told(rig.take().find(({ type }) => type === "failed"), "failed");
    assertEquals(failed.failure, { kind: "no-answer" });
    assertEquals(router.takeActions().filter((name) => name === "AddPortMapping").length, 2);
  });

  it("answers a probe by asking, where the router is known", () => {
    const rig = holding();
    rig.router.options = { external: OTHER };
    rig.do((client, now) => client.probe(now));
    assertEquals(rig.types(), ["moved", "external-address"]);
    rig.do((client, now) => client.probe(now));
    assertEquals(rig.types(), ["external-address"]);
    rig.router.options = { acts: { GetExternalIPAddress: () => 606 } };
    rig.do((client, now) => client.probe(now));
    const refused = told(rig.take()[0], "external-address-failed");
    assertEquals(describeFailure(refused.failure), "ActionNotAuthorized");
    rig.router.isDead = true;
    rig.do((client, now) => client.probe(now));
    rig.run(2400);
    const failed = told(rig.take()[0], "external-address-failed");
    assertEquals(failed.failure, { kind: "no-answer" });
  });

  it("says nothing of a probe that was taken back", () => {
    const rig = new Rig();
    rig.router.isDead = true;
    rig.do((client, now) => client.probe(now));
    rig.do((client, now) => client.endProbe(now));
    assertEquals([rig.client.sockets(), rig.client.nextTimeout()], [[], undefined]);
    rig.runTo(10_000);
    assertEquals(rig.types(), []);
  });

  it("keeps the boot number that it knows where an update names none", () => {
    const rig = holding();
    rig.notice("update");
    rig.router.options = { bootId: 2 };
    rig.notice("alive", { bootId: 2 });
    rig.run(5000);
    assertEquals(rig.types(), ["gateway-restarted", "renewed"]);
  });

  it("finds out by the answer to a search, too, that the router has booted", () => {
    const rig = holding();
    rig.router.rows.length = 0;
    rig.router.isDead = true;
    rig.run(3_600_001);
    rig.take();
    rig.router.isDead = false;
    rig.router.options = { bootId: 5 };
    rig.run(3_600_000);
    assert(rig.types().includes("gateway-restarted"));
    assertEquals(rig.router.table(), [`TCP 8080->${HOST}:8080`]);
  });

  it("lets in one peer alone by RemoteHost, and widens that for no router", () => {
    const filters = [{ prefix: hostPrefix("198.51.100.7"), port: 0 }];
    const rig = new Rig();
    rig.map({ filters });
    const added = rig.router.calls.find(({ action }) => action === "AddPortMapping")!;
    assertEquals(added.args["NewRemoteHost"], "198.51.100.7");
    rig.do((client, now) => client.close(now));
    assertEquals(rig.router.rows, []);
    const picky = new Rig({
      router: new ScriptedRouter({
        acts: {
          AddPortMapping: (args, now, self) =>
            args["NewRemoteHost"] === "" ? self.AddPortMapping(args, now) : 726,
        },
      }),
    });
    picky.map({ filters, mode: "once" });
    const failed = told(picky.take().find(({ type }) => type === "failed"), "failed");
    assertEquals(describeFailure(failed.failure), "RemoteHostOnlySupportsWildcard");
    const { client } = picky;
    const web = { protocol: "tcp", internalPort: 80 } as const;
    const prefix = { ...hostPrefix("198.51.100.0"), prefixLength: 24 };
    assert(client.unfit({ ...web, filters: [{ prefix, port: 0 }] }));
    assert(client.unfit({ ...web, filters: [...filters, ...filters] }));
    assert(client.unfit({ ...web, filters: [{ ...filters[0]!, port: 5 }] }));
  });

  it("deletes on demand what an earlier run made: at its port, or where the table has it", () => {
    for (const port of [8080, 12_345]) {
      const router = new ScriptedRouter();
      router.occupy(8080);
      router.occupy(port, "TCP", HOST);
      router.rows[router.rows.length - 1] = { ...router.rows.at(-1)!, internalPort: 8080 };
      const others = router.table().filter((row) => row.includes(NEIGHBOUR));
      const rig = new Rig({ router });
      rig.do((client, now) => client.unmap({ protocol: "tcp", internalPort: 8080 }, now));
      assertEquals(told(rig.take().at(-1), "unmapped").failure, undefined);
      assertEquals(router.table(), others);
    }
  });

  it("does not delete unseen where a router hides its table, unless it was told which port", () => {
    const acts = {
      GetSpecificPortMappingEntry: () => 401,
      GetGenericPortMappingEntry: () => 401,
    };
    const web = { protocol: "tcp", internalPort: 8080 } as const;
    const router = new ScriptedRouter({ acts });
    router.occupy(8080);
    const rig = new Rig({ router });
    rig.do((client, now) => client.unmap(web, now));
    const { failure } = told(rig.take().at(-1), "unmapped");
    assertEquals(failure && describeFailure(failure), "OptionalActionNotImplemented");
    assertEquals(router.rows.length, 1);
    rig.do((client, now) => client.unmap({ ...web, suggestedExternal: { port: 8080 } }, now));
    assertEquals(told(rig.take().at(-1), "unmapped").failure, undefined);
    assertEquals(router.rows.length, 0);
  });

  it("says what it could not delete of what the table has, or did not get to see", () => {
    const unmapped = (acts: RouterOptions["acts"]) => {
      const router = new ScriptedRouter({ acts: { ...acts } });
      router.occupy(12_345, "TCP", HOST);
      router.rows[0] = { ...router.rows[0]!, internalPort: 8080 };
      const rig = new Rig({ router });
      rig.do((client, now) => client.unmap({ protocol: "tcp", internalPort: 8080 }, now));
      const { failure } = told(rig.take().at(-1), "unmapped");
      return [failure && describeFailure(failure), router.rows.length];
    };
    assertEquals(unmapped({}), [undefined, 0]);
    assertEquals(unmapped({ DeletePortMapping: () => 606 }), ["ActionNotAuthorized", 1]);
    // It has ended meanwhile.
    assertEquals(unmapped({ DeletePortMapping: () => 714 }), [undefined, 1]);
    assertEquals(unmapped({ DeletePortMapping: () => undefined }), ["no answer", 1]);
    assertEquals(unmapped({ GetGenericPortMappingEntry: () => undefined }), ["no answer", 1]);
  });

  it("takes whatever comes after the first entry for the table's end", () => {
    const router = new ScriptedRouter({
      acts: {
        GetGenericPortMappingEntry: (args, now, self) => {
          const entry = self.GetGenericPortMappingEntry(args, now);
          return entry === 713 ? plain(400) : entry;
        },
      },
    });
    router.occupy(8080);
    const rig = new Rig({ router });
    const table = () => {
      rig.do((client, now) => client.list(now));
      return told(rig.take().at(-1), "table-told");
    };
    const { entries, failure } = table();
    assertEquals([entries.length, failure], [1, undefined]);
    // But not before it: such a router tells none.
    router.rows.length = 0;
    assert(table().failure !== undefined);
  });

  it("takes a router that hides its table at its word", () => {
    const acts = {
      GetSpecificPortMappingEntry: () => 401,
      GetGenericPortMappingEntry: () => 401,
    };
    const rig = new Rig({ router: new ScriptedRouter({ acts, hasEvents: false }) });
    rig.map();
    rig.run(3_600_000);
    assertEquals(rig.types(), ["external-address", "mapped", "renewed"]);
    // Before and after the first request, not again.
    const looks = rig.router.calls.filter(({ action }) => action === "GetSpecificPortMappingEntry");
    assertEquals(looks.length, 2);
    rig.do((client, now) => client.close(now));
    assertEquals(rig.router.rows, []);
  });

  it("reads nothing back of what is not wanted any more", () => {
    const rig = new Rig();
    rig.holds = true;
    const id = rig.map();
    rig.map({ internalPort: 9090 });
    for (let i = 0; i < 10 && !rig.events.some(({ type }) => type === "mapped"); i++) {
      rig.release(1);
    }
    // The other one's request is on its way before the first is read back.
    rig.do((client, now) => client.revoke(id, now));
    rig.router.takeActions();
    while (rig.held.length > 0) rig.release(1);
    const of8080 = rig.router.calls.filter(({ args }) => args["NewExternalPort"] === "8080");
    assertEquals(of8080.map(({ action }) => action), [
      "GetSpecificPortMappingEntry",
      "DeletePortMapping",
    ]);
  });

  it("believes the whole table where one entry cannot be asked for", () => {
    const rig = new Rig({
      router: new ScriptedRouter({ acts: { GetSpecificPortMappingEntry: () => 714 } }),
    });
    rig.map();
    rig.run(600_000);
    assertEquals(rig.types(), ["external-address", "mapped"]);
    const looks = rig.router.calls.filter(({ action }) => action === "GetSpecificPortMappingEntry");
    assertEquals(looks.length, 2);
  });

  it("gives up a port at once that another host has taken over meanwhile", () => {
    const rig = new Rig({
      router: new ScriptedRouter({
        acts: {
          AddPortMapping: (args, now, self) => {
            const done = self.AddPortMapping(args, now);
            if (args["NewExternalPort"] === "8080") self.occupy(8080);
            return done;
          },
        },
      }),
    });
    rig.map();
    rig.run(5000);
    const types = rig.take().map(({ type }) => type);
    assertEquals(types, ["external-address", "mapped", "lost", "recovered"]);
    assertEquals(rig.router.table()[0], `TCP 8080->${NEIGHBOUR}:8080`);
    assertEquals(rig.router.rows.length, 2);
  });

  it("tells why it does not tell the table", () => {
    const told0 = (options: RouterOptions, isDead = false) => {
      const rig = new Rig({ router: new ScriptedRouter(options) });
      rig.router.isDead = isDead;
      const id = rig.do((client, now) => client.list(now));
      rig.runTo(5000);
      const event = told(rig.take().find(({ type }) => type === "table-told"), "table-told");
      assertEquals([event.id, event.entries], [id, []]);
      return event.failure && describeFailure(event.failure);
    };
    assertEquals(told0({ acts: { GetGenericPortMappingEntry: () => undefined } }), "no answer");
    assertEquals(told0({ acts: { GetGenericPortMappingEntry: () => 401 } }), "ActionFailed");
    assertEquals(told0({}, true), "no answer");
    assertEquals(told0({}), undefined);
    const rig = new Rig();
    rig.holds = true;
    rig.do((client, now) => client.list(now));
    rig.do((client, now) => client.close(now));
    while (rig.held.length > 0) rig.release(1);
    assertEquals([rig.types(), rig.client.isIdle], [[], true]);
  });

  it("moves with its host: what it had there ends, all is asked for from the new address", () => {
    const rig = holding();
    rig.do((client, now) => client.networkChanged("192.168.1.101", now));
    assertEquals(rig.types().at(-1), "moved");
    const { args } = rig.router.calls.find(({ action }) => action === "AddPortMapping")!;
    assertEquals(args["NewInternalClient"], "192.168.1.101");
    for (const { local } of rig.client.sockets()) {
      assert(local!.address !== HOST, JSON.stringify(local));
    }
  });

  it("hands its mappings to a later client, which takes them up with their ports", () => {
    const router = new ScriptedRouter();
    router.occupy(8080);
    const rig = new Rig({ router });
    const id = rig.map();
    const { port } = rig.client.mapping(id)!.external!;
    const state = JSON.parse(JSON.stringify(rig.client.exportState(rig.now)));
    const later = new Rig({ router, state });
    later.run(0);
    assertEquals(later.types(), ["external-address", "mapped"]);
    assertEquals(later.client.mappings()[0]!.external, { address: EXTERNAL, port });
    const again = later.map();
    assertEquals([again, later.types()], [1, ["mapped"]]);
    assertEquals(router.rows.length, 2);
  });

  it("refuses what it cannot be made of", () => {
    const options = { gateway: GATEWAY, localAddress: HOST, random: seededRandom(1) };
    assertThrows(() => new IgdClient({ ...options, localAddress: "::1" }), TypeError, "IPv4");
    assertThrows(() => new IgdClient({ ...options, localAddress: "x" }), TypeError);
    const gateway = { address: "192.168.1.1", port: 0 };
    assertThrows(() => new IgdClient({ ...options, gateway }), RangeError, "gateway.port");
    const client = new IgdClient(options);
    client.close(0);
    const web = { protocol: "tcp", internalPort: 80 } as const;
    assertThrows(() => client.map(web, 0), TypeError, "closed");
  });

  it("asks by M-POST where POST is not allowed", () => {
    const rig = new Rig();
    const http = rig.router.http.bind(rig.router);
    rig.router.http = (to, request, now) =>
      request.method === "POST" ? plain(405) : http(to, request, now);
    rig.map();
    assertEquals(rig.types(), ["external-address", "mapped"]);
    assert(rig.router.asked.includes("M-POST /ctl/ip"));
  });
});
