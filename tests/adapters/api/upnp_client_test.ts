import { afterEach, describe, it } from "node:test";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  UpnpClient,
  type UpnpClientOptions,
  UpnpError,
  type UpnpService,
} from "../../../adapters/api/upnp_client.ts";
import { systemRuntime } from "../../../adapters/auto.ts";
import type { Runtime } from "../../../adapters/runtime.ts";
import { NatError } from "../../../core/errors.ts";
import type { HttpResult } from "../../../core/machine.ts";
import { FakeRuntime } from "../fake_runtime.ts";
import { page, POWER, UpnpDevice } from "../upnp_device.ts";

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

describe("UpnpClient", () => {
  const open: AsyncDisposable[] = [];

  afterEach(async () => {
    for (const one of open.splice(0).reverse()) await one[Symbol.asyncDispose]();
  });

  async function start(
    options: UpnpClientOptions = {},
  ): Promise<{ device: UpnpDevice; client: UpnpClient }> {
    const device = await UpnpDevice.start();
    open.push(device);
    const client = await UpnpClient.open({ ...device.options, ...options });
    open.push(client);
    return { device, client };
  }

  /** The first service, which ends the scan. */
  async function first(client: UpnpClient): Promise<UpnpService> {
    for await (const service of client.services()) return service;
    throw new Error("nothing was found");
  }

  async function scan(client: UpnpClient, scanMs: number): Promise<UpnpService[]> {
    const found: UpnpService[] = [];
    for await (const service of client.services({ scanMs })) found.push(service);
    return found;
  }

  /** Both of the lamp's services, which ends the scan. */
  async function both(client: UpnpClient): Promise<UpnpService[]> {
    const found: UpnpService[] = [];
    for await (const service of client.services()) {
      if (found.push(service) === 2) break;
    }
    return found;
  }

  const TYPES = [POWER, "urn:x:service:Other:2"];

  it("hands out each service as it is found, once, and again in the next scan", async () => {
    const { device, client } = await start();

    const found = await both(client);
    assertEquals(found.map(({ serviceType }) => serviceType), TYPES);
    assertEquals(await both(client), found);
    // How much a scan finds in its time is the machine's; it is never more.
    const again = await scan(client, 100);
    assertEquals(again, found.slice(0, again.length));
    assertEquals(device.asked, ["GET /desc.xml"]);
  });

  it("tells what a service is and where", async () => {
    const { device, client } = await start();
    const service = await first(client);

    assertEquals([service.serviceId, service.address, service.location], [
      "urn:upnp-org:serviceId:SwitchPower",
      "127.0.0.1",
      device.location,
    ]);
    assertEquals(service.device, {
      deviceType: "urn:schemas-upnp-org:device:BinaryLight:1",
      friendlyName: "Lamp",
      manufacturer: "natkit",
      modelName: "1",
      udn: "uuid:lamp",
    });
  });

  it("tells what it can be asked, and asks it, by one description fetched once", async () => {
    const { device, client } = await start();
    const service = await first(client);

    const actions = await service.actions();
    assertEquals(actions.map(({ name }) => name), ["SetTarget", "GetStatus"]);
    assertEquals(await service.call("SetTarget", { NewTarget: true, NewReason: 5 }), {});
    assertEquals(await service.call("GetStatus"), { ResultStatus: "1" });
    assertEquals((await service.description()).variables.length, 2);
    assertEquals(device.asked.slice(1), [
      "GET /power.xml",
      'POST /ctl/power SetTarget {"NewTarget":"1","NewReason":"5"}',
      "POST /ctl/power GetStatus {}",
    ]);
  });

  it("tells a refusal with its code and words, the code's name where there are none", async () => {
    const { client } = await start();
    const service = await first(client);

    const refused = await assertRejects(() => service.call("SetTarget", { NewTarget: 7 }));
    assert(refused instanceof UpnpError);
    const { name, code, description, action, serviceType, message } = refused as UpnpError;
    assertEquals(name, "UpnpError");
    assertEquals([code, description, action, serviceType], [
      402,
      "Invalid Args",
      "SetTarget",
      POWER,
    ]);
    assertEquals(message, `Cannot call SetTarget of ${POWER}: 402 Invalid Args`);
    const unknown = await assertRejects(() => service.call("Explode"));
    assertEquals((unknown as UpnpError).description, "InvalidAction");
  });

  it("tells what came instead of an answer", async () => {
    const { device, client } = await start();
    const service = await first(client);
    const outcome = async (options = {}) => {
      const error = await assertRejects(() => service.call("GetStatus", {}, options));
      assert(error instanceof NatError, String(error));
      const { code, message } = error as NatError;
      return `${code}: ${message.slice(message.lastIndexOf(": ") + 2)}`;
    };

    device.spoil = () => page(404, "<html/>");
    assertEquals(await outcome(), "protocol-violation: HTTP status 404");
    device.spoil = () => page(200, "<html/>");
    assertEquals(await outcome(), "protocol-violation: the answer is none (not-soap)");
    device.spoil = () => page(200, "x".repeat(65_537));
    assertEquals(await outcome(), "protocol-violation: the answer is too large");
    device.spoil = () => "silence";
    assertEquals(await outcome({ timeoutMs: 50 }), "no-answer: no answer");
  });

  it("tells by its code why there is no answer", async () => {
    const system = systemRuntime();
    let reason: (HttpResult & { ok: false })["reason"] = "failed";
    const runtime: Runtime = {
      ...system,
      openHttp: async (handlers) => {
        const http = await system.openHttp!(handlers);
        return {
          listen: (local) => http.listen(local),
          respond: (action) => http.respond(action),
          close: () => http.close(),
          request: (action) => {
            if (action.request.method === "GET") return http.request(action);
            queueMicrotask(() => handlers.onResult(action.id, { ok: false, reason }));
          },
        };
      },
    };
    const { client } = await start({ runtime });
    const service = await first(client);
    const outcomes = {
      permission: ["permission", "the runtime or the system does not let us"],
      "too-large": ["protocol-violation", "the answer is too large"],
      timeout: ["no-answer", "timeout"],
      refused: ["no-answer", "refused"],
      failed: ["no-answer", "failed"],
    } as const;
    for (const [why, [code, words]] of Object.entries(outcomes)) {
      reason = why as typeof reason;
      const error = await assertRejects(() => service.call("GetStatus"), NatError);
      assertEquals([error.code, error.message], [
        code,
        `Cannot call GetStatus of ${POWER}: ${words}`,
      ]);
    }
  });

  it("asks nothing any more for who gave up waiting", async () => {
    const { device, client } = await start();
    const service = await first(client);
    device.spoil = () => "silence";
    const patient = assertRejects(() => service.call("GetStatus"));
    while (!device.asked.some((text) => text.includes("GetStatus"))) await pause(1);
    const hasty = { timeoutMs: 30 };
    await assertRejects(() => service.call("SetTarget", { NewTarget: 1 }, hasty), NatError);

    device.spoil = () => undefined;
    device.release();
    await patient;
    await service.call("GetStatus");
    assertEquals(device.asked.filter((text) => text.includes("SetTarget")), []);
  });

  it("reads a description again that it could not read", async () => {
    const { device, client } = await start();
    const service = await first(client);

    device.spoil = () => page(404);
    const error = await assertRejects(() => service.actions());
    assertEquals((error as NatError).code, "protocol-violation");
    device.spoil = () => undefined;
    assertEquals((await service.actions()).length, 2);
  });

  it("says that a service has no description", async () => {
    const { client } = await start();
    const found = await both(client);

    const error = await assertRejects(() => found[1]!.description());
    assertEquals((error as NatError).code, "protocol-violation");
    assert((error as NatError).message.includes("bad-url"));
  });

  it("finds nothing where nothing is, and what appears while it scans", async () => {
    const { device, client } = await start();
    device.isHeard = false;
    assertEquals(await scan(client, 50), []);

    const services = client.services();
    const next = services.next();
    device.isHeard = true;
    assertEquals((await next).value?.serviceType, POWER);
    await services.return!();
    assertEquals(await services.next(), { done: true, value: undefined });
  });

  it("leaves out a device whose description is none, and goes on", async () => {
    const { device, client } = await start();
    device.spoil = () => page(200, "<html/>");
    while (device.asked.length === 0) assertEquals(await scan(client, 100), []);
    assertEquals(device.asked, ["GET /desc.xml"]);
  });

  it("ends a scan and a call by their signals", async () => {
    const { device, client } = await start();
    const service = await first(client);
    device.spoil = () => "silence";
    const controller = new AbortController();
    const { signal } = controller;
    const calling = service.call("GetStatus", {}, { signal });
    const scanning = (async () => {
      for await (const _ of client.services({ signal }));
    })();

    controller.abort(new Error("enough"));
    for (const pending of [calling, scanning]) {
      assertEquals((await assertRejects(() => pending) as Error).message, "enough");
    }
    await assertRejects(() => client.services({ signal }).next(), Error, "enough");
  });

  it("leaves no listener at a signal once it is done", async () => {
    const { device, client } = await start();
    const counts: number[] = [];
    const listening = (): AbortSignal => {
      const at = counts.push(0) - 1;
      const { signal } = new AbortController();
      const { addEventListener: add, removeEventListener: remove } = signal;
      signal.addEventListener = (...args: Parameters<typeof add>) => {
        counts[at]!++;
        add.apply(signal, args);
      };
      const own = remove.bind(signal);
      signal.removeEventListener = (...args: Parameters<typeof remove>) => {
        if (args[0] === "abort") counts[at]!--;
        own(...args);
      };
      return signal;
    };
    const [service] = await both(client);
    await service!.call("GetStatus", {}, { signal: listening() });
    for await (const _ of client.services({ signal: listening() })) break;
    for await (const _ of service!.changes({ signal: listening() })) break;
    assertEquals(counts, [0, 0, 0]);
    assert(device.asked.length > 0);
  });

  it("follows what changes, until the loop is left", async () => {
    const { device, client } = await start();
    const service = await first(client);
    const heard: unknown[] = [];
    for await (const properties of service.changes()) {
      heard.push(properties);
      if (heard.length === 3) break;
      await service.call("SetTarget", { NewTarget: heard.length === 1, NewReason: "" });
    }

    assertEquals(heard, [{ Status: "0" }, { Status: "1" }, { Status: "0" }]);
    // What is asked next waits for the device's answer to that.
    await service.call("GetStatus");
    assertEquals(device.subscribers, 0);
  });

  it("merges what changed for a slow reader", async () => {
    const { device, client } = await start();
    const service = await first(client);
    const changes = service.changes();
    await changes.next();
    for (let i = 0; i < 100; i++) {
      await service.call("SetTarget", { NewTarget: i % 2 === 0, NewReason: "" });
    }
    const last = service.changes();
    assertEquals((await last.next()).value, { Status: "0" });
    await last.return!();

    let count = 0;
    for (let waiting = true; waiting; count++) {
      const next = changes.next();
      waiting = await Promise.race([next.then(() => true), pause(100).then(() => false)]);
    }
    assert(count > 50 && count <= 66, `${count}`);
    assertEquals(device.subscribers, 1);
    await client.close();
    assertEquals(device.subscribers, 0);
  });

  it("says why it cannot follow", async () => {
    const { device, client } = await start();
    const found = await both(client);
    const outcome = async (service: UpnpService) =>
      (await assertRejects(() => service.changes().next()) as NatError).code;

    assertEquals(await outcome(found[1]!), "protocol-violation");
    device.spoil = ({ method }) => method === "SUBSCRIBE" ? page(500) : undefined;
    assertEquals(await outcome(found[0]!), "protocol-violation");
    device.spoil = () => undefined;
    const controller = new AbortController();
    const changes = found[0]!.changes({ signal: controller.signal });
    await changes.next();
    const next = changes.next();
    controller.abort(new Error("enough"));
    await assertRejects(() => next, Error, "enough");
    assertEquals(await changes.next(), { done: true, value: undefined });
    const { signal } = controller;
    await assertRejects(() => found[0]!.changes({ signal }).next(), Error, "enough");
  });

  it("ends its subscriptions at their devices when it is closed", async () => {
    const { device, client } = await start();
    const service = await first(client);
    const changes = service.changes();
    await changes.next();
    const pending = assertRejects(() => changes.next());
    assertEquals(device.subscribers, 1);

    await client.close();
    assertEquals(device.subscribers, 0);
    assertEquals((await pending as NatError).code, "closed");
    const late = await assertRejects(() => service.changes().next());
    assertEquals((late as NatError).code, "closed");
  });

  it("is closed: what is under way rejects, and nothing is begun any more", async () => {
    const { device, client } = await start();
    const service = await first(client);
    device.spoil = () => "silence";
    const calling = assertRejects(() => service.call("GetStatus"));
    const services = client.services();
    await services.next();
    await services.next();
    const scanning = assertRejects(() => services.next());

    await client.close();
    await client.close();
    const late = assertRejects(() => service.call("GetStatus"));
    for (const error of await Promise.all([calling, scanning, late])) {
      assertEquals((error as NatError).code, "closed");
    }
    const error = await assertRejects(() => client.services().next());
    assertEquals((error as NatError).code, "closed");
  });

  it("says that it could search nowhere", async () => {
    const nowhere = await UpnpClient.open({ places: [] });
    open.push(nowhere);
    const without = await assertRejects(() => nowhere.services().next()) as NatError;
    assertEquals([without.code, without.message], [
      "network",
      "Cannot search for UPnP devices: no interface has an address",
    ]);
    const foreign = await UpnpClient.open({ places: [{ local: "203.0.113.7" }] });
    open.push(foreign);
    const failed = await assertRejects(() => foreign.services().next()) as NatError;
    assertEquals(failed.code, "network");
    assert(failed.message.includes("203.0.113.7"), failed.message);
  });

  describe("by default", () => {
    const at = (name: string, address: string) => (
      { name, address, prefixLength: 24, internal: name === "lo" }
    );

    /** What is still sent within a second, of searches. */
    async function searches(runtime: FakeRuntime): Promise<number> {
      const count = () => runtime.sockets.reduce((sum, { sent }) => sum + sent.length, 0);
      const before = count();
      for (let i = 0; i < 20; i++) {
        runtime.advance(50);
        await pause(0);
      }
      return count() - before;
    }

    it("searches on each interface but loopback, until nobody reads on, and for three seconds", async () => {
      const runtime = new FakeRuntime();
      runtime.addresses = [at("lo", "127.0.0.1"), at("eth0", "192.0.2.7"), at("wl0", "10.0.0.7")];
      const client = await UpnpClient.open({ runtime });
      open.push(client);
      const [left, whole] = [client.services(), client.services()];
      assert(await searches(runtime) > 0);
      const from = runtime.sockets.map(({ options }) => options.local?.address);
      assertEquals(from.filter((address) => address === "192.0.2.7").length, 1);
      assertEquals(from.filter((address) => address === "10.0.0.7").length, 1);
      assertEquals(from.includes("127.0.0.1"), false);

      // The other one goes on to search.
      await left.return!();
      let isOver = false;
      const next = whole.next().then(({ done }) => isOver = done === true);
      await searches(runtime);
      assertEquals(isOver, false);
      runtime.advance(1050);
      await next;
      assertEquals([isOver, await searches(runtime)], [true, 0]);

      const hasty = client.services();
      await searches(runtime);
      await hasty.return!();
      assertEquals(await searches(runtime), 0);
    });

    it("tells who waits first why a scan ends, and the others that it has", async () => {
      const runtime = new FakeRuntime();
      runtime.addresses = [at("eth0", "192.0.2.7")];
      const client = await UpnpClient.open({ runtime });
      open.push(client);
      const controller = new AbortController();
      const { signal } = controller;
      const [services, unread, left] = [1, 2, 3].map(() => client.services({ signal }));
      const [first, second] = [services!.next(), services!.next()];
      controller.abort(new Error("enough"));

      await assertRejects(() => first, Error, "enough");
      assertEquals((await second).done, true);
      await assertRejects(() => unread!.next(), Error, "enough");
      assertEquals((await unread!.next()).done, true);
      await left!.return!();
      assertEquals((await left!.next()).done, true);
    });

    it("says that there is nowhere to search", async () => {
      const runtime = new FakeRuntime();
      runtime.addresses = [at("lo", "127.0.0.1")];
      const client = await UpnpClient.open({ runtime });
      open.push(client);
      await assertRejects(() => client.services().next(), NatError, "no interface has an address");
    });
  });

  it("names the caller's mistakes", async () => {
    const { client } = await start();
    const service = await first(client);

    for (const scanMs of [0, 600_001]) {
      assertThrows(() => client.services({ scanMs }), RangeError, "'scanMs' must be an integer");
    }
    await assertRejects(() => service.call("A B"), TypeError, "'action' must be a name of XML");
    await assertRejects(() => service.call("A", { "<": 1 }), TypeError, "'argument'");
    await assertRejects(() => UpnpClient.open({ targets: [] }), RangeError, "'targets.length'");
    await assertRejects(() => UpnpClient.open(null as never), TypeError, "'options'");
  });
});
