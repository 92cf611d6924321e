/**
 * How code of the application is called.
 *
 * @module
 */

/**
 * Runs the application's code. What it throws, or what the promise that it returns rejects with,
 * disturbs nobody here: it is rethrown from a microtask, where it is an uncaught exception like one
 * out of any other callback.
 *
 * @returns Where it returned a promise, one that ends with it and never rejects.
 */
export function callBack(callback: () => unknown): Promise<void> | undefined {
  try {
    const result = callback();
    if (result instanceof Promise) return result.then(() => {}, rethrow);
  } catch (error) {
    rethrow(error);
  }
  return undefined;
}

function rethrow(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
}
