/** A client and a server machine, driven by hand. */
import {
  decodeStun,
  encodeStun,
  type StunAttributes,
  type StunClass,
  type StunMessage,
  type StunSeal,
} from "../../../core/stun/codec.ts";
import {
  StunClient,
  type StunClientEvent,
  type StunClientOptions,
  type StunRequest,
} from "../../../core/stun/client.ts";
import type { Action, Endpoint, SendAction } from "../../../core/machine.ts";
import { seededRandom } from "../../../core/random.ts";
import { drain, timed } from "../machine_case.ts";

export const SERVER: Endpoint = { address: "198.51.100.1", port: 3478 };
export const CLIENT: Endpoint = { address: "203.0.113.7", port: 40123 };

export function read(bytes: Uint8Array): StunMessage {
  const message = decodeStun(bytes);
  if (typeof message === "string") throw new Error(message);
  return message;
}

export class Rig {
  readonly client: StunClient;
  now = 0;
  events: StunClientEvent[] = [];
  sent: { at: number; to: Endpoint; socket: string; message: StunMessage }[] = [];
  others: Action<StunClientEvent>[] = [];

  constructor(options: Partial<StunClientOptions> = {}) {
    this.client = timed(new StunClient({ random: seededRandom(1), ...options }));
  }

  ask(request: Partial<StunRequest> = {}): number {
    const id = this.client.request({ server: SERVER, ...request }, this.now);
    this.drain();
    return id;
  }

  drain(): void {
    for (const action of drain(this.client) as Action<StunClientEvent>[]) {
      if (action.type === "event") this.events.push(action.event);
      else if (action.type === "send") this.#took(action);
      else this.others.push(action);
    }
  }

  #took({ to, socket, data }: SendAction): void {
    this.sent.push({ at: this.now, to, socket, message: read(data) });
  }

  /** The request sent last. */
  get last(): StunMessage {
    return this.sent.at(-1)!.message;
  }

  /** Answers the request sent last. */
  answer(
    attributes: StunAttributes,
    { of = "success", seal = {}, from = this.sent.at(-1)!.to, socket = "client", to = this.last }: {
      of?: StunClass;
      seal?: StunSeal;
      from?: Endpoint;
      socket?: string;
      to?: StunMessage;
    } = {},
  ): boolean {
    const { method, transactionId } = to;
    const bytes = encodeStun({ class: of, method, transactionId, attributes }, seal);
    const isMine = this.client.handleDatagram(bytes, from, socket, this.now);
    this.drain();
    return isMine;
  }

  refuse(code: number, more: StunAttributes = {}, seal: StunSeal = {}): boolean {
    return this.answer({ errorCode: { code, reason: "no" }, ...more }, { of: "error", seal });
  }

  /** Lets time pass to each deadline in turn. */
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

  /** The answer told last. */
  get answered(): Extract<StunClientEvent, { type: "answered" }> {
    const event = this.events.at(-1);
    if (event?.type !== "answered") throw new Error(`No answer, but ${JSON.stringify(event)}`);
    return event;
  }

  get failure(): unknown {
    const event = this.events.at(-1);
    return event?.type === "failed" ? event.failure : undefined;
  }
}
