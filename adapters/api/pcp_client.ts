/**
 * PCP alone (RFC 6887), with all that the protocol can do, as promises over the machine in
 * `core/pcp/client.ts`.
 *
 * @module
 */
import { pickDefined } from "../../core/defined.ts";
import type { SavedState } from "../../core/lease/saved.ts";
import type { Endpoint } from "../../core/machine.ts";
import type { MappingRequest } from "../../core/mapping.ts";
import {
  PcpClient as PcpMachine,
  type PcpEvent,
  type PcpMapping,
  type PcpPeerRequest,
} from "../../core/pcp/client.ts";
import type { Runtime } from "../runtime.ts";
import type { MappingHandle } from "./mapping_handle.ts";
import { parseGateway } from "./options.ts";
import { failureError, openClient, SingleClient } from "./single_client.ts";
import { checkOptions, type WaitOptions } from "./wait.ts";

/** How to open a {@linkcode PcpClient}. */
export interface PcpClientOptions {
  /** The server: `"192.168.1.1"`, `"192.168.1.1:5351"`, `"[fe80::1%eth0]:5351"`, an endpoint. */
  readonly server: string | Endpoint;
  /** The address of this host from which the server is asked. */
  readonly internalAddress?: string;
  /** What {@linkcode PcpClient.exportState} gave in an earlier run; its mappings are adopted. */
  readonly state?: SavedState;
  /** Whether to listen for the server's announcements. Default true. */
  readonly announcements?: boolean;
  /** Retransmits first requests after 250 and 750 ms rather than 3 s. Default true. */
  readonly fastStart?: boolean;
  /** The runtime's adapter. Default: the one that is running. */
  readonly runtime?: Runtime;
}

/**
 * A PCP client: MAP, PEER, ANNOUNCE and all options, IPv4 and IPv6.
 *
 * @example
 * ```ts
 * import { PcpClient } from "@natkit/natkit";
 * import { startGateway } from "@natkit/natkit/testing";
 *
 * await using gateway = await startGateway({ listen: "127.0.0.1", port: 0 });
 * await using client = await PcpClient.open({ server: gateway.endpoint });
 * await using handle = await client.map({ protocol: 6, internalPort: 8080 });
 * console.assert(handle.mapping.state === "running");
 * ```
 */
export class PcpClient extends SingleClient<PcpMapping, PcpMachine> {
  /**
   * Opens the socket to the server.
   *
   * @throws {TypeError} On a server, an address or a state that is not one.
   * @throws {NatError} `permission`, `network`.
   */
  static async open(options: PcpClientOptions): Promise<PcpClient> {
    const gateway = parseGateway(checkOptions(options).server, "server");
    const opened = await openClient<PcpMapping, PcpMachine>(
      "pcp",
      gateway,
      options,
      (localAddress, random) =>
        new PcpMachine({
          servers: [gateway],
          localAddress,
          random,
          ...pickDefined(options, "state", "fastStart"),
        }),
    );
    return new PcpClient(...opened);
  }

  /**
   * Asks for an inbound mapping (RFC 6887 §11).
   *
   * @throws {TypeError | RangeError} On a request that no server could grant.
   * @throws {NatError} `refused`, `no-answer`, `unsupported`…
   */
  map(request: MappingRequest, options: WaitOptions = {}): Promise<MappingHandle<PcpMapping>> {
    return this.hold(nameOf(request), options, (machine, now) => machine.map(request, now));
  }

  /**
   * Asks for an outbound mapping (RFC 6887 §12).
   *
   * @throws {TypeError | RangeError} On a request that no server could grant.
   * @throws {NatError} As {@linkcode PcpClient.map}.
   */
  peer(request: PcpPeerRequest, options: WaitOptions = {}): Promise<MappingHandle<PcpMapping>> {
    const name = `${nameOf(request)} to a peer`;
    return this.hold(name, options, (machine, now) => machine.peer(request, now));
  }

  /**
   * Asks whether the server is there, without changing anything (ANNOUNCE, RFC 6887 §14.1.2).
   *
   * @returns The server's epoch, seconds.
   * @throws {NatError} `no-answer` and the like.
   */
  announce(options: WaitOptions = {}): Promise<number> {
    const what = "reach the PCP server";
    return this.ask<number>(
      what,
      options,
      (machine, now) => machine.probe(now),
      (event, settle) => {
        const told = event as PcpEvent;
        if (told.type === "announced") settle.resolve(told.epochSeconds);
        if (told.type === "announce-failed") throw failureError(what, told.failure);
      },
    );
  }
}

/** The port for the message of an error. */
function nameOf(request: MappingRequest): string {
  return `port ${request?.internalPort} of protocol ${request?.protocol}`;
}
