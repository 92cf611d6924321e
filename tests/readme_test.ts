/**
 * Every block of what people read is run: the README's `ts` by `deno test --doc` and in npm's package
 * (tests/npm/), `ts ignore`, `sh lab`, `sh held` and `sh gateway` in the lab (tests/lab/), `sh` by
 * `.ci/run` itself.
 *
 * @module
 */
import { existsSync, readFileSync } from "node:fs";
import { posix } from "node:path";
import { describe, it } from "node:test";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { explainDetour } from "../adapters/discovery/mod.ts";
import {
  diagnose,
  type DiagnosisFacts,
  type FindingCode,
  type GatewayReport,
  type ProtocolReport,
} from "../core/portmap/diagnosis.ts";
import { blocksOf } from "../scripts/lib/readme.ts";

/** What people read, and the kinds of blocks in it. */
const PAGES: Readonly<Record<string, readonly string[]>> = {
  "README.md": ["ts", "ts ignore", "sh", "sh lab", "sh held", "sh gateway"],
  "CONTRIBUTING.md": ["sh"],
  "SECURITY.md": [],
  "CHANGELOG.md": [],
  "scripts/bench/README.md": ["sh"],
};

/** A host whose router answers so by PCP, NAT-PMP and UPnP. */
function facts(
  answers: Partial<Record<ProtocolReport["via"], { outcome?: string; external?: string }>>,
  others: Partial<DiagnosisFacts> = {},
): DiagnosisFacts {
  const protocols = Object.entries(answers).map(([via, { outcome = "answered", external }]) => ({
    via: via as ProtocolReport["via"],
    outcome,
    elapsedMs: 2,
    ...(external === undefined ? {} : { external }),
  }));
  const gateway: GatewayReport = { gateway: "192.168.1.1", family: 4, protocols };
  return { gateways: [gateway], detours: [], localAddresses: [], reflexive: [], ...others };
}

const SILENT = { outcome: "no answer" };
const REFUSED = { outcome: "NOT_AUTHORIZED" };
const WELL = { external: "11.0.113.2" };

/** What stands in the way, and what is found out then. */
const TROUBLES: readonly (readonly [FindingCode, DiagnosisFacts])[] = [
  ["all-silent", facts({ pcp: SILENT, "nat-pmp": SILENT, upnp: SILENT })],
  ["carrier-nat", facts({ pcp: { external: "100.64.10.20" } })],
  ["double-nat", facts({ pcp: { external: "10.0.0.2" } })],
  [
    "tunnel",
    facts({ pcp: WELL }, {
      detours: [{
        family: 4,
        interface: "wg0",
        message: explainDetour({
          family: 4,
          interface: "wg0",
          localAddress: "10.9.0.2",
          gateway: undefined,
          passes: "192.168.1.1",
        }),
      }],
    }),
  ],
  ["ipv6-firewall", facts({ pcp: WELL }, { localAddresses: ["2a00:1450::10"] })],
  ["udp-blocked", facts({ pcp: WELL }, { nat: { type: "blocked" } })],
  ["refused", facts({ pcp: REFUSED, "nat-pmp": REFUSED })],
];

/** A page's text, its lines put together. */
const flowing = (path: string) => readFileSync(path, "utf8").replace(/\s+/g, " ");

describe("what people read", () => {
  it("has only blocks that something runs", () => {
    for (const [path, known] of Object.entries(PAGES)) {
      for (const { info, text } of blocksOf(readFileSync(path, "utf8"))) {
        assert(known.includes(info), `${path}: ${info}\n${text}`);
      }
    }
    const blocks = blocksOf(readFileSync("README.md", "utf8"));
    assertEquals(blocks.filter(({ info }) => info === "ts ignore").length, 2);
    assertEquals(blocks[0]!.info, "ts ignore");
  });

  it("names no command that .ci/run does not run", () => {
    const ci = readFileSync(".ci/run", "utf8");
    for (const path of Object.keys(PAGES)) {
      const blocks = blocksOf(readFileSync(path, "utf8")).filter(({ info }) => info === "sh");
      for (const line of blocks.flatMap(({ text }) => text.trim().split("\n"))) {
        const task = /^npx --yes deno@2\.9\.6 (task [^#]*[^# ])/.exec(line)?.[1];
        assert(task !== undefined, line);
        assert(ci.includes(`"\${DENO[@]}" ${task}`), `.ci/run does not run: ${task}`);
      }
    }
  });

  it("links to files that are there", () => {
    for (const path of Object.keys(PAGES)) {
      const text = readFileSync(path, "utf8");
      for (const [, target] of text.matchAll(/\]\((?!https:)([^)#]+)[^)]*\)/g)) {
        assert(existsSync(posix.join(posix.dirname(path), target!)), `${path}: ${target}`);
      }
    }
  });

  it("quotes what natkit doctor says of each trouble, and what it advises", () => {
    const readme = flowing("README.md");
    for (const [code, found] of TROUBLES) {
      const finding = diagnose(found).findings.find((one) => one.code === code)!;
      assertStringIncludes(readme, `“${finding.message}.” ${finding.remedy}.`);
    }
  });
});
