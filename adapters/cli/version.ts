/**
 * The version that `natkit --version` tells. A constant, because a bundle and the npm package have
 * no deno.json beside them; a test compares the two.
 *
 * @module
 */

/** The version of natkit. */
export const VERSION = "0.1.0";
