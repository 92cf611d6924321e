// The assertion library's build for npm carries no types, so its assert() narrows nothing.
export function claim(condition: unknown, message: string = "a claim"): asserts condition {
  if (!condition) throw new Error(`Claim does not hold: ${message}`);
}
