/**
 * How a simulated gateway's HTTP is peculiar and disturbed: requests that it is too strict for, what
 * becomes of its answers, and when they leave. HTTP runs over TCP, so what the disturbance would
 * lose comes late instead, by TCP's own retransmissions, and not at all where it is lost over and
 * over.
 *
 * @module
 */
import { headerValue } from "../upnp/header.ts";
import { encodeFault } from "../upnp/soap.ts";
import { upnpErrorName } from "../upnp/igd.ts";
import type { DebugTimeout, HttpRequest, HttpResponse, Instant } from "../machine.ts";
import { type RandomSource, uniform } from "../random.ts";
import { earliest, Timers } from "../timers.ts";
import type { Disturbance } from "./egress.ts";

/** What a strict gateway wants of a call; each was met in the field. */
export type HttpWish =
  /** Nothing before the XML declaration. */
  | "no-leading-space"
  /** No line break in the body. */
  | "no-newlines"
  /** `Content-Type` to the letter. */
  | "exact-content-type"
  /** The envelope's namespace with its slash at the end. */
  | "envelope-slash"
  /** Prefixes declared where they are used, none as the default namespace. */
  | "no-default-namespace"
  /** The port in the Host field. */
  | "host-port"
  /** Host before all other fields. */
  | "host-first"
  /** `SOAPAction` in quotes. */
  | "quoted-action"
  /** The arguments in their order. */
  | "argument-order"
  /** No Expect, no chunks: the length told beforehand. */
  | "content-length"
  /** No `&quot;` and no `&apos;`: it would take them for what they look like. */
  | "no-quote-entities";

/** A wish, and what comes of not meeting it. */
export interface HttpStrictness {
  /** What is wanted. */
  readonly wants: HttpWish;
  /** An HTTP status, or an error code of UPnP's. */
  readonly otherwise: { readonly status: number } | { readonly fault: number };
}

/** Which answers a rule is for. Everything named has to be so. */
export interface HttpMatch {
  /** What was asked for. */
  readonly about?: "description" | "scpd" | "control" | "event";
  /** The action called: one of these. */
  readonly actions?: readonly string[];
  /** Whether it is an error. */
  readonly isError?: boolean;
}

/** What becomes of an answer. */
export type HttpChange =
  /** Each `from` in the body is `to`. */
  | { readonly kind: "replace"; readonly from: string; readonly to: string }
  /** The first `from` in the body and all up to the next `until`, which goes too, is `to`. */
  | {
    readonly kind: "replace-span";
    readonly from: string;
    readonly until: string;
    readonly to: string;
  }
  /** Text before the body. */
  | { readonly kind: "prepend"; readonly text: string }
  /** Another body. */
  | { readonly kind: "body"; readonly text: string }
  /** Only its first bytes, though the length told is that of all. */
  | { readonly kind: "cut"; readonly length: number }
  /** Without its last bytes, which the length told is without, too. */
  | { readonly kind: "drop-end"; readonly bytes: number }
  /** Another status. */
  | { readonly kind: "status"; readonly status: number }
  /** Another value of a field; undefined: without it. */
  | { readonly kind: "header"; readonly name: string; readonly value?: string };

/** A rule: which answers, and what becomes of them. */
export interface HttpRule {
  /** Which answers. */
  readonly when: HttpMatch;
  /** The changes, in order. */
  readonly then: readonly HttpChange[];
}

/** What a request is about, by the folder its path has in it. */
export function aboutOf({ path }: HttpRequest): HttpMatch["about"] {
  if (/[/?]ctl\/\w+$/.test(path)) return "control";
  if (/[/?]evt\/\w+$/.test(path)) return "event";
  return /[/?]scpd\/\w+$/.test(path) ? "scpd" : "description";
}

/** The answer to a call that a strict gateway does not take; undefined where it takes it. */
export function refuseCall(
  request: HttpRequest,
  strictness: readonly HttpStrictness[],
): HttpResponse | undefined {
  if (aboutOf(request) !== "control") return undefined;
  const unmet = strictness.find(({ wants }) => !meets(request, wants));
  if (!unmet) return undefined;
  const { otherwise } = unmet;
  return "status" in otherwise
    ? { status: otherwise.status, headers: [], body: new Uint8Array(0) }
    : encodeFault(otherwise.fault, upnpErrorName(otherwise.fault));
}

function meets({ headers, body }: HttpRequest, wish: HttpWish): boolean {
  const text = new TextDecoder().decode(body ?? new Uint8Array(0));
  const field = (name: string) => headerValue(headers, name) ?? "";
  switch (wish) {
    case "no-leading-space":
      return text.startsWith("<?xml") || text.startsWith("<s:") || text.startsWith("<SOAP");
    case "no-newlines":
      return !/[\r\n]/.test(text);
    case "exact-content-type":
      return field("Content-Type") === 'text/xml; charset="utf-8"';
    case "envelope-slash":
      return text.includes('"http://schemas.xmlsoap.org/soap/envelope/"');
    case "no-default-namespace":
      return !/\sxmlns=/.test(text);
    case "host-port":
      return /:[0-9]+$/.test(field("Host"));
    case "host-first":
      return headers[0]?.[0].toLowerCase() === "host";
    case "quoted-action":
      return /^".+#.+"$/.test(field("SOAPAction"));
    case "argument-order":
      return isOrdered(text);
    case "no-quote-entities":
      return !/&(quot|apos);/.test(text);
    case "content-length":
      return field("Content-Length") !== "" && field("Expect") === "";
  }
}

/** Whether AddPortMapping's arguments stand as its description has them. */
function isOrdered(text: string): boolean {
  if (!text.includes("AddPortMapping")) return true;
  const names = [
    "NewRemoteHost",
    "NewExternalPort",
    "NewProtocol",
    "NewInternalPort",
    "NewInternalClient",
    "NewEnabled",
    "NewPortMappingDescription",
    "NewLeaseDuration",
  ];
  const places = names.map((name) => text.indexOf(`<${name}`));
  return places.every((place, i) => place >= 0 && place > (places[i - 1] ?? -1));
}

/** The answer as the rules have it; `response` itself where none fits. */
export function reshapeResponse(
  request: HttpRequest,
  response: HttpResponse,
  rules: readonly HttpRule[],
): HttpResponse {
  let changed = response;
  for (const { when, then } of rules) {
    if (fits(request, response, when)) changed = then.reduce(apply, changed);
  }
  return changed;
}

function fits(request: HttpRequest, { status }: HttpResponse, when: HttpMatch): boolean {
  if (when.about !== undefined && when.about !== aboutOf(request)) return false;
  if (when.isError !== undefined && when.isError !== (status >= 300)) return false;
  if (!when.actions) return true;
  const field = headerValue(request.headers, "SOAPAction") ?? "";
  const action = field.slice(field.indexOf("#") + 1).replace(/"$/, "");
  return when.actions.includes(action);
}

function apply(response: HttpResponse, change: HttpChange): HttpResponse {
  const withText = (edit: (text: string) => string): HttpResponse => ({
    ...response,
    body: new TextEncoder().encode(edit(new TextDecoder().decode(response.body))),
  });
  switch (change.kind) {
    case "replace":
      return withText((text) => text.replaceAll(change.from, change.to));
    case "replace-span":
      return withText((text) => {
        const start = text.indexOf(change.from);
        const end = start < 0 ? -1 : text.indexOf(change.until, start + change.from.length);
        return end < 0
          ? text
          : text.slice(0, start) + change.to + text.slice(end + change.until.length);
      });
    case "prepend":
      return withText((text) => change.text + text);
    case "body":
      return withText(() => change.text);
    case "cut":
      return {
        ...response,
        headers: [...response.headers, ["Content-Length", `${response.body.length}`]],
        body: response.body.subarray(0, change.length),
      };
    case "drop-end":
      return { ...response, body: response.body.slice(0, -change.bytes) };
    case "status":
      return { ...response, status: change.status };
    case "header": {
      const { name, value } = change;
      const others = response.headers.filter(([key]) => key.toLowerCase() !== name.toLowerCase());
      return {
        ...response,
        headers: value === undefined ? others : [...others, [name, value]],
      };
    }
  }
}

/** How many answers may be on their way. */
const MAX_WAITING = 256;
/** TCP's first retransmission, and how often it is tried. */
const RETRANSMIT_MS = 1000;
const MAX_RETRANSMISSIONS = 5;

/** HTTP's way out. */
export class HttpEgress {
  readonly #random: RandomSource;
  readonly #deliver: (id: number, response: HttpResponse) => void;
  readonly #waiting = new Map<number, HttpResponse>();
  readonly #due = new Timers<number>();
  /** What became of answers. */
  readonly stats: { sent: number; lost: number; overflowed: number } = {
    sent: 0,
    lost: 0,
    overflowed: 0,
  };

  /** @param deliver Is called for each answer when it leaves. */
  constructor(random: RandomSource, deliver: (id: number, response: HttpResponse) => void) {
    this.#random = random;
    this.#deliver = deliver;
  }

  /** How many are on their way. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Answers the request of that id, as late as the disturbance and `extraDelayMs` say. */
  send(
    id: number,
    response: HttpResponse,
    { delayMs, reorderMs, lossRate }: Disturbance,
    extraDelayMs: number,
    now: Instant,
  ): void {
    let lateMs = delayMs + extraDelayMs;
    if (reorderMs > 0) lateMs += uniform(this.#random, 0, reorderMs);
    for (let losses = 0; lossRate > 0 && uniform(this.#random, 0, 1) < lossRate; losses++) {
      if (losses >= MAX_RETRANSMISSIONS) {
        this.stats.lost++;
        return;
      }
      lateMs += RETRANSMIT_MS * 2 ** losses;
    }
    if (lateMs <= 0) return this.#leave(id, response);
    if (this.#waiting.size >= MAX_WAITING) {
      this.stats.overflowed++;
      return;
    }
    this.#waiting.set(id, response);
    this.#due.set(id, now + lateMs, "send a delayed answer");
  }

  /** Lets leave what is due. */
  handleTimeout(now: Instant): void {
    for (let id = this.#due.popDue(now); id !== undefined; id = this.#due.popDue(now)) {
      const response = this.#waiting.get(id)!;
      this.#waiting.delete(id);
      this.#leave(id, response);
    }
  }

  /** When the next one leaves. */
  nextAt(): Instant | undefined {
    return this.#due.nextAt();
  }

  /** {@linkcode HttpEgress.nextAt} with its reason. */
  next(): DebugTimeout | undefined {
    return earliest(this.#due.next());
  }

  /** Forgets what is on its way. */
  clear(): void {
    this.#waiting.clear();
    this.#due.clear();
  }

  #leave(id: number, response: HttpResponse): void {
    this.stats.sent++;
    this.#deliver(id, response);
  }
}
