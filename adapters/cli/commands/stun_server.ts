/**
 * `natkit stun-server`: a STUN server on real sockets.
 *
 * @module
 */
import { dropUndefined } from "../../../core/defined.ts";
import { formatEndpoint } from "../../../core/ip.ts";
import { startStunServer } from "../../stun_server.ts";
import { isInUse } from "../../udp.ts";
import type { Context } from "../command.ts";
import { CommandError } from "../output.ts";
import { checkOneFamily, STUN_PORT } from "../values.ts";

const DEFAULT_LISTEN = "0.0.0.0";

/** Runs the command; answers the exit status. */
export async function run({ flags, output, runtime, stop }: Context): Promise<number> {
  const { alternate } = flags;
  const listen = { address: DEFAULT_LISTEN, port: STUN_PORT, ...flags.listen };
  if (alternate) {
    checkOneFamily([["--listen", listen.address], ["--alternate", alternate.address]]);
  }
  const server = await startStunServer({
    listen,
    ...dropUndefined({ alternate }),
    runtime,
    onSocketError: (error) => output.warn(error instanceof Error ? error.message : String(error)),
  }).catch((error: unknown) => {
    if (isInUse(error)) {
      const at = formatEndpoint(listen);
      throw new CommandError("address-in-use", `Cannot listen on ${at}: the port is in use`);
    }
    throw error;
  });
  try {
    output.event({
      event: "listening",
      ...server.endpoint,
      ...dropUndefined({ alternate: server.alternate }),
      tcp: server.tcp,
    });
    if (alternate && !server.alternate) {
      output.warn(
        "--alternate cannot be used: not all of the four sockets could be opened. " +
          "NAT behaviour discovery is off",
      );
    }
    await new Promise<void>((resolve) => {
      if (stop.aborted) resolve();
      else stop.addEventListener("abort", () => resolve());
    });
    return 0;
  } finally {
    await server.close();
  }
}
