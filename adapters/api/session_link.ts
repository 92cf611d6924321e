/**
 * A {@linkcode Link} whose machine is a gateway session, and what its failures are called.
 *
 * @module
 */
import { pickDefined } from "../../core/defined.ts";
import { type Attempt, NatError, type Via } from "../../core/errors.ts";
import type { Endpoint, Instant } from "../../core/machine.ts";
import { describeFailure, type Failure, type MappingId } from "../../core/mapping.ts";
import { codeOf, gatewayText } from "../../core/portmap/claim.ts";
import type { GrantedMapping, SessionEvent } from "../../core/portmap/events.ts";
import type { SavedMapping } from "../../core/portmap/saved.ts";
import { GatewaySession } from "../../core/portmap/session.ts";
import type { Runtime } from "../runtime.ts";
import { Link } from "./link.ts";
import type { RequestFailure } from "./link_types.ts";
import type { NatOptions } from "./options.ts";
import type { WaitOptions } from "./wait.ts";

/** The lifetime of the mapping by which PCP tells the external address, seconds. */
const ADDRESS_LIFETIME_SECONDS = 120;

/** The external address, as one protocol tells it. */
export interface ExternalAddress {
  /** The protocol. */
  readonly via: Via;
  /** The address. */
  readonly address: string;
  /** The gateway, as text that starts with its address. */
  readonly gateway: string;
}

/** A gateway session on real sockets. */
export type SessionLink = Link<GrantedMapping, GatewaySession>;

/** Opens the socket and starts the session. */
export function openSessionLink(
  runtime: Runtime,
  gateway: Endpoint,
  options: NatOptions,
  saved: readonly SavedMapping[],
): Promise<SessionLink> {
  const { internalAddress: bindAddress } = options;
  return Link.open<GrantedMapping, GatewaySession>({
    runtime,
    gateway,
    ...pickDefined(options, "announcements"),
    ...(bindAddress === undefined ? {} : { bindAddress }),
  }, {
    create: (localAddress, at) =>
      new GatewaySession({
        gateway: at,
        localAddress,
        random: runtime.random,
        saved: saved.filter((mapping) => mapping.gateway === at.address),
        ...pickDefined(options, "protocols", "fastStart"),
      }),
    networkChanged: (session, localAddress, now) => session.networkChanged(localAddress, now),
    explain,
  });
}

/** The external address by PCP, which tells it with a mapping: a short one of our own port. */
export async function addressByPcp(
  link: SessionLink,
  since: Instant,
  options: WaitOptions,
): Promise<ExternalAddress> {
  const held = await link.request({
    what: "tell the external address",
    since,
    goal: "mapped",
    // The one port that surely nobody else uses is that of our own socket (PCP-C-34).
    start: (session, now) =>
      session.map({
        protocol: "udp",
        internalPort: link.localPort,
        lifetimeSeconds: ADDRESS_LIFETIME_SECONDS,
        mode: "once",
        protocols: ["pcp"],
      }, now),
  }, options);
  const { address } = held.mapping!.external;
  await link.revoke(held);
  return { via: "pcp", address, gateway: gatewayText(link.gateway) };
}

/** The external address by NAT-PMP. */
export async function addressByNatPmp(
  link: SessionLink,
  runtime: Runtime,
  since: Instant,
  options: WaitOptions,
): Promise<ExternalAddress> {
  const gateway = gatewayText(link.gateway);
  const toError = (failure: Failure) => {
    const elapsedMs = runtime.now() - since;
    const outcome = describeFailure(failure);
    const attempts: Attempt[] = [{ via: "nat-pmp", gateway, outcome, elapsedMs }];
    return new NatError(codeOf(failure), "Cannot tell the external address", { attempts });
  };
  const address = await link.answer(
    options,
    () => toError({ kind: "no-answer" }),
    (session, now) => session.externalAddress(now),
    (event) => {
      const told = event as SessionEvent;
      if (told.type === "external-address-failed") throw toError(told.failure);
      return told.type === "external-address" ? told.address : undefined;
    },
  );
  return { via: "nat-pmp", address, gateway };
}

/** What a failed request of a session came to. */
function explain(
  session: GatewaySession,
  id: MappingId,
  event: unknown,
  since: Instant,
  now: Instant,
): RequestFailure {
  const last = event as SessionEvent | undefined;
  if (last?.type === "failed") return last;
  if (last?.type === "unmapped") {
    const { failure, attempts } = last;
    return { code: failure?.kind === "refused" ? "refused" : "no-answer", attempts };
  }
  const attempts = session.attempts(id, now).map((attempt) =>
    attempt.outcome === "no answer" ? { ...attempt, elapsedMs: now - since } : attempt
  );
  return { code: "no-answer", attempts };
}
