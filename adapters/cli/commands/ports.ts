/**
 * The ports of a command line: several go their ways at once, and none is harmed by another one's
 * failure.
 *
 * @module
 */
import type { Context } from "../command.ts";
import { reportOf } from "../output.ts";
import { type PortAndProtocol, readPortAndProtocol, UsageError } from "../values.ts";

/**
 * Reads each; tcp where nothing is said.
 *
 * @throws {UsageError} Where one is no port, or is there twice.
 */
export function readPorts(texts: readonly string[]): readonly PortAndProtocol[] {
  const seen = new Set<string>();
  return texts.map((text) => {
    const read = readPortAndProtocol("PORT", text, "tcp");
    const key = `${read.port}/${read.protocol}`;
    if (seen.has(key)) throw new UsageError(`PORT is given twice: the second value is "${text}"`);
    seen.add(key);
    return read;
  });
}

/**
 * Does it for each port; answers the exit status. Of several one that fails is told, and the others
 * go on; a single one's failure is thrown.
 */
export async function forEachPort<T extends PortAndProtocol>(
  { output, stop }: Context,
  ports: readonly T[],
  act: (one: T) => Promise<number>,
): Promise<number> {
  if (ports.length === 1) return await act(ports[0]!);
  let status = 0;
  let thrown: { readonly error: unknown } | undefined;
  await Promise.all(ports.map(async (one) => {
    try {
      if (await act(one) !== 0) status = 1;
    } catch (error) {
      const { report, status: failed } = reportOf(error);
      // What holds for all of them is told once.
      if (stop.aborted || failed === 2) {
        thrown ??= { error };
        return;
      }
      output.fail({ ...report, protocol: one.protocol, internal: { port: one.port } });
      status = 1;
    }
  }));
  if (thrown) throw thrown.error;
  return status;
}
