import { describe, it } from "node:test";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { decodePacket, lineOf } from "../../scripts/playground/decode.ts";
import { Home, pace } from "../../scripts/playground/home.ts";
import {
  formatScenario,
  isDeed,
  MAX_DEEDS,
  parseScenario,
  type Scenario,
  STORIES,
} from "../../scripts/playground/scenario.ts";

function read(link: string): Scenario {
  const scenario = parseScenario(link);
  if (typeof scenario === "string") throw new TypeError(scenario);
  return scenario;
}

function run(link: string, until: number): Home {
  const home = new Home(read(link));
  home.advanceTo(until);
  return home;
}

/** The mappings that were asked for. */
const asked = (home: Home) => home.table().filter(({ by }) => by !== "traffic");
const told = (home: Home) => home.tellings.map(({ who, text }) => `${who ?? "deed"}: ${text}`);
const packets = (home: Home) => JSON.stringify(home.sightings);

describe("a link of the playground", () => {
  it("holds seed and deeds, and gives them back", () => {
    const link = "seed=42&do=0.speaks-upnp,7.home-random,7.loss-30,1200.map-laptop,86400000.reboot";

    assertEquals(formatScenario(read(link)), link);
    assertEquals(read(""), { seed: 1, deeds: [] });
    assertEquals(formatScenario(read("seed=9")), "seed=9");
  });

  for (
    const [what, link] of [
      ["a seed of 0", "seed=0"],
      ["a seed that is none", "seed=1e3"],
      ["an unknown deed", "do=1.explode"],
      ["an unknown kind of NAT", "do=1.home-constructor"],
      ["an unknown loss", "do=1.loss-99"],
      ["a deed without its time", "do=reboot"],
      ["a deed after the day", "do=86400001.reboot"],
      ["deeds out of order", "do=5.reboot,4.reboot"],
      ["too many deeds", `do=${Array(MAX_DEEDS + 1).fill("1.knock").join(",")}`],
    ] as const
  ) {
    it(`is refused with ${what}`, () => assertEquals(typeof parseScenario(link), "string"));
  }

  it("names each deed that there is", () => {
    assert(["knock", "away-steps", "speaks-none", "loss-0"].every(isDeed));
    assert(!["", "home", "home-", "loss-", "speaks-toString"].some(isDeed));
  });
});

describe("the playground's network", () => {
  it("lets nobody in before a port is mapped, and those who knock after", () => {
    const home = run("do=200.knock,1000.map-laptop,2000.knock", 900);

    assertEquals(home.sightings.at(-1)?.verdict, "blocked");
    assertEquals([asked(home).length, home.port("laptop").state], [0, "closed"]);

    home.advanceTo(3000);
    assertEquals(asked(home).map(({ external, internal, by }) => [external, internal, by]), [
      ["203.0.113.7:27015", "192.168.1.20:27015", "PCP"],
    ]);
    assertEquals(home.port("laptop").external, "203.0.113.7:27015");
    assertEquals(told(home).slice(-2), [
      "laptop: 198.51.100.1:40000 got in",
      "server: 203.0.113.7:27015 answers",
    ]);
  });

  it("loses its table in a reboot, which the client notices by the epoch", () => {
    const home = run("do=200.map-laptop,2000.reboot", 2010);

    assertEquals(asked(home), []);
    assert(home.epochSeconds < 1);

    // RFC 6887 §8.5, RFC 6886 §3.7: within 5 s, and what the answer takes.
    home.advanceTo(7100);
    assertEquals(asked(home).map(({ external }) => external), ["203.0.113.7:27015"]);
    assertEquals(told(home).at(-1), "laptop: Granted again, for 2 hours");
  });

  it("loses what packets had opened, too", () => {
    const home = run("do=10.punch,2000.hang-up,2000.reboot", 1999);
    assert(home.flows("home").length > 0);

    home.advanceTo(2000);
    assertEquals(home.flows("home"), []);
  });

  it("moves mappings to a new address", () => {
    const home = run("do=200.map-laptop,2000.address", 8000);

    assertEquals(home.externalAddress, "203.0.113.8");
    assertEquals(home.port("laptop").external, "203.0.113.8:27015");
  });

  it("gives a second host another port, and both back", () => {
    const home = run("do=0.map-laptop,100.map-desktop,5000.unmap-laptop,5000.unmap-desktop", 4000);

    const ports = asked(home).map(({ external }) => external);
    assertEquals([ports.length, new Set(ports).size], [2, 2]);
    assertEquals(home.port("desktop").external, ports[1]);

    home.advanceTo(9000);
    assertEquals(asked(home), []);
    assertEquals([home.port("laptop").state, home.port("desktop").state], ["closed", "closed"]);
  });

  for (
    const [speaks, via] of [["pcp", "PCP"], ["pmp", "NAT-PMP"], ["upnp", "UPnP"]] as const
  ) {
    it(`opens a port by ${via} where the gateway speaks nothing else`, () => {
      const home = run(`do=0.speaks-${speaks},3000.map-laptop`, 9000);

      assertEquals(asked(home).map(({ by }) => by), [via]);
      assertEquals(home.port("laptop").via, via);
    });
  }

  it("tells that there is no port where the gateway speaks nothing", () => {
    const home = run("do=0.speaks-none,100.map-laptop", 60_000);

    assertEquals([home.port("laptop").state, asked(home)], ["failed", []]);
  });

  for (const [home, away] of [["home", "home"], ["steps", "steps"], ["random", "open"]] as const) {
    it(`lets the laptop and the friend meet behind "${home}" and "${away}"`, () => {
      const { punch } = run(`do=0.home-${home},0.away-${away},10.punch`, 45_000);

      assertEquals(punch.state, "connected");
      assertMatch(punch.ends!.join(" "), /^203\.0\.113\.7:\d+ 192\.0\.2\.44:\d+$/);
    });
  }

  it("says why they do not meet behind two NATs with random ports", () => {
    const { punch } = run("do=0.home-random,0.away-random,10.punch", 60_000);

    assertEquals([punch.state, typeof punch.reason], ["failed", "string"]);
  });

  it("ends a meeting when they hang up", () => {
    const home = run("do=10.punch,2000.hang-up", 3000);
    const { length } = home.sightings;

    home.advanceTo(60_000);
    assertEquals([home.punch.state, home.sightings.length], ["none", length]);
  });

  it("gets through loss, and shows what was lost", () => {
    const home = run("seed=3&do=0.loss-60,10.map-laptop", 120_000);

    assert(
      home.sightings.some(({ verdict, arrivesAt, at }) => verdict === "lost" && arrivesAt > at),
    );
    assertEquals(home.port("laptop").state, "open");
  });
});

describe("the playground's time", () => {
  const LINK = "seed=5&do=0.loss-10,10.map-laptop,333.punch,2500.reboot,9000.knock";

  it("brings the same packets however it is cut", () => {
    const whole = packets(run(LINK, 20_000));

    const pieces = new Home(read(LINK));
    for (let at = 0; at < 20_000; at += 17.3) pieces.advanceTo(at);
    pieces.advanceTo(20_000);
    assertEquals(packets(pieces), whole);

    const steps = new Home(read(LINK));
    while ((steps.nextAt() ?? Infinity) <= 20_000) steps.step();
    assertEquals(packets(steps), whole);
  });

  it("brings others with another seed", () => {
    assert(packets(run(LINK, 5000)) !== packets(run(LINK.replace("5", "6"), 5000)));
  });

  it("records what is done by hand, so that the link brings the same again", () => {
    const first = new Home(read("seed=8&do=99.map-laptop,5000.reboot"));
    first.advanceTo(420.7);
    first.do("punch");
    first.advanceTo(1000.2);
    first.step();
    first.do("knock");
    first.advanceTo(30_000);

    const link = formatScenario(first.scenario);
    assertMatch(link, /^seed=8&do=99\.map-laptop,421\.punch,\d+\.knock$/);
    assertEquals(packets(run(link, 30_000)), packets(first));
  });

  it("does no more than a link can hold", () => {
    const home = new Home(read(""));
    const done = Array.from({ length: MAX_DEEDS + 1 }, () => home.do("knock"));

    assertEquals(done.indexOf(false), MAX_DEEDS);
    assertEquals(read(formatScenario(home.scenario)).deeds.length, MAX_DEEDS);
  });

  it("steps to where a packet leaves or arrives, or a deed is done", () => {
    const home = new Home(read("do=200.map-laptop"));
    const times: number[] = [];
    for (let i = 0; i < 4; i++) {
      home.step();
      times.push(home.now);
    }

    // The deed with what it sends, two arrivals with what they bring, two more.
    assertEquals([times[0], times[1], times.at(-1)], [200, 204, 208]);
  });

  it("stands where nothing is to come", () => {
    const home = new Home(read(""));

    assertEquals([home.step(), home.nextAt(), home.now], [false, undefined, 0]);
  });

  it("goes as fast as it is told, and faster through short quiet times", () => {
    assertEquals(pace(16, 1 / 50, undefined), 0.32);
    assertEquals(pace(16, 1 / 50, 3_600_000), 0.32);
    assert(pace(16, 1 / 50, 5000) > 100);
    assert(pace(16, 1 / 50, 5000) <= 5000);
    assertEquals(pace(100, 3600, 5000), 360_000);
  });
});

describe("a packet of the playground", () => {
  for (const { name, link } of STORIES) {
    it(`can be opened in the story "${name}"`, () => {
      const home = run(link, 60_000);

      assert(home.sightings.length > 8);
      for (const { packet } of home.sightings) {
        const { short, title } = decodePacket(packet);
        assert(short !== "broken" && short.length <= 12 && title !== "", `${short}: ${title}`);
      }
    });
  }

  it("shows what a MAP request and its answer hold", () => {
    const { sightings } = run("do=0.speaks-pcp,100.map-laptop", 2000);
    const opened = sightings.map(({ packet }) => decodePacket(packet))
      .filter(({ title }) => title.startsWith("MAP "));

    assertEquals(opened.map(({ short }) => short), ["map?", "map ✓"]);
    const [request, response] = opened.map(({ fields }) => Object.fromEntries(fields));
    assertEquals(request!["internal port"], "27015");
    assertEquals(request!["client address"], "192.168.1.20");
    assertEquals(response!["external address"], "203.0.113.7");
    assertEquals(response!["lifetime"], "7200 s");
    assertEquals(response!["epoch"], "86400 s");
    assertMatch(request!["nonce"]!, /^[0-9a-f]{24}$/);
    assertEquals(response!["nonce"], request!["nonce"]);
    assertMatch(
      sightings.map(({ packet }) => lineOf(packet)).join("\n"),
      /^pcp map\? udp 27015→.*\n(.*\n)*pcp map udp 27015→203\.0\.113\.7:27015 7200 s SUCCESS/,
    );
  });

  it("shows STUN's attributes, SSDP's fields and SOAP's text", () => {
    const all = [
      run("do=10.punch", 3000),
      run("do=0.speaks-upnp,3000.map-laptop", 9000),
    ].flatMap(({ sightings }) => sightings.map(({ packet }) => decodePacket(packet)));
    const field = (title: RegExp, name: string) =>
      all.find((one) => title.test(one.title))?.fields.find(([key]) => key === name)?.[1];

    assertMatch(
      field(/^Binding success$/, "xor mapped address")!,
      /^(203\.0\.113\.7|192\.0\.2\.44):/,
    );
    assertEquals(field(/^Connectivity check/, "message integrity"), "HMAC-SHA1");
    assertMatch(field(/^M-SEARCH$/, "target")!, /InternetGatewayDevice|rootdevice|WANIP/);
    const map = all.find(({ title }) => /^Add(Any)?PortMapping/.test(title));
    assert(all.some(({ title }) => title === `${map!.title.split(" ")[0]}Response (SOAP)`));
    assertMatch(map!.text!, /<NewInternalPort>27015<\/NewInternalPort>/);
  });
});
