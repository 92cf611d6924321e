/**
 * Which process is which: a pid alone says too little, since the system gives it to another process
 * once the first is gone.
 *
 * @module
 */
import { readFile } from "node:fs/promises";
import process from "node:process";

/** A process, told from all that had or will have its pid. */
export interface ProcessId {
  /** The pid, 1 or more. */
  readonly pid: number;
  /** When it started, in the system's words; absent where the system does not tell (Windows). */
  readonly start?: string;
}

/** This process. */
export async function ownProcess(): Promise<ProcessId> {
  const start = await startOf(process.pid);
  return { pid: process.pid, ...(start ? { start } : {}) };
}

/** Whether a process has this pid: `false` where surely none has. */
export function hasPid(pid: number): boolean {
  try {
    // Signal 0 is not sent, only tried.
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as { code?: unknown }).code !== "ESRCH";
  }
}

/** Whether it runs, as far as this system (or container) can tell. */
export async function isRunning({ pid, start }: ProcessId): Promise<boolean> {
  if (!hasPid(pid)) return false;
  const now = await startOf(pid);
  if (now === "") return false;
  return start === undefined || now === undefined || now === start;
}

/** When the process started; empty where it is gone, undefined where the system does not tell. */
async function startOf(pid: number): Promise<string | undefined> {
  try {
    if (process.platform === "linux") return await startOnLinux(pid);
    if (process.platform !== "win32") return await startByPs(pid);
  } catch {
    // Not told: the pid has to do.
  }
  return undefined;
}

/** Clock ticks since the boot, and which boot: a clock that is set leaves both as they are. */
async function startOnLinux(pid: number): Promise<string | undefined> {
  const boot = await readFile("/proc/sys/kernel/random/boot_id", "utf8");
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  if (stat === undefined) return "";
  // The name in parentheses may hold anything; the state is the first field after it (proc(5)).
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields[0] === "Z" || fields[0] === "X" ? "" : `${boot.trim()} ${fields[19]}`;
}

async function startByPs(pid: number): Promise<string> {
  const { execFile } = await import("node:child_process");
  const env = { ...process.env, LC_ALL: "C", TZ: "UTC" };
  return await new Promise((resolve, reject) => {
    execFile("ps", ["-o", "lstart=", "-p", `${pid}`], { env }, (error, stdout) => {
      if (error && error.code !== 1) reject(error);
      else resolve(stdout.trim());
    });
  });
}
