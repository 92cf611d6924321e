/**
 * What opens ports, and nothing else: this host's gateways, found and followed, and the mapper that
 * holds mappings there. `openPort` needs no more, and a bundle of it gets no more.
 *
 * @module
 */
import { checkAddress, checkCallback } from "../../core/check.ts";
import { pickDefined } from "../../core/defined.ts";
import { NatError } from "../../core/errors.ts";
import { familyOf } from "../../core/ip.ts";
import { codeInTime, codeOf, describeFailure, retryAfter } from "../../core/mapping.ts";
import { PCP_PORT } from "../../core/pcp/constants.ts";
import type { GrantedMapping, MapperEvent } from "../../core/portmap/managed.ts";
import { gatewayText } from "../../core/portmap/gateway.ts";
import { PortMapper } from "../../core/portmap/mapper.ts";
import type { NetworkPath } from "../../core/portmap/path.ts";
import { systemRuntime } from "../auto.ts";
import { callBack } from "../callback.ts";
import { explainDetour, gatewayNotFound, readNetwork, sourceToward } from "../discovery/mod.ts";
import { Driver } from "../driver.ts";
import type { Runtime } from "../runtime.ts";
import type { RequestFailure } from "./attempts_error.ts";
import { Connection, type MachineRequest } from "./connection.ts";
import { watchNetwork } from "./network_watch.ts";
import {
  checkProtocols,
  checkState,
  type MapOptions,
  type NatOptions,
  type NatState,
  parseGateway,
  toPortRequest,
  withOptionNames,
} from "./options.ts";
import { type MapperConnection, PortMapping } from "./port_mapping.ts";
import { loadedUpnp, loadUpnp, prepareForAnswer } from "./upnp_code.ts";
import { checkOptions, waitFor, type WaitOptions } from "./wait.ts";

/** This host's gateways, and the ports that are open there. */
export class PortContext implements AsyncDisposable {
  /** @internal */
  protected readonly runtime: Runtime;
  /** @internal */
  protected readonly options: NatOptions;
  /** @internal */
  protected readonly connection: MapperConnection;
  readonly #driver: Driver<unknown, PortMapper>;
  /** What finding the gateways took, milliseconds; the first mapping counts it in. */
  #discoveryMs = 0;
  #warnings: readonly string[] = [];
  #stopWatching: (() => void) | undefined;
  #stateText = "";
  #telling: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  /** @internal */
  constructor(options: NatOptions) {
    const { runtime = systemRuntime() } = checkOptions(options);
    checkProtocols(options.protocols);
    checkCallback("onState", options.onState);
    this.runtime = runtime;
    this.options = options;
    this.connection = new Connection<GrantedMapping, PortMapper>(runtime, explain);
    const mapper = new PortMapper({
      random: runtime.random,
      saved: checkState(options.state),
      upnp: loadedUpnp() ?? "late",
      ...pickDefined(options, "protocols", "announcements", "fastStart"),
    });
    const onEvent = (told: unknown) => {
      const event = told as MapperEvent;
      if (event.type === "upnp-needed") return void this.#loadUpnp();
      this.connection.onEvent(event);
      this.#tellState();
    };
    // A nonce is handed over before the request with it leaves: without it nobody can delete what
    // the gateway makes of that, should this run end before the answer.
    let nonces = 0;
    const beforeSend = options.onState && (() => {
      if (nonces === mapper.nonces) return;
      nonces = mapper.nonces;
      return this.#tellState();
    });
    const driver = new Driver<unknown, PortMapper>(runtime, onEvent, undefined, beforeSend);
    driver.start(mapper);
    this.#driver = driver;
    this.connection.attach(driver);
  }

  /**
   * @internal
   * Finds the gateways of this host, or takes the one that is named.
   */
  async find(): Promise<this> {
    const { signal } = this.options;
    const since = this.runtime.now();
    const paths = await waitFor<NetworkPath[]>(
      this.runtime,
      { timeoutMs: Infinity, ...(signal !== undefined && { signal }) },
      () => undefined,
      (settle) => void this.#findPaths(true).then(settle.resolve, settle.reject),
    );
    this.#update(paths);
    this.#discoveryMs = this.runtime.now() - since;
    this.#stopWatching = watchNetwork(this.runtime, () => this.#onNetworkChange());
    return this;
  }

  /** The gateways, best first, as text that starts with the address. */
  get gateways(): readonly string[] {
    return this.connection.do((mapper) => mapper.gateways.map(gatewayText));
  }

  /** What stands between this host's gateways and who wants to be reached, as sentences. */
  get warnings(): readonly string[] {
    return this.#warnings;
  }

  /**
   * Opens a port: asks the gateway to send what arrives at an external endpoint to `port` of this
   * host.
   *
   * @param port The port that the application listens on, 1…65535.
   * @throws {TypeError | RangeError} On options that no gateway could grant.
   * @throws {NatError} With a `code`, and what was tried by each protocol at each gateway.
   */
  async map(port: number, options: MapOptions = {}): Promise<PortMapping> {
    const request = toPortRequest(port, options);
    return await this.hold(options, {
      name: `port ${port}/${request.protocol}`,
      start: (mapper, now) => withOptionNames(() => mapper.map(request, now)),
    });
  }

  /** What a later run needs to adopt or delete the mappings of this one. JSON-safe. */
  async exportState(): Promise<NatState> {
    return await Promise.resolve(this.#state());
  }

  /**
   * Lets the process end by itself though ports are open. They then stay at the gateway until their
   * lifetimes are over; what a call waits for keeps the process alive all the same. Deno needs
   * `--unstable-net` for it.
   */
  unref(): this {
    this.connection.unref();
    return this;
  }

  /** Keeps the process alive while the context is open, as at first. */
  ref(): this {
    this.connection.ref();
    return this;
  }

  /** Deletes all mappings it holds and closes its sockets. Never rejects. */
  close(): Promise<void> {
    return this.#closing ??= (this.#stopWatching?.(), this.connection.close());
  }

  /** {@linkcode PortContext.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #loadUpnp(): Promise<void> {
    const upnp = await loadUpnp();
    if (this.connection.isClosed) return;
    this.connection.do((mapper, now) => mapper.takeUpnp(upnp, now));
    void prepareForAnswer(() => this.#driver.usesHttp);
  }

  async #findPaths(isFirst: boolean = false): Promise<NetworkPath[]> {
    const { gateway, internalAddress } = this.options;
    const own = internalAddress === undefined
      ? undefined
      : checkAddress("internalAddress", internalAddress);
    const family = own === undefined ? undefined : familyOf(own);
    if (gateway !== undefined) {
      const named = parseGateway(gateway);
      if (family !== undefined && familyOf(named.address) !== family) {
        const text = `Cannot use the gateway: it is not of the family of 'internalAddress' ${own}`;
        throw new NatError("gateway-not-found", text);
      }
      // At first nobody waits for what the socket to it will tell anyway.
      const isTold = isFirst && familyOf(named.address) === 4 && this.runtime.addressToward;
      if (isTold && own === undefined) return [{ gateway: named, isNamed: true }];
      const source = own ?? await sourceToward(this.runtime, named.address);
      return [{ gateway: named, isNamed: true, ...toSource(source, own !== undefined) }];
    }
    const network = await readNetwork(this.runtime);
    this.#warnings = network.detours.map(explainDetour);
    const found = network.gateways.filter((one) => family === undefined || one.family === family);
    if (found.length === 0) throw gatewayNotFound(network, family);
    return found.map(({ address, localAddress, interface: name }) => ({
      gateway: { address, port: PCP_PORT },
      ...(name === undefined ? {} : { interface: name }),
      ...toSource(own ?? localAddress, own !== undefined),
    }));
  }

  #update(paths: readonly NetworkPath[]): void {
    this.connection.do((mapper, now) => mapper.networkChanged(paths, now));
  }

  /**
   * @internal
   * Whether it is closed, or about to be.
   */
  protected get isClosing(): boolean {
    return this.#closing !== undefined;
  }

  /**
   * @internal
   * What else there is to read where the network has changed.
   */
  protected readMore(): Promise<void> {
    return Promise.resolve();
  }

  /** False where nothing is connected: the gateways of before may come back. */
  async #onNetworkChange(): Promise<boolean> {
    const [paths] = await Promise.all([
      this.#findPaths().catch(() => undefined),
      this.readMore(),
    ]);
    if (!paths || this.#closing) return false;
    this.#update(paths);
    return true;
  }

  /**
   * @internal
   * Waits for a mapping.
   */
  protected async hold(
    options: WaitOptions,
    job: Pick<MachineRequest<PortMapper>, "name" | "start">,
  ): Promise<PortMapping> {
    const since = this.runtime.now() - this.#discoveryMs;
    this.#discoveryMs = 0;
    const held = await this.connection.request({ ...job, since, verb: "map" }, options);
    return new PortMapping(this.connection, held, this.runtime.now() - since);
  }

  #state(): NatState {
    const mappings = this.connection.do((mapper) => mapper.exportSaved());
    return { version: 1, mappings };
  }

  /** What it returns is done once the state as it is has been taken, whenever that was told. */
  #tellState(): Promise<void> | undefined {
    const { onState } = this.options;
    if (!onState) return undefined;
    const state = this.#state();
    const text = JSON.stringify(state);
    if (text !== this.#stateText) {
      this.#stateText = text;
      this.#telling = callBack(() => onState(state));
    }
    return this.#telling;
  }
}

/**
 * From where a gateway is asked. Over IPv6 a mapping is for a global address that stays, which the
 * system would not choose by itself (PCP-C-24); over IPv4 it is left to the system, as long as its
 * choice is the same.
 */
function toSource(
  address: string | undefined,
  isNamed: boolean,
): Pick<NetworkPath, "localAddress" | "way"> {
  if (address === undefined) return {};
  return isNamed || familyOf(address) === 6 ? { localAddress: address } : { way: address };
}

/** What a failed request of a mapper came to. */
function explain(
  mapper: PortMapper,
  id: number,
  event: unknown,
  since: number,
  now: number,
): RequestFailure {
  const last = event as MapperEvent | undefined;
  if (last?.type === "failed") return last;
  if (last?.type === "renewal-failed") {
    const { failure } = last;
    const held = mapper.mapping(id);
    const attempts = held
      ? [{
        via: held.via,
        gateway: gatewayText(held.gateway),
        outcome: describeFailure(failure),
        elapsedMs: now - since,
      }]
      : mapper.attempts(id, now);
    return { code: codeOf(failure), attempts, ...retryAfter(failure, now) };
  }
  if (last?.type === "unmapped") {
    const { failure, attempts } = last;
    return { code: failure?.kind === "refused" ? "refused" : "no-answer", attempts };
  }
  const attempts = mapper.attempts(id, now).map((attempt) =>
    attempt.outcome === "no answer" ? { ...attempt, elapsedMs: now - since } : attempt
  );
  return { code: codeInTime(attempts), attempts };
}
