import { it } from "node:test";
import { assert } from "@std/assert";
import { rehearse } from "../../../core/upnp/rehearsal.ts";

it("a rehearsal goes from a device's answer to a mapping, as often as it is held", () => {
  assert(rehearse());
  assert(rehearse());
});
