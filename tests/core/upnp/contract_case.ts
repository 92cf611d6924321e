/**
 * How the UPnP client joins the machine contract's table of tests.
 *
 * @module
 */
import type { Instant, Machine } from "../../../core/machine.ts";
import { below, type RandomSource, seededRandom } from "../../../core/random.ts";
import { IgdClient } from "../../../core/upnp/client.ts";
import type { MachineCase, WorldAction } from "../machine_case.ts";
import { mappingIds } from "../mapping_ids.ts";
import { GATEWAY, HOST, ROUTER, ScriptedRouter } from "./scripted_igd.ts";

const REFUSALS = [402, 501, 606, 713, 714, 718, 724, 725, 728];

/** Opens the sockets that a machine lists after each call, as a driver does. */
export function opening<M extends Machine<unknown>>(machine: M): M {
  let open: readonly string[] = [];
  const settle = (now: Instant): void => {
    for (;;) {
      const listed = machine.sockets!();
      const fresh = listed.filter(({ key }) => !open.includes(key));
      open = listed.map(({ key }) => key);
      if (fresh.length === 0) return;
      for (const { key, local } of fresh) {
        machine.handleSocket!(key, { ok: true, local: { ...local!, port: 40_000 } }, now);
      }
    }
  };
  return new Proxy(machine, {
    get(target, name) {
      const value = Reflect.get(target, name, target);
      if (typeof value !== "function") return value;
      return (...args: unknown[]) => {
        const result = value.apply(target, args);
        const now = args.at(-1);
        if (typeof now === "number" && name !== "mapping") settle(now);
        return result;
      };
    },
  });
}

/** What a router can come up with. */
function disturb(router: ScriptedRouter, machine: IgdClient, random: RandomSource, now: Instant) {
  const code = REFUSALS[below(random, REFUSALS.length)]!;
  const key = machine.sockets()[0]?.key ?? "client";
  const whims: (() => void)[] = [
    () => router.options = { ...router.options, acts: { AddPortMapping: () => code } },
    () => router.options = { ...router.options, acts: { GetSpecificPortMappingEntry: () => code } },
    () => router.options = { ...router.options, acts: { AddPortMapping: () => undefined } },
    () => router.options = {},
    () => router.options = {},
    () => router.isDead = below(random, 2) === 0,
    () => router.rows.length = 0,
    () => router.occupy(8000 + below(random, 6), ["TCP", "UDP"][below(random, 2)]),
    () => router.options = { external: `203.0.113.${7 + below(random, 3)}` },
    () => router.options = { bootId: below(random, 5) },
    () => machine.handleUnreachable({ address: ROUTER, port: 1900 }, key, now),
    () =>
      machine.handleSocket(
        key,
        { ok: false, code: "network", message: "gone", isOpen: below(random, 2) === 0 },
        now,
      ),
    () => void machine.list(now),
    () => machine.probe(now),
    () => machine.endProbe(now),
    () => machine.networkChanged(`192.168.1.${100 + below(random, 2)}`, now),
  ];
  whims[below(random, whims.length)]!();
}

/** A client that asks for its address and for three mappings. */
export const igdClientCase: MachineCase = {
  name: "IgdClient",
  create(seed) {
    const machine = opening(
      new IgdClient({ gateway: GATEWAY, localAddress: HOST, random: seededRandom(seed) }),
    );
    const router = new ScriptedRouter();
    const ids = mappingIds(machine, undefined, GATEWAY);
    return {
      machine,
      ids: { ...ids, disturb: (random, now) => disturb(router, machine, random, now) },
      begin(now) {
        machine.probe(now);
        machine.map({ protocol: "tcp", internalPort: 8080, suggestedExternal: { port: 80 } }, now);
        machine.map({ protocol: "udp", internalPort: 5000, lifetimeSeconds: 60 }, now);
        machine.map({ protocol: "udp", internalPort: 5001, mode: "once" }, now);
      },
      reply: (sent) => router.datagram(sent)[0],
      perform(action: WorldAction, it, now) {
        if (action.type !== "request") return false;
        it.handleResponse!(action.id, router.http(action.to, action.request, now), now);
        return true;
      },
    };
  },
};
