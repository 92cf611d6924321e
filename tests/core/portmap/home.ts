/**
 * A mapper at a home router that speaks UPnP, and by the simulated gateway PCP and NAT-PMP, with 1 ms
 * between question and answer.
 *
 * @module
 */
import { SimulatedGateway } from "../../../core/gateway/gateway.ts";
import type { Instant } from "../../../core/machine.ts";
import type { MapperEvent } from "../../../core/portmap/managed.ts";
import type { PortMapper, PortMapperOptions } from "../../../core/portmap/mapper.ts";
import { seededRandom } from "../../../core/random.ts";
import { ScriptedRouter } from "../upnp/scripted_igd.ts";
import { EXTERNAL, GATEWAY, HOST, newMapper } from "./rig.ts";

/** How a home is set up. */
export interface HomeOptions {
  readonly router?: ScriptedRouter;
  /** Who answers on port 5351. Default: `"silence"`. */
  readonly datagrams?: "silence" | "unreachable" | readonly ("pcp" | "nat-pmp")[];
  readonly mapper?: Partial<PortMapperOptions>;
  /** Between question and answer, milliseconds. */
  readonly delayMs?: number;
  /** The same at port 5351, where it is another. */
  readonly datagramsDelayMs?: number;
}

/** What left, by protocol. */
export interface Left {
  readonly at: Instant;
  readonly what: string;
}

export class Home {
  readonly mapper: PortMapper;
  readonly router: ScriptedRouter;
  readonly gateway: SimulatedGateway | undefined;
  readonly events: (MapperEvent & { readonly at: Instant })[] = [];
  readonly left: Left[] = [];
  now: Instant = 0;
  datagrams: HomeOptions["datagrams"];
  readonly #delayMs: number;
  readonly #datagramsDelayMs: number;
  readonly #due: { readonly at: Instant; readonly happens: () => void }[] = [];
  #open: readonly string[] = [];

  constructor(options: HomeOptions = {}) {
    this.router = options.router ?? new ScriptedRouter();
    this.datagrams = options.datagrams ?? "silence";
    this.#delayMs = options.delayMs ?? 1;
    this.#datagramsDelayMs = options.datagramsDelayMs ?? this.#delayMs;
    if (typeof this.datagrams === "object") {
      this.gateway = new SimulatedGateway({
        externalAddresses: [EXTERNAL],
        random: seededRandom(2),
        announceTo: [],
        protocols: this.datagrams,
      });
      this.gateway.start(-100_000);
    }
    this.mapper = newMapper(options.mapper ?? {});
    this.do((mapper, now) =>
      mapper.networkChanged([{ gateway: GATEWAY, localAddress: HOST }], now)
    );
  }

  do<T>(command: (mapper: PortMapper, now: Instant) => T): T {
    const result = command(this.mapper, this.now);
    this.#settle();
    return result;
  }

  run(ms: number): void {
    const end = this.now + ms;
    for (let step = 0;; step++) {
      if (step > 100_000) throw new Error(`no rest at ${this.now}`);
      const [first] = this.#due;
      const at = Math.min(first?.at ?? Infinity, this.mapper.nextTimeout() ?? Infinity);
      if (at > end) break;
      this.now = Math.max(this.now, at);
      if (first && first.at <= this.now) {
        this.#due.shift();
        first.happens();
      } else this.mapper.handleTimeout(this.now);
      this.#settle();
    }
    this.now = end;
  }

  take(): (MapperEvent & { readonly at: Instant })[] {
    return this.events.splice(0);
  }

  types(): string[] {
    return this.take().map(({ type }) => type);
  }

  /** What left, each once. */
  kinds(): string[] {
    return [...new Set(this.left.map(({ what }) => what))];
  }

  #settle(): void {
    for (;;) {
      const listed = this.mapper.sockets();
      const fresh = listed.filter(({ key }) => !this.#open.includes(key));
      this.#open = listed.map(({ key }) => key);
      for (const { key, local } of fresh) {
        const at = { address: local?.address ?? HOST, port: 40_000 };
        this.mapper.handleSocket(key, { ok: true, local: at }, this.now);
      }
      const action = this.mapper.poll();
      if (!action && fresh.length === 0) return;
      if (action?.type === "event") this.events.push({ at: this.now, ...action.event });
      else if (action?.type === "request") {
        const { id, to, request } = action;
        this.#note(`upnp ${request.method}`);
        this.#soon(() =>
          this.mapper.handleResponse(id, this.router.http(to, request, this.now), this.now)
        );
      } else if (action?.type === "send" && action.to.port === 1900) {
        this.#note("upnp search");
        for (const { data, from } of this.router.datagram(action)) {
          this.#soon(() => this.mapper.handleDatagram(data, from, action.socket, this.now));
        }
      } else if (action?.type === "send") {
        const { data, to, socket } = action;
        this.#note(data[0] === 2 ? "pcp" : "nat-pmp");
        if (this.datagrams === "unreachable") {
          this.#soon(() => this.mapper.handleUnreachable(to, socket, this.now));
        }
        if (typeof this.datagrams !== "object") continue;
        this.#soon(() => {
          this.gateway!.handleDatagram(data, { address: HOST, port: 40_000 }, "server", this.now);
          for (let reply = this.gateway!.poll(); reply; reply = this.gateway!.poll()) {
            if (reply.type !== "send") continue;
            this.mapper.handleDatagram(reply.data, GATEWAY, socket, this.now);
          }
        }, this.#datagramsDelayMs);
      }
    }
  }

  #note(what: string): void {
    this.left.push({ at: this.now, what });
  }

  #soon(happens: () => void, delayMs: number = this.#delayMs): void {
    this.#due.push({ at: this.now + delayMs, happens });
    this.#due.sort((a, b) => a.at - b.at);
  }
}
