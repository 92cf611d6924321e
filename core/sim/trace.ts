/**
 * What happened in a simulation, as text and as pcap: the last so many entries, so that memory
 * stays bounded however long the run.
 *
 * A link's line tells what the link did to the packet (`delivered`, `lost`, `duplicated`…) at the
 * time it was sent; a NAT or host adds a line where it did not take the packet. Events of machines
 * and notes stand between them.
 *
 * @module
 */
import { toHex } from "../bytes.ts";
import { checkInteger } from "../check.ts";
import type { Instant } from "../machine.ts";
import { describePacket, type Packet, type Verdict } from "./packet.ts";
import { encodePcap, type PcapRecord } from "./pcap.ts";

/** A packet's way over a link, from one host to the next. */
export interface Crossing {
  /** The host that sent it here. */
  readonly from: string;
  /** The host that it goes to here. */
  readonly to: string;
  /** When it is there, once for each copy; never where the link took it. */
  readonly arrivals: readonly Instant[];
}

/** A packet at one place. */
export interface PacketEntry {
  /** When, milliseconds of virtual time. */
  readonly at: Instant;
  /** The segment, NAT or host. */
  readonly where: string;
  /** Whether `where` is a segment. */
  readonly onLink: boolean;
  /** The packet. */
  readonly packet: Packet;
  /** What became of it there. */
  readonly verdict: Verdict;
  /** Its way, where that is a link's. */
  readonly crossing?: Crossing;
}

/** Something that is no packet: a machine's event, a scenario's turn. */
export interface NoteEntry {
  /** When, milliseconds of virtual time. */
  readonly at: Instant;
  /** Whom it is about. */
  readonly where: string;
  /** In words. */
  readonly note: string;
  /** What a machine told, where it is that. */
  readonly event?: unknown;
}

/** An entry of the trace. */
export type TraceEntry = PacketEntry | NoteEntry;

/** Puts a datagram into words; undefined where it does not know it. */
export type PacketDecoder = (data: Uint8Array, packet: Packet) => string | undefined;

/** How a {@linkcode Trace} works. */
export interface TraceOptions {
  /** How many entries are kept; 0 turns the trace off. Default 0. */
  readonly size?: number;
  /** Puts datagrams into words; without it their first 24 bytes are shown. */
  readonly decode?: PacketDecoder;
}

/** Event objects as text: bytes in hexadecimal, the rest as JSON. */
function show(event: unknown): string {
  return JSON.stringify(event, (_, value) => value instanceof Uint8Array ? toHex(value) : value);
}

/**
 * A bounded record of what happened.
 *
 * @example
 * ```ts
 * import { World } from "@natkit/natkit/testing";
 * const world = new World({ trace: { size: 1000 } });
 * world.trace.note(0, "world", "nothing happened");
 * console.assert(world.trace.text().includes("nothing happened"));
 * ```
 */
export class Trace {
  readonly #size: number;
  readonly #decode: PacketDecoder | undefined;
  #ring: TraceEntry[] = [];
  #next = 0;
  /** Entries that were pushed out by later ones. */
  forgotten = 0;

  /** Makes an empty trace. */
  constructor(options: TraceOptions = {}) {
    this.#size = checkInteger("size", options.size ?? 0, 0, 10_000_000);
    this.#decode = options.decode;
  }

  /** Whether anything is recorded. */
  get isOn(): boolean {
    return this.#size > 0;
  }

  /** Records a packet on a link. */
  crossing(at: Instant, where: string, packet: Packet, verdict: Verdict, crossing: Crossing): void {
    if (this.#size > 0) this.#add({ at, where, onLink: true, packet, verdict, crossing });
  }

  /** Records a packet at a NAT or host that did not take it. */
  dropped(at: Instant, where: string, packet: Packet, verdict: Verdict): void {
    if (this.#size > 0) this.#add({ at, where, onLink: false, packet, verdict });
  }

  /** Records something else. */
  note(at: Instant, where: string, note: string): void {
    if (this.#size > 0) this.#add({ at, where, note });
  }

  /** Records what a machine told. */
  event(at: Instant, where: string, event: unknown): void {
    if (this.#size > 0) this.#add({ at, where, note: "event", event });
  }

  /** The entries kept, oldest first. */
  entries(): TraceEntry[] {
    return [...this.#ring.slice(this.#next), ...this.#ring.slice(0, this.#next)];
  }

  /** The last `lines` entries, one a line. */
  text(lines: number = this.#size): string {
    return this.entries().slice(-lines || this.#size).map((entry) => this.format(entry)).join("\n");
  }

  /** One entry as a line. */
  format(entry: TraceEntry): string {
    const head = `${(entry.at / 1000).toFixed(6).padStart(14)} ${entry.where.padEnd(10)} `;
    if ("note" in entry) {
      return head + (entry.event === undefined ? `-- ${entry.note}` : `== ${show(entry.event)}`);
    }
    const { packet, verdict } = entry;
    const words = packet.quoted ? "" : ` ${this.#words(packet)}`;
    return `${head}${describePacket(packet)}${words} : ${verdict}`;
  }

  #words(packet: Packet): string {
    const words = this.#decode?.(packet.data, packet);
    if (words !== undefined) return words;
    const rest = packet.data.length > 24 ? "…" : "";
    return `${packet.data.length} B ${toHex(packet.data.subarray(0, 24))}${rest}`;
  }

  /**
   * The packets kept as a pcap file that Wireshark and tcpdump open, of one segment where
   * `segment` names it (else a packet shows on every segment it crossed). They are as a tap at the
   * sender's end saw them: lost ones are there too.
   */
  pcap(segment?: string): Uint8Array {
    const records: PcapRecord[] = [];
    for (const entry of this.entries()) {
      if (!("packet" in entry) || !entry.onLink) continue;
      if (segment !== undefined && entry.where !== segment) continue;
      records.push(entry);
    }
    return encodePcap(records);
  }

  #add(entry: TraceEntry): void {
    if (this.#ring.length < this.#size) {
      this.#ring.push(entry);
      return;
    }
    this.#ring[this.#next] = entry;
    this.#next = (this.#next + 1) % this.#size;
    this.forgotten++;
  }
}
