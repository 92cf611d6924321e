/**
 * The ports of one protocol at one external address, a bit each, so that a free one is found in
 * at most 2048 steps however full the pool is.
 *
 * @module
 */

const WORDS = 2048;

/** A set of ports. */
export class PortSet {
  /** 32 ports a word, the lowest in the lowest bit. */
  readonly words: Uint32Array = new Uint32Array(WORDS);

  /** Whether the port is in it. */
  has(port: number): boolean {
    return ((this.words[port >>> 5]! >>> (port & 31)) & 1) === 1;
  }

  /** Puts the port in. */
  add(port: number): void {
    this.words[port >>> 5]! |= 1 << (port & 31);
  }

  /** Takes the port out. */
  delete(port: number): void {
    this.words[port >>> 5]! &= ~(1 << (port & 31));
  }

  /** Puts all ports of `first`…`last` in. */
  addRange(first: number, last: number): void {
    for (let port = first; port <= last; port++) this.add(port);
  }
}

/** Which ports are looked for. */
export interface PortSearch {
  /** Where to begin looking; the search goes up and wraps around. */
  readonly start: number;
  /** Ports that may be chosen at all. */
  readonly allowed: PortSet;
  /** The first port shall be even (0) or odd (1). */
  readonly parity?: 0 | 1 | undefined;
  /** The companion protocol's pool, where its ports have to be free as well. */
  readonly companion?: PortPool<unknown> | undefined;
}

/** Adjoining ports. */
export interface PortRun {
  /** The first of them. */
  readonly first: number;
  /** How many. */
  readonly size: number;
}

/** The ports of one protocol at one external address; `T` is what holds a port. */
export class PortPool<T> {
  /** Who holds which port; port 0 stands for all of them. */
  readonly owners: Map<number, T> = new Map();
  /** Held, or freed too short a time ago. */
  readonly busy: PortSet = new PortSet();
  /** Kept for whoever holds the companion protocol's port. */
  readonly reserved: PortSet = new PortSet();
  /** Whether its address is no longer one of the gateway's. */
  isRetired = false;

  #freeBits(word: number, { allowed, companion }: PortSearch): number {
    let taken = this.busy.words[word]! | this.reserved.words[word]!;
    if (companion) taken |= companion.busy.words[word]!;
    return allowed.words[word]! & ~taken;
  }

  /** A free port, or 0 where there is none. */
  findOne(search: PortSearch): number {
    const first = search.start >>> 5;
    const wanted = search.parity === undefined
      ? -1
      : search.parity === 1
      ? 0xaaaa_aaaa
      : 0x5555_5555;
    for (let i = 0; i <= WORDS; i++) {
      const word = (first + i) & (WORDS - 1);
      let free = this.#freeBits(word, search) & wanted;
      // The word in which the search starts is looked at twice: its upper part first, its lower last.
      if (i === 0) free &= -1 << (search.start & 31);
      if (free !== 0) return word * 32 + (31 - Math.clz32(free & -free));
    }
    return 0;
  }

  /** The first run of `size` free ports, else the longest there is; undefined where none is free. */
  findRun(search: PortSearch, size: number): PortRun | undefined {
    const { start, parity } = search;
    let best: PortRun | undefined;
    for (let i = 0, run = 0; i < 65536 + size; i++) {
      const port = (start + i) & 0xffff;
      // A run neither wraps around nor begins with a port of the wrong parity.
      if (port === 0) run = 0;
      if (((this.#freeBits(port >>> 5, search) >>> (port & 31)) & 1) === 0) run = 0;
      else if (run > 0 || parity === undefined || (port & 1) === parity) run++;
      if (run > (best?.size ?? 0)) best = { first: port - run + 1, size: run };
      if (run === size) return best;
    }
    return best;
  }
}
