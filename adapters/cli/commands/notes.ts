/**
 * What a person ought to know of a port that was mapped, and is no error: what the gateway gave in the
 * place of what was asked for, and that nobody is there to be reached.
 *
 * @module
 */
import { anyAddress, familyOf, formatEndpoint, withoutZone } from "../../../core/ip.ts";
import type { Endpoint } from "../../../core/machine.ts";
import type { Transport } from "../../../core/mapping.ts";
import { isBehindAnotherNat } from "../../../core/cidr.ts";
import type { GrantedMapping } from "../../../core/portmap/managed.ts";
import type { Runtime } from "../../runtime.ts";
import { isInUse } from "../../udp.ts";
import type { Context } from "../command.ts";

/** How long this host may take to say whether something listens on it. */
const LOOK_MS = 500;

/** Tells each thing once, until it changes. */
export class Notes {
  readonly #context: Context;
  readonly #wishedPort: number | undefined;
  #gaveInstead: number | undefined;
  #nested: string | undefined;

  /** @param wishedPort The external port that is wished for; undefined where any does. */
  constructor(context: Context, wishedPort: number | undefined) {
    this.#context = context;
    this.#wishedPort = wishedPort;
  }

  /** What is odd about a grant. */
  granted({ external, internal, protocol }: GrantedMapping): void {
    const { output } = this.#context;
    const wished = this.#wishedPort;
    const gave = wished === undefined || wished === external.port ? undefined : external.port;
    if (gave !== undefined && gave !== this.#gaveInstead) {
      output.note(
        `the gateway gave external port ${gave} to ${internal.port}/${protocol}, not ${wished}: ` +
          "that is the one to tell others",
      );
    }
    this.#gaveInstead = gave;
    const nested = isBehindAnotherNat(external.address) ? external.address : undefined;
    if (nested !== undefined && nested !== this.#nested) {
      output.warn(
        `${nested} is no address of the Internet: another NAT stands above this ` +
          "gateway, and nobody out there reaches the port",
      );
    }
    this.#nested = nested;
  }

  /** Whether somebody is there to be reached; a host of which this one knows nothing is not asked. */
  async listening({ internal, protocol, remote }: GrantedMapping): Promise<void> {
    const { output, runtime } = this.#context;
    const own = runtime.interfaces().some(({ address }) =>
      withoutZone(address) === withoutZone(internal.address)
    );
    if (!own || remote !== undefined) return;
    if (await isFree(runtime, protocol, internal) !== true) return;
    output.note(
      `nothing listens at ${
        formatEndpoint(internal)
      }/${protocol} yet: until a program does, at this ` +
        "address or all of them, the port is open and nobody answers",
    );
  }
}

/** Whether nothing listens at an endpoint of this host; undefined where that cannot be told. */
function isFree(runtime: Runtime, protocol: Transport, at: Endpoint): Promise<boolean | undefined> {
  return protocol === "tcp" ? refuses(runtime, at) : binds(runtime, at);
}

async function refuses(runtime: Runtime, to: Endpoint): Promise<boolean | undefined> {
  let tell: (isFree: boolean | undefined) => void = () => {};
  const told = new Promise<boolean | undefined>((resolve) => tell = resolve);
  const streams = await runtime.openStreams?.((_, happened) => {
    if (happened.type === "open") tell(false);
    else if (happened.type === "closed") tell(happened.reason === "refused" ? true : undefined);
  });
  if (!streams) return undefined;
  streams.act({ type: "stream", id: 0, do: "connect", to, timeoutMs: LOOK_MS });
  try {
    return await told;
  } finally {
    streams.close();
  }
}

/** Whether the port can be bound, on Windows at all addresses too: it lets two programs share it. */
async function binds(runtime: Runtime, at: Endpoint): Promise<boolean | undefined> {
  const any = runtime.platform === "win32" ? [anyAddress(familyOf(at.address))] : [];
  const ignored = { onDatagram() {}, onUnreachable() {}, onError() {} };
  for (const address of [at.address, ...any]) {
    try {
      const local = { address, port: at.port };
      (await runtime.openUdp({ local }, ignored)).close();
    } catch (error) {
      return isInUse(error) ? false : undefined;
    }
  }
  return true;
}
