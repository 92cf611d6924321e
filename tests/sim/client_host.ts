/**
 * A client host: the machine under test with its model, and an application that wants mappings and
 * asks again where the client gives up.
 *
 * @module
 */
import type { Endpoint, Instant } from "../../core/machine.ts";
import {
  type Host,
  type Process,
  type Segment,
  SimulationError,
  StrictMachine,
} from "../../core/sim/mod.ts";
import type { Home } from "./home.ts";
import { ClientModel } from "./model.ts";
import { makeSubject, type Subject, type SubjectKind } from "./subject.ts";
import { Tap } from "./tap.ts";
import type { SubjectEvent, Wish } from "./wish.ts";

/** The gateway's address inside. */
export const GATEWAY = "192.168.1.1";
/** How long an application waits for the first answer about a mapping, milliseconds. */
const PATIENCE_MS = 600_000;
/** How long an application waits before it asks again, milliseconds. */
const AGAIN_MS = 30_000;

/** A client host with its machine and model. */
export class ClientHost {
  readonly name: string;
  readonly kind: SubjectKind;
  readonly host: Host;
  readonly model: ClientModel;
  readonly gateway: Endpoint = { address: GATEWAY, port: 5351 };
  /** Whether a NAT stands between it and the gateway. */
  readonly isInner: boolean;
  /** The programs that run on its host, this one among them. */
  readonly programs: ClientHost[];
  /** The first of the ports that it wants. */
  readonly firstPort: number;
  address: string;
  /** Set where the application has closed the client. */
  isClosing = false;
  #home: Home;
  #subject: Subject;
  #strict: StrictMachine<unknown, Subject["machine"]>;
  #tap: Tap<unknown>;
  #process: Process<unknown>;
  #hasTold = false;
  #drains = 0;

  /**
   * @param at Its address, or a program on whose host this one runs, too.
   * @param inner The segment behind a NAT of its own, where it is there.
   */
  constructor(
    home: Home,
    name: string,
    kind: SubjectKind,
    at: string | ClientHost,
    inner?: Segment,
  ) {
    this.#home = home;
    this.name = name;
    this.kind = kind;
    this.isInner = typeof at === "string" ? inner !== undefined : at.isInner;
    if (typeof at === "string") {
      this.address = at;
      this.host = home.world.host(name);
      this.host.attach(inner ?? home.lan, at, { gateway: inner ? "10.0.0.1" : GATEWAY });
      this.programs = [this];
      this.firstPort = 5000;
    } else {
      this.address = at.address;
      this.host = at.host;
      this.programs = at.programs;
      // Each port is one program's alone (PCP-C-34).
      this.firstPort = 5000 + 1000 * this.programs.length;
      this.programs.push(this);
    }
    const { gateway, address: localAddress } = this;
    const { nonces } = home;
    this.model = new ClientModel({ name, kind, gateway, localAddress, nonces });
    [this.#subject, this.#strict, this.#tap, this.#process] = this.#start(undefined);
  }

  get subject(): Subject {
    return this.#subject;
  }

  /** The port from which it speaks. */
  get port(): number {
    const [listed] = this.#subject.machine.sockets?.() ?? [];
    const socket = listed ? this.#process.listed(listed.key) : this.#process.sockets.client;
    return socket!.port;
  }

  /** Gives a command, then looks whether what the client holds is what it told. */
  do<T>(command: (subject: Subject, now: Instant) => T): T {
    const { now } = this.#home.world;
    this.#tap.touch(now);
    const result = this.#process.do(() =>
      this.#strict.command(() => command(this.#subject, now), now)
    );
    this.compare();
    return result;
  }

  /** Calls back when the host is awake: a program that sleeps does nothing. */
  #whenAwake(callback: () => void): void {
    if (this.host.isSuspended) this.#home.world.after(1000, () => this.#whenAwake(callback));
    else callback();
  }

  /** Asks for what the application wants and the client does not know of. */
  askFor(wish: Wish): void {
    if (this.isClosing || wish.isRevoked || wish.id !== undefined) return;
    if (this.host.isSuspended) return this.#whenAwake(() => this.askFor(wish));
    this.do((subject, now) => {
      this.model.asks(wish, now);
      const id = subject.map(wish, now);
      this.model.named(wish, id);
      if (subject.abandon) this.#home.world.after(PATIENCE_MS, () => this.#loseIt(wish, id));
    });
  }

  /** A session asks a silent gateway for ever; it is the application that loses patience. */
  #loseIt(wish: Wish, id: number): void {
    if (wish.id !== id || wish.told !== "nothing" || this.isClosing) return;
    if (this.host.isSuspended) return this.#whenAwake(() => this.#loseIt(wish, id));
    this.do((subject, now) => {
      this.model.abandons(wish, now);
      subject.abandon?.(id, now);
    });
    wish.id = undefined;
    this.askFor(wish);
  }

  renew(wish: Wish): void {
    const { id } = wish;
    if (id === undefined) return;
    this.do((subject, now) => {
      this.model.renews(wish, now);
      subject.renew(id, now);
    });
  }

  revoke(wish: Wish): void {
    wish.isRevoked = true;
    const { id } = wish;
    if (id === undefined) return;
    this.do((subject, now) => {
      this.model.revokes(wish, now);
      subject.revoke(id, now);
    });
  }

  askAddress(): void {
    this.do((subject, now) => {
      this.model.asksAddress(now);
      subject.askAddress(now);
    });
  }

  /** Kills the program and starts it again, with what it had saved or (after a crash) without. */
  restart(hasState: boolean): void {
    const saved = this.do((subject, now) => subject.save(now));
    this.#process.stop();
    this.model.restarts(hasState, this.#home.world.now);
    [this.#subject, this.#strict, this.#tap, this.#process] = this.#start(
      hasState ? saved : undefined,
    );
    for (const wish of this.model.wanted()) this.askFor(wish);
  }

  /** Moves the host to another address. */
  move(address: string): void {
    this.host.changeAddress(this.address, address);
    for (const program of this.programs) program.#moved(address);
  }

  #moved(address: string): void {
    this.address = address;
    this.do((subject, now) => {
      this.model.networkChanges(address, now);
      subject.networkChanged(address, now);
    });
  }

  /** Ends its host's sleep. */
  wakeUp(): void {
    if (this.host.isSuspended) {
      for (const { model } of this.programs) model.wakesUp(this.#home.world.now);
    }
    this.host.resume();
  }

  close(): void {
    this.isClosing = true;
    for (const wish of this.model.wishes) wish.isRevoked = true;
    this.do((subject, now) => {
      this.model.closes(now);
      subject.close(now);
    });
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
    // What was wanted for a time has had it.
    const isDone = wish.told === "over" && wish.mode !== "keep-alive";
    if (!wish.isRevoked && !isDone) this.#home.world.after(AGAIN_MS, () => this.askFor(wish));
  }

  #start(saved: unknown): [
    Subject,
    StrictMachine<unknown, Subject["machine"]>,
    Tap<unknown>,
    Process<unknown>,
  ] {
    const { world } = this.#home;
    const { model, gateway } = this;
    const options = { gateway, localAddress: this.address, random: world.fork() };
    const subject = makeSubject(this.kind, saved === undefined ? options : { ...options, saved });
    const strict = new StrictMachine<unknown, Subject["machine"]>(subject.machine);
    const tap = new Tap<unknown>(strict, {
      onReceive: (data, from, now) => model.receives(data, from, now),
      onSend: (data, to, now) => model.sends(data, to, now),
      onUnreachable: (to, now) => {
        if (to.address === gateway.address && to.port === gateway.port) model.unreachable(now);
      },
    });
    const sockets = subject.machine.sockets ? {} : { client: {}, listen: [{ port: 5350 }] };
    const process = this.host.run<unknown, Tap<unknown>>(tap, sockets, {
      onEvent: (event, now) => this.#tell(subject.translate(event), now),
      onDrained: (now) => {
        model.settle(now);
        // What is held changes with what is told; a change in silence is seen now and then.
        if (this.#hasTold || ++this.#drains % 16 === 0) this.compare();
        this.#hasTold = false;
      },
    });
    return [subject, strict, tap, process as unknown as Process<unknown>];
  }

  #tell(event: SubjectEvent | undefined, now: Instant): void {
    if (!event) return;
    this.#hasTold = true;
    this.model.tells(event, now);
  }
}
