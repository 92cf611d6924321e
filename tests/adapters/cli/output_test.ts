import { describe, it } from "node:test";
import { assertEquals, assertStringIncludes } from "@std/assert";
import { NatError } from "../../../core/errors.ts";
import type { CliEvent, MappingFields } from "../../../adapters/cli/events.ts";
import { type Io, Stopped } from "../../../adapters/cli/io.ts";
import { Output, reportOf } from "../../../adapters/cli/output.ts";
import { describeEvent, duration, styleFor } from "../../../adapters/cli/text.ts";
import { UsageError } from "../../../adapters/cli/values.ts";

const MAPPING: MappingFields = {
  protocol: "tcp",
  via: "nat-pmp",
  gateway: "192.168.1.1",
  internal: { address: "192.168.1.5", port: 6000 },
  external: { address: "203.0.113.7", port: 6001 },
  lifetimeSeconds: 600,
  elapsedMs: 1.5,
};

function outputOf(options: { json?: boolean; terminal?: boolean; env?: Io["env"] } = {}) {
  const told = { out: "", err: "" };
  const io = {
    stdout: (text: string) => void (told.out += text),
    stderr: (text: string) => void (told.err += text),
    isTerminal: {
      stdin: false,
      stdout: options.terminal ?? false,
      stderr: options.terminal ?? false,
    },
    env: options.env ?? {},
  } as Io;
  return { output: new Output(io, options.json ?? false), told };
}

describe("Output", () => {
  it("puts each event on a line of its own as JSON", () => {
    const { output, told } = outputOf({ json: true });

    output.event({ event: "mapped", ...MAPPING });
    output.event({ event: "version", version: "1\n2" });

    const lines = told.out.split("\n");
    assertEquals(lines.length, 3);
    assertEquals(JSON.parse(lines[0]!), { event: "mapped", ...MAPPING });
    assertEquals(JSON.parse(lines[1]!), { event: "version", version: "1\n2" });
    assertEquals(told.err, "");
  });

  it("keeps stories and progress from the readers of JSON, but not warnings", () => {
    const { output, told } = outputOf({ json: true });

    output.story("once upon a time");
    output.progress("half way");
    output.warn("careful");

    assertEquals(told, { out: "", err: "natkit: warning: careful\n" });
  });

  it("lets nothing that the network said reach into a terminal, or end a line", () => {
    const evil = "a\x1b[2J\x9b1m\r\nb\u202ec";
    for (const terminal of [false, true]) {
      const { output, told } = outputOf({ terminal });
      output.event({
        event: "mapping",
        via: "upnp",
        gateway: "192.168.1.1",
        protocol: "tcp",
        external: { port: 1 },
        internal: { address: "192.168.1.5", port: 1 },
        lifetimeSeconds: 0,
        description: evil,
      });
      output.event({ event: "mapping", description: evil });
      output.tell({ event: "version", version: evil });
      output.note(evil);
      output.warn(evil);
      output.log(evil);
      output.progress(evil);
      output.fail({ code: "refused", message: evil, attempts: [] });

      const lines = `${told.out}${told.err}`.split("\n");
      assertEquals(lines.length, 9);
      for (const line of lines.slice(0, -1)) {
        assertStringIncludes(line, "a?[2J?1m??b?c");
        // deno-lint-ignore no-control-regex
        assertEquals(/[\x9b\r\u202e]|\x1b\[2J/.test(line), false);
      }
    }
  });

  it("leaves natkit's own texts of several lines as they are", () => {
    const { output, told } = outputOf();
    output.event({ event: "help", text: "a\nb\n" });
    assertEquals(told.out, "a\nb\n");
  });

  it("puts text on standard output, progress and warnings on standard error", () => {
    const { output, told } = outputOf();

    output.event({ event: "mapped", ...MAPPING });
    output.story("once upon a time");
    output.progress("half way");
    output.warn("careful");

    assertEquals(told, {
      out:
        "mapped   203.0.113.7:6001 -> 192.168.1.5:6000/tcp by NAT-PMP at 192.168.1.1 for 600 s\n" +
        "once upon a time\n",
      err: "half way\nnatkit: warning: careful\n",
    });
  });

  it("tells what becomes of a mapping, each in its own word", () => {
    const { output, told } = outputOf();
    for (const event of ["mapped", "renewed", "moved"] as const) {
      output.event({ event, ...MAPPING });
    }
    output.event({ event: "lost", ...MAPPING, reason: "no answer" });

    const leads = "203.0.113.7:6001 -> 192.168.1.5:6000/tcp";
    const by = `${leads} by NAT-PMP at 192.168.1.1 for 600 s`;
    assertEquals(told.out.split("\n"), [
      `mapped   ${by}`,
      `renewed  ${by}`,
      `moved    ${by}`,
      `lost     ${leads}: no answer`,
      "",
    ]);
  });

  it("tells a set of assignments in a line", () => {
    const { output, told } = outputOf();
    const local = { protocol: "tcp", address: "fd00::5", port: 80, via: "local" } as const;

    output.event({
      event: "assignments",
      assignments: [local, { ...local, address: "203.0.113.7", via: "upnp" }],
    });
    output.event({ event: "assignments", assignments: [] });

    assertEquals(
      told.out,
      "reachable [fd00::5]:80/tcp on this host, 203.0.113.7:80/tcp by UPnP\nreachable nowhere\n",
    );
  });

  it("tells a report: gateways, addresses, then what follows and what to do", () => {
    const { output, told } = outputOf();
    output.event({
      event: "report",
      gateways: [{
        gateway: "192.168.1.1",
        family: 4,
        interface: "eth0",
        localAddress: "192.168.1.5",
        protocols: [
          { via: "pcp", outcome: "answered", external: "10.0.0.2", elapsedMs: 2.1 },
          { via: "nat-pmp", outcome: "no answer", elapsedMs: 4000 },
        ],
      }],
      detours: [],
      localAddresses: ["192.168.1.5"],
      reflexive: [{ server: "stun.example", address: "11.0.0.1", outcome: "ok", elapsedMs: 20 }],
      findings: [
        { code: "double-nat", severity: "problem", message: "Another NAT", remedy: "Bridge it" },
        { code: "no-ipv6", severity: "note", message: "No IPv6" },
      ],
    });
    assertEquals(
      told.out,
      "Gateway 192.168.1.1 on eth0, asked from 192.168.1.5\n  PCP      10.0.0.2 (2.1 ms)\n" +
        "  NAT-PMP  no answer (4000 ms)\nThis host: 192.168.1.5\n" +
        "STUN stun.example: 11.0.0.1 (20 ms)\n\nproblem: Another NAT.\n  Bridge it.\n\n" +
        "note: No IPv6.\n",
    );
  });

  it("colours a terminal alone, and none where NO_COLOR or TERM=dumb forbid it", () => {
    const isColoured = (options: Parameters<typeof outputOf>[0]) => {
      const { output, told } = outputOf(options);
      output.event({ event: "mapped", ...MAPPING });
      output.warn("careful");
      return [told.out.includes("\x1b["), told.err.includes("\x1b[")];
    };

    assertEquals(isColoured({ terminal: true }), [true, true]);
    assertEquals(isColoured({ terminal: false }), [false, false]);
    assertEquals(isColoured({ terminal: true, json: true }), [false, true]);
    assertEquals(isColoured({ terminal: true, env: { NO_COLOR: "1" } }), [false, false]);
    assertEquals(isColoured({ terminal: true, env: { NO_COLOR: "" } }), [true, true]);
    assertEquals(isColoured({ terminal: true, env: { TERM: "dumb" } }), [false, false]);
  });

  it("tells a failure on standard error, and to readers of JSON as an event too", () => {
    const report = { code: "no-answer", message: "Cannot map", attempts: [] };
    const text = outputOf(), json = outputOf({ json: true });

    text.output.fail(report);
    json.output.fail(report);

    assertEquals(text.told, { out: "", err: "natkit: Cannot map\n" });
    assertEquals(JSON.parse(json.told.out), { event: "error", ...report });
    assertEquals(json.told.err, "natkit: Cannot map\n");
  });
});

describe("reportOf()", () => {
  it("takes usage errors for status 2", () => {
    assertEquals(reportOf(new UsageError("no")), {
      report: { code: "usage", message: "no", attempts: [] },
      status: 2,
    });
  });

  it("says that it was interrupted, which is no wrong usage", () => {
    const message = "Interrupted by SIGINT";
    assertEquals(reportOf(new Stopped("SIGINT")), {
      report: { code: "interrupted", message, attempts: [] },
      status: 1,
    });
  });

  it("lists what was tried, to a tenth of a millisecond", () => {
    const error = new NatError("refused", "Cannot map", {
      attempts: [
        { via: "pcp", gateway: "10.0.0.1", outcome: "NOT_AUTHORIZED", elapsedMs: 3.14159 },
      ],
      retryAfterSeconds: 30,
    });

    assertEquals(reportOf(error), {
      report: {
        code: "refused",
        message: "Cannot map",
        attempts: [
          { via: "pcp", gateway: "10.0.0.1", outcome: "NOT_AUTHORIZED", elapsedMs: 3.1 },
        ],
        retryAfterSeconds: 30,
      },
      status: 1,
    });
  });

  it("names by its flag what the library calls a caller's mistake", () => {
    const messageOf = (message: string) => {
      const { report, status } = reportOf(new TypeError(message));
      assertEquals([report.code, status], ["usage", 2]);
      return report.message;
    };

    assertStringIncludes(
      messageOf("'externalAddress' must be an IPv4 address: current value is ::1"),
      "--external-address must be",
    );
    assertStringIncludes(
      messageOf("'filters.prefix' must be an IPv6 prefix: current value is 10.0.0.0/8"),
      "--filter must be",
    );
    assertStringIncludes(messageOf("'lifetimeSeconds' must be: current value is 0"), "--lifetime ");
    assertStringIncludes(
      messageOf("'remote.address' must be: current value is x"),
      "REMOTE_ADDRESS",
    );
    assertStringIncludes(messageOf("'internalPort' must be: current value is 0"), "PORT must be");
  });

  it("takes no bug for wrong usage", () => {
    const { report, status } = reportOf(new TypeError("x is not a function"));

    assertEquals([report.code, status], ["internal", 1]);
  });

  it("takes what Deno forbids for that", () => {
    const error = Object.assign(new Error("Requires env access"), { name: "NotCapable" });
    const { report, status } = reportOf(error);

    assertEquals([report.code, report.message, status], ["permission", "Requires env access", 1]);
  });
});

describe("describeEvent()", () => {
  it("tells an entry of a table in one line", () => {
    const entry = {
      event: "mapping",
      via: "upnp",
      gateway: "192.168.1.1",
      protocol: "tcp",
      external: { port: 6001 },
      internal: { address: "192.168.1.5", port: 6000 },
      lifetimeSeconds: 7200,
      description: "natkit",
    } as const;
    const only = { ...entry, remote: { address: "198.51.100.7" }, enabled: false };
    const rows: readonly (readonly [CliEvent, string])[] = [
      [entry, "6001/tcp -> 192.168.1.5:6000 for 2 hours (natkit)"],
      [
        { ...only, lifetimeSeconds: 0, description: "" },
        "6001/tcp -> 192.168.1.5:6000 from 198.51.100.7 alone, switched off",
      ],
    ];
    for (const [event, line] of rows) assertEquals(describeEvent(event, styleFor(false)), line);
  });

  const plain = styleFor(false);

  it("has a line for every kind of event", () => {
    const rows: readonly [CliEvent, string][] = [
      [
        { event: "moved", ...MAPPING, remote: { address: "2001:db8::1", port: 9 } },
        "moved    203.0.113.7:6001 -> 192.168.1.5:6000/tcp for [2001:db8::1]:9 by NAT-PMP at 192.168.1.1 for 600 s",
      ],
      [
        { event: "lost", ...MAPPING, reason: "no answer" },
        "lost     203.0.113.7:6001 -> 192.168.1.5:6000/tcp: no answer",
      ],
      [
        {
          event: "unmapped",
          protocol: "tcp",
          via: "pcp",
          gateway: "192.168.1.1",
          internal: { address: "192.168.1.5", port: 6000 },
          reason: "expired",
          elapsedMs: 5,
        },
        "unmapped 192.168.1.5:6000/tcp by PCP at 192.168.1.1: its time is over",
      ],
      [
        {
          event: "unmapped",
          protocol: "udp",
          via: "nat-pmp",
          gateway: "192.168.1.1",
          internal: { port: 6000 },
          reason: "revoked",
          elapsedMs: 5,
        },
        "unmapped port 6000/udp by NAT-PMP at 192.168.1.1",
      ],
      [
        {
          event: "unmapped",
          protocol: "udp",
          via: "nat-pmp",
          gateway: "192.168.1.1",
          reason: "revoked",
          elapsedMs: 5,
        },
        "unmapped every udp port by NAT-PMP at 192.168.1.1",
      ],
      [
        { event: "address", via: "pcp", address: "203.0.113.7", gateway: "192.168.1.1" },
        "203.0.113.7 by PCP at 192.168.1.1",
      ],
      [
        {
          event: "listening",
          address: "0.0.0.0",
          port: 5351,
          external: ["203.0.113.7"],
          protocols: ["pcp", "nat-pmp"],
          profile: "x",
        },
        "listening on 0.0.0.0:5351: PCP and NAT-PMP, external address 203.0.113.7, profile x",
      ],
      [
        { event: "request", via: "pcp", from: { address: "10.0.0.1", port: 5 }, bytes: 60 },
        "request  via pcp, from 10.0.0.1:5, bytes 60",
      ],
      [
        { event: "mapping", external: { port: 80 }, internal: { address: "10.0.0.1", port: 8080 } },
        "mapping  external 80, internal 10.0.0.1:8080",
      ],
      [
        { event: "mapping", remote: { address: "192.0.2.1" } },
        'mapping  remote {"address":"192.0.2.1"}',
      ],
      [{ event: "scenario", command: "reboot", message: "done" }, "scenario reboot: done"],
      [
        {
          event: "scenario",
          command: "list",
          message: "1 mapping",
          mappings: [{ protocol: "tcp", internal: { address: "10.0.0.1", port: 80 } }],
        },
        "scenario list: 1 mapping\n  protocol tcp, internal 10.0.0.1:80",
      ],
    ];

    for (const [event, line] of rows) assertEquals(describeEvent(event, plain), line);
  });

  it("sets off text by the codes of a terminal, each with the one that ends it", () => {
    const { bold, good, warning, bad, dim } = styleFor(true);
    const shown = [bold, good, warning, bad, dim].map((style) => style("x"));
    assertEquals(shown, [
      "\x1b[1mx\x1b[22m",
      "\x1b[32mx\x1b[39m",
      "\x1b[33mx\x1b[39m",
      "\x1b[31mx\x1b[39m",
      "\x1b[2mx\x1b[22m",
    ]);
  });

  it("tells what kind of NAT there is, whole where all is known and where little is", () => {
    const at = (port: number) => ({ address: "192.0.2.1", port });
    const known = {
      event: "nat-type",
      type: "symmetric",
      local: { address: "10.0.0.5", port: 5 },
      external: at(7),
      mapping: "address-and-port-dependent",
      filtering: "address-dependent",
      isTranslated: true,
      hairpin: "full",
      ports: "sequential",
      portDelta: 2,
      lifetime: { atLeastSeconds: 30, atMostSeconds: 60 },
      rewritesAddresses: true,
      servers: [{ server: at(1) }, { server: at(2), failure: { kind: "no-answer" } }],
      elapsedMs: 1,
    } as unknown as CliEvent;
    assertEquals(describeEvent(known, plain).split("\n"), [
      "NAT type: symmetric",
      "  this host  10.0.0.5:5",
      "  seen as    192.0.2.1:7",
      "  mapping    address-and-port-dependent",
      "  filtering  address-dependent",
      "  hairpin    full",
      "  ports      sequential, 2 apart",
      "  lifetime   at least 30 s, less than 60 s",
      "  ALG        addresses in packets are rewritten",
      "  server     192.0.2.1:1: answered",
      "  server     192.0.2.1:2: no answer",
    ]);
    const unknown = {
      event: "nat-type",
      type: "blocked",
      local: { address: "10.0.0.5", port: 5 },
      isTranslated: false,
      rewritesAddresses: false,
      servers: [],
      elapsedMs: 1,
    } as unknown as CliEvent;
    assertEquals(describeEvent(unknown, plain).split("\n"), [
      "NAT type: UDP is blocked",
      "  this host  10.0.0.5:5",
      "  seen as    not found out",
      "  mapping    not found out",
      "  filtering  not found out",
    ]);
    const half = {
      ...unknown,
      isTranslated: true,
      lifetime: { atLeastSeconds: 30 },
    } as unknown as CliEvent;
    assertEquals(describeEvent(half, plain).split("\n").slice(5), [
      "  hairpin    not found out",
      "  ports      not found out",
      "  lifetime   at least 30 s",
    ]);
  });

  it("tells a report of a gateway that failed, of no address, and of the NAT", () => {
    const report = (nat: object | undefined): CliEvent => ({
      event: "report",
      gateways: [{ gateway: "10.0.0.1", family: 4, protocols: [], failure: "no route" }],
      detours: [],
      localAddresses: [],
      reflexive: [{ server: "stun.example", outcome: "no answer", elapsedMs: 20 }],
      findings: [],
      ...nat && { nat: nat as never },
    });
    const head = ["Gateway 10.0.0.1", "  no route", "This host: no address"];
    const asked = "STUN stun.example: no answer (20 ms)";
    const lines = (nat?: object) => describeEvent(report(nat), plain).split("\n");
    assertEquals(lines(), [...head, asked]);
    assertEquals(lines({ type: "unknown" }), [...head, asked, "NAT: not known"]);
    const parts = { mapping: "endpoint-independent", filtering: "address-dependent" };
    assertEquals(lines({ type: "restricted-cone", ...parts }), [
      ...head,
      asked,
      "NAT: restricted cone (endpoint-independent mapping, address-dependent filtering)",
    ]);
    assertEquals(
      lines({ type: "full-cone", mapping: parts.mapping }).at(-1),
      [
        "NAT: full cone (endpoint-independent mapping)",
      ][0],
    );
  });

  it("tells lifetimes in hours where that is even", () => {
    assertEquals(
      [59, 3600, 5400, 7200, 7201, 86400, 4294967295].map(duration),
      [
        "for 59 s",
        "for 1 hour",
        "for 1.5 hours",
        "for 2 hours",
        "for 7201 s",
        "for 24 hours",
        "for ever",
      ],
    );
  });
});
