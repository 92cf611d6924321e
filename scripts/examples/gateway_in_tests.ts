/**
 * Your client against natkit's gateway, in a test of your own. `node --test`, `deno test -A` and
 * `bun test` run it.
 */
import { strictEqual } from "node:assert";
import { test } from "node:test";
import { openPort } from "@natkit/natkit"; // stands in for the client under test
import { startGateway } from "@natkit/natkit/testing";

test("the client gets its port back after a reboot of the gateway", async () => {
  const gateway = await startGateway({ external: "198.51.100.1" });
  const port = await openPort(8080, { gateway: gateway.endpoint });
  strictEqual(gateway.entries().length, 1);

  await gateway.command("reboot");
  strictEqual(gateway.entries().length, 0);
  await port.renew();
  strictEqual(gateway.entries()[0]?.external.port, port.external.port);

  await port.close();
  await gateway.close();
});
