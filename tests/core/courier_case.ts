/**
 * How the machine that uses HTTP and streams joins the machine contract's table of tests.
 *
 * @module
 */
import { Courier, type CourierEvent } from "./courier.ts";
import { below, type RandomSource } from "../../core/random.ts";
import type { MachineCase, WorldAction } from "./machine_case.ts";

const LOCAL = { address: "192.0.2.7", port: 40_000 };
const PEER = { address: "192.0.2.1", port: 80 };
const NOBODY = { address: "192.0.2.9", port: 80 };

/** What a driver would feed: a server that answers all, a peer that echoes, and one that refuses. */
function perform(action: WorldAction, machine: Courier, now: number): boolean {
  if (action.type === "respond") return false;
  const { id } = action;
  if (action.type === "request") {
    const body = action.request.body ?? new Uint8Array(0);
    machine.handleResponse(
      id,
      action.to.address === PEER.address
        ? { ok: true, status: 200, headers: [], body }
        : { ok: false, reason: "refused" },
      now,
    );
    return true;
  }
  if (action.do === "connect") {
    machine.handleStream(
      id,
      action.to.address === PEER.address
        ? { type: "open", local: LOCAL, peer: action.to }
        : { type: "closed", reason: "refused" },
      now,
    );
  } else if (action.do === "write" && id >= 0) {
    machine.handleStream(id, { type: "data", data: action.data }, now);
  } else return false;
  return true;
}

/** A machine that asks, dials and is asked. */
export const courierCase: MachineCase = {
  name: "Courier (HTTP and streams)",
  create() {
    const machine = new Courier();
    let lastAccepted = 0;
    return {
      machine,
      begin(now) {
        machine.listen(["http", "tcp"], now);
        machine.ask(PEER, "POST", "/control", "<soap/>", now);
        machine.ask(NOBODY, "GET", "/", undefined, now);
        machine.dial(PEER, "hello", now);
        machine.dial(NOBODY, "hello", now);
        const open = { type: "open", local: LOCAL, peer: PEER, socket: "tcp" } as const;
        machine.handleStream(--lastAccepted, open, now);
      },
      reply: () => undefined,
      perform: (action, it, now) => perform(action, it as Courier, now),
      ids: {
        begin(random, now) {
          const to = below(random, 4) ? PEER : NOBODY;
          return below(random, 2)
            ? machine.ask(to, "GET", "/", undefined, now)
            : machine.dial(to, "hello", now);
        },
        turn(random, id, now) {
          if (below(random, 2)) machine.keep(id, now);
          else machine.end(id, now);
        },
        disturb: (random, now, ids) => misbehave(machine, random, now, ids),
        isFinal: (event) => ["answered", "over"].includes((event as CourierEvent).type),
        close: (now) => machine.close(now),
      },
    };
  },
};

/** What a driver must not do, but a machine must stand: results twice, or of what is over. */
function misbehave(
  machine: Courier,
  random: RandomSource,
  now: number,
  ids: readonly number[],
): void {
  const id = ids[below(random, ids.length)] ?? 0;
  if (below(random, 2)) machine.handleResponse(id, { ok: false, reason: "timeout" }, now);
  else machine.handleStream(id, { type: "closed", reason: "ended" }, now);
}
