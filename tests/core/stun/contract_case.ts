/**
 * How the STUN machines join the machine contract's table of tests.
 *
 * @module
 */
import { decodeStun, encodeStun, isStun, STUN_METHOD } from "../../../core/stun/codec.ts";
import { NatBehaviour } from "../../../core/stun/behaviour.ts";
import { StunClient, type StunClientEvent } from "../../../core/stun/client.ts";
import { longTermKey } from "../../../core/stun/integrity.ts";
import { ReflexiveKeeper } from "../../../core/stun/reflexive.ts";
import { StunServer } from "../../../core/stun/server.ts";
import { TurnClient } from "../../../core/stun/turn.ts";
import type { Machine } from "../../../core/machine.ts";
import { below, type RandomSource, seededRandom } from "../../../core/random.ts";
import type { MachineCase, WorldAction } from "../machine_case.ts";
import { CLIENT, SERVER } from "./rig.ts";

const OTHER = { address: "198.51.100.2", port: 3479 };
const credentials = { type: "long-term", username: "user", password: "pass" } as const;

/** What a server would say, by the request's first byte of the transaction id: all kinds of things. */
function answer(request: Uint8Array): Uint8Array {
  const transactionId = request.subarray(8, 20);
  const errors = [300, 401, 420, 438, 500];
  const code = errors[request[8]! % 8];
  return encodeStun({
    class: code === undefined ? "success" : "error",
    method: STUN_METHOD.BINDING,
    transactionId,
    attributes: code === undefined ? { xorMappedAddress: CLIENT } : {
      errorCode: { code, reason: "" },
      realm: "r",
      nonce: `n${request[9]}`,
      alternateServer: OTHER,
    },
  });
}

/** Connections are accepted or refused by their number; what is written is answered. */
function perform(action: WorldAction, machine: Machine<unknown>, now: number): boolean {
  if (action.type !== "stream") return false;
  const { id } = action;
  if (action.do === "connect") {
    machine.handleStream!(
      id,
      id % 3 === 2
        ? { type: "closed", reason: "refused" }
        : { type: "open", local: CLIENT, peer: action.to },
      now,
    );
  } else if (action.do === "write" && id >= 0) {
    machine.handleStream!(id, { type: "data", data: answer(action.data) }, now);
  } else return false;
  return true;
}

/** A client with requests by UDP and TCP, with and without credentials. */
export const stunClientCase: MachineCase = {
  name: "StunClient",
  create(seed) {
    const machine = new StunClient({ random: seededRandom(seed) });
    const begin = (random: RandomSource, now: number): number =>
      machine.request({
        server: below(random, 3) === 0 ? OTHER : SERVER,
        transport: below(random, 4) === 0 ? "tcp" : "udp",
        ...(below(random, 2) === 0 && { credentials }),
      }, now);
    return {
      machine,
      begin(now) {
        const random = seededRandom(seed + 1);
        for (let i = 0; i < 15; i++) begin(random, now);
      },
      reply({ data, to }) {
        return isStun(data) ? { data: answer(data), from: to } : undefined;
      },
      perform,
      ids: {
        begin,
        turn(_random, id, now) {
          machine.cancel(id, now);
        },
        disturb(random, now) {
          machine.handleUnreachable(SERVER, "client", now);
          machine.handleStream(below(random, 4), { type: "closed", reason: "ended" }, now);
        },
        isFinal(event) {
          const { type } = event as StunClientEvent;
          return type === "answered" || type === "failed";
        },
        close(now) {
          machine.close(now);
        },
      },
    };
  },
};

/** A keeper of a socket's endpoint, with two servers that say all kinds of things. */
export const reflexiveKeeperCase: MachineCase = {
  name: "ReflexiveKeeper",
  create(seed) {
    const machine = new ReflexiveKeeper({ random: seededRandom(seed), servers: [SERVER, OTHER] });
    return {
      machine,
      begin(now) {
        machine.ask(now);
      },
      reply: ({ data, to }) => isStun(data) ? { data: answer(data), from: to } : undefined,
    };
  },
};

/** A server with two addresses that has answered by UDP and TCP. */
export const stunServerCase: MachineCase = {
  name: "StunServer",
  create(seed) {
    const machine = new StunServer({ listen: SERVER, alternate: OTHER });
    const random = seededRandom(seed);
    const request = () => {
      const transactionId = new Uint8Array(12);
      random.fill(transactionId);
      return encodeStun({ class: "request", method: STUN_METHOD.BINDING, transactionId });
    };
    return {
      machine,
      begin(now) {
        for (let key = 0; key < 8; key++) {
          for (const { key, local } of machine.sockets()) {
            machine.handleSocket(key, { ok: true, local: local! }, now);
          }
        }
        machine.handleDatagram(request(), CLIENT, "server", now);
        machine.handleStream(-1, {
          type: "open",
          local: SERVER,
          peer: CLIENT,
          socket: "tcp server",
        }, now);
        machine.handleStream(-1, { type: "data", data: request() }, now);
      },
      // A client that asks again a few times.
      reply({ data }) {
        return data[8]! < 200 ? { data: request(), from: CLIENT } : undefined;
      },
    };
  },
};

/** A discovery through a NAT that keeps ports, with a server that answers all that it is asked. */
export const natBehaviourCase: MachineCase = {
  name: "NatBehaviour",
  create(seed) {
    const machine = new NatBehaviour({
      servers: [SERVER, OTHER],
      localAddress: "192.168.1.2",
      random: seededRandom(seed),
      maxLifetimeSeconds: 60,
    });
    return {
      machine,
      begin(now) {
        machine.start(now);
        for (const { key, local } of machine.sockets()) {
          machine.handleSocket(key, { ok: true, local: local! }, now);
        }
      },
      reply({ data, to, socket }) {
        const local = machine.sockets().find(({ key }) => key === socket)?.local;
        if (!isStun(data) || to.address === CLIENT.address || !local) return undefined;
        const answer = encodeStun({
          class: "success",
          method: STUN_METHOD.BINDING,
          transactionId: data.subarray(8, 20),
          attributes: {
            xorMappedAddress: { address: CLIENT.address, port: local.port },
            otherAddress: OTHER,
          },
        });
        return { data: answer, from: to };
      },
    };
  },
};

/** A TURN client with a server that grants all it is asked, and peers that answer. */
export const turnClientCase: MachineCase = {
  name: "TurnClient",
  create(seed) {
    const machine = new TurnClient({
      server: SERVER,
      username: "user",
      password: "pass",
      random: seededRandom(seed),
    });
    const key = longTermKey("user", "r", "pass");
    return {
      machine,
      begin(now) {
        machine.allocate(now);
        machine.permit("192.0.2.9", now);
      },
      reply({ data, to }) {
        const asked = decodeStun(data);
        if (typeof asked === "string" || asked.class !== "request") return undefined;
        const { method, transactionId, integrityAt } = asked;
        const isKnown = integrityAt > 0;
        const answer = encodeStun({
          class: isKnown ? "success" : "error",
          method,
          transactionId,
          attributes: isKnown
            ? { xorRelayedAddress: OTHER, xorMappedAddress: CLIENT, lifetimeSeconds: 600 }
            : { errorCode: { code: 401, reason: "" }, realm: "r", nonce: "n" },
        }, isKnown ? { key } : {});
        return { data: answer, from: to };
      },
    };
  },
};
