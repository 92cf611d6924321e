/**
 * HTTP and TCP over Node's modules, which all three runtimes have. They are loaded by the first
 * machine that has a use for them.
 *
 * @module
 */
import type { StreamResult } from "../core/machine.ts";
import type { Http, HttpHandlers, Streams } from "./runtime.ts";

/** HTTP for one machine. */
export async function openHttp(handlers: HttpHandlers): Promise<Http> {
  return new (await import("./http.ts")).NodeHttp(handlers);
}

/** TCP for one machine. */
export async function openStreams(
  tell: (id: number, happened: StreamResult) => void,
): Promise<Streams> {
  return new (await import("./streams.ts")).NodeStreams(tell);
}
