/**
 * XML as devices write it: a tree of local names and text, read from whatever bytes came, within
 * limits. Prefixes and namespaces are left out: too many devices get them wrong. Nothing is
 * resolved but XML's five entities and numbers: no DTD, nothing from outside, no growth.
 *
 * What breaks XML's rules and still can be understood is taken: a raw `&` or `<` in text, attributes
 * without quotes, an end tag too many, a document that stops in the middle, Latin-1 that says it is
 * UTF-8, what comes before the declaration and behind the root.
 *
 * @module
 */
// Tried on documents of routers and on hostile ones, gzipped size in brackets: txml (2 KB) hangs on
// `<script>` without an end; fast-xml-parser (21 KB) throws at a document cut short; saxes (7 KB)
// loses the tree at one wrong end tag; htmlparser2 (22 KB, most of it HTML's entities) forgives
// the most, but takes 36 s for 1 MB of `<a>`. sax (8 KB) streams, so that a limit stops it at once,
// takes 0.3 s for that and goes on after each fault once told to.
import sax from "sax";

/** An element. */
export interface XmlElement {
  /** Its name without the prefix. */
  readonly name: string;
  /** Its own text, parts joined, white space at both ends cut off. */
  readonly text: string;
  /** Its attributes, names without prefix, at most 16. */
  readonly attributes: readonly (readonly [name: string, value: string])[];
  /** The elements in it, in their order. */
  readonly children: readonly XmlElement[];
}

/** Why bytes are no document that is read. */
export type XmlFault =
  /** More bytes than allowed. */
  | "too-long"
  /** Elements nested deeper than allowed. */
  | "too-deep"
  /** More elements than allowed. */
  | "too-many"
  /** No element at all, or so many faults that it is something else than XML. */
  | "not-xml";

/** How much is read. */
export interface XmlLimits {
  /** The longest document, bytes; default 256 KiB. */
  readonly maxBytes?: number;
  /** The deepest nesting, the root is 1; default 32. */
  readonly maxDepth?: number;
  /** The most elements; default 8192. */
  readonly maxElements?: number;
}

/** The most attributes of an element that are kept. */
const MAX_ATTRIBUTES = 16;
/** After so many breaches of XML's rules it is no XML: each costs a while. */
const MAX_BREACHES = 100;

/** The part of the parser that is used here; the package has no types. */
interface Parser {
  onopentag: (tag: { name: string; attributes: Record<string, string> }) => void;
  onclosetag: () => void;
  ontext: (text: string) => void;
  oncdata: (text: string) => void;
  onerror: (error: Error) => void;
  error: Error | null;
  tagName: string;
  write(text: string): Parser;
  close(): void;
}

interface OpenElement {
  readonly name: string;
  text: string;
  readonly attributes: readonly (readonly [string, string])[];
  readonly children: OpenElement[];
}

/** What ends the parser from within one of its callbacks. */
class Stop {
  constructor(readonly fault: XmlFault) {}
}

/**
 * Reads a document.
 *
 * @returns The root, or why there is none.
 *
 * @example
 * ```ts
 * import { child, parseXml } from "@natkit/natkit/upnp";
 * const root = parseXml(new TextEncoder().encode("<m:a x=1><b>AT&T</b>"));
 * console.assert(typeof root === "object" && root.name === "a" && child(root, "b")?.text === "AT&T");
 * ```
 */
export function parseXml(bytes: Uint8Array, limits: XmlLimits = {}): XmlElement | XmlFault {
  const { maxBytes = 262_144, maxDepth = 32, maxElements = 8192 } = limits;
  if (bytes.length > maxBytes) return "too-long";
  const Maker = sax.SAXParser as unknown as new (strict: boolean, options: object) => Parser;
  const parser = new Maker(true, { position: false });
  const open: OpenElement[] = [];
  let root: OpenElement | undefined;
  let elements = 0, breaches = 0, strayEnds = 0;
  parser.onerror = ({ message }) => {
    parser.error = null;
    if (++breaches > MAX_BREACHES) throw new Stop("not-xml");
    // An end tag that ends nothing goes on as text, with this name.
    if (!message.startsWith("Unmatched closing tag")) return;
    parser.tagName = "";
    strayEnds++;
  };
  parser.onopentag = ({ name, attributes }) => {
    if (open.length >= maxDepth) throw new Stop("too-deep");
    if (++elements > maxElements) throw new Stop("too-many");
    const element: OpenElement = {
      name: localName(name),
      text: "",
      attributes: Object.entries(attributes).slice(0, MAX_ATTRIBUTES).map(
        ([key, value]) => [localName(key), restored(value).trim()],
      ),
      children: [],
    };
    open.at(-1)?.children.push(element);
    root ??= element;
    open.push(element);
  };
  parser.onclosetag = () => trimText(open.pop());
  const addText = (text: string): void => {
    const element = open.at(-1);
    for (; strayEnds > 0; strayEnds--) text = text.replace("</>", "");
    if (element) element.text += restored(text);
  };
  parser.ontext = addText;
  parser.oncdata = addText;
  try {
    parser.write(marked(decodeText(bytes))).close();
  } catch (thrown) {
    return thrown instanceof Stop ? thrown.fault : "not-xml";
  }
  for (const element of open) trimText(element);
  return root ?? "not-xml";
}

function trimText(element: OpenElement | undefined): void {
  if (element) element.text = element.text.trim();
}

/** UTF-16 where a byte order mark says so, else UTF-8, else Latin-1, whatever the header claims. */
function decodeText(bytes: Uint8Array): string {
  const mark = (bytes[0]! << 8) | bytes[1]!;
  if (mark === 0xfffe) return new TextDecoder("utf-16le").decode(bytes);
  if (mark === 0xfeff) return new TextDecoder("utf-16be").decode(bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("latin1").decode(bytes);
  }
}

/**
 * With each `&` that begins no entity replaced by a NUL, which XML does not have: the parser would
 * take what follows, up to a `;`, for its name.
 */
function marked(text: string): string {
  return text.replaceAll("\0", "")
    .replace(/&(?!(?:#[0-9]{1,7}|#x[0-9a-f]{1,6}|amp|lt|gt|quot|apos);)/gi, "\0");
}

function restored(text: string): string {
  return text.replaceAll("\0", "&");
}

function localName(name: string): string {
  return name.slice(name.lastIndexOf(":") + 1);
}

/** The first child of that name. */
export function child(element: XmlElement | undefined, name: string): XmlElement | undefined {
  return element?.children.find((candidate) => candidate.name === name);
}

/** The text of the first child of that name, `""` where there is none. */
export function childText(element: XmlElement | undefined, name: string): string {
  return child(element, name)?.text ?? "";
}

/** The first element of that name in it, at whatever depth, itself included; the outer ones first. */
export function findElement(element: XmlElement, name: string): XmlElement | undefined {
  const waiting = [element];
  for (const candidate of waiting) {
    if (candidate.name === name) return candidate;
    for (const inner of candidate.children) waiting.push(inner);
  }
  return undefined;
}

/** Every character that XML 1.0 does not allow, not even as a number. */
// deno-lint-ignore no-control-regex
const ILLEGAL = /[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g;

/**
 * Text as it stands between two tags. Quotes stay as they are: there are devices that do not decode
 * them. What XML cannot carry is left out.
 */
export function escapeXml(text: string): string {
  return text.replace(ILLEGAL, "")
    .replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
