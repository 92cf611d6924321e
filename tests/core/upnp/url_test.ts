import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { formatEndpoint } from "../../../core/ip.ts";
import { resolveInDescription, resolveLocal, type UrlOwner } from "../../../core/upnp/url.ts";

const OWNER: UrlOwner = { address: "192.168.1.1" };
const LOCATION = "http://192.168.1.1:5000/dir/desc.xml?x=1";

function resolve(url: string, base: string = LOCATION, owner: UrlOwner = OWNER): string {
  const found = resolveLocal(url, base, owner);
  return typeof found === "string" ? found : `${formatEndpoint(found.to)} ${found.path}`;
}

describe("resolveLocal()", () => {
  const RESOLVED: Record<string, string> = {
    "http://192.168.1.1/ctl": "192.168.1.1:80 /ctl",
    "HTTP://192.168.1.1:1900": "192.168.1.1:1900 /",
    "http://192.168.1.1:/a": "192.168.1.1:80 /a",
    "http://192.168.1.1?q": "192.168.1.1:80 /?q",
    "//192.168.1.1:81/a": "192.168.1.1:81 /a",
    "  /ctl\n": "192.168.1.1:5000 /ctl",
    "/upnp/control?WANIPConnection": "192.168.1.1:5000 /upnp/control?WANIPConnection",
    "ctl/IPConn": "192.168.1.1:5000 /dir/ctl/IPConn",
    "?WANIPConn1": "192.168.1.1:5000 /dir/desc.xml?WANIPConn1",
    "": "192.168.1.1:5000 /dir/desc.xml?x=1",
    "/a#fragment": "192.168.1.1:5000 /a",
    "./a/../b/./c/..": "192.168.1.1:5000 /dir/b/",
    "../../../up": "192.168.1.1:5000 /up",
    "/a/../../b?../c": "192.168.1.1:5000 /b?../c",
    "/a//b": "192.168.1.1:5000 /a//b",
    "/a b/ü?\u{1f600}": "192.168.1.1:5000 /a%20b/%C3%BC?%F0%9F%98%80",
    "/%41%20": "192.168.1.1:5000 /%41%20",
    "/a:b": "192.168.1.1:5000 /a:b",
  };

  for (const [url, wanted] of Object.entries(RESOLVED)) {
    it(`resolves ${JSON.stringify(url)}`, () => assertEquals(resolve(url), wanted));
  }

  const REFUSED: Record<string, string> = {
    "http://192.168.1.2/": "off-host",
    "http://203.0.113.9/": "off-host",
    "//203.0.113.9/": "off-host",
    "http://127.0.0.1/": "off-host",
    "http://0.0.0.0/": "off-host",
    "http://[::1]/": "off-host",
    "http://[fe80::1]/": "off-host",
    "http://router.local/": "host-name",
    "http://192.168.1.1.example.com/": "host-name",
    "http://localhost:80/": "host-name",
    "http://3232235777/": "host-name",
    "http://0xc0a80101/": "host-name",
    "http://192.168.257/": "host-name",
    "http://192.168.01.1/": "host-name",
    "https://192.168.1.1/": "bad-scheme",
    "file:///etc/passwd": "bad-scheme",
    "javascript:alert(1)": "bad-scheme",
    "gopher://192.168.1.1:70/": "bad-scheme",
    "http:/192.168.1.1/": "bad-url",
    "http://192.168.1.1@203.0.113.9/": "bad-url",
    "http://user:pass@192.168.1.1/": "bad-url",
    "http://192.168.1.1:0/": "bad-url",
    "http://192.168.1.1:65536/": "bad-url",
    "http:///path": "bad-url",
    "http://[192.168.1.1]/": "bad-url",
    "http://192.168.1.1\\@203.0.113.9/": "bad-url",
    "/a\r\nHost: x": "bad-url",
    "/a\0": "bad-url",
    [`/${"x".repeat(2048)}`]: "bad-url",
  };

  for (const [url, fault] of Object.entries(REFUSED)) {
    it(`refuses ${JSON.stringify(url.slice(0, 60))}`, () => assertEquals(resolve(url), fault));
  }

  it("takes a URL of 2048 characters, as a device's are long (quirk 36)", () => {
    assertEquals(resolve(`/${"x".repeat(2047)}`).length, "192.168.1.1:5000 ".length + 2048);
  });

  it("looks at the base as it does at a URL", () => {
    assertEquals(resolve("/a", "http://203.0.113.9/desc.xml"), "off-host");
    assertEquals(resolve("/a", "https://192.168.1.1/desc.xml"), "bad-scheme");
    assertEquals(resolve("/a", "/desc.xml"), "bad-url");
    assertEquals(resolve("a", "http://192.168.1.1"), "192.168.1.1:80 /a");
    assertEquals(resolve("http://192.168.1.1/a", "nothing"), "192.168.1.1:80 /a");
  });

  it("takes another address that the caller allows, but never this host or a group (quirk 19)", () => {
    const owner = { address: "192.168.1.1", isAllowed: () => true };
    const refused = ["127.0.0.1", "[::1]", "0.0.0.0", "239.255.255.250", "255.255.255.255"];

    assertEquals(resolve("http://192.168.1.2/a", "", owner), "192.168.1.2:80 /a");
    for (const host of refused) assertEquals(resolve(`http://${host}/`, "", owner), "off-host");
    assertEquals(resolve("http://a.example/", "", owner), "host-name");
    const asked: string[] = [];
    const isAllowed = (address: string) => asked.push(address) > 1;
    assertEquals(resolve("http://10.0.0.9/", "", { ...owner, isAllowed }), "off-host");
    assertEquals(asked, ["10.0.0.9"]);
  });

  it("takes this host's address where this host announced it", () => {
    assertEquals(resolve("http://127.0.0.1:1/a", "", { address: "127.0.0.1" }), "127.0.0.1:1 /a");
  });

  it("gives a link-local address the zone of who announced it (quirk 41)", () => {
    const owner = { address: "fe80::1%eth0" };

    for (const host of ["[fe80::1]", "[FE80:0:0::1]", "[fe80::1%25eth9]"]) {
      assertEquals(resolve(`http://${host}:5000/a`, "", owner), "[fe80::1%eth0]:5000 /a");
    }
    assertEquals(resolve("http://[fe80::2]/a", "", owner), "off-host");
  });
});

describe("resolveInDescription()", () => {
  const path = (url: string, base: string) => {
    const found = resolveInDescription(url, base, LOCATION, OWNER);
    return typeof found === "string" ? found : `${found.to.port} ${found.path}`;
  };

  it("goes by the base that the description gives", () => {
    assertEquals(path("ctl", "http://192.168.1.1:80/base/"), "80 /base/ctl");
    assertEquals(path("ctl", ""), "5000 /dir/ctl");
  });

  it("goes by where it was found, where the base leads elsewhere", () => {
    assertEquals(path("ctl", "http://10.0.0.138/"), "5000 /dir/ctl");
    assertEquals(path("http://10.0.0.138/ctl", "http://192.168.1.1/"), "off-host");
  });
});
