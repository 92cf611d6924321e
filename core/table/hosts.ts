/**
 * Internal addresses and clients, and their bindings by internal endpoint. A host is there for as
 * long as it has a binding or counts against a quota, so sources that only ask leave nothing.
 *
 * @module
 */
import type { Endpoint } from "../machine.ts";
import type { Place } from "./allocator.ts";
import { type Binding, entriesIn, type Entry, type Host, lastOf, remoteKey } from "./binding.ts";
import type { CreateRequest, TableFault } from "./entry.ts";

/** The hosts of a table. */
export class Hosts {
  #hosts = new Map<string, Host>();

  /** The host of that address, where it has something. */
  get(address: string): Host | undefined {
    return this.#hosts.get(address);
  }

  /** All of them. */
  all(): IterableIterator<Host> {
    return this.#hosts.values();
  }

  /** The host of that address, made where there is none. */
  obtain(address: string): Host {
    let host = this.#hosts.get(address);
    if (!host) {
      host = { address, bindings: new Map(), used: 0, paired: undefined };
      this.#hosts.set(address, host);
    }
    return host;
  }

  /** Lets go of a host that has nothing left. */
  release(host: Host): void {
    if (host.used === 0 && host.bindings.size === 0) this.#hosts.delete(host.address);
  }

  /** The first binding of exactly that internal endpoint; its siblings follow. */
  find(protocol: number, address: string, port: number): Binding | undefined {
    return this.#hosts.get(address)?.bindings.get(protocol * 65536 + port);
  }

  /** The inbound entry of exactly that internal endpoint; a static one before an explicit one. */
  inbound(protocol: number, address: string, port: number): Entry | undefined {
    let explicit: Entry | undefined;
    for (let at = this.find(protocol, address, port); at; at = at.sibling) {
      if (at.inbound?.kind === "static") return at.inbound;
      explicit ??= at.inbound;
    }
    return explicit;
  }

  /** The outbound entry of that internal endpoint to that remote peer. */
  outbound(protocol: number, address: string, port: number, remote: Endpoint): Entry | undefined {
    const key = remoteKey(remote);
    for (let at = this.find(protocol, address, port); at; at = at.sibling) {
      const entry = at.outbound?.get(key);
      if (entry) return entry;
    }
    return undefined;
  }

  /** The outbound entries of that internal endpoint. */
  outbounds(protocol: number, address: string, port: number): Entry[] {
    const found: Entry[] = [];
    for (let at = this.find(protocol, address, port); at; at = at.sibling) {
      if (at.outbound) found.push(...at.outbound.values());
    }
    return found;
  }

  /** All entries whose inside is that address, the oldest first. */
  entriesOf(address: string): Entry[] {
    const found = new Set<Entry>();
    for (const first of this.#hosts.get(address)?.bindings.values() ?? []) {
      for (let at: Binding | undefined = first; at; at = at.sibling) {
        for (const entry of entriesIn(at)) found.add(entry);
      }
    }
    return [...found].sort((a, b) => a.id - b.id);
  }

  /** The binding that a new inbound mapping joins: one that has outbound entries alone. */
  joinable(
    protocol: number,
    { address, port }: Endpoint,
    isAdditional: boolean,
  ): Binding | TableFault | undefined {
    let joinable: Binding | undefined;
    for (let at = this.find(protocol, address, port); at; at = at.sibling) {
      // What is left of a port set cannot carry one of its ports alone.
      if (!at.inbound && at.size === 1) joinable ??= at;
      else if (!isAdditional) return "already-mapped";
    }
    return joinable;
  }

  /** Makes a binding of the request's internal endpoint to that place. */
  bind({ protocol, internal, reserveCompanion }: CreateRequest, place: Place): Binding {
    const host = this.obtain(internal.address);
    const binding: Binding = {
      host,
      protocol,
      internal: { address: internal.address, port: internal.port },
      size: place.size,
      external: place.external,
      pool: place.pool,
      reserves: place.pool !== undefined && (reserveCompanion ?? false),
      inbound: undefined,
      outbound: undefined,
      idleUntil: -Infinity,
      sibling: undefined,
    };
    for (let i = 0; i < binding.size; i++) {
      const key = protocol * 65536 + internal.port + i;
      const last = lastOf(host.bindings.get(key));
      if (last) last.sibling = binding;
      else host.bindings.set(key, binding);
    }
    return binding;
  }

  /** Takes a binding out. */
  unbind(binding: Binding): void {
    const { host, internal, protocol, size } = binding;
    for (let i = 0; i < size; i++) {
      const key = protocol * 65536 + internal.port + i;
      const first = host.bindings.get(key)!;
      if (first === binding) {
        if (binding.sibling) host.bindings.set(key, binding.sibling);
        else host.bindings.delete(key);
        continue;
      }
      let before = first;
      while (before.sibling && before.sibling !== binding) before = before.sibling;
      before.sibling = binding.sibling;
    }
    this.release(host);
  }
}
