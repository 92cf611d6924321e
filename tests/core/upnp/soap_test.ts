import { describe, it } from "node:test";
import { assertEquals, assertThrows } from "@std/assert";
import type { HttpResponse } from "../../../core/machine.ts";
import { IGD_SERVICE } from "../../../core/upnp/igd.ts";
import {
  asMPost,
  decodeCall,
  decodeResult,
  encodeCall,
  encodeFault,
  encodeResult,
  type SoapCall,
} from "../../../core/upnp/soap.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const textOf = (body: Uint8Array | undefined) => new TextDecoder().decode(body);

const SERVICE = IGD_SERVICE.WAN_IP_1;
const ADD: SoapCall = {
  service: SERVICE,
  action: "AddPortMapping",
  args: {
    NewRemoteHost: "",
    NewExternalPort: "6000",
    NewProtocol: "TCP",
    NewInternalPort: "6000",
    NewInternalClient: "192.168.1.100",
    NewEnabled: "1",
    NewPortMappingDescription: `a "b" & <c>`,
    NewLeaseDuration: "3600",
  },
};

const OPEN =
  '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" ' +
  's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>';
const CLOSE = "</s:Body></s:Envelope>";

const answer = (body: string, status = 200): HttpResponse => ({
  status,
  headers: [],
  body: bytes(body),
});
const decode = (body: string, status = 200) => decodeResult(answer(body, status));
const fault = (inside: string) => `<s:Envelope><s:Body>${inside}</s:Body></s:Envelope>`;

describe("encodeCall()", () => {
  it("writes what the pickiest take: no space, arguments in order, quotes as they are (quirks 52–54, 57)", () => {
    const request = encodeCall(ADD, "/ctl/IPConn?x=1");

    assertEquals(request.method, "POST");
    assertEquals(request.path, "/ctl/IPConn?x=1");
    assertEquals(request.headers, [
      ["Content-Type", 'text/xml; charset="utf-8"'],
      ["SOAPAction", `"${SERVICE}#AddPortMapping"`],
    ]);
    assertEquals(
      textOf(request.body),
      `${OPEN}<u:AddPortMapping xmlns:u="${SERVICE}"><NewRemoteHost></NewRemoteHost>` +
        "<NewExternalPort>6000</NewExternalPort><NewProtocol>TCP</NewProtocol>" +
        "<NewInternalPort>6000</NewInternalPort>" +
        "<NewInternalClient>192.168.1.100</NewInternalClient><NewEnabled>1</NewEnabled>" +
        `<NewPortMappingDescription>a "b" &amp; &lt;c&gt;</NewPortMappingDescription>` +
        `<NewLeaseDuration>3600</NewLeaseDuration></u:AddPortMapping>${CLOSE}`,
    );
  });

  it("refuses names and types that would be more than names", () => {
    const wrong: readonly (readonly [Partial<SoapCall>, string])[] = [
      [{ action: "A B" }, "'action' must be a name of XML"],
      [{ action: "" }, "'action' must be a name of XML"],
      [{ action: "x><y" }, "'action' must be a name of XML"],
      [{ args: { "a b": "" } }, "'argument' must be a name of XML"],
      [{ args: { "1a": "" } }, "'argument' must be a name of XML"],
      [{ service: 'urn:"x' }, "'service' must be a service type"],
      [{ service: "urn:x\r\nX: y" }, "'service' must be a service type"],
      [{ service: "urn:x#A" }, "'service' must be a service type"],
      [{ service: "" }, "'service' must be a service type"],
    ];

    for (const [part, message] of wrong) {
      assertThrows(() => encodeCall({ ...ADD, ...part }, "/"), TypeError, message);
      assertThrows(() => encodeResult({ ...ADD, ...part }), TypeError, message);
    }
  });

  it("becomes M-POST with a namespace for its field (UDA 1.0)", () => {
    const request = asMPost(encodeCall(ADD, "/ctl"));

    assertEquals([request.method, request.path], ["M-POST", "/ctl"]);
    assertEquals(request.headers, [
      ["MAN", '"http://schemas.xmlsoap.org/soap/envelope/"; ns=01'],
      ["Content-Type", 'text/xml; charset="utf-8"'],
      ["01-SOAPAction", `"${SERVICE}#AddPortMapping"`],
    ]);
    assertEquals(decodeCall(request), ADD);
  });
});

describe("decodeCall()", () => {
  it("reads a call back", () => assertEquals(decodeCall(encodeCall(ADD, "/")), ADD));

  it("reads what other control points write", () => {
    const body =
      '<SOAP-ENV:Envelope xmlns:SOAP-ENV="x">\n <SOAP-ENV:Body>\n <m:Get xmlns:m="y">\n' +
      "<NewPortMappingIndex> 0 </NewPortMappingIndex></m:Get></SOAP-ENV:Body></SOAP-ENV:Envelope>";
    const call = (name: string, value: string) =>
      decodeCall({ method: "POST", path: "/", headers: [[name, value]], body: bytes(body) });
    const wanted = { service: "urn:s:1", action: "Get", args: { NewPortMappingIndex: "0" } };

    assertEquals(call("soapaction", '"urn:s:1#Get"'), wanted);
    assertEquals(call("SOAPACTION", " urn:s:1#Get "), wanted);
    assertEquals(call("SOAPACTION", '"urn:s:1#Other"'), "not-soap");
    for (const useless of ["", '""', "Get", '"#Get"', '"urn:s:1#"', '"a#b#c"']) {
      assertEquals(call("SOAPACTION", useless), "no-action", useless);
    }
    assertEquals(call("X", "y"), "no-action");
  });

  it("takes 64 KiB and no more, and needs a body", () => {
    const { headers } = encodeCall({ ...ADD, action: "A" }, "/");
    const call = (body: string | undefined) =>
      decodeCall({ method: "POST", path: "/", headers, ...(body && { body: bytes(body) }) });
    const filled = (length: number) => {
      const [head, tail] = [`<Body><A><x>`, "</x></A></Body>"];
      return head + "y".repeat(length - head.length - tail.length) + tail;
    };

    assertEquals(typeof call(filled(65_536)), "object");
    assertEquals(call(filled(65_537)), "too-long");
    assertEquals(call(undefined), "not-xml");
  });
});

describe("encodeResult() and encodeFault()", () => {
  it("write to the letter", () => {
    const result = encodeResult({ service: SERVICE, action: "Get", args: { A: "<1>", B: "" } });

    assertEquals([result.status, result.headers], [200, [
      ["Content-Type", 'text/xml; charset="utf-8"'],
      ["EXT", ""],
    ]]);
    assertEquals(
      textOf(result.body),
      `${OPEN}<u:GetResponse xmlns:u="${SERVICE}"><A>&lt;1&gt;</A><B></B></u:GetResponse>${CLOSE}`,
    );
    const failed = encodeFault(718, "ConflictInMappingEntry");
    assertEquals(failed.status, 500);
    assertEquals(
      textOf(failed.body),
      `${OPEN}<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>` +
        '<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>718</errorCode>' +
        "<errorDescription>ConflictInMappingEntry</errorDescription></UPnPError></detail>" +
        `</s:Fault>${CLOSE}`,
    );
    assertThrows(() => encodeFault(7180, ""), RangeError, "'code'");
  });

  it("are read back", () => {
    const args = { NewExternalIPAddress: "203.0.113.7", Other: `a "b" & <c>` };

    assertEquals(decodeResult(encodeResult({ ...ADD, args })), { ok: true, args });
    assertEquals(decodeResult(encodeFault(725, "OnlyPermanentLeasesSupported")), {
      ok: false,
      code: 725,
      description: "OnlyPermanentLeasesSupported",
    });
  });
});

describe("decodeResult()", () => {
  const done = { ok: true, args: { A: "1" } };

  it("reads a result whatever its prefixes, namespaces, place and status (quirks 51, 56)", () => {
    for (
      const body of [
        "<s:Envelope><s:Body><u:GetResponse><A>1</A></u:GetResponse></s:Body></s:Envelope>",
        "<Envelope><Body><GetResponse><A>1</A></GetResponse></Body></Envelope>",
        '<e:Envelope><e:Body><m:GetResponse xmlns:u="DeletePortMapping"><m:A> 1\n</m:A>' +
        "</m:GetResponse></e:Body></e:Envelope>",
        "<s:Envelope><s:Header/><s:Body><x/><GetResponse><A>1</A><A>2</A></GetResponse>",
        '\n\n<?xml version="1.0" encoding="nonsense"?><Body><GetResponse><A>1</A>',
        "<Envelope><Body><Get><A>1</A></Get></Body></Envelope>",
      ]
    ) {
      assertEquals(decode(body), done, body);
    }
    assertEquals(decode("<Body><GetResponse><A>1</A></GetResponse></Body>", 500), done);
  });

  it("reads a result without arguments, and text that is a document", () => {
    assertEquals(decode("<Body><AddPortMappingResponse/></Body>"), { ok: true, args: {} });
    const listing = decode("<Body><xResponse><L>&lt;p:a&gt;1&amp;amp;&lt;/p:a&gt;</L></xResponse>");
    assertEquals(listing, { ok: true, args: { L: "<p:a>1&amp;</p:a>" } });
  });

  it("reads a fault wherever its code stands, and without words (quirk 46)", () => {
    const error = (code: string, words = "") => `<errorCode>${code}</errorCode>${words}`;
    const refused = (description: string) => ({ ok: false, code: 718, description });
    const bodies: readonly (readonly [string, string])[] = [
      [fault(`<s:Fault><detail><UPnPError>${error("718")}</UPnPError></detail></s:Fault>`), ""],
      [fault(`<s:Fault><detail>${error(" 718 ")}</detail></s:Fault>`), ""],
      [fault(`<UPnPError>${error("718")}</UPnPError>`), ""],
      [fault(error("718")), ""],
      [error("718"), ""],
      [
        fault(
          `<Fault><faultstring>UPnPError</faultstring><detail>${
            error("718", "<errorDescription>Conflict</errorDescription>")
          }</detail></Fault>`,
        ),
        "Conflict",
      ],
      [
        fault(
          `<Fault><faultstring>UPnPError</faultstring><detail>${error("718")}</detail></Fault>`,
        ),
        "",
      ],
      [
        fault(`<Fault><faultstring>Broken</faultstring><detail>${error("718")}</detail></Fault>`),
        "Broken",
      ],
    ];

    for (const [body, words] of bodies) {
      assertEquals(decode(body, 500), refused(words), body);
      assertEquals(decode(body, 200), refused(words), body);
    }
  });

  it("takes a fault without a code for Action Failed (quirk 42)", () => {
    const failed = { ok: false, code: 501, description: "" };

    assertEquals(decode(fault("<s:Fault/>"), 500), failed);
    assertEquals(decode(fault("<UPnPError><errorCode>x</errorCode></UPnPError>"), 500), failed);
    assertEquals(decode(fault("<UPnPError><errorCode>-1</errorCode></UPnPError>"), 500), failed);
    assertEquals(decode(fault("<UPnPError><errorCode>1000</errorCode></UPnPError>"), 500), failed);
  });

  it("takes no returned value for a fault", () => {
    assertEquals(decode("<Body><xResponse><errorCode>1</errorCode></xResponse></Body>"), {
      ok: true,
      args: { errorCode: "1" },
    });
  });

  it("tells HTTP's refusal from broken SOAP", () => {
    const page = "<html><body><h1>Not Found</h1></body></html>";

    for (const status of [199, 300, 301, 400, 401, 404, 405, 500, 503]) {
      for (const body of ["", page, "Bad Request", "<Body/>", "<Body><x/></Body>"]) {
        assertEquals(decode(body, status), "http-status", `${status} ${body}`);
      }
    }
    for (const status of [200, 299]) assertEquals(decode("", status), "not-xml");
    assertEquals(decode(page, 200), "not-soap");
    assertEquals(decode("<Body/>", 200), "not-soap");
    assertEquals(decode(`<a>${"x".repeat(65_536)}</a>`, 200), "too-long");
    assertEquals(decode(`<a>${"x".repeat(65_536)}</a>`, 500), "too-long");
  });
});
