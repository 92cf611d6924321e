/**
 * The commands, in the order of the help text.
 *
 * @module
 */
import type { Command } from "../command.ts";
import { ADDRESS } from "./address.ts";
import { DEMO } from "./demo.ts";
import { GATEWAY } from "./gateway.ts";
import { MAP } from "./map.ts";
import { PEER } from "./peer.ts";
import { UNMAP } from "./unmap.ts";

/** Every command of `natkit`. */
export const COMMANDS: readonly Command[] = [MAP, UNMAP, PEER, ADDRESS, GATEWAY, DEMO];
