/**
 * Finding out what stands between this host and the internet.
 *
 * @module
 */
import { dropUndefined } from "../../core/defined.ts";
import { type Attempt, NatError, PREFERENCE } from "../../core/errors.ts";
import { familyOf } from "../../core/ip.ts";
import type { Endpoint } from "../../core/machine.ts";
import {
  diagnose as conclude,
  type Diagnosis,
  type GatewayReport,
  type NatReport,
  type ProtocolReport,
  type ReflexiveReport,
} from "../../core/portmap/diagnosis.ts";
import type { MapperEvent } from "../../core/portmap/managed.ts";
import { gatewayText } from "../../core/portmap/gateway.ts";
import { explainDetour, type Network, readLocalAddresses, readNetwork } from "../discovery/mod.ts";
import { readStunServers } from "../host_name.ts";
import type { Runtime } from "../runtime.ts";
import type { MapperConnection } from "./port_mapping.ts";
import { checkWait, type WaitOptions } from "./wait.ts";

/** How long protocols that are silent are waited for, milliseconds. */
const PATIENCE_MS = 4000;

/**
 * Where one has answered, the others are waited for so long: by then they were asked three times at least, and
 * UPnP's search is over.
 */
const SILENCE_MS = 2500;

/** How to find out what is in the way. */
export interface DiagnoseOptions extends WaitOptions {
  /**
   * How long to wait for gateways that are silent, milliseconds; where some protocol has answered, the
   * others are not waited for longer than 2500. Default 4000.
   */
  readonly timeoutMs?: number;
  /** STUN servers to ask how they see this host and what NAT is there. Default: none. */
  readonly stunServers?: readonly string[];
}

/**
 * Checks the options before anything is asked.
 *
 * @throws {TypeError | RangeError} On options that are none.
 */
function check(options: DiagnoseOptions): void {
  checkWait(options);
  const { stunServers } = options;
  if (stunServers !== undefined) readStunServers("stunServers", stunServers);
}

/**
 * Asks these gateways by each protocol, and reads what else this host knows.
 *
 * @throws {TypeError | RangeError} On options that are none.
 */
export async function examine(
  runtime: Runtime,
  connection: MapperConnection,
  options: DiagnoseOptions,
): Promise<Diagnosis> {
  check(options);
  const gateways = connection.do((mapper) => mapper.gateways);
  const asking = askServers(runtime, options);
  const askingNat = askNat(runtime, options);
  // Should they fail, that is told where they are waited for.
  for (const pending of [asking, askingNat]) pending.catch(() => {});
  const [network, localAddresses, ...reports] = await Promise.all([
    readNetwork(runtime).catch((): Network => ({ gateways: [], detours: [] })),
    readLocalAddresses(runtime),
    ...gateways.map((gateway) => askAt(runtime, connection, gateway, options)),
  ]);
  return conclude({
    gateways: gateways.map((gateway, i): GatewayReport => {
      const found = network.gateways.find(({ address }) => address === gateway.address);
      return {
        gateway: gatewayText(gateway),
        family: familyOf(gateway.address),
        ...(found?.interface !== undefined && { interface: found.interface }),
        ...(found?.localAddress !== undefined && { localAddress: found.localAddress }),
        ...reports[i]!,
      };
    }),
    detours: reportsOf(network),
    localAddresses,
    reflexive: await asking,
    ...await askingNat,
  });
}

/** What kind of NAT servers outside see, within the patience; undefined where none is asked. */
async function askNat(
  runtime: Runtime,
  { stunServers = [], timeoutMs = PATIENCE_MS, signal }: DiagnoseOptions,
): Promise<{ readonly nat?: NatReport }> {
  if (stunServers.length === 0) return {};
  const { natBehaviour } = await import("./stun.ts");
  const controller = new AbortController();
  const end = () => controller.abort(signal?.reason);
  const cancel = runtime.setTimer(timeoutMs, end, true);
  signal?.addEventListener("abort", end);
  // It may have been given up while this was loaded.
  if (signal?.aborted) end();
  try {
    const { type, mapping, filtering } = await natBehaviour(stunServers.slice(0, 8), {
      runtime,
      signal: controller.signal,
    });
    return { nat: { type, ...dropUndefined({ mapping, filtering }) } };
  } catch (error) {
    // What each server came to is told beside it.
    if (error instanceof NatError || controller.signal.aborted && !signal?.aborted) return {};
    throw error;
  } finally {
    cancel();
    signal?.removeEventListener("abort", end);
  }
}

/** How servers outside see this host, each as it is named. */
async function askServers(
  runtime: Runtime,
  { stunServers = [], timeoutMs = PATIENCE_MS, signal }: DiagnoseOptions,
): Promise<ReflexiveReport[]> {
  if (stunServers.length === 0) return [];
  const { reflexiveAddress } = await import("./stun.ts");
  return await Promise.all(stunServers.map(async (server): Promise<ReflexiveReport> => {
    const since = runtime.now();
    const report = await reflexiveAddress(server, { runtime, timeoutMs, ...(signal && { signal }) })
      .then(({ address }) => ({ address, outcome: "answered" }), (error) => {
        if (!(error instanceof NatError)) throw error;
        return { outcome: error.code === "no-answer" ? "no answer" : error.message };
      });
    return { server, ...report, elapsedMs: runtime.now() - since };
  }));
}

/**
 * The diagnosis of a host that has no gateway.
 *
 * @throws {TypeError | RangeError} On options that are none.
 * @throws {NatError} `permission`.
 */
export async function examineWithoutGateway(
  runtime: Runtime,
  options: DiagnoseOptions = {},
): Promise<Diagnosis> {
  check(options);
  const [network, localAddresses, reflexive, nat] = await Promise.all([
    readNetwork(runtime),
    readLocalAddresses(runtime),
    askServers(runtime, options),
    askNat(runtime, options),
  ]);
  const detours = reportsOf(network);
  return conclude({ gateways: [], detours, localAddresses, reflexive, ...nat });
}

function reportsOf({ detours }: Network) {
  return detours.map((detour) => ({
    family: detour.family,
    ...(detour.interface !== undefined && { interface: detour.interface }),
    message: explainDetour(detour),
  }));
}

type Asked = Pick<GatewayReport, "protocols" | "failure">;

/** What each protocol comes to at a gateway, until all have answered or the time is up. */
function askAt(
  runtime: Runtime,
  connection: MapperConnection,
  gateway: Endpoint,
  { timeoutMs = PATIENCE_MS, signal }: DiagnoseOptions,
): Promise<Asked> {
  const since = runtime.now();
  const found: ProtocolReport[] = [];
  let id = 0;
  const result = (others: readonly ProtocolReport[], failure?: string): Asked => {
    const all = [...found, ...others.filter(({ via }) => !found.some((one) => one.via === via))];
    all.sort((a, b) => PREFERENCE.indexOf(a.via) - PREFERENCE.indexOf(b.via));
    return { protocols: all, ...(failure !== undefined && { failure }) };
  };
  const report = ({ via, outcome, elapsedMs }: Attempt): ProtocolReport => (
    { via, outcome, elapsedMs }
  );
  const wait: WaitOptions = { timeoutMs: Infinity, ...(signal && { signal }) };
  const never = () => new NatError("no-answer", "");
  return connection.answer<Asked>(
    "ask a gateway",
    wait,
    never,
    (mapper, now, settle) => {
      id = mapper.askAddressesAt(gateway, now);
      const finish = () => {
        const attempts = connection.do((one, at) => one.attempts(id, at));
        settle.resolve(result(attempts.map(report)));
      };
      settle.onEnd(runtime.setTimer(timeoutMs, finish, true));
      const look = () => {
        // A device that was found may take its time.
        const isSlow = connection.do((one) => one.waitsFor(id)).includes("upnp");
        if (found.length > 0 && !isSlow) finish();
      };
      settle.onEnd(runtime.setTimer(SILENCE_MS, look, true));
      settle.onEnd(() => connection.do((one, at) => one.endQuestion(id, at)));
    },
    (told, settle) => {
      const event = told as MapperEvent;
      if (!("id" in event) || event.id !== id) return;
      if (event.type === "external-address") {
        const { via, address } = event;
        const elapsedMs = runtime.now() - since;
        found.push({ via, outcome: "answered", elapsedMs, external: address });
      } else if (event.type === "external-addresses-told") {
        settle.resolve(result(event.attempts.map(report), event.message));
      }
    },
  );
}
