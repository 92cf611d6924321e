/**
 * The file in which mappings are kept from one run to the next, above all PCP's nonces, without
 * which a gateway lets nobody renew or delete them.
 *
 * Theory of operation: each run changes the entries of the mappings that it makes or deletes and
 * leaves all others as they are. A change reads the file, edits, and puts the result in its place by
 * a rename, so that a reader never sees half a file. Two changes at once must not lose each other's
 * entries, nor may a run that is killed anywhere stop the others. So a change needs the lock:
 *
 * - The lock is the folder `FILE.lock`, and it is free where that is missing or empty. A run takes
 *   it by renaming a folder of its own there, in which lies one file, its token, whose name is used
 *   once only. The system renames a folder onto a missing or an empty one and onto no other, so two
 *   runs never both get it.
 * - The new content is written into the token, and the token is renamed to `FILE`: this commits and
 *   frees the lock in one step.
 * - A lock whose holder is dead, or has not moved for {@linkcode STALE_LOCK_MS}, is broken by
 *   deleting the token. That can hit no other token than the one that was looked at, however many
 *   runs do it at once and however late. Where the holder lives after all, its commit fails, since
 *   its token is gone, and it begins anew: a lock broken by mistake costs a retry and no entry.
 *
 * Thus a commit proves that its token lay in the lock from before the file was read until now, and
 * that nobody else committed meanwhile. Liveness and age decide how soon a lock is broken, never
 * whether the result is right. (A run killed at the wrong instant leaves an empty folder or file
 * beside `FILE`, which nobody reads.)
 *
 * What goes wrong with the disk is a warning and fails no command. A file that holds something else
 * than natkit's state is never written to: that is an error, told before anything is sent.
 *
 * @module
 */
import { existsSync } from "node:fs";
import {
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  rmdir,
  stat,
} from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import process from "node:process";
import { checkAddress, checkPort } from "../../core/check.ts";
import { formatEndpoint, isSameEndpoint } from "../../core/ip.ts";
import type { Endpoint } from "../../core/machine.ts";
import { PCP_PORT } from "../../core/pcp/constants.ts";
import { readSaved, savedKey } from "../../core/lease/saved.ts";
import type { SavedPort } from "../../core/portmap/managed.ts";
import { CommandError } from "./output.ts";
import { hasPid, isRunning, type ProcessId } from "./processes.ts";

/** A mapping as it is kept. */
export interface Entry {
  /** What the library needs to adopt or delete it. */
  readonly mapping: SavedPort;
  /** When it ends if nobody renews it, milliseconds since 1970. */
  readonly expiresAt: number;
  /** The gateway that holds it. */
  readonly gateway?: Endpoint;
  /** The address that packets are sent to on this side. */
  readonly internalAddress?: string;
  /** The process that holds it; absent where it was made to be left. */
  readonly owner?: ProcessId;
}

/** The file's content. */
interface Content {
  readonly version: 1;
  readonly entries: readonly Entry[];
}

/** How long an entry outlives its mapping: clocks go wrong, and gateways forget late. */
const KEPT_AFTER_EXPIRY_MS = 86_400_000;
/** More entries than this are none that a host has made: the oldest go. */
const MAX_ENTRIES = 4096;
/** That many entries do not come near to this, bytes. */
const MAX_FILE_BYTES = 1 << 25;
/** A lock is held for milliseconds; one that has been held for this long has lost its holder. */
const STALE_LOCK_MS = 2000;
/** How long to wait for a lock that others take again and again. */
const LOCK_TIMEOUT_MS = 30_000;
const LOCK_RETRY_MS = 10;

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

/** The gateway of an entry. */
export function gatewayOf({ gateway, mapping }: Entry): Endpoint {
  return gateway ?? { address: mapping.gateway, port: PCP_PORT };
}

/** Whether it is asked for at a gateway: at its own, or through that which stands below it. */
export function isReachedBy(entry: Entry, gateway: Endpoint): boolean {
  const { inner } = entry.mapping;
  return inner ? inner.gateway === gateway.address : isSameEndpoint(gatewayOf(entry), gateway);
}

/** What makes two entries the same mapping: gateway, protocol, port, peer and internal address. */
export function entryKey(entry: Entry): string {
  const { mapping, internalAddress = "" } = entry;
  // A claim stands beside what an earlier run has left, and loses none of it.
  const what = isClaim(entry) ? "claim" : "mapping";
  return `${what} ${formatEndpoint(gatewayOf(entry))} ${savedKey(mapping)} ${internalAddress}`;
}

/**
 * Whether it only says that a run is about to ask: of two that begin in the same moment one is first,
 * before a gateway has heard of either. Without a nonce nothing was asked, as far as the file knows.
 */
export function isClaim({ mapping }: Entry): boolean {
  return mapping.via === "pcp" && mapping.nonce === undefined && mapping.external === undefined;
}

/** Whether a process other than this one holds the mapping and runs. */
export async function isHeldByAnother({ owner }: Entry): Promise<boolean> {
  return owner !== undefined && owner.pid !== process.pid && await isRunning(owner);
}

/** The mappings of earlier runs, on disk. */
export class StateFile {
  /** Where it is; undefined where nothing is kept. */
  readonly path: string | undefined;
  readonly #warn: (text: string) => void;

  /** Makes one over `path`; without a path it keeps nothing. */
  constructor(path: string | undefined, warn: (text: string) => void) {
    this.path = path;
    this.#warn = warn;
  }

  /**
   * What is kept; nothing where the file is missing or cannot be read.
   *
   * @throws {CommandError} `state-file`, where the file is not natkit's or a newer version's.
   */
  async load(): Promise<Entry[]> {
    if (this.path === undefined) return [];
    try {
      return await read(this.path);
    } catch (error) {
      if (error instanceof CommandError) throw error;
      this.#warn(`Cannot read ${this.path}: ${codeOf(error)}`);
      return [];
    }
  }

  /**
   * Keeps an entry in the place of the older one of the same mapping, unless another process that
   * runs holds that one.
   *
   * @param isReplaced Which others it takes the place of.
   * @returns The other one's entry, which then stays.
   */
  async keep(
    entry: Entry,
    isReplaced: (entry: Entry) => boolean = () => false,
  ): Promise<Entry | undefined> {
    const key = entryKey(entry);
    let other: Entry | undefined;
    await this.#change(async (entries) => {
      const older = entries.find((one) => entryKey(one) === key);
      other = older && await isHeldByAnother(older) ? older : undefined;
      if (other) return undefined;
      return [...entries.filter((one) => one !== older && !isReplaced(one)), entry];
    });
    return other;
  }

  /** Forgets the entries that `isGone` accepts. */
  async forget(isGone: (entry: Entry) => boolean): Promise<void> {
    await this.#change((entries) => {
      const kept = entries.filter((entry) => !isGone(entry));
      return Promise.resolve(kept.length === entries.length ? undefined : kept);
    });
  }

  /** Replaces the entries by what `edit` makes of them, where it makes something. */
  async #change(edit: (entries: Entry[]) => Promise<Entry[] | undefined>): Promise<void> {
    if (this.path === undefined) return;
    try {
      const path = await placeOf(this.path);
      if (!await edit(await read(path))) return;
      const kind = await stat(path).catch(() => undefined);
      // What goes to /dev/null is to be lost.
      if (kind?.isCharacterDevice()) return;
      if (kind && !kind.isFile()) {
        return this.#warn(`${path} is no regular file: nothing is kept there`);
      }
      await makeFolder(dirname(path));
      for (const since = performance.now(); !await tryToChange(path, edit);) {
        if (performance.now() - since > LOCK_TIMEOUT_MS) throw new Error(`${path}.lock is taken`);
      }
    } catch (error) {
      const why = error instanceof CommandError ? error.message : codeOf(error);
      this.#warn(`Cannot write ${this.path}: ${why}; a later unmap may not be allowed`);
    }
  }
}

/**
 * Where the file is or will be: a rename would put it in the place of a link, be that one to a file
 * that is not there yet.
 */
async function placeOf(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    const target = codeOf(error) === "ENOENT" && await readlink(path).catch(() => undefined);
    return target ? await placeOf(resolve(dirname(path), target)) : path;
  }
}

/**
 * Makes a folder and those above it that are missing. Node's own way never ends where the system
 * says that nothing is there and lets nobody make it: in /proc, or where homes are mounted on demand.
 */
async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    if (codeOf(error) === "EEXIST") return;
    const above = dirname(path);
    if (codeOf(error) !== "ENOENT" || above === path || existsSync(above)) throw error;
    await makeFolder(above);
    await makeFolder(path);
  }
}

/** Reads the entries; what is no entry is left out. */
async function read(path: string): Promise<Entry[]> {
  const kind = await stat(path).catch((error) => {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  });
  if (kind?.isDirectory()) throw new CommandError("state-file", `${path} is a folder, no file`);
  if (!kind?.isFile()) return [];
  // A larger one is none of natkit's, and as text it may be more than a runtime can hold.
  const text = kind.size > MAX_FILE_BYTES ? "too large" : await readFile(path, "utf8");
  // What is empty has nothing to lose, and mktemp makes such files.
  if (text.trim() === "") return [];
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    // Told below.
  }
  if (isRecord(content) && Array.isArray(content.entries) && Object.keys(content).length === 2) {
    const { version, entries } = content;
    const good = entries.filter(isEntry);
    if (version === 1 && (good.length > 0 || entries.length === 0)) return good;
    if (typeof version === "number" && version > 1) {
      throw new CommandError(
        "state-file",
        `${path} was written by a newer natkit (version ${version} of the file): ` +
          "it is left as it is; name another one with --state FILE",
      );
    }
  }
  throw new CommandError(
    "state-file",
    `${path} is no state file of natkit: it is left as it is; name another one with --state FILE`,
  );
}

function codeOf(error: unknown): string {
  const { code, message } = error as { code?: unknown; message?: unknown };
  return typeof code === "string" ? code : String(message ?? error);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isEntry(value: unknown): value is Entry {
  if (!isRecord(value) || typeof value.expiresAt !== "number" || !isRecord(value.mapping)) {
    return false;
  }
  const { gateway, internalAddress, owner } = value as Partial<Entry>;
  try {
    readSaved(value.mapping as unknown as SavedPort);
    if (gateway !== undefined) {
      checkAddress("gateway.address", gateway?.address);
      checkPort("gateway.port", gateway?.port);
    }
    if (internalAddress !== undefined) checkAddress("internalAddress", internalAddress);
    return owner === undefined || (Number.isInteger(owner?.pid) && owner.pid > 0);
  } catch {
    return false;
  }
}

/** One attempt at a change; answers whether it is done. */
async function tryToChange(
  path: string,
  edit: (entries: Entry[]) => Promise<Entry[] | undefined>,
): Promise<boolean> {
  const lock = `${path}.lock`;
  const token = await take(path, lock);
  if (token === undefined) return false;
  const file = join(lock, token);
  try {
    const edited = await edit(await read(path));
    if (edited) await commit(file, path, edited);
    return true;
  } catch (error) {
    // Somebody broke the lock.
    if (codeOf(error) === "ENOENT") return false;
    throw error;
  } finally {
    await rm(file, { force: true });
    // Where it is not empty it belongs to the next one.
    await rmdir(lock).catch(() => {});
  }
}

/** Writes the entries into the token, and puts that in the place of the file. */
async function commit(token: string, path: string, entries: readonly Entry[]): Promise<void> {
  const oldest = Date.now() - KEPT_AFTER_EXPIRY_MS;
  const content: Content = {
    version: 1,
    // A host without a clock that lasts starts years ago, and is set right later.
    entries: entries.filter(({ expiresAt, owner }) =>
      expiresAt > oldest || (owner !== undefined && hasPid(owner.pid))
    ).slice(-MAX_ENTRIES),
  };
  // Never made here: a token that is gone must stay gone.
  const file = await open(token, "r+");
  try {
    await file.writeFile(`${JSON.stringify(content, null, 2)}\n`);
    // After a power failure the nonces are needed most.
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(token, path);
}

/** Takes the lock and answers the token's name, or breaks it or waits a moment. */
async function take(path: string, lock: string): Promise<string | undefined> {
  if (!await isFree(lock)) return undefined;
  const token = `${host()}.${process.pid}.${crypto.randomUUID()}`;
  const own = `${path}.${token}`;
  await mkdir(own, { mode: 0o700 });
  try {
    // Nonces are what protects a mapping from others: nobody else may read them.
    await (await open(join(own, token), "wx", 0o600)).close();
    await rename(own, lock);
    return token;
  } catch (error) {
    await rm(own, { recursive: true });
    const taken = process.platform === "win32" ? "EPERM" : "ENOTEMPTY";
    if ([taken, "EEXIST"].includes(codeOf(error))) return undefined;
    throw error;
  }
}

function host(): string {
  return hostname().replace(/[^A-Za-z0-9-]/g, "_");
}

/** Whether the lock is free; where it is not, this waits until it may be. */
async function isFree(lock: string): Promise<boolean> {
  const since = performance.now();
  let seen: string | undefined;
  for (;;) {
    const [token] = await readdir(lock).catch((error) => {
      if (codeOf(error) === "ENOENT") return [undefined];
      throw error;
    });
    if (token === undefined) {
      // Windows renames onto no folder, be it empty.
      if (process.platform === "win32") await rmdir(lock).catch(() => {});
      return true;
    }
    if (seen !== undefined && token !== seen) return false;
    seen = token;
    const [at, pid] = token.split(".");
    const isDead = at === host() && /^[1-9][0-9]*$/.test(pid!) && !hasPid(Number(pid));
    if (isDead || performance.now() - since > STALE_LOCK_MS) {
      await rm(join(lock, token), { force: true });
      return true;
    }
    await new Promise((resolve) => setTimeout(resolve, LOCK_RETRY_MS * (0.5 + Math.random())));
  }
}
