import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { describe, it } from "node:test";
import {
  bindEndpoint,
  boundEndpoint,
  destination,
  isBelated,
  openError,
  reportError,
  sendByEach,
  sendError,
  SendQueue,
  socketFamily,
  sourceReader,
  wrongPeer,
} from "../../adapters/udp.ts";
import { openGroup } from "../../adapters/multicast.ts";
import type { UdpOptions, UdpSocket } from "../../adapters/runtime.ts";
import { NatError } from "../../core/errors.ts";

const PEER = { address: "192.0.2.1", port: 5351 };
const ZONED = { address: "fe80::1%eth0", port: 5351 };

describe("sourceReader()", () => {
  it("makes addresses canonical", () => {
    const read = sourceReader({});

    assertEquals(read("::FFFF:192.0.2.9", 7), { address: "192.0.2.9", port: 7 });
    assertEquals(read("2001:DB8:0::1", 8), { address: "2001:db8::1", port: 8 });
    assertEquals(read("2001:DB8:0::1", 9), { address: "2001:db8::1", port: 9 });
    assertEquals(read("nonsense", 9), undefined);
  });

  it("hears only the peer of a connected socket: its address and its port", () => {
    const read = sourceReader({ connect: PEER });

    assertEquals(read("192.0.2.1", 5351), PEER);
    assertEquals(read("192.0.2.1", 5352), undefined);
    assertEquals(read("192.0.2.2", 5351), undefined);
  });

  it("adds the zone that a runtime leaves out, and never another's", () => {
    const read = sourceReader({ connect: ZONED });
    const group = sourceReader({ multicast: { group: "ff02::1", interface: "eth0" } });
    const bound = sourceReader({ local: { address: "fe80::7%eth0", port: 0 } });

    assertEquals(read("fe80::1", 5351), ZONED);
    assertEquals(read("fe80::1%eth1", 5351), undefined);
    assertEquals(group("fe80::1", 1)?.address, "fe80::1%eth0");
    assertEquals(group("fe80::1%eth1", 1)?.address, "fe80::1%eth1");
    assertEquals(group("2001:db8::1", 1)?.address, "2001:db8::1");
    assertEquals(bound("fe80::1", 1)?.address, "fe80::1%eth0");
  });
});

describe("where a socket is bound", () => {
  it("has the family of the peer, the group or the local address", () => {
    assertEquals(socketFamily({}), 4);
    assertEquals(socketFamily({ connect: ZONED }), 6);
    assertEquals(socketFamily({ multicast: { group: "ff02::1" } }), 6);
    assertEquals(socketFamily({ local: { address: "::", port: 0 } }), 6);
  });

  it("is any address, the local one, or a group on its interface", () => {
    const local = { address: "ff02::1", port: 5350 };
    const multicast = { group: "ff02::1", interface: "eth0" };

    assertEquals(bindEndpoint({ connect: ZONED }), { address: "::", port: 0 });
    assertEquals(bindEndpoint({ local: PEER }), PEER);
    assertEquals(bindEndpoint({ local, multicast }).address, "ff02::1%eth0");
    assertEquals(bindEndpoint({ local, multicast: { group: "ff02::1" } }).address, "ff02::1");
  });

  it("is told with the zone", () => {
    const options = { local: { address: "fe80::7%eth0", port: 0 } };

    const bound = boundEndpoint({ address: "fe80::7", port: 9 }, options);

    assertEquals(bound, { address: "fe80::7%eth0", port: 9 });
  });
});

describe("destination()", () => {
  it("maps IPv4 on an IPv6 socket only", () => {
    assertEquals(destination("192.0.2.1", 6), "::ffff:192.0.2.1");
    assertEquals(destination("192.0.2.1", 4), "192.0.2.1");
    assertEquals(destination("fe80::1%eth0", 6), "fe80::1%eth0");
  });
});

describe("openError()", () => {
  const withCode = (code: string) => Object.assign(new Error(`bind ${code}`), { code });
  const named = (name: string) => Object.assign(new Error("refused"), { name });

  it("is 'permission' and names Deno's or Node's flag where the runtime forbids", () => {
    for (const error of [named("NotCapable"), withCode("ERR_ACCESS_DENIED")]) {
      const failure = openError(error, { connect: PEER });

      assertEquals([failure.code, failure.cause], ["permission", error]);
      assertEquals(
        failure.message,
        "Cannot open a UDP socket on 0.0.0.0:0 to 192.0.2.1:5351: --allow-net is needed",
      );
    }
  });

  it("is 'permission' where the operating system forbids", () => {
    for (const error of [withCode("EACCES"), withCode("EPERM"), named("PermissionDenied")]) {
      const failure = openError(error, { local: { address: "::1", port: 80 } });

      assertEquals(failure.code, "permission");
      assertStringIncludes(failure.message, "on [::1]:80: the operating system forbids it");
    }
  });

  it("is 'network' for the rest, and leaves a NatError as it is", () => {
    const known = new NatError("closed", "closed");

    assertEquals(openError(withCode("EADDRINUSE"), {}).code, "network");
    assertEquals(openError("a string", {}).message.endsWith("0.0.0.0:0: a string"), true);
    assertEquals(openError(known, {}), known);
  });
});

describe("reportError()", () => {
  const report = (code: string, peer: typeof PEER | undefined) => {
    const told: unknown[] = [];
    reportError({ code }, peer, {
      onDatagram() {},
      onUnreachable: (to) => void told.push(to),
      onError: (error) => void told.push(error),
    });
    return told;
  };

  it("tells a refusal as the peer's, and drops one whose datagram is unknown", () => {
    assertEquals(report("ECONNREFUSED", PEER), [PEER]);
    assertEquals(report("ECONNRESET", PEER), [PEER]);
    assertEquals(report("ECONNREFUSED", undefined), []);
  });

  it("tells everything else as an error, with the destination where there is one", () => {
    const [failure] = report("EPERM", PEER) as NatError[];
    const [ownFault] = report("EBADF", undefined) as NatError[];

    assertEquals(failure?.code, "permission");
    assertStringIncludes(failure!.message, "Cannot send to 192.0.2.1:5351: ");
    assertEquals(ownFault?.code, "network");
    assertStringIncludes(ownFault!.message, "Cannot use a UDP socket: ");
  });
});

describe("sendError()", () => {
  const withCode = (code: string) => Object.assign(new Error(`send ${code}`), { code });

  it("is 'permission' where a firewall refuses, 'network' where no route leads there", () => {
    assertEquals(sendError(withCode("EPERM"), PEER).code, "permission");
    assertEquals(sendError(withCode("EACCES"), PEER).code, "permission");
    for (const code of ["ENETUNREACH", "EHOSTUNREACH", "UNKNOWN"]) {
      const { code: kind, message } = sendError(withCode(code), PEER);

      assertEquals(kind, "network");
      assertEquals(message, `Cannot send to 192.0.2.1:5351: send ${code}`);
    }
  });

  it("tells what may be ICMP's answer to an earlier datagram", () => {
    for (const code of ["ECONNREFUSED", "ECONNRESET", "EHOSTUNREACH", "ENETUNREACH"]) {
      assertEquals(isBelated({ code }), true);
    }
    for (const code of ["EPERM", "EMSGSIZE", "UNKNOWN"]) assertEquals(isBelated({ code }), false);
  });
});

describe("SendQueue", () => {
  /** Sends that end when told to. */
  const slowQueue = () => {
    const sent: number[] = [];
    const pending: (() => void)[] = [];
    const queue = new SendQueue((data, _, done) => {
      sent.push(data[0]!);
      pending.push(done);
    });
    return { sent, queue, finish: () => pending.shift()!() };
  };

  it("sends the next one only once the one before has left", () => {
    const { sent, queue, finish } = slowQueue();

    for (const id of [1, 2, 3]) queue.push(Uint8Array.of(id), PEER);
    assertEquals(sent, [1]);
    finish();
    assertEquals(sent, [1, 2]);
    queue.push(Uint8Array.of(4), PEER);
    for (let i = 0; i < 3; i++) finish();

    assertEquals(sent, [1, 2, 3, 4]);
  });

  it("is idle at once where nothing waits, else once all has left", () => {
    const { sent, queue, finish } = slowQueue();
    const idle: string[] = [];
    queue.whenIdle(() => idle.push(`before ${sent}`));

    for (const id of [1, 2]) queue.push(Uint8Array.of(id), PEER);
    queue.whenIdle(() => idle.push(`after ${sent}`));
    finish();
    assertEquals(idle, ["before "]);
    finish();

    assertEquals(idle, ["before ", "after 1,2"]);
  });

  it("keeps no more than it must, and tells that it takes no more", () => {
    const { sent, queue, finish } = slowQueue();
    const taken: boolean[] = [];

    for (let i = 0; i < 4098; i++) taken.push(queue.push(new Uint8Array(1), PEER));
    for (let i = 0; i < 4097; i++) finish();

    assertEquals([taken.filter((isTaken) => isTaken).length, taken.at(-1)], [4097, false]);
    assertEquals(sent.length, 4097);
    assertEquals(queue.push(new Uint8Array(1), PEER), true);
  });

  it("sends thousands that leave at once without a stack that deep", () => {
    let sent = 0;
    let release = () => {};
    const queue = new SendQueue((_data, _to, done) => {
      if (sent++ === 0) release = done;
      else done();
    });

    for (let i = 0; i < 4000; i++) queue.push(new Uint8Array(1), PEER);
    release();

    assertEquals(sent, 4000);
  });
});

describe("sendByEach()", () => {
  const GROUP = { address: "224.0.0.1", port: 5350 };
  const BY = ["192.0.2.7", "198.51.100.7"];

  /** What is done, in its order; a datagram has left once `finish` is called. */
  function recorded(options: UdpOptions, gone?: string) {
    const steps: string[] = [];
    let finish = () => {};
    const send = sendByEach(
      options,
      (address) => {
        if (address === gone) throw new Error("gone");
        steps.push(`by ${address}`);
      },
      (data, to, done) => {
        steps.push(`send ${data} to ${to.address}`);
        finish = done;
      },
      (error, to) => void steps.push(`${error} to ${to.address}`),
    );
    return { steps, send, finish: () => finish() };
  }

  it("chooses the next interface once the datagram has left by the one before", () => {
    const { steps, send, finish } = recorded({ multicastBy: BY });

    send(Uint8Array.of(1), GROUP, () => steps.push("done"));
    const first = ["by 192.0.2.7", "send 1 to 224.0.0.1"];
    assertEquals(steps, first);
    finish();
    const second = ["by 198.51.100.7", "send 1 to 224.0.0.1"];
    assertEquals(steps, [...first, ...second]);
    finish();

    assertEquals(steps, [...first, ...second, "done"]);
  });

  it("leaves out an interface that is gone, and tells so", () => {
    const { steps, send, finish } = recorded({ multicastBy: BY }, BY[0]);

    send(Uint8Array.of(1), GROUP, () => steps.push("done"));
    finish();

    const sent = ["by 198.51.100.7", "send 1 to 224.0.0.1"];
    assertEquals(steps, ["Error: gone to 224.0.0.1", ...sent, "done"]);
  });

  it("sends to one host once, and to a group as the system likes where no interface is named", () => {
    for (const [options, to] of [[{ multicastBy: BY }, PEER], [{}, GROUP]] as const) {
      const { steps, send, finish } = recorded(options);

      send(Uint8Array.of(1), to, () => steps.push("done"));
      finish();

      assertEquals(steps, [`send 1 to ${to.address}`, "done"]);
    }
  });
});

describe("wrongPeer()", () => {
  it("names both ends", () => {
    assertEquals(
      wrongPeer(ZONED, PEER).message,
      "Cannot send to [fe80::1%eth0]:5351: the socket is connected to 192.0.2.1:5351",
    );
  });
});

describe("openGroup()", () => {
  const tryAll = async (options: Parameters<typeof openGroup>[1], failures: unknown[]) => {
    const tried: UdpOptions[] = [];
    const socket = {} as UdpSocket;
    const opened = await openGroup((attempt) => {
      tried.push(attempt);
      const failure = failures.shift();
      return failure === undefined ? Promise.resolve(socket) : Promise.reject(failure);
    }, options);
    return { tried, isOpen: opened === socket };
  };
  const refusal = (why: string) => new NatError("network", why);

  it("binds the group, shared with other processes", async () => {
    const options = { group: "239.255.255.250", port: 1900, interface: "192.0.2.7" };
    const { tried, isOpen } = await tryAll(options, []);

    assertEquals(isOpen, true);
    assertEquals(tried, [{
      local: { address: "239.255.255.250", port: 1900 },
      reuseAddress: true,
      multicast: { group: "239.255.255.250", interface: "192.0.2.7" },
    }]);
  });

  it("binds any address where the group cannot be bound", async () => {
    const options = { group: "ff02::1", port: 5350, interface: "eth0" };
    const { tried, isOpen } = await tryAll(options, [refusal("EADDRNOTAVAIL")]);

    assertEquals(isOpen, true);
    assertEquals(tried.map(({ local }) => local?.address), ["ff02::1", "::"]);
  });

  it("tells why neither could be bound", async () => {
    const failures = [refusal("EADDRNOTAVAIL"), refusal("EADDRINUSE")];

    const failing = tryAll({ group: "224.0.0.1", port: 5350 }, failures);

    const error = await assertRejects(() => failing, NatError);
    assertEquals(error.message, "EADDRINUSE");
  });
});
