/// <reference lib="dom" />
/// <reference lib="dom.iterable" />
/**
 * The playground's page: shows a `Home`, hands it what is clicked, and lets its time pass with the
 * screen's. All that happens, happens there; what is here is drawn from it and kept nowhere else.
 *
 * @module
 */
import {
  decodePacket,
  type Field,
  headerFields,
  lineOf,
  type Speech,
  SPEECH_NAMES,
} from "./decode.ts";
import {
  type ClientName,
  Home,
  type NodeName,
  pace,
  type PortView,
  type PunchView,
  type SegmentName,
  type Sighting,
  type TableRow,
} from "./home.ts";
import {
  type Deed,
  formatScenario,
  LOSSES,
  NAT_KINDS,
  parseScenario,
  type Scenario,
  SPEAKS,
  STORIES,
} from "./scenario.ts";

interface Point {
  readonly x: number;
  readonly y: number;
}

/** Where things are on the stage. */
interface Layout {
  readonly width: number;
  readonly height: number;
  readonly box: number;
  readonly nodes: Readonly<Record<NodeName, Point>>;
  readonly buses: Readonly<
    Record<SegmentName, { readonly y: number; readonly from: number; readonly to: number }>
  >;
}

const BOX_HEIGHT = 60;
const WIDE: Layout = {
  width: 720,
  height: 452,
  box: 150,
  nodes: {
    server: { x: 376, y: 36 },
    gateway: { x: 196, y: 206 },
    nat: { x: 570, y: 206 },
    laptop: { x: 96, y: 410 },
    desktop: { x: 296, y: 410 },
    friend: { x: 570, y: 410 },
  },
  buses: {
    internet: { y: 118, from: 130, to: 636 },
    home: { y: 312, from: 30, to: 362 },
    away: { y: 312, from: 520, to: 620 },
  },
};
const NARROW: Layout = {
  width: 360,
  height: 404,
  box: 110,
  nodes: {
    server: { x: 202, y: 38 },
    gateway: { x: 118, y: 186 },
    nat: { x: 299, y: 186 },
    laptop: { x: 60, y: 356 },
    desktop: { x: 178, y: 356 },
    friend: { x: 299, y: 356 },
  },
  buses: {
    internet: { y: 110, from: 92, to: 325 },
    home: { y: 276, from: 40, to: 198 },
    away: { y: 276, from: 280, to: 318 },
  },
};
const NARROW_BELOW_PX = 560;

const NODES: Readonly<Record<NodeName, { readonly name: string; readonly icon: string }>> = {
  laptop: { name: "laptop", icon: "M3 3h12v8H3zM1 14h16" },
  desktop: { name: "desktop", icon: "M2 2h14v9H2zM9 11v4M5 15h8" },
  friend: { name: "friend", icon: "M3 3h12v8H3zM1 14h16" },
  gateway: { name: "gateway", icon: "M2 9h14v5H2zM5 11.5h1M8 11.5h1M13 9V3M10.5 4.5 13 2l2.5 2.5" },
  nat: { name: "2nd NAT", icon: "M2 9h14v5H2zM5 11.5h1M8 11.5h1M13 9V3M10.5 4.5 13 2l2.5 2.5" },
  server: { name: "server", icon: "M3 2h12v5H3zM3 9h12v5H3zM6 4.5h1M6 11.5h1" },
};

/** Speeds: milliseconds of virtual time in one of real time. */
const SPEEDS: readonly (readonly [name: string, speed: number])[] = [
  ["1 : 200", 1 / 200],
  ["1 : 50", 1 / 50],
  ["1 : 10", 1 / 10],
  ["real time", 1],
  ["a minute a second", 60],
  ["an hour a second", 3600],
];
const USUAL_SPEED = 1;
/** A frame that took longer than this did not: the page slept. */
const LONGEST_FRAME_MS = 100;
/** A packet takes at least so long over the screen. */
const LEAST_FLIGHT_MS = 160;
/** Without motion, it stands there for so long at least. */
const LEAST_STAY_MS = 600;
/** What ended at a host is marked there for so long. */
const MARK_MS = 1100;
const MAX_PILLS = 40;
/** The most of them where time runs faster than the screen's: a sample. */
const MAX_HURRIED_PILLS = 5;
const MAX_ROWS = 150;
const MAX_TOLD = 60;
const SVG = "http://www.w3.org/2000/svg";

const motion = matchMedia("(prefers-reduced-motion: reduce)");

function at<T extends Element = HTMLElement>(id: string): T {
  return document.getElementById(id) as unknown as T;
}

/** Makes an element; texts are texts, whatever is in them. */
function make(name: string, className = "", ...content: (Node | string)[]): HTMLElement {
  const made = document.createElement(name);
  if (className !== "") made.className = className;
  made.append(...content);
  return made;
}

function draw(name: string, attributes: Record<string, string | number>): SVGElement {
  const drawn = document.createElementNS(SVG, name) as SVGElement;
  for (const [key, value] of Object.entries(attributes)) drawn.setAttribute(key, `${value}`);
  return drawn;
}

function write(name: string, className: string, x: number, y: number, text: string): SVGElement {
  const written = draw(name, { class: className, x, y });
  written.textContent = text;
  return written;
}

/** A time since the start: of a packet in milliseconds, of what comes hours later in seconds. */
function clock(ms: number): string {
  if (ms < 1_000_000) return `${(ms / 1000).toFixed(3)} s`;
  const all = Math.floor(ms / 1000);
  const two = (value: number) => `${value}`.padStart(2, "0");
  return `${Math.floor(all / 3600)}:${two(Math.floor(all / 60) % 60)}:${two(all % 60)}`;
}

/** A time to come, for people. */
function duration(ms: number): string {
  if (ms === Infinity) return "never";
  if (ms < 10_000) return `${(Math.max(0, ms) / 1000).toFixed(1)} s`;
  const all = Math.max(0, Math.round(ms / 1000));
  const [h, min, s] = [Math.floor(all / 3600), Math.floor(all / 60) % 60, all % 60];
  if (h > 0) return `${h} h ${min} min`;
  return min === 0 ? `${s} s` : s === 0 ? `${min} min` : `${min} min ${s} s`;
}

/** The stage: hosts, wires, and what flies between them. */
class Stage {
  readonly #onChosen: (sighting: Sighting) => void;
  readonly #marks = new Map<SVGElement, number>();
  readonly #pills = new Map<number, Pill>();
  #layout: Layout = WIDE;
  #nodes = {} as Record<NodeName, { group: SVGElement; at: SVGElement; note: SVGElement }>;
  #air: SVGElement = draw("g", {});
  #lastId = 0;

  constructor(onChosen: (sighting: Sighting) => void) {
    this.#onChosen = onChosen;
  }

  /** Draws it anew where the page's width asks for that. */
  fit(): void {
    const place = at("stage");
    const layout = place.clientWidth < NARROW_BELOW_PX ? NARROW : WIDE;
    if (layout === this.#layout && place.firstChild) return;
    this.#layout = layout;
    const { width, height } = layout;
    const svg = draw("svg", {
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      class: layout === NARROW ? "narrow" : "",
    });
    svg.setAttribute(
      "aria-label",
      "Laptop and desktop at home behind the gateway, a friend behind a second NAT, a server on " +
        "the Internet between them. The packets are listed below.",
    );
    svg.append(...this.#wires());
    for (const name of Object.keys(NODES) as NodeName[]) svg.append(this.#node(name));
    this.#air = draw("g", {});
    svg.append(this.#air);
    // What flies goes on flying.
    for (const pill of this.#pills.values()) {
      pill.way = this.#way(pill.sighting);
      this.#air.append(pill.group);
    }
    place.replaceChildren(svg);
  }

  /** Says what is at a host. */
  label(name: NodeName, address: string, note: string, mood: string): void {
    const { group, at, note: line } = this.#nodes[name];
    at.textContent = address;
    line.textContent = note;
    group.setAttribute("class", `node ${mood}`);
  }

  /** Forgets what flies. */
  clear(): void {
    for (const { group } of this.#pills.values()) group.remove();
    for (const mark of this.#marks.keys()) mark.remove();
    this.#pills.clear();
    this.#marks.clear();
    this.#lastId = 0;
  }

  /** Whether nothing flies on the screen. */
  get isClear(): boolean {
    return this.#pills.size === 0;
  }

  /** Marks the packet whose fields are shown. */
  choose(id: number | undefined): void {
    for (const [own, { group }] of this.#pills) group.classList.toggle("chosen", own === id);
  }

  /** Draws what is in the air; true as long as something moves on the screen. */
  update(home: Home, realMs: number, most: number): boolean {
    for (const sighting of home.sightings) {
      if (sighting.id <= this.#lastId) continue;
      this.#lastId = sighting.id;
      if (sighting.segment === undefined) this.#mark(sighting);
      else if (this.#pills.size < most) this.#launch(sighting);
    }
    for (const [mark, left] of this.#marks) {
      if (left <= 0) mark.remove();
      if (left <= 0) this.#marks.delete(mark);
      else this.#marks.set(mark, left - realMs);
    }
    let moves = this.#marks.size > 0;
    for (const [id, pill] of this.#pills) {
      const { at: start, arrivesAt, verdict } = pill.sighting;
      const isLost = verdict === "lost" || verdict === "too-big";
      const goal = arrivesAt > start ? (home.now - start) / (arrivesAt - start) : 1;
      const aim = Math.min(goal, isLost ? 0.55 : 1);
      pill.shownMs += realMs;
      pill.gone = Math.min(aim, pill.gone + realMs / LEAST_FLIGHT_MS);
      const isThere = pill.gone >= (isLost ? 0.55 : 1) && goal >= (isLost ? 0.55 : 1);
      if (isThere && (!motion.matches || pill.shownMs > LEAST_STAY_MS)) {
        pill.group.remove();
        this.#pills.delete(id);
        if (isLost) this.#markAt(pointAt(pill.way, 0.55), `✗ ${verdict}`);
        moves = true;
        continue;
      }
      if (pill.gone < aim || (isThere && motion.matches)) moves = true;
      const { x, y } = pointAt(pill.way, motion.matches ? 0.5 : pill.gone);
      const left = Math.max(pill.half, Math.min(this.#layout.width - pill.half, x));
      pill.group.setAttribute("transform", `translate(${left} ${this.#clear(pill, y)})`);
    }
    return moves;
  }

  /** Beside its way, but not over the hosts at its ends. */
  #clear({ way, aside }: Pill, y: number): number {
    const bus = way[1]!.y, ends = [way[0]!.y, way.at(-1)!.y];
    const above = Math.max(...ends.filter((end) => end < bus));
    const below = Math.min(...ends.filter((end) => end > bus));
    return Math.max(above, Math.min(below, y + aside));
  }

  #launch(sighting: Sighting): void {
    const { speech, short } = decodePacket(sighting.packet);
    const half = Math.max(18, short.length * 3.3 + 8);
    const group = draw("g", { class: `packet speech-${speech}` });
    const box = draw("rect", { x: -half, y: -10, width: 2 * half, height: 20, rx: 10 });
    group.append(box, write("text", "", 0, 4, short));
    group.addEventListener("pointerdown", () => this.#onChosen(sighting));
    this.#air.append(group);
    const way = this.#way(sighting);
    const lane =
      [...this.#pills.values()].filter(({ sighting: other }) =>
        other.from === sighting.from && other.to === sighting.to &&
        Math.abs(other.at - sighting.at) < 2
      ).length;
    this.#pills.set(sighting.id, {
      sighting,
      group,
      half,
      aside: asideOf(way, lane % 4),
      way,
      gone: 0,
      shownMs: 0,
    });
  }

  #mark({ from, verdict }: Sighting): void {
    const { x, y } = this.#layout.nodes[from];
    this.#markAt({ x, y: y - BOX_HEIGHT / 2 - 6 }, `✗ ${verdict}`);
  }

  #markAt({ x, y }: Point, text: string): void {
    if (this.#marks.size >= MAX_PILLS) return;
    const mark = draw("g", { class: "ended" });
    mark.append(write("text", "", x, y, text));
    this.#air.append(mark);
    this.#marks.set(mark, MARK_MS);
  }

  #way({ from, to, segment }: Sighting): readonly Point[] {
    const { nodes, buses } = this.#layout;
    const { y } = buses[segment!];
    const a = nodes[from], b = nodes[to];
    const edge = (node: Point) => node.y + Math.sign(y - node.y) * (BOX_HEIGHT / 2 + 11);
    return [{ x: a.x, y: edge(a) }, { x: a.x, y }, { x: b.x, y }, { x: b.x, y: edge(b) }];
  }

  #wires(): SVGElement[] {
    const { nodes, buses, width } = this.#layout;
    const on: Readonly<Record<SegmentName, readonly NodeName[]>> = {
      internet: ["server", "gateway", "nat"],
      home: ["gateway", "laptop", "desktop"],
      away: ["nat", "friend"],
    };
    const names = { internet: "Internet, 20 ms", home: "home, 4 ms", away: "4 ms" };
    return (Object.keys(on) as SegmentName[]).flatMap((segment) => {
      const { y, from, to } = buses[segment];
      const isWide = width === WIDE.width;
      const name = segment === "away" && !isWide
        ? []
        : [write("text", "net", from + (isWide ? 4 : 0), y - 7, names[segment])];
      return [
        draw("path", { class: "wire bus", d: `M${from} ${y}H${to}` }),
        ...on[segment].map((node) =>
          draw("path", { class: "wire", d: `M${nodes[node].x} ${nodes[node].y}V${y}` })
        ),
        ...name,
      ];
    });
  }

  #node(name: NodeName): SVGElement {
    const { nodes, box } = this.#layout;
    const { x, y } = nodes[name];
    const group = draw("g", { class: "node", transform: `translate(${x - box / 2} ${y - 30})` });
    const icon = draw("path", { class: "icon", d: NODES[name].icon, transform: "translate(9 8)" });
    const address = write("text", "at", 10, 38, "");
    const note = write("text", "note", 10, 53, "");
    group.append(
      draw("rect", { width: box, height: BOX_HEIGHT, rx: 10 }),
      icon,
      write("text", "name", 33, 21, NODES[name].name),
      address,
      note,
    );
    this.#nodes[name] = { group, at: address, note };
    return group;
  }
}

/** A packet on the screen. */
interface Pill {
  readonly sighting: Sighting;
  readonly group: SVGElement;
  readonly half: number;
  /** How far below its way it flies. */
  readonly aside: number;
  way: readonly Point[];
  /** How much of its way it has come on the screen, 0…1. */
  gone: number;
  shownMs: number;
}

/** Who comes from the left flies above the wire and who comes from the right below it, in lanes. */
function asideOf(way: readonly Point[], lane: number): number {
  const from = way[0]!, to = way.at(-1)!;
  const isAbove = from.x === to.x ? from.y > to.y : from.x < to.x;
  return (isAbove ? -1 : 1) * (11 + 22 * lane);
}

function pointAt(way: readonly Point[], share: number): Point {
  const lengths = way.slice(1).map((point, i) =>
    Math.abs(point.x - way[i]!.x) + Math.abs(point.y - way[i]!.y)
  );
  let left = share * lengths.reduce((sum, length) => sum + length, 0);
  for (const [i, length] of lengths.entries()) {
    const from = way[i]!, to = way[i + 1]!;
    if (left <= length) {
      const part = length === 0 ? 0 : left / length;
      return { x: from.x + (to.x - from.x) * part, y: from.y + (to.y - from.y) * part };
    }
    left -= length;
  }
  return way.at(-1)!;
}

/** The page. */
class Page {
  #home: Home;
  readonly #stage = new Stage((sighting) => this.#choose(sighting));
  #isPlaying = true;
  #speed = SPEEDS[USUAL_SPEED]![1];
  #frameAt: number | undefined;
  #shownId = 0;
  #toldCount = 0;
  #lastTold: unknown;
  /** What each place shows, so that only what has changed is written. */
  readonly #shown = new Map<string, string>();

  constructor() {
    this.#home = new Home(this.#scenarioOfLink());
    this.#fill();
    this.#listen();
    this.#stage.fit();
    this.#begin(this.#home);
  }

  // What is clicked

  #fill(): void {
    const option = (value: string, text: string) => {
      const made = document.createElement("option");
      [made.value, made.textContent] = [value, text];
      return made;
    };
    at("speed").append(...SPEEDS.map(([name], i) => option(`${i}`, name)));
    at<HTMLSelectElement>("speed").value = `${USUAL_SPEED}`;
    at("speaks").append(...Object.entries(SPEAKS).map(([key, { label }]) => option(key, label)));
    at("loss").append(
      ...LOSSES.map((percent) =>
        option(percent, percent === "0" ? "nothing" : `${percent} % of packets`)
      ),
    );
    for (const id of ["home", "away"]) {
      at(id).append(...Object.entries(NAT_KINDS).map(([key, { label }]) => option(key, label)));
    }
    at("legend").append(
      ...(Object.keys(SPEECH_NAMES) as Speech[]).map((speech) =>
        make("li", `speech-${speech}`, SPEECH_NAMES[speech])
      ),
    );
    at("stories").append(...STORIES.map(({ name, tells, link }) => {
      const button = make("button", "", name) as HTMLButtonElement;
      button.title = tells;
      button.dataset["link"] = link;
      button.onclick = () => {
        history.replaceState(null, "", `#${link}`);
        this.#load();
      };
      return button;
    }));
  }

  #listen(): void {
    const clicks: Record<string, () => void> = {
      play: () => this.#play(!this.#isPlaying),
      step: () => this.#step(),
      skip: () => this.#skip(),
      laptop: () => this.#togglePort("laptop"),
      desktop: () => this.#togglePort("desktop"),
      knock: () => this.#do("knock"),
      punch: () => this.#do(isOn(this.#home.punch) ? "hang-up" : "punch"),
      reboot: () => this.#do("reboot"),
      address: () => this.#do("address"),
      replay: () => this.#begin(new Home(this.#home.scenario)),
      fresh: () => this.#fresh(),
      copy: () => void this.#copy(),
    };
    for (const [id, act] of Object.entries(clicks)) at(id).onclick = act;
    for (const what of ["speaks", "loss", "home", "away"] as const) {
      at<HTMLSelectElement>(what).onchange = ({ target }) =>
        this.#do(`${what}-${(target as HTMLSelectElement).value}`);
    }
    at<HTMLSelectElement>("speed").onchange = ({ target }) => {
      this.#speed = SPEEDS[Number((target as HTMLSelectElement).value)]![1];
      this.#play(true);
    };
    at<HTMLInputElement>("tcp").onchange = ({ target }) =>
      at("log").classList.toggle("all", (target as HTMLInputElement).checked);
    addEventListener("hashchange", () => this.#load());
    addEventListener("resize", () => {
      this.#stage.fit();
      this.#shown.clear();
      this.#wake();
    });
    const keys: Record<string, string> = {
      " ": "play",
      ".": "step",
      n: "skip",
      m: "laptop",
      d: "desktop",
      k: "knock",
      p: "punch",
      b: "reboot",
      a: "address",
      r: "replay",
    };
    addEventListener("keydown", (event) => {
      const target = event.target as HTMLElement;
      if (event.ctrlKey || event.metaKey || event.altKey || target.matches("select, input")) return;
      // Space presses what has the focus.
      if (event.key === " " && target.matches("button, summary")) return;
      const key = event.key.toLowerCase();
      if (key === "l") return at("log").querySelector("button")?.focus();
      if (key === "escape" && target.id === "detail") {
        return at("log").querySelector<HTMLElement>('[aria-current="true"]')?.focus();
      }
      const id = keys[key];
      if (id === undefined) return;
      event.preventDefault();
      at(id).click();
    });
  }

  #scenarioOfLink(): Scenario {
    const read = parseScenario(decoded(location.hash.slice(1)));
    at("error").textContent = typeof read === "string" ? `The link cannot be read: ${read}.` : "";
    return typeof read === "string" ? { seed: 1, deeds: [] } : read;
  }

  #load(): void {
    this.#begin(new Home(this.#scenarioOfLink()));
  }

  #begin(home: Home): void {
    this.#home = home;
    this.#stage.clear();
    this.#shown.clear();
    this.#shownId = this.#toldCount = 0;
    this.#lastTold = undefined;
    at("log").replaceChildren();
    at("told").replaceChildren();
    this.#choose(undefined);
    this.#play(true);
  }

  #fresh(): void {
    const seed = this.#home.scenario.seed % 999 + 1;
    history.replaceState(null, "", `#${formatScenario({ seed, deeds: [] })}`);
    this.#load();
  }

  async #copy(): Promise<void> {
    const button = at("copy");
    history.replaceState(null, "", `#${formatScenario(this.#home.scenario)}`);
    try {
      await navigator.clipboard.writeText(location.href);
      button.textContent = "Copied";
    } catch {
      // Without the right to the clipboard the address bar has it.
      button.textContent = "It is in the address bar";
    }
    setTimeout(() => button.textContent = "Copy link", 1500);
  }

  #togglePort(name: ClientName): void {
    const { state } = this.#home.port(name);
    this.#do(state === "closed" || state === "failed" ? `map-${name}` : `unmap-${name}`);
  }

  #do(deed: Deed): void {
    const wasDone = this.#home.do(deed);
    at("error").textContent = wasDone ? "" : "That is all that a link holds: start afresh.";
    history.replaceState(null, "", `#${formatScenario(this.#home.scenario)}`);
    this.#wake();
  }

  // Time

  #play(isPlaying: boolean): void {
    this.#isPlaying = isPlaying && !this.#home.isOver;
    at("play").textContent = this.#isPlaying ? "Pause" : "Play";
    this.#wake();
  }

  #step(): void {
    this.#play(false);
    this.#home.step();
    this.#wake();
  }

  #skip(): void {
    const next = this.#home.nextAt();
    if (next !== undefined) this.#home.advanceTo(next);
    this.#wake();
  }

  #wake(): void {
    if (this.#frameAt !== undefined) return;
    this.#frameAt = performance.now();
    requestAnimationFrame((now) => this.#frame(now));
  }

  #frame(now: number): void {
    const realMs = Math.max(0, Math.min(LONGEST_FRAME_MS, now - this.#frameAt!));
    this.#frameAt = undefined;
    const home = this.#home;
    if (this.#isPlaying) {
      const next = home.nextAt();
      const isQuiet = next !== undefined && this.#stage.isClear && home.flying().length === 0;
      home.advanceTo(home.now + pace(realMs, this.#speed, isQuiet ? next - home.now : undefined));
      if (home.isOver) this.#play(false);
    }
    const most = this.#isPlaying && this.#speed > 1 ? MAX_HURRIED_PILLS : MAX_PILLS;
    const moves = this.#stage.update(home, realMs, most);
    this.#show();
    if (this.#isPlaying || moves) this.#wake();
  }

  // What is shown

  #show(): void {
    const home = this.#home;
    at("clock").textContent = clock(home.now);
    this.#showQuiet();
    this.#showNodes();
    this.#showTable();
    this.#showClients();
    this.#showDeeds();
    this.#showTold();
    this.#showLog();
  }

  /** Writes where what is to be shown is not what is shown. */
  #write(id: string, key: string, make: () => (Node | string)[]): void {
    if (this.#shown.get(id) === key) return;
    this.#shown.set(id, key);
    at(id).replaceChildren(...make());
  }

  #showQuiet(): void {
    const home = this.#home;
    const next = home.nextAt();
    const wait = (next ?? Infinity) - home.now;
    const text = home.isOver
      ? "The day is over: replay, or start afresh."
      : next === undefined
      ? "Nothing is pending."
      : home.flying().length === 0 && wait > 1000
      ? `Quiet for ${duration(wait)}.`
      : "";
    this.#write("quiet", text, () => [text]);
    at<HTMLButtonElement>("skip").disabled = next === undefined;
    at<HTMLButtonElement>("step").disabled = next === undefined;
  }

  #showNodes(): void {
    const home = this.#home;
    const { punch } = home;
    const nodes: Readonly<Record<NodeName, readonly [string, string, string]>> = {
      server: ["198.51.100.1", "STUN; knocks", ""],
      gateway: [home.externalAddress, count(home.table().length, "mapping"), ""],
      nat: [home.awayAddress, count(home.flows("away").length, "flow"), ""],
      laptop: ["192.168.1.20", ...portNote(home.port("laptop"), punch)],
      desktop: ["192.168.1.30", ...portNote(home.port("desktop"))],
      friend: ["192.168.2.20", ...punchNote(punch)],
    };
    const key = JSON.stringify(nodes);
    if (this.#shown.get("nodes") === key) return;
    this.#shown.set("nodes", key);
    for (const [name, label] of Object.entries(nodes)) {
      this.#stage.label(name as NodeName, ...label);
    }
  }

  #showTable(): void {
    const home = this.#home;
    const facts = [
      ["external address", home.externalAddress],
      ["epoch", `${home.epochSeconds} s`],
      ["speaks", SPEAKS[home.chosen.speaks]!.label],
    ] as const;
    this.#write(
      "gateway",
      JSON.stringify(facts),
      () => facts.map(([name, value]) => make("span", "", `${name} `, make("b", "", value))),
    );
    const rows = home.table().slice(0, 40);
    const ends = rows.map(({ expiresAt }) => duration(expiresAt - home.now));
    this.#write(
      "table",
      JSON.stringify([rows, ends]),
      () => rows.map((row, i) => tableRow(row, ends[i]!)),
    );
    at("table-empty").hidden = rows.length > 0;
  }

  #showClients(): void {
    const home = this.#home;
    const views = (["laptop", "desktop"] as const).map((name) =>
      [name, ...portWords(home.port(name), home.now)] as const
    );
    const all = [...views, ["meeting", ...punchWords(home.punch)] as const];
    this.#write("clients", JSON.stringify(all), () =>
      all.map(([name, mood, state, more]) => {
        const client = make("div", "client", make("h3", "", name));
        client.append(make("p", `state ${mood}`, state));
        if (more !== "") client.append(make("p", "more", more));
        client.id = `client-${name}`;
        return client;
      }));
  }

  #showDeeds(): void {
    const home = this.#home;
    for (const name of ["laptop", "desktop"] as const) {
      const { state } = home.port(name);
      const verb = state === "closed" || state === "failed" ? "Open" : "Close";
      this.#write(name, verb, () => [`${verb} ${name} port`]);
    }
    const verb = isOn(home.punch) ? "Hang up" : "Punch to friend";
    this.#write("punch", verb, () => [verb]);
    for (const what of ["speaks", "loss", "home", "away"] as const) {
      const select = at<HTMLSelectElement>(what);
      if (select.value !== home.chosen[what]) select.value = home.chosen[what];
    }
    const link = formatScenario(home.scenario);
    const { seed, deeds } = home.scenario;
    this.#write(
      "seed",
      `${seed} ${deeds.length}`,
      () => [`seed ${seed}, ${count(deeds.length, "deed")}`],
    );
    if (this.#shown.get("stories") === link) return;
    this.#shown.set("stories", link);
    const story = STORIES.find((one) => one.link === link);
    at("tells").textContent = story?.tells ?? "Take one, or do something yourself.";
    for (const button of at("stories").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", `${button.dataset["link"] === link}`);
    }
  }

  #showTold(): void {
    const { tellings } = this.#home;
    const last = tellings.at(-1);
    if (last === this.#lastTold) return;
    const known = this.#lastTold === undefined ? -1 : tellings.indexOf(this.#lastTold as never);
    for (const { at: time, who, text, mood } of tellings.slice(known + 1)) {
      const words = who === undefined
        ? make("span", "deed", text)
        : make("span", mood, make("b", "", NODES[who].name), ` ${text}`);
      at("told").prepend(make("li", "", make("time", "", clock(time)), words));
      if (++this.#toldCount > MAX_TOLD) at("told").lastElementChild?.remove();
    }
    this.#lastTold = last;
    if (last) at("status").textContent = `${last.who ? NODES[last.who].name : ""} ${last.text}`;
  }

  #showLog(): void {
    const { sightings } = this.#home;
    const fresh = sightings.slice(-MAX_ROWS).filter(({ id }) => id > this.#shownId);
    if (fresh.length === 0) return;
    this.#shownId = fresh.at(-1)!.id;
    const log = at("log");
    // What is read stays where it is while more comes above it.
    const before = log.scrollTop > 0 ? log.scrollHeight - log.scrollTop : undefined;
    log.prepend(...fresh.reverse().map((sighting) => this.#row(sighting)));
    while (log.childElementCount > MAX_ROWS) log.lastElementChild!.remove();
    if (before !== undefined) log.scrollTop = log.scrollHeight - before;
  }

  #row(sighting: Sighting): HTMLElement {
    const { id, at: time, packet, from, to, segment, verdict } = sighting;
    const { speech, title } = decodePacket(packet);
    const isHandshake = packet.segment !== undefined && packet.segment.kind !== "data";
    const way = segment === undefined
      ? `at ${NODES[from].name}`
      : `${NODES[from].name} → ${NODES[to].name}`;
    const isFine = verdict === "delivered";
    const button = make(
      "button",
      `speech-${speech}`,
      make("time", "", clock(time)),
      make("span", "tag", SPEECH_NAMES[speech].replace("UPnP ", "")),
      make("span", "what", title),
      make("span", "way", way),
      make("span", isFine ? "fate" : "fate bad", isFine ? "" : verdict),
    );
    button.dataset["id"] = `${id}`;
    button.setAttribute("aria-controls", "detail");
    button.onclick = ({ detail }) => {
      this.#choose(sighting, true);
      // Who pressed a key reads on there, and comes back by Escape.
      if (detail === 0) at("detail").focus({ preventScroll: true });
    };
    return make("li", isHandshake ? "handshake" : "", button);
  }

  #choose(sighting: Sighting | undefined, isFromLog = false): void {
    this.#stage.choose(sighting?.id);
    for (const row of at("log").querySelectorAll<HTMLElement>("[data-id]")) {
      row.setAttribute("aria-current", `${row.dataset["id"] === `${sighting?.id}`}`);
    }
    const detail = at("detail");
    if (!sighting) {
      const words = "Choose a packet, here or as it flies: its fields are shown.";
      return detail.replaceChildren(make("p", "empty", words));
    }
    detail.replaceChildren(...opened(sighting));
    detail.scrollTop = 0;
    // On a phone it is below the list, or far below the stage.
    const isOut = detail.getBoundingClientRect().bottom > innerHeight;
    if (isFromLog && isOut && innerWidth < 900) detail.scrollIntoView({ block: "nearest" });
  }
}

/** A fragment without its percent signs, where it has any that stand for something. */
function decoded(fragment: string): string {
  try {
    return decodeURIComponent(fragment);
  } catch {
    return fragment;
  }
}

function isOn({ state }: PunchView): boolean {
  return state !== "none" && state !== "failed";
}

function count(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? "" : "s"}`;
}

function portNote(port: PortView, punch?: PunchView): [note: string, mood: string] {
  if (punch?.state === "connected") {
    return [port.state === "open" ? "open, connected" : "connected", "good"];
  }
  if (punch?.state === "checking") return ["checking…", ""];
  switch (port.state) {
    case "open":
      return [`open at :${port.external!.split(":").at(-1)}`, "good"];
    case "asking":
      return ["asking…", ""];
    case "lost":
    case "failed":
      return [`port ${port.state}`, "bad"];
    default:
      return ["port closed", ""];
  }
}

function punchNote({ state }: PunchView): [note: string, mood: string] {
  if (state === "none") return ["waits", ""];
  return [state, state === "connected" ? "good" : state === "failed" ? "bad" : ""];
}

function portWords(
  port: PortView,
  now: number,
): [mood: string, state: string, more: string] {
  const wait = port.next ? port.next.at - now : 0;
  const next = wait > 0 ? `${port.next!.reason} in ${duration(wait)}` : "";
  switch (port.state) {
    case "open": {
      const renewal = /^granted/.test(next) ? `renewed in ${duration(wait)}` : next;
      return ["good", `open at ${port.external}`, `by ${port.via}; ${renewal}`];
    }
    case "asking":
      return ["", "asking for a mapping", next];
    case "lost":
      return ["bad", "lost, asking again", next];
    case "failed":
      return ["bad", "no gateway gave a port", next];
    default:
      return ["", "port closed", ""];
  }
}

function punchWords(punch: PunchView): [mood: string, state: string, more: string] {
  switch (punch.state) {
    case "none":
      return ["", "not asked for", ""];
    case "gathering":
      return ["", "gathering candidates", "each asks the STUN server how it is seen from outside"];
    case "checking":
      return ["", "checking pairs", "both send, so that each NAT lets the other one in"];
    case "connected":
      return [
        "good",
        `connected in ${Math.round(punch.elapsedMs!)} ms`,
        `laptop ${punch.ends![0]} ↔ friend ${punch.ends![1]}`,
      ];
    case "failed":
      return ["bad", "not connected", punch.reason ?? ""];
  }
}

function tableRow({ protocol, external, internal, by }: TableRow, ends: string): HTMLElement {
  const isTraffic = by === "traffic";
  return make(
    "tr",
    isTraffic ? "traffic" : "asked",
    make("td", "end", make("small", "", protocol), external),
    make("td", "end", internal),
    make("td", "", by),
    make("td", "", ends),
  );
}

/** A packet with all its fields. */
function opened({ at: time, packet, from, to, segment, verdict, arrivesAt }: Sighting): Node[] {
  const { speech, title, fields, text } = decodePacket(packet);
  const where = segment === undefined
    ? `${verdict} at ${NODES[from].name}, ${clock(time)}`
    : `${NODES[from].name} → ${NODES[to].name}, ${clock(time)}, ${
      verdict === "lost" ? "lost on the way" : `there after ${(arrivesAt - time).toFixed(0)} ms`
    }`;
  const nodes: Node[] = [
    make("span", `tag speech-${speech}`, SPEECH_NAMES[speech]),
    make("h3", "", title),
    make("p", "sub", where),
  ];
  if (fields.length > 0) nodes.push(make("h4", "", "Message"), list(fields));
  nodes.push(make("h4", "", "Headers"), list(headerFields(packet)));
  const line = lineOf(packet);
  if (line !== undefined) nodes.push(make("h4", "", "In a line"), make("pre", "", line));
  if (text !== undefined) nodes.push(make("h4", "", "Text"), make("pre", "", text));
  else if (packet.data.length > 0) {
    nodes.push(make("h4", "", `${packet.data.length} bytes`), make("pre", "", hexOf(packet.data)));
  }
  return nodes;
}

function list(fields: readonly Field[]): HTMLElement {
  return make(
    "dl",
    "",
    ...fields.map(([name, value]) => make("div", "", make("dt", "", name), make("dd", "", value))),
  );
}

function hexOf(data: Uint8Array): string {
  const pairs = [...data].map((byte) => byte.toString(16).padStart(2, "0"));
  const lines: string[] = [];
  for (let i = 0; i < pairs.length; i += 4) lines.push(pairs.slice(i, i + 4).join(""));
  return lines.join(" ");
}

new Page();
