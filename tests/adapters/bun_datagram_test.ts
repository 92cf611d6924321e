import { assertEquals, assertRejects } from "@std/assert";
import { describe, it } from "node:test";
import { openUdpSocket, type UdpSocketFunction } from "../../adapters/bun_datagram.ts";
import type { UdpOptions } from "../../adapters/runtime.ts";
import { NatError } from "../../core/errors.ts";
import type { Endpoint } from "../../core/machine.ts";

const PEER = { address: "192.0.2.1", port: 5351 };
const withCode = (code: string) => Object.assign(new Error(`send ${code}`), { code });

/** A `Bun.udpSocket` whose sends come to what is said beforehand: taken, by default. */
async function openOn(outcomes: (boolean | Error)[], options: UdpOptions = { connect: PEER }) {
  const sent: number[] = [];
  const told: unknown[] = [];
  let isClosed = false;
  let drain = () => {};
  const udpSocket: UdpSocketFunction = ({ socket }) => {
    drain = socket.drain;
    return Promise.resolve({
      address: { address: "192.0.2.7", port: 4000 },
      send(data) {
        const outcome = outcomes.shift() ?? true;
        if (typeof outcome !== "boolean") throw outcome;
        if (outcome) sent.push(data[0]!);
        return outcome;
      },
      addMembership: () => true,
      setMulticastInterface: () => true,
      unref() {},
      ref() {},
      close: () => void (isClosed = true),
    });
  };
  const socket = await openUdpSocket(udpSocket, options, {
    onDatagram() {},
    onUnreachable: (to: Endpoint) => void told.push(["unreachable", to]),
    onError: (error: NatError, to?: Endpoint) => void told.push([error.code, error.message, to]),
  });
  const send = (...ids: number[]) => ids.forEach((id) => socket.send(Uint8Array.of(id), PEER));
  return { socket, send, sent, told, isClosed: () => isClosed, drain: () => drain() };
}

describe("openUdpSocket()", () => {
  it("keeps what the system does not take at present, in order, until it does", async () => {
    const { send, sent, drain } = await openOn([true, false, false]);

    send(1, 2, 3);
    assertEquals(sent, [1]);
    drain();
    assertEquals(sent, [1]);
    drain();

    assertEquals(sent, [1, 2, 3]);
  });

  it("closes once what waits has left", async () => {
    const { socket, send, sent, drain, isClosed } = await openOn([false]);

    send(1);
    socket.close();
    send(2);
    assertEquals(isClosed(), false);
    drain();

    assertEquals([sent, isClosed()], [[1], true]);
  });

  it("tells a firewall's refusal at once, with the destination", async () => {
    const { send, sent, told } = await openOn([withCode("EPERM")]);

    send(1, 2);

    const message = "Cannot send to 192.0.2.1:5351: the operating system forbids it (EPERM)";
    assertEquals(told, [["permission", message, PEER]]);
    assertEquals(sent, [2]);
  });

  it("tells once that no route leads there", async () => {
    const { send, told } = await openOn(Array(4).fill(withCode("ENETUNREACH")));

    send(1);

    assertEquals(told, [["network", "Cannot send to 192.0.2.1:5351: send ENETUNREACH", PEER]]);
  });

  it("sends again what ICMP's answer to an earlier datagram kept back", async () => {
    const { send, sent, told } = await openOn([withCode("ECONNREFUSED")]);

    send(1);

    assertEquals([sent, told], [[1], [["unreachable", PEER]]]);
  });

  it("without a peer, blames nobody for ICMP's answer to an earlier datagram", async () => {
    const { send, sent, told } = await openOn([withCode("EHOSTUNREACH")], {});

    send(1);

    assertEquals([sent, told], [[1], []]);
  });

  /** What a `Bun.udpSocket` is opened with and asked for, and what it hears. */
  async function openedWith(options: UdpOptions) {
    const calls: unknown[][] = [];
    const heard: unknown[] = [];
    let given: Parameters<UdpSocketFunction>[0] | undefined;
    const socket = await openUdpSocket(
      (options) => {
        given = options;
        return Promise.resolve({
          address: { address: "192.0.2.7", port: 4000 },
          send: (...args) => Boolean(calls.push(["send", ...args])),
          addMembership: (...args) => Boolean(calls.push(["join", ...args])),
          setMulticastInterface: (...args) => Boolean(calls.push(["by", ...args])),
          unref: () => void calls.push(["unref"]),
          ref: () => void calls.push(["ref"]),
          close: () => void calls.push(["close"]),
        });
      },
      options,
      {
        onDatagram: (data, from) => void heard.push([...data, from]),
        onUnreachable: (to) => void heard.push(["unreachable", to]),
        onError: (error, to) => void heard.push([error.code, to]),
      },
    );
    const { socket: hooks, ...rest } = given!;
    return { socket, calls, heard, hooks, opened: rest };
  }

  it("is bound and connected as it is told, and shared where it is to be", async () => {
    const { address: hostname, port } = PEER;
    assertEquals((await openedWith({ connect: PEER })).opened, {
      hostname: "0.0.0.0",
      port: 0,
      connect: { hostname, port },
    });
    const local = { address: "192.0.2.7", port: 4000 };
    const shared = await openedWith({ local, reuseAddress: true });
    assertEquals(shared.opened, { hostname: "192.0.2.7", port: 4000, flags: 20 });
    assertEquals(shared.socket.local, local);
  });

  it("joins a group, on an interface where one is named", async () => {
    const joins = async (group: string, name?: string) => {
      const multicast = { group, ...(name !== undefined && { interface: name }) };
      return (await openedWith({ multicast })).calls;
    };
    assertEquals(await joins("224.0.0.1"), [["join", "224.0.0.1"]]);
    assertEquals(await joins("224.0.0.1", "192.0.2.7"), [["join", "224.0.0.1", "192.0.2.7"]]);
    assertEquals(await joins("ff02::1", "eth0"), [["join", "ff02::1", "::%eth0"]]);
  });

  it("sends to a group by each interface that is named", async () => {
    const { socket, calls } = await openedWith({ multicastBy: ["192.0.2.7", "198.51.100.7"] });
    const data = Uint8Array.of(1);

    socket.send(data, { address: "224.0.0.1", port: 5350 });

    assertEquals(calls, [
      ["by", "192.0.2.7"],
      ["send", data, 5350, "224.0.0.1"],
      ["by", "198.51.100.7"],
      ["send", data, 5350, "224.0.0.1"],
    ]);
  });

  it("closes a socket that may not join its group, and says why", async () => {
    let isClosed = false;
    const opening = openUdpSocket(
      () =>
        Promise.resolve({
          address: { address: "0.0.0.0", port: 5350 },
          send: () => true,
          addMembership: () => {
            throw withCode("ENODEV");
          },
          setMulticastInterface: () => true,
          unref() {},
          ref() {},
          close: () => void (isClosed = true),
        }),
      { multicast: { group: "224.0.0.1" } },
      { onDatagram() {}, onUnreachable() {}, onError() {} },
    );
    assertEquals((await assertRejects(() => opening, NatError)).code, "network");
    assertEquals(isClosed, true);
  });

  it("sends to whom it is told, by its peer to nobody else, and after its end to nobody", async () => {
    const other = { address: "192.0.2.9", port: 9 };
    const data = Uint8Array.of(1);
    const free = await openedWith({});
    free.socket.send(data, other);
    assertEquals(free.calls, [["send", data, 9, "192.0.2.9"]]);
    const bound = await openedWith({ connect: PEER });
    bound.socket.send(data, other);
    bound.socket.send(data, PEER);
    assertEquals([bound.calls, bound.heard], [[["send", data]], [["network", other]]]);
    bound.socket.unref?.();
    bound.socket.ref?.();
    bound.socket.close();
    bound.socket.close();
    bound.socket.send(data, PEER);
    bound.socket.send(data, other);
    assertEquals(bound.calls.slice(1), [["unref"], ["ref"], ["close"]]);
    assertEquals(bound.heard.length, 1);
  });

  it("hears its peer alone, and after its end nobody and of no failure", async () => {
    const { socket, heard, hooks } = await openedWith({ connect: PEER });
    hooks.data(socket, Uint8Array.of(1), PEER.port, PEER.address);
    hooks.data(socket, Uint8Array.of(2), 9, "192.0.2.9");
    hooks.error(withCode("ECONNREFUSED"));
    const before = [[1, PEER], ["unreachable", PEER]];
    assertEquals(heard, before);
    socket.close();
    hooks.data(socket, Uint8Array.of(3), PEER.port, PEER.address);
    hooks.error(withCode("ECONNREFUSED"));
    assertEquals(heard, before);
  });

  it("is 'network' where connecting fails", async () => {
    const udpSocket = () => Promise.reject(withCode("ENETUNREACH"));
    const handlers = { onDatagram() {}, onUnreachable() {}, onError() {} };

    const opening = openUdpSocket(udpSocket, { connect: PEER }, handlers);

    assertEquals((await assertRejects(() => opening, NatError)).code, "network");
  });
});
