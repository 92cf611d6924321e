/**
 * `natkit upnp`: the services of whatever UPnP devices there are, what they can be asked, and asking
 * it.
 *
 * @module
 */
import { dropUndefined } from "../../../core/defined.ts";
import { NatError } from "../../../core/errors.ts";
import type { ServiceAction } from "../../../core/upnp/description.ts";
import { UpnpClient, UpnpError, type UpnpService } from "../../api/upnp_client.ts";
import type { Context } from "../command.ts";
import { CommandError } from "../output.ts";
import { UsageError } from "../values.ts";

/** Runs the command; answers the exit status. */
export async function run(context: Context): Promise<number> {
  const ask = read(context.positionals);
  const { flags, parts, runtime } = context;
  const open = parts.openUpnp ?? UpnpClient.open;
  const client = await open({ runtime, ...dropUndefined({ targets: flags.target }) });
  try {
    return await ask(context, client);
  } finally {
    await client.close();
  }
}

type Ask = (context: Context, client: UpnpClient) => Promise<number>;

/** What the positionals ask for. */
function read([what, name, action, ...pairs]: readonly string[]): Ask {
  switch (what) {
    case "services":
      if (name !== undefined) throw new UsageError(`natkit upnp services takes no more: "${name}"`);
      return listServices;
    case "actions":
      if (name === undefined) throw new UsageError("natkit upnp actions needs SERVICE");
      if (action !== undefined) {
        throw new UsageError(`natkit upnp actions takes SERVICE alone: "${action}" is too much`);
      }
      return (context, client) => listActions(context, client, name);
    case "call": {
      if (name === undefined || action === undefined) {
        throw new UsageError("natkit upnp call needs SERVICE ACTION");
      }
      const args = pairs.map(readPair);
      return (context, client) => call(context, client, name, action, args);
    }
    default:
      throw new UsageError(
        `natkit upnp takes services, actions or call: current value is "${what}"`,
      );
  }
}

type Pair = readonly [name: string, value: string];

function readPair(text: string): Pair {
  const [, name, value] = /^([A-Za-z_][\w.-]*)=(.*)$/s.exec(text) ?? [];
  if (name !== undefined && value !== undefined) return [name, value];
  throw new UsageError(`An argument must be NAME=VALUE: current value is "${text}"`);
}

function scan({ flags, stop }: Context, client: UpnpClient): AsyncIterableIterator<UpnpService> {
  const scanMs = flags.scan === undefined ? undefined : 1000 * flags.scan;
  return client.services({ ...dropUndefined({ scanMs }), signal: stop });
}

async function listServices(context: Context, client: UpnpClient): Promise<number> {
  const list = async () => {
    for await (const service of scan(context, client)) {
      if (!isOfDevice(service, context.flags.device)) continue;
      const { serviceType, serviceId, device, address, location } = service;
      context.output.event({ event: "service", serviceType, serviceId, device, address, location });
    }
  };
  await context.waitingFor("devices", list());
  return 0;
}

async function listActions(context: Context, client: UpnpClient, name: string): Promise<number> {
  const service = await find(context, client, name);
  for (const action of await describe(context, service)) {
    context.output.event({ event: "action", action: action.name, arguments: action.arguments });
  }
  return 0;
}

async function call(
  context: Context,
  client: UpnpClient,
  name: string,
  action: string,
  given: readonly Pair[],
): Promise<number> {
  const { output, stop, timeoutMs } = context;
  const service = await find(context, client, name);
  const { serviceType, address } = service;
  const args = Object.fromEntries(await inOrder(context, service, action, given));
  const calling = service.call(action, args, { ...dropUndefined({ timeoutMs }), signal: stop });
  const values = await context.waitingFor("the device", calling).catch((error) => {
    if (!(error instanceof UpnpError)) throw error;
    const outcome = `${error.code} ${error.description}`;
    const elapsedMs = context.elapsedMs();
    const attempts = [{ via: "upnp", gateway: address, outcome, elapsedMs }] as const;
    throw new NatError("refused", error.message, { attempts, cause: error });
  });
  const elapsedMs = context.elapsedMs();
  output.event({ event: "result", action, serviceType, address, values, elapsedMs });
  return 0;
}

/** The arguments in the order that the service wants; as given, where it does not tell. */
async function inOrder(
  context: Context,
  service: UpnpService,
  action: string,
  given: readonly Pair[],
): Promise<readonly Pair[]> {
  const actions = await describe(context, service).catch((error) => {
    if (context.stop.aborted) throw error;
    context.output.warn(`${error.message}; it is called as it stands`);
    return undefined;
  });
  if (!actions) return given;
  const known = actions.find((candidate) => candidate.name === action);
  if (!known) {
    const names = actions.map((candidate) => candidate.name).join(", ");
    throw new UsageError(`ACTION must be one of ${names}: current value is "${action}"`);
  }
  const wanted = known.arguments.filter(({ direction }) => direction === "in");
  const unknown = given.find(([name]) => !wanted.some((argument) => argument.name === name));
  if (unknown) {
    const names = wanted.map((argument) => argument.name).join(", ") || "none";
    throw new UsageError(`Arguments of ${action} are ${names}: current value is "${unknown[0]}"`);
  }
  const missing = wanted.find(({ name }) => !given.some(([other]) => other === name));
  if (missing) throw new UsageError(`natkit upnp call ${action} needs ${missing.name}=VALUE`);
  return wanted.map(({ name }) => given.find(([other]) => other === name)!);
}

function describe(context: Context, service: UpnpService): Promise<readonly ServiceAction[]> {
  const { stop, timeoutMs } = context;
  const asking = service.actions({ ...dropUndefined({ timeoutMs }), signal: stop });
  return context.waitingFor("the service's description", asking);
}

/** The first service of that name; the search ends with it. */
async function find(context: Context, client: UpnpClient, name: string): Promise<UpnpService> {
  const others = new Set<string>();
  const search = async () => {
    for await (const service of scan(context, client)) {
      if (isOfDevice(service, context.flags.device) && isCalled(service, name)) return service;
      others.add(service.serviceType);
    }
    return undefined;
  };
  const found = await context.waitingFor("devices", search());
  if (found) return found;
  const heard = others.size === 0 ? "no service at all" : [...others].join(", ");
  throw new CommandError("not-found", `Cannot find a service "${name}": found ${heard}`);
}

function isCalled({ serviceType, serviceId }: UpnpService, name: string): boolean {
  const [, type, version] = /:service:([^:]+):(\d+)$/.exec(serviceType) ?? [];
  return [serviceType, serviceId, type, `${type}:${version}`, serviceId.split(":").at(-1)]
    .includes(name);
}

function isOfDevice({ device, address }: UpnpService, wanted: string | undefined): boolean {
  return wanted === undefined || [device.udn, address, device.friendlyName].includes(wanted);
}
