/**
 * What follows once a mapping is granted, inbound or outbound: it is told, kept in the state file,
 * and held as long as it is wanted.
 *
 * @module
 */
import { savedKey, type SavedMapping } from "../../../core/portmap/saved.ts";
import type { Nat } from "../../api/nat.ts";
import type { PortEvent, PortMapping } from "../../api/port_mapping.ts";
import type { Context } from "../command.ts";
import type { MappingFields } from "../events.ts";
import type { StateFile } from "../state_file.ts";

/** What names the mapping in the state file. */
export type Wanted = Pick<SavedMapping, "protocol" | "internalPort" | "remote" | "thirdParty">;

/** Tells and holds `mapping`; answers with the exit status when it is over. */
export async function hold(
  context: Context,
  nat: Nat,
  mapping: PortMapping,
  wanted: Wanted,
): Promise<number> {
  const { flags, output, stop } = context;
  const kept = new Keeper(context.stateFile(), nat, savedKey(wanted));
  const tell = (event: "mapped" | "renewed" | "moved") => {
    output.event({ event, ...fieldsOf(mapping), elapsedMs: context.elapsedMs() });
    if (event !== "renewed" && mapping.isDoubleNat) warnOfDoubleNat(context, mapping);
    kept.keep(mapping.lifetimeSeconds);
  };
  tell("mapped");
  if (flags.mode === "once" && !stop.aborted) {
    await kept.settled();
    await mapping.release();
    return 0;
  }
  output.progress("Holding it; Ctrl-C deletes it.");
  const closing = closeAt(stop, mapping);
  let end: PortEvent & { type: "unmapped" } | undefined;
  for await (const event of mapping) {
    if (event.type === "unmapped") end = event;
    else if (event.type === "lost") {
      const { reason } = event;
      output.event({ event: "lost", reason, ...fieldsOf(mapping), elapsedMs: context.elapsedMs() });
    } else tell(event.type === "recovered" ? "mapped" : event.type);
  }
  await closing();
  await kept.settled();
  if (!end || end.failure) {
    const code = end ? "refused" : "no-answer";
    const why = end?.failure ?? "no answer";
    const message = `The gateway did not close the port, it ends with its lifetime: ${why}`;
    output.fail({ code, message, attempts: [] });
    return 1;
  }
  const { protocol, via, gateway, internal, external } = fieldsOf(mapping);
  output.event({
    event: "unmapped",
    ...{ protocol, via, gateway, internal, external, reason: end.reason },
    elapsedMs: context.elapsedMs(),
  });
  await kept.forget();
  return 0;
}

/** Closes the mapping when the command is to end; what it returns waits until that is done. */
function closeAt(stop: AbortSignal, mapping: PortMapping): () => Promise<void> {
  let closing: Promise<void> | undefined;
  const close = () => void (closing ??= mapping.close());
  stop.addEventListener("abort", close);
  if (stop.aborted) close();
  return async () => {
    stop.removeEventListener("abort", close);
    await closing;
  };
}

function warnOfDoubleNat({ output }: Context, mapping: PortMapping): void {
  output.warn(
    `${mapping.external.address} is no address of the Internet: another NAT stands above this ` +
      "gateway, and nobody out there reaches the port",
  );
}

/** Keeps the state file's entry of one mapping, without holding up what is told. */
class Keeper {
  readonly #state: StateFile;
  readonly #nat: Nat;
  readonly #key: string;
  #saved: SavedMapping | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(state: StateFile, nat: Nat, key: string) {
    this.#state = state;
    this.#nat = nat;
    this.#key = key;
  }

  keep(lifetimeSeconds: number): void {
    this.#writing = this.#writing.then(async () => {
      const { mappings } = await this.#nat.exportState();
      const saved = mappings.find((one) => savedKey(one) === this.#key);
      if (!saved) return;
      this.#saved = saved;
      await this.#state.keep(saved, lifetimeSeconds);
    });
  }

  settled(): Promise<void> {
    return this.#writing;
  }

  async forget(): Promise<void> {
    const gateway = this.#saved?.gateway;
    await this.#state.forget((one) => savedKey(one) === this.#key && one.gateway === gateway);
  }
}

/** The fields of `mapped`, in the order in which they are told. */
export function fieldsOf(mapping: PortMapping): Omit<
  MappingFields,
  "elapsedMs"
> {
  const { protocol, via, gateway, internal, external, remote, lifetimeSeconds } = mapping;
  const peer = remote === undefined ? {} : { remote };
  return { protocol, via, gateway, internal, external, ...peer, lifetimeSeconds };
}
