/**
 * Bugs that are none: nothing that a test could see tells the program with such a bug from the one
 * without. They are not planted. `tests/scripts/mutate_test.ts` fails where one fits no line any
 * more.
 *
 * @module
 */
import type { Mutant, Operator } from "./operators.ts";

/** A bug that is none. */
export interface Equivalent {
  /** The path of the file from the repository's root. */
  readonly path: string;
  /** The line on which the edit begins, without the blanks around it. */
  readonly line: string;
  readonly operator: Operator;
  /** What the edit puts there; absent: whatever it is. */
  readonly replacement?: string;
  /** Why nothing changes. */
  readonly reason: string;
}

/** All that are known. */
export const EQUIVALENTS: readonly Equivalent[] = [
  {
    path: "core/lease/keeper.ts",
    line: "if (wanted.portSet) this.#sets.add(lease);",
    operator: "condition",
    replacement: "true",
    reason: "two single ports that overlap have one key, which is refused before",
  },
  {
    path: "core/lease/keeper.ts",
    line: "for (const { wanted: other } of wanted.portSet ? this.#wanted.values() : this.#sets) {",
    operator: "condition",
    replacement: "true",
    reason: "of the single ports none overlaps but the very same one, which is refused before",
  },
  {
    path: "core/lease/keeper.ts",
    line: 'if (this.#wire.recreation === "each" || this.#wanted.size === 0) return undefined;',
    operator: "constant",
    replacement: "1",
    reason: "a single one draws its own delay, which is the one that would be drawn for all",
  },
  {
    path: "core/lease/lease.ts",
    line: "const POINTS_A_DAY = 30;",
    operator: "constant",
    replacement: "31",
    reason: "of a day less than a tenth of a millisecond is left after the thirtieth point",
  },
  {
    path: "core/ice/agent.ts",
    line: 'if (base) this.#addLocal("srflx", external, base, "gateway", NAT_ASSISTED_PREFERENCE);',
    operator: "string",
    replacement: '""',
    reason: "any word that is no server's address tells its foundation from theirs",
  },
  {
    path: "core/ice/agent.ts",
    line: "#consentAt: Instant = 0;",
    operator: "constant",
    reason: "it is set when a pair is chosen, and there is no consent before that",
  },
  {
    path: "core/ice/agent.ts",
    line: '}, "connected");',
    operator: "string",
    reason: "any key does that no other event has",
  },
  {
    path: "core/ice/tcp.ts",
    line: "while (this.#streams.get(stream.id) === stream && stream.unread.length >= 2) {",
    operator: "constant",
    replacement: "0",
    reason: "the upper byte alone tells that a frame is too long, or too little of it has come",
  },
  {
    path: "core/stun/client.ts",
    line: "rtoMs: 0,",
    operator: "constant",
    reason: "it is set before the first datagram, and over TCP there is none",
  },
  {
    path: "core/stun/client.ts",
    line: "if (count === 0) this.#outstanding.delete(address);",
    operator: "condition",
    replacement: "false",
    reason: "a count of none says what no count does, and weighs something",
  },
  {
    path: "core/stun/integrity.ts",
    line: "const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, index) => {",
    operator: "constant",
    replacement: "257",
    reason: "it is looked up by a byte, and one entry more is looked up by none",
  },
  {
    path: "core/outbox.ts",
    line: "if (this.#head === this.#slots.length) {",
    operator: "condition",
    replacement: "false",
    reason: "to cut off all that there is leaves nothing, too",
  },
  {
    path: "core/pcp/answers.ts",
    line: "return description === undefined && !portSet",
    operator: "condition",
    replacement: "false",
    reason: "fields that are undefined weigh something, and say as much as none",
  },
  {
    path: "core/pcp/client.ts",
    line: "if (remembered && isSameEndpoint(remembered, external)) return remembered;",
    operator: "condition",
    replacement: "false",
    reason: "another endpoint of the same address and port weighs more, and says the same",
  },
  {
    path: "core/pcp/server_mapping.ts",
    line: "if (request.options.length === 0) return NO_PLAN;",
    operator: "condition",
    replacement: "false",
    reason: "a plan that no option has a part in says the same, and weighs something",
  },
  {
    path: "core/natpmp/queue.ts",
    line: "const MAX_REMEMBERED_DELETES = 256;",
    operator: "constant",
    replacement: "257",
    reason: "it bounds what is remembered of a flood, and one more is as good",
  },
  {
    path: "core/sim/host.ts",
    line: "if (this.#routesMadeAt !== this.#context.topology || this.#routes.size > 4096) {",
    operator: "boundary",
    reason: "how many routes are remembered is a matter of speed alone",
  },
  {
    path: "core/sim/host.ts",
    line: "if (this.#routesMadeAt !== this.#context.topology || this.#routes.size > 4096) {",
    operator: "constant",
    reason: "how many routes are remembered is a matter of speed alone",
  },
  {
    path: "core/sim/http.ts",
    line: "let end = 0;",
    operator: "constant",
    replacement: "1",
    reason: "what is sent begins with a line that says something, so no blank one comes first",
  },
  {
    path: "core/sim/http.ts",
    line: 'this.#timers.set(exchange, at, "http");',
    operator: "string",
    reason: "nobody asks these timers for their reasons",
  },
  {
    path: "core/sim/streams.ts",
    line:
      'if (waits) this.#timers.set(connection, Math.min(retryAt, connection.timeoutAt), "tcp");',
    operator: "string",
    reason: "nobody asks these timers for their reasons",
  },
  {
    path: "core/sim/process.ts",
    line: "this.#all.splice(this.#all.indexOf(socket), 1);",
    operator: "constant",
    replacement: "0",
    reason: "one that is closed is closed once more at the end, which nobody hears",
  },
  {
    path: "core/table/watch.ts",
    line: "if (this.#head > 64 && this.#head * 2 > this.#changes.length) {",
    operator: "boundary",
    reason: "when the room of changes that were taken is given back is a matter of memory alone",
  },
  {
    path: "core/upnp/igd_actions.ts",
    line: "const MAX_REPEATED = 1024;",
    operator: "constant",
    replacement: "1025",
    reason: "it bounds what is remembered of a flood, and one more is as good",
  },
  {
    path: "core/upnp/ssdp.ts",
    line: "const MAX_VALUE = 2049;",
    operator: "constant",
    replacement: "2050",
    reason: "a URL of a character too many is refused, of how many more is the same",
  },
  {
    path: "core/timers.ts",
    line: "const MAX_IDLE = 64;",
    operator: "constant",
    reason: "how many idle keys stay known is a matter of memory and speed alone",
  },
  {
    path: "core/timers.ts",
    line: "if (this.#entries.size > 2 * this.#heap.size + MAX_IDLE) this.#forgetIdle();",
    operator: "arithmetic",
    replacement: "/",
    reason: "how many idle keys stay known is a matter of memory and speed alone",
  },
  {
    path: "core/timers.ts",
    line: "if (this.#entries.size > 2 * this.#heap.size + MAX_IDLE) this.#forgetIdle();",
    operator: "boundary",
    reason: "how many idle keys stay known is a matter of memory and speed alone",
  },
  {
    path: "core/timers.ts",
    line: "const IDLE = -1;",
    operator: "constant",
    replacement: "2",
    reason: "any number does that is no place in a heap",
  },
  {
    path: "core/portmap/managed.ts",
    line: "#lifetimeSeconds = 0;",
    operator: "constant",
    reason: "it is taken with the maker, without whom it is not read",
  },
  {
    path: "core/lease/epoch.ts",
    line: "#seconds = 0;",
    operator: "constant",
    reason: "it is set with the time of the first packet, and compared from the second on",
  },
  {
    path: "core/pcp/client.ts",
    line: "state: lease.state(request?.sends ?? 0),",
    operator: "constant",
    reason: "the number of sendings counts while it is asked for, when there is a request",
  },
  {
    path: "core/portmap/mapper.ts",
    line: "if (this.#managed.has(managed.id)) this.#failWhereNothingLeaves(managed, now);",
    operator: "condition",
    replacement: "true",
    reason: "one that has failed fails once more, with the same words, and both are one event",
  },
  {
    path: "adapters/discovery/mod.ts",
    line: "const isCheap = read.isCheap && (fleeting?.isCheap ?? true) && !hasRun;",
    operator: "constant",
    reason: "what fleets is not read on Windows alone, where reading the routes is dear by itself",
  },
  {
    path: "adapters/cli/state_file.ts",
    line: "await mkdir(own, { mode: 0o700 });",
    operator: "property",
    reason: "what lies in it is its owner's alone by its own mode",
  },
  {
    path: "adapters/cli/state_file.ts",
    line:
      "await new Promise((resolve) => setTimeout(resolve, LOCK_RETRY_MS * (0.5 + Math.random())));",
    operator: "constant",
    reason: "how long one that waits sleeps is drawn anyway, so that two do not wake together",
  },
  {
    path: "adapters/cli/state_file.ts",
    line:
      "await new Promise((resolve) => setTimeout(resolve, LOCK_RETRY_MS * (0.5 + Math.random())));",
    operator: "arithmetic",
    reason: "how long one that waits sleeps is drawn anyway, so that two do not wake together",
  },
  {
    path: "adapters/cli/state_file.ts",
    line: "await rm(own, { recursive: true });",
    operator: "await",
    reason:
      "who finds the lock taken comes back for it, and nobody looks for what is taken away here",
  },
  {
    path: "core/sim/host.ts",
    line: "if (place >= 0) this.processes.splice(place, 1);",
    operator: "condition",
    replacement: "true",
    reason: "a process that runs here is forgotten once, when it is stopped",
  },
  {
    path: "core/upnp/gena.ts",
    line: "const { method, headers, body = new Uint8Array(0) } = request;",
    operator: "constant",
    reason: "an event without a body is none, and neither is one of a byte that is no XML",
  },
  {
    path: "adapters/system.ts",
    line: "part.fill(0);",
    operator: "statement",
    reason: "only who looks into the memory of this process finds what was left there",
  },
  {
    path: "adapters/api/connection.ts",
    line: "settle.onEnd(() => void this.#waits.delete(onClose));",
    operator: "statement",
    reason: "what is over is ended once more at the end of all, which nobody hears",
  },
  {
    path: "adapters/api/port_context.ts",
    line: "nonces = mapper.nonces;",
    operator: "statement",
    reason: "a state that is as it was is not told again, only made again to be compared",
  },
  {
    path: "adapters/udp.ts",
    line: "for (let i = 0; i < bytes.length; i += 65536) {",
    operator: "boundary",
    reason: "of no bytes none is filled",
  },
  {
    path: "adapters/streams.ts",
    line: "server.listen({ host: local.address, port: local.port, exclusive: true }, () => {",
    operator: "constant",
    reason: "it counts where several processes of a cluster listen at one port",
  },
  {
    path: "adapters/http.ts",
    line: "for (const outgoing of this.#taken) outgoing.destroy();",
    operator: "statement",
    reason: "the next line ends the connections of all of them, which ends them on Node",
  },
  {
    path: "adapters/cli/commands/hold.ts",
    line: "await kept.forget();",
    operator: "await",
    reason: "what is still to be written is waited for once more where the command ends",
  },
  {
    path: "adapters/cli/commands/demo.ts",
    line: "await this.#telling;",
    operator: "await",
    reason: "it ends with the mapping, sooner than the context that is closed next",
  },
  {
    path: "adapters/cli/bin.ts",
    line: "await Promise.all([process.stdout, process.stderr].map(drained));",
    operator: "statement",
    reason: "what Node writes to a pipe or a file is written at once; it is for the other runtimes",
  },
  {
    path: "adapters/cli/commands/demo.ts",
    line: 'await obey(context, server, runtime, "reboot");',
    operator: "await",
    reason: "the next line waits for what the clients hear of it",
  },
  {
    path: "adapters/cli/commands/demo.ts",
    line: "await obey(context, server, runtime, `external ${SECOND_EXTERNAL}`);",
    operator: "await",
    reason: "the next line waits for what the clients hear of it",
  },
  {
    path: "adapters/cli/commands/notes.ts",
    line: 'streams.act({ type: "stream", id: 0, do: "connect", to, timeoutMs: LOOK_MS });',
    operator: "constant",
    reason: "there is one stream, whatever its number",
  },
];

/** The entry that a bug falls under, in a file's text without it. */
export function equivalentOf(
  { path, start, operator, replacement }: Mutant,
  text: string,
): Equivalent | undefined {
  const from = text.lastIndexOf("\n", start - 1) + 1, to = text.indexOf("\n", start);
  const line = text.slice(from, to < 0 ? undefined : to).trim();
  return EQUIVALENTS.find((one) =>
    one.path === path && one.line === line && one.operator === operator &&
    (one.replacement === undefined || one.replacement === replacement)
  );
}
