/**
 * Whether the simulation is worth its time: bugs are put into clients on purpose, by falsifying
 * what goes in and out of them, and the simulation has to find each.
 */
import { describe, it } from "node:test";
import { assert } from "@std/assert";
import { putU32, toHex, u16, u32 } from "../../core/bytes.ts";
import type { Sabotage } from "./client_host.ts";
import { replayCommand, runSeed } from "./run.ts";

/** How many seeds may pass before a bug is found. */
const PATIENCE = 40;

/** Runs seeds with a broken client until one fails, and returns what was said of it. */
function findsBug(sabotage: () => Sabotage): { seed: number; message: string } {
  for (let seed = 1; seed <= PATIENCE; seed++) {
    try {
      runSeed(seed, { sabotage });
    } catch (error) {
      return { seed, message: (error as Error).message };
    }
  }
  throw new Error(`No seed up to ${PATIENCE} found it`);
}

const isPcpMap = (data: Uint8Array) => data[0] === 2 && data[1] === 1 && data.length >= 60;
const isNatPmpMap = (data: Uint8Array) => data[0] === 0 && data.length === 12;

/** Changes a copy of what fits. */
function change(
  fits: (data: Uint8Array) => boolean,
  how: (copy: Uint8Array) => void,
): (data: Uint8Array) => Uint8Array {
  return (data) => {
    if (!fits(data)) return data;
    const copy = data.slice();
    how(copy);
    return copy;
  };
}

function flip(bytes: Uint8Array, at: number, bits: number): void {
  bytes[at] = bytes[at]! ^ bits;
}

/** Where a response carries its epoch. */
function epochOffset(data: Uint8Array): number | undefined {
  if (data.length < 12 || (data[1]! & 0x80) === 0) return undefined;
  if (data[0] === 0) return u16(data, 2) === 1 ? undefined : 4;
  return data[0] === 2 && data.length >= 24 && data[3] !== 1 ? 8 : undefined;
}

/** Makes each epoch differ from the one before by `error` more than it does. */
function epochOffBy(error: number): () => Sabotage {
  return () => {
    let sum = 0;
    return {
      falsifyIn(data) {
        const offset = epochOffset(data);
        if (offset === undefined) return data;
        sum += error;
        const copy = data.slice();
        putU32(copy, offset, Math.max(0, u32(data, offset) + sum) >>> 0);
        return copy;
      },
    };
  };
}

const BUGS: readonly (readonly [name: string, sabotage: () => Sabotage])[] = [
  ["a PCP renewal that forgets the nonce", () => {
    const seen = new Set<string>();
    const nonceOf = (data: Uint8Array) => toHex(data.subarray(24, 36));
    return {
      falsifyIn(data) {
        if (isPcpMap(data.with(1, data[1]! & 0x7f)) && data[3] === 0) seen.add(nonceOf(data));
        return data;
      },
      falsifyOut: change(
        (data) => isPcpMap(data) && u32(data, 4) > 0 && seen.has(nonceOf(data)),
        (copy) => copy.fill(0, 24, 36),
      ),
    };
  }],
  ["an epoch test off by one, too strict", epochOffBy(-1)],
  ["an epoch test off by one, too lax", epochOffBy(1)],
  ["a client deaf to the epoch", () => {
    let epoch = 0;
    return {
      falsifyIn(data) {
        const offset = epochOffset(data);
        if (offset === undefined) return data;
        const copy = data.slice();
        putU32(copy, offset, epoch = Math.max(epoch, u32(data, offset)));
        return copy;
      },
    };
  }],
  ["a NAT-PMP delete that is none", () => ({
    falsifyOut: change(
      (data) => isNatPmpMap(data) && u32(data, 8) === 0,
      (copy) => putU32(copy, 8, 60),
    ),
  })],
  ["a PCP delete that is none", () => ({
    falsifyOut: change(
      (data) => isPcpMap(data) && u32(data, 4) === 0,
      (copy) => putU32(copy, 4, 120),
    ),
  })],
  ["a NAT-PMP client that believes in four times the lifetime", () => ({
    falsifyIn: change(
      (data) => data[0] === 0 && data.length === 16 && u32(data, 12) > 0,
      (copy) => putU32(copy, 12, 4 * u32(copy, 12)),
    ),
  })],
  ["a client that reads the wrong external port", () => ({
    falsifyIn: change(
      (data) => data[0] === 0 && data.length === 16 && u16(data, 10) > 0,
      (copy) => flip(copy, 11, 1),
    ),
  })],
  ["a client that maps another port than it was asked to", () => ({
    falsifyOut: change(isNatPmpMap, (copy) => flip(copy, 5, 0x80)),
    falsifyIn: change((data) => data[0] === 0 && data.length === 16, (copy) => flip(copy, 9, 0x80)),
  })],
];

describe("a bug put in on purpose is found:", () => {
  for (const [name, sabotage] of BUGS) {
    it(name, () => {
      const { seed, message } = findsBug(sabotage);
      assert(message.startsWith(`Seed ${seed}: `), message);
      assert(message.endsWith(`replay: ${replayCommand(seed)}`), message.slice(-200));
    });
  }

  it("and none is found where there is none", () => {
    for (let seed = 1; seed <= 10; seed++) {
      const idle: Sabotage = { falsifyIn: (data) => data, falsifyOut: (data) => data };
      runSeed(seed, { sabotage: () => idle });
    }
  });
});
