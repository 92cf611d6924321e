import { describe, it } from "node:test";
import { assertEquals, assertStringIncludes } from "@std/assert";
import type { Context } from "../../../adapters/cli/command.ts";
import { Notes } from "../../../adapters/cli/commands/notes.ts";
import type { Streams, UdpOptions } from "../../../adapters/runtime.ts";
import { NatError } from "../../../core/errors.ts";
import type { StreamResult } from "../../../core/machine.ts";
import type { GrantedMapping } from "../../../core/portmap/managed.ts";
import { FakeRuntime } from "../fake_runtime.ts";
import { GRANTED } from "./fakes.ts";

const UDP: GrantedMapping = { ...GRANTED, protocol: "udp" };
const REFUSED: StreamResult = { type: "closed", reason: "refused" };

class Host extends FakeRuntime {
  readonly notes: string[] = [];
  readonly bound: string[] = [];
  /** Where something listens over UDP. */
  busy = "";
  /** The code of what the system says of it. */
  code = "EADDRINUSE";
  isClosed = false;
  /** What was to be done with streams. */
  readonly acts: unknown[] = [];

  constructor(platform: string = "linux") {
    super();
    this.platform = platform;
    this.addresses = [{ name: "eth0", address: "192.168.1.5", prefixLength: 24, internal: false }];
  }

  override openUdp(options: UdpOptions, handlers: Parameters<FakeRuntime["openUdp"]>[1]) {
    const { address } = options.local!;
    this.bound.push(address);
    const cause = { code: this.code };
    return address === this.busy
      ? Promise.reject(new NatError("network", "no", { cause }))
      : super.openUdp(options, handlers);
  }

  /** What connecting comes to. */
  connects(result: StreamResult): this {
    const openStreams = (tell: (id: number, happened: StreamResult) => void): Promise<Streams> =>
      Promise.resolve({
        act: ({ id, ...action }) => {
          this.acts.push(action);
          queueMicrotask(() => tell(id, result));
        },
        listen: () => Promise.reject(new Error("no")),
        take: () => undefined,
        close: () => void (this.isClosed = true),
      });
    return Object.assign(this, { openStreams });
  }

  async look(mapping: GrantedMapping): Promise<number> {
    const output = { note: (text: string) => void this.notes.push(text), warn() {} };
    await new Notes({ output, runtime: this } as unknown as Context, 6000).listening(mapping);
    return this.notes.length;
  }
}

describe("the note that nothing listens", () => {
  it("is there where a connection is refused, and only there", async () => {
    const host = new Host().connects(REFUSED);
    assertEquals([await host.look(GRANTED), host.isClosed], [1, true]);
    assertStringIncludes(host.notes[0]!, "nothing listens at 192.168.1.5:6000/tcp");
    const to = GRANTED.internal;
    assertEquals(host.acts, [{ type: "stream", do: "connect", to, timeoutMs: 500 }]);
    const open = { type: "open", local: GRANTED.internal, peer: GRANTED.internal } as const;
    assertEquals(await new Host().connects(open).look(GRANTED), 0);
    for (const reason of ["timeout", "permission", "failed"] as const) {
      assertEquals(await new Host().connects({ type: "closed", reason }).look(GRANTED), 0, reason);
    }
    assertEquals(await new Host().look(GRANTED), 0);
  });

  it("is there where a UDP port can be had, and leaves that free", async () => {
    const host = new Host();
    assertEquals([await host.look(UDP), host.bound], [1, ["192.168.1.5"]]);
    assertEquals(host.sockets.map(({ isClosed }) => isClosed), [true]);
    for (const code of ["EADDRINUSE", "AddrInUse", "EACCES"]) {
      const other = Object.assign(new Host(), { busy: "192.168.1.5", code });
      assertEquals(await other.look(UDP), 0);
    }
  });

  it("asks Windows twice, which lets a socket of one address beside one of all", async () => {
    const free = new Host("win32");
    assertEquals([await free.look(UDP), free.bound], [1, ["192.168.1.5", "0.0.0.0"]]);
    assertEquals(await Object.assign(new Host("win32"), { busy: "0.0.0.0" }).look(UDP), 0);
  });

  it("is not there for another host's port, nor for that of a flow", async () => {
    const other = { ...GRANTED, internal: { address: "192.168.1.9", port: 6000 } };
    assertEquals(await new Host().connects(REFUSED).look(other), 0);
    const remote = { address: "198.51.100.1", port: 80 };
    assertEquals(await new Host().connects(REFUSED).look({ ...GRANTED, remote }), 0);
  });
});
