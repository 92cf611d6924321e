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

  it("is 'network' where connecting fails", async () => {
    const udpSocket = () => Promise.reject(withCode("ENETUNREACH"));
    const handlers = { onDatagram() {}, onUnreachable() {}, onError() {} };

    const opening = openUdpSocket(udpSocket, { connect: PEER }, handlers);

    assertEquals((await assertRejects(() => opening, NatError)).code, "network");
  });
});
