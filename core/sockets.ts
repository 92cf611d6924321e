/**
 * When a socket that a machine lists is one that is open already: what every driver goes by.
 *
 * @module
 */
import { isSameEndpoint } from "./ip.ts";
import type { Endpoint, SocketSpec } from "./machine.ts";

/**
 * Whether `wanted` is the socket that was opened as `opened` says.
 *
 * @param bound Where it is bound, once it is open: a free port may be named from then on.
 */
export function isSameSocket(wanted: SocketSpec, opened: SocketSpec, bound?: Endpoint): boolean {
  const { local } = wanted;
  return wanted.key === opened.key && wanted.kind === opened.kind &&
    wanted.group === opened.group && wanted.interface === opened.interface &&
    wanted.reuse === opened.reuse && isSameEndpoint(wanted.connect, opened.connect) &&
    (isSameEndpoint(local, opened.local) ||
      (opened.local?.address === local?.address && opened.local?.port === 0 &&
        local?.port === bound?.port));
}
