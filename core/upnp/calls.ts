/**
 * Requests to one device, one at a time (UPNP-C-12: some devices break when two come at once).
 *
 * What needs several answers is a job: a generator that yields what to ask and goes on with what
 * came of it. Jobs run one after the other, each to its end, so that what one has looked up holds
 * while it acts on it, as far as this host goes.
 *
 * @module
 */
import type { Endpoint, HttpRequest, HttpResult } from "../machine.ts";
import type { Failure } from "../mapping.ts";
import { UPNP_ERROR } from "./igd.ts";
import { asMPost, decodeResult, encodeCall, SOAP_MAX_BYTES, type SoapArguments } from "./soap.ts";

/** An HTTP exchange that a job waits for. */
export interface Exchange {
  /** Where to. */
  readonly to: Endpoint;
  /** What to ask. */
  readonly request: HttpRequest;
  /** The largest answer to take, bytes. */
  readonly maxBytes: number;
  /** How long it may take, milliseconds. */
  readonly timeoutMs: number;
}

/** What a job does: it yields what to ask and is resumed with the result. */
export type Steps<T> = Generator<Exchange, T, HttpResult>;

/** How a job ended: `"again"` where the device is to be looked for anew, and the job done anew. */
export type Ending = "done" | "again";

/** Something to do at the device. */
export interface Job {
  /** For logs. */
  readonly name: string;
  /** Part of the search for the device, or of taking leave: it runs though none is known. */
  readonly needsNoDevice?: boolean;
  /** Nobody waits for it: it is done where the device is known, and forgotten at the end. */
  readonly isOptional?: boolean;
  /** Does it. */
  run(): Steps<Ending>;
  /** The device cannot be asked. */
  fail(failure: Failure): void;
  /** Whether it was given up: what is on its way is still waited for. */
  isCancelled?: boolean;
  /** Whether it has been begun anew once. */
  isSecondTry?: boolean;
  /** The search that was under way when it came. */
  joined?: number | undefined;
}

/** The jobs of one client. */
export class CallQueue {
  readonly #ask: (id: number, exchange: Exchange) => void;
  #waiting: Job[] = [];
  #current: { readonly job: Job; readonly steps: Steps<Ending> } | undefined;
  /** The request on its way. */
  #askedId: number | undefined;
  #nextId = 0;
  /** Where the device's own jobs may run. */
  #isOpen = false;

  /** @param ask Sends a request. */
  constructor(ask: (id: number, exchange: Exchange) => void) {
    this.#ask = ask;
  }

  /** Whether nothing is to be done that somebody waits for. */
  get isEmpty(): boolean {
    return this.#current === undefined && this.#waiting.every(({ isOptional }) => isOptional);
  }

  /** Whether something waits for which the device is to be looked for. */
  get needsDevice(): boolean {
    return this.#waiting.some(({ needsNoDevice, isOptional }) => !needsNoDevice && !isOptional);
  }

  /** Lets the device's jobs run, or wait. */
  setOpen(isOpen: boolean): void {
    this.#isOpen = isOpen;
  }

  /**
   * Adds a job; those that need no device come first.
   *
   * @param search The search that is under way: where it finds nothing, another one is for this job.
   */
  add(job: Job, search?: number): void {
    job.joined = search;
    if (job.needsNoDevice) this.#waiting.unshift(job);
    else this.#waiting.push(job);
  }

  /** Takes a job back; one that has begun ends with the answer it waits for. */
  cancel(job: Job): void {
    job.isCancelled = true;
    this.#waiting = this.#waiting.filter((one) => one !== job);
  }

  /** Forgets what nobody waits for. */
  dropOptional(): void {
    this.#waiting = this.#waiting.filter(({ isOptional }) => !isOptional);
  }

  /** Takes out the jobs that a search was for: all that need the device, but those that joined it. */
  takeWaiting(search: number): Job[] {
    const isTaken = ({ needsNoDevice, joined }: Job) => !needsNoDevice && joined !== search;
    const taken = this.#waiting.filter(isTaken);
    this.#waiting = this.#waiting.filter((job) => !isTaken(job));
    return taken;
  }

  /** Begins what can begin. */
  advance(): void {
    while (!this.#current) {
      const next = this.#waiting.find(({ needsNoDevice }) => needsNoDevice || this.#isOpen);
      if (!next) return;
      this.#waiting = this.#waiting.filter((one) => one !== next);
      this.#current = { job: next, steps: next.run() };
      this.#go(undefined);
    }
  }

  /** Takes the result of a request; false where nobody waits for it. */
  handleResponse(id: number, result: HttpResult): boolean {
    if (id !== this.#askedId) return false;
    this.#askedId = undefined;
    this.#go(result);
    this.advance();
    return true;
  }

  #go(result: HttpResult | undefined): void {
    const { job, steps } = this.#current!;
    const step = result === undefined ? steps.next() : steps.next(result);
    if (!step.done) {
      this.#askedId = this.#nextId++;
      return this.#ask(this.#askedId, step.value);
    }
    this.#current = undefined;
    if (step.value === "done" || job.isCancelled) return;
    if (job.isSecondTry) return job.fail({ kind: "no-answer" });
    job.isSecondTry = true;
    this.#waiting.unshift(job);
  }
}

/** A service that can be called. */
export interface ServiceAt {
  /** What its device calls it. */
  readonly id: string;
  /** Its type, as its device spells it: what it is called by (peers' quirk 29). */
  readonly serviceType: string;
  /** Where it is controlled. */
  readonly to: Endpoint;
  /** The path of its control URL. */
  readonly path: string;
  /** The path of its event URL, at `to`. */
  readonly eventPath?: string | undefined;
}

/** What a call came to. */
export type Outcome =
  | { readonly type: "done"; readonly args: SoapArguments }
  /** The service said no. */
  | { readonly type: "error"; readonly code: number }
  /** Nobody listens there, or there is no such thing any more. */
  | { readonly type: "gone" }
  /** No answer in time. */
  | { readonly type: "silent" }
  /** Hung up, or an answer that is none. */
  | { readonly type: "nonsense" };

/** What a call that was not answered, or with nonsense, comes to. */
export function unanswered({ type }: Outcome & { type: "gone" | "silent" | "nonsense" }): Failure {
  return type === "nonsense"
    ? { kind: "protocol-violation", clause: "no answer of UPnP's" }
    : { kind: "no-answer" };
}

/** Devices should answer within 30 s; those that do at all take 4 s at most (bisq's report). */
const CALL_MS = 10_000;

/** Calls an action. */
export function* callAction(
  service: ServiceAt,
  action: string,
  args: SoapArguments = {},
): Steps<Outcome> {
  const { serviceType, path, to } = service;
  const request = encodeCall({ service: serviceType, action, args }, path);
  const limits = { maxBytes: SOAP_MAX_BYTES, timeoutMs: CALL_MS };
  let result = yield { to, request, ...limits };
  if (result.ok && result.status === 405) {
    result = yield { to, request: asMPost(request), ...limits };
  }
  return outcomeOf(result);
}

function outcomeOf(result: HttpResult): Outcome {
  if (!result.ok) {
    if (result.reason === "refused") return { type: "gone" };
    return { type: result.reason === "timeout" ? "silent" : "nonsense" };
  }
  const decoded = decodeResult(result);
  if (typeof decoded !== "string") {
    return decoded.ok
      ? { type: "done", args: decoded.args }
      : { type: "error", code: decoded.code };
  }
  if (result.status === 404 || result.status === 410) return { type: "gone" };
  // There are devices that say no without a word (peers' quirk 42).
  return result.status === 500
    ? { type: "error", code: UPNP_ERROR.ActionFailed }
    : { type: "nonsense" };
}
