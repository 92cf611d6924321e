/**
 * Puts events on standard output, as JSON or as text, and everything else on standard error.
 *
 * @module
 */
import { NatError } from "../../core/errors.ts";
import type { CliEvent } from "./events.ts";
import { type Io, Stopped } from "./io.ts";
import { describeEvent, printable, printableEvent, type Style, styleFor, viaName } from "./text.ts";
import { UsageError } from "./values.ts";

/** Where a command tells what happens. */
export class Output {
  /** Whether events go out as JSON. */
  readonly isJson: boolean;
  readonly #io: Io;
  readonly #out: Style;
  readonly #err: Style;

  /** Makes one over `io`. */
  constructor(io: Io, isJson: boolean) {
    this.#io = io;
    this.isJson = isJson;
    const mayColour = (io.env.NO_COLOR ?? "") === "" && io.env.TERM !== "dumb";
    this.#out = styleFor(mayColour && io.isTerminal.stdout);
    this.#err = styleFor(mayColour && io.isTerminal.stderr);
  }

  /** Tells an event on standard output. */
  event(event: CliEvent): void {
    const line = this.isJson ? JSON.stringify(event) : describe(event, this.#out);
    this.#io.stdout(`${line}\n`);
  }

  /** Tells a person an event on standard error, where standard output is for something else. */
  tell(event: CliEvent): void {
    this.#io.stderr(`${describe(event, this.#err)}\n`);
  }

  /** Tells a person what goes on, on standard output; with `--json` nobody. */
  story(text: string): void {
    if (!this.isJson) this.#io.stdout(`${text}\n`);
  }

  /** Tells a person what goes on, on standard error; with `--json` nobody. */
  progress(text: string): void {
    if (!this.isJson) this.#io.stderr(`${this.#err.dim(printable(text))}\n`);
  }

  /** Tells on standard error what is no error and good to know. */
  note(text: string): void {
    this.#io.stderr(`${this.#err.dim("natkit: note:")} ${printable(text)}\n`);
  }

  /** Tells a technical detail on standard error, with `--json` too. */
  log(text: string): void {
    this.#io.stderr(`${this.#err.dim(printable(text))}\n`);
  }

  /** Warns on standard error. */
  warn(text: string): void {
    this.#io.stderr(`${this.#err.warning("natkit: warning:")} ${printable(text)}\n`);
  }

  /** Tells on standard error that the command failed, and with `--json` as an event too. */
  fail(error: FailureReport): void {
    if (this.isJson) this.#io.stdout(`${JSON.stringify({ event: "error", ...error })}\n`);
    this.#io.stderr(`${this.#err.bad("natkit:")} ${printable(error.message)}\n`);
  }
}

/** An event as text; nothing in it but natkit's own style reaches into the terminal. */
function describe(event: CliEvent, style: Style): string {
  return describeEvent(printableEvent(event), style);
}

/** A command failed for a reason that is the command line's own. */
export class CommandError extends Error {
  /** The stable code. */
  readonly code: string;

  /** Makes the error. */
  constructor(code: string, message: string) {
    super(message);
    this.name = "CommandError";
    this.code = code;
  }
}

/** What the `error` event carries. */
export type FailureReport = Omit<CliEvent & { event: "error" }, "event">;

/** Milliseconds as they are told: to a tenth. */
export function tenths(milliseconds: number): number {
  return Math.round(milliseconds * 10) / 10;
}

/** What an exception means for the caller: the report and the exit status. */
export function reportOf(
  error: unknown,
): { readonly report: FailureReport; readonly status: 1 | 2 } {
  if (error instanceof UsageError) {
    return { report: { code: "usage", message: error.message, attempts: [] }, status: 2 };
  }
  if (error instanceof NatError) {
    const { code, retryAfterSeconds } = error;
    const message = error.message + remedyOf(error);
    const attempts = error.attempts.map(({ via, gateway, outcome, elapsedMs }) => (
      { via, gateway, outcome, elapsedMs: tenths(elapsedMs) }
    ));
    const wait = retryAfterSeconds === undefined ? {} : { retryAfterSeconds };
    return { report: { code, message, attempts, ...wait }, status: 1 };
  }
  if (error instanceof Stopped) {
    return { report: { code: "interrupted", message: error.message, attempts: [] }, status: 1 };
  }
  if (error instanceof CommandError) {
    return { report: { code: error.code, message: error.message, attempts: [] }, status: 1 };
  }
  const message = error instanceof Error ? error.message : String(error);
  // What the library takes for a caller's mistake is a mistake on the command line.
  if (/^'[^']+' .*current value is /s.test(message)) {
    return { report: { code: "usage", message: inFlags(message), attempts: [] }, status: 2 };
  }
  // Deno's own words, which name the flag.
  const isForbidden = error instanceof Error && error.name === "NotCapable";
  const code = isForbidden ? "permission" : "internal";
  return { report: { code, message, attempts: [] }, status: 1 };
}

/** What a person can do about it, to end the message with. */
function remedyOf({ code, message, attempts }: NatError): string {
  if (code === "gateway-not-found") {
    return message.includes("--") ? "" : "; --gateway names one";
  }
  const isMute = code === "no-answer" || code === "unsupported";
  if (!isMute || attempts.length === 0) return "";
  const gateways = [...new Set(attempts.map(({ gateway }) => gateway))].join(" or ");
  const names = [...new Set(attempts.map(({ via }) => viaName(via)))].join(", ")
    .replace(/, ([^,]*)$/, " or $1");
  return `. Is ${gateways} the router, and ${names} switched on there? ` +
    "natkit doctor looks for what stands in the way, --verbose shows each packet";
}

/** Names options by the flags they come from: `'externalAddress'` is `--external-address`. */
function inFlags(message: string): string {
  return message.replace(/'([a-z][A-Za-z]*)(?:\.[a-z]+)?'/g, (whole, name: string) => {
    if (name === "internalPort") return "PORT";
    if (name === "remote") return whole.includes(".port") ? "REMOTE_PORT" : "REMOTE_ADDRESS";
    const flag = name.replace(/(Seconds|Ms)$/, "").replace(/^filters$/, "filter")
      .replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    return `--${flag}`;
  });
}
