/** When UPnP's client is loaded, in virtual time. A module is loaded once: the order matters. */
import { it } from "node:test";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { Nat } from "../../../adapters/api/nat.ts";
import { openPort } from "../../../adapters/api/open_port.ts";
import { loadedUpnp, loadUpnp, prepareForAnswer } from "../../../adapters/api/upnp_code.ts";
import { NatError } from "../../../core/errors.ts";
import { FakeNetwork, GATEWAY, turn } from "./fake_network.ts";

it("who is granted by PCP never loads UPnP's client; who wants that loads it at once", async () => {
  const net = new FakeNetwork(["pcp", "nat-pmp"]);
  net.loadsFirst = false;
  const before = loadedUpnp();
  const options = { gateway: GATEWAY, announcements: false, runtime: net };
  const port = await openPort(8080, { ...options, protocols: ["pcp", "nat-pmp", "upnp"] });
  await net.pass(60_000);
  const closed = port.close();
  await net.pass(3000);
  await closed;
  await turn();
  assertEquals([port.via, loadedUpnp()], ["pcp", before]);

  // Closed while it loads.
  const nat = await Nat.open({ ...options, protocols: ["upnp"] });
  const listed = assertRejects(() => nat.list(), NatError, "it was closed");
  await nat.close();
  await listed;
  await loadUpnp();
  assert(loadedUpnp() !== undefined);
});

it("what follows a device's answer is rehearsed once, while there is time for it", async () => {
  let asked = 0;
  const timesAsked = async (isLeft: boolean) => {
    asked = 0;
    await prepareForAnswer(() => (asked++, !isLeft));
    return asked;
  };
  assertEquals(await timesAsked(false), 1, "none before");
  const first = await timesAsked(true);
  // Where all tests share a process another one may have had it rehearsed already.
  assert(first === 2 || first === 1 && !("Deno" in globalThis), `${first}: before each half`);
  assertEquals(await timesAsked(true), 1, "once");
});
