/**
 * The playground's page in a real Chromium, as a visitor uses it. On Deno only: the page is bundled by
 * it, and the browser is the same whoever drives it.
 */
import { after, before, describe, it } from "node:test";
import { existsSync } from "node:fs";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { Browser, Page } from "puppeteer-core";

const isDeno = "deno" in process.versions;
/** What a test of all the page's parts may take, seconds of the page's own time included. */
const PATIENCE_MS = 15_000;
const NAMES = ["chromium", "chromium-browser", "google-chrome"];
const ELSEWHERE = [
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "C:/Program Files/Google/Chrome/Application/chrome.exe",
];

/** A browser of this machine's: Debian's, or one where it is put on other systems. */
function findBrowser(): string | undefined {
  const folders = (Deno.env.get("PATH") ?? "").split(":");
  return [...folders.flatMap((folder) => NAMES.map((name) => `${folder}/${name}`)), ...ELSEWHERE]
    .find((path) => existsSync(path));
}

const executable = isDeno ? findBrowser() : undefined;
/** In CI a test that is skipped is a failure. */
const skip = executable === undefined && "needs chromium, as Debian has it";

let browser: Browser;
let folder: string;
/** What the page complained about. */
let complaints: string[] = [];

/** The command, without its task. */
function playground(...args: readonly string[]): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "scripts/playground/main.ts", ...args],
    env: { NO_COLOR: "1" },
    stdout: "piped",
    stderr: "piped",
  });
}

interface Visit {
  readonly width?: number;
  readonly height?: number;
  readonly features?: { readonly name: string; readonly value: string }[];
}

/** Opens the page with a scenario, hands it on, and closes it; it may not complain. */
async function visit(
  link: string,
  { width = 1280, height = 900, features = [] }: Visit,
  test: (page: Page) => Promise<void>,
): Promise<void> {
  complaints = [];
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.on("pageerror", (error) => complaints.push(`${error}`));
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warn") complaints.push(message.text());
  });
  page.on("request", (request) => {
    if (!/^(file|data):/.test(request.url())) complaints.push(`asks for ${request.url()}`);
  });
  try {
    await page.setViewport({ width, height });
    await page.emulateMediaFeatures(features);
    await page.goto(`${pathToFileURL(`${folder}/playground.html`)}#${link}`);
    await test(page);
    assertEquals(complaints, []);
  } finally {
    await page.close();
  }
}

/** Waits until an expression holds in the page; a page that complains is not waited for. */
async function until(page: Page, expression: string): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!await page.evaluate(`Boolean(${expression})`)) {
    if (performance.now() > end || complaints.length > 0) {
      const shows = await page.evaluate("document.body.innerText");
      throw new Error(`not so in the page: ${expression}\n${complaints.join("\n")}\n${shows}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const text = (page: Page, selector: string) =>
  page.$eval(selector, (element) => element.textContent ?? "");
const ask = (page: Page, expression: string) => page.evaluate(expression);

/** The rows of the gateway's table that somebody asked for. */
const MAPPED = `document.querySelectorAll("#table tr.asked").length`;
const CLOCK = `Number.parseFloat(document.getElementById("clock").textContent)`;
const LAPTOP = `document.getElementById("client-laptop").textContent`;
/** The packets of the list, the first one first: what, whence and whither, and what became of it. */
const PACKETS = `[...document.querySelectorAll("#log button")].reverse().map((row) =>
  [...row.children].map((part) => part.textContent).join(" | ")
)`;

if (isDeno) {
  describe("the playground's page", { skip }, () => {
    before(async () => {
      folder = await Deno.makeTempDir({ prefix: "natkit-playground-" });
      const { code, stderr } = await playground("build", `${folder}/playground.html`).output();
      assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
      // By a name that is computed: no bundle is to carry it.
      const { launch } = await import(
        ["puppeteer", "core"].join("-")
      ) as typeof import("puppeteer-core");
      browser = await launch({
        executablePath: executable!,
        pipe: true,
        // Its sandbox is not to be had for root.
        args: Deno.uid() === 0 ? ["--no-sandbox"] : [],
      });
    });

    after(async () => {
      await browser?.close();
      if (folder !== undefined) await Deno.remove(folder, { recursive: true });
    });

    it("is served on this machine, the same as it is built", async () => {
      const child = playground("--port", "0").spawn();
      try {
        const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
        const url = (await reader.read()).value!.trim();
        assertMatch(url, /^http:\/\/127\.0\.0\.1:\d+\/$/);

        const served = await (await fetch(url)).text();
        assertEquals(served === await Deno.readTextFile(`${folder}/playground.html`), true);
        const other = await fetch(`${url}favicon.ico`);
        assertEquals([other.status, await other.text()], [404, "There is only one page."]);
        await reader.cancel();
      } finally {
        child.kill();
        await child.stderr.cancel();
        await child.status;
      }
    });

    it("tells how the command is used", async () => {
      const { code, stderr } = await playground("--port", "http").output();
      assertEquals(code, 2);
      assertMatch(new TextDecoder().decode(stderr), /^use: deno task playground/);
    });

    it("maps a port, lets a knock in, and gets the port back after a reboot", async () => {
      await visit("", {}, async (page) => {
        assertEquals(await ask(page, MAPPED), 0);
        await page.select("#speed", "4");
        await page.click("#laptop");
        await until(page, `${MAPPED} === 1 && ${LAPTOP}.includes("open at 203.0.113.7:27015")`);
        assertMatch(
          await text(page, "#table tr.asked"),
          /203\.0\.113\.7:27015192\.168\.1\.20:27015PCP/,
        );

        await page.click("#knock");
        await until(page, `document.getElementById("told").textContent.includes("answers")`);

        await page.click("#reboot");
        await until(page, `${MAPPED} === 0`);
        await until(page, `${MAPPED} === 1 && ${LAPTOP}.includes("open at")`);
      });
    });

    it("punches a hole between the laptop and the friend", async () => {
      await visit("", {}, async (page) => {
        await page.select("#speed", "4");
        await page.click("#punch");
        await until(
          page,
          `document.getElementById("client-meeting").textContent.includes("connected in")`,
        );
        assertEquals(await text(page, "#punch"), "Hang up");
      });
    });

    it("stops, steps from packet to packet, and opens one with its fields", async () => {
      await visit("", {}, async (page) => {
        await page.click("#play");
        assertEquals(await text(page, "#play"), "Play");
        // What there is to step through comes now: however slow this machine is, none of it is over.
        await page.click("#laptop");
        const stopped = await text(page, "#clock");
        await new Promise((resolve) => setTimeout(resolve, 200));
        assertEquals(await text(page, "#clock"), stopped);

        await page.click("#step");
        await until(page, `document.getElementById("clock").textContent !== "${stopped}"`);
        await ask(page, `for (let i = 0; i < 3; i++) document.getElementById("step").click()`);
        await until(page, `document.getElementById("log").textContent.includes("MAP response")`);
        await ask(
          page,
          `[...document.querySelectorAll("#log button")].find((row) =>
            row.textContent.includes("MAP request")).click()`,
        );
        const detail = await text(page, "#detail");
        assertMatch(detail, /MAP request.*internal port27015.*source192\.168\.1\.20:\d+/);
      });
    });

    it("opens a packet that is clicked as it flies", async () => {
      await visit("", {}, async (page) => {
        await page.click("#play");
        await page.click("#knock");
        await until(page, `document.querySelectorAll("#stage .packet").length === 1`);
        await ask(
          page,
          `document.querySelector("#stage .packet")
          .dispatchEvent(new PointerEvent("pointerdown", { bubbles: true }))`,
        );
        assertMatch(await text(page, "#detail"), /server → gateway.*Textknock/);
      });
    });

    it("brings the same packets again by the link that it leaves in the address bar", async () => {
      let link = "", first: string[] = [];
      await visit("seed=77", {}, async (page) => {
        // Step by step: nothing depends on how fast this machine is.
        await page.click("#play");
        await page.select("#loss", "30");
        for (const deed of ["#laptop", "#knock"]) {
          await page.click(deed);
          await ask(page, `for (let i = 0; i < 4; i++) document.getElementById("step").click()`);
        }
        await ask(page, SHOWN);
        first = await ask(page, PACKETS) as string[];
        link = await ask(page, "location.hash.slice(1)") as string;
      });
      assertMatch(link, /^seed=77&do=\d+\.loss-30,\d+\.map-laptop,\d+\.knock$/);
      assert(first.length >= 6 && first.some((row) => row.endsWith("lost")));

      await visit(link, {}, async (page) => {
        await page.select("#speed", "4");
        await until(page, `document.querySelectorAll("#log button").length >= ${first.length}`);
        assertEquals((await ask(page, PACKETS) as string[]).slice(0, first.length), first);
      });
    });

    it("says what is wrong with a link, and works all the same", async () => {
      await visit("seed=1&do=%E0%A4%A", {}, async (page) => {
        assertMatch(await text(page, "#error"), /cannot be read: there is no deed/);
        await page.click("#laptop");
        await until(page, `${MAPPED} === 1`);
      });
    });

    it("goes on flying where the screen is turned", async () => {
      const all =
        `[...document.querySelectorAll("#stage .packet text")].map((one) => one.textContent)`;
      await visit("", { width: 360 }, async (page) => {
        for (const id of ["#play", "#knock", "#laptop"]) await page.click(id);
        await until(page, `${all}.length === 3`);
        const before = await ask(page, all);
        await page.setViewport({ width: 1280, height: 700 });
        await until(page, `document.querySelector("#stage svg").viewBox.baseVal.width > 600`);
        assertEquals(await ask(page, all), before);
      });
    });

    for (const scheme of ["light", "dark"]) {
      it(`has no sideways scrolling on a phone, and no faint text, ${scheme}`, async () => {
        const features = [{ name: "prefers-color-scheme", value: scheme }];
        await visit(
          "do=0.map-laptop,0.punch",
          { width: 360, height: 740, features },
          async (page) => {
            await until(page, `document.querySelectorAll("#log button").length > 8`);
            await ask(page, `document.querySelector("#log button").click()`);
            assertEquals(await ask(page, "document.documentElement.scrollWidth"), 360);
            assertEquals(await ask(page, WIDER_THAN_THEIR_PLACE), []);
            assertEquals(await ask(page, FAINT), []);
          },
        );
      });
    }

    it("is worked by the keyboard alone", async () => {
      await visit("", {}, async (page) => {
        const reached = new Set<string>();
        for (let i = 0; i < 40; i++) {
          await page.keyboard.press("Tab");
          reached.add(await ask(page, "document.activeElement.id") as string);
        }
        const missed = (await ask(page, ALL_CONTROLS) as string[]).filter((id) => !reached.has(id));
        assertEquals(missed, []);
        assertEquals(await ask(page, NAMELESS), []);

        await ask(page, "document.activeElement.blur()");
        await page.keyboard.press("m");
        await until(page, `${MAPPED} === 1`);
        await page.keyboard.press(" ");
        await until(page, `document.getElementById("play").textContent === "Play"`);
        await page.keyboard.press("l");
        await page.keyboard.press("Enter");
        await until(page, `document.getElementById("detail").textContent.includes("Headers")`);
        assertEquals(await ask(page, "document.activeElement.id"), "detail");
        await page.keyboard.press("Escape");
        assertEquals(await ask(page, "document.activeElement.ariaCurrent"), "true");
      });
    });

    it("moves nothing for those who want no motion, and tells the same", async () => {
      const features = [{ name: "prefers-reduced-motion", value: "reduce" }];
      await visit("", { features }, async (page) => {
        const place = `document.querySelector("#stage .packet")?.getAttribute("transform")`;
        await page.click("#play");
        await page.click("#knock");
        await until(page, `${place} !== undefined`);
        const [before, time] = await ask(page, `[${place}, ${CLOCK}]`) as [string, number];
        await page.select("#speed", "0");
        await until(page, `${CLOCK} > ${time + 0.003}`);
        assertEquals(await ask(page, place), before);
      });
    });
  });
}

/** Waits for the page to show what has happened. */
const SHOWN = `new Promise((shown) =>
  requestAnimationFrame(() => requestAnimationFrame(() => shown(true)))
)`;

/** Elements whose content is wider than they are, and which do not scroll by design. */
const WIDER_THAN_THEIR_PLACE = `[...document.querySelectorAll("main *")].filter((element) =>
  element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 1 &&
  !["auto", "hidden"].includes(getComputedStyle(element).overflowX) &&
  !(element instanceof SVGElement) && getComputedStyle(element).display !== "inline"
).map((element) => element.id || element.className || element.tagName)`;

/** Texts with less contrast than WCAG asks for (4.5 : 1), by what is behind them. */
const FAINT = `(() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = numbers(color).map((value) => value / 255)
      .map((value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const { backgroundColor } = getComputedStyle(element);
    const alpha = numbers(backgroundColor)[3] ?? 1;
    return alpha > 0.5 || !element.parentElement ? backgroundColor : behind(element.parentElement);
  };
  return [...document.querySelectorAll("main *")].filter((element) =>
    [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== "") &&
    element.checkVisibility() && !element.disabled
  ).filter((element) => {
    const ink = element instanceof SVGElement ? getComputedStyle(element).fill
      : getComputedStyle(element).color;
    const box = element instanceof SVGElement ? element.parentElement.querySelector("rect") : null;
    const paper = box ? getComputedStyle(box).fill : behind(element);
    const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05) < 4.5;
  }).map((element) => element.outerHTML.slice(0, 80));
})()`;

/** What can be pressed or chosen, by id. */
const ALL_CONTROLS = `[...document.querySelectorAll("button[id], select, input")]
  .filter((control) => !control.disabled).map(({ id }) => id)`;

/** What can be pressed or chosen, and has no name. */
const NAMELESS = `[...document.querySelectorAll("button, select, input")].filter((control) =>
  !control.textContent.trim() && !control.ariaLabel && !control.labels?.length ||
  control.matches("select") && !control.labels.length
).map(({ id }) => id)`;
