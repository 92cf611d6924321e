/**
 * Internet gateway devices (UPnP) as they were met in the field, as data: what `profiles.ts` lists
 * beside those of PCP and NAT-PMP.
 *
 * @module
 */
import { IGD_DEVICE, IGD_SERVICE } from "../upnp/igd.ts";
import { SSDP_ALL, SSDP_ROOT_DEVICE } from "../upnp/ssdp.ts";
import type { HttpChange } from "./http.ts";
import type { Profile } from "./profile.ts";

const WEEK_SECONDS = 604_800;
const DAY_SECONDS = 86_400;
const CONTROL = { about: "control" } as const;
const DESCRIPTION = { about: "description" } as const;

/** Each first text in the body is the second. */
function replaced(...pairs: readonly (readonly [from: string, to: string])[]): HttpChange[] {
  return pairs.map(([from, to]) => ({ kind: "replace", from, to }));
}

const LIST: readonly Omit<Profile, "protocols">[] = [
  {
    name: "igd-1",
    device: "gateways of the first version, such as Xfinity's",
    source: "nebula#148 (peers.md row 64)",
    summary: "UPnP alone: IGD:1 as specified, leases of any length, 0 for good",
    upnp: { version: 1 },
  },
  {
    name: "igd-2",
    device: "miniupnpd and others of the second version",
    source: "miniupnpd's source (peers.md row 48)",
    summary: "UPnP alone: IGD:2 as specified, leases of up to a week",
    upnp: { version: 2 },
  },
  {
    name: "eero",
    device: "Eero",
    source: "tailscale#3197 (peers.md row 16)",
    summary: "answers multicast searches alone",
    upnp: { version: 1, habits: { ssdp: { hears: "multicast" } } },
  },
  {
    name: "sagemcom-fast3890v3",
    device: "Sagemcom FAST3890V3",
    source: "tailscale#3557 (peers.md row 17)",
    summary: "answers a search for ssdp:all as a WFADevice and nothing else",
    upnp: {
      version: 1,
      habits: {
        ssdp: { answersAllAs: "urn:schemas-wifialliance-org:device:WFADevice:1" },
      },
    },
  },
  {
    name: "tp-link-er605",
    device: "TP-Link ER605",
    source: "tailscale#7377 (peers.md row 18)",
    summary:
      "answers searches from another port than 1900; wants UDP in capitals and ports from 1024",
    upnp: {
      version: 1,
      habits: { wantsUpperCase: true, minPort: 1024, ssdp: { answersElsewhere: true } },
    },
  },
  {
    name: "pfsense-carp",
    device: "pfSense and OPNsense with CARP",
    source: "tailscale#5502 (peers.md row 19)",
    summary: "answers from an address of its own that is not the default route's",
    ownAddress: "192.168.1.3",
    upnp: { version: 2 },
  },
  {
    name: "igd-2-only",
    device: "routers that know WANIPConnection:2 alone",
    source: "libplum#20, node-nat-upnp#45, rust-libp2p#6243 (peers.md row 20)",
    summary: "answers no search for version 1, and has no other service",
    upnp: {
      version: 2,
      hasFirewall: false,
      habits: {
        ssdp: {
          answersOnly: [IGD_DEVICE.GATEWAY_2, IGD_SERVICE.WAN_IP_2, SSDP_ROOT_DEVICE, SSDP_ALL],
        },
      },
    },
  },
  {
    name: "strict-ssdp",
    device: "unnamed routers",
    source: "libplum#46 (peers.md row 21)",
    summary: "hears searches only with CRLF, an empty last line and quotes around ssdp:discover",
    upnp: { version: 1, habits: { ssdp: { isStrict: true } } },
  },
  {
    name: "archer-c8",
    device: "TP-Link Archer C8, TL-WR841N",
    source: "TinyUPnP#1, TinyUPnP#13 (peers.md row 22)",
    summary: "answers for upnp:rootdevice first, describes itself on port 1900, cuts bodies off",
    upnp: { version: 1, httpPort: 1900, habits: { ssdp: { rootFirst: true } } },
    answers: [{ when: DESCRIPTION, then: [{ kind: "drop-end", bytes: 24 }] }],
  },
  {
    name: "fritzbox-busy",
    device: "AVM Fritz!Box",
    source: "go-libp2p#3138, go-libp2p#3154 (peers.md row 23)",
    summary: "hears one of several searches that come within 100 ms",
    upnp: { version: 2, habits: { ssdp: { busyMs: 100 } } },
  },
  {
    name: "root-only",
    device: "unnamed routers",
    source: "miniupnpc's change log (peers.md row 24)",
    summary: "answers searches for upnp:rootdevice alone",
    upnp: { version: 1, habits: { ssdp: { answersOnly: [SSDP_ROOT_DEVICE] } } },
  },
  {
    name: "miniupnpd-tired",
    device: "miniupnpd after some days",
    source: "miniupnp#802 (peers.md row 25)",
    summary: "stops answering searches after the first few, and announces itself no more",
    upnp: { version: 2, habits: { ssdp: { tiresAfter: 5, isQuiet: true } } },
  },
  {
    name: "huawei-hg531",
    device: "Huawei HG531",
    source: "tailscale#10911, portmapper#44 (peers.md row 29)",
    summary: "its devices and services are in dslforum.org's namespace",
    upnp: { version: 1, habits: { ssdp: { answersOnly: [SSDP_ROOT_DEVICE] } } },
    answers: [{
      when: DESCRIPTION,
      then: replaced(
        ["urn:schemas-upnp-org:device:", "urn:dslforum-org:device:"],
        ["urn:schemas-upnp-org:service:", "urn:dslforum-org:service:"],
      ),
    }],
  },
  {
    name: "empty-service-list",
    device: "unnamed routers",
    source: "tailscale#10911, tailscale#16662 (peers.md row 30)",
    summary: "the root device's list of services is empty, the WAN device has none",
    upnp: { version: 1 },
    answers: [{
      when: DESCRIPTION,
      then: [
        {
          kind: "replace-span",
          from: "<serviceList>",
          until: "</serviceList>",
          to: "<serviceList/>",
        },
        { kind: "replace-span", from: "<serviceList>", until: "</serviceList>", to: "" },
      ],
    }],
  },
  {
    name: "mikrotik-chr",
    device: "MikroTik CHR",
    source: "tailscale#8364 (peers.md row 31)",
    summary: "has two connections, of which the first is not up",
    upnp: {
      version: 1,
      connections: [{ status: "Disconnected", address: "0.0.0.0" }, {}],
    },
  },
  {
    name: "ip-and-ppp",
    device: "DSL routers with both connection services",
    source: "libtorrent#6611, miniupnpc's change log (peers.md row 32)",
    summary:
      "has WANPPPConnection, not up, before WANIPConnection; the wrong type at a URL gets 401",
    upnp: {
      version: 1,
      connections: [{ service: IGD_SERVICE.WAN_PPP_1, status: "Unconfigured" }, {}],
    },
  },
  {
    name: "ppp-attributes",
    device: "PPPoE routers",
    source: "libplum#26, libplum#27 (peers.md row 33)",
    summary: "WANPPPConnection alone, and attributes on elements",
    upnp: { version: 1, connections: [{ service: IGD_SERVICE.WAN_PPP_1 }] },
    answers: [{
      when: {},
      then: replaced(
        ["<serviceType>", '<serviceType xml:space="preserve">'],
        [
          "<controlURL>",
          '<controlURL xmlns:dt="urn:schemas-microsoft-com:datatypes" dt:dt="string">',
        ],
        ["<NewExternalIPAddress>", '<NewExternalIPAddress xsi:type="string">'],
        ["<errorCode>", '<errorCode dt="ui4">'],
      ),
    }],
  },
  {
    name: "pace-px5001",
    device: "Pace PX5001",
    source: "home-assistant#68873 (peers.md row 34)",
    summary: "the descriptions of its services are not there: 404",
    upnp: { version: 1, habits: { lacksScpd: true } },
  },
  {
    name: "dd-wrt",
    device: "DD-WRT",
    source: "syncthing#1696, TinyUPnP#9 (peers.md row 35)",
    summary: "its control URLs are queries",
    upnp: { version: 1, habits: { pathPrefix: "/upnp/control?" } },
  },
  {
    name: "presentation-url",
    device: "unnamed routers",
    source: "TinyUPnP#13 (peers.md row 36)",
    summary: "relative URLs without a slash, and a presentationURL that leads elsewhere",
    upnp: { version: 1, habits: { pathPrefix: "" } },
    answers: [{
      when: DESCRIPTION,
      then: replaced(
        ["<presentationURL>http://", "<presentationURL>http://198.51.100.99/start?"],
      ),
    }],
  },
  {
    name: "bt-voyager-210",
    device: "BT Voyager 210",
    source: "miniupnpc's change log (peers.md row 36)",
    summary: "its URLs are hundreds of characters long",
    upnp: { version: 1, habits: { pathPrefix: `/${"uuid_0000-0000-".repeat(20)}/` } },
  },
  {
    name: "random-urls",
    device: "miniupnpd",
    source: "its source (peers.md row 36)",
    summary: "its URLs are others after each boot",
    upnp: { version: 2, habits: { hasRandomPaths: true } },
  },
  {
    name: "bt-homehub-5",
    device: "BT HomeHub 5, Thomson TG784n",
    source: "syncthing#890, syncthing#1100 (peers.md row 37)",
    summary: "its UUID is none",
    upnp: { version: 1, uuid: "UPnP-BTHomeHub5.0A-1_00-0000000000001" },
  },
  {
    name: "huawei-prefixes",
    device: "Huawei routers",
    source: "async_upnp_client#221, #222, #224, #113 (peers.md row 38)",
    summary:
      "answers with the prefix m: that nothing declares; service descriptions without namespace",
    upnp: { version: 1 },
    answers: [
      {
        when: CONTROL,
        then: replaced(["<u:", "<m:"], ["</u:", "</m:"], [" xmlns:u=", " xmlns:x="]),
      },
      {
        when: { about: "scpd" },
        then: replaced([' xmlns="urn:schemas-upnp-org:service-1-0"', ""]),
      },
    ],
  },
  {
    name: "linksys-wag200g",
    device: "Linksys WAG200G, LiveBox",
    source: "miniupnpc's change log (peers.md row 39)",
    summary: "CDATA in its description, and a charset that is not the body's",
    upnp: { version: 1, friendlyName: "WAG200G – Gateway" },
    answers: [
      {
        when: DESCRIPTION,
        then: replaced(
          ["<friendlyName>", "<friendlyName><![CDATA["],
          ["</friendlyName>", "]]></friendlyName>"],
          ["<controlURL>", "<controlURL><![CDATA["],
          ["</controlURL>", "]]></controlURL>"],
        ),
      },
      {
        when: {},
        then: [{ kind: "header", name: "Content-Type", value: "text/html; charset=utf-16" }],
      },
    ],
  },
  {
    name: "chunked",
    device: "unnamed routers",
    source: "miniupnpc's change log (peers.md row 40)",
    summary: "its answers come in chunks, without their length",
    upnp: { version: 1 },
    answers: [{
      when: {},
      then: [{ kind: "header", name: "Transfer-Encoding", value: "chunked" }],
    }],
  },
  {
    name: "wants-host-port",
    device: "routers of RetroArch's users",
    source: "RetroArch#13404 (peers.md row 41)",
    summary: "refuses a call whose Host field has no port",
    upnp: { version: 1, httpPort: 49_000 },
    strictness: [{ wants: "host-port", otherwise: { status: 400 } }],
  },
  {
    name: "mikrotik-routeros",
    device: "MikroTik RouterOS",
    source: "nicotine-plus#2200, RetroArch#13313, tailscale#9343 (peers.md row 42)",
    summary: "gives leases without an end alone: 725",
    upnp: { version: 1, habits: { leases: "permanent" } },
  },
  {
    name: "bare-500",
    device: "unnamed routers",
    source: "aeternity#2020 (peers.md row 42)",
    summary: "gives leases without an end alone, and refuses with a bare 500",
    upnp: { version: 1, habits: { leases: "permanent" } },
    answers: [{ when: { isError: true }, then: [{ kind: "body", text: "" }] }],
  },
  {
    name: "arris-nvg578lx",
    device: "ARRIS NVG578LX, Zyxel routers",
    source: "tailscale#15223, nicotine-plus#597 (peers.md row 43)",
    summary: "gives leases without an end alone: 402 for any other",
    upnp: { version: 1, habits: { leases: "permanent", leaseFault: 402 } },
  },
  {
    name: "no-permanent-lease",
    device: "unnamed routers",
    source: "net-tools#52 (peers.md row 44)",
    summary: "refuses lease 0 with 402 and caps others to a week",
    upnp: { version: 1, habits: { leases: "limited", maxLeaseSeconds: WEEK_SECONDS } },
  },
  {
    name: "technicolor",
    device: "Technicolor",
    source: "miniupnp#398, miniupnp#466 (peers.md row 45)",
    summary: "every lease is a day, and shown as 0",
    upnp: { version: 1, habits: { fixedLeaseSeconds: DAY_SECONDS, hidesLease: true } },
  },
  {
    name: "fritzbox-7490",
    device: "AVM Fritz!Box",
    source: "miniupnp#222, goupnp#47 (peers.md row 46)",
    summary: "leases of 120 s at least; faults without a faultstring",
    upnp: { version: 2, habits: { minLeaseSeconds: 120 } },
    answers: [{ when: CONTROL, then: replaced(["<faultstring>UPnPError</faultstring>", ""]) }],
  },
  {
    name: "windows-ics",
    device: "Windows's connection sharing, ZTE F670L",
    source: "Open.NAT#14, portmapper#120 (peers.md row 47)",
    summary: "718 for a mapping that its host has already",
    upnp: { version: 1, habits: { repeatFault: 718 } },
  },
  {
    name: "tp-link-w8951nd",
    device: "TP-Link TD-W8951ND",
    source: "miniupnp#242 (peers.md row 47)",
    summary: "718 for a mapping that its host has already, and then 714 for its deletion",
    upnp: { version: 1, habits: { repeatFault: 718, losesRepeated: true } },
  },
  {
    name: "conflict-729",
    device: "miniupnpd",
    source: "its source (peers.md row 48)",
    summary: "729 where another host has the port",
    upnp: { version: 2, habits: { conflictFault: 729 } },
  },
  {
    name: "conflict-501",
    device: "unnamed routers",
    source: "go-libp2p#3057 (peers.md row 48)",
    summary: "501 where another host has the port, or none is left",
    upnp: { version: 1, habits: { conflictFault: 501, fullFault: 501 } },
  },
  {
    name: "silently-full",
    device: "a router of TomP2P's authors",
    source: "TomP2P (peers.md row 48)",
    summary: "says of the 11th mapping and on that it made them, and makes none",
    upnp: { version: 1, habits: { silentlyFullAt: 10 } },
  },
  {
    name: "overwrites",
    device: "unnamed routers",
    source: "miniupnpc's users (specs.md UPNP-C-02)",
    summary: "gives another host's port away without a word",
    upnp: { version: 1, habits: { overwrites: true } },
  },
  {
    name: "orange-funbox-6",
    device: "Orange FunBox 6",
    source: "tailscale#14344, tailscale#18348 (peers.md row 50)",
    summary: "takes the internal port for the external one, whatever is asked for",
    upnp: { version: 1, habits: { samePort: "assumed" } },
  },
  {
    name: "same-port-only",
    device: "gateways that do not change ports",
    source: "WANIPConnection:1 (peers.md row 50)",
    summary: "724 where the external port is not the internal one",
    upnp: { version: 1, habits: { samePort: "required" } },
  },
  {
    name: "miniupnpd-2.3.4",
    device: "miniupnpd before 2.3.5",
    source: "miniupnp#465 (peers.md row 51)",
    summary: "AddAnyPortMapping returns its port under another name",
    upnp: { version: 2 },
    answers: [{
      when: { actions: ["AddAnyPortMapping"] },
      then: replaced(["NewReservedPort", "NewExternalPort"]),
    }],
  },
  {
    name: "mikrotik-5.26",
    device: "MikroTik RouterOS 5.26",
    source: "syncthing#914 (peers.md row 52)",
    summary: "400 for white space before the XML declaration",
    upnp: { version: 1 },
    strictness: [{ wants: "no-leading-space", otherwise: { status: 400 } }],
  },
  {
    name: "draytek-vigor2900",
    device: "DrayTek Vigor2900",
    source: "syncthing#877, offbynull's portmapper#26 (peers.md row 53)",
    summary: "no line break in a call: Invalid SOAP Packet",
    upnp: { version: 1 },
    strictness: [{ wants: "no-newlines", otherwise: { fault: 501 } }],
  },
  {
    name: "strict-content-type",
    device: "unnamed routers",
    source: "rupnp#5 (peers.md row 54)",
    summary: 'wants Content-Type: text/xml; charset="utf-8" to the letter',
    upnp: { version: 1 },
    strictness: [{ wants: "exact-content-type", otherwise: { status: 415 } }],
  },
  {
    name: "strict-envelope",
    device: "unnamed routers",
    source: "upnpclient#6, libplum#46, a comment in goupnp (peers.md row 54)",
    summary: "402 for an envelope's namespace without its slash, 500 for a default namespace",
    upnp: { version: 1 },
    strictness: [
      { wants: "envelope-slash", otherwise: { fault: 402 } },
      { wants: "no-default-namespace", otherwise: { status: 500 } },
    ],
  },
  {
    name: "technicolor-homeware",
    device: "Technicolor with Homeware",
    source: "nicotine-plus#973 (peers.md row 55)",
    summary: "wants Host first, quotes around SOAPAction, the length told and arguments in order",
    upnp: { version: 1 },
    strictness: [
      { wants: "host-first", otherwise: { status: 400 } },
      { wants: "quoted-action", otherwise: { fault: 401 } },
      { wants: "content-length", otherwise: { status: 411 } },
      { wants: "argument-order", otherwise: { fault: 402 } },
    ],
  },
  {
    name: "wrong-namespace",
    device: "unnamed routers",
    source: "Mono.Nat#27 (peers.md row 56)",
    summary: "its answers' namespace is the action's name",
    upnp: { version: 1 },
    answers: [{
      when: CONTROL,
      then: replaced([`xmlns:u="${IGD_SERVICE.WAN_IP_1}"`, 'xmlns:u="DeletePortMapping"']),
    }],
  },
  {
    name: "no-quote-entities",
    device: "unnamed routers",
    source: "a comment in goupnp (peers.md row 57)",
    summary: "does not decode &quot; and &apos;: 402",
    upnp: { version: 1 },
    strictness: [{ wants: "no-quote-entities", otherwise: { fault: 402 } }],
  },
  {
    name: "zte-f680",
    device: "ZTE F680",
    source: "port-mapper's table of quirks (peers.md row 58)",
    summary: "drops requests for ports below 1024",
    upnp: { version: 1, habits: { minPort: 1024, minPortFault: "drop" } },
  },
  {
    name: "no-pinholes",
    device: "miniupnpd, for a temporary or unique local source",
    source: "miniupnp#731, miniupnp#600 (peers.md row 59)",
    summary: "AddPinhole gets 606",
    upnp: { version: 2, habits: { faults: { AddPinhole: 606 } } },
  },
  {
    name: "miniupnpd-private-wan",
    device: "miniupnpd behind another NAT",
    source: "miniupnp#333, #647, #598, #785 (peers.md row 60)",
    summary: "its external address is empty, and it maps nothing: 501",
    upnp: {
      version: 2,
      connections: [{ address: "" }],
      habits: { faults: { AddPortMapping: 501, AddAnyPortMapping: 501 } },
    },
  },
  {
    name: "zero-address",
    device: "Netopia and others",
    source: "tailscale corp#23538, weupnp#4 (peers.md row 61)",
    summary: "maps ports, and tells 0.0.0.0 for its external address",
    upnp: { version: 1, connections: [{ address: "0.0.0.0" }] },
  },
  {
    name: "livebox-not-connected",
    device: "Orange LiveBox",
    source: "miniupnp#83 (peers.md row 61)",
    summary: "its only connection says that it is disconnected",
    upnp: { version: 1, connections: [{ status: "Disconnected" }] },
  },
  {
    name: "status-up",
    device: "unnamed routers",
    source: "miniupnpc's change log (peers.md row 61)",
    summary: 'its connection is "Up" where others are "Connected"',
    upnp: { version: 1, connections: [{ status: "Up" }] },
  },
  {
    name: "no-lease-extension",
    device: "miniupnpd before 2016, Pi-Star",
    source: "miniupnp#199, miniupnp#131, Pi-Star#46 (peers.md row 62)",
    summary: "a mapping added again ends when its first lease does",
    upnp: { version: 1, habits: { ignoresRenewal: true } },
  },
  {
    name: "lists-from-one",
    device: "unnamed routers",
    source: "miniupnpc's change log, miniupnp#228 (peers.md row 63)",
    summary: "GetListOfPortMappings from port 0 on gets 402",
    upnp: { version: 2, habits: { listsFromOne: true } },
  },
];

/** Gateways that speak UPnP alone, the survey's rows 16 to 64. */
export const IGD_PROFILES: readonly Profile[] = LIST.map((profile) => ({
  ...profile,
  protocols: ["upnp"],
}));
