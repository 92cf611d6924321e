/**
 * NAT-PMP alone (RFC 6886), as promises over the machine in `core/natpmp/client.ts`.
 *
 * @module
 */
import { pickDefined } from "../../core/defined.ts";
import type { SavedState } from "../../core/lease/saved.ts";
import type { Endpoint } from "../../core/machine.ts";
import type { MappingRequest, Transport } from "../../core/mapping.ts";
import {
  NatPmpClient as NatPmpMachine,
  type NatPmpEvent,
  type NatPmpMapping,
} from "../../core/natpmp/client.ts";
import type { Runtime } from "../runtime.ts";
import type { MappingHandle } from "./mapping_handle.ts";
import { parseGateway } from "./options.ts";
import { failureError, openClient, SingleClient } from "./single_client.ts";
import { checkOptions, type WaitOptions } from "./wait.ts";

/** How to open a {@linkcode NatPmpClient}. */
export interface NatPmpClientOptions {
  /** The gateway: `"192.168.1.1"`, `"192.168.1.1:5351"` or an endpoint. IPv4 only. */
  readonly gateway: string | Endpoint;
  /** The address of this host from which the gateway is asked. */
  readonly internalAddress?: string;
  /** What {@linkcode NatPmpClient.exportState} gave in an earlier run. */
  readonly state?: SavedState;
  /** Whether to listen for the gateway's announcements. Default true. */
  readonly announcements?: boolean;
  /** The runtime's adapter. Default: the one that is running. */
  readonly runtime?: Runtime;
}

/**
 * A NAT-PMP client.
 *
 * @example
 * ```ts
 * import { NatPmpClient } from "@natkit/natkit";
 * import { startGateway } from "@natkit/natkit/testing";
 *
 * await using gateway = await startGateway({ listen: "127.0.0.1", port: 0 });
 * await using client = await NatPmpClient.open({ gateway: gateway.endpoint });
 * const address = await client.externalAddress();
 * await using handle = await client.map({ protocol: "udp", internalPort: 5000 });
 * console.assert(handle.mapping.externalAddress === address);
 * ```
 */
export class NatPmpClient extends SingleClient<NatPmpMapping, NatPmpMachine> {
  /**
   * Opens the socket to the gateway.
   *
   * @throws {TypeError} On a gateway, an address or a state that is not one.
   * @throws {NatError} `permission`, `network`.
   */
  static async open(options: NatPmpClientOptions): Promise<NatPmpClient> {
    const gateway = parseGateway(checkOptions(options).gateway);
    const opened = await openClient<NatPmpMapping, NatPmpMachine>(
      "nat-pmp",
      gateway,
      options,
      (_, random) => new NatPmpMachine({ gateway, random, ...pickDefined(options, "state") }),
    );
    return new NatPmpClient(...opened);
  }

  /**
   * Asks for a mapping (RFC 6886 §3.3).
   *
   * @throws {TypeError | RangeError} On a request that no gateway could grant.
   * @throws {NatError} `refused`, `no-answer`, `unsupported`…
   */
  map(request: MappingRequest, options: WaitOptions = {}): Promise<MappingHandle<NatPmpMapping>> {
    const name = `port ${request?.internalPort}/${request?.protocol}`;
    return this.hold(name, options, (machine, now) => machine.map(request, now));
  }

  /**
   * The gateway's external address (RFC 6886 §3.2).
   *
   * @throws {NatError} `no-answer`, `refused`, `unsupported`.
   */
  externalAddress(options: WaitOptions = {}): Promise<string> {
    const what = "tell the external address";
    return this.ask<string>(
      what,
      options,
      (machine, now) => machine.probe(now),
      (event, settle) => {
        const told = event as NatPmpEvent;
        if (told.type === "external-address") settle.resolve(told.address);
        if (told.type === "external-address-failed") throw failureError(what, told.failure);
      },
    );
  }

  /**
   * Deletes all of this host's mappings of one protocol, whoever made them (RFC 6886 §3.4).
   *
   * @throws {NatError} `no-answer`, `refused`, `unsupported`.
   */
  async unmapAll(protocol: Transport, options: WaitOptions = {}): Promise<void> {
    const what = `unmap all ${protocol} ports`;
    await this.ask<void>(
      what,
      options,
      (machine, now) => machine.revokeAll(protocol, now),
      (event, settle) => {
        const told = event as NatPmpEvent;
        if (told.type !== "all-unmapped" || told.protocol !== protocol) return;
        if (told.failure) throw failureError(what, told.failure);
        settle.resolve();
      },
    );
  }
}
