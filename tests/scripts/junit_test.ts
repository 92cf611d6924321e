import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { readReport } from "../../scripts/lib/junit.ts";

const DENO = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="deno test" tests="5" failures="2" errors="0" time="0.1">
  <testsuite name="./t/a_test.ts" tests="2" disabled="1" errors="0" failures="1">
    <testcase name="alone" classname="./t/a_test.ts" time="0.001" line="3" col="1">
    </testcase>
    <testcase name="a group" classname="./t/a_test.ts" time="0.022" line="4" col="1">
      <failure message="1 test step failed">1 test step failed.</failure>
    </testcase>
  </testsuite>
  <testsuite name="ext:deno_node/testing.ts" tests="3" disabled="1" errors="0" failures="1">
    <testcase name="a group &gt; one" classname="x" time="0.000">
    </testcase>
    <testcase name="a group &gt; two" classname="x" time="0.000">
      <failure message="Uncaught">AssertionError: 1 &lt; 2
    at line 6</failure>
    </testcase>
    <testcase name="a group &gt; three" classname="x" time="0.000">
      <skipped/>
    </testcase>
  </testsuite>
</testsuites>`;

const NODE = `<?xml version="1.0" encoding="utf-8"?>
<testsuites>
	<testcase name="alone" time="0.000751" classname="test"/>
	<testsuite name="a group" time="0.0" disabled="0" errors="0" tests="53" failures="1" hostname="vm">
		<testcase name="one" time="0.000400" classname="test"/>
		<testcase name="two" time="0.001213" classname="test" failure="1 &lt; 2">
			<failure type="testCodeFailure" message="1 &lt; 2">
AssertionError: 1 &lt; 2
    at line 6
			</failure>
		</testcase>
		<testcase name="three" time="0.000045" classname="test">
			<skipped type="skipped" message="no IPv6 here"/>
		</testcase>
	</testsuite>
	<!-- tests 4 -->
</testsuites>`;

const BUN = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="bun test" tests="4" assertions="0" failures="1" skipped="1" time="0.02">
  <testsuite name="out/a.test.js" file="out/a.test.js" tests="4" failures="1" hostname="vm">
    <testcase name="alone" classname="" time="0.000238" file="out/a.test.js" line="592" />
    <testsuite name="a group" file="out/a.test.js" line="593" tests="3" hostname="vm">
      <testcase name="one" classname="a group" time="0.000029" file="out/a.test.js" />
      <testcase name="two" classname="a group" time="0.00223" file="out/a.test.js">
        <failure type="AssertionError" message="1 &lt; 2">AssertionError: 1 &lt; 2&#10;    at line 6&#10;</failure>
      </testcase>
      <testcase name="three" classname="a group" time="0" file="out/a.test.js">
        <skipped />
      </testcase>
    </testsuite>
  </testsuite>
</testsuites>`;

describe("readReport()", () => {
  for (const [runtime, xml] of [["Deno", DENO], ["Node", NODE], ["Bun", BUN]] as const) {
    it(`finds the same tests in ${runtime}'s report`, () => {
      const { cases } = readReport(xml);

      assertEquals(cases.map(({ name, outcome }) => [name, outcome]), [
        ["alone", "passed"],
        ["a group > one", "passed"],
        ["a group > two", "failed"],
        ["a group > three", "skipped"],
      ]);
      assertEquals(cases[2]?.detail, "AssertionError: 1 < 2\n    at line 6");
    });
  }

  it("tells a skip's reason where the report has it", () => {
    assertEquals(readReport(NODE).cases[3]?.detail, "no IPv6 here");
  });

  it("keeps a group that failed though none of its tests did", () => {
    const xml = DENO.replace(/<failure message="Uncaught">[^]*?<\/failure>/, "");

    const failed = readReport(xml).cases.filter(({ outcome }) => outcome === "failed");

    assertEquals(failed.map(({ name }) => name), ["a group"]);
  });

  it("counts what stands before a file's end, groups and their insides alike", () => {
    const xml = `<testsuites>
      <testsuite name="./t/a_test.ts"><testcase name="a group"></testcase></testsuite>
      <testsuite name="./stubs/a.test.ts"><testcase name="end of t/a_test.ts"></testcase></testsuite>
      <testsuite name="ext:deno_node/testing.ts">
        <testcase name="a group &gt; one"></testcase>
        <testcase name="b group &gt; one"></testcase>
      </testsuite>
      <testsuite name="./t/b_test.ts"><testcase name="b group"></testcase></testsuite>
      <testsuite name="./stubs/b.test.ts"><testcase name="end of t/b_test.ts"></testcase></testsuite>
      <testsuite name="./stubs/c.test.ts"><testcase name="end of t/c_test.ts"></testcase></testsuite>
    </testsuites>`;

    const { cases, ended } = readReport(xml);

    assertEquals([...ended], [["t/a_test.ts", 1], ["t/b_test.ts", 3], ["t/c_test.ts", 0]]);
    assertEquals(cases.map(({ name }) => name), ["a group > one", "b group > one"]);
  });

  it("names an example in docs after its place, and the test that it registers", () => {
    const xml = `<testsuites>
      <testsuite name="./core/ip.ts#16-22.ts">
        <testcase name="file:///a/core/ip.ts#16-22.ts"></testcase>
      </testsuite>
      <testsuite name="./a.ts#1-3.ts"><testcase name="its own"></testcase></testsuite>
    </testsuites>`;

    assertEquals(readReport(xml).cases.map(({ name }) => name), [
      "example core/ip.ts#16-22.ts",
      "example a.ts#1-3.ts > its own",
    ]);
  });

  it("does not take a file for ended whose end was listed and not run", () => {
    const xml = `<testsuites><testsuite name="./stubs/a.test.ts">
      <testcase name="one"></testcase>
      <testcase name="end of t/a_test.ts"><skipped/></testcase>
    </testsuite></testsuites>`;

    assertEquals(readReport(xml).ended.size, 0);
  });

  it("tells where Node takes a file for a test, as it does where the process ends early", () => {
    const xml = `<testsuites>
      <testcase name="/t/all.test.js" time="0.1" classname="test"/>
    </testsuites>`;

    const { cases, takesFileForTest } = readReport(xml);

    assertEquals([cases.length, takesFileForTest], [0, true]);
    assertEquals(readReport(NODE).takesFileForTest, false);
  });

  it("finds nothing in an empty or broken report", () => {
    for (const xml of ["", '<testsuites><testsuite name="x"><testcase name="cut']) {
      const { cases, ended } = readReport(xml);

      assertEquals([cases, [...ended]], [[], []]);
    }
  });
});
