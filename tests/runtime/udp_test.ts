import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { describe, it } from "node:test";
import { openGroup } from "../../adapters/multicast.ts";
import { NatError } from "../../core/errors.ts";
import { formatEndpoint } from "../../core/ip.ts";
import { guarded, Inbox, open, openEcho, openWhenFree, runtime } from "./support.ts";

/** Whether this runtime tells ICMP errors: Deno can connect no socket, so it never does. */
const TELLS_ICMP = runtime.name !== "deno";

for (const loopback of ["127.0.0.1", "::1"]) {
  describe(`UDP over ${loopback}`, () => {
    it("knows its local address, with a port of its own", async () => {
      const { socket } = await open({ local: { address: loopback, port: 0 } });

      assertEquals(socket.local.address, loopback);
      assert(socket.local.port > 0);
      socket.close();
    });

    it("hears from a canonical endpoint what it sent to an echo", async () => {
      const echo = await openEcho(loopback);
      const { socket, inbox } = await open({ local: { address: loopback, port: 0 } });

      socket.send(Uint8Array.of(1, 2, 3), echo.local);

      assertEquals(await inbox.next(), { type: "datagram", data: [1, 2, 3], from: echo.local });
      socket.close();
      echo.close();
    });

    it("when connected, knows the address that packets to the peer leave from", async () => {
      const peer = await open({ local: { address: loopback, port: 0 } });
      const { socket } = await open({ connect: peer.socket.local });

      socket.send(Uint8Array.of(1), peer.socket.local);

      assertEquals(socket.local.address, loopback);
      assertEquals(await peer.inbox.next(), { type: "datagram", data: [1], from: socket.local });
      socket.close();
      peer.socket.close();
    });

    it("when connected, hears its peer only", async () => {
      const peer = await open({ local: { address: loopback, port: 0 } });
      const stranger = await open({ local: { address: loopback, port: 0 } });
      const { socket, inbox } = await open({ connect: peer.socket.local });

      stranger.socket.send(Uint8Array.of(66), socket.local);
      peer.socket.send(Uint8Array.of(1), socket.local);

      assertEquals(await inbox.next(), { type: "datagram", data: [1], from: peer.socket.local });
      assertEquals(inbox.rest, []);
      for (const station of [peer, stranger, { socket }]) station.socket.close();
    });

    it("when connected, does not send to others", async () => {
      const peer = await open({ local: { address: loopback, port: 0 } });
      const other = await open({ local: { address: loopback, port: 0 } });
      const { socket, inbox } = await open({ connect: peer.socket.local });

      socket.send(Uint8Array.of(1), other.socket.local);

      const { error, to } = await inbox.nextError();
      assertStringIncludes(error.message, "the socket is connected to");
      assertEquals(to, other.socket.local);
      for (const station of [peer, other, { socket }]) station.socket.close();
    });

    it("when connected, tells that nobody listens where the runtime can", async () => {
      const gone = await openEcho(loopback);
      const { socket, inbox } = await open({ connect: gone.local });
      gone.close();

      socket.send(Uint8Array.of(1), gone.local);

      if (TELLS_ICMP) {
        assertEquals(await inbox.next(), { type: "unreachable", to: gone.local });
      } else {
        // Another exchange takes longer than the ICMP error would have.
        const echo = await openEcho(loopback);
        const other = await open({ connect: echo.local });
        other.socket.send(Uint8Array.of(1), echo.local);
        await other.inbox.next();
        assertEquals(inbox.rest, []);
        other.socket.close();
        echo.close();
      }
      socket.close();
    });

    it("sends on after an ICMP error, losing nothing", async () => {
      const first = await openEcho(loopback);
      const { socket, inbox } = await open({ connect: first.local });
      first.close();
      socket.send(Uint8Array.of(1), first.local);
      if (TELLS_ICMP) await inbox.next();
      const second = new Inbox();
      const local = first.local;
      const reborn = await openWhenFree({ local }, second.handlers);

      socket.send(Uint8Array.of(2), local);

      assertEquals(await second.next(), { type: "datagram", data: [2], from: socket.local });
      socket.close();
      reborn.close();
    });

    it("of two datagrams sent at once to nobody, neither throws", async () => {
      const gone = await openEcho(loopback);
      const { socket, inbox } = await open({ connect: gone.local });
      gone.close();

      socket.send(Uint8Array.of(1), gone.local);
      socket.send(Uint8Array.of(2), gone.local);

      if (TELLS_ICMP) assertEquals((await inbox.next()).type, "unreachable");
      socket.close();
    });

    it("serves others after a client went away without waiting for its answer", async () => {
      const server = await open({ local: { address: loopback, port: 0 } });
      const gone = await open({ local: { address: loopback, port: 0 } });
      const client = await open({ connect: server.socket.local });
      gone.socket.close();

      server.socket.send(Uint8Array.of(1), gone.socket.local);
      server.socket.send(Uint8Array.of(2), gone.socket.local);
      server.socket.send(Uint8Array.of(3), client.socket.local);

      const from = server.socket.local;
      assertEquals(await client.inbox.next(), { type: "datagram", data: [3], from });
      assertEquals(server.inbox.rest, []);
      server.socket.close();
      client.socket.close();
    });

    it("closes twice, and sends nothing afterwards", async () => {
      const peer = await open({ local: { address: loopback, port: 0 } });
      const { socket, inbox } = await open({ connect: peer.socket.local });

      socket.close();
      socket.close();
      socket.send(Uint8Array.of(1), peer.socket.local);

      assertEquals(inbox.rest, []);
      peer.socket.close();
    });

    it("keeps the order of a socket's first turn, with a peer and without", async () => {
      const to = await open({ local: { address: loopback, port: 0 } });
      const ids = Array.from({ length: 12 }, (_, id) => id);

      for (
        const options of [{ local: { address: loopback, port: 0 } }, { connect: to.socket.local }]
      ) {
        const { socket } = await open(options);
        for (const id of ids) socket.send(Uint8Array.of(id), to.socket.local);

        const heard: unknown[] = [];
        for (const _ of ids) {
          const next = await to.inbox.next();
          heard.push(next.type === "datagram" ? next.data[0] : next);
        }

        assertEquals(heard, ids);
        socket.close();
      }
      to.socket.close();
    });

    it("what was sent before it was closed leaves, in order", async () => {
      const to = await open({ local: { address: loopback, port: 0 } });

      for (
        const options of [{ local: { address: loopback, port: 0 } }, { connect: to.socket.local }]
      ) {
        const { socket } = await open(options);
        for (const id of [1, 2, 3]) socket.send(Uint8Array.of(id), to.socket.local);
        socket.close();

        for (const id of [1, 2, 3]) {
          const from = socket.local;
          assertEquals(await to.inbox.next(), { type: "datagram", data: [id], from });
        }
      }
      to.socket.close();
    });

    it("tells nothing of what fails after it was closed, and throws nothing", async () => {
      const echo = await openEcho(loopback);
      const { socket, inbox } = await open({ local: { address: loopback, port: 0 } });
      const other = await open({ connect: echo.local });

      socket.send(new Uint8Array(70_000), echo.local);
      socket.close();
      other.socket.send(Uint8Array.of(1), echo.local);
      await other.inbox.next();

      // Bun tells within the call, before it is closed.
      assertEquals(inbox.rest.length, runtime.name === "bun" ? 1 : 0);
      other.socket.close();
      echo.close();
    });

    it("a port in use is an error with a code", async () => {
      const { socket } = await open({ local: { address: loopback, port: 0 } });

      const error = await assertRejects(() => open({ local: socket.local }), NatError);

      assertEquals(error.code, "network");
      assertStringIncludes(error.message, String(socket.local.port));
      socket.close();
    });

    it("tells that a datagram has no port to go to, and sends on", async () => {
      const echo = await openEcho(loopback);
      const { socket, inbox } = await open({ local: { address: loopback, port: 0 } });
      const nowhere = { address: loopback, port: 0 };

      socket.send(Uint8Array.of(1), nowhere);
      socket.send(Uint8Array.of(2), echo.local);

      const heard = [await inbox.next(), await inbox.next()];
      const error = heard.find((one) => one.type === "error");
      assertEquals(heard.find(({ type }) => type === "datagram"), {
        type: "datagram",
        data: [2],
        from: echo.local,
      });
      assertEquals([error?.error.code, error?.to], ["network", nowhere]);
      assertStringIncludes(`${error?.error.message}`, `Cannot send to ${formatEndpoint(nowhere)}`);
      socket.close();
      echo.close();
    });

    it("tells a datagram too large to send through the handlers", async () => {
      const echo = await openEcho(loopback);
      const { socket, inbox } = await open({ local: { address: loopback, port: 0 } });

      socket.send(new Uint8Array(70_000), echo.local);

      const { error, to } = await inbox.nextError();
      assertEquals([error.code, to], ["network", echo.local]);
      assertStringIncludes(error.message, `Cannot send to ${formatEndpoint(echo.local)}: `);
      socket.close();
      echo.close();
    });
  });
}

describe("UDP", () => {
  it("an IPv6 socket on any address talks IPv4 too, with plain addresses", async () => {
    const echo = await openEcho("127.0.0.1");
    const { socket, inbox } = await open({ local: { address: "::", port: 0 } });

    socket.send(Uint8Array.of(4), echo.local);

    assertEquals(await inbox.next(), { type: "datagram", data: [4], from: echo.local });
    socket.close();
    echo.close();
  });

  it("an address that is not this host's is an error that names it", async () => {
    const local = { address: "203.0.113.77", port: 0 };

    const error = await assertRejects(() => open({ local }), NatError);

    assertEquals(error.code, "network");
    assertStringIncludes(error.message, "203.0.113.77");
  });

  it("several sockets hear announcements at once", async () => {
    const { socket: sender } = await open({ local: { address: "127.0.0.1", port: 0 } });
    // A free port, to be shared once it is known.
    const { port } = sender.local;
    const inboxes = [new Inbox(), new Inbox()];

    const listeners = await Promise.all(inboxes.map((inbox) =>
      openGroup(
        (options) => runtime.openUdp(options, inbox.handlers),
        { group: "224.0.0.1", interface: "127.0.0.1", port },
      ).catch(() => undefined)
    ));
    sender.send(Uint8Array.of(5), { address: "224.0.0.1", port });

    for (const [i, listener] of listeners.entries()) {
      // Only Linux is known to have multicast on its loopback interface.
      if (runtime.platform !== "linux") continue;
      assert(listener);
      const heard = await inboxes[i]!.next();
      assertEquals(heard, { type: "datagram", data: [5], from: sender.local });
    }
    for (const socket of [sender, ...listeners]) socket?.close();
  });

  it("sends to a group by each interface that is named, whatever becomes of another", async () => {
    const host = await open({ local: { address: "127.0.0.1", port: 0 } });
    const { port } = host.socket.local;
    const sender = await open({
      local: { address: "0.0.0.0", port: 0 },
      multicastBy: ["203.0.113.77", "127.0.0.1"],
    });
    const inbox = new Inbox();
    const listener = await openGroup(
      (options) => runtime.openUdp(options, inbox.handlers),
      { group: "224.0.0.1", interface: "127.0.0.1", port },
    ).catch(() => undefined);

    sender.socket.send(Uint8Array.of(6), { address: "224.0.0.1", port });
    sender.socket.send(Uint8Array.of(7), { address: "127.0.0.1", port });

    assertStringIncludes((await sender.inbox.nextError()).error.message, `224.0.0.1:${port}`);
    const from = { address: "127.0.0.1", port: sender.socket.local.port };
    assertEquals(await host.inbox.next(), { type: "datagram", data: [7], from });
    // Only Linux is known to have multicast on its loopback interface.
    if (runtime.platform === "linux") {
      assert(listener);
      assertEquals(await inbox.next(), { type: "datagram", data: [6], from });
    }
    for (const socket of [host.socket, sender.socket, listener]) socket?.close();
  });

  it("hears IPv6 announcements on an interface with a link-local address, from its zone", async () => {
    const isLinkLocal = (address: string) => /^fe80:.*%/.test(address);
    const own = runtime.interfaces().find(({ address }) => isLinkLocal(address));
    // Without such an interface there is none to hear anything on, and nothing is opened.
    const name = own?.name ?? "no-interface";
    const local = { address: own?.address ?? "::1", port: 0 };
    const { socket: sender } = await open({ local });
    const { port } = sender.local;
    const inbox = new Inbox();

    const listener = await openGroup(
      (options) => runtime.openUdp(options, inbox.handlers),
      { group: "ff02::1", interface: name, port },
    ).catch(() => undefined);

    assertEquals(listener !== undefined, own !== undefined);
    if (listener) {
      sender.send(Uint8Array.of(6), { address: `ff02::1%${name}`, port });
      assertEquals(await inbox.next(), { type: "datagram", data: [6], from: sender.local });
      listener.close();
    }
    sender.close();
  });

  it("timers longer than 2³¹ − 1 ms do not fire at once", async () => {
    let isFired = false;

    const cancel = runtime.setTimer(2 ** 40, () => (isFired = true), false);
    await guarded(new Promise<void>((resolve) => void runtime.setTimer(20, resolve, true)));

    assertEquals(isFired, false);
    cancel();
  });
});
