import { afterEach, describe, it } from "node:test";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { systemRuntime } from "../../../adapters/auto.ts";
import { UpnpClient, type UpnpService } from "../../../adapters/api/upnp_client.ts";
import { runCommandLine } from "../../../adapters/cli/command_line.ts";
import type { Runtime } from "../../../adapters/runtime.ts";
import { page, POWER, UpnpDevice } from "../upnp_device.ts";
import { FakeIo } from "./fakes.ts";

/** The lamp has two services: nobody waits for a third. */
async function* both(services: AsyncIterable<UpnpService>): AsyncGenerator<UpnpService> {
  let count = 0;
  for await (const service of services) {
    yield service;
    if (++count === 2) return;
  }
}

describe("natkit upnp", () => {
  const devices: UpnpDevice[] = [];

  afterEach(async () => {
    for (const device of devices.splice(0)) await device[Symbol.asyncDispose]();
  });

  async function start(): Promise<UpnpDevice> {
    const device = await UpnpDevice.start();
    devices.push(device);
    return device;
  }

  async function natkit(device: UpnpDevice | undefined, ...args: string[]) {
    const io = new FakeIo();
    let scanMs: number | undefined, targets: readonly string[] | undefined, isOpen = false;
    const system = systemRuntime();
    // What is waited for at all has been for half a second.
    const runtime: Runtime = {
      ...system,
      setTimer: (ms, callback, keepAlive) => {
        if (ms !== 500) return system.setTimer(ms, callback, keepAlive);
        callback();
        return () => {};
      },
    };
    const status = await runCommandLine(["upnp", ...args], io, {
      runtime,
      openUpnp: async (options) => {
        const where = device?.options ?? { places: [] };
        targets = options.targets;
        isOpen = true;
        const client = await UpnpClient.open({ ...options, ...where });
        const services = client.services.bind(client);
        client.services = (scan) => {
          scanMs = scan?.scanMs;
          return both(services({ ...scan, scanMs: 5000 }));
        };
        const close = client.close.bind(client);
        client.close = async () => {
          await close();
          await new Promise((resolve) => setTimeout(resolve, 0));
          isOpen = false;
        };
        return client;
      },
    });
    assertEquals(isOpen, false, "nobody waited for its end");
    return { io, status, scanMs, targets };
  }

  const DEVICE = {
    deviceType: "urn:schemas-upnp-org:device:BinaryLight:1",
    friendlyName: "Lamp",
    manufacturer: "natkit",
    modelName: "1",
    udn: "uuid:lamp",
  };

  it("services lists those that it finds", async () => {
    const device = await start();
    const flags = ["--scan", "1", "--target", "upnp:rootdevice", "--json"];
    const { io, status, scanMs, targets } = await natkit(device, "services", ...flags);

    assertEquals([status, io.err, scanMs, targets], [0, "", 1000, ["upnp:rootdevice"]]);
    const at = { device: DEVICE, address: "127.0.0.1", location: device.location };
    assertEquals(io.events, [
      {
        event: "service",
        serviceType: POWER,
        serviceId: "urn:upnp-org:serviceId:SwitchPower",
        ...at,
      },
      { event: "service", serviceType: "urn:x:service:Other:2", serviceId: "x", ...at },
    ]);
  });

  it("services lists those of one device", async () => {
    const device = await start();
    for (
      const [name, lines] of [["Lamp", 2], ["uuid:lamp", 2], ["127.0.0.1", 2], ["Door", 0]] as const
    ) {
      const args = ["services", "--device", name];
      const { io, status } = await natkit(device, ...args);
      assertEquals([status, io.out.split("\n").length - 1], [0, lines], name);
    }
  });

  it("services tells a person", async () => {
    const { io } = await natkit(await start(), "services");

    assertEquals(io.out.split("\n")[0], `Lamp at 127.0.0.1: ${POWER}`);
    assertEquals(io.err, "Waiting for devices…\n");
  });

  it("actions lists what a service can be asked, by any of its names", async () => {
    const device = await start();
    const names = [POWER, "SwitchPower", "SwitchPower:1", "urn:upnp-org:serviceId:SwitchPower"];
    for (const name of names) {
      const { io, status } = await natkit(device, "actions", name, "--json");
      assertEquals([status, io.events.map(({ action }) => action)], [0, [
        "SetTarget",
        "GetStatus",
      ]]);
      assertEquals(io.events[1], {
        event: "action",
        action: "GetStatus",
        arguments: [
          { name: "ResultStatus", direction: "out", relatedVariable: "Target", type: "boolean" },
        ],
      });
    }
    const { io } = await natkit(device, "actions", "SwitchPower");
    assertEquals(
      io.out,
      "SetTarget(NewTarget: boolean, NewReason: string)\nGetStatus() -> ResultStatus: boolean\n",
    );
  });

  it("call asks, with the arguments in the order of the service", async () => {
    const device = await start();
    const args = ["call", "SwitchPower", "SetTarget", "NewReason=a=b c", "NewTarget=1"];
    const set = await natkit(device, ...args);
    assertEquals([set.status, set.io.out], [0, "done\n"]);
    assertEquals(
      set.io.err,
      "Waiting for devices…\nWaiting for the service's description…\nWaiting for the device…\n",
    );
    assertEquals(
      device.asked.at(-1),
      'POST /ctl/power SetTarget {"NewTarget":"1","NewReason":"a=b c"}',
    );

    const { io, status } = await natkit(device, "call", "SwitchPower", "GetStatus", "--json");
    assertEquals(status, 0);
    const [{ elapsedMs, ...rest } = {}] = io.events;
    assert(Number(elapsedMs) >= 0);
    assertEquals(rest, {
      event: "result",
      action: "GetStatus",
      serviceType: POWER,
      address: "127.0.0.1",
      values: { ResultStatus: "1" },
    });
    const told = await natkit(device, "call", "SwitchPower", "GetStatus");
    assertEquals(told.io.out, "ResultStatus 1\n");
  });

  it("call tells the code with which the device refused", async () => {
    const args = ["call", "SwitchPower", "SetTarget", "NewTarget=7", "NewReason=", "--json"];
    const { io, status } = await natkit(await start(), ...args);

    assertEquals(status, 1);
    const [error] = io.events as [
      { code: string; message: string; attempts: unknown },
    ];
    assertEquals([error.code, error.attempts], ["refused", [
      { via: "upnp", gateway: "127.0.0.1", outcome: "402 Invalid Args", elapsedMs: 0 },
    ]]);
    assertStringIncludes(error.message, "402 Invalid Args");
  });

  it("call goes ahead where the service does not describe itself", async () => {
    const device = await start();
    device.spoil = ({ path }) => path === "/power.xml" ? page(404) : undefined;
    const { io, status } = await natkit(device, "call", "SwitchPower", "GetStatus");

    assertEquals([status, io.out], [0, "ResultStatus 0\n"]);
    assertStringIncludes(io.err, "HTTP status 404; it is called as it stands");
  });

  it("says what it found where there is no such service", async () => {
    const args = ["actions", "Toaster", "--json"];
    const { io, status } = await natkit(await start(), ...args);

    assertEquals(status, 1);
    const [error] = io.events as [{ code: string; message: string }];
    assertEquals(error.code, "not-found");
    assertStringIncludes(error.message, `"Toaster": found ${POWER}, urn:x:service:Other:2`);
    const elsewhere = await natkit(
      devices[0],
      "actions",
      "SwitchPower",
      "--device",
      "x",
      "--scan",
      "1",
    );
    assertEquals(elsewhere.status, 1);
  });

  it("fails where nothing can be searched", async () => {
    const { io, status } = await natkit(undefined, "services", "--json");

    assertEquals([status, (io.events[0] as { code: string }).code], [1, "network"]);
  });

  it("names what is wrong with its arguments", async () => {
    const device = await start();
    const call = ["call", "SwitchPower", "SetTarget"];
    const wrong: readonly (readonly [readonly string[], string])[] = [
      [[], "natkit upnp needs services|actions|call"],
      [["list"], 'current value is "list"'],
      [["services", "x"], '"x"'],
      [["actions"], "needs SERVICE"],
      [["actions", "a", "b"], '"b" is too much'],
      [["call", "a"], "needs SERVICE ACTION"],
      [["call", "a", "b", "c"], 'An argument must be NAME=VALUE: current value is "c"'],
      [["call", "a", "b", "=c"], '"=c"'],
      [["services", "--scan", "0"], "--scan"],
      [["services", "--via", "pcp"], "--via"],
      [["call", "SwitchPower", "Explode"], 'SetTarget, GetStatus: current value is "Explode"'],
      [[...call, "NewTarget=1"], "needs NewReason=VALUE"],
      [[...call, "Other=1"], 'are NewTarget, NewReason: current value is "Other"'],
      [["call", "SwitchPower", "GetStatus", "A=1"], "are none"],
    ];
    for (const [args, message] of wrong) {
      const { io, status } = await natkit(device, ...args);
      assertEquals([status, io.out], [2, ""], args.join(" "));
      assertStringIncludes(io.err, message);
    }
  });
});
