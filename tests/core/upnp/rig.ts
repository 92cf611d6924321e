/**
 * An IGD client under test in virtual time, with scripted routers at the other end. Answers come at
 * once, in the order of the questions; each HTTP exchange and what it was is written down.
 */
import type { SavedState } from "../../../core/lease/saved.ts";
import type { Endpoint, HttpRequest, HttpResult, Instant } from "../../../core/machine.ts";
import type { MappingId, MappingRequest } from "../../../core/mapping.ts";
import { seededRandom } from "../../../core/random.ts";
import { IgdClient, type IgdEvent } from "../../../core/upnp/client.ts";
import { encodeAdvert, type SsdpAdvert } from "../../../core/upnp/ssdp.ts";
import { GATEWAY, HOST, type RouterOptions, ScriptedRouter, UUID } from "./scripted_igd.ts";

export interface RigOptions {
  readonly router?: ScriptedRouter;
  /** More devices that answer searches, at other addresses. */
  readonly others?: readonly { readonly address: string; readonly router: ScriptedRouter }[];
  readonly seed?: number;
  readonly state?: SavedState;
  readonly gateway?: Endpoint;
  readonly localAddress?: string;
  readonly interface?: string;
  readonly isNamed?: boolean;
  readonly isOtherGateway?: (address: string) => boolean;
}

export class Rig {
  readonly client: IgdClient;
  readonly router: ScriptedRouter;
  readonly events: IgdEvent[] = [];
  /** The statuses of the client's answers to events. */
  readonly responses: number[] = [];
  now: Instant = 0;
  /** Requests on their way whose answers are held back, while `holds`. */
  readonly held: { readonly id: number; readonly result: HttpResult }[] = [];
  holds = false;
  /** How many requests were under way at once, at most. */
  mostAtOnce = 0;
  readonly #others: RigOptions["others"];
  #open: readonly string[] = [];
  #underWay = 0;
  #nextPort = 40_000;

  constructor(options: RigOptions = {}) {
    this.router = options.router ?? new ScriptedRouter();
    this.#others = options.others;
    this.client = new IgdClient({
      gateway: options.gateway ?? GATEWAY,
      localAddress: options.localAddress ?? HOST,
      random: seededRandom(options.seed ?? 1),
      interface: options.interface,
      ...(options.isNamed !== undefined && { isNamed: options.isNamed }),
      isNamed: options.isNamed ?? false,
      isOtherGateway: options.isOtherGateway,
      ...(options.state && { state: options.state }),
    });
  }

  do<T>(command: (client: IgdClient, now: Instant) => T): T {
    const result = command(this.client, this.now);
    this.settle();
    return result;
  }

  map(request: Partial<MappingRequest> = {}): MappingId {
    return this.do((client, now) =>
      client.map({ protocol: "tcp", internalPort: 8080, ...request }, now)
    );
  }

  /** Opens what is listed, carries what is asked to the routers and back, until all are silent. */
  settle(): void {
    for (;;) {
      const listed = this.client.sockets();
      const fresh = listed.filter(({ key }) => !this.#open.includes(key));
      this.#open = listed.map(({ key }) => key);
      for (const { key, local } of fresh) {
        const at = { address: local!.address, port: local!.port || this.#nextPort++ };
        this.client.handleSocket(key, { ok: true, local: at }, this.now);
      }
      const action = this.client.poll();
      if (!action && fresh.length === 0) return;
      if (action?.type === "event") this.events.push(action.event);
      else if (action?.type === "send") {
        for (const { router } of this.#all()) {
          for (const { data, from } of router.datagram(action)) {
            this.client.handleDatagram(data, from, action.socket, this.now);
          }
        }
      } else if (action?.type === "respond") this.responses.push(action.response.status);
      else if (action?.type === "request") {
        this.mostAtOnce = Math.max(this.mostAtOnce, ++this.#underWay);
        const there = this.#all().find(({ address }) => address === action.to.address);
        const result = there?.router.http(action.to, action.request, this.now) ??
          { ok: false, reason: "refused" } as const;
        if (this.holds) this.held.push({ id: action.id, result });
        else this.answer(action.id, result);
      }
    }
  }

  answer(id: number, result: HttpResult): void {
    this.#underWay--;
    this.client.handleResponse(id, result, this.now);
  }

  /** Lets the answers through that were held back, one or all. */
  release(count: number = Infinity): void {
    for (const { id, result } of this.held.splice(0, count)) this.answer(id, result);
    this.settle();
  }

  runTo(end: Instant): void {
    for (let step = 0;; step++) {
      if (step > 100_000) throw new Error(`no rest at ${this.now}`);
      const due = this.client.nextTimeout() ?? Infinity;
      if (due > end) break;
      this.now = Math.max(this.now, due);
      this.client.handleTimeout(this.now);
      this.settle();
    }
    this.now = Math.max(this.now, end);
  }

  run(ms: number): void {
    this.runTo(this.now + ms);
  }

  take(): IgdEvent[] {
    return this.events.splice(0);
  }

  types(): string[] {
    return this.take().map(({ type }) => type);
  }

  /** Hands an event to the client; answers its status. */
  event(request: HttpRequest, from: string = GATEWAY.address): number {
    this.client.handleRequest(1, request, { address: from, port: 40_001 }, this.now);
    this.settle();
    return this.responses.pop()!;
  }

  /** Hands an announcement to the client. */
  notice(
    kind: "alive" | "byebye" | "update",
    over: Partial<SsdpAdvert> = {},
    from: string = GATEWAY.address,
  ): void {
    const host = { address: "239.255.255.250", port: 1900 };
    const data = encodeAdvert(kind, host, {
      target: "upnp:rootdevice",
      usn: `${UUID}::upnp:rootdevice`,
      location: this.router.location,
      bootId: 1,
      ...over,
    });
    this.client.handleDatagram(data, { address: from, port: 50_000 }, this.noticeKey, this.now);
    this.settle();
  }

  /** The key of the socket on which announcements are heard. */
  get noticeKey(): string {
    return this.client.sockets().find(({ group }) => group !== undefined)!.key;
  }

  #all(): readonly { readonly address: string; readonly router: ScriptedRouter }[] {
    return [{ address: GATEWAY.address, router: this.router }, ...this.#others ?? []];
  }
}

/** Holds 8080/tcp; what was told and asked until then is forgotten. */
export function holding(options: RouterOptions = {}): Rig {
  const rig = new Rig({ router: new ScriptedRouter(options) });
  rig.map();
  rig.router.takeActions();
  rig.take();
  return rig;
}

/** The event, which must be of this type. */
export function told<T extends IgdEvent["type"]>(
  event: IgdEvent | undefined,
  type: T,
): Extract<IgdEvent, { readonly type: T }> {
  if (event?.type !== type) {
    throw new Error(`Expected an event "${type}": current value is ${JSON.stringify(event)}`);
  }
  return event as Extract<IgdEvent, { readonly type: T }>;
}
