/**
 * A client host: the machine under test with its model, its schedule guard and its epoch reference,
 * and an application that wants mappings and asks again where the client gives up.
 *
 * @module
 */
import type { Endpoint, Instant } from "../../core/machine.ts";
import { type Host, type Process, SimulationError, StrictMachine } from "../../core/sim/mod.ts";
import { EpochReference } from "./epoch_reference.ts";
import type { Home } from "./home.ts";
import { ClientModel, type SubjectEvent, type Wish } from "./model.ts";
import { ScheduleGuard } from "./schedule.ts";
import { makeSubject, type Subject, type SubjectKind } from "./subject.ts";
import { Tap, type TapHooks } from "./tap.ts";

/** The gateway's address inside. */
export const GATEWAY = "192.168.1.1";
/** How long an application waits for the first answer about a mapping, milliseconds. */
const PATIENCE_MS = 600_000;

/** What is falsified on the way to and from a client. */
export type Sabotage = Pick<TapHooks, "falsifyIn" | "falsifyOut">;

/** A client host with its machine, model and guard. */
export class ClientHost {
  readonly name: string;
  readonly kind: SubjectKind;
  readonly host: Host;
  readonly model: ClientModel;
  readonly guard: ScheduleGuard;
  readonly epoch: EpochReference = new EpochReference();
  address: string;
  /** Set where the application has closed the client. */
  isClosing = false;
  #home: Home;
  #subject: Subject;
  #strict: StrictMachine<unknown, Subject["machine"]>;
  #tap: Tap<unknown>;
  #process: Process<unknown>;
  #received = 0;
  #hasToldRestart = false;
  #hasTold = false;
  #drains = 0;

  constructor(home: Home, name: string, kind: SubjectKind, address: string) {
    this.#home = home;
    this.name = name;
    this.kind = kind;
    this.address = address;
    this.host = home.world.host(name);
    this.host.attach(home.lan, address, { gateway: GATEWAY });
    this.model = new ClientModel(name, GATEWAY);
    this.guard = new ScheduleGuard(name, kind === "session");
    [this.#subject, this.#strict, this.#tap, this.#process] = this.#start(undefined);
  }

  get subject(): Subject {
    return this.#subject;
  }

  /** Gives a command, then looks whether what the client holds is what it told. */
  do<T>(command: (subject: Subject, now: Instant) => T): T {
    const { now } = this.#home.world;
    this.guard.reset();
    this.#tap.touch(now);
    const result = this.#process.do(() =>
      this.#strict.command(() => command(this.#subject, now), now)
    );
    this.compare();
    return result;
  }

  /** Asks for what the application wants and the client does not know of. */
  askFor(wish: Wish): void {
    if (this.isClosing || wish.isRevoked || wish.id !== undefined) return;
    this.do((subject, now) => {
      const id = subject.map(wish, now);
      if (id === undefined) return;
      this.model.named(wish, id);
      if (subject.abandon) this.#home.world.after(PATIENCE_MS, () => this.#loseIt(wish, id));
    });
  }

  /** A session asks a silent gateway for ever; it is the application that loses patience. */
  #loseIt(wish: Wish, id: number): void {
    if (wish.id !== id || wish.told !== "nothing" || this.isClosing) return;
    this.do((subject, now) => subject.abandon?.(id, now));
    wish.id = undefined;
    this.askFor(wish);
  }

  revoke(wish: Wish): void {
    wish.isRevoked = true;
    const { id } = wish;
    if (id !== undefined) this.do((subject, now) => subject.revoke(id, now));
  }

  /** Kills the program and starts it again with what it had saved. */
  restart(): void {
    const saved = this.do((subject, now) => subject.save(now));
    this.#process.stop();
    this.model.restarted();
    this.guard.reset();
    [this.#subject, this.#strict, this.#tap, this.#process] = this.#start(saved);
    for (const wish of this.model.wanted()) this.askFor(wish);
  }

  /** Moves the host to another address. */
  move(address: string): void {
    this.host.changeAddress(this.address, address);
    this.address = address;
    // To PCP it may be another server from there.
    if (this.kind === "pcp") this.epoch.reset();
    this.do((subject, now) => subject.networkChanged(address, now));
  }

  /**
   * Ends its sleep. What was due meanwhile is late, and a fast start measures its marks from the
   * first request on, so the guard starts over a second later.
   */
  wakeUp(): void {
    this.guard.reset();
    this.guard.rest(this.#home.world.now + 1000);
    this.host.resume();
  }

  close(): void {
    this.isClosing = true;
    for (const wish of this.model.wishes) wish.isRevoked = true;
    this.do((subject, now) => subject.close(now));
  }

  compare(): void {
    const { now } = this.#home.world;
    for (const wish of this.model.wishes) {
      if (wish.id === undefined) continue;
      const { id } = wish;
      this.model.compare(wish, this.#subject.external(id), now);
      if (!this.#subject.has(id)) this.#forgotten(wish);
    }
  }

  /** The client has given up: the application asks again in half a minute. */
  #forgotten(wish: Wish): void {
    wish.id = undefined;
    if (wish.told === "held") throw new SimulationError(`${this.name} forgot what it told of`);
    wish.told = wish.told === "over" ? "over" : "nothing";
    if (!wish.isRevoked) this.#home.world.after(30_000, () => this.askFor(wish));
  }

  #start(saved: unknown): [
    Subject,
    StrictMachine<unknown, Subject["machine"]>,
    Tap<unknown>,
    Process<unknown>,
  ] {
    const { world, sabotage } = this.#home;
    this.epoch.reset();
    this.#received = 0;
    const gateway = { address: GATEWAY, port: 5351 };
    const random = world.fork();
    const options = { gateway, localAddress: this.address, random };
    const subject = makeSubject(
      this.kind,
      saved === undefined ? options : { ...options, saved },
    );
    const strict = new StrictMachine<unknown, Subject["machine"]>(subject.machine);
    const tap = new Tap<unknown>(strict, {
      ...sabotage?.(),
      onReceive: (data, from) => {
        if (from.address === GATEWAY) this.guard.answered(data);
        this.model.receives(data, from);
      },
      onSend: (data, _, now) => {
        this.model.sends(data);
        this.guard.sends(data, now);
      },
      onReceived: (data, from, now) => {
        if (from.address === GATEWAY) this.#hearEpoch(subject, data, from, now);
      },
      onUnreachable: () => this.guard.reset(),
    });
    const process = this.host.run<unknown, Tap<unknown>>(tap, {
      client: { connect: gateway },
      listen: [{ port: 5350 }],
    }, {
      onEvent: (event, now) => this.#tell(subject.translate(event), now),
      onDrained: () => {
        this.guard.settle();
        this.#judgeEpoch();
        // What is held changes with what is told; a change in silence is seen now and then.
        if (this.#hasTold || ++this.#drains % 16 === 0) this.compare();
        this.#hasTold = false;
      },
    });
    return [subject, strict, tap, process as unknown as Process<unknown>];
  }

  #hearEpoch(subject: Subject, data: Uint8Array, from: Endpoint, now: Instant): void {
    if (this.kind === "nat-pmp") return this.epoch.hearNatPmp(data, from, now);
    // PCP's epoch counts only in what the client takes, and nonces decide on that.
    const received = subject.received ?? 0;
    if (received > this.#received) this.epoch.hearPcp(data, now);
    this.#received = received;
  }

  /** A loss of state is told when, and only when, the RFC's rule sees one. */
  #judgeEpoch(): void {
    const isDue = this.epoch.takeVerdict(), isTold = this.#hasToldRestart;
    this.#hasToldRestart = false;
    if (this.kind === "session" || isDue === isTold) return;
    const { now } = this.#home.world;
    throw new SimulationError(
      `${this.name} ${
        isTold ? "told" : "did not tell"
      } that the gateway lost its state at ${now}, ` +
        `the epoch ${isDue ? "says so" : "does not say so"}`,
    );
  }

  #tell(event: SubjectEvent | undefined, now: Instant): void {
    if (!event) return;
    this.#hasTold = true;
    if (event.type === "gateway-restarted") this.#hasToldRestart = true;
    if (event.type === "gateway-restarted" || event.type === "lost") this.guard.reset();
    this.model.tells(event, now);
  }
}
