/**
 * `natkit punch`: a ticket out, the peer's ticket in, and then a pipe between the two standard
 * inputs and outputs.
 *
 * @module
 */
import type { Socket } from "node:net";
import { dropUndefined } from "../../../core/defined.ts";
import { TicketError } from "../../../core/ice/ticket.ts";
import type { IceRole } from "../../../core/ice/agent.ts";
import type { UdpChannel } from "../../api/punch.ts";
import type { RendezvousOptions, RendezvousSide } from "../../api/rendezvous.ts";
import type { Context } from "../command.ts";
import type { FlagValues } from "../flags.ts";
import type { Input } from "../io.ts";
import { CommandError, tenths } from "../output.ts";
import { UsageError } from "../values.ts";

/** A ticket is short: more than this before its end is none, bytes. */
const MAX_TICKET_BYTES = 65_536;
/** The most bytes of a line that is sent as one datagram. */
const MAX_DATAGRAM_BYTES = 65_507;
const NEWLINE = 10;

/** Runs the command; answers the exit status. */
export async function run(context: Context): Promise<number> {
  const { flags, io, stop } = context;
  checkPunchFlags(flags);
  const input = new LineInput(io.openInput());
  stop.addEventListener("abort", () => input.close());
  try {
    return await (flags.tcp ? overTcp(context, input) : overUdp(context, input));
  } catch (error) {
    if (error instanceof TicketError) throw new CommandError("ticket", error.message);
    throw error;
  } finally {
    input.close();
  }
}

/** Throws where two flags contradict each other. */
function checkPunchFlags(flags: FlagValues): void {
  const { udp, tcp, sdp, turn, controlling, controlled } = flags;
  if (udp && tcp) throw new UsageError("--udp and --tcp cannot be given both");
  if (controlling && controlled) {
    throw new UsageError("--controlling and --controlled cannot be given both");
  }
  if (tcp && turn) throw new UsageError("--turn needs --udp: relays of TCP are not spoken");
  if (tcp && sdp) {
    throw new UsageError("--sdp needs --udp: other ICE stacks frame what they send over TCP");
  }
}

function optionsOf({ flags, runtime, stop, timeoutMs }: Context): RendezvousOptions {
  const { stun, turn, controlling, controlled } = flags;
  const own = flags["internal-address"];
  const role: IceRole | undefined = controlling
    ? "controlling"
    : controlled
    ? "controlled"
    : undefined;
  return {
    runtime,
    signal: stop,
    ...dropUndefined({ stunServers: stun, turnServers: turn, role, timeoutMs }),
    ...(own !== undefined && { localAddresses: [own] }),
  };
}

/** Tells this side's ticket and reads the peer's. */
async function exchange(
  context: Context,
  input: LineInput,
  told: Pick<RendezvousSide, "ticket" | "sdp">,
): Promise<string> {
  const { output, flags, stop } = context;
  output.event(
    flags.sdp ? { event: "ticket", sdp: told.sdp } : { event: "ticket", ticket: told.ticket },
  );
  if (flags.stun === undefined && flags.turn === undefined) {
    output.progress("Without --stun only peers of this network are reached, and those without NAT");
  }
  output.progress("Give that to the peer, and its ticket to this command");
  const peer = flags.sdp ? await input.untilEmptyLine() : ticketOf(await input.line());
  stop.throwIfAborted();
  if (peer !== undefined) return peer;
  throw new CommandError("ticket", "Standard input has ended before the peer's ticket came");
}

/** The ticket on a line; a `ticket` event of the peer's `--json` does, too. */
function ticketOf(line: Uint8Array | undefined): string | undefined {
  if (line === undefined) return undefined;
  const text = new TextDecoder().decode(line);
  if (!text.trimStart().startsWith("{")) return text;
  try {
    const { ticket } = JSON.parse(text) as { readonly ticket?: unknown };
    return typeof ticket === "string" ? ticket : text;
  } catch {
    return text;
  }
}

async function overUdp(context: Context, input: LineInput): Promise<number> {
  const { UdpRendezvous } = await import("../../api/punch.ts");
  const { output, stop } = context;
  const rendezvous = await UdpRendezvous.open(optionsOf(context));
  stop.addEventListener("abort", () => void rendezvous.close());
  try {
    const peer = await exchange(context, input, rendezvous);
    const channel = await rendezvous.punch(peer, { signal: stop });
    tellPunched(context, "udp", channel);
    if (channel.isRelayed) output.progress("A relay is between: no direct path was found");
    output.progress("Each line is sent as one datagram; datagrams may be lost on the way");
    const sending = sendLines(context, input, channel);
    const receiving = receiveLines(context, channel);
    const ended = channel.ended.then((how) => {
      if (how === "lost") output.progress("The peer is gone");
      input.close();
    });
    await Promise.race([Promise.all([sending, receiving]), ended]);
    stop.throwIfAborted();
    return 0;
  } finally {
    await rendezvous.close();
  }
}

async function sendLines(
  { output, stop }: Context,
  input: LineInput,
  channel: UdpChannel,
): Promise<void> {
  for (let line = await input.line(); line !== undefined; line = await input.line()) {
    if (stop.aborted) return;
    if (line.length <= MAX_DATAGRAM_BYTES) channel.send(line);
    else output.warn(`A line of ${line.length} bytes is too long for a datagram: it was not sent`);
  }
  channel.end();
}

async function receiveLines({ output, io }: Context, channel: UdpChannel): Promise<void> {
  for await (const data of channel) {
    if (output.isJson) {
      tellData(output, data);
      continue;
    }
    const hasEnd = data.at(-1) === NEWLINE;
    const line = new Uint8Array(data.length + (hasEnd ? 0 : 1)).fill(NEWLINE);
    line.set(data);
    await io.write(line);
  }
}

function tellData(output: Context["output"], data: Uint8Array): void {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
    output.event({ event: "data", text });
  } catch {
    const binary = Array.from(data, (byte) => String.fromCharCode(byte)).join("");
    output.event({ event: "data", base64: btoa(binary) });
  }
}

/** Standard output is the peer's from here on: a person is told on the other one. */
function tellPunched(
  { output }: Context,
  protocol: "tcp" | "udp",
  { local, mapped, peer, elapsedMs }: Pick<UdpChannel, "local" | "mapped" | "peer" | "elapsedMs">,
): void {
  const event = {
    event: "punched",
    protocol,
    local,
    mapped,
    remote: peer,
    elapsedMs: tenths(elapsedMs),
  } as const;
  if (output.isJson) output.event(event);
  else output.tell(event);
}

async function overTcp(context: Context, input: LineInput): Promise<number> {
  const { TcpRendezvous } = await import("../../api/punch_tcp.ts");
  const { stop } = context;
  const rendezvous = await TcpRendezvous.open(optionsOf(context));
  try {
    const peer = await exchange(context, input, rendezvous);
    const punched = await rendezvous.punch(peer, { signal: stop });
    tellPunched(context, "tcp", punched);
    const socket = punched.socket as Socket;
    stop.addEventListener("abort", () => socket.destroy());
    let failure: Error | undefined;
    const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
    socket.once("error", (error: Error) => failure = error);
    const sending = sendBytes(input, socket);
    await receiveBytes(context, socket, () => failure === undefined);
    // What the peer has ended may still be sent to, until our own input ends too.
    await Promise.race([sending, closed]);
    input.close();
    await closed;
    stop.throwIfAborted();
    if (failure) throw new CommandError("network", `The connection broke: ${failure.message}`);
    return 0;
  } finally {
    await rendezvous.close();
  }
}

/** Sends all of standard input, as fast as the peer takes it, and then the end. */
async function sendBytes(input: LineInput, socket: Socket): Promise<void> {
  for (let data = await input.bytes(); data !== undefined; data = await input.bytes()) {
    if (socket.destroyed) return;
    const isTaken = socket.write(data);
    if (!isTaken) {
      await new Promise<void>((resolve) => {
        socket.once("drain", () => resolve());
        socket.once("close", () => resolve());
      });
    }
  }
  socket.end();
}

/** Writes what comes until the peer's end, as fast as standard output takes it. */
async function receiveBytes(
  { output, io }: Context,
  socket: Socket,
  isWell: () => boolean,
): Promise<void> {
  try {
    for await (const data of socket.iterator({ destroyOnReturn: false })) {
      if (output.isJson) tellData(output, data);
      else await io.write(data);
    }
  } catch (error) {
    // What broke the connection is told by its own event.
    if (isWell() && !socket.destroyed) throw error;
  }
}

/** Standard input as lines first, and as bytes after that. */
class LineInput {
  readonly #input: Input;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(input: Input) {
    this.#input = input;
  }

  /** The next line without its end; undefined at the end of input. */
  async line(): Promise<Uint8Array | undefined> {
    for (let from = 0;;) {
      const end = this.#rest.indexOf(NEWLINE, from);
      if (end >= 0) {
        const line = this.#rest.subarray(0, this.#rest[end - 1] === 13 ? end - 1 : end);
        this.#rest = this.#rest.subarray(end + 1);
        return line;
      }
      from = this.#rest.length;
      const more = await this.#input.read();
      if (more === undefined || from > 4 * MAX_TICKET_BYTES) {
        const line = this.#rest;
        this.#rest = new Uint8Array(0);
        return line.length > 0 ? line : undefined;
      }
      const joined = new Uint8Array(from + more.length);
      joined.set(this.#rest);
      joined.set(more, from);
      this.#rest = joined;
    }
  }

  /** The lines up to an empty one, or to the end of input. */
  async untilEmptyLine(): Promise<string | undefined> {
    const lines: string[] = [];
    let length = 0;
    for (;;) {
      const line = await this.line();
      if (line === undefined && lines.length === 0) return undefined;
      if (line === undefined || (line.length === 0 && lines.length > 0)) return lines.join("\n");
      length += line.length;
      if (length > MAX_TICKET_BYTES) return lines.join("\n");
      if (line.length > 0) lines.push(new TextDecoder().decode(line));
    }
  }

  /** The bytes that follow; undefined at the end of input. */
  async bytes(): Promise<Uint8Array | undefined> {
    const rest = this.#rest;
    this.#rest = new Uint8Array(0);
    return rest.length > 0 ? rest : await this.#input.read();
  }

  /** Reads no more. */
  close(): void {
    this.#input.close();
  }
}
