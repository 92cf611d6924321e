/**
 * A packet opened: which protocol it speaks, what it says in a word, and its fields as the codecs of
 * `core/` read them.
 *
 * @module
 */
import { describeDatagram } from "../../adapters/packets.ts";
import { toHex } from "../../core/bytes.ts";
import { formatEndpoint } from "../../core/ip.ts";
import * as natPmp from "../../core/natpmp/codec.ts";
import * as pcp from "../../core/pcp/codec.ts";
import { type Packet, packetSize } from "../../core/sim/packet.ts";
import { decodeStun, isStun, STUN_METHOD, type StunMessage } from "../../core/stun/codec.ts";
import { decodeSsdp } from "../../core/upnp/ssdp.ts";

/** What a packet speaks. */
export type Speech = "pcp" | "nat-pmp" | "ssdp" | "http" | "stun" | "data" | "icmp";

/** A field with its value, for people. */
export type Field = readonly [name: string, value: string];

/** A packet in words. */
export interface Decoded {
  /** What it speaks. */
  readonly speech: Speech;
  /** What it says, in a word or two: stands on the packet as it flies. */
  readonly short: string;
  /** What it says. */
  readonly title: string;
  /** What is in it. */
  readonly fields: readonly Field[];
  /** The text in it, where it is text. */
  readonly text?: string;
}

/** A protocol's name. */
export const SPEECH_NAMES: Readonly<Record<Speech, string>> = {
  "pcp": "PCP",
  "nat-pmp": "NAT-PMP",
  "ssdp": "UPnP SSDP",
  "http": "UPnP HTTP",
  "stun": "STUN",
  "data": "Data",
  "icmp": "ICMP",
};

/** Opens a packet; one that is none of ours is data. */
export function decodePacket(packet: Packet): Decoded {
  const { data, segment, quoted } = packet;
  if (quoted) {
    const about = `${formatEndpoint(quoted.from)} → ${formatEndpoint(quoted.to)}`;
    const fields: Field[] = [["about", about], ["protocol", quoted.protocol]];
    return { speech: "icmp", short: "closed", title: "Port unreachable", fields };
  }
  if (segment) return decodeHttp(packet);
  if (isStun(data)) {
    const message = decodeStun(data);
    if (typeof message !== "string") return stunMessage(message);
  }
  const isResponse = data.length > 1 && data[1]! >= 0x80;
  const ports = [packet.from.port, packet.to.port];
  const isControl = ports.includes(natPmp.NATPMP_PORT) || ports.includes(natPmp.ANNOUNCE_PORT);
  if (isControl && data[0] === 2) return isResponse ? pcpResponse(data) : pcpRequest(data);
  if (isControl && data[0] === 0) return isResponse ? natPmpResponse(data) : natPmpRequest(data);
  const ssdp = decodeSsdp(data);
  if (typeof ssdp !== "string") {
    const { kind } = ssdp;
    const short = { search: "search?", response: "here", alive: "here", byebye: "bye" };
    const titles = { search: "M-SEARCH", response: "Answer to M-SEARCH" };
    return {
      speech: "ssdp",
      short: short[kind as keyof typeof short] ?? kind,
      title: titles[kind as keyof typeof titles] ?? `NOTIFY ssdp:${kind}`,
      fields: fieldsOf(ssdp),
      text: new TextDecoder().decode(data).trim(),
    };
  }
  const text = readable(data);
  return {
    speech: "data",
    short: text === undefined ? "data" : text.slice(0, 8),
    title: text === undefined ? "Data of an application" : `Data: ${text}`,
    fields: [["bytes", `${data.length}`]],
    ...(text !== undefined && { text }),
  };
}

/** A datagram in a line, as `natkit --verbose` prints it; undefined where it is none of ours. */
export function lineOf({ protocol, data, from, segment }: Packet): string | undefined {
  return protocol === "udp" && !segment ? describeDatagram(data, from.port) : undefined;
}

/** What the headers say, without the payload. */
export function headerFields(packet: Packet): readonly Field[] {
  const { protocol, from, to, hops } = packet;
  const show = (end: typeof from) => protocol === "icmp" ? end.address : formatEndpoint(end);
  return [
    ["source", show(from)],
    ["destination", show(to)],
    ["transport", protocol.toUpperCase()],
    ["size", `${packetSize(packet)} bytes`],
    ["hop limit", `${hops}`],
  ];
}

function pcpRequest(data: Uint8Array): Decoded {
  const request = pcp.decodeRequest(data);
  if (typeof request === "string") return broken("pcp", request);
  const isDelete = request.kind === "map" && request.lifetimeSeconds === 0;
  return {
    speech: "pcp",
    short: isDelete ? "delete?" : `${request.kind}?`,
    title: `${request.kind.toUpperCase()} request${isDelete ? ", to delete" : ""}`,
    fields: fieldsOf({ version: 2, ...request }),
  };
}

function pcpResponse(data: Uint8Array): Decoded {
  const response = pcp.decodeResponse(data);
  if (typeof response === "string") return broken("pcp", response);
  if (response.kind === "unsupported-version") return unsupported("pcp", response);
  const result = pcp.pcpResultName(response.resultCode);
  return {
    speech: "pcp",
    short: response.kind === "announce" ? "announce" : mark(response.kind, response.resultCode),
    title: `${response.kind.toUpperCase()} response: ${result}`,
    fields: fieldsOf({ version: 2, ...response }),
  };
}

function natPmpRequest(data: Uint8Array): Decoded {
  const request = natPmp.decodeRequest(data);
  if (typeof request === "string") return broken("nat-pmp", request);
  const isDelete = request.kind === "map" && request.lifetimeSeconds === 0;
  return {
    speech: "nat-pmp",
    short: isDelete ? "delete?" : `${request.kind}?`,
    title: request.kind === "address"
      ? "External address request"
      : request.kind === "map"
      ? `Mapping request${isDelete ? ", to delete" : ""}`
      : request.kind,
    fields: fieldsOf({ version: 0, ...request }),
  };
}

function natPmpResponse(data: Uint8Array): Decoded {
  const response = natPmp.decodeResponse(data);
  if (typeof response === "string") return broken("nat-pmp", response);
  if (response.kind === "unsupported-version") return unsupported("nat-pmp", response);
  const result = natPmp.natPmpResultName(response.resultCode);
  const what = response.kind === "address"
    ? "External address"
    : response.kind === "map"
    ? "Mapping"
    : "Unknown opcode's";
  return {
    speech: "nat-pmp",
    short: mark(response.kind, response.resultCode),
    title: `${what} response: ${result}`,
    fields: fieldsOf({ version: 0, ...response }),
  };
}

function unsupported(speech: Speech, response: object): Decoded {
  const fields = fieldsOf(response);
  return { speech, short: "version ✗", title: "Unsupported version", fields };
}

function stunMessage(message: StunMessage): Decoded {
  const { class: of, method, transactionId, attributes, unknown } = message;
  const name = Object.entries(STUN_METHOD).find(([, number]) => number === method)?.[0];
  const known = name?.toLowerCase().replaceAll("_", " ") ?? `method ${method}`;
  // A check of ICE names whom it is for; a question for one's address does not.
  const isCheck = attributes.username !== undefined || message.integrityAt > 0;
  const asked = attributes.useCandidate ? "nominate" : isCheck ? "check" : "who am I";
  const seen = attributes.xorMappedAddress;
  const ending = { request: "?", success: " ✓", error: " ✗", indication: "" }[of];
  return {
    speech: "stun",
    short: of === "success" && !isCheck && seen
      ? `you: :${seen.port}`
      : `${of === "success" || of === "error" ? isCheck ? "check" : known : asked}${ending}`,
    title: isCheck
      ? `Connectivity check, ${of}${attributes.useCandidate ? ", this pair is to be it" : ""}`
      : `${known[0]!.toUpperCase()}${known.slice(1)} ${of}`,
    fields: [
      ["transaction id", toHex(transactionId)],
      ...fieldsOf(attributes),
      ...unknown.map(({ type, value }): Field => [`0x${type.toString(16)}`, toHex(value) || "–"]),
      ["message integrity", message.integrityAt > 0 ? "HMAC-SHA1" : "none"],
      ["fingerprint", message.hasFingerprint ? "right" : "none"],
    ],
  };
}

function decodeHttp({ data, segment }: Packet): Decoded {
  const { kind, part, parts } = segment!;
  if (kind !== "data") {
    const titles = {
      "syn": "TCP connects",
      "syn-ack": "TCP is connected",
      "ack": "TCP acknowledges",
      "rst": "TCP refuses",
    };
    return { speech: "http", short: kind.toUpperCase(), title: titles[kind], fields: [] };
  }
  const text = new TextDecoder().decode(data);
  const of: Field[] = parts > 1 ? [["part", `${part + 1} of ${parts}`]] : [];
  const [head = "", ...rest] = text.split("\r\n\r\n");
  const [start = "", ...lines] = head.split("\r\n");
  if (!/HTTP\/1\.1/.test(start)) {
    return { speech: "http", short: "more", title: "More of the same message", fields: of, text };
  }
  const headers = lines.map((line): Field => {
    const colon = line.indexOf(":");
    return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
  });
  const action = headers.find(([name]) => name === "soapaction")?.[1].match(/#(\w+)/)?.[1];
  const status = /^HTTP\/1\.1 (\d+)/.exec(start)?.[1];
  const short = action ? soapName(action) : status ? `HTTP ${status}` : start.split(" ")[0]!;
  const body = rest.join("\r\n\r\n").trim();
  const answer = /<\w+:(\w+Response|Fault)\b/.exec(body)?.[1];
  return {
    speech: "http",
    short,
    title: action ?? answer ? `${action ?? answer} (SOAP)` : start,
    fields: [...of, ...headers],
    ...(body !== "" && { text: body }),
  };
}

/** Names of actions are long: what is done is enough. */
function soapName(action: string): string {
  if (/^Add/.test(action)) return "map?";
  if (/^Delete/.test(action)) return "delete?";
  return action === "GetExternalIPAddress" ? "address?" : "ask";
}

function broken(speech: Speech, fault: string): Decoded {
  return { speech, short: "broken", title: `Not readable: ${fault}`, fields: [] };
}

function mark(kind: string, resultCode: number): string {
  return `${kind} ${resultCode === 0 ? "✓" : "✗"}`;
}

/** The text that a datagram is, if it is printable. */
function readable(data: Uint8Array): string | undefined {
  if (data.length === 0 || data.length > 200 || data.some((byte) => byte < 0x20 || byte > 0x7e)) {
    return undefined;
  }
  return new TextDecoder().decode(data);
}

/** The fields of what a codec read, in its own words: `internalPort` is the internal port. */
function fieldsOf(decoded: object): Field[] {
  return Object.entries(decoded).flatMap(([key, value]): Field[] => {
    if (value === undefined || key === "kind") return [];
    const isSeconds = key.endsWith("Seconds");
    const name = (isSeconds ? key.slice(0, -"Seconds".length) : key)
      .replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
    if (key === "resultCode") return [["result code", `${value}`]];
    if (Array.isArray(value)) {
      return value.map((one, i): Field => [
        value.length > 1 ? `${name} ${i + 1}` : name.replace(/s$/, ""),
        shown(one),
      ]);
    }
    return [[name, isSeconds ? `${value} s` : shown(value)]];
  });
}

function shown(value: unknown): string {
  if (value instanceof Uint8Array) return toHex(value) || "–";
  if (typeof value === "bigint") return `0x${value.toString(16)}`;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "object" || value === null) return `${value}` || "–";
  if ("address" in value && "port" in value && typeof value.port === "number") {
    return formatEndpoint(value as { address: string; port: number });
  }
  return fieldsWithKind(value).map(([name, text]) => `${name} ${text}`).join(", ");
}

function fieldsWithKind(value: object): Field[] {
  const kind = "kind" in value ? [["", `${value.kind}`] as const] : [];
  return [...kind, ...fieldsOf(value)];
}
