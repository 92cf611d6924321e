/** A runtime without a system beneath it: virtual time, sockets that record. */
import type { Endpoint, Instant } from "../../core/machine.ts";
import { type RandomSource, seededRandom } from "../../core/random.ts";
import type {
  InterfaceAddress,
  Runtime,
  UdpHandlers,
  UdpOptions,
  UdpSocket,
} from "../../adapters/runtime.ts";

export interface FakeSocket extends UdpSocket {
  readonly options: UdpOptions;
  readonly handlers: UdpHandlers;
  readonly sent: { to: Endpoint; data: number[] }[];
  isClosed: boolean;
  isRef: boolean;
}

interface FakeTimer {
  readonly at: Instant;
  readonly delayMs: number;
  readonly callback: () => void;
  readonly keepAlive: boolean;
}

export class FakeRuntime implements Runtime {
  readonly name = "node";
  platform = "linux";
  readonly random: RandomSource = seededRandom(1);
  readonly sockets: FakeSocket[] = [];
  readonly timers: Set<FakeTimer> = new Set<FakeTimer>();
  /** Delays of all timers ever set. */
  readonly delays: number[] = [];
  time: Instant = 1000;
  /** What `interfaces()` tells. */
  addresses: InterfaceAddress[] = [];

  now(): Instant {
    return this.time;
  }

  setTimer(delayMs: number, callback: () => void, keepAlive: boolean): () => void {
    const timer = { at: this.time + delayMs, delayMs, callback, keepAlive };
    this.timers.add(timer);
    this.delays.push(delayMs);
    return () => this.timers.delete(timer);
  }

  openUdp(options: UdpOptions, handlers: UdpHandlers): Promise<UdpSocket> {
    const sent: FakeSocket["sent"] = [];
    const socket: FakeSocket = {
      options,
      handlers,
      sent,
      isClosed: false,
      isRef: true,
      local: { address: "192.0.2.7", port: 40000 + this.sockets.length },
      send: (data, to) => void sent.push({ to, data: [...data] }),
      close: () => void (socket.isClosed = true),
      unref: () => void (socket.isRef = false),
      ref: () => void (socket.isRef = true),
    };
    this.sockets.push(socket);
    return Promise.resolve(socket);
  }

  /** Lets time pass, firing what comes due on the way. */
  advance(ms: number): void {
    const end = this.time + ms;
    for (;;) {
      const due = [...this.timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.timers.delete(due);
      this.time = Math.max(this.time, due.at);
      due.callback();
    }
    this.time = end;
  }

  interfaces(): InterfaceAddress[] {
    return this.addresses;
  }

  readTextFile(path: string): Promise<string> {
    return Promise.reject(new Error(`no ${path}`));
  }

  run(command: string): Promise<string> {
    return Promise.reject(new Error(`no ${command}`));
  }
}

/** A runtime that notes to whom each of its UDP sockets tells things, in the order of their opening. */
export function recordingHandlers(runtime: Runtime, opened: UdpHandlers[]): Runtime {
  return {
    ...runtime,
    openUdp: (options, handlers) => {
      opened.push(handlers);
      return runtime.openUdp(options, handlers);
    },
  };
}
