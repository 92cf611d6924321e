/**
 * The virtual network at full speed: echoes on one link, and through a NAT.
 *
 * @module
 */
import { World } from "../../../core/sim/mod.ts";
import { measure } from "../measure.ts";

/** What `sim` takes. */
export interface SimOptions {
  readonly timeMs: number;
}

/** Packets delivered for each second of real time. */
export interface SimResult {
  readonly perSecond: Record<"link" | "nat" | "lossy" | "traced", number>;
}

const PAIRS = 50;
/** Each pair keeps so many datagrams under way. */
const WINDOW = 4;
/** Virtual time a sample, milliseconds. */
const SPAN_MS = 100;

/** Runs echoes and returns a function that lets one span pass and counts what arrived. */
function makeWorld(kind: keyof SimResult["perSecond"]): () => number {
  const trace = kind === "traced" ? { trace: { size: 10_000 } } : {};
  const world = new World({ seed: 1, ...trace });
  const conditions = kind === "lossy"
    ? { delayMs: 1, jitterMs: 0.5, loss: 0.01, duplicate: 0.01, reorder: 0.01 }
    : { delayMs: 1 };
  const lan = world.segment("lan", conditions);
  const internet = kind === "nat" ? world.segment("internet", conditions) : lan;
  if (kind === "nat") {
    world.nat("router", { inside: [lan, "10.0.0.1"], outside: [internet, "203.0.113.7"] });
  }
  for (let i = 0; i < PAIRS; i++) {
    const server = world.host(`server${i}`), client = world.host(`client${i}`);
    const address = kind === "nat" ? `198.51.100.${1 + i}` : `10.0.1.${1 + i}`;
    server.attach(internet, address);
    client.attach(lan, `10.0.0.${10 + i}`, kind === "nat" ? { gateway: "10.0.0.1" } : {});
    const echo = server.bind({ port: 7 });
    echo.onDatagram = (data, from) => echo.send(from, data);
    const socket = client.bind();
    const packet = new Uint8Array(60);
    const send = () => socket.send({ address, port: 7 }, packet);
    // What is lost is made up for, and what is doubled is not answered twice, by a clock.
    if (kind === "lossy") {
      const tick = () => {
        for (let k = 0; k < WINDOW; k++) send();
        world.after(2, tick);
      };
      tick();
    } else {
      socket.onDatagram = send;
      for (let k = 0; k < WINDOW; k++) send();
    }
  }
  return () => {
    const before = world.stats.packets;
    world.runFor(SPAN_MS);
    return world.stats.packets - before;
  };
}

/** The task. */
export async function sim({ timeMs }: SimOptions): Promise<SimResult> {
  const perSecond = { link: 0, nat: 0, lossy: 0, traced: 0 };
  for (const kind of Object.keys(perSecond) as (keyof typeof perSecond)[]) {
    const run = makeWorld(kind);
    let spans = 0, packets = 0;
    const { span } = await measure({
      span: () => {
        spans++;
        packets += run();
      },
    }, { timeMs });
    perSecond[kind] = packets / spans * 1000 / span.p50;
  }
  return { perSecond };
}
