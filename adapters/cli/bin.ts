/**
 * The program: runs {@linkcode main} on the process's arguments. It sets the exit status and lets
 * the process end by itself, so that what was written reaches its reader.
 *
 * @module
 */
import process from "node:process";
import { main } from "./main.ts";

main(process.argv.slice(2)).then((status) => {
  process.exitCode = status;
});
