/**
 * A lease keeper with a wire that sends nothing: what it is told to send is written down, and the
 * gateway's answers are given by hand.
 *
 * @module
 */
import { toHex } from "../../../core/bytes.ts";
import { mergeMappingEvents } from "../../../core/lease/events.ts";
import { type Ask, LeaseKeeper, type LeaseWire } from "../../../core/lease/keeper.ts";
import type { Lease } from "../../../core/lease/lease.ts";
import type { Endpoint, Instant } from "../../../core/machine.ts";
import {
  checkMappingRequest,
  describeFailure,
  type Failure,
  type MappingEvent,
  type MappingRequest,
  type Wanted,
} from "../../../core/mapping.ts";
import { Outbox } from "../../../core/outbox.ts";
import { seededRandom } from "../../../core/random.ts";

export const EXTERNAL: Endpoint = { address: "203.0.113.7", port: 8080 };
export const NO_ANSWER: Failure = { kind: "no-answer" };
export const HOUR = 3_600_000;
const web: MappingRequest = { protocol: "tcp", internalPort: 8080, lifetimeSeconds: 7200 };

/** A refusal that is not to be asked again before `retryAt`. */
export function refusal(retryAt: Instant): Failure & { kind: "refused" } {
  return { kind: "refused", code: 8, name: "NO_RESOURCES", retryAt };
}

/** A checked request for 8080/tcp. */
export function wantedOf(request: Partial<MappingRequest> = {}): Wanted {
  return checkMappingRequest({ ...web, ...request });
}

type Fake = Lease<Ask>;
type Told = MappingEvent<{ readonly external: Endpoint | undefined }>;

/** What a wire may be like. */
export interface KeeperRigOptions {
  readonly recreation?: "each" | "together";
  readonly canDelete?: boolean;
  readonly seed?: number;
  readonly patienceMs?: (previousMs: number | undefined) => number;
}

/** A keeper at work. */
export class KeeperRig {
  now: Instant = 0;
  readonly keeper: LeaseKeeper<Ask, { readonly external: Endpoint | undefined }>;
  /** Until when the gateway wants to be left alone. */
  blocked: { readonly until: Instant; readonly failure: Failure } | undefined;
  /** How many requests on their way were taken back or have ended. */
  cancelled = 0;
  readonly #outbox = new Outbox<Told>(mergeMappingEvents);
  readonly #sent: string[] = [];

  constructor(options: KeeperRigOptions = {}) {
    const { recreation = "each", canDelete = true, seed = 1, patienceMs } = options;
    const wire: LeaseWire<Ask, { readonly external: Endpoint | undefined }> = {
      recreation,
      canDelete: () => canDelete,
      renewalFraction: (attempt) => 1 - 2 ** -attempt,
      ...(patienceMs && { patienceMs }),
      send: (lease, ask, now) => {
        lease.request = ask;
        lease.sentRevision = lease.revision;
        const seconds = lease.lifetimeToAsk(now);
        if (ask !== "delete") {
          lease.mayExistUntil = Math.max(lease.mayExistUntil, now + seconds * 1000);
        }
        const name = lease.id === 1 ? "" : `#${lease.id} `;
        this.#sent.push(`${name}${ask === "delete" ? ask : `${ask} ${seconds}`}`);
      },
      cancel: (lease) => {
        if (lease.request) this.cancelled++;
        lease.request = undefined;
      },
      blockedUntil: () => this.blocked,
      snapshot: ({ isGranted, grant }) => ({ external: isGranted ? grant!.external : undefined }),
    };
    this.keeper = new LeaseKeeper(wire, seededRandom(seed), this.#outbox);
  }

  map(request: Partial<MappingRequest> = {}): Fake {
    const { nonce, ...rest } = request;
    return this.keeper.map(wantedOf(rest), nonce && toHex(nonce), undefined, undefined, this.now);
  }

  adopt(request: Partial<MappingRequest> = {}, remembered: Endpoint | undefined = EXTERNAL): Fake {
    const { nonce, ...rest } = request;
    return this.keeper.adopt(wantedOf(rest), nonce && toHex(nonce), remembered);
  }

  /** Maps and grants, and forgets what was sent and told of it. */
  held(request: Partial<MappingRequest> = {}): Fake {
    const lease = this.map(request);
    this.grant(lease, lease.lifetimeSeconds);
    this.sent();
    this.told();
    return lease;
  }

  grant(lease: Fake, lifetimeSeconds = 7200, external: Endpoint = EXTERNAL): void {
    this.keeper.granted(lease, { external, lifetimeSeconds }, this.now);
  }

  fail(lease: Fake, failure: Failure = NO_ANSWER): boolean {
    const retryAt = failure.kind === "refused" ? failure.retryAt : undefined;
    return this.keeper.failed(lease, failure, retryAt, this.now);
  }

  /** When the keeper wants to be called next, from now on. */
  get nextIn(): number | undefined {
    const at = this.keeper.next()?.at;
    return at === undefined ? undefined : at - this.now;
  }

  /** Lets time pass. */
  run(ms: number): void {
    const end = this.now + ms;
    for (let at = this.keeper.next()?.at ?? Infinity; at <= end;) {
      this.now = Math.max(this.now, at);
      this.keeper.handleTimeout(this.now);
      at = this.keeper.next()?.at ?? Infinity;
    }
    this.now = end;
  }

  /** Takes what was sent: `"create 7200"`, with `#id` where it is not the first one. */
  sent(): string[] {
    return this.#sent.splice(0);
  }

  /** Takes what was told, in short: `"moved 203.0.113.7:8080 r1"`, `"failed no answer in 3000"`. */
  told(): string[] {
    const told: string[] = [];
    for (let action = this.#outbox.poll(); action; action = this.#outbox.poll()) {
      if (action.type === "event") told.push(this.#short(action.event));
    }
    return told;
  }

  #short(event: Told): string {
    const words: (string | number)[] = event.id === 1 ? [] : [`#${event.id}`];
    words.push(event.type);
    if ("reason" in event) words.push(event.reason);
    if ("mapping" in event) {
      const { external } = event.mapping;
      words.push(external ? `${external.address}:${external.port}` : "nowhere");
    }
    if ("failure" in event && event.failure) words.push(describeFailure(event.failure));
    if ("retryAt" in event && event.retryAt !== undefined) {
      words.push(`in ${event.retryAt - this.now}`);
    }
    if ("revision" in event) words.push(`r${event.revision}`);
    return words.join(" ");
  }
}
