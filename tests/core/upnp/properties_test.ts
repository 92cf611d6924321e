/**
 * What holds whatever a router comes up with: hundreds of random lives of a client among other hosts'
 * mappings, judged by the router that sees every request.
 */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { below, type RandomSource, seededRandom } from "../../../core/random.ts";
import { Rig } from "./rig.ts";
import { type Behaviour, HOST, ScriptedRouter } from "./scripted_igd.ts";

const CODES = [402, 501, 606, 718, 724, 725, 728, 729];
const pick = <T>(random: RandomSource, all: readonly T[]): T => all[below(random, all.length)]!;

/** A router that overwrites and deletes what is anybody's, and complains where that happens. */
class Witness extends ScriptedRouter {
  readonly complaints: string[] = [];

  override AddPortMapping(
    args: Readonly<Record<string, string>>,
    now: number,
  ): ReturnType<ScriptedRouter["AddPortMapping"]> {
    const known = this.find(args);
    if (known && known.internalClient !== HOST) {
      this.complaints.push(`took ${known.protocol} ${known.externalPort} from another host`);
    }
    return super.AddPortMapping(args, now);
  }

  override DeletePortMapping(
    args: Readonly<Record<string, string>>,
  ): ReturnType<ScriptedRouter["DeletePortMapping"]> {
    const known = this.find(args);
    if (known && known.internalClient !== HOST) {
      this.complaints.push(`deleted ${known.protocol} ${known.externalPort} of another host`);
    }
    return super.DeletePortMapping(args);
  }

  own(): string[] {
    return this.table().filter((row) => row.includes(HOST));
  }

  others(): string[] {
    return this.table().filter((row) => !row.includes(HOST));
  }
}

function newRouter(random: RandomSource): Witness {
  return new Witness({
    version: pick(random, [1, 2]),
    overwrites: true,
    hasEvents: below(random, 2) === 0,
  });
}

/** Something happens at the router. */
function whim(rig: Rig, router: Witness, random: RandomSource): void {
  const acts = (name: string, act: Behaviour) => {
    router.options = { ...router.options, acts: { [name]: act } };
  };
  const well = () => {
    const { version, overwrites, hasEvents } = router.options;
    router.options = { version: version!, overwrites: overwrites!, hasEvents: hasEvents! };
    router.isDead = false;
  };
  const code = pick(random, CODES);
  const happenings: (() => void)[] = [
    () => acts("AddPortMapping", () => code),
    () => acts("AddAnyPortMapping", () => code),
    () => acts("DeletePortMapping", () => code),
    () => acts("AddPortMapping", () => undefined),
    () => acts("GetExternalIPAddress", () => ({ NewExternalIPAddress: "0.0.0.0" })),
    () =>
      acts("AddPortMapping", (args, now, self) => {
        self.AddPortMapping(args, now);
        return { ok: false, reason: "failed" };
      }),
    () => {
      router.isDead = true;
    },
    () => {
      router.rows.splice(0);
      router.options = { ...router.options, bootId: 1 + below(random, 9) };
    },
    () => router.occupy(8000 + below(random, 12), pick(random, ["TCP", "UDP"])),
    () => {
      router.options = { ...router.options, external: `203.0.113.${below(random, 9)}` };
    },
    () => {
      if (rig.client.sockets().some(({ group }) => group)) {
        rig.notice(pick(random, ["alive", "byebye", "update"]), { bootId: below(random, 9) });
      }
    },
    well,
    well,
    well,
  ];
  pick(random, happenings)();
}

/** One life; ends with a router that is well, and a client that was closed. */
function live(seed: number): { readonly router: Witness; readonly rig: Rig } {
  const random = seededRandom(seed);
  const router = newRouter(random);
  for (let i = below(random, 6); i > 0; i--) {
    router.occupy(8000 + below(random, 12), pick(random, ["TCP", "UDP"]));
  }
  const rig = new Rig({ router, seed });
  const ids: number[] = [];
  for (let step = 0; step < 60; step++) {
    switch (below(random, 6)) {
      case 0: {
        const request = {
          protocol: pick(random, ["tcp", "udp"] as const),
          internalPort: 8000 + below(random, 12),
          lifetimeSeconds: pick(random, [60, 600, 7200, 1_000_000]),
          mode: pick(random, ["once", "keep-alive", 2] as const),
          ...(below(random, 3) === 0 && {
            suggestedExternal: { port: 8000 + below(random, 12) },
            preferFailure: below(random, 2) === 0,
          }),
        };
        try {
          ids.push(rig.do((client, now) => client.map(request, now)));
        } catch {
          // It is mapped already.
        }
        break;
      }
      case 1:
        if (ids.length > 0) rig.do((client, now) => client.revoke(pick(random, ids), now));
        break;
      case 2:
      case 3:
        whim(rig, router, random);
        rig.settle();
        break;
      default:
        rig.run(pick(random, [10, 1000, 70_000, 700_000]));
    }
  }
  router.options = { version: router.options.version! };
  router.isDead = false;
  rig.run(10_000);
  rig.do((client, now) => client.close(now));
  rig.run(100_000);
  return { router, rig };
}

/** `TCP 8080` for each mapping of which was told that the router did not delete it. */
function notDeleted(rig: Rig): Set<string> {
  const subjects = rig.events.flatMap((event) =>
    "mapping" in event ? [[event.id, event.mapping] as const] : []
  );
  const byId = new Map(subjects);
  return new Set(rig.events.flatMap((event) => {
    if (event.type !== "unmapped" || !event.failure) return [];
    const mapping = byId.get(event.id);
    return mapping ? [`${mapping.protocol.toUpperCase()} ${mapping.internalPort}`] : [];
  }));
}

describe("whatever a router does", () => {
  const SEEDS = 40;

  it("nothing is taken from another host, nor deleted; nothing of ours is left, nothing goes on", () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const { router, rig } = live(seed);
      assertEquals(router.complaints, [], `seed ${seed}`);
      const excused = notDeleted(rig);
      const left = router.own().filter((row) => !excused.has(row.replace(/ .*:/, " ")));
      assertEquals(left, [], `seed ${seed}`);
      assert(rig.client.isIdle, `seed ${seed}`);
      assertEquals([rig.client.nextTimeout(), rig.client.sockets()], [undefined, []]);
      assertEquals(rig.mostAtOnce <= 1, true, `seed ${seed}`);
    }
  });

  it("what is told as held is in the table of a router that is well", () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const random = seededRandom(1000 + seed);
      const router = newRouter(random);
      const rig = new Rig({ router, seed });
      for (let i = 0; i < 5; i++) router.occupy(8000 + below(random, 12));
      for (let port = 8000; port < 8006; port++) {
        rig.map({ internalPort: port, lifetimeSeconds: pick(random, [600, 7200]) });
      }
      for (let i = 0; i < 12; i++) {
        whim(rig, router, random);
        rig.settle();
        rig.run(pick(random, [1000, 70_000, 700_000]));
      }
      router.options = { version: router.options.version!, bootId: 99 };
      router.isDead = false;
      // A refusal is left alone for half an hour, a check comes once a minute for one in turn.
      rig.run(2 * 3_600_000);
      const held = rig.client.mappings().map(({ external, internalPort }) =>
        `TCP ${external?.port}->${HOST}:${internalPort}`
      );
      assertEquals(held.length, 6, `seed ${seed}`);
      assertEquals(router.own().sort(), held.sort(), `seed ${seed}`);
    }
  });
});
