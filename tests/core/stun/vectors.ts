/** The messages of RFC 5769 and RFC 8489's appendix B.1. */
import { fromHex } from "../../../core/bytes.ts";
import type { StunMessageFields } from "../../../core/stun/codec.ts";
import { longTermKey, shortTermKey, userhash } from "../../../core/stun/integrity.ts";

export interface Vector {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly message: StunMessageFields;
  readonly key: Uint8Array;
  readonly hash: "sha1" | "sha256";
  readonly hasFingerprint: boolean;
}

const iceKey = shortTermKey("VOkJxbRl1RmTxUk/WvJxBt");
const iceId = fromHex("b7e7a701bc34d686fa87dfae");
const longId = fromHex("78ad3433c6ad72c029da412e");
export const MATRIX = "マトリックス";

export const VECTORS: readonly Vector[] = [
  {
    name: "RFC 5769 2.1 request",
    bytes: fromHex(`
      000100582112a442b7e7a701bc34d686fa87dfae
      802200105354554e207465737420636c69656e74
      002400046e0001ff
      80290008932ff9b151263b36
      000600096576746a3a68367659202020
      000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2
      80280004e57a3bcf`),
    message: {
      class: "request",
      method: 1,
      transactionId: iceId,
      attributes: {
        software: "STUN test client",
        priority: 0x6e0001ff,
        iceControlled: 0x932ff9b151263b36n,
        username: "evtj:h6vY",
      },
    },
    key: iceKey,
    hash: "sha1",
    hasFingerprint: true,
  },
  {
    name: "RFC 5769 2.2 IPv4 response",
    bytes: fromHex(`
      0101003c2112a442b7e7a701bc34d686fa87dfae
      8022000b7465737420766563746f7220
      002000080001a147e112a643
      000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7
      80280004c07d4c96`),
    message: {
      class: "success",
      method: 1,
      transactionId: iceId,
      attributes: {
        software: "test vector",
        xorMappedAddress: { address: "192.0.2.1", port: 32853 },
      },
    },
    key: iceKey,
    hash: "sha1",
    hasFingerprint: true,
  },
  {
    name: "RFC 5769 2.3 IPv6 response",
    bytes: fromHex(`
      010100482112a442b7e7a701bc34d686fa87dfae
      8022000b7465737420766563746f7220
      002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9
      00080014a382954e4be67bf11784c97c8292c275bfe3ed41
      80280004c8fb0b4c`),
    message: {
      class: "success",
      method: 1,
      transactionId: iceId,
      attributes: {
        software: "test vector",
        xorMappedAddress: { address: "2001:db8:1234:5678:11:2233:4455:6677", port: 32853 },
      },
    },
    key: iceKey,
    hash: "sha1",
    hasFingerprint: true,
  },
  {
    name: "RFC 5769 2.4 request with long-term credentials",
    bytes: fromHex(`
      000100602112a44278ad3433c6ad72c029da412e
      00060012e3839ee38388e383aae38383e382afe382b90000
      0015001c662f2f3439396b39353464364f4c33346f4c39465354767936347341
      0014000b6578616d706c652e6f726700
      00080014f67024656dd64a3e02b8e0712e85c9a28ca89666`),
    message: {
      class: "request",
      method: 1,
      transactionId: longId,
      attributes: {
        username: MATRIX,
        nonce: "f//499k954d6OL34oL9FSTvy64sA",
        realm: "example.org",
      },
    },
    key: longTermKey(MATRIX, "example.org", "TheMatrIX"),
    hash: "sha1",
    hasFingerprint: false,
  },
];

/**
 * RFC 8489 B.1 as it is printed. Its length field counts the header, which no message may, and its
 * integrity value was made over that.
 */
export const RFC8489_B1: Vector = {
  name: "RFC 8489 B.1 request with USERHASH",
  bytes: fromHex(`
    0001009c2112a44278ad3433c6ad72c029da412e
    001e00204a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704
    001500296f624d61744a6f733241414143662f2f3439396b39353464364f4c33346f4c39465354767936347341000000
    0014000b6578616d706c652e6f726700
    001c0020e4686c8f0edeb59013e07090010a93efccbccc544c0a45d9f830aa6d6f735a01`),
  message: {
    class: "request",
    method: 1,
    transactionId: longId,
    attributes: {
      userhash: userhash(MATRIX, "example.org"),
      nonce: "obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA",
      realm: "example.org",
    },
  },
  key: longTermKey(MATRIX, "example.org", "TheMatrIX", "SHA-256"),
  hash: "sha256",
  hasFingerprint: false,
};
