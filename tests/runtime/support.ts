/** Sockets of the runtime that the tests run on, with what they hear in a queue. */
import { systemRuntime } from "../../adapters/auto.ts";
import type { Runtime, UdpHandlers, UdpOptions, UdpSocket } from "../../adapters/runtime.ts";
import type { NatError } from "../../core/errors.ts";
import type { Endpoint } from "../../core/machine.ts";

export const runtime: Runtime = systemRuntime();

/**
 * Something that should have happened did not: far beyond what any machine needs for it, and no length
 * of the adapters' own timers.
 */
const GUARD_MS = 9_999;

export type Heard =
  | { readonly type: "datagram"; readonly data: number[]; readonly from: Endpoint }
  | { readonly type: "unreachable"; readonly to: Endpoint }
  | { readonly type: "error"; readonly error: NatError; readonly to: Endpoint | undefined };

/** A queue to wait at. */
export class Inbox {
  readonly #waiting: Heard[] = [];
  #wake: (() => void) | undefined;

  readonly handlers: UdpHandlers = {
    onDatagram: (data, from) => this.put({ type: "datagram", data: [...data], from }),
    onUnreachable: (to) => this.put({ type: "unreachable", to }),
    onError: (error, to) => this.put({ type: "error", error, to }),
  };

  put(heard: Heard): void {
    this.#waiting.push(heard);
    this.#wake?.();
  }

  /** The next thing heard. */
  async next(): Promise<Heard> {
    if (this.#waiting.length === 0) {
      await guarded(new Promise<void>((resolve) => (this.#wake = resolve)));
    }
    return this.#waiting.shift()!;
  }

  /** The next thing heard, which must be an error. */
  async nextError(): Promise<Heard & { readonly type: "error" }> {
    const heard = await this.next();
    if (heard.type !== "error") throw new Error(`heard no error: ${JSON.stringify(heard)}`);
    return heard;
  }

  /** What was heard and not yet taken. */
  get rest(): readonly Heard[] {
    return this.#waiting;
  }
}

/** Rejects where `promise` does not settle. */
export function guarded<T>(promise: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const cancel = runtime.setTimer(GUARD_MS, () => reject(new Error("nothing happened")), true);
    promise.then(resolve, reject).finally(cancel);
  });
}

/** Timers of some lengths, which run out by hand. */
export interface HandTimers {
  /** How many wait. */
  readonly waiting: number;
  /** How many of them keep the process alive. */
  readonly keepAlive: number;
  /** Waits until so many have been started. */
  armed(count?: number): Promise<void>;
  /** Lets those that wait run out. */
  fire(): void;
  /** Ends that. */
  giveBack(): void;
}

/** Takes the timers of these lengths, milliseconds, from the clock on the wall. */
export function takeTimers(...lengths: readonly number[]): HandTimers {
  const { setTimeout: set, clearTimeout: clear } = globalThis;
  const waiting = new Map<unknown, () => void>();
  const unrefed = new Set<unknown>();
  let started = 0;
  let wake = () => {};
  Object.assign(globalThis, {
    setTimeout: (...args: Parameters<typeof set>) => {
      const [callback, delayMs] = args;
      if (!lengths.includes(delayMs!)) return set(...args);
      const timer = { unref: () => void unrefed.add(timer) };
      waiting.set(timer, callback as () => void);
      started++;
      wake();
      return timer;
    },
    clearTimeout: (timer: never) => void (waiting.delete(timer) || clear(timer)),
  });
  return {
    get waiting() {
      return waiting.size;
    },
    get keepAlive() {
      return [...waiting.keys()].filter((timer) => !unrefed.has(timer)).length;
    },
    async armed(count = 1) {
      while (started < count) await guarded(new Promise<void>((resolve) => wake = resolve));
    },
    fire() {
      const due = [...waiting.values()];
      waiting.clear();
      for (const callback of due) callback();
    },
    giveBack() {
      Object.assign(globalThis, { setTimeout: set, clearTimeout: clear });
    },
  };
}

export interface Station {
  readonly socket: UdpSocket;
  readonly inbox: Inbox;
}

/** Opens a socket with an inbox. */
export async function open(options: UdpOptions = {}): Promise<Station> {
  const inbox = new Inbox();
  return { inbox, socket: await runtime.openUdp(options, inbox.handlers) };
}

/** Opens a socket that sends back what it hears. */
export async function openEcho(address: string): Promise<UdpSocket> {
  const socket: UdpSocket = await runtime.openUdp({ local: { address, port: 0 } }, {
    onDatagram: (data, from) => socket.send(data.slice(), from),
    onUnreachable() {},
    onError() {},
  });
  return socket;
}

/** Opens a socket on a port that was just closed: on Deno the system frees it a moment later. */
export function openWhenFree(options: UdpOptions, handlers: UdpHandlers): Promise<UdpSocket> {
  const attempt = (): Promise<UdpSocket> =>
    runtime.openUdp(options, handlers).catch(async (error) => {
      if (!/in ?use/i.test(error.message)) throw error;
      await new Promise<void>((resolve) => void runtime.setTimer(1, resolve, true));
      return attempt();
    });
  return guarded(attempt());
}

/** What the tests of a group leave open: closed after each of them, and timers by hand given back. */
export function closedAfterEach(afterEach: (hook: () => void) => void): {
  readonly open: (() => void)[];
  readonly handTimers: typeof takeTimers;
} {
  const open: (() => void)[] = [];
  afterEach(() => {
    for (const close of open.splice(0)) close();
  });
  return {
    open,
    handTimers: (...lengths) => {
      const timers = takeTimers(...lengths);
      open.push(() => timers.giveBack());
      return timers;
    },
  };
}
