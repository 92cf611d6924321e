/**
 * Optional fields: with `exactOptionalPropertyTypes` a field that is not given must be absent, not
 * undefined.
 *
 * @module
 */

/**
 * The named fields of `from` that are defined, for spreading into another object.
 */
export function pickDefined<T extends object, K extends keyof T>(
  from: T,
  ...names: readonly K[]
): { [P in K]?: Exclude<T[P], undefined> } {
  const picked: { [P in K]?: Exclude<T[P], undefined> } = {};
  for (const name of names) {
    if (from[name] !== undefined) picked[name] = from[name] as Exclude<T[K], undefined>;
  }
  return picked;
}

/**
 * `from` without the fields that are undefined.
 */
export function dropUndefined<T extends object>(
  from: T,
): { [P in keyof T]?: Exclude<T[P], undefined> } {
  const kept = Object.entries(from).filter(([, value]) => value !== undefined);
  return Object.fromEntries(kept) as { [P in keyof T]?: Exclude<T[P], undefined> };
}
