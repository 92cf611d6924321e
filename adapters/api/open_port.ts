/**
 * The shortest way to an open port.
 *
 * @module
 */
import type { MapOptions, NatOptions } from "./options.ts";
import { PortContext } from "./port_context.ts";
import type { PortMapping } from "./port_mapping.ts";

/**
 * Opens a port at this host's gateway and keeps it open until it is closed.
 *
 * @param port The port that the application listens on, 1…65535.
 * @throws {TypeError | RangeError} On options that no gateway could grant.
 * @throws {NatError} With a `code`, and what was tried by each protocol at each gateway.
 *
 * @example
 * ```ts
 * import { openPort } from "@natkit/natkit";
 * import { startGateway } from "@natkit/natkit/testing";
 *
 * await using gateway = await startGateway({ listen: "127.0.0.1", port: 0 });
 * await using port = await openPort(25565, { gateway: gateway.endpoint });
 * console.log(`${port.external.address}:${port.external.port} via ${port.via}`);
 * ```
 */
export async function openPort(
  port: number,
  options: NatOptions & MapOptions = {},
): Promise<PortMapping> {
  const context = await new PortContext(options).find();
  try {
    return (await context.map(port, options)).owning(context);
  } catch (error) {
    await context.close();
    throw error;
  }
}
