/**
 * A TURN server in the virtual network: as much of RFC 8656 as an agent asks for.
 *
 * @module
 */
import { putU16, u16 } from "../../../core/bytes.ts";
import { formatEndpoint } from "../../../core/ip.ts";
import type { Endpoint } from "../../../core/machine.ts";
import type { Segment } from "../../../core/sim/segment.ts";
import type { SimSocket } from "../../../core/sim/socket.ts";
import type { World } from "../../../core/sim/world.ts";
import {
  decodeStun,
  encodeStun,
  hasIntegrity,
  isChannelData,
  STUN_METHOD,
  type StunAttributes,
} from "../../../core/stun/codec.ts";
import { longTermKey } from "../../../core/stun/integrity.ts";

/** Where it is. */
export const TURN: Endpoint = { address: "198.51.100.9", port: 3478 };
/** Who is let in. */
export const TURN_USER = { username: "user", password: "pass" } as const;

/** One client and its address. */
export interface Allocation {
  readonly client: Endpoint;
  readonly socket: SimSocket;
  readonly permitted: Set<string>;
  readonly channels: Map<number, Endpoint>;
}

/** The allocations that there are; tests look at them. */
export class TurnServer {
  readonly allocations: Map<string, Allocation> = new Map();
  /** Datagrams relayed, either way. */
  relayed = 0;
  readonly #socket: SimSocket;
  readonly #open: () => SimSocket;

  constructor(world: World, segment: Segment) {
    const host = world.host("turn");
    host.attach(segment, TURN.address);
    this.#open = () => host.bind({ address: TURN.address });
    this.#socket = host.bind(TURN);
    this.#socket.onDatagram = (data, from) => this.#hear(data, from);
  }

  #hear(data: Uint8Array, from: Endpoint): void {
    const own = this.allocations.get(formatEndpoint(from));
    if (isChannelData(data)) {
      const to = own?.channels.get(u16(data, 0));
      if (to) this.#relay(own!, to, data.subarray(4, 4 + u16(data, 2)));
      return;
    }
    const message = decodeStun(data);
    if (typeof message === "string") return;
    const { attributes, method, transactionId } = message;
    const peers = attributes.xorPeerAddresses ?? [];
    if (message.class === "indication") {
      if (own && peers[0] && attributes.data) this.#relay(own, peers[0], attributes.data);
      return;
    }
    const realm = "example.org", nonce = "nonce";
    const key = longTermKey(TURN_USER.username, realm, TURN_USER.password);
    const answer = (of: "success" | "error", more: StunAttributes) =>
      this.#socket.send(
        from,
        encodeStun({ class: of, method, transactionId, attributes: more }, {
          ...(of === "success" && { key }),
        }),
      );
    if (!hasIntegrity(message, key)) {
      const code = 401;
      return answer("error", { errorCode: { code, reason: "Unauthorized" }, realm, nonce });
    }
    switch (method) {
      case STUN_METHOD.ALLOCATE: {
        const made = own ?? this.#allocate(from);
        const relayed = { address: TURN.address, port: made.socket.port };
        const seen = { xorRelayedAddress: relayed, xorMappedAddress: from };
        return answer("success", { ...seen, lifetimeSeconds: 600 });
      }
      case STUN_METHOD.REFRESH:
        if (own && attributes.lifetimeSeconds === 0) {
          own.socket.close();
          this.allocations.delete(formatEndpoint(from));
        }
        return answer("success", { lifetimeSeconds: attributes.lifetimeSeconds ?? 600 });
      case STUN_METHOD.CHANNEL_BIND:
        if (own && peers[0]) own.channels.set(attributes.channelNumber!, peers[0]);
        return answer("success", {});
      case STUN_METHOD.CREATE_PERMISSION:
        for (const { address } of peers) own?.permitted.add(address);
        return answer("success", {});
    }
  }

  #allocate(client: Endpoint): Allocation {
    const made = {
      client,
      socket: this.#open(),
      permitted: new Set<string>(),
      channels: new Map(),
    };
    this.allocations.set(formatEndpoint(client), made);
    made.socket.onDatagram = (data, from) => this.#deliver(made, from, data);
    return made;
  }

  #relay(own: Allocation, to: Endpoint, data: Uint8Array): void {
    if (!own.permitted.has(to.address)) return;
    this.relayed++;
    own.socket.send(to, data.slice());
  }

  #deliver(own: Allocation, from: Endpoint, data: Uint8Array): void {
    if (!own.permitted.has(from.address)) return;
    this.relayed++;
    const channel = [...own.channels].find(([, peer]) =>
      peer.address === from.address && peer.port === from.port
    );
    if (channel) {
      const bytes = new Uint8Array(4 + data.length);
      putU16(bytes, 0, channel[0]);
      putU16(bytes, 2, data.length);
      bytes.set(data, 4);
      return this.#socket.send(own.client, bytes);
    }
    this.#socket.send(
      own.client,
      encodeStun({
        class: "indication",
        method: STUN_METHOD.DATA,
        transactionId: new Uint8Array(12),
        attributes: { xorPeerAddresses: [from], data: data.slice() },
      }),
    );
  }
}
