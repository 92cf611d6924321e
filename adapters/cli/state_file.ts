/**
 * The file in which mappings are kept from one run to the next, above all PCP's nonces, without
 * which a gateway lets nobody renew or delete them.
 *
 * Theory of operation: each run owns the entries of the mappings it makes or deletes and leaves
 * all others alone. A change reads the file again, replaces the run's own entries and puts the
 * result in place by a rename, under a lock file, so that two runs do not lose each other's
 * entries and a reader never sees half a file. A lock that does not come free (its holder was
 * killed) is taken over after a while. Nothing here fails a command: what goes wrong is a warning.
 *
 * @module
 */
import { randomUUID } from "node:crypto";
import { mkdir, open, readFile, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname, isAbsolute, join } from "node:path";
import { checkSavedMapping, savedKey, type SavedMapping } from "../../core/portmap/saved.ts";

/** An entry: the mapping, and when it ends if nobody renews it. */
interface Entry {
  readonly mapping: SavedMapping;
  /** Milliseconds since 1970. */
  readonly expiresAt: number;
}

/** The file's content. */
interface Content {
  readonly version: 1;
  readonly entries: readonly Entry[];
}

/** Which mappings an operation is about. */
export type SavedFilter = (mapping: SavedMapping) => boolean;

/** How long an entry outlives its mapping: clocks go wrong, and gateways forget late. */
const KEPT_AFTER_EXPIRY_MS = 86_400_000;
/** More entries than this are none that a host has made: the oldest go. */
const MAX_ENTRIES = 4096;
const LOCK_RETRY_MS = 20;
/** A lock is held for milliseconds; one this old has lost its holder. */
const STALE_LOCK_MS = 2000;

/**
 * Where the file is by default: in `$XDG_STATE_HOME/natkit`, or `~/.local/state/natkit` where that
 * is not set to an absolute path. Undefined where there is no home either.
 */
export function defaultStatePath(
  env: Readonly<Record<string, string | undefined>>,
): string | undefined {
  const base = env.XDG_STATE_HOME ?? "";
  if (isAbsolute(base)) return join(base, "natkit", "state.json");
  const home = env.HOME || env.USERPROFILE;
  return home ? join(home, ".local", "state", "natkit", "state.json") : undefined;
}

/** The mappings of earlier runs, on disk. */
export class StateFile {
  readonly #path: string | undefined;
  readonly #warn: (text: string) => void;

  /** Makes one over `path`; without a path it keeps nothing. */
  constructor(path: string | undefined, warn: (text: string) => void) {
    this.#path = path;
    this.#warn = warn;
  }

  /** The mappings that are kept; none where the file is missing or is not one of ours. */
  async load(): Promise<SavedMapping[]> {
    return (await this.#read()).map((entry) => entry.mapping);
  }

  /** Keeps a mapping for as long as it lives, in the place of an older one of the same key. */
  async keep(mapping: SavedMapping, lifetimeSeconds: number): Promise<void> {
    const expiresAt = Date.now() + 1000 * lifetimeSeconds;
    const key = keyOf(mapping);
    await this.#change((entries) => [
      ...entries.filter((entry) => keyOf(entry.mapping) !== key),
      { mapping, expiresAt },
    ]);
  }

  /** Forgets the mappings that `filter` accepts. */
  async forget(filter: SavedFilter): Promise<void> {
    await this.#change((entries) => {
      const kept = entries.filter((entry) => !filter(entry.mapping));
      return kept.length === entries.length ? entries : kept;
    });
  }

  async #read(): Promise<Entry[]> {
    if (this.#path === undefined) return [];
    let text: string;
    try {
      text = await readFile(this.#path, "utf8");
    } catch (error) {
      if (codeOf(error) !== "ENOENT") this.#warn(`Cannot read ${this.#path}: ${codeOf(error)}`);
      return [];
    }
    const entries = parseContent(text);
    if (!entries) this.#warn(`${this.#path} is no state file of natkit: it is not used`);
    return entries ?? [];
  }

  async #change(edit: (entries: Entry[]) => Entry[]): Promise<void> {
    if (this.#path === undefined) return;
    try {
      await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 });
      // A rename would put a file in the place of a device or a link: /dev/null stays what it is.
      const path = await realpath(this.#path).catch(() => this.#path!);
      const isRegular = await stat(path).then((at) => at.isFile(), () => true);
      if (!isRegular) return this.#warn(`${path} is no regular file: nothing is kept there`);
      const unlock = await lock(`${path}.lock`);
      try {
        const before = await this.#read();
        const after = edit(before);
        if (after !== before) await write(path, after);
      } finally {
        await unlock();
      }
    } catch (error) {
      this.#warn(`Cannot write ${this.#path}: ${codeOf(error)}; a later unmap may not be allowed`);
    }
  }
}

async function write(path: string, entries: readonly Entry[]): Promise<void> {
  const oldest = Date.now() - KEPT_AFTER_EXPIRY_MS;
  const content: Content = {
    version: 1,
    entries: entries.filter((entry) => entry.expiresAt > oldest).slice(-MAX_ENTRIES),
  };
  const temporary = `${path}.${randomUUID()}`;
  try {
    // Nonces are what protects a mapping from others: nobody else may read them.
    const file = await open(temporary, "wx", 0o600);
    try {
      await file.writeFile(`${JSON.stringify(content, null, 2)}\n`);
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

function keyOf(mapping: SavedMapping): string {
  return `${mapping.gateway} ${savedKey(mapping)}`;
}

function codeOf(error: unknown): string {
  const { code, message } = error as { code?: unknown; message?: unknown };
  return typeof code === "string" ? code : String(message ?? error);
}

/** The entries of a file's text; what is no entry is left out, what is no such file undefined. */
function parseContent(text: string): Entry[] | undefined {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isRecord(content) || content.version !== 1 || !Array.isArray(content.entries)) {
    return undefined;
  }
  return content.entries.filter(isEntry);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isEntry(value: unknown): value is Entry {
  if (!isRecord(value) || typeof value.expiresAt !== "number" || !isRecord(value.mapping)) {
    return false;
  }
  try {
    checkSavedMapping(value.mapping as unknown as SavedMapping);
    return true;
  } catch {
    return false;
  }
}

/** Takes the lock, by force where its holder has lost it; returns what gives it back. */
async function lock(path: string): Promise<() => Promise<void>> {
  for (let waitedMs = 0;; waitedMs += LOCK_RETRY_MS) {
    try {
      const file = await open(path, "wx", 0o600);
      await file.close();
      return () => rm(path, { force: true });
    } catch (error) {
      // Windows refuses to make a file that is just being deleted with EPERM.
      const isTaken = codeOf(error) === "EEXIST" || codeOf(error) === "EPERM";
      if (!isTaken || waitedMs > 2 * STALE_LOCK_MS) throw error;
      const age = await stat(path).then((at) => Date.now() - at.mtimeMs, () => 0);
      if (age > STALE_LOCK_MS) await rm(path, { force: true });
      else await new Promise((resolve) => setTimeout(resolve, LOCK_RETRY_MS));
    }
  }
}
