/**
 * The world: virtual time, and the loop that moves packets and wakes machines. Nothing here waits:
 * virtual hours pass as fast as there is nothing to do. The same seed and the same calls give the
 * same run, packet for packet.
 *
 * @module
 */
import { checkInteger } from "../check.ts";
import type { Instant } from "../machine.ts";
import { type RandomSource, seededRandom } from "../random.ts";
import { Timers } from "../timers.ts";
import { Host, type HostOptions } from "./host.ts";
import type { LinkOptions } from "./link.ts";
import { Nat } from "./nat.ts";
import type { NatOptions } from "./nat_options.ts";
import type { Packet } from "./packet.ts";
import { SimulationError } from "./process.ts";
import { EventQueue } from "./queue.ts";
import { type Interface, Segment, type SimContext, type Sleeper } from "./segment.ts";
import { Trace, type TraceOptions } from "./trace.ts";

/** How a world is made. */
export interface WorldOptions {
  /** What chance depends on. Default 1. */
  readonly seed?: number;
  /** Virtual time at the start, milliseconds. Default 0. */
  readonly start?: Instant;
  /** What is recorded. Default: nothing. */
  readonly trace?: TraceOptions;
  /** More steps than this without time moving on are a livelock. Default 100,000. */
  readonly maxStepsPerInstant?: number;
}

/** How a home network is made. */
export interface NatBoxOptions extends Omit<NatOptions, "inside" | "outside"> {
  /** The segment inside, with the gateway's address there. */
  readonly inside: readonly [Segment, string];
  /** The segment outside, with the gateway's address there. */
  readonly outside: readonly [Segment, string];
  /** The way out from the outside segment, where it is itself behind a NAT. */
  readonly gateway?: string;
}

interface Arrival {
  readonly to: Interface;
  readonly packet: Packet;
}

/** How many of the last lines of the trace a {@linkcode SimulationError} shows. */
const LINES_IN_ERRORS = 40;

/**
 * A virtual network.
 *
 * @example A ping through a home NAT
 * ```ts
 * import { World } from "@natkit/natkit/testing";
 *
 * const world = new World({ seed: 7 });
 * const internet = world.segment("internet", { delayMs: 20 });
 * const lan = world.segment("lan");
 * world.nat("router", { inside: [lan, "192.168.1.1"], outside: [internet, "203.0.113.7"] });
 *
 * const server = world.host("server");
 * server.attach(internet, "198.51.100.1");
 * const echo = server.bind({ port: 7 });
 * echo.onDatagram = (data, from) => echo.send(from, data);
 *
 * const laptop = world.host("laptop");
 * laptop.attach(lan, "192.168.1.2", { gateway: "192.168.1.1" });
 * const socket = laptop.bind();
 * let answeredAt = -1;
 * socket.onDatagram = () => answeredAt = world.now;
 * socket.send({ address: "198.51.100.1", port: 7 }, new Uint8Array([1, 2, 3]));
 *
 * world.runFor(1000);
 * console.assert(answeredAt === 42); // LAN 1 ms and Internet 20 ms, there and back
 * ```
 */
export class World {
  /** Decides what links and NATs leave to chance. */
  readonly random: RandomSource;
  /** The record. */
  readonly trace: Trace;
  /** Steps made, and packets that reached an interface. */
  readonly stats = { steps: 0, packets: 0 };
  readonly #context: SimContext;
  readonly #queue = new EventQueue<Arrival | (() => void)>();
  readonly #alarms = new Timers<Sleeper>();
  readonly #maxStepsPerInstant: number;
  readonly #seed: number;
  #now: Instant;
  #forks = 0;
  #stepsAtThisInstant = 0;

  /** Makes an empty world. */
  constructor(options: WorldOptions = {}) {
    this.#seed = options.seed ?? 1;
    this.#now = options.start ?? 0;
    this.#maxStepsPerInstant = checkInteger(
      "maxStepsPerInstant",
      options.maxStepsPerInstant ?? 100_000,
      1,
      Number.MAX_SAFE_INTEGER,
    );
    this.random = seededRandom(this.#seed);
    this.trace = new Trace(options.trace);
    this.#context = this.#makeContext();
  }

  /** Virtual time, milliseconds. */
  get now(): Instant {
    return this.#now;
  }

  /** One more source of randomness that depends on the seed alone; for machines. */
  fork(): RandomSource {
    return seededRandom(this.#seed + 0x1_0000_0000 * (1 + this.#forks++));
  }

  /** Adds a segment. */
  segment(name: string, link: LinkOptions = {}): Segment {
    return new Segment(this.#context, name, link);
  }

  /** Adds a host, attached to nothing yet. */
  host(name: string, options: HostOptions = {}): Host {
    return new Host(this.#context, name, options);
  }

  /** Adds a NAT between two segments, on a host of its own. */
  nat(name: string, options: NatBoxOptions): Nat {
    const { inside, outside, gateway, ...behaviour } = options;
    const host = this.host(name);
    const way = gateway?.includes(":") ? { gateway6: gateway } : gateway ? { gateway } : {};
    return new Nat(this.#context, host, {
      ...behaviour,
      inside: host.attach(...inside, { zone: "lan0" }),
      outside: host.attach(...outside, { zone: "wan0", ...way }),
    });
  }

  /** Adds a NAT or firewall to a host that is attached on both sides. */
  natOn(host: Host, options: NatOptions): Nat {
    return new Nat(this.#context, host, options);
  }

  /** Calls back when virtual time is `at` (at once in the next step where that is past). */
  at(at: Instant, callback: () => void): void {
    this.#queue.push(Math.max(at, this.#now), callback);
  }

  /** Calls back after `ms` of virtual time. */
  after(ms: number, callback: () => void): void {
    this.at(this.#now + ms, callback);
  }

  /** Puts a line into the trace. */
  note(text: string): void {
    this.trace.note(this.#now, "world", text);
  }

  /** When something happens next, or undefined. */
  nextAt(): Instant | undefined {
    const packet = this.#queue.nextAt(), alarm = this.#alarms.nextAt();
    if (packet === undefined) return alarm;
    return alarm === undefined ? packet : Math.min(packet, alarm);
  }

  /**
   * Moves to what happens next and lets it happen; false where nothing is pending.
   *
   * @throws {SimulationError} Where time does not move on, or a machine's output does not end.
   */
  step(): boolean {
    const packetAt = this.#queue.nextAt(), alarmAt = this.#alarms.nextAt();
    const isPacket = packetAt !== undefined && (alarmAt === undefined || packetAt <= alarmAt);
    const at = isPacket ? packetAt : alarmAt;
    if (at === undefined) return false;
    this.#moveTo(at);
    this.stats.steps++;
    if (!isPacket) {
      this.#alarms.popDue(at)!.wake();
      return true;
    }
    const item = this.#queue.pop()!;
    if (typeof item === "function") {
      item();
    } else {
      this.stats.packets++;
      item.to.host.receive(item.to, item.packet);
    }
    return true;
  }

  /**
   * Lets everything up to and including `time` happen; then it is `time`.
   *
   * @throws {SimulationError} As {@linkcode World.step}.
   */
  runUntil(time: Instant): void {
    for (let next = this.nextAt(); next !== undefined && next <= time; next = this.nextAt()) {
      this.step();
    }
    if (time > this.#now) this.#moveTo(time);
  }

  /**
   * Lets `ms` of virtual time pass.
   *
   * @throws {SimulationError} As {@linkcode World.step}.
   */
  runFor(ms: number): void {
    this.runUntil(this.#now + ms);
  }

  /**
   * Runs until `isDone` (by default: until nothing is pending), in no more than `steps` steps.
   *
   * @throws {SimulationError} Where it takes more, with the last lines of the trace.
   */
  driveBounded(steps: number, isDone?: () => boolean): void {
    for (let i = 0; i < steps; i++) {
      if (isDone?.()) return;
      if (this.step()) continue;
      if (isDone) throw this.#error(`Nothing is pending after ${i} steps, and it is not done`);
      return;
    }
    if (isDone ? isDone() : this.nextAt() === undefined) return;
    throw this.#error(`Not done after ${steps} steps`);
  }

  #moveTo(at: Instant): void {
    if (at > this.#now) {
      this.#now = at;
      this.#stepsAtThisInstant = 0;
    } else if (++this.#stepsAtThisInstant > this.#maxStepsPerInstant) {
      throw this.#error(`Time does not move on from ${this.#now} ms: a livelock`);
    }
  }

  #error(message: string): SimulationError {
    const lines = this.trace.isOn ? `\n${this.trace.text(LINES_IN_ERRORS)}` : "";
    return new SimulationError(`${message} (seed ${this.#seed})${lines}`);
  }

  #makeContext(): SimContext {
    const now = (): Instant => this.#now;
    const queue = this.#queue, alarms = this.#alarms;
    return {
      get now() {
        return now();
      },
      random: this.random,
      trace: this.trace,
      topology: 0,
      deliver: (at, to, packet) => queue.push(at, { to, packet }),
      wake: (sleeper, at) => {
        if (at === undefined) alarms.delete(sleeper);
        else alarms.set(sleeper, at, "machine");
      },
    };
  }
}
