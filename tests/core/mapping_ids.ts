/**
 * Rule 9 of the machine contract for machines that map ports: random requests, commands and whims
 * of the gateway.
 *
 * @module
 */
import type { SimulatedGateway } from "../../core/gateway/gateway.ts";
import type { Endpoint, Instant, Machine } from "../../core/machine.ts";
import type { MappingEvent, MappingId, MappingRequest } from "../../core/mapping.ts";
import { below, type RandomSource } from "../../core/random.ts";
import type { IdsUnderTest } from "./machine_case.ts";

/** What every machine that maps ports has. */
interface Mapper extends Machine<unknown> {
  map(request: MappingRequest, now: Instant): MappingId;
  unmap(request: MappingRequest, now: Instant): MappingId;
  renew(id: MappingId, lifetimeSeconds: number | undefined, now: Instant): number;
  revoke(id: MappingId, now: Instant): void;
  abandon(id: MappingId, now: Instant): void;
  close(now: Instant): void;
}

const pick = <T>(random: RandomSource, all: readonly T[]): T => all[below(random, all.length)]!;

function randomRequest(random: RandomSource): MappingRequest {
  return {
    protocol: pick(random, ["tcp", "udp"]),
    internalPort: 8000 + below(random, 6),
    lifetimeSeconds: pick(random, [60, 600, 7200]),
    mode: pick(random, ["once", "keep-alive", 2]),
    ...(below(random, 4) === 0 && { suggestedExternal: { port: 9000 + below(random, 3) } }),
  };
}

/** What a gateway can come up with. */
function disturbGateway(gateway: SimulatedGateway, random: RandomSource, now: Instant): void {
  const whims: (() => void)[] = [
    () => gateway.setRefusal(pick(random, [1, 2, 3, 4, 5, 8]), now),
    () => gateway.setRefusal(undefined, now),
    () => gateway.setRefusal(undefined, now),
    () => gateway.reboot(now),
    () => gateway.forget(now),
    () => gateway.setNat(below(random, 3) > 0, now),
    () => gateway.setDeaf(below(random, 12), now),
    () => gateway.setExternalAddresses([`203.0.113.${7 + below(random, 3)}`], now),
    () =>
      gateway.addStatic("tcp", 8000 + below(random, 6), { address: "192.168.1.9", port: 1 }, now),
  ];
  pick(random, whims)();
}

/**
 * @param gateway What disturbs it; undefined where the caller does that itself.
 * @param server Where the machine's requests go.
 */
export function mappingIds(
  machine: Mapper,
  gateway: SimulatedGateway | undefined,
  server: Endpoint,
): IdsUnderTest {
  return {
    begin(random, now) {
      const request = randomRequest(random);
      try {
        return below(random, 5) ? machine.map(request, now) : machine.unmap(request, now);
      } catch (error) {
        // The port is held.
        if (error instanceof TypeError) return undefined;
        throw error;
      }
    },
    turn(random, id, now) {
      switch (below(random, 5)) {
        case 0:
          return void machine.renew(id, pick(random, [undefined, 60, 3600]), now);
        case 1:
          machine.abandon(id, now);
          return "given up";
        default:
          return machine.revoke(id, now);
      }
    },
    disturb(random, now) {
      const socket = machine.sockets?.()[0]?.key ?? "client";
      if (below(random, 8) === 0) machine.handleUnreachable(server, socket, now);
      else if (gateway) disturbGateway(gateway, random, now);
    },
    isFinal(event) {
      const told = event as MappingEvent<unknown>;
      return told.type === "unmapped" || (told.type === "failed" && told.retryAt === undefined);
    },
    close: (now) => machine.close(now),
  };
}
