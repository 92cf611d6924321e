/**
 * `natkit gateway`: the simulated gateway on real sockets, with scenario commands on standard
 * input.
 *
 * @module
 */
import { dropUndefined } from "../../../core/defined.ts";
import type { GatewayProtocol } from "../../../core/gateway/profile.ts";
import { PROFILES } from "../../../core/gateway/profiles.ts";
import { COMMANDS, parseCommand } from "../../../core/gateway/scenario.ts";
import { familyOf, formatEndpoint } from "../../../core/ip.ts";
import { PCP_PORT } from "../../../core/pcp/constants.ts";
import {
  type GatewayServer,
  type GatewayServerOptions,
  startGateway,
} from "../../gateway_server.ts";
import type { Runtime } from "../../runtime.ts";
import { isInUse } from "../../udp.ts";
import type { HelpList } from "../args.ts";
import type { Context } from "../command.ts";
import type { CliEvent } from "../events.ts";
import { CommandError } from "../output.ts";
import { checkOneFamily, UsageError } from "../values.ts";
import { entryFields, toCliEvent } from "./gateway_events.ts";

const DEFAULT_LISTEN = "0.0.0.0";
/** What `--help` lists. */
export const lists: readonly HelpList[] = [
  [
    "Scenario commands on standard input, one a line",
    COMMANDS.map(({ usage, summary }) => [usage, summary]),
  ],
  ["Profiles", Object.values(PROFILES).map(({ name, device }) => [name, device])],
];

/** Runs the command; answers the exit status. */
export async function run(context: Context): Promise<number> {
  const { io, output, runtime, stop } = context;
  // The gateway announces its start before it can be told where it listens.
  let early: CliEvent[] | undefined = [];
  const server = await start(context, runtime, (event) => {
    if (early) early.push(event);
    else output.event(event);
  });
  tellListening(context, server);
  for (const event of early) output.event(event);
  early = undefined;
  // Nothing else keeps the process alive while the gateway has no socket open.
  const letGo = runtime.setTimer(Infinity, () => {}, true);
  let offLine = () => {};
  try {
    await new Promise<void>((resolve, reject) => {
      let working: Promise<unknown> = Promise.resolve();
      offLine = io.onLine((line) => {
        if (line.trim() === "") return;
        working = working.then(() => obey(context, server, runtime, line)).then((isOver) => {
          if (isOver) resolve();
        }, reject);
      });
      const onStop = () => {
        output.event({ event: "scenario", command: "quit", message: stop.reason.message });
        resolve();
      };
      if (stop.aborted) onStop();
      else stop.addEventListener("abort", onStop);
    });
    return 0;
  } finally {
    letGo();
    offLine();
    await server.close();
  }
}

/** Starts the gateway that the flags describe. */
async function start(
  { flags, output }: Context,
  runtime: Runtime,
  tell: (event: CliEvent) => void,
): Promise<GatewayServer> {
  const { port = PCP_PORT, external, protocols, profile } = flags;
  const { address: listen, port: listenPort } = flags.listen ?? { address: DEFAULT_LISTEN };
  if (listenPort !== undefined) {
    throw new UsageError(
      `--listen takes no port here, which --port does: current value is ":${listenPort}"`,
    );
  }
  if (external !== undefined) checkOneFamily([["--listen", listen], ["--external", external]]);
  if (familyOf(listen) === 6) {
    if (external !== undefined) {
      throw new UsageError(
        `--external has no meaning with an IPv6 --listen, a firewall without NAT: current value ` +
          `is "${external}"`,
      );
    }
    if (flags.forward) {
      throw new UsageError(
        "--forward has no meaning with an IPv6 --listen, a firewall without NAT",
      );
    }
    if (protocols?.includes("nat-pmp")) {
      throw new UsageError(
        `--protocols must be pcp, upnp or both with an IPv6 --listen: current value is "${protocols}"`,
      );
    }
  }
  const spoken = protocols as readonly GatewayProtocol[] | undefined;
  let running: GatewayServer | undefined;
  const options: GatewayServerOptions = {
    ...dropUndefined({
      external,
      protocols: spoken,
      profile,
      announcePort: flags["announce-port"],
      epochSeconds: flags.epoch,
    }),
    ...flags["http-port"] !== undefined && { upnp: { httpPort: flags["http-port"] } },
    listen,
    port,
    runtime,
    ...flags.forward && { forward: true },
    onEvent: (event) => {
      const relayedAt = event.type === "mapping" && event.change !== "removed" &&
          event.change !== "expired"
        ? running?.relayOf(event.entry)
        : undefined;
      tell({ ...toCliEvent(event, runtime.now()), ...dropUndefined({ relayedAt }) });
    },
    onSocketError: (error) => output.warn(error instanceof Error ? error.message : String(error)),
  };
  try {
    return running = await startGateway(options);
  } catch (error) {
    if (isInUse(error)) {
      // The message names the endpoint: UPnP has ports of its own.
      const at = / on (\S+):/.exec((error as Error).message)?.[1] ??
        formatEndpoint({ address: listen, port });
      throw new CommandError("address-in-use", `Cannot listen on ${at}: the port is in use`);
    }
    throw error;
  }
}

/** Tells where a gateway listens; for `demo` too. */
export function tellListening({ output, flags }: Context, server: GatewayServer): void {
  output.event({
    event: "listening",
    ...server.endpoint,
    external: server.externalAddresses,
    protocols: server.protocols,
    ...dropUndefined({ profile: flags.profile }),
    ...server.protocols.includes("upnp") && {
      descriptions: server.descriptions,
      ...dropUndefined({ ssdpPort: server.ssdpPort }),
    },
  });
}

/** Does what a line says, and tells it; answers whether that was `quit`. */
export async function obey(
  { output }: Context,
  server: GatewayServer,
  runtime: Runtime,
  line: string,
): Promise<boolean> {
  const parsed = parseCommand(line);
  if (!parsed.ok) {
    output.fail({ code: "usage", message: parsed.message, attempts: [] });
    return false;
  }
  const { name, ...words } = parsed.command;
  const { isDone, message, entries, commands } = await server.command(line);
  if (!isDone) {
    output.fail({ code: "refused", message, attempts: [] });
    return false;
  }
  const now = runtime.now();
  output.event({
    event: "scenario",
    command: name,
    ...words,
    message,
    ...dropUndefined({ mappings: entries?.map((entry) => entryFields(entry, now)), commands }),
  });
  return name === "quit";
}
