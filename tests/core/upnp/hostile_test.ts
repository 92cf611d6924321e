/**
 * Devices that mean harm, or are broken: what they can make a client ask, keep or wait for.
 */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import type { HttpResult } from "../../../core/machine.ts";
import { describeFailure } from "../../../core/mapping.ts";
import { writeDescription } from "../../../core/upnp/description.ts";
import { encodeSearchResponse } from "../../../core/upnp/ssdp.ts";
import { Rig, told } from "./rig.ts";
import {
  gatewayDevice,
  plain,
  PORT,
  ROUTER,
  type RouterOptions,
  ScriptedRouter,
  SERVICES,
} from "./scripted_igd.ts";

/** What a request comes to, and to whom requests went. */
function meet(options: RouterOptions): { readonly outcome: string; readonly asked: string[] } {
  const rig = new Rig({ router: new ScriptedRouter(options) });
  rig.map({ mode: "once" });
  rig.runTo(60_000);
  const failed = rig.take().find(({ type }) => type === "failed");
  const asked = [...new Set(rig.router.requests.map(({ to }) => to.address))];
  return { outcome: failed ? describeFailure(told(failed, "failed").failure) : "mapped", asked };
}

const redirect = (location: string): HttpResult => ({
  ok: true,
  status: 302,
  headers: [["Location", location]],
  body: new Uint8Array(0),
});

describe("a device", () => {
  const elsewhere = [
    "http://203.0.113.66/desc.xml",
    "http://192.168.1.9/desc.xml",
    "http://127.0.0.1:8080/admin",
    "http://router.example/desc.xml",
    "https://192.168.1.1/desc.xml",
    "file:///etc/passwd",
    "http://192.168.1.1@203.0.113.66/",
    "gopher://192.168.1.1/",
    "",
    "%",
  ];

  it("that is described elsewhere is not asked, and that is told", () => {
    for (const location of elsewhere.filter((text) => text !== "")) {
      const { outcome, asked } = meet({ location });
      assertEquals([outcome, asked], ["protocol violation (its LOCATION leads elsewhere)", []]);
    }
  });

  it("that is controlled elsewhere is not asked there", () => {
    for (const controlUrl of elsewhere.filter((text) => text.startsWith("http:"))) {
      const { outcome, asked } = meet({ device: gatewayDevice([{ ...SERVICES.ip1, controlUrl }]) });
      assertEquals([outcome, asked], [
        "protocol violation (its control URL leads elsewhere)",
        [ROUTER],
      ]);
    }
  });

  it("that sends on is followed on its own ground alone, and not for ever", () => {
    const home = `http://${ROUTER}:${PORT}/moved.xml`;
    const moved = meet({ get: (path) => path === "/desc.xml" ? redirect(home) : undefined });
    assertEquals([moved.outcome, moved.asked], ["mapped", [ROUTER]]);
    const away = meet({ get: () => redirect("http://203.0.113.66/desc.xml") });
    assertEquals(away, {
      outcome: "protocol violation (its LOCATION leads elsewhere)",
      asked: [ROUTER],
    });
    const rig = new Rig({ router: new ScriptedRouter({ get: () => redirect(home) }) });
    rig.map({ mode: "once" });
    rig.runTo(10_000);
    assert(rig.router.asked.length <= 3, rig.router.asked.join());
  });

  it("that answers too much, nothing, nonsense or never is done with in bounded time", () => {
    const bomb = `<!DOCTYPE r [<!ENTITY a "${"x".repeat(99)}">${
      Array.from({ length: 20 }, (_, i) => `<!ENTITY b${i} "&a;&a;&a;">`).join("")
    }]><root>&b19;</root>`;
    const answers: HttpResult[] = [
      { ok: false, reason: "too-large" },
      { ok: false, reason: "timeout" },
      { ok: false, reason: "refused" },
      { ok: false, reason: "failed" },
      { ok: false, reason: "permission" },
      plain(200),
      plain(200, "<a>".repeat(80_000)),
      plain(200, bomb),
      plain(200, "\0\xff".repeat(1000)),
      plain(404),
      plain(503, "busy"),
    ];
    for (const answer of answers) {
      const { outcome } = meet({ get: () => answer });
      assertEquals(outcome, "no answer");
    }
  });

  it("of whose services one cannot be named is asked by the others alone", () => {
    const hostile = { ...SERVICES.ip2, serviceType: 'urn:x"><y>:service:WANIPConnection:2' };
    assertEquals(meet({ device: gatewayDevice([hostile, SERVICES.ip1]) }).outcome, "mapped");
    assertEquals(meet({ device: gatewayDevice([hostile]) }).outcome, "no answer");
  });

  it("whose answers to calls are nonsense is told as such, and asked no more than need be", () => {
    for (const answer of [plain(200, "<a"), plain(200), plain(302), plain(403, "no")]) {
      const router = new ScriptedRouter({ acts: { AddPortMapping: () => answer } });
      const rig = new Rig({ router });
      rig.map({ mode: "once", suggestedExternal: { port: 9000 } });
      const failed = told(rig.take().find(({ type }) => type === "failed"), "failed");
      assertEquals(describeFailure(failed.failure), "protocol violation (no answer of UPnP's)");
      assert(router.calls.length < 8, `${router.calls.length} calls`);
    }
  });

  it("whose table has no end is read for so long", () => {
    const entry = {
      NewRemoteHost: "",
      NewExternalPort: "1",
      NewProtocol: "TCP",
      NewInternalPort: "1",
      NewInternalClient: "x",
    };
    const rig = new Rig({
      router: new ScriptedRouter({ acts: { GetGenericPortMappingEntry: () => entry } }),
    });
    rig.do((client, now) => client.list(now));
    const { entries, isCut } = told(rig.take().at(-1), "table-told");
    assertEquals([entries.length, isCut], [4096, true]);
  });
});

describe("answers to a search", () => {
  const answer = (location: string) =>
    encodeSearchResponse({ target: "upnp:rootdevice", usn: `uuid:${location}`, location });

  it("by the thousand cost sixteen descriptions at most", () => {
    const router = new ScriptedRouter({ answers: () => false, get: () => plain(200, "<root/>") });
    const rig = new Rig({ router });
    rig.do((client, now) => client.probe(now));
    const [socket] = rig.client.sockets();
    for (let i = 0; i < 1000; i++) {
      const data = answer(`http://${ROUTER}:${PORT}/${i}.xml`);
      rig.client.handleDatagram(data, { address: ROUTER, port: 1900 }, socket!.key, rig.now);
      rig.settle();
    }
    rig.runTo(10_000);
    assertEquals(router.asked.length, 16);
    assertEquals(rig.client.stats.dropped["too-many"], 984);
  });

  it("of strangers and to nobody's question are dropped and counted", () => {
    const rig = new Rig({ router: new ScriptedRouter({ answers: () => false }) });
    rig.do((client, now) => client.probe(now));
    const [socket] = rig.client.sockets();
    const data = answer("http://203.0.113.66/d.xml");
    rig.client.handleDatagram(data, { address: "203.0.113.66", port: 1900 }, socket!.key, 0);
    rig.client.handleDatagram(data, { address: ROUTER, port: 1900 }, "client", 0);
    rig.client.handleDatagram(new Uint8Array(3), { address: ROUTER, port: 1 }, socket!.key, 0);
    rig.client.handleResponse(99, plain(200), 0);
    const { "off-link": offLink, unsolicited, malformed } = rig.client.stats.dropped;
    assertEquals([offLink, unsolicited, malformed], [1, 2, 1]);
    assertEquals(rig.router.requests, []);
  });

  it("are heard to the end of the search, and not beyond", () => {
    const rig = new Rig({ router: new ScriptedRouter({ answers: () => false }) });
    rig.do((client, now) => client.probe(now));
    const [socket] = rig.client.sockets();
    rig.runTo(2299);
    const description = writeDescription({ device: gatewayDevice([SERVICES.ip1]), urlBase: "" });
    rig.router.options = { description: new TextDecoder().decode(description) };
    const data = answer(rig.router.location);
    const from = { address: ROUTER, port: 1900 };
    rig.client.handleDatagram(data, from, socket!.key, rig.now);
    rig.settle();
    assertEquals(rig.types(), ["external-address"]);
    assertEquals(rig.client.handleDatagram(data, from, socket!.key, rig.now), false);
  });
});

it("a socket that cannot be had is told at once", () => {
  const rig = new Rig();
  rig.client.probe(0);
  const [socket] = rig.client.sockets();
  const result = { ok: false, code: "permission", message: "EPERM", isOpen: false } as const;
  rig.client.handleSocket(socket!.key, result, 0);
  const action = rig.client.poll();
  const event = action?.type === "event" ? action.event : undefined;
  const failed = told(event, "external-address-failed");
  assertEquals(failed.failure, { kind: "unreachable" });
});
