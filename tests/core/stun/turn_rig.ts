/** A TURN client and a small server that a test turns the wrong way at will. */
import { assert } from "@std/assert";
import { putU16, u16 } from "../../../core/bytes.ts";
import {
  encodeStun,
  hasIntegrity,
  isChannelData,
  STUN_METHOD,
  type StunAttributes,
  type StunMessage,
} from "../../../core/stun/codec.ts";
import { longTermKey } from "../../../core/stun/integrity.ts";
import { TurnClient, type TurnClientOptions, type TurnEvent } from "../../../core/stun/turn.ts";
import type { Endpoint } from "../../../core/machine.ts";
import { seededRandom } from "../../../core/random.ts";
import { drain, timed } from "../machine_case.ts";
import { CLIENT, read, SERVER } from "./rig.ts";

export const RELAYED: Endpoint = { address: "198.51.100.1", port: 50_000 };
export const PEER: Endpoint = { address: "192.0.2.9", port: 7000 };
const realm = "example.org";
const key = longTermKey("user", realm, "pass");

export class TurnRig {
  readonly client: TurnClient;
  now = 0;
  events: TurnEvent[] = [];
  /** Requests and indications as they reach the server, challenges left out. */
  heard: { at: number; message: StunMessage }[] = [];
  /** Data that reached a peer by a channel. */
  channelled: { number: number; data: Uint8Array }[] = [];
  /** What the server says instead, by method; `"silence"` for nothing. */
  says: (message: StunMessage) => StunAttributes | "silence" | undefined = () => undefined;
  lifetimeSeconds = 600;
  /** The keys of the sockets by which anything left. */
  readonly sockets: Set<string> = new Set();
  nonce = "n1";

  constructor(options: Partial<TurnClientOptions> = {}) {
    this.client = timed(
      new TurnClient({
        server: SERVER,
        username: "user",
        password: "pass",
        random: seededRandom(1),
        ...options,
      }),
    );
  }

  /** A client that has its address, and may talk to a peer. */
  static allocated(options: Partial<TurnClientOptions> = {}): TurnRig {
    const rig = new TurnRig(options);
    rig.client.allocate(0);
    rig.client.permit(PEER.address, 0);
    rig.drain();
    assert(rig.events.length === 2);
    rig.events = [];
    rig.heard = [];
    return rig;
  }

  drain(): void {
    for (let left = 100; left > 0; left--) {
      const actions = drain(this.client);
      if (actions.length === 0) return;
      for (const action of actions) {
        if (action.type === "event") this.events.push(action.event as TurnEvent);
        else if (action.type === "send") {
          this.sockets.add(action.socket);
          this.#serve(action.to, action.data, action.socket);
        }
      }
    }
    throw new Error("It does not come to an end");
  }

  #serve(to: Endpoint, data: Uint8Array, socket: string): void {
    if (isChannelData(data)) {
      const length = u16(data, 2);
      this.channelled.push({ number: u16(data, 0), data: data.slice(4, 4 + length) });
      return;
    }
    const message = read(data);
    if (message.class === "indication") {
      this.heard.push({ at: this.now, message });
      return;
    }
    const { method, transactionId, attributes } = message;
    const reply = (of: "success" | "error", said: StunAttributes, isSigned = true): void => {
      const bytes = encodeStun({ class: of, method, transactionId, attributes: said }, {
        ...(isSigned && { key }),
      });
      this.feed(bytes, to, socket);
    };
    if (attributes.nonce !== this.nonce || !hasIntegrity(message, key)) {
      const code = message.integrityAt > 0 ? 438 : 401;
      const challenge = { errorCode: { code, reason: "" }, realm, nonce: this.nonce };
      if (this.says(message) !== "silence") reply("error", challenge, false);
      return;
    }
    this.heard.push({ at: this.now, message });
    const said = this.says(message);
    if (said === "silence") return;
    if (said) return reply(said.errorCode ? "error" : "success", said);
    switch (method) {
      case STUN_METHOD.ALLOCATE:
        return reply("success", {
          xorRelayedAddress: RELAYED,
          xorMappedAddress: CLIENT,
          lifetimeSeconds: this.lifetimeSeconds,
        });
      case STUN_METHOD.REFRESH:
        return reply("success", { lifetimeSeconds: this.lifetimeSeconds });
      default:
        return reply("success", {});
    }
  }

  /** Something comes. */
  feed(data: Uint8Array, from: Endpoint = SERVER, socket: string = "client"): boolean {
    return this.client.handleDatagram(data, from, socket, this.now);
  }

  /** A peer's data comes in an indication. */
  indicate(from: Endpoint, data: Uint8Array, by: Endpoint = SERVER): boolean {
    const isMine = this.feed(
      encodeStun({
        class: "indication",
        method: STUN_METHOD.DATA,
        transactionId: new Uint8Array(12),
        attributes: { xorPeerAddresses: [from], data },
      }),
      by,
    );
    this.drain();
    return isMine;
  }

  /** Data comes by a channel. */
  channel(number: number, data: Uint8Array, length: number = data.length): boolean {
    const bytes = new Uint8Array(4 + data.length);
    putU16(bytes, 0, number);
    putU16(bytes, 2, length);
    bytes.set(data, 4);
    const isMine = this.feed(bytes);
    this.drain();
    return isMine;
  }

  runUntil(until: number): void {
    for (;;) {
      const next = this.client.nextTimeout();
      if (next === undefined || next > until) break;
      this.now = Math.max(this.now, next);
      this.client.handleTimeout(this.now);
      this.drain();
    }
    this.now = until;
  }

  /** When a method was heard. */
  times(method: number): number[] {
    return this.heard.filter(({ message }) => message.method === method).map(({ at }) => at);
  }
}
