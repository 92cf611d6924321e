/**
 * A process and a library in which tests run the command line without sockets and signals.
 *
 * @module
 */
import type { WaitOptions } from "../../../adapters/api/wait.ts";
import type { AddressOptions, ExternalAddress, Nat } from "../../../adapters/api/nat.ts";
import type { NatOptions, NatState } from "../../../adapters/api/options.ts";
import type { PortEvent } from "../../../adapters/api/port_mapping.ts";
import { turn } from "../api/fake_network.ts";
import type { Parts } from "../../../adapters/cli/command.ts";
import { runCommandLine } from "../../../adapters/cli/command_line.ts";
import type { Input, Io, Started, StopSignal } from "../../../adapters/cli/io.ts";
import type { Via } from "../../../core/errors.ts";
import type { Endpoint } from "../../../core/machine.ts";
import type { Transport } from "../../../core/mapping.ts";
import type { GrantedMapping } from "../../../core/portmap/managed.ts";

/** A command that was started. */
export interface FakeCommand {
  readonly command: string;
  readonly env: Readonly<Record<string, string>>;
  readonly killed: string[];
  /** Ends it, with a status or for another reason. */
  end(end: number | string): void;
}

/** A process of which a test sees everything. */
export class FakeIo implements Io {
  out = "";
  err = "";
  readonly exits: number[] = [];
  /** The commands that were started, to be ended by the test. */
  readonly started: FakeCommand[] = [];
  readonly isTerminal: { stdin: boolean; stdout: boolean; stderr: boolean } = {
    stdin: false,
    stdout: false,
    stderr: false,
  };
  readonly env: Record<string, string | undefined> = {};
  clock = 0;
  readonly #signalled = new Set<(signal: StopSignal) => void>();
  readonly #closed = new Set<() => void>();
  readonly #lines = new Set<(line: string) => void>();
  readonly #watchers = new Set<() => void>();
  readonly #input: Uint8Array[] = [];
  #isInputOpen = true;
  #reads = false;
  #wakeInput = () => {};

  stdout(text: string): void {
    this.out += text;
    for (const watcher of [...this.#watchers]) watcher();
  }

  stderr(text: string): void {
    this.err += text;
  }

  now(): number {
    return this.clock;
  }

  onSignal(callback: (signal: StopSignal) => void): () => void {
    this.#signalled.add(callback);
    return () => void this.#signalled.delete(callback);
  }

  onOutputClosed(callback: () => void): () => void {
    this.#closed.add(callback);
    return () => void this.#closed.delete(callback);
  }

  onLine(callback: (line: string) => void): () => void {
    this.#lines.add(callback);
    return () => void this.#lines.delete(callback);
  }

  openInput(): Input {
    this.#reads = true;
    return {
      read: async () => {
        while (this.#input.length === 0 && this.#isInputOpen) {
          await new Promise<void>((resolve) => this.#wakeInput = resolve);
        }
        return this.#input.shift();
      },
      close: () => {
        this.#reads = false;
        this.endInput();
      },
    };
  }

  write(data: Uint8Array): Promise<void> {
    this.stdout(new TextDecoder().decode(data));
    return Promise.resolve();
  }

  /** Gives bytes to standard input. */
  input(text: string): void {
    this.bytes(new TextEncoder().encode(text));
  }

  /** The same, whatever they are. */
  bytes(data: Uint8Array): void {
    this.#input.push(data);
    this.#wakeInput();
  }

  /** Ends standard input. */
  endInput(): void {
    this.#isInputOpen = false;
    this.#wakeInput();
  }

  start(command: string, env: Readonly<Record<string, string>>): Promise<Started> {
    const killed: string[] = [];
    let end: (end: number | string) => void = () => {};
    const ended = new Promise<number | string>((resolve) => end = resolve);
    this.started.push({ command, env, killed, end });
    for (const watcher of [...this.#watchers]) watcher();
    return Promise.resolve({ ended, kill: (signal) => void killed.push(signal) });
  }

  exit(status: number): void {
    this.exits.push(status);
  }

  /** Sends a signal. */
  signal(signal: StopSignal): void {
    for (const callback of [...this.#signalled]) callback(signal);
  }

  /** Nobody reads standard output any more. */
  closeOutput(): void {
    for (const callback of [...this.#closed]) callback();
  }

  /** Types a line. */
  type(line: string): void {
    for (const callback of [...this.#lines]) callback(line);
  }

  /** What is still listened to; nothing once a command is over. */
  get listeners(): number {
    return this.#signalled.size + this.#closed.size + this.#lines.size + Number(this.#reads);
  }

  /** The events told so far, where `--json` was given. */
  get events(): Record<string, unknown>[] {
    return this.out.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
  }

  /** Waits until `isIt` holds for what was told. */
  async until(isIt: (io: FakeIo) => boolean): Promise<void> {
    while (!isIt(this)) {
      await new Promise<void>((resolve) => {
        const watcher = () => {
          this.#watchers.delete(watcher);
          resolve();
        };
        this.#watchers.add(watcher);
      });
    }
  }

  /** Waits for the `nth` event of a name, and gives it. */
  async event(name: string, nth: number = 1): Promise<Record<string, unknown>> {
    const found = () => this.events.filter((one) => one.event === name)[nth - 1];
    await this.until(() => found() !== undefined);
    return found()!;
  }
}

/** A command line that runs, as a process with it would. */
export class FakeRun extends FakeIo {
  readonly status: Promise<number>;

  constructor(args: readonly string[], env: FakeIo["env"], parts: Parts = {}) {
    super();
    Object.assign(this.env, env);
    this.status = runCommandLine(args, this, parts);
  }

  /** Fails where the command ends before that. */
  override async until(isIt: (io: FakeIo) => boolean): Promise<void> {
    const over = this.status.then(() => {
      if (!isIt(this)) throw new Error(`It ended without that:\n${this.out}${this.err}`);
    });
    await Promise.race([super.until(isIt), over]);
  }
}

/** The mapping that {@linkcode FakeNat} grants. */
export const GRANTED: GrantedMapping = {
  kind: "map",
  via: "pcp",
  protocol: "tcp",
  gateway: { address: "192.168.1.1", port: 5351 },
  internal: { address: "192.168.1.5", port: 6000 },
  external: { address: "203.0.113.7", port: 6000 },
  lifetimeSeconds: 600,
};

/** A mapping whose events a test makes. */
export class FakeMapping {
  mapping: GrantedMapping;
  readonly calls: string[] = [];
  /** Whether the gateway confirms a deletion. */
  confirms = true;
  /** What whoever holds it does with it that is not done. */
  readonly busy: Set<string> = new Set<string>();
  #waiting: PortEvent[] = [];
  #isOver = false;
  #wake: () => void = () => {};

  constructor(mapping: GrantedMapping = GRANTED) {
    this.mapping = mapping;
  }

  get kind(): "map" | "peer" {
    return this.mapping.kind;
  }
  get via(): Via {
    return this.mapping.via;
  }
  get protocol(): Transport {
    return this.mapping.protocol;
  }
  get gateway(): string {
    return this.mapping.gateway.address;
  }
  get internal(): Endpoint {
    return this.mapping.internal;
  }
  get external(): Endpoint {
    return this.mapping.external;
  }
  get remote(): Endpoint | undefined {
    return this.mapping.remote;
  }
  get lifetimeSeconds(): number {
    return this.mapping.lifetimeSeconds;
  }
  get isDoubleNat(): boolean {
    return this.external.address.startsWith("10.");
  }

  /** Something happens to it. */
  tell(event: PortEvent): void {
    if ("mapping" in event) this.mapping = event.mapping;
    this.#waiting.push(event);
    if (event.type === "unmapped") this.#isOver = true;
    this.#wake();
  }

  renew(): Promise<void> {
    this.calls.push("renew");
    return Promise.resolve();
  }

  async release(): Promise<void> {
    this.busy.add("releases");
    await turn();
    this.calls.push("release");
    this.busy.clear();
    this.#isOver = true;
    this.#wake();
  }

  async close(): Promise<void> {
    this.calls.push("close");
    this.busy.add("closes");
    if (this.confirms) this.tell({ type: "unmapped", reason: "revoked" });
    this.#isOver = true;
    this.#wake();
    for (let turns = 0; turns < 3; turns++) await turn();
    this.busy.delete("closes");
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<PortEvent> {
    this.busy.add("iterates");
    for (;;) {
      const event = this.#waiting.shift();
      if (event) yield event;
      else if (this.#isOver) break;
      else await new Promise<void>((resolve) => this.#wake = resolve);
    }
    this.busy.delete("iterates");
    this.busy.delete("holds");
  }
}

/** A context that grants what it is told to, and notes what it was asked for. */
export class FakeNat {
  readonly calls: unknown[][] = [];
  readonly mapping: FakeMapping;
  gateways: readonly string[] = ["192.168.1.1"];
  warnings: readonly string[] = [];
  /** Whether the table is longer than what is listed. */
  isCut = false;
  /** How it was opened, each time. */
  readonly opens: NatOptions[] = [];
  state: NatState = {
    version: 1,
    mappings: [{
      via: "pcp",
      gateway: "192.168.1.1",
      lifetimeSeconds: 600,
      mode: "keep-alive",
      protocol: "tcp",
      internalPort: 6000,
      external: { address: "203.0.113.7", port: 6000 },
      nonce: "000102030405060708090a0b",
    }],
  };
  /** What every request comes to, of a context that was opened so; by default the mapping. */
  answer: (
    what: string,
    signal: AbortSignal,
    opened: NatOptions,
    args: readonly unknown[],
  ) => Promise<unknown>;

  constructor(mapping: FakeMapping = new FakeMapping()) {
    this.mapping = mapping;
    this.answer = () => Promise.resolve(mapping);
  }

  /** How it was opened last. */
  get opened(): NatOptions | undefined {
    return this.opens.at(-1);
  }

  /** Opens this one. */
  readonly open = (options: NatOptions): Promise<Nat> => {
    this.opens.push(options);
    const opened = options;
    const ask = (what: string) => (...args: unknown[]) => this.#ask(opened, what, ...args);
    const nat = {
      gateways: this.gateways,
      warnings: this.warnings,
      watch: ask("watch"),
      map: ask("map"),
      peer: ask("peer"),
      unmap: ask("unmap"),
      unmapAll: ask("unmapAll"),
      list: async (options: WaitOptions) => ({
        gateway: this.gateways[0],
        entries: await this.#ask(opened, "list", options),
        isCut: this.isCut,
      }),
      externalAddresses: async (options: AddressOptions) => {
        const found = await this.#ask(opened, "externalAddresses", options) as ExternalAddress[];
        found.forEach((address) => options.onAddress?.(address));
        return found;
      },
      exportState: async () => {
        for (let turns = 0; turns < 3; turns++) await turn();
        return this.state;
      },
      close: () => this.close(opened),
    };
    return Promise.resolve(nat as unknown as Nat);
  };

  readonly #granted: FakeMapping[] = [];

  async #ask(opened: NatOptions, what: string, ...args: unknown[]): Promise<unknown> {
    this.calls.push([what, ...args]);
    const { signal } = args.at(-1) as { signal: AbortSignal };
    const answer = await this.answer(what, signal, opened, args);
    if (answer instanceof FakeMapping) {
      answer.busy.add("holds");
      this.#granted.push(answer);
    }
    return answer;
  }

  /** What is asked for while it closes. */
  late: NatState | undefined;

  async close({ onState }: NatOptions): Promise<void> {
    const [busy] = this.#granted.flatMap((mapping) => [...mapping.busy]);
    if (busy) throw new Error(`It was closed while somebody ${busy} a mapping of it`);
    await turn();
    if (this.late) await onState?.(this.late);
    this.calls.push(["close"]);
  }
}
