import { describe, it } from "node:test";
import process from "node:process";
import { assert, assertEquals } from "@std/assert";
import type { Context } from "../../../adapters/cli/command.ts";
import { Keeper } from "../../../adapters/cli/commands/keeper.ts";
import { type Entry, entryKey } from "../../../adapters/cli/state_file.ts";
import type { Endpoint } from "../../../core/machine.ts";
import type { GrantedMapping, SavedPort } from "../../../core/portmap/managed.ts";
import { turn } from "../api/fake_network.ts";
import { GRANTED } from "./fakes.ts";

const WANTED = { protocol: "tcp", internalPort: 6000 } as const;
const NONCE = "000102030405060708090a0b";

/** As the library tells what it has asked for. */
function asked(gateway: string, over: Partial<SavedPort> = {}): SavedPort {
  return {
    via: "pcp",
    gateway,
    lifetimeSeconds: 600,
    mode: "keep-alive",
    ...WANTED,
    nonce: NONCE,
    ...over,
  };
}

/** The same, once it is granted. */
function held(gateway: string, over: Partial<SavedPort> = {}): SavedPort {
  return asked(gateway, { external: GRANTED.external, ...over });
}

function granted(address: string, port: number = 5351): GrantedMapping {
  return { ...GRANTED, gateway: { address, port } };
}

const state = (...mappings: SavedPort[]) => ({ version: 1, mappings } as const);

/** A state file in memory. */
class File {
  entries: Entry[] = [];
  /** How often it was written, and locked to see whether there is something to forget. */
  writes = 0;
  looks = 0;
  /** A run that lives and holds what is to be kept at this gateway. */
  rival: Entry | undefined;

  async keep(entry: Entry, isReplaced: (one: Entry) => boolean): Promise<Entry | undefined> {
    await turn();
    if (this.rival && this.rival.mapping.gateway === entry.mapping.gateway) return this.rival;
    this.writes++;
    this.entries = this.entries.filter((one) =>
      entryKey(one) !== entryKey(entry) && !isReplaced(one)
    );
    this.entries.push(entry);
    return undefined;
  }

  async forget(isGone: (one: Entry) => boolean): Promise<void> {
    await turn();
    this.looks++;
    this.entries = this.entries.filter((one) => !isGone(one));
  }

  /** `gateway:port` of each, `!` where it is owned, `+` where it is known for which address. */
  get told(): string[] {
    return this.entries.map(({ gateway, owner, internalAddress, mapping }) =>
      `${gateway?.address}:${gateway?.port}${mapping.nonce === undefined ? "?" : ""}` +
      `${owner?.pid === process.pid ? "!" : ""}${internalAddress === undefined ? "" : "+"}`
    );
  }
}

function keeper(
  file: File,
  wanted: ConstructorParameters<typeof Keeper>[1] = WANTED,
  gateway?: Endpoint,
): Keeper {
  return new Keeper(
    { stateFile: () => file, flags: { gateway } } as unknown as Context,
    wanted,
  );
}

/** Whether each is over in so many seconds from now, as far as a test can be quick. */
function assertEndsIn(entries: readonly Entry[], seconds: number, since: number): void {
  for (const { expiresAt } of entries) {
    const left = expiresAt - 1000 * seconds;
    assert(left >= since && left <= Date.now(), `${left - since}`);
  }
}

describe("Keeper", () => {
  it("keeps what is asked for before it is asked, and that once", async () => {
    const file = new File();
    const kept = keeper(file);
    const since = Date.now();
    const first = state(
      asked("10.0.0.1"),
      held("10.0.0.2"),
      asked("10.0.0.1", { internalPort: 6001 }),
      asked("10.0.0.1", { protocol: "udp" }),
    );
    await kept.asked(first);
    assertEquals([file.told, file.writes], [["10.0.0.1:5351!"], 1]);
    assertEquals(file.entries[0]!.mapping, asked("10.0.0.1"));
    assertEndsIn(file.entries, 600, since);
    await kept.asked(first);
    assertEquals(file.writes, 1);
    await kept.asked(state(asked("10.0.0.1"), asked("10.0.0.3")));
    assertEquals([file.told, file.writes], [["10.0.0.1:5351!", "10.0.0.3:5351!"], 3]);
    await kept.asked(state(asked("10.0.0.1", { nonce: "ff".repeat(12) })));
    assertEquals(file.entries.map(({ mapping }) => mapping.nonce), [NONCE, "ff".repeat(12)]);
  });

  it("keeps the port of --gateway for that gateway alone", async () => {
    const file = new File();
    const kept = keeper(file, WANTED, { address: "10.0.0.1", port: 9 });
    await kept.asked(state(asked("10.0.0.1"), asked("10.0.0.2")));
    assertEquals(file.told, ["10.0.0.1:9!", "10.0.0.2:5351!"]);
  });

  it("claims what it is about to ask for at each gateway, for a minute", async () => {
    const file = new File();
    const remote = { address: "198.51.100.1", port: 80 };
    const since = Date.now();
    const kept = keeper(file, { ...WANTED, remote, thirdParty: "192.168.1.9" });
    assertEquals(await kept.claim(["10.0.0.1", "nowhere", "10.0.0.2:7"]), undefined);
    assertEquals(file.told, ["10.0.0.1:5351?!", "10.0.0.2:7?!"]);
    assertEndsIn(file.entries, 60, since);
    assertEquals(file.entries[1]!.mapping, {
      via: "pcp",
      gateway: "10.0.0.2",
      lifetimeSeconds: 60,
      mode: "once",
      ...WANTED,
      remote,
      thirdParty: "192.168.1.9",
    });
    const plain = new File();
    await keeper(plain).claim(["10.0.0.1"]);
    assertEquals(Object.keys(plain.entries[0]!.mapping), [
      "via",
      "gateway",
      "lifetimeSeconds",
      "mode",
      "protocol",
      "internalPort",
    ]);
  });

  it("gives way to a run that was first, with all that it has claimed, and writes no more", async () => {
    const file = new File();
    const rival = { mapping: held("10.0.0.2"), expiresAt: Infinity, owner: { pid: 1 } };
    file.rival = rival;
    const kept = keeper(file);
    let isLost = false;
    void kept.lost.then(() => isLost = true);
    assertEquals(await kept.claim(["10.0.0.1", "10.0.0.2", "10.0.0.3"]), rival);
    assertEquals([file.told, isLost, kept.other], [[], true, rival]);
    await kept.asked(state(asked("10.0.0.1")));
    kept.keep(granted("10.0.0.1"), state(held("10.0.0.1")), true);
    await kept.settled();
    assertEquals(file.told, []);
  });

  it("leaves what it holds where another run is first elsewhere", async () => {
    const file = new File();
    const kept = keeper(file);
    kept.keep(granted("10.0.0.1"), state(held("10.0.0.1")), true);
    await kept.settled();
    file.rival = { mapping: held("10.0.0.2"), expiresAt: Infinity, owner: { pid: 1 } };
    kept.keep(granted("10.0.0.2"), state(held("10.0.0.2")), true);
    await kept.settled();
    assertEquals([file.told, kept.other], [["10.0.0.1:5351!+"], file.rival]);
  });

  it("puts what was granted in the place of what was claimed and asked for", async () => {
    const file = new File();
    const kept = keeper(file);
    await kept.claim(["10.0.0.1", "10.0.0.2"]);
    await kept.asked(state(asked("10.0.0.1"), asked("10.0.0.2")));
    // A claim stands until something is granted.
    assertEquals(file.told, [
      "10.0.0.1:5351?!",
      "10.0.0.2:5351?!",
      "10.0.0.1:5351!",
      "10.0.0.2:5351!",
    ]);
    const since = Date.now();
    const now = state(asked("10.0.0.2"), held("10.0.0.1", { mode: 2 }));
    kept.keep({ ...granted("10.0.0.1", 77), lifetimeSeconds: 50 }, now, true);
    await kept.settled();
    assertEquals(file.told, ["10.0.0.2:5351!", "10.0.0.1:77!+"]);
    const [, entry] = file.entries;
    assertEquals([entry!.mapping, entry!.internalAddress], [
      held("10.0.0.1", { mode: 2 }),
      "192.168.1.5",
    ]);
    assertEndsIn([entry!], 50, since);
    assertEquals(kept.left().map(({ mapping }) => mapping.gateway), ["10.0.0.2", "10.0.0.1"]);
    // What the library does not know any more is not kept.
    kept.keep(granted("10.0.0.3"), now, true);
    kept.keep(granted("10.0.0.1", 77), now, false);
    await kept.settled();
    assertEquals(file.told, ["10.0.0.2:5351!", "10.0.0.1:77+"]);
  });

  it("adopts what a run wrote that was killed before the answer, and that alone", async () => {
    const file = new File();
    const old = (mapping: SavedPort, over: Partial<Entry> = {}): Entry => ({
      mapping,
      expiresAt: Infinity,
      gateway: { address: mapping.gateway, port: 5351 },
      ...over,
    });
    const others = [
      old(asked("10.0.0.1", { nonce: "ff".repeat(12) }), {
        gateway: { address: "10.0.0.1", port: 9 },
      }),
      old(asked("10.0.0.1"), { internalAddress: "192.168.1.6" }),
      old(asked("10.0.0.2")),
      old(asked("10.0.0.1", { internalPort: 6001 })),
    ];
    file.entries = [old(asked("10.0.0.1")), ...others];
    const kept = keeper(file);
    kept.keep(granted("10.0.0.1"), state(held("10.0.0.1")), false);
    await kept.settled();
    assertEquals(file.entries.slice(0, -1), others);

    // Without a nonce nothing tells whose it is.
    const { nonce: _, ...nameless } = held("10.0.0.1", { via: "nat-pmp" });
    const mine = { ...nameless, lifetimeSeconds: 1 };
    file.entries = [old(mine, { gateway: { address: "10.0.0.1", port: 9 } })];
    const other = keeper(file);
    other.keep(granted("10.0.0.1"), state(nameless), false);
    await other.settled();
    assertEquals(file.entries.map(({ mapping }) => mapping.lifetimeSeconds), [1, 600]);
  });

  it("keeps all of a watch, at the gateways that there are, and forgets what is nowhere", async () => {
    const file = new File();
    const kept = keeper(file);
    const both = state(held("10.0.0.1"), asked("10.0.0.2"), held("10.0.0.3"), held("10.0.0.30"));
    await kept.all(both, ["10.0.0.1", "10.0.0.2:5", "10.0.0.3 (eth0)"]);
    assertEquals([file.told, file.writes], [
      ["10.0.0.1:5351!", "10.0.0.2:5351!", "10.0.0.3:5351!"],
      3,
    ]);
    await kept.all(both, ["10.0.0.1", "10.0.0.2:5", "10.0.0.3 (eth0)"]);
    assertEquals([file.writes, file.looks], [3, 0]);
    await kept.all(state(asked("10.0.0.2"), held("10.0.0.3")), ["10.0.0.2"]);
    assertEquals([file.told, file.writes], [["10.0.0.2:5351!", "10.0.0.3:5351!"], 3]);
    await kept.again();
    assertEquals([file.told, file.writes], [["10.0.0.2:5351!", "10.0.0.3:5351!"], 5]);
    // One that is new, beside one that is kept.
    const more = state(asked("10.0.0.2"), held("10.0.0.3"), held("10.0.0.4"));
    await kept.all(more, ["10.0.0.3", "10.0.0.4"]);
    assertEquals(file.told, ["10.0.0.2:5351!", "10.0.0.3:5351!", "10.0.0.4:5351!"]);
    await kept.forgetAsked();
    assertEquals([file.told, file.looks], [["10.0.0.3:5351!", "10.0.0.4:5351!"], 2]);
  });

  it("forgets what was asked for in vain, or is not this run's any more", async () => {
    const file = new File();
    const kept = keeper(file);
    const all = state(asked("10.0.0.1"), held("10.0.0.2"), held("10.0.0.3"), held("10.0.0.4"));
    await kept.all(all, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]);
    kept.keep(
      granted("10.0.0.2"),
      state(asked("10.0.0.1"), held("10.0.0.2"), held("10.0.0.4", { nonce: "ff".repeat(12) })),
      true,
    );
    await kept.forgetAsked();
    assertEquals([file.told, kept.left().length], [["10.0.0.2:5351!+"], 1]);

    const watch = keeper(file);
    await watch.all(state(held("10.0.0.5"), held("10.0.0.6")), ["10.0.0.5", "10.0.0.6"]);
    await watch.asked(state(held("10.0.0.6")));
    await watch.forgetAsked();
    assertEquals(file.told, ["10.0.0.2:5351!+", "10.0.0.6:5351!"]);
    await watch.forget();
    assertEquals([file.told, watch.left()], [["10.0.0.2:5351!+"], []]);
    await keeper(file).forgetAsked();
  });
});
