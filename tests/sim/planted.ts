/**
 * Bugs to plant in the clients, one at a time, by hand: the simulation has to find each. Each changes
 * one place of one source, which has to stand there exactly once; where the sources move on, the list
 * moves with them.
 *
 * @module
 */

/** A bug to plant. */
export interface PlantedBug {
  /** In words: what the client does wrong. */
  readonly name: string;
  readonly file: string;
  readonly find: string;
  readonly replace: string;
  /** A seed that has found it, where the first ones do not: it is tried first. */
  readonly seed: number | undefined;
}

const bug =
  (file: string) => (name: string, find: string, replace: string, seed?: number): PlantedBug => ({
    name,
    file,
    find,
    replace,
    seed,
  });

const backoff = bug("core/backoff.ts");
const keeper = bug("core/lease/keeper.ts");
const leaseClient = bug("core/lease/client.ts");
const lease = bug("core/lease/lease.ts");
const savedLease = bug("core/lease/saved.ts");
const natPmp = bug("core/natpmp/client.ts");
const natPmpEpoch = bug("core/natpmp/epoch.ts");
const natPmpQueue = bug("core/natpmp/queue.ts");
const pcp = bug("core/pcp/client.ts");
const pcpAnswers = bug("core/pcp/answers.ts");
const pcpEpoch = bug("core/pcp/epoch.ts");
const pcpRequest = bug("core/pcp/request.ts");
const pcpTransport = bug("core/pcp/transport.ts");
const race = bug("core/portmap/race.ts");
const managed = bug("core/portmap/managed.ts");
const path = bug("core/portmap/path.ts");
const mapper = bug("core/portmap/mapper.ts");
const upnp = bug("core/upnp/client.ts");

/** All of them. */
export const PLANTED: readonly PlantedBug[] = [
  // ---- When ----
  backoff("PCP renews at 3/4", "const start = 1 - 2 ** -k;", "const start = 1 - 2 ** -(k + 1);"),
  natPmp(
    "NAT-PMP's first renewal is at 3/4",
    "renewalFraction: (attempt) => 1 - 2 ** -attempt,",
    "renewalFraction: (attempt) => 1 - 2 ** -(attempt + 1),",
  ),
  pcpAnswers(
    "PCP repeats a refused request after 5 s",
    "return 1000 * Math.min(MAX_SCHEDULED_LIFETIME_SECONDS, kept);",
    "return Math.min(5000, 1000 * kept);",
  ),
  natPmp(
    "NAT-PMP repeats a refused request after 5 s",
    "const retryAt = now + (isShort ? SHORT_REFUSAL_MS : LONG_REFUSAL_MS);",
    "const retryAt = now + 5000 + 0 * (isShort ? SHORT_REFUSAL_MS : LONG_REFUSAL_MS);",
  ),
  keeper(
    "PCP makes mappings again without a random delay",
    "const at = together ?? now + uniform(this.#random, 0, RECREATION_DELAY_MS);",
    "const at = together ?? now;",
  ),
  keeper(
    "NAT-PMP makes mappings again without a random delay",
    "return now + uniform(this.#random, 0, RECREATION_DELAY_MS);",
    "return now;",
  ),
  backoff(
    "PCP backs off no further than 6 s",
    ": Math.min(2 * previousMs, PCP_MRT_MS);",
    ": Math.min(2 * previousMs, 6000);",
  ),
  backoff(
    "PCP does not back off at all",
    ": Math.min(2 * previousMs, PCP_MRT_MS);",
    ": previousMs;",
  ),
  backoff(
    "NAT-PMP gives up after 5 attempts",
    "export const NATPMP_MAX_ATTEMPTS = 9;",
    "export const NATPMP_MAX_ATTEMPTS = 5;",
  ),
  backoff(
    "NAT-PMP's waits do not double",
    "return 250 * 2 ** (Math.min(attempt, NATPMP_MAX_ATTEMPTS) - 1);",
    "return 250 * Math.min(attempt, NATPMP_MAX_ATTEMPTS);",
  ),
  backoff(
    "renewals follow each other within 4 s",
    "export const MIN_RENEWAL_GAP_MS = 4000;",
    "export const MIN_RENEWAL_GAP_MS = 0;",
  ),
  natPmp(
    "NAT-PMP believes in four times the lifetime",
    "this.keeper.granted(lease, { external, lifetimeSeconds }, now);",
    "this.keeper.granted(lease, { external, lifetimeSeconds: 4 * lifetimeSeconds }, now);",
  ),
  pcp(
    "PCP asks for something new although there are no resources",
    "      this.#noResources && { until: this.#noResources.retryAt, failure: this.#noResources },",
    "      undefined,",
    37,
  ),
  natPmpQueue(
    "NAT-PMP sends the next request before the last is answered",
    "    if (this.#current) return;\n    const job",
    "    const job",
  ),
  keeper(
    "a mapping that has rested is not asked for again",
    '    lease.phase = "resting";\n    lease.dueAt = until;',
    '    lease.phase = "resting";\n    lease.dueAt = undefined;',
  ),
  keeper(
    "what rests after silence is not asked for when the gateway announces itself",
    "      lease.notBefore = undefined;\n      this.#recover(lease, together, now);\n    }\n  }\n\n" +
      "  /** A request on its way",
    "      lease.notBefore = undefined;\n    }\n  }\n\n  /** A request on its way",
    17,
  ),
  // ---- What is said ----
  pcpRequest(
    "PCP's renewals suggest nothing",
    "const suggested = wanted.preferFailure ? undefined : lease.remembered;",
    "const suggested = undefined;",
  ),
  natPmpQueue(
    "NAT-PMP's renewals suggest nothing",
    "suggestedExternalPort: lease.remembered?.port || lease.wanted.suggestedPort,",
    "suggestedExternalPort: lease.wanted.suggestedPort,",
  ),
  lease(
    "a tenth of the wanted lifetime is asked for",
    "return Math.max(1, Math.min(this.lifetimeSeconds, leftSeconds));",
    "return Math.max(1, Math.min(Math.ceil(this.lifetimeSeconds / 10), leftSeconds));",
  ),
  pcpRequest(
    "PCP's renewals forget the nonce",
    "    nonce: fromHex(lease.nonce!),\n    lifetimeSeconds: lease.lifetimeToAsk(now),",
    "    nonce: lease.grant ? new Uint8Array(12) : fromHex(lease.nonce!),\n" +
      "    lifetimeSeconds: lease.lifetimeToAsk(now),",
  ),
  pcp(
    "every mapping has the same nonce",
    "    this.#random.fill(nonce);\n    return toHex(nonce);",
    "    nonce.fill(7, 0, 11);\n    return toHex(nonce);",
  ),
  pcp(
    "a retransmission has other bytes",
    'this.outbox.send("client", this.#servers.current, request.packet, lease.id);',
    "const packet = request.packet.slice();\n" +
      "    if (request.sends > 1) packet[59] = packet[59]! ^ 1;\n" +
      '    this.outbox.send("client", this.#servers.current, packet, lease.id);',
  ),
  natPmpQueue(
    "NAT-PMP maps another port than it was asked to",
    "        internalPort: lease.wanted.internalPort,",
    "        internalPort: lease.wanted.internalPort ^ 0x80,",
  ),
  pcpRequest(
    "filters are lost",
    "    pushFilters(options, wanted, details);\n",
    "",
  ),
  pcpRequest(
    "filters are added to those that are there",
    "replacesFilters: lease.mayHaveFilters,",
    "replacesFilters: false,",
  ),
  pcpRequest(
    "a deletion does not name the host that it is for",
    "if (wanted.thirdParty !== undefined) {",
    "if (wanted.thirdParty !== undefined && !isDelete) {",
  ),
  pcpRequest(
    "PREFER_FAILURE is forgotten",
    'if (wanted.preferFailure) options.push({ type: "prefer-failure" });',
    "",
  ),
  // ---- Deletions ----
  keeper(
    "what is revoked during a renewal is not deleted",
    "const mayExist = now < lease.mayExistUntil && !this.#leaving.has(lease.key);",
    "const mayExist = now < lease.mayExistUntil && !this.#leaving.has(lease.key) &&\n" +
      '      lease.phase !== "renewing";',
    40,
  ),
  keeper(
    "what was refused at first is deleted",
    '    if (failure.kind === "refused" && lease.mayExistUntil < Infinity) {\n' +
      "      lease.mayExistUntil = -Infinity;\n    }\n",
    "",
    39,
  ),
  pcp(
    "PCP's deletion is sent once only",
    "if (this.#servers.hasAnswered) return DELETE_ATTEMPTS;",
    "if (this.#servers.hasAnswered) return 1;",
    23,
  ),
  natPmpQueue(
    "NAT-PMP's deletion is sent once only",
    "return this.isGatewaySilent ? 1 : DELETE_ATTEMPTS;",
    "return 1;",
  ),
  natPmpQueue(
    "NAT-PMP's deletion is none",
    "        suggestedExternalPort: 0,\n        lifetimeSeconds: 0,",
    "        suggestedExternalPort: 0,\n        lifetimeSeconds: 60,",
  ),
  natPmpQueue(
    "NAT-PMP deletes what it has never asked for",
    "    exchange.job.lease.mayExistUntil = exchange.mayHaveExistedUntil;\n",
    "",
    261,
  ),
  natPmpQueue(
    "NAT-PMP's deletion suggests a port",
    "        suggestedExternalPort: 0,\n        lifetimeSeconds: 0,",
    "        suggestedExternalPort: internalPortOf(job),\n        lifetimeSeconds: 0,",
  ),
  pcpRequest(
    "PCP's deletion is none",
    "    lifetimeSeconds: 0,\n    localAddress,",
    "    lifetimeSeconds: 120,\n    localAddress,",
  ),
  // ---- Whom to believe ----
  pcp(
    "answers with a foreign nonce are believed",
    "if (wanted?.nonce === nonce) return wanted;",
    "if (wanted) return wanted;",
  ),
  natPmp(
    "NAT-PMP believes answers from any port",
    "const isFromServer = from.port === this.#gateway.port;",
    "const isFromServer = from.port > 0;",
  ),
  pcpTransport(
    "PCP believes answers from any port",
    "  if (server.port !== from.port) return false;\n",
    "",
  ),
  natPmp(
    "NAT-PMP believes who is not the gateway",
    'if (!mayBeOf(this.#gateway, from)) return this.#dropped("wrong-source");',
    "",
  ),
  pcpTransport(
    "PCP believes who is not the server",
    'return this.#list.some((server) => isSame(server, from)) ? "other" : undefined;',
    'return "current";',
  ),
  natPmp(
    "the wrong external port is read",
    'const external = { address: this.#address.known ?? "", port };',
    'const external = { address: this.#address.known ?? "", port: port ^ 1 };',
  ),
  // ---- Epochs ----
  natPmpEpoch("NAT-PMP's epoch rule is too strict", "/ 1000 - 2", "/ 1000 - 1"),
  natPmpEpoch("NAT-PMP's epoch rule is too lax", "/ 1000 - 2", "/ 1000 - 3"),
  natPmpEpoch("NAT-PMP is deaf to the epoch", "return current >=", "return true || current >="),
  pcpEpoch("PCP's epoch rule is too strict", "serverDelta < -1", "serverDelta < 0", 37),
  pcpEpoch("PCP's epoch rule is too lax", "serverDelta + 2 >=", "serverDelta + 3 >=", 13),
  pcpEpoch("PCP is deaf to the epoch", "if (serverDelta < -1) return false;", "return true;"),
  // ---- What is kept ----
  savedLease(
    "the nonce is lost in what is saved",
    "    ...(nonce && { nonce }),\n",
    "",
    23,
  ),
  savedLease(
    "the port is lost in what is saved",
    "const { wanted, nonce, remembered: external } = lease;",
    "const { wanted, nonce } = lease, external = undefined as Endpoint | undefined;",
  ),
  managed(
    "a mapper loses the nonce in what it saves",
    "    ...(nonce && { nonce }),\n",
    "",
    17,
  ),
  // ---- Mappers ----
  race(
    "what PCP lost is never tried by NAT-PMP",
    "    for (const contender of starting) this.#startInTurn(managed, contender, now);",
    "    for (const contender of starting) {\n" +
      '      const isLate = PROTOCOLS[contender.speaker.via]!.begins !== "map";\n' +
      "      if (!managed.isLost || !isLate) this.#startInTurn(managed, contender, now);\n" +
      "    }",
  ),
  race(
    "what another gateway was asked is forgotten when one has won",
    "    else client.revoke(contender.id!, now);",
    "    else client.abandon(contender.id!, now);",
    14,
  ),
  race(
    "the next gateway waits for a silent one",
    "    if (hasMore) managed.nextGatewayAt = now + STAGGER_MS;\n",
    "",
    28,
  ),
  race(
    "what is lost where all are out is never tried anew",
    "??= now + RERACE_MS;\n    else if (managed.isLost) managed.retryAt = now + RERACE_MS;",
    "??= now + RERACE_MS;\n    else if (managed.isLost) managed.retryAt = undefined;",
  ),
  race(
    "who is out is tried again sixteen times a second",
    "const RERACE_MS = 60_000;",
    "const RERACE_MS = 60;",
  ),
  managed(
    "a mapping is told as of the wrong host",
    "this.#internalAddress = this.request.thirdParty ?? maker.path.local!.address;",
    "this.#internalAddress = this.request.thirdParty ?? maker.path.gateway.address;",
  ),
  path(
    "another address of this host is not told to the clients",
    "    for (const { client } of this.speakers) client.networkChanged(local.address, now);\n",
    "",
  ),
  mapper(
    "what a gateway that is left held is not told as lost",
    "if (isHeldThere) this.#lost(managed, UNREACHABLE, undefined, now);",
    "if (isHeldThere) managed.isLost = true;",
  ),
  mapper(
    "who no longer speaks PCP is asked by it in the next race",
    "      holder.refusedUntil = refusedUntil(failure, retryAt);\n",
    "",
    105,
  ),
  mapper(
    "a lost mapping does not join new gateways",
    'if (managed.phase === "racing") {\n          this.#joinAll(managed, now);',
    'if (managed.phase === "racing") {\n          if (!managed.isLost) this.#joinAll(managed, now);',
  ),
  mapper(
    "the end of one part is the end of all",
    "      if (managed.contenders.some(({ id }) => id !== undefined)) return;\n",
    "",
    84,
  ),
  mapper(
    "a close deletes what is asked for alone",
    "if (managed.isWanted) this.#revoke(managed, now);",
    'if (managed.phase === "racing") this.#revoke(managed, now);',
  ),
  mapper(
    "what a loser is granted is told",
    '    if (contender.state === "beaten") {\n      contender.latePort',
    '    if (contender.state === "out") {\n      contender.latePort',
    25,
  ),
  mapper(
    "a gateway that was left is used on",
    "      path.leavingUntil = now + LEAVING_MS;\n",
    "",
  ),
  race(
    "who was ever refused is left out of all later races",
    'if (isItsTurn && refusedUntil <= now) contender.state = "waiting";',
    'if (isItsTurn && refusedUntil === -Infinity) contender.state = "waiting";',
    10,
  ),
  race(
    "whom a refusal sent around is asked again in the next race, before its time",
    "    contender.refusedUntil = refusedUntil(failure, retryAt);\n",
    "",
    30,
  ),
  managed(
    "what another gateway granted is demanded of the next one",
    "? { remembered: { address, port } }",
    "? { suggestedExternal: { address, port } }",
    8,
  ),
  // ---- UPnP ----
  mapper(
    "what UPnP is answered reaches nobody",
    "    asked.speaker.client.handleResponse?.(asked.id, result, now);\n",
    "",
  ),
  upnp(
    "UPnP renews after the end",
    "renewalFraction: (attempt) => 1 - 2 ** -attempt,",
    "renewalFraction: (attempt) => 1.5 - 2 ** -attempt,",
    18,
  ),
  upnp(
    "UPnP asks for a tenth of the wanted lifetime",
    "const seconds = lease.lifetimeToAsk(this.now);",
    "const seconds = Math.ceil(lease.lifetimeToAsk(this.now) / 10);",
  ),
  upnp(
    "UPnP asks for mappings without an end",
    "if (this.#habits.onlyPermanent) return 0;",
    "if (!this.#habits.onlyPermanent) return 0;",
    232,
  ),
  upnp(
    "UPnP maps to the address that this host had",
    '    this.#local = checkAddress("localAddress", localAddress, familyOf(this.#gateway.address));\n' +
      "    this.#hostMoved();",
    "    this.#hostMoved();",
  ),
  upnp(
    "UPnP takes the port that another mapping of this host has",
    '      if (look.holder === "other") {',
    '      if (look.holder === "other" && version < 2) {',
    18,
  ),
  upnp(
    "UPnP deletes nothing",
    "    canDelete: () => true,",
    "    canDelete: () => false,",
  ),
  upnp(
    "another external address of UPnP's is not told",
    "    if (isOther) this.keeper.externalAddressChanged(address);\n",
    "",
  ),
  leaseClient(
    "UPnP does not make anew what a restart has lost",
    "    this.keeper.gatewayRestarted(except, this.now);",
    '    if (this.via !== "upnp") this.keeper.gatewayRestarted(except, this.now);',
    18,
  ),
  upnp(
    "UPnP never looks for a device again that is gone",
    "    this.#igd = undefined;\n    this.#queue.setOpen(false);",
    "    this.#queue.setOpen(false);",
  ),
  upnp(
    "UPnP tells the port inside, not the one outside",
    "return this.#granted(job, lease, ask, given, seconds, 0, version);",
    "return this.#granted(job, lease, ask, wanted.internalPort, seconds, 0, version);",
  ),
  upnp(
    "a pinhole that the firewall has forgotten is not opened again",
    "        made.pinhole = undefined;\n        outcome = undefined;\n",
    "",
    18,
  ),
  upnp(
    "UPnP closes no pinhole",
    '      outcome = yield* this.#call(firewall, "DeletePinhole", { UniqueID });\n' +
      '      if (outcome.type === "gone") return "again";\n',
    "",
    18,
  ),
  // ---- What is told ----
  keeper(
    "a loss is not told",
    "    this.#emit(retryAt === undefined ? lost : { ...lost, retryAt }, lease);\n",
    "",
  ),
  keeper(
    "an outlived mapping is told as renewed",
    'if (isLost) return "recovered";',
    'if (isLost) return "renewed";',
  ),
];
