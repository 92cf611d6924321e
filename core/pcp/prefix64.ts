/**
 * PREFIX64 (RFC 7225): the prefix of a NAT64 behind a PCP server. No client here asks for it, so it is
 * apart from the options that each request may have: in a message it is an unknown one of its code.
 *
 * @module
 */
import { putU16, u16 } from "../bytes.ts";
import type { Cidr } from "../cidr.ts";
import { formatIPv4, parseIp } from "../ip.ts";
import { PCP_OPTION } from "./constants.ts";
import type { PcpOption, UnknownOption } from "./options.ts";

/** What a PREFIX64 option says. */
export interface Prefix64 {
  /** 4, 5, 6, 7, 8 or 12 bytes. */
  readonly prefix: Uint8Array;
  /** The other 12 − `prefix.length` bytes. */
  readonly suffix: Uint8Array;
  /** Destinations the prefix is for; empty: all. */
  readonly ipv4Prefixes: readonly Cidr[];
}

const LENGTHS = [4, 5, 6, 7, 8, 12];

/** The option as messages have it. */
export function prefix64Option({ prefix, suffix, ipv4Prefixes }: Prefix64): UnknownOption {
  const count = ipv4Prefixes.length;
  const data = new Uint8Array(count === 0 ? 14 : 16 + 6 * count);
  putU16(data, 0, prefix.length);
  data.set(prefix, 2);
  data.set(suffix, 2 + prefix.length);
  if (count > 0) putU16(data, 14, count);
  ipv4Prefixes.forEach(({ address, prefixLength }, i) => {
    putU16(data, 16 + 6 * i, prefixLength);
    data.set(parseIp(address)!, 18 + 6 * i);
  });
  return { type: "unknown", code: PCP_OPTION.PREFIX64, data };
}

/** Whether an option of a message is one, whatever stands in it. */
export function isPrefix64(option: PcpOption): option is UnknownOption {
  return option.type === "unknown" && option.code === PCP_OPTION.PREFIX64;
}

/** Reads one; undefined where its content is impossible. Its bytes are views into the packet. */
export function readPrefix64({ data }: UnknownOption): Prefix64 | undefined {
  const { length } = data;
  if (length < 14) return undefined;
  const prefixLength = u16(data, 0);
  if (!LENGTHS.includes(prefixLength)) return undefined;
  const count = length < 16 ? 0 : u16(data, 14);
  if (length !== (length < 16 ? 14 : 16 + 6 * count)) return undefined;
  const ipv4Prefixes: Cidr[] = [];
  for (let i = 0; i < count; i++) {
    const bits = u16(data, 16 + 6 * i);
    if (bits > 32) return undefined;
    const address = formatIPv4(data, 18 + 6 * i);
    ipv4Prefixes.push({ address, prefixLength: bits, family: 4 });
  }
  const end = 2 + prefixLength;
  return { prefix: data.subarray(2, end), suffix: data.subarray(end, 14), ipv4Prefixes };
}
