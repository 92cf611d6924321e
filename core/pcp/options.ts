/**
 * PCP options, both directions: RFC 6887 §7.3 and §13, DESCRIPTION (RFC 7220), PORT_SET (RFC 7753);
 * PREFIX64 stands in `prefix64.ts`. An option is a code, a reserved zero byte, a length without
 * padding, the data, and zeros up to a multiple of four (PCP-C-31).
 *
 * @module
 */
import { putU16, u16 } from "../bytes.ts";
import { getAddress16, putAddress16 } from "../ip.ts";
import { PCP_OPTION } from "./constants.ts";

/** The most bytes of UTF-8 that a DESCRIPTION carries (RFC 7220 §2). */
export const MAX_DESCRIPTION_BYTES = 1016;

/** THIRD_PARTY (RFC 6887 §13.1): the mapping is for another internal address. */
export interface ThirdPartyOption {
  /** Names the option. */
  readonly type: "third-party";
  /** Whose mapping it is. */
  readonly internalAddress: string;
}

/** PREFER_FAILURE (RFC 6887 §13.2): the suggested external endpoint or none. */
export interface PreferFailureOption {
  /** Names the option. */
  readonly type: "prefer-failure";
}

/** FILTER (RFC 6887 §13.3): only these remote peers may come in. */
export interface FilterOption {
  /** Names the option. */
  readonly type: "filter";
  /** As on the wire, 0…255: IPv4 prefixes are 96 longer (PCP-C-49), 0 removes all filters. */
  readonly prefixLength: number;
  /** 0…65535; 0 means every port. */
  readonly remotePort: number;
  /** The peer's address, or the prefix's. */
  readonly remoteAddress: string;
}

/** DESCRIPTION (RFC 7220): a text the server keeps with the mapping. */
export interface DescriptionOption {
  /** Names the option. */
  readonly type: "description";
  /** At most {@linkcode MAX_DESCRIPTION_BYTES} bytes of UTF-8; empty erases. */
  readonly text: string;
}

/** PORT_SET (RFC 7753): a run of ports in one mapping. */
export interface PortSetOption {
  /** Names the option. */
  readonly type: "port-set";
  /** How many ports, 0…65535 (0 is malformed, 65535 asks for as many as there are). */
  readonly size: number;
  /** The first internal port. */
  readonly firstInternalPort: number;
  /** Whether the parity of external and internal ports is to be the same. */
  readonly parity: boolean;
}

/** An option that is not known here. */
export interface UnknownOption {
  /** Names the option. */
  readonly type: "unknown";
  /** 0…255. */
  readonly code: number;
  /** Without padding; where it was decoded, a view into the packet. */
  readonly data: Uint8Array;
}

/** A known option whose length or content cannot be right. */
export interface MalformedOption {
  /** Names the option. */
  readonly type: "malformed";
  /** 0…255. */
  readonly code: number;
  /** Without padding; where it was decoded, a view into the packet. */
  readonly data: Uint8Array;
}

/** One option of a message. */
export type PcpOption =
  | ThirdPartyOption
  | PreferFailureOption
  | FilterOption
  | DescriptionOption
  | PortSetOption
  | UnknownOption
  | MalformedOption;

/** What messages without options share, so that decoding one allocates nothing for them. */
export const NO_OPTIONS: readonly PcpOption[] = Object.freeze([]);

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The code of an option. */
export function optionCode(option: PcpOption): number {
  switch (option.type) {
    case "third-party":
      return PCP_OPTION.THIRD_PARTY;
    case "prefer-failure":
      return PCP_OPTION.PREFER_FAILURE;
    case "filter":
      return PCP_OPTION.FILTER;
    case "description":
      return PCP_OPTION.DESCRIPTION;
    case "port-set":
      return PCP_OPTION.PORT_SET;
    default:
      return option.code;
  }
}

/** The length of an option's data, without header and padding. */
function dataLength(option: PcpOption): number {
  switch (option.type) {
    case "third-party":
      return 16;
    case "prefer-failure":
      return 0;
    case "filter":
      return 20;
    case "description":
      return utf8Length(option.text);
    case "port-set":
      return 5;
    default:
      return option.data.length;
  }
}

/** How many bytes of UTF-8 a text takes; a lone surrogate counts as the three of U+FFFD. */
export function utf8Length(text: string): number {
  let length = 0;
  for (const character of text) {
    const code = character.codePointAt(0)!;
    length += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  }
  return length;
}

/** How many bytes the options take on the wire, padding included. */
export function optionsLength(options: readonly PcpOption[]): number {
  let length = 0;
  for (const option of options) length += 4 + ((dataLength(option) + 3) & ~3);
  return length;
}

/** Writes the options from `offset` on into zeroed bytes; returns where they end. */
export function putOptions(
  bytes: Uint8Array,
  offset: number,
  options: readonly PcpOption[],
): number {
  for (const option of options) {
    const length = dataLength(option);
    bytes[offset] = optionCode(option);
    putU16(bytes, offset + 2, length);
    putData(bytes, offset + 4, option);
    offset += 4 + ((length + 3) & ~3);
  }
  return offset;
}

function putData(bytes: Uint8Array, at: number, option: PcpOption): void {
  switch (option.type) {
    case "third-party":
      return putAddress16(bytes, at, option.internalAddress);
    case "prefer-failure":
      return;
    case "filter":
      bytes[at + 1] = option.prefixLength;
      putU16(bytes, at + 2, option.remotePort);
      return putAddress16(bytes, at + 4, option.remoteAddress);
    case "description":
      encoder.encodeInto(option.text, bytes.subarray(at));
      return;
    case "port-set":
      putU16(bytes, at, option.size);
      putU16(bytes, at + 2, option.firstInternalPort);
      bytes[at + 4] = option.parity ? 1 : 0;
      return;
    default:
      bytes.set(option.data, at);
  }
}

/**
 * Reads the options from `offset` to the end of the bytes. `"bad-options"` where one reaches past
 * the end. A known option with impossible content comes back as `"malformed"`, so that a server
 * can refuse it in its turn (PCP-S-12).
 */
export function decodeOptions(
  bytes: Uint8Array,
  offset: number,
): readonly PcpOption[] | "bad-options" {
  if (offset >= bytes.length) return NO_OPTIONS;
  const options: PcpOption[] = [];
  return readOptions(bytes, offset, options) ? options : "bad-options";
}

/**
 * Reads the options that can be read and leaves out the rest: in an answer whose other fields
 * match, what follows is nothing to lose the answer over (PCP-C-30).
 */
export function decodeOptionsLeniently(bytes: Uint8Array, offset: number): readonly PcpOption[] {
  if (offset >= bytes.length) return NO_OPTIONS;
  const options: PcpOption[] = [];
  readOptions(bytes, offset, options);
  return options;
}

function readOptions(bytes: Uint8Array, offset: number, options: PcpOption[]): boolean {
  while (offset < bytes.length) {
    if (offset + 4 > bytes.length) return false;
    const length = u16(bytes, offset + 2);
    const end = offset + 4 + length;
    if (end > bytes.length) return false;
    const code = bytes[offset]!;
    options.push(
      decodeOption(bytes, code, offset + 4, length) ??
        { type: "malformed", code, data: bytes.subarray(offset + 4, end) },
    );
    offset = offset + 4 + ((length + 3) & ~3);
  }
  return true;
}

/** The option, or undefined where its content is impossible. */
function decodeOption(
  bytes: Uint8Array,
  code: number,
  at: number,
  length: number,
): PcpOption | undefined {
  switch (code) {
    case PCP_OPTION.THIRD_PARTY:
      if (length !== 16) return undefined;
      return { type: "third-party", internalAddress: getAddress16(bytes, at) };
    case PCP_OPTION.PREFER_FAILURE:
      return length === 0 ? { type: "prefer-failure" } : undefined;
    case PCP_OPTION.FILTER:
      if (length !== 20) return undefined;
      return {
        type: "filter",
        prefixLength: bytes[at + 1]!,
        remotePort: u16(bytes, at + 2),
        remoteAddress: getAddress16(bytes, at + 4),
      };
    case PCP_OPTION.DESCRIPTION: {
      const text = length <= MAX_DESCRIPTION_BYTES
        ? decodeUtf8(bytes.subarray(at, at + length))
        : undefined;
      return text === undefined ? undefined : { type: "description", text };
    }
    case PCP_OPTION.PORT_SET:
      if (length !== 5) return undefined;
      return {
        type: "port-set",
        size: u16(bytes, at),
        firstInternalPort: u16(bytes, at + 2),
        parity: (bytes[at + 4]! & 1) === 1,
      };
    default:
      return { type: "unknown", code, data: bytes.subarray(at, at + length) };
  }
}

function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes);
  } catch {
    return undefined;
  }
}
