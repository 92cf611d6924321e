/**
 * The commands, in the order of the help text: what they are called and take. What they do is
 * loaded with the one that runs.
 *
 * @module
 */
import type { Command } from "../command.ts";
import { MAX_PORTS } from "../values.ts";

/** Every command of `natkit`. */
export const COMMANDS: readonly Command[] = [
  {
    name: "map",
    summary: "opens ports on the gateway and holds them",
    positionals: ["PORT[/tcp|/udp]…"],
    minPositionals: 1,
    maxPositionals: MAX_PORTS,
    flags: [
      "external-port",
      "external-address",
      "lifetime",
      "via",
      "gateway",
      "internal-address",
      "mode",
      "prefer-failure",
      "filter",
      "third-party",
      "description",
      "exec",
      "state",
      "timeout",
    ],
    notes:
      "PORT is the port on this host, tcp where nothing is said. Of several each goes its own\n" +
      "way: one that fails is told, the others stay, and the status is 1 at the end.\n" +
      "--exec's command has the fields of the event in NATKIT_EVENT, _PROTOCOL, _VIA, _GATEWAY,\n" +
      "_INTERNAL_ADDRESS, _INTERNAL_PORT, _EXTERNAL_ADDRESS, _EXTERNAL_PORT, _LIFETIME, _REASON.\n" +
      "One runs at a time, for 10 s at most; of the changes of a port that wait the last one counts.\n" +
      "Events: mapped, renewed, moved, lost, unmapped.",
    examples: [
      "map 25565",
      "map 25565 27015/udp",
      "map 6000/udp --external-port 6000 --lifetime 3600",
      "map 8080 --mode once --json",
      "map 8080 --exec 'echo $NATKIT_EVENT $NATKIT_EXTERNAL_ADDRESS:$NATKIT_EXTERNAL_PORT'",
    ],
    load: () => import("./map.ts"),
  },
  {
    name: "unmap",
    summary: "closes ports, or with --all every port of this host",
    positionals: ["PORT[/tcp|/udp]…"],
    synopsis: "PORT[/tcp|/udp]… | --all",
    minPositionals: 0,
    maxPositionals: MAX_PORTS,
    flags: ["all", "via", "gateway", "internal-address", "state", "timeout"],
    notes:
      "PORT is the port on this host, tcp where nothing is said. Mappings that natkit made are\n" +
      "known from the state file, with their gateways and protocols; for others every protocol is\n" +
      "tried. Where this host has none of that port, what natkit mapped for another one\n" +
      "(--third-party) is closed. What a natkit that runs holds is left to that one.\n" +
      "Events: unmapped.",
    examples: ["unmap 8080", "unmap --all"],
    load: () => import("./unmap.ts"),
  },
  {
    name: "peer",
    summary: "asks the gateway for an outbound mapping to one peer, and holds it (PCP PEER)",
    positionals: ["PORT/tcp|/udp", "REMOTE_ADDRESS", "REMOTE_PORT"],
    minPositionals: 3,
    flags: [
      "external-port",
      "external-address",
      "lifetime",
      "via",
      "gateway",
      "internal-address",
      "mode",
      "third-party",
      "description",
      "exec",
      "state",
      "timeout",
    ],
    notes: "PORT is the port on this host from which packets to the peer leave.\n" +
      "Events: mapped with remote, renewed, moved, lost, unmapped.",
    examples: ["peer 5000/udp 198.51.100.20 3478"],
    load: () => import("./peer.ts"),
  },
  {
    name: "address",
    summary: "tells the external address, by each protocol that knows it, as each answers",
    positionals: [],
    minPositionals: 0,
    flags: ["via", "gateway", "internal-address", "timeout"],
    notes: "Events: address.",
    examples: ["address", "address --via upnp"],
    load: () => import("./address.ts"),
  },
  {
    name: "watch",
    summary: "maps a port at every gateway, and tells all addresses that lead to it at each change",
    positionals: ["PORT[/tcp|/udp]"],
    minPositionals: 1,
    flags: [
      "external-port",
      "lifetime",
      "via",
      "gateway",
      "internal-address",
      "description",
      "state",
    ],
    notes:
      "PORT is the port on this host, tcp where nothing is said. This host's own addresses are\n" +
      "among them (via local). A line on standard input, where that is no terminal, tells them again.\n" +
      "Events: assignments.",
    examples: ["watch 6000/tcp"],
    load: () => import("./watch.ts"),
  },
  {
    name: "doctor",
    summary: "tells what stands between this host and the internet, and what to do about it",
    positionals: [],
    minPositionals: 0,
    flags: ["via", "gateway", "internal-address", "stun", "timeout"],
    notes: "Each gateway is asked by each protocol; one that is silent is waited for 4 s.\n" +
      "Events: report.",
    examples: ["doctor", "doctor --stun stun.example.net:3478 --json"],
    load: () => import("./doctor.ts"),
  },
  {
    name: "list",
    summary: "lists the gateway's port mappings, everybody's (UPnP)",
    positionals: [],
    minPositionals: 0,
    flags: ["gateway", "internal-address", "timeout"],
    notes: "Only UPnP can tell them; what other protocols mapped a gateway may leave out.\n" +
      "Events: mapping.",
    examples: ["list"],
    load: () => import("./list.ts"),
  },
  {
    name: "upnp",
    summary: "lists the UPnP services of this network, or what one can be asked, or asks it",
    positionals: ["services|actions|call", "[SERVICE …]"],
    minPositionals: 1,
    maxPositionals: 64,
    flags: ["scan", "target", "device", "timeout"],
    notes: "services; actions SERVICE; call SERVICE ACTION NAME=VALUE …\n" +
      "SERVICE is a service's type or id, or its name with or without the version, as in\n" +
      "WANIPConnection:1; the first one that is found counts.\n" +
      "Events: service, action, result.",
    examples: [
      "upnp services",
      "upnp actions WANIPConnection",
      "upnp call WANIPConnection GetExternalIPAddress",
    ],
    load: () => import("./upnp.ts"),
  },
  {
    name: "punch",
    summary: "reaches a peer through the NATs between, and pipes standard input and output to it",
    positionals: [],
    minPositionals: 0,
    flags: [
      "udp",
      "tcp",
      "stun",
      "turn",
      "internal-address",
      "sdp",
      "controlling",
      "controlled",
      "timeout",
    ],
    notes:
      "The ticket is the first line of standard output; it goes to the peer, whose ticket is the\n" +
      "first line of standard input. All that follows is data: over TCP a stream that arrives\n" +
      "whole, over UDP each line is a datagram. --timeout is how long the peer is tried (default\n" +
      "30). With --json what the peer sends comes in data events, as text or base64.\n" +
      "Events: ticket, punched, data.",
    examples: ["punch --stun stun.example.net:3478", "punch --tcp < photo.jpg"],
    load: () => import("./punch.ts"),
  },
  {
    name: "stun",
    summary: "asks a STUN server how it sees this host",
    positionals: ["HOST[:PORT]"],
    minPositionals: 1,
    flags: ["tcp", "timeout"],
    notes: "Over IPv4 and IPv6, where the name has both. Events: address.",
    examples: ["stun stun.example.net"],
    load: () => import("./stun.ts"),
  },
  {
    name: "nat-type",
    summary: "finds out what kind of NAT this host is behind",
    positionals: [],
    synopsis: "--stun HOST:PORT",
    minPositionals: 0,
    flags: ["stun", "internal-address", "max-lifetime"],
    notes:
      "Mapping and filtering need a server with two addresses, such as natkit stun-server with\n" +
      "--alternate, or coturn. Of several the first that answers with a second address is asked.\n" +
      "Events: nat-type.",
    examples: ["nat-type --stun stun.example.net:3478"],
    load: () => import("./nat_type.ts"),
  },
  {
    name: "stun-server",
    summary: "is a STUN server, over UDP and TCP",
    positionals: [],
    minPositionals: 0,
    flags: ["listen", "alternate"],
    notes:
      "It listens on port 3478 until SIGINT or SIGTERM. With --alternate it listens on both\n" +
      "addresses with both ports, and serves nat-type (RFC 5780). Events: listening.",
    examples: ["stun-server --listen 192.0.2.1:3478 --alternate 192.0.2.2:3479"],
    load: () => import("./stun_server.ts"),
  },
  {
    name: "gateway",
    summary: "is a simulated gateway on real sockets, to test clients against",
    positionals: [],
    minPositionals: 0,
    flags: [
      "listen",
      "port",
      "external",
      "protocols",
      "profile",
      "announce-port",
      "http-port",
      "epoch",
      "forward",
    ],
    notes:
      "It runs until SIGINT, SIGTERM or quit. An IPv6 --listen makes a firewall without NAT.\n" +
      "Events: listening, request, response, mapping, scenario.",
    examples: [
      "gateway --listen 127.0.0.1 --external 203.0.113.7",
      "gateway --listen 127.0.0.1 --profile miniupnpd --forward",
    ],
    load: () => import("./gateway.ts"),
  },
  {
    name: "demo",
    summary: "shows a mapping by each protocol through a simulated gateway on loopback",
    positionals: [],
    minPositionals: 0,
    flags: [],
    notes: "Nothing outside this host is touched. Events: listening, mapped, scenario, renewed,\n" +
      "moved, lost, unmapped.",
    examples: ["demo"],
    load: () => import("./demo.ts"),
  },
  {
    name: "completion",
    summary: "writes a script with which a shell completes commands, flags and their values",
    positionals: ["bash|zsh|fish"],
    minPositionals: 1,
    flags: [],
    notes: "In the file that the shell reads when it starts:\n" +
      '  ~/.bashrc                   eval "$(natkit completion bash)"\n' +
      "  ~/.zshrc, after compinit    source <(natkit completion zsh)\n" +
      "  ~/.config/fish/config.fish  natkit completion fish | source\n" +
      "Events: completion.",
    examples: ["completion bash"],
    load: () => import("./completion.ts"),
  },
];
