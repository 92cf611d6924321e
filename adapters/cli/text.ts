/**
 * The events as text that a person reads.
 *
 * @module
 */
import { type Via, VIA_NAME } from "../../core/errors.ts";
import { formatEndpoint } from "../../core/ip.ts";
import type { Diagnosis } from "../../core/portmap/diagnosis.ts";
import type { NatType } from "../../core/stun/behaviour.ts";
import { describeStunFailure } from "../stun_failure.ts";
import type { CliEvent, MappingFields } from "./events.ts";

/** How text is set off; without colours each is the identity. */
export interface Style {
  bold(text: string): string;
  good(text: string): string;
  warning(text: string): string;
  bad(text: string): string;
  dim(text: string): string;
}

/** The style of a terminal, or of anything else. */
export function styleFor(hasColours: boolean): Style {
  const sgr = (on: number, off: number) => (text: string): string =>
    hasColours ? `\x1b[${on}m${text}\x1b[${off}m` : text;
  return {
    bold: sgr(1, 22),
    good: sgr(32, 39),
    warning: sgr(33, 39),
    bad: sgr(31, 39),
    dim: sgr(2, 22),
  };
}

/**
 * Text without what moves a terminal's cursor, colours it or ends a line: what the network says is
 * shown and does no more.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, "?");
}

/** An event with no other text in it than that, but for what natkit itself wrote. */
export function printableEvent(event: CliEvent): CliEvent {
  return event.event === "help" || event.event === "completion" ? event : printableIn(event);
}

function printableIn<T>(value: T): T {
  if (typeof value === "string") return printable(value) as T;
  if (Array.isArray(value)) return value.map(printableIn) as T;
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([name, one]) => [printable(name), printableIn(one)]);
  return Object.fromEntries(entries);
}

/** A protocol's name for a person. */
export function viaName(via: Via): string {
  return VIA_NAME[via];
}

/** Seconds for a person: the number that the gateway granted, and in hours where that says more. */
export function duration(seconds: number): string {
  if (seconds === 0xffff_ffff) return "for ever";
  if (seconds < 3600 || seconds % 900 !== 0) return `for ${seconds} s`;
  const hours = seconds / 3600;
  return `for ${hours} ${hours === 1 ? "hour" : "hours"}`;
}

/** One event, for standard output; without the end of line. */
export function describeEvent(event: CliEvent, style: Style): string {
  switch (event.event) {
    case "mapped":
      return `${style.good("mapped")}   ${mapping(event, style)}`;
    case "renewed":
      return `${style.good("renewed")}  ${mapping(event, style)}`;
    case "moved":
      return `${style.warning("moved")}    ${mapping(event, style)}`;
    case "lost":
      return `${style.bad("lost")}     ${endpoints(event, style)}: ${event.reason}`;
    case "unmapped":
      return `unmapped ${unmapped(event)}`;
    case "address":
      if (event.via === "stun") {
        const own = formatEndpoint(event.local);
        return `${style.bold(formatEndpoint(event))} is how ${event.server} sees ${own}`;
      }
      return `${style.bold(event.address)} by ${viaName(event.via)} at ${event.gateway}`;
    case "assignments":
      return `reachable ${assigned(event, style)}`;
    case "report":
      return report(event, style);
    case "error":
      return `natkit: ${event.message}`;
    case "service": {
      const { device, serviceType, address } = event;
      return `${
        style.bold(device.friendlyName || device.deviceType)
      } at ${address}: ${serviceType}`;
    }
    case "action": {
      const named = (direction: "in" | "out") =>
        event.arguments.filter((argument) => argument.direction === direction)
          .map(({ name, type }) => type === "" ? name : `${name}: ${type}`).join(", ");
      const out = named("out");
      return `${style.bold(event.action)}(${named("in")})${out === "" ? "" : ` -> ${out}`}`;
    }
    case "result": {
      const values = Object.entries(event.values).map(([name, value]) => `${name} ${value}`);
      return values.length === 0 ? style.good("done") : values.join("\n");
    }
    case "help":
    case "completion":
      return event.text.replace(/\n$/, "");
    case "version":
      return `natkit ${event.version}`;
    case "nat-type":
      return natType(event, style);
    case "listening": {
      if ("tcp" in event) {
        const other = event.alternate ? ` and ${formatEndpoint(event.alternate)}` : "";
        const by = event.tcp ? "UDP and TCP" : "UDP";
        return `listening on ${style.bold(formatEndpoint(event))}${other}: STUN over ${by}`;
      }
      const outside = event.external.length === 0
        ? "no external address"
        : `external address ${event.external.join(", ")}`;
      const names = event.protocols.map(viaName).join(", ").replace(/, ([^,]*)$/, " and $1");
      const profile = event.profile === undefined ? "" : `, profile ${event.profile}`;
      const descriptions = (event.descriptions ?? []).map((url) => `\n  described at ${url}`);
      return `listening on ${style.bold(formatEndpoint(event))}: ${names}, ${outside}${profile}` +
        descriptions.join("");
    }
    case "ticket":
      return event.ticket ?? `${event.sdp!.join("\n")}\n`;
    case "punched":
      return `${style.good("punched")}  ${style.bold(formatEndpoint(event.remote))}/` +
        `${event.protocol} from ${formatEndpoint(event.local)}, seen as ` +
        `${formatEndpoint(event.mapped)}, in ${event.elapsedMs} ms`;
    case "scenario":
      return [
        `${style.bold("scenario")} ${event.command}: ${event.message}`,
        ...(event.mappings ?? []).map((entry) => `  ${fields(entry)}`),
      ].join("\n");
    default:
      if (event.event === "mapping" && event.gateway !== undefined) return listed(event, style);
      return `${style.dim(event.event.padEnd(8))} ${fields(event)}`;
  }
}

/** The type in one line, and below it what it was made of. */
function natType(event: CliEvent & { event: "nat-type" }, style: Style): string {
  const { type, local, external, lifetime, portDelta } = event;
  const none = "not found out";
  const rows: [string, string][] = [
    ["this host", formatEndpoint(local)],
    ["seen as", external ? formatEndpoint(external) : none],
    ["mapping", event.mapping ?? none],
    ["filtering", event.filtering ?? none],
  ];
  if (event.isTranslated) {
    const delta = portDelta === undefined ? "" : `, ${portDelta} apart`;
    rows.push(["hairpin", event.hairpin ?? none], ["ports", `${event.ports ?? none}${delta}`]);
  }
  if (lifetime) {
    const { atLeastSeconds, atMostSeconds } = lifetime;
    const most = atMostSeconds === undefined ? "" : `, less than ${atMostSeconds} s`;
    rows.push(["lifetime", `at least ${atLeastSeconds} s${most}`]);
  }
  if (event.rewritesAddresses) rows.push(["ALG", "addresses in packets are rewritten"]);
  return [
    `NAT type: ${style.bold(TYPE_NAMES[type])}`,
    ...rows.map(([name, value]) => `  ${name.padEnd(10)} ${value}`),
    ...event.servers.map(({ server, failure }) => {
      const said = failure ? style.bad(describeStunFailure(failure)) : "answered";
      return `  ${"server".padEnd(10)} ${formatEndpoint(server)}: ${said}`;
    }),
  ].join("\n");
}

const TYPE_NAMES: Readonly<Record<NatType, string>> = {
  "blocked": "UDP is blocked",
  "open": "no NAT, open to all",
  "firewall": "no NAT, but a firewall",
  "full-cone": "full cone",
  "restricted-cone": "restricted cone",
  "port-restricted-cone": "port-restricted cone",
  "symmetric": "symmetric",
  "unknown": "not known",
};

function assigned(
  { assignments }: CliEvent & { event: "assignments" },
  style: Style,
): string {
  if (assignments.length === 0) return style.bad("nowhere");
  return assignments.map(({ via, protocol, ...endpoint }) =>
    `${style.bold(formatEndpoint(endpoint))}/${protocol} ` +
    (via === "local" ? "on this host" : `by ${via === "stun" ? "STUN" : viaName(via)}`)
  ).join(", ");
}

/** What was found out, and then what follows from it. */
function report(event: Diagnosis, style: Style): string {
  const lines = event.gateways.flatMap((gateway) => {
    const by = gateway.interface === undefined ? "" : ` on ${gateway.interface}`;
    const own = gateway.localAddress === undefined ? "" : `, asked from ${gateway.localAddress}`;
    const failure = gateway.failure === undefined ? [] : [`  ${style.bad(gateway.failure)}`];
    return [
      `Gateway ${style.bold(gateway.gateway)}${by}${own}`,
      ...gateway.protocols.map(({ via, outcome, external, elapsedMs }) => {
        const said = external === undefined ? outcome : `${style.bold(external)}`;
        return `  ${viaName(via).padEnd(8)} ${said} (${elapsedMs} ms)`;
      }),
      ...failure,
    ];
  });
  lines.push(`This host: ${event.localAddresses.join(", ") || "no address"}`);
  for (const { server, address, outcome, elapsedMs } of event.reflexive) {
    lines.push(`STUN ${server}: ${address ?? outcome} (${elapsedMs} ms)`);
  }
  if (event.nat) {
    const { type, mapping, filtering } = event.nat;
    const parts = [
      ...mapping === undefined ? [] : [`${mapping} mapping`],
      ...filtering === undefined ? [] : [`${filtering} filtering`],
    ].join(", ");
    lines.push(`NAT: ${TYPE_NAMES[type]}${parts === "" ? "" : ` (${parts})`}`);
  }
  const marks = {
    problem: style.bad("problem"),
    note: style.warning("note"),
    good: style.good("good"),
  };
  for (const { severity, message, remedy } of event.findings) {
    lines.push("", `${marks[severity]}: ${message}.`);
    if (remedy !== undefined) lines.push(`  ${remedy}.`);
  }
  return lines.join("\n");
}

function endpoints(event: MappingFields, style: Style): string {
  const remote = event.remote ? ` for ${formatEndpoint(event.remote)}` : "";
  return `${style.bold(formatEndpoint(event.external))} -> ` +
    `${formatEndpoint(event.internal)}/${event.protocol}${remote}`;
}

function mapping(event: MappingFields, style: Style): string {
  const { gatewayExternal: between } = event;
  const through = between === undefined ? "" : `, through its ${formatEndpoint(between)},`;
  return `${endpoints(event, style)} by ${viaName(event.via)} at ${event.gateway}${through} ` +
    duration(event.lifetimeSeconds);
}

/** An entry of a gateway's table. */
function listed(
  event: Extract<CliEvent, { event: "mapping"; gateway: string }>,
  style: Style,
): string {
  const { protocol, external, internal, remote, enabled, lifetimeSeconds, description } = event;
  const from = remote === undefined ? "" : ` from ${remote.address} alone`;
  const lifetime = lifetimeSeconds === 0 ? "" : ` ${duration(lifetimeSeconds)}`;
  const off = enabled === false ? ", switched off" : "";
  const text = description === "" ? "" : ` (${description})`;
  return `${style.bold(`${external.port}/${protocol}`)} -> ${formatEndpoint(internal)}` +
    `${from}${lifetime}${off}${text}`;
}

function unmapped(event: CliEvent & { event: "unmapped" }): string {
  const { internal, protocol } = event;
  const what = internal === undefined
    ? `every ${protocol} port`
    : `${internal.address === undefined ? "port " : ""}${endpointText(internal)}/${protocol}`;
  const why = event.reason === "expired" ? ": its time is over" : "";
  return `${what} by ${viaName(event.via)} at ${event.gateway}${why}`;
}

function endpointText({ address, port }: { address?: string; port: number }): string {
  return address === undefined ? String(port) : formatEndpoint({ address, port });
}

/** `name value` pairs of whatever an event carries. */
function fields(event: Readonly<Record<string, unknown>>): string {
  return Object.entries(event)
    .filter(([name, value]) => name !== "event" && value !== undefined)
    .map(([name, value]) => `${name} ${scalar(value)}`)
    .join(", ");
}

function scalar(value: unknown): string {
  if (Array.isArray(value)) return value.map(scalar).join(" ");
  if (typeof value === "object" && value !== null) {
    const { address, port, ...rest } = value as Record<string, unknown>;
    const isEndpoint = typeof port === "number" && Object.keys(rest).length === 0;
    if (isEndpoint && typeof address === "string") return endpointText({ address, port });
    if (isEndpoint && address === undefined) return endpointText({ port });
    return JSON.stringify(value);
  }
  return String(value);
}
