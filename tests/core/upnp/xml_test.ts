import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import {
  child,
  childText,
  escapeXml,
  findElement,
  parseXml,
  type XmlElement,
} from "../../../core/upnp/xml.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

/** An element as text again, without attributes. */
function plain({ name, text, children }: XmlElement): string {
  return `<${name}>${text}${children.map(plain).join("")}</${name}>`;
}

function read(text: string | Uint8Array): string {
  const root = parseXml(typeof text === "string" ? bytes(text) : text);
  return typeof root === "string" ? root : plain(root);
}

/** What devices send, and what is read of it. */
const SLOPPY: Record<string, readonly [string, string]> = {
  "a declaration, namespaces, a default one": [
    '<?xml version="1.0"?>\n<root xmlns="urn:x"><a>1</a></root>',
    "<root><a>1</a></root>",
  ],
  "white space before the declaration": [
    '\r\n  <?xml version="1.0"?><root><a>1</a></root>',
    "<root><a>1</a></root>",
  ],
  "a byte order mark": ["\ufeff<root><a>1</a></root>", "<root><a>1</a></root>"],
  "prefixes that nobody declared (quirk 38)": [
    '<m:root><m:a m:q="1">1</m:a></m:root>',
    "<root><a>1</a></root>",
  ],
  "CDATA (quirk 39)": [
    "<root><a>x<![CDATA[?a=1&b=<2>&amp;]]>y</a></root>",
    "<root><a>x?a=1&b=<2>&amp;y</a></root>",
  ],
  "a raw & in a URL (quirk 35)": [
    "<root><a>/ctl?a=1&b=2</a><c>AT&T</c><d>&</d><e>&amp &#x;</e></root>",
    "<root><a>/ctl?a=1&b=2</a><c>AT&T</c><d>&</d><e>&amp &#x;</e></root>",
  ],
  "XML's entities and numbers": [
    "<a>&lt;&amp;&gt;&quot;&apos;&#65;&#x42;&#X43;</a>",
    "<a><&>\"'ABC</a>",
  ],
  "entities of HTML, which stay": ["<a>&nbsp;&copy;</a>", "<a>&nbsp;&copy;</a>"],
  "a raw <": ["<root><a>5 < 6</a><b>2</b></root>", "<root><a>5 <6</a><b>2</b></root>"],
  "no end (quirk 22)": ["<root><a>1</a><b>2</b><c> 3 ", "<root><a>1</a><b>2</b><c>3</c></root>"],
  "an end in the middle of a tag": ["<root><a>1</a><b", "<root><a>1</a></root>"],
  "an end tag that ends nothing": [
    "<root><a>1</x></a></y><c>2</c></root>",
    "<root><a>1</a><c>2</c></root>",
  ],
  "text that looks like an end tag without a name, behind one that is missing": [
    "<r><a><b>1</a>x&lt;/&gt;y</r>",
    "<r>x</>y<a><b>1</b></a></r>",
  ],
  "end tags missing": [
    "<root><a><b>1</a><c>2</c></root>",
    "<root><a><b>1</b></a><c>2</c></root>",
  ],
  "what is behind the root": ["<root><a>1</a></root>\0\0junk<x>", "<root><a>1</a></root>"],
  "attributes without quotes, or values (quirk 33)": [
    "<root a=1 b='x>y' c><a dt:dt=\"string\">1</a></root>",
    "<root><a>1</a></root>",
  ],
  "elements without content": [
    "<root><a/><b /><c>2</c></root>",
    "<root><a></a><b></b><c>2</c></root>",
  ],
  "a comment": ["<root><!-- <a>no</a> --><a>1</a></root>", "<root><a>1</a></root>"],
  "names that objects have already": [
    "<root><__proto__>1</__proto__><constructor>2</constructor></root>",
    "<root><__proto__>1</__proto__><constructor>2</constructor></root>",
  ],
  "an entity that is declared": [
    '<!DOCTYPE r [<!ENTITY a "aa">]><r>&a;</r>',
    "<r>&a;</r>",
  ],
  "a DTD from elsewhere": ['<!DOCTYPE r SYSTEM "file:///etc/passwd"><r>1</r>', "<r>1</r>"],
};

describe("parseXml()", () => {
  for (const [name, [text, wanted]] of Object.entries(SLOPPY)) {
    it(`reads ${name}`, () => assertEquals(read(text), wanted));
  }

  it("takes what is no UTF-8 for Latin-1, and UTF-16 by its mark", () => {
    const latin = new Uint8Array([...bytes("<a>B"), 0xfc, ...bytes("ro</a>")]);
    const little = [0xff, 0xfe, ...[..."<a>ü</a>"].flatMap((c) => [c.charCodeAt(0), 0])];
    const big = [0xfe, 0xff, ...[..."<a>ü</a>"].flatMap((c) => [0, c.charCodeAt(0)])];

    assertEquals(read(latin), "<a>Büro</a>");
    assertEquals(read(bytes("<a>Büro</a>")), "<a>Büro</a>");
    assertEquals(read(new Uint8Array(little)), "<a>ü</a>");
    assertEquals(read(new Uint8Array(big)), "<a>ü</a>");
  });

  it("keeps attributes by their local names, 16 at most", () => {
    const root = parseXml(bytes(`<a x:b="1&2" c=' d '/>`)) as XmlElement;
    const many = Array.from({ length: 40 }, (_, i) => `a${i}="${i}"`).join(" ");
    const crowd = parseXml(bytes(`<a ${many}/>`)) as XmlElement;

    assertEquals(root.attributes, [["b", "1&2"], ["c", "d"]]);
    assertEquals(crowd.attributes.length, 16);
  });

  it("says that what is no XML is none", () => {
    for (const text of ["", " ", "<", "<a", "404 Not Found", "\0", "</a>"]) {
      assertEquals(read(text), "not-xml", text);
    }
  });

  it("stops at each limit, and reads what just fits", () => {
    const nested = (depth: number) => "<a>".repeat(depth) + "</a>".repeat(depth);
    const flat = (count: number) => `<r>${"<a/>".repeat(count - 1)}</r>`;
    const limits = { maxBytes: 100, maxDepth: 5, maxElements: 9 };
    const outcome = (text: string) => {
      const root = parseXml(bytes(text), limits);
      return typeof root === "string" ? root : "read";
    };

    assertEquals(outcome(nested(5)), "read");
    assertEquals(outcome(nested(6)), "too-deep");
    assertEquals(outcome(flat(9)), "read");
    assertEquals(outcome(flat(10)), "too-many");
    assertEquals(outcome(`<a>${"x".repeat(93)}</a>`), "read");
    assertEquals(outcome(`<a>${"x".repeat(94)}</a>`), "too-long");
  });

  it("has limits of its own: 256 KiB, 32 deep, 8192 elements", () => {
    assertEquals(read("<a>".repeat(32)).length, 7 * 32);
    assertEquals(read("<a>".repeat(33)), "too-deep");
    assertEquals(read(`<r>${"<a/>".repeat(8191)}</r>`).length, 7 * 8192);
    assertEquals(read(`<r>${"<a/>".repeat(8192)}</r>`), "too-many");
    assertEquals(read(`<a>${"x".repeat(262_144 - 7)}</a>`).length, 262_144);
    assertEquals(read(`<a>${"x".repeat(262_144 - 6)}</a>`), "too-long");
  });

  it("does not grow with what is sent to make it grow", () => {
    const names = "abcdefghij";
    const entities = [...names].slice(1).map((name, i) =>
      `<!ENTITY ${name} "${`&${names[i]};`.repeat(10)}">`
    );
    const bomb = `<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa">${entities.join("")}]><r>&j;</r>`;

    assertEquals(read(bomb), "<r>&j;</r>");
    const megabyte = { maxBytes: 1 << 20 };
    for (
      const [text, fault] of [
        ["<a>", "too-deep"],
        ["<", "not-xml"],
        ["</a>", "not-xml"],
        ["<!--", "not-xml"],
        ["&", "not-xml"],
        ["<a b='1' ", "not-xml"],
      ] as const
    ) {
      assertEquals(parseXml(bytes(text.repeat((1 << 20) / text.length)), megabyte), fault, text);
    }
  });
});

describe("child(), childText() and findElement()", () => {
  const root = parseXml(bytes("<a><b>1</b><c><b>2</b><d>3</d></c><b>4</b></a>")) as XmlElement;

  it("find the first", () => {
    assertEquals(child(root, "b")?.text, "1");
    assertEquals(child(root, "d"), undefined);
    assertEquals([childText(root, "b"), childText(root, "d")], ["1", ""]);
    assertEquals(childText(undefined, "b"), "");
    assertEquals(findElement(root, "a"), root);
    assertEquals(findElement(root, "d")?.text, "3");
    assertEquals(findElement(root, "e"), undefined);
  });

  it("find the outer one before one that stands earlier, but deeper", () => {
    const odd = parseXml(bytes("<a><c><b>deep</b></c><b>near</b></a>")) as XmlElement;

    assertEquals(findElement(odd, "b")?.text, "near");
  });
});

describe("escapeXml()", () => {
  it("escapes what has to be, and quotes not (quirk 57)", () => {
    assertEquals(escapeXml(`<a href="x">'&amp;'</a>`), `&lt;a href="x"&gt;'&amp;amp;'&lt;/a&gt;`);
  });

  it("leaves out what XML cannot carry", () => {
    assertEquals(escapeXml("a\0b\x08c\td\ne\uffff"), "abc\td\ne");
  });

  it("is read back as it was", () => {
    const text = `5 < 6 && "x" > 'y' ]]> &amp; ü 🙂`;
    const root = parseXml(bytes(`<a>${escapeXml(text)}</a>`)) as XmlElement;

    assertEquals(root.text, text);
  });
});
