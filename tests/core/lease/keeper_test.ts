/**
 * The life of a lease: each transition and rule of the keeper, with a wire driven by hand.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  EXTERNAL,
  HOUR,
  KeeperRig,
  type KeeperRigOptions,
  NO_ANSWER,
  refusal,
  wantedOf,
} from "./keeper_rig.ts";

const GRANTED = "203.0.113.7:8080";
const EXPIRED = { kind: "expired" } as const;
const NONCE = new Uint8Array(12).fill(7), NONCE_TEXT = "07".repeat(12);
const rig = (options?: KeeperRigOptions) => new KeeperRig(options);

describe("a request", () => {
  it("is sent at once, and a grant is told as mapped", () => {
    const lab = rig(), lease = lab.map();
    assertEquals([lab.sent(), lease.phase], [["create 7200"], "asking"]);
    assertEquals(lab.nextIn, undefined);
    lab.grant(lease);
    assertEquals(lab.told(), [`mapped ${GRANTED} r0`]);
    assertEquals(lease.phase, "granted");
    assertEquals([lab.keeper.size, lab.keeper.lastId], [1, 1]);
    assertEquals(lab.keeper.get(1), lease);
    assertEquals(lab.keeper.find(lease.key), lease);
  });

  it("is refused in words where the same mapping, or a port of a set, is wanted already", () => {
    const lab = rig();
    lab.map();
    assertThrows(() => lab.map(), TypeError, "8080/tcp: it is mapped already (id 1)");
    assertThrows(() => lab.adopt(), TypeError, "8080/tcp: it is mapped already");
    assertThrows(
      () => lab.map({ internalPort: 8079, portSet: { size: 2 } }),
      TypeError,
      "Cannot map 8079/tcp: the ports overlap those of 8080/tcp",
    );
    lab.map({ internalPort: 8070, portSet: { size: 10 } });
    assertThrows(() => lab.map({ internalPort: 8079 }), TypeError, "overlap those of 8070/tcp");
    assertThrows(() => lab.map({ internalPort: 8071, portSet: { size: 2 } }), TypeError, "overlap");
    assertEquals(lab.keeper.size, 2);
  });

  it("goes beside a set that has none of its ports, or is not inbound, or another's", () => {
    const lab = rig();
    const remote = { address: "198.51.100.1", port: 9 };
    lab.map({ internalPort: 8070, portSet: { size: 10 } });
    for (
      const other of [
        { internalPort: 8069 },
        { internalPort: 8080 },
        { internalPort: 8075, protocol: "udp" },
        { internalPort: 8075, thirdParty: "192.168.1.9" },
        { internalPort: 8075, remote },
      ] as const
    ) lab.map(other);
    lab.map({ internalPort: 8060, portSet: { size: 9 } });
    // A set that asks for all there are ends with the last port.
    lab.map({ internalPort: 60_000, portSet: { size: 65_535 } });
    assertThrows(() => lab.map({ internalPort: 65_535 }), TypeError, "overlap");
    assertEquals(lab.keeper.size, 8);
    // A peer of a set's port is no mapping of that port.
    const peers = rig();
    peers.map({ internalPort: 8075, remote });
    peers.map({ internalPort: 8070, portSet: { size: 10 } });
    assertEquals(peers.keeper.size, 2);
  });

  it("frees the ports of a set that is over, or on its way out", () => {
    const lab = rig();
    const set = { internalPort: 8070, portSet: { size: 20 } } as const;
    lab.keeper.abandon(lab.map(set), 0);
    lab.keeper.revoke(lab.held(set), 0);
    lab.map({ internalPort: 8071 });
    assertEquals(lab.keeper.wanted().length, 1);
  });

  it("waits where the gateway asked to be left alone, which is told at once", () => {
    const lab = rig();
    lab.blocked = { until: 5000, failure: refusal(5000) };
    const lease = lab.map();
    assertEquals([lab.sent(), lab.told()], [[], ["failed NO_RESOURCES in 5000"]]);
    lab.run(4999);
    assertEquals(lab.sent(), []);
    lab.run(1);
    assertEquals(lab.sent(), ["recreate 7200"]);
    assertEquals(lease.phase, "asking");
    lab.now = 5000;
    assertEquals(lab.map({ internalPort: 1 }).phase, "asking");
  });

  it("that is blocked and wanted once is over", () => {
    const lab = rig();
    lab.blocked = { until: 5000, failure: refusal(5000) };
    lab.map({ mode: "once" });
    assertEquals([lab.told(), lab.keeper.size], [["failed NO_RESOURCES"], 0]);
  });

  it("is put off again where the gateway asked another one to leave it alone meanwhile", () => {
    const lab = rig(), lease = lab.map();
    lab.fail(lease, refusal(3000));
    lab.blocked = { until: 9000, failure: refusal(9000) };
    lab.sent();
    lab.run(8999);
    assertEquals(lab.sent(), []);
    lab.run(1);
    assertEquals(lab.sent(), ["recreate 7200"]);
  });

  it("with a nonce of an earlier run is deleted though it was never granted", () => {
    const lab = rig(), lease = lab.map({ nonce: NONCE });
    assertEquals(lease.nonce, NONCE_TEXT);
    lab.fail(lease, refusal(3000));
    lab.sent();
    lab.keeper.revoke(lease, 0);
    assertEquals(lab.sent(), ["delete"]);
  });

  it("takes a nonce that is made for it", () => {
    const lab = rig();
    assertEquals(
      lab.keeper.map(wantedOf(), undefined, () => NONCE_TEXT, undefined, 0).nonce,
      NONCE_TEXT,
    );
  });
});

describe("renewal", () => {
  it("is due at 1/2, 3/4, 7/8 of the lifetime, and a grant begins anew", () => {
    const lab = rig(), lease = lab.held({ lifetimeSeconds: 3600 });
    for (const part of [1 / 2, 1 / 4, 1 / 8]) {
      assertEquals(lab.nextIn, part * HOUR);
      lab.run(part * HOUR);
      assertEquals(lab.sent(), ["renew 3600"]);
      assertEquals(lease.phase, "renewing");
    }
    assertEquals(lab.told(), []);
    lab.grant(lease, 3600);
    assertEquals(lab.told(), [`renewed ${GRANTED} r0`]);
    assertEquals(lab.nextIn, HOUR / 2);
  });

  it("that is met with silence changes nothing before the end, and is lost then", () => {
    const lab = rig(), lease = lab.held({ lifetimeSeconds: 3600 });
    lab.run(HOUR / 2);
    assertEquals(lab.fail(lease), true);
    assertEquals([lab.told(), lease.phase, lab.nextIn], [[], "granted", HOUR / 4]);
    lab.run(HOUR / 2 - 1);
    assertEquals(lab.told(), []);
    lab.sent();
    lab.run(1);
    assertEquals(lab.told(), ["lost no answer"]);
    assertEquals(lab.keeper.get(1), lease);
    lab.run(5000);
    assertEquals(lab.sent(), ["recreate 3600"]);
    lab.grant(lease, 3600);
    assertEquals(lab.told(), [`recovered ${GRANTED} r0`]);
  });

  it("that is unanswered at the end is lost as expired, and asked for within 4 s", () => {
    const lab = rig();
    lab.held({ lifetimeSeconds: 3600 });
    lab.run(HOUR);
    assertEquals(lab.told(), ["lost expired"]);
    lab.sent();
    lab.run(4000);
    assertEquals(lab.sent(), ["recreate 3600"]);
  });

  it("that is refused is told with its time; the mapping lasts, and is asked for then", () => {
    const lab = rig(), lease = lab.held();
    lab.run(HOUR);
    lab.sent();
    lab.fail(lease, refusal(lab.now + 2_000_000));
    assertEquals(lab.told(), ["renewal-failed NO_RESOURCES in 2000000 r0"]);
    assertEquals([lease.isGranted, lab.nextIn], [true, 2_000_000]);
    lab.run(2_000_000);
    assertEquals(lab.sent(), ["renew 7200"]);
  });

  it("that came to nothing is not on its way any more", () => {
    const lab = rig(), lease = lab.held();
    lab.run(HOUR);
    lab.fail(lease);
    assertEquals([lab.cancelled, lease.request, lease.phase], [2, undefined, "granted"]);
  });

  it("that is refused beyond the end is told without a time, and lost with it at the end", () => {
    const lab = rig(), lease = lab.held();
    lab.run(HOUR);
    lab.sent();
    lab.fail(lease, refusal(lab.now + 2 * HOUR));
    assertEquals(lab.told(), ["renewal-failed NO_RESOURCES r0"]);
    lab.run(HOUR);
    assertEquals([lab.told(), lab.sent()], [[`lost NO_RESOURCES in ${HOUR}`], []]);
    lab.run(HOUR);
    assertEquals(lab.sent(), ["recreate 7200"]);
  });

  it("that is refused twice is told once", () => {
    const lab = rig(), lease = lab.held();
    lab.run(HOUR);
    assertEquals(lab.fail(lease, refusal(lab.now + 1000)), true);
    assertEquals(lab.fail(lease, refusal(lab.now + 1000)), false);
    assertEquals(lab.told().length, 1);
  });

  it("a refusal nobody asked for counts where it is the first", () => {
    const lab = rig(), lease = lab.held();
    assertEquals(lab.fail(lease, refusal(9000)), true);
    assertEquals(lab.told(), ["renewal-failed NO_RESOURCES in 3600000 r0"]);
    assertEquals(lab.fail(lease, refusal(9500)), false);
  });

  it("other failures mean nothing where nothing is on its way", () => {
    const lab = rig(), lease = lab.held();
    lab.fail(lease, refusal(9000));
    const other = rig(), resting = other.map();
    other.fail(resting);
    other.told();
    assertEquals([lab.fail(lease), other.fail(resting), other.told()], [false, false, []]);
  });

  it("is lost at once where the gateway no longer speaks the protocol", () => {
    const lab = rig(), lease = lab.held();
    lab.run(HOUR);
    lab.sent();
    lab.fail(lease, { kind: "unsupported-version", version: 0 });
    assertEquals(lab.told(), ["lost unsupported version (speaks 0) in 3000"]);
    lab.run(3000);
    assertEquals(lab.sent(), ["recreate 7200"]);
  });

  it("of a few seconds leaves 4 s between two, or ends first", () => {
    const lab = rig();
    lab.held({ lifetimeSeconds: 10 });
    lab.run(9999);
    assertEquals(lab.sent(), ["renew 10", "renew 10"]);
  });
});

describe("a success nobody asked for", () => {
  it("that changes nothing is not told; a later end is, and another endpoint", () => {
    const lab = rig(), lease = lab.held();
    lab.now = 2000;
    lab.grant(lease);
    assertEquals(lab.told(), []);
    lab.now = 4001;
    lab.grant(lease);
    assertEquals(lab.told(), [`renewed ${GRANTED} r0`]);
    lab.grant(lease, 7200, { address: "203.0.113.7", port: 9 });
    assertEquals(lab.told(), ["moved 203.0.113.7:9 r0"]);
    lab.grant(lease, 7200, { address: "203.0.113.8", port: 9 });
    assertEquals(lab.told(), ["moved 203.0.113.8:9 r0"]);
    lab.grant(lease, 600, { address: "203.0.113.8", port: 9 });
    assertEquals(lab.told(), ["renewed 203.0.113.8:9 r0"]);
  });

  it("as quick an answer to what was asked is told", () => {
    const lab = rig(), lease = lab.held();
    lab.keeper.renew(lease, undefined, 0);
    lab.grant(lease);
    assertEquals(lab.told(), [`renewed ${GRANTED} r1`]);
  });

  it("wakes one that rests", () => {
    const lab = rig(), lease = lab.map();
    lab.fail(lease, refusal(HOUR));
    lab.sent();
    lab.told();
    lab.grant(lease);
    assertEquals(lab.told(), [`mapped ${GRANTED} r0`]);
    assertEquals(lab.nextIn, HOUR);
  });
});

describe("renew()", () => {
  it("asks at once with the new lifetime, and its answer carries its number", () => {
    const lab = rig(), lease = lab.held();
    assertEquals(lab.keeper.renew(lease, 600, 0), 1);
    assertEquals(lab.sent(), ["renew 600"]);
    lab.grant(lease, 600);
    assertEquals(lab.told(), [`renewed ${GRANTED} r1`]);
    lab.run(300_000);
    assertEquals(lab.sent(), ["renew 600"]);
  });

  it("within 4 s of the last renewal asks when they are over, by a request of its own", () => {
    const lab = rig(), lease = lab.held();
    lab.keeper.renew(lease, 3600, 0);
    lab.now = 1000;
    assertEquals(lab.keeper.renew(lease, 60, lab.now), 2);
    assertEquals([lab.sent(), lab.nextIn], [["renew 3600"], 3000]);
    lab.grant(lease, 3600);
    assertEquals(lab.told(), [`renewed ${GRANTED} r1`]);
    assertEquals(lab.nextIn, 3000);
    lab.run(3000);
    assertEquals(lab.sent(), ["renew 60"]);
    lab.grant(lease, 60);
    assertEquals(lab.told(), [`renewed ${GRANTED} r2`]);
  });

  it("is answered by the refusal where the gateway refuses at present, without a packet", () => {
    const lab = rig(), lease = lab.held();
    lab.run(HOUR);
    lab.fail(lease, refusal(lab.now + 60_000));
    lab.sent();
    lab.told();
    lab.now += 59_999;
    lab.keeper.renew(lease, undefined, lab.now);
    assertEquals([lab.sent(), lab.told()], [[], ["renewal-failed NO_RESOURCES in 1 r1"]]);
    lab.now += 1;
    lab.keeper.renew(lease, undefined, lab.now);
    assertEquals([lab.sent(), lab.told()], [["renew 7200"], []]);
  });

  it("of one that is not granted goes with the request that makes it", () => {
    const lab = rig(), lease = lab.map();
    lab.keeper.renew(lease, 60, 0);
    assertEquals(lab.sent(), ["create 7200"]);
    lab.grant(lease);
    assertEquals([lab.told(), lab.sent()], [[`mapped ${GRANTED} r0`], ["renew 60"]]);
    const other = rig(), resting = other.map();
    other.fail(resting);
    other.keeper.renew(resting, 60, 0);
    other.run(3000);
    assertEquals(other.sent(), ["create 7200", "recreate 60"]);
  });

  it("that fails uses up no point of the schedule", () => {
    for (const fails of [true, false]) {
      const lab = rig(), lease = lab.held();
      lab.run(60_000);
      lab.keeper.renew(lease, undefined, lab.now);
      if (fails) lab.fail(lease);
      lab.sent();
      assertEquals(lab.nextIn, HOUR - 60_000);
      lab.run(HOUR - 60_000);
      assertEquals([lab.sent(), lab.nextIn], [["renew 7200"], HOUR / 2]);
    }
  });

  it("is asked again until it is answered, where the protocol does not do that", () => {
    const waits: (number | undefined)[] = [];
    const patienceMs = (previousMs: number | undefined) => {
      waits.push(previousMs);
      return 2 * (previousMs ?? 5000);
    };
    const lab = rig({ patienceMs }), lease = lab.held();
    lab.keeper.renew(lease, 600, 0);
    lab.run(30_000);
    assertEquals(lab.sent(), ["renew 600", "renew 600", "renew 600"]);
    lab.grant(lease, 600);
    lab.sent();
    assertEquals([lab.nextIn, waits], [300_000, [undefined, 10_000, 20_000]]);
    // One of the schedule has the schedule alone, and so has what was refused.
    lab.run(300_000);
    assertEquals([lab.sent(), lab.nextIn], [["renew 600"], 150_000]);
    lab.grant(lease, 600);
    lab.run(10_000);
    lab.keeper.renew(lease, undefined, lab.now);
    lab.fail(lease, refusal(lab.now + 4000));
    assertEquals(lab.nextIn, 290_000);
  });

  it("keeps 4 s from one of the schedule, which may be the next that asks", () => {
    const lab = rig({ patienceMs: () => 10_000 }), lease = lab.held();
    lab.run(HOUR - 12_000);
    lab.keeper.renew(lease, undefined, lab.now);
    lab.run(10_000);
    lab.sent();
    // The schedule's point is 2 s away, and waits for 4.
    assertEquals(lab.nextIn, 4000);
    lab.run(4000);
    assertEquals(lab.sent(), ["renew 7200"]);
    lab.run(10_000);
    assertEquals(lab.sent(), ["renew 7200"]);
  });

  it("makes one that is wanted once last for the new lifetime", () => {
    const lab = rig(), lease = lab.held({ mode: "once", lifetimeSeconds: 600 });
    assertEquals(lab.nextIn, 600_000);
    lab.now = 500_000;
    lab.keeper.renew(lease, undefined, lab.now);
    lab.grant(lease, 600);
    lab.sent();
    lab.run(599_999);
    assertEquals(lab.keeper.size, 1);
    lab.run(1);
    assertEquals(lab.told().at(-1), "unmapped expired");
    assertEquals(lab.sent(), []);
  });
});

describe("a request that comes to nothing", () => {
  it("rests longer each time: to 1024 s where it was never granted", () => {
    const lab = rig(), lease = lab.map();
    const waits: (number | undefined)[] = [];
    for (let i = 0; i < 11; i++) {
      lab.fail(lease);
      waits.push(lab.nextIn);
      assertEquals(lab.told(), [`failed no answer in ${lab.nextIn}`]);
      lab.run(lab.nextIn!);
      assertEquals(lease.phase, "asking");
    }
    assertEquals(waits.slice(0, 4), [3000, 6000, 12_000, 24_000]);
    assertEquals(waits.slice(-2), [1_024_000, 1_024_000]);
  });

  it("rests for at most a minute where the gateway held it once, and begins anew after a grant", () => {
    const lab = rig(), lease = lab.held();
    lab.keeper.gone(lease, EXPIRED, undefined, 0);
    const waits: (number | undefined)[] = [];
    for (let i = 0; i < 7; i++) {
      lab.fail(lease);
      waits.push(lab.nextIn);
      lab.run(lab.nextIn!);
    }
    assertEquals(waits, [3000, 6000, 12_000, 24_000, 48_000, 60_000, 60_000]);
    lab.grant(lease);
    lab.keeper.gone(lease, EXPIRED, undefined, lab.now);
    lab.fail(lease);
    assertEquals(lab.nextIn, 3000);
  });

  it("waits as long as the gateway says", () => {
    const lab = rig(), lease = lab.map();
    lab.fail(lease, refusal(86_400_000));
    assertEquals(lab.told(), ["failed NO_RESOURCES in 86400000"]);
    assertEquals([lab.nextIn, lease.request], [86_400_000, undefined]);
  });

  it("is over where it is wanted for a time, and nothing goes on", () => {
    for (const mode of ["once", 2] as const) {
      const lab = rig(), lease = lab.map({ mode });
      lab.fail(lease, refusal(9000));
      assertEquals([lab.told(), lab.keeper.size], [["failed NO_RESOURCES"], 0]);
      lab.sent();
      lab.run(HOUR);
      assertEquals([lab.sent(), lab.told(), lab.nextIn], [[], [], undefined]);
    }
  });

  it("after a refusal nothing is there to delete; after silence it is deleted", () => {
    const refused = rig(), one = refused.map();
    refused.fail(one, refusal(9000));
    refused.told();
    refused.sent();
    refused.keeper.revoke(one, 0);
    assertEquals([refused.sent(), refused.told()], [[], ["unmapped revoked"]]);
    const silent = rig(), other = silent.map();
    silent.fail(other);
    silent.sent();
    silent.keeper.revoke(other, 0);
    assertEquals(silent.sent(), ["delete"]);
  });

  it("may be mended by another request at once", () => {
    const lab = rig(), lease = lab.map();
    lab.keeper.askAgain(lease, 0);
    assertEquals(lab.cancelled, 1);
    lab.grant(lease);
    lab.keeper.renew(lease, undefined, 0);
    lab.keeper.askAgain(lease, 0);
    lab.keeper.gatewayRestarted(undefined, 0);
    lab.run(5000);
    lab.keeper.askAgain(lease, lab.now);
    lab.keeper.revoke(lease, lab.now);
    lab.keeper.askAgain(lease, lab.now);
    assertEquals(lab.sent(), [
      "create 7200",
      "create 7200",
      "renew 7200",
      "renew 7200",
      "recreate 7200",
      "recreate 7200",
      "delete",
      "delete",
    ]);
  });
});

describe("a refusal that comes when nothing is on its way", () => {
  it("is waited for by what rests after silence, and told", () => {
    const lab = rig(), lease = lab.map();
    lab.fail(lease);
    lab.told();
    lab.sent();
    assertEquals(lab.fail(lease, refusal(9000)), true);
    assertEquals(lab.told(), ["failed NO_RESOURCES in 9000"]);
    lab.run(8999);
    assertEquals(lab.sent(), []);
    lab.run(1);
    assertEquals(lab.sent(), ["recreate 7200"]);
  });

  it("is waited for by what is about to begin anew, since the gateway answers again", () => {
    const lab = rig(), lease = lab.map();
    lab.keeper.hasten(lease, 0);
    lab.sent();
    assertEquals(lab.fail(lease, refusal(9000)), true);
    lab.run(8999);
    assertEquals(lab.sent(), []);
    lab.run(1);
    assertEquals(lab.sent(), ["recreate 7200"]);
  });

  it("is waited for by what waits until there is room, where it says more", () => {
    const lab = rig(), lease = lab.map();
    lab.keeper.hasten(lease, 0);
    lab.blocked = { until: 9000, failure: refusal(9000) };
    lab.sent();
    lab.run(5000);
    assertEquals(lab.fail(lease, refusal(9300)), true);
    lab.run(4299);
    assertEquals(lab.sent(), []);
    lab.run(1);
    assertEquals(lab.sent(), ["recreate 7200"]);
  });

  it("is neither told twice nor waited for longer where it comes twice", () => {
    const lab = rig(), lease = lab.map();
    lab.fail(lease, refusal(9000));
    lab.told();
    lab.sent();
    lab.run(500);
    assertEquals([lab.fail(lease, refusal(9500)), lab.told()], [false, []]);
    lab.run(8500);
    assertEquals(lab.sent(), ["recreate 7200"]);
  });

  it("is none of what is asked for no more, or has not been asked for", () => {
    const lab = rig(), lease = lab.map();
    lab.keeper.withdraw(lease, 0);
    assertEquals([lab.fail(lease, refusal(9000)), lab.told()], [false, []]);
    const other = rig();
    const adopted = other.adopt();
    assertEquals([other.fail(adopted, refusal(9000)), other.told()], [false, []]);
  });
});

describe("a mapping that is gone", () => {
  it("is told, and asked for at once", () => {
    const lab = rig(), lease = lab.held();
    lab.keeper.gone(lease, EXPIRED, undefined, 0);
    assertEquals([lab.told(), lab.sent()], [["lost expired"], ["recreate 7200"]]);
    assertEquals([lease.isGranted, lease.phase], [false, "asking"]);
  });

  it("is asked for 4 s after the last renewal, or when the caller says", () => {
    const lab = rig(), lease = lab.held();
    lab.keeper.renew(lease, undefined, 0);
    lab.sent();
    lab.now = 1000;
    lab.keeper.gone(lease, EXPIRED, undefined, lab.now);
    assertEquals([lab.told(), lab.nextIn], [["lost expired"], 3000]);
    const ready = rig(), renewed = ready.held();
    ready.keeper.renew(renewed, undefined, 0);
    ready.now = 4000;
    ready.keeper.gone(renewed, EXPIRED, undefined, ready.now);
    assertEquals(ready.sent(), ["renew 7200", "recreate 7200"]);
    const other = rig(), later = other.held();
    other.keeper.gone(later, EXPIRED, 30_000, 0);
    assertEquals([other.told(), other.nextIn], [["lost expired in 30000"], 30_000]);
  });

  it("is a failure where it was never held", () => {
    const lab = rig(), lease = lab.map();
    lab.keeper.gone(lease, EXPIRED, undefined, 0);
    assertEquals(lab.told(), ["failed expired in 3000"]);
  });

  it("is over where it is wanted for a time", () => {
    const lab = rig(), lease = lab.held({ mode: 3 });
    lab.keeper.gone(lease, EXPIRED, undefined, 0);
    assertEquals([lab.told(), lab.keeper.size], [["unmapped expired expired"], 0]);
  });

  it("is told as mapped when it is back, where nobody has heard of the first grant", () => {
    const lab = rig(), lease = lab.map();
    lab.grant(lease);
    lab.keeper.gone(lease, EXPIRED, undefined, 0);
    assertEquals(lab.told(), ["lost expired"]);
    lab.grant(lease);
    assertEquals(lab.told(), [`mapped ${GRANTED} r0`]);
  });
});

describe("the wanted time", () => {
  it("once: it is never renewed, and ends with its lifetime", () => {
    const lab = rig();
    lab.held({ mode: "once", lifetimeSeconds: 600 });
    lab.run(599_999);
    assertEquals(lab.told(), []);
    lab.run(1);
    assertEquals([lab.sent(), lab.told()], [[], ["unmapped expired"]]);
    assertEquals([lab.keeper.size, lab.nextIn], [0, undefined]);
  });

  it("two lifetimes, renewed by hand: they are counted anew from that grant on", () => {
    const lab = rig(), lease = lab.held({ mode: 2, lifetimeSeconds: 600 });
    lab.run(100_000);
    lab.keeper.renew(lease, undefined, lab.now);
    lab.grant(lease, 600);
    assertEquals(lease.wantedUntil, 100_000 + 1_200_000);
  });

  it("two lifetimes: it is renewed for what is left, and ends", () => {
    const lab = rig(), lease = lab.held({ mode: 2, lifetimeSeconds: 600 });
    lab.run(300_000);
    lab.grant(lease, 600);
    assertEquals(lab.sent(), ["renew 600"]);
    lab.run(300_000);
    lab.grant(lease, 600);
    assertEquals(lab.sent(), ["renew 600"]);
    lab.told();
    lab.run(600_000);
    assertEquals([lab.sent(), lab.told()], [[], ["unmapped expired"]]);
  });

  it("a refused renewal ends it with the refusal, at its end and not before", () => {
    const lab = rig(), lease = lab.held({ mode: 2, lifetimeSeconds: 600 });
    lab.run(300_000);
    lab.fail(lease, refusal(HOUR));
    assertEquals(lab.told(), ["renewal-failed NO_RESOURCES r0"]);
    lab.run(299_999);
    assertEquals(lab.told(), []);
    lab.run(1);
    assertEquals([lab.told(), lab.keeper.size], [["unmapped expired NO_RESOURCES"], 0]);
  });

  it("an unanswered renewal ends it as lost", () => {
    const lab = rig();
    lab.held({ mode: 2, lifetimeSeconds: 600 });
    lab.run(600_000);
    assertEquals(lab.told(), ["unmapped expired expired"]);
  });

  it("of a few seconds is over sooner where there is no room for another renewal", () => {
    const lab = rig(), lease = lab.held({ mode: 3, lifetimeSeconds: 3 });
    lab.run(1500);
    lab.grant(lease, 3);
    lab.told();
    lab.run(3000);
    assertEquals(lab.told(), ["unmapped expired"]);
  });
});

describe("revoke()", () => {
  it("deletes, and tells when that is answered", () => {
    const lab = rig(), lease = lab.held();
    lab.keeper.revoke(lease, 0);
    lab.keeper.revoke(lease, 0);
    assertEquals([lab.sent(), lab.told(), lease.phase], [["delete"], [], "deleting"]);
    assertEquals([lab.keeper.find(lease.key), lab.keeper.findLeaving(lease.key)], [
      undefined,
      lease,
    ]);
    lab.keeper.deleted(lease, undefined, 0);
    assertEquals([lab.told(), lab.keeper.size], [["unmapped revoked"], 0]);
    assertEquals(lab.keeper.findLeaving(lease.key), undefined);
  });

  it("tells why the gateway keeps it", () => {
    const lab = rig(), lease = lab.held();
    lab.keeper.revoke(lease, 0);
    assertEquals(lab.fail(lease, refusal(9000)), true);
    assertEquals([lab.told(), lab.keeper.size], [["unmapped revoked NO_RESOURCES"], 0]);
  });

  it("leaves the packet to the caller where one request deletes all", () => {
    const lab = rig(), lease = lab.held();
    lab.keeper.revoke(lease, 0, "with others");
    assertEquals([lab.sent(), lease.phase], [[], "deleting"]);
  });

  it("is over at the end of the lease, and not before", () => {
    const lab = rig(), lease = lab.held({ lifetimeSeconds: 600 });
    lab.run(100_000);
    lab.keeper.revoke(lease, lab.now);
    assertEquals(lab.nextIn, 500_000);
    lab.run(499_999);
    assertEquals(lab.told(), []);
    lab.run(1);
    assertEquals(lab.told(), ["unmapped revoked"]);
  });

  it("of what was granted for longer than is believed waits for the gateway's end", () => {
    const lab = rig(), lease = lab.map();
    lab.grant(lease, 10 * 86_400);
    lab.keeper.revoke(lease, 0);
    lab.told();
    lab.run(10 * 86_400_000 - 1);
    assertEquals(lab.told(), []);
    lab.run(1);
    assertEquals(lab.told(), ["unmapped revoked"]);
  });

  it("is over at once where the protocol cannot delete", () => {
    const lab = rig({ canDelete: false }), lease = lab.held();
    lab.keeper.revoke(lease, 0);
    assertEquals([lab.sent(), lab.told()], [[], ["unmapped revoked"]]);
  });

  it("of one whose time at the gateway has passed sends nothing", () => {
    const lab = rig(), lease = lab.map({ lifetimeSeconds: 60 });
    lab.fail(lease);
    lab.sent();
    lab.now = 60_000;
    lab.keeper.revoke(lease, lab.now);
    assertEquals(lab.sent(), []);
  });

  it("a request for the same waits for the deletion, and is sent then", () => {
    const lab = rig(), first = lab.held();
    lab.keeper.revoke(first, 0);
    const second = lab.map();
    assertEquals([lab.sent(), second.phase, lab.keeper.size], [["delete"], "waiting", 2]);
    lab.keeper.deleted(first, undefined, 0);
    assertEquals([lab.told(), lab.sent()], [["unmapped revoked"], ["#2 create 7200"]]);
    lab.grant(second);
    assertEquals(lab.told(), [`#2 mapped ${GRANTED} r0`]);
  });

  it("of the one that waits is over at once, and leaves the deletion alone", () => {
    const lab = rig(), first = lab.held();
    lab.keeper.revoke(first, 0);
    const second = lab.map();
    lab.keeper.revoke(second, 0);
    assertEquals(lab.told(), ["#2 unmapped revoked"]);
    assertEquals(lab.keeper.findLeaving(first.key), first);
    lab.keeper.deleted(first, undefined, 0);
    assertEquals([lab.told(), lab.sent()], [["unmapped revoked"], ["delete"]]);
  });
});

describe("unmap()", () => {
  it("deletes what need not be held, once", () => {
    const lab = rig();
    const lease = lab.keeper.unmap(wantedOf(), NONCE_TEXT, 0);
    assertEquals([lab.sent(), lease.nonce, lab.nextIn], [["delete"], NONCE_TEXT, undefined]);
    assertEquals(lab.keeper.unmap(wantedOf(), undefined, 0), lease);
    assertEquals(lab.sent(), []);
    lab.keeper.deleted(lease, NO_ANSWER, 0);
    assertEquals(lab.told(), ["unmapped revoked no answer"]);
  });

  it("deletes one that is held under its own id", () => {
    const lab = rig(), lease = lab.held();
    assertEquals(lab.keeper.unmap(wantedOf(), undefined, 0), lease);
    assertEquals(lab.sent(), ["delete"]);
  });
});

describe("abandon()", () => {
  it("forgets it: no packet, no event, nothing due", () => {
    const lab = rig(), lease = lab.held();
    lab.keeper.abandon(lease, 0);
    assertEquals([lab.sent(), lab.told(), lab.keeper.size, lab.nextIn], [[], [], 0, undefined]);
    assertEquals(lab.keeper.find(lease.key), undefined);
  });

  it("of a deletion lets the next one begin; of the next one leaves the deletion", () => {
    const lab = rig(), first = lab.held();
    lab.keeper.revoke(first, 0);
    lab.sent();
    const second = lab.map();
    lab.keeper.abandon(first, 0);
    assertEquals([lab.sent(), second.phase], [["#2 create 7200"], "asking"]);
    lab.keeper.revoke(second, 0);
    const third = lab.map();
    lab.keeper.abandon(third, 0);
    assertEquals(lab.keeper.findLeaving(first.key), second);
  });
});

describe("withdraw()", () => {
  it("asks no more; what is granted late is told, not renewed, and lasts to its end", () => {
    const lab = rig(), lease = lab.map();
    lab.keeper.withdraw(lease, lab.now);
    assertEquals([lease.phase, lease.request, lab.nextIn], ["resting", undefined, 7_200_000]);
    lab.now = 1000;
    lab.grant(lease);
    assertEquals(lab.told(), [`mapped ${GRANTED} r0`]);
    assertEquals(lab.nextIn, 7_200_000);
    lab.sent();
    lab.run(7_200_000);
    assertEquals([lab.told(), lab.sent(), lab.keeper.size], [["unmapped expired"], [], 0]);
  });

  it("is over when nothing can be granted any more, and at once where nothing could", () => {
    const lab = rig(), lease = lab.map();
    lab.keeper.withdraw(lease, lab.now);
    lab.run(7_199_999);
    assertEquals(lab.told(), []);
    lab.run(1);
    assertEquals(lab.told(), ["unmapped expired"]);
    const other = rig(), refused = other.map();
    other.fail(refused, refusal(HOUR));
    other.told();
    other.keeper.withdraw(refused, other.now);
    assertEquals(other.told(), ["unmapped expired"]);
  });

  it("of one that is held lets it end", () => {
    const lab = rig(), lease = lab.held();
    lab.keeper.withdraw(lease, lab.now);
    lab.run(7_200_000);
    assertEquals([lab.sent(), lab.told()], [[], ["unmapped expired"]]);
  });

  it("of one that is being renewed lets it end in peace, too", () => {
    const lab = rig(), lease = lab.held();
    lab.run(HOUR);
    lab.keeper.withdraw(lease, lab.now);
    lab.run(HOUR);
    assertEquals([lab.told(), lab.keeper.size], [["unmapped expired"], 0]);
  });

  it("asks no more though what was wanted has changed meanwhile", () => {
    const lab = rig(), lease = lab.map();
    lab.keeper.renew(lease, 60, 0);
    lab.keeper.withdraw(lease, lab.now);
    lab.sent();
    lab.grant(lease);
    lab.run(7_200_000);
    assertEquals(lab.sent(), []);
    assertEquals(lab.told(), ["unmapped expired"]);
  });

  it("does not stop a deletion", () => {
    const lab = rig(), lease = lab.held();
    lab.keeper.revoke(lease, 0);
    lab.keeper.withdraw(lease, lab.now);
    assertEquals([lease.phase, lease.request], ["deleting", "delete"]);
  });

  it("is not undone by what the gateway or the network does", () => {
    for (const isGranted of [false, true]) {
      const lab = rig(), lease = isGranted ? lab.held() : lab.map();
      lab.keeper.withdraw(lease, lab.now);
      lab.sent();
      lab.keeper.gatewayRestarted(undefined, 0);
      lab.keeper.epochAnnounced(0, 2000);
      lab.keeper.gatewayAnswers(undefined, 0);
      lab.run(HOUR);
      assertEquals([lab.sent(), lab.told()], [[], []]);
      lab.keeper.hostMoved(lab.now);
      assertEquals([lab.sent(), lab.told()], [[], ["unmapped expired"]]);
    }
  });
});

describe("a gateway that lost its table", () => {
  it("is asked within 5 s for all but the one whose answer told it, each at a time of its own", () => {
    const lab = rig();
    const leases = [1, 2, 3].map((internalPort) => lab.held({ internalPort }));
    lab.keeper.gatewayRestarted(leases[0], 0);
    assertEquals(leases.map(({ phase }) => phase), ["granted", "recovering", "recovering"]);
    const [a, b] = leases.slice(1).map(({ dueAt }) => dueAt!);
    assert(a !== b && a! >= 0 && a! <= 5000 && b! >= 0 && b! <= 5000);
    lab.run(5000);
    assertEquals(lab.sent().sort(), ["#2 recreate 7200", "#3 recreate 7200"]);
  });

  it("is asked for all at one time where the protocol has them leave together", () => {
    const lab = rig({ recreation: "together" });
    const leases = [1, 2, 3].map((internalPort) => lab.held({ internalPort }));
    lab.keeper.gatewayRestarted(undefined, 0);
    assertEquals(new Set(leases.map(({ dueAt }) => dueAt)).size, 1);
    const at = leases[0]!.dueAt!;
    assert(at > 0 && at <= 5000);
  });

  it("spreads over the whole 5 s", () => {
    const times = Array.from({ length: 200 }, (_, seed) => {
      const lab = rig({ seed }), lease = lab.held();
      lab.keeper.gatewayRestarted(undefined, 0);
      return lease.dueAt!;
    });
    assert(Math.min(...times) < 250 && Math.max(...times) > 4750);
    assert(Math.max(...times) <= 5000);
  });

  it("and grants again is told as renewed; the mapping is held until then", () => {
    const lab = rig(), lease = lab.held();
    lab.keeper.gatewayRestarted(undefined, 0);
    assertEquals([lease.isGranted, lease.isStale], [true, true]);
    lab.run(5000);
    lab.grant(lease);
    assertEquals([lab.told(), lease.isStale], [[`renewed ${GRANTED} r0`], false]);
  });

  it("and refuses has lost it", () => {
    const lab = rig(), lease = lab.held();
    lab.keeper.gatewayRestarted(undefined, 0);
    lab.run(5000);
    lab.fail(lease, refusal(lab.now + 9000));
    assertEquals(lab.told(), ["lost NO_RESOURCES in 9000"]);
    assertEquals(lab.nextIn, 9000);
  });

  it("and says so with a refusal has lost what that answers, too", () => {
    const lab = rig(), lease = lab.held();
    lab.run(HOUR);
    lab.keeper.gatewayRestarted(lease, lab.now);
    assertEquals(lease.phase, "renewing");
    lab.fail(lease, refusal(lab.now + 9000));
    assertEquals(lab.told(), ["lost NO_RESOURCES in 9000"]);
  });

  it("and is silent has lost it, which is asked for again soon", () => {
    const lab = rig(), lease = lab.held();
    lab.keeper.gatewayRestarted(undefined, 0);
    lab.run(5000);
    lab.fail(lease);
    assertEquals(lab.told(), ["lost no answer in 3000"]);
  });

  it("loses it at the end of its time while the request is on its way, which goes on", () => {
    const lab = rig(), lease = lab.held({ lifetimeSeconds: 600 });
    lab.now = 590_000;
    lab.keeper.gatewayRestarted(undefined, lab.now);
    lab.run(10_000);
    assertEquals([lab.sent(), lab.told()], [["recreate 600"], ["lost expired"]]);
    assertEquals([lease.phase, lease.request], ["asking", "recreate"]);
    lab.grant(lease);
    assertEquals(lab.told(), [`recovered ${GRANTED} r0`]);
  });

  it("is asked whatever it refused before", () => {
    const lab = rig(), refused = lab.map(), held = lab.held({ internalPort: 9 });
    lab.fail(refused, refusal(HOUR));
    lab.fail(held, refusal(HOUR));
    lab.sent();
    lab.keeper.gatewayRestarted(undefined, 0);
    lab.run(5000);
    assertEquals(lab.sent().sort(), ["#2 recreate 7200", "recreate 7200"]);
  });

  it("leaves what is on its way, and what is not asked for yet", () => {
    const lab = rig(), asking = lab.map();
    const adopted = lab.adopt({ internalPort: 9 });
    lab.keeper.gatewayRestarted(undefined, 0);
    assertEquals([asking.phase, asking.isStale, adopted.phase], ["asking", false, "waiting"]);
    assertEquals(lab.sent(), ["create 7200"]);
  });

  it("is not asked within 4 s of a renewal", () => {
    const times = Array.from({ length: 50 }, (_, seed) => {
      const lab = rig({ seed }), lease = lab.held();
      lab.keeper.renew(lease, undefined, 0);
      lab.keeper.gatewayRestarted(undefined, 0);
      return lease.dueAt!;
    });
    assertEquals(Math.min(...times), 4000);
  });
});

describe("a table that began after the grant", () => {
  it("does not hold it: it is asked for; what was granted since is left", () => {
    const lab = rig(), old = lab.held();
    lab.now = 10_000;
    const young = lab.held({ internalPort: 9 });
    const asking = lab.map({ internalPort: 10 });
    lab.keeper.epochAnnounced(9, 20_000);
    assertEquals([old, young, asking].map(({ phase }) => phase), [
      "recovering",
      "granted",
      "asking",
    ]);
    assertEquals([old.isStale, young.isStale], [true, false]);
  });
});

describe("a gateway that answers", () => {
  it("is asked within 5 s for what silence had put off, and not for what it refused", () => {
    const lab = rig();
    const [silent, refused, except] = [1, 2, 3].map((internalPort) => lab.map({ internalPort }));
    for (let i = 0; i < 4; i++) {
      lab.fail(silent!);
      lab.fail(except!);
      lab.run(24_000);
    }
    lab.fail(silent!);
    lab.fail(except!);
    lab.fail(refused!, refusal(lab.now + HOUR));
    const held = lab.held({ internalPort: 4 });
    lab.sent();
    lab.keeper.gatewayAnswers(except, lab.now);
    assertEquals([silent, refused, except, held].map((one) => one!.phase), [
      "recovering",
      "resting",
      "resting",
      "granted",
    ]);
    lab.run(5000);
    assertEquals(lab.sent(), ["recreate 7200"]);
  });

  it("hastens one request", () => {
    const lab = rig(), lease = lab.map();
    lab.sent();
    lab.keeper.hasten(lease, 0);
    assertEquals([lease.phase, lease.request], ["recovering", undefined]);
    lab.run(5000);
    assertEquals(lab.sent(), ["recreate 7200"]);
  });
});

describe("a host that moved", () => {
  it("asks for all at once from there, whatever was refused", () => {
    const lab = rig(), held = lab.held(), refused = lab.map({ internalPort: 9 });
    lab.fail(refused, refusal(HOUR));
    lab.adopt({ internalPort: 10 });
    lab.sent();
    lab.told();
    lab.keeper.hostMoved(0);
    assertEquals(lab.sent(), ["create 7200", "#2 create 7200", "#3 create 7200"]);
    assertEquals([held.isGranted, held.isStale, refused.failure], [true, true, undefined]);
    lab.grant(held, 7200, { address: "203.0.113.7", port: 9 });
    assertEquals(lab.told(), ["moved 203.0.113.7:9 r0"]);
  });

  it("has lost what is refused there", () => {
    const lab = rig(), lease = lab.held();
    lab.keeper.hostMoved(0);
    lab.fail(lease, refusal(9000));
    assertEquals(lab.told(), ["lost NO_RESOURCES in 9000"]);
  });

  it("cannot delete what the old address had: that ends with its lifetime", () => {
    const lab = rig(), leaving = lab.held();
    lab.keeper.revoke(leaving, 0);
    lab.sent();
    lab.keeper.hostMoved(0);
    assertEquals([lab.told(), lab.sent(), lab.keeper.size], [["unmapped revoked"], [], 0]);
  });

  it("deletes from there only what was asked from there", () => {
    const lab = rig(), lease = lab.held();
    lab.keeper.hostMoved(0);
    assertEquals(lease.mayExistUntil, 7_200_000);
    lab.fail(lease, refusal(9000));
    lab.sent();
    lab.keeper.revoke(lease, 0);
    assertEquals(lab.sent(), ["delete"]);
  });
});

describe("another external address", () => {
  it("is told of all that are held, once", () => {
    const lab = rig(), lease = lab.held();
    lab.map({ internalPort: 9 });
    lab.keeper.externalAddressChanged("203.0.113.8");
    lab.keeper.externalAddressChanged("203.0.113.8");
    assertEquals(lab.told(), ["moved 203.0.113.8:8080 r0"]);
    assertEquals(lease.remembered, { address: "203.0.113.8", port: 8080 });
    lab.grant(lease, 600, { address: "203.0.113.8", port: 8080 });
    assertEquals(lab.told(), ["renewed 203.0.113.8:8080 r0"]);
  });

  it("is no move where none was known, neither then nor with the next grant", () => {
    const lab = rig(), lease = lab.map();
    lab.grant(lease, 7200, { address: "", port: 8080 });
    lab.told();
    lab.keeper.externalAddressChanged("203.0.113.7");
    assertEquals(lab.told(), []);
    assertEquals(lease.grant?.external, EXTERNAL);
    lab.grant(lease, 600);
    assertEquals(lab.told(), [`renewed ${GRANTED} r0`]);
  });

  it("with the next grant is no move where none was known before", () => {
    const lab = rig(), lease = lab.map();
    lab.grant(lease, 7200, { address: "", port: 8080 });
    lab.told();
    lab.grant(lease, 600);
    assertEquals(lab.told(), [`renewed ${GRANTED} r0`]);
  });

  it("waits for the gateway's word where its table is another one, or holds it no more", () => {
    const lab = rig(), stale = lab.held(), gone = lab.held({ internalPort: 9 });
    lab.keeper.gone(gone, EXPIRED, HOUR, 0);
    lab.keeper.gatewayRestarted(undefined, 0);
    lab.told();
    lab.keeper.externalAddressChanged("203.0.113.8");
    assertEquals(lab.told(), []);
    assertEquals(stale.grant?.external, EXTERNAL);
  });

  for (const address of ["203.0.113.7", ""]) {
    it(`is not told of a claimed one before its first grant, known as "${address}" or not`, () => {
      const lab = rig(), lease = claimable(lab);
      lab.grant(lease, 7200, { address, port: 8080 });
      lab.map({ description: "other" });
      lab.told();
      lab.keeper.externalAddressChanged("203.0.113.8");
      assertEquals(lab.told(), []);
      lab.grant(lease, 7200, { address: "203.0.113.8", port: 8080 });
      assertEquals(lab.told(), ["mapped 203.0.113.8:8080 r1"]);
    });
  }
});

function claimable(lab: KeeperRig, request: Parameters<KeeperRig["adopt"]>[0] = {}) {
  const lease = lab.adopt(request);
  lab.run(0);
  lab.sent();
  return lease;
}

describe("an adopted mapping", () => {
  it("is asked for at the next timeout, with what it had", () => {
    const lab = rig(), lease = lab.adopt({ nonce: NONCE });
    assertEquals([lab.sent(), lab.nextIn, lease.phase], [[], 0, "waiting"]);
    assertEquals([lease.remembered, lease.nonce], [EXTERNAL, NONCE_TEXT]);
    lab.run(0);
    assertEquals(lab.sent(), ["create 7200"]);
    lab.grant(lease);
    assertEquals(lab.told(), [`mapped ${GRANTED} r0`]);
  });

  it("is deleted though this run was never granted it, and refused", () => {
    const lab = rig(), lease = lab.adopt();
    lab.run(0);
    lab.fail(lease, refusal(9000));
    lab.sent();
    lab.keeper.revoke(lease, 0);
    assertEquals(lab.sent(), ["delete"]);
  });

  it("is claimed before it is asked for: asked at once, as wanted", () => {
    const lab = rig(), lease = lab.adopt();
    assertEquals(lab.map({ lifetimeSeconds: 600, description: "web" }), lease);
    assertEquals(lab.sent(), ["create 600"]);
    assertEquals([lease.wanted.description, lease.remembered], ["web", EXTERNAL]);
    assertThrows(() => lab.map(), TypeError, "mapped already");
  });

  it("that is held as it is wanted is told as mapped at once", () => {
    const lab = rig(), lease = claimable(lab);
    lab.grant(lease);
    lab.told();
    lab.run(60_000);
    assertEquals(lab.map(), lease);
    assertEquals([lab.told(), lab.sent()], [[`mapped ${GRANTED} r1`], []]);
    assertEquals(lab.nextIn, HOUR - 60_000);
    lab.run(HOUR - 60_000);
    lab.grant(lease);
    lab.run(4000);
    assertEquals([lab.told(), lab.sent()], [[`renewed ${GRANTED} r1`], ["renew 7200"]]);
  });

  it("that is claimed while it is renewed, or made anew, has that go on as it was", () => {
    const lab = rig(), lease = claimable(lab);
    lab.grant(lease);
    lab.run(HOUR);
    lab.map();
    lab.sent();
    assertEquals([lease.phase, lab.nextIn], ["renewing", HOUR / 2]);
    const other = rig(), lost = claimable(other);
    other.grant(lost);
    other.keeper.gatewayRestarted(undefined, 0);
    const at = other.nextIn!;
    other.map();
    assertEquals([lost.phase, other.nextIn], ["recovering", at]);
  });

  it("for a time counts the lifetime under way as the first", () => {
    const lab = rig();
    lab.now = 50_000;
    const lease = claimable(lab);
    lab.grant(lease, 600);
    lab.run(200_000);
    lab.map({ lifetimeSeconds: 600, mode: "once" });
    lab.told();
    assertEquals(lease.wantedUntil, 650_000);
    lab.run(400_000);
    assertEquals([lab.sent(), lab.told()], [[], ["unmapped expired"]]);
  });

  for (
    const [what, before, after] of [
      ["a filter", {}, { filters: [{ prefix: prefix("192.0.2.1", 32), port: 0 }] }],
      ["no filter", { filters: [{ prefix: prefix("192.0.2.1", 32), port: 0 }] }, {}],
      ["a description", {}, { description: "web" }],
      [
        "PREFER_FAILURE",
        {},
        { preferFailure: true, suggestedExternal: { port: 8080 } },
      ],
    ] as const
  ) {
    it(`held otherwise than with ${what} is asked for so, and its answer told as mapped`, () => {
      const lab = rig(), lease = claimable(lab, before);
      lab.grant(lease);
      lab.told();
      assertEquals(lab.map(after), lease);
      assertEquals([lab.sent(), lab.told()], [["renew 7200"], []]);
      lab.grant(lease);
      assertEquals(lab.told(), [`mapped ${GRANTED} r1`]);
    });

    it(`asked for otherwise than with ${what} is asked for so at once`, () => {
      const lab = rig(), lease = claimable(lab, before);
      lab.map(after);
      assertEquals(lab.sent(), ["create 7200"]);
      lab.grant(lease);
      assertEquals([lab.told(), lab.sent()], [[`mapped ${GRANTED} r1`], []]);
    });
  }

  it("asked for as it is wanted is not asked for twice", () => {
    const lab = rig();
    claimable(lab);
    lab.map();
    assertEquals(lab.sent(), []);
  });

  it("is not another set of ports, nor one with another nonce", () => {
    const set = { portSet: { size: 4 }, nonce: NONCE } as const;
    for (
      const other of [
        {},
        { portSet: { size: 5 } },
        { portSet: { size: 4, parity: true } },
        { portSet: { size: 4 }, nonce: new Uint8Array(12) },
      ]
    ) {
      const lab = rig();
      lab.adopt(set);
      assertThrows(() => lab.map(other), TypeError, "mapped already");
    }
    const lab = rig(), lease = lab.adopt(set);
    assertEquals(lab.map({ portSet: { size: 4 }, nonce: new Uint8Array(12).fill(7) }), lease);
  });

  it("without a nonce is not one with a nonce", () => {
    const lab = rig();
    lab.adopt();
    assertThrows(() => lab.map({ nonce: NONCE }), TypeError, "mapped already");
  });

  it("with filters may have left them at the gateway", () => {
    const filters = [{ prefix: prefix("192.0.2.1", 32), port: 0 }];
    const lab = rig();
    assertEquals(lab.adopt({ filters }).mayHaveFilters, true);
    assertEquals(lab.adopt({ internalPort: 9 }).mayHaveFilters, false);
    assertEquals(lab.adopt({ internalPort: 10, filters: [] }).mayHaveFilters, true);
  });
});

function prefix(address: string, prefixLength: number) {
  return { family: 4, address, prefixLength } as const;
}

describe("the state that applications see", () => {
  it("follows the phase", () => {
    const lab = rig(), lease = lab.map();
    assertEquals([lease.state(0), lease.state(1)], ["requested", "starting"]);
    lab.fail(lease);
    assertEquals(lease.state(0), "error");
    lab.run(3000);
    assertEquals([lease.state(0), lease.state(1)], ["error", "starting"]);
    lab.grant(lease);
    assertEquals(lease.state(0), "running");
    lab.keeper.renew(lease, undefined, lab.now);
    assertEquals(lease.state(1), "updating");
    lab.keeper.gatewayRestarted(undefined, lab.now);
    assertEquals(lease.state(0), "running");
    lab.run(5000);
    assertEquals(lease.state(1), "updating");
    lab.keeper.revoke(lease, lab.now);
    assertEquals(lease.state(1), "revoked");
    assertEquals(lab.adopt({ internalPort: 9 }).state(0), "requested");
  });
});
