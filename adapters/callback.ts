/**
 * How code of the application is called.
 *
 * @module
 */

/**
 * Runs the application's code. What it throws disturbs nobody here: it is rethrown from a
 * microtask, where it is an uncaught exception like one out of any other callback.
 */
export function callBack(callback: () => void): void {
  try {
    callback();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
