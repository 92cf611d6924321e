/**
 * Why a machine dropped a datagram, read off its counters: all machines count what they drop, by
 * reason, and say no more than that.
 *
 * @module
 */

/** How deep counters lie: of a machine, its clients, what they dropped, why. */
const DEPTH = 4;
/** Said by whoever has nothing to do with a datagram: another one's reason says more. */
const VAGUE = ["unsolicited", "unmatched", "wrong version", "not a response"];

/** The counters of what was dropped, by who counts and why. */
export function countDropped(stats: object): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  const walk = (value: object, where: string, isDropped: boolean, depth: number): void => {
    for (const [key, one] of Object.entries(value)) {
      if (typeof one === "number") {
        if (isDropped || key === "wrongSource") counts.set(`${where} ${words(key)}`, one);
      } else if (typeof one === "object" && one !== null && depth > 0) {
        const isHere = key === "dropped";
        walk(one, isHere ? `${where}:` : `${where} ${key}`, isDropped || isHere, depth - 1);
      }
    }
  };
  walk(stats, "", false, DEPTH);
  return counts;
}

/**
 * Why it was dropped: what was counted since.
 *
 * @param data The datagram, whose protocol's client says best.
 */
export function reasonSince(
  before: ReadonlyMap<string, number>,
  stats: object,
  data: Uint8Array,
): string {
  // PCP and NAT-PMP begin with their version (RFC 6887 §9), SSDP with a letter.
  const client = data[0] === 2 ? "pcp" : data[0] === 0 ? "nat-pmp" : "upnp";
  const grown = [...countDropped(stats)].filter(([key, count]) => count > (before.get(key) ?? 0))
    .map(([key]) => key);
  const own = grown.filter((key) => key.includes(` ${client}:`));
  const reasons = new Set(
    (own.length > 0 ? own : grown).map((key) => key.split(": ").at(-1)!.trim()),
  );
  const telling = [...reasons].filter((reason) => !VAGUE.includes(reason));
  return (telling.length > 0 ? telling : [...reasons]).join(", ") || "not asked for";
}

/** `wrong-source` and `wrongSource` in words. */
function words(key: string): string {
  return key.replaceAll("-", " ").replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}
