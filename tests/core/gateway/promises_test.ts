import { it } from "node:test";
import { assertEquals } from "@std/assert";
import type { Endpoint } from "../../../core/machine.ts";
import { PROTOCOL_NUMBER, type Transport } from "../../../core/mapping.ts";
import * as natPmp from "../../../core/natpmp/codec.ts";
import * as pcp from "../../../core/pcp/codec.ts";
import type { PcpOption } from "../../../core/pcp/options.ts";
import { below, seededRandom } from "../../../core/random.ts";
import type { SoapArguments } from "../../../core/upnp/soap.ts";
import { IgdRig, mapping, named } from "../upnp/igd_rig.ts";
import { ADDRESS_REQUEST, type Ask, natPmpMap, NONCE, OTHER_NONCE, pcpMap } from "./rig.ts";

/** What a client was told, and may count on. */
interface Promised {
  readonly via: "pcp" | "nat-pmp" | "upnp";
  readonly internal: Endpoint;
  readonly protocol: Transport;
  readonly external: Endpoint;
  readonly until: number;
  /** Who may come in; undefined for everybody. */
  readonly remote: string | undefined;
}

const HOSTS = ["192.168.1.100", "192.168.1.101"];
const REMOTES = ["198.51.100.1", "198.51.100.2"];
const FIRST_PORT = 8080;
const MAX_SET = 4;
const SEEDS = 80;
const STEPS = 60;

/** Two hosts that ask one gateway by three protocols, and what they were told. */
class Town extends IgdRig {
  readonly log: string[] = [];
  promised: Promised[] = [];
  readonly #random;

  constructor(seed: number) {
    const random = seededRandom(seed);
    const few = [{ first: FIRST_PORT, last: FIRST_PORT + 5 }];
    super({
      protocols: ["pcp", "nat-pmp", "upnp"],
      externalAddresses: ["203.0.113.7", "203.0.113.8"].slice(0, 1 + below(random, 2)),
      ...below(random, 2) === 0 && { table: { ports: few, chosenPorts: few } },
    });
    this.#random = random;
    this.drain();
  }

  /** Does something, and sees that nobody has lost what was promised. */
  step(): void {
    const internal = { address: this.#one(HOSTS), port: 80 + this.#below(3) };
    const protocol = this.#one<Transport>(["tcp", "udp"]);
    const did = this.#one([
      this.#mapNatPmp,
      this.#mapNatPmp,
      this.#mapPcp,
      this.#mapPcp,
      this.#mapSet,
      this.#addUpnp,
      this.#addUpnp,
      this.#delete,
      this.#flow,
      this.#addStatic,
      this.#renumber,
      this.#wait,
    ]).call(this, internal, protocol);
    this.log.push(`${this.now} ${did}`);
    for (const one of this.promised = this.promised.filter(({ until }) => until > this.now)) {
      for (const address of one.remote ? [one.remote] : REMOTES) {
        const number = PROTOCOL_NUMBER[one.protocol], remote = { address, port: 9 };
        const inside = this.gateway.lookupInbound(number, one.external, remote, this.now);
        assertEquals(inside, one.internal, `${JSON.stringify(one)}\n${this.log.join("\n")}`);
      }
    }
  }

  #below(limit: number): number {
    return below(this.#random, limit);
  }

  #one<T>(all: readonly T[]): T {
    return all[this.#below(all.length)]!;
  }

  #askAll(data: Uint8Array, { address }: Endpoint): Uint8Array[] {
    this.gateway.handleDatagram(data, { address, port: 4000 }, "server", this.now);
    return this.drain().sent.filter(({ to }) => to.address === address).map(({ data }) => data);
  }

  #ask(data: Uint8Array, from: Endpoint): Uint8Array {
    return this.#askAll(data, from)[0]!;
  }

  #promise(one: Promised): void {
    this.promised = this.promised.filter((other) =>
      other.via !== one.via || other.protocol !== one.protocol ||
      (one.via === "upnp"
        ? other.external.port !== one.external.port
        : !isSame(other.internal, one.internal))
    );
    this.promised.push(one);
  }

  /**
   * Nobody counts on the mappings of that inside any more, since its own host or the administrator
   * has ended them: all of a set go with one of its ports.
   */
  #void({ address, port }: Endpoint, protocol: Transport, via?: Promised["via"]): void {
    this.promised = this.promised.filter((one) =>
      one.protocol !== protocol || one.internal.address !== address ||
      Math.abs(one.internal.port - port) >= MAX_SET || (via ?? one.via) !== one.via
    );
  }

  /** What PCP says of a mapping, asked or not. */
  #hearPcp(data: Uint8Array, address: string): string {
    const answer = pcp.decodeResponse(data);
    if (typeof answer !== "object" || answer.kind !== "map") throw new Error("no answer");
    const { resultCode, externalPort, externalAddress, lifetimeSeconds, options } = answer;
    const set = options.find((option) => option.type === "port-set");
    const filter = options.find((option) => option.type === "filter" && option.prefixLength > 0);
    const remote = filter?.type === "filter" ? filter.remoteAddress : undefined;
    const protocol = answer.protocol === PROTOCOL_NUMBER.tcp ? "tcp" : "udp";
    const first = set?.firstInternalPort ?? answer.internalPort;
    for (let i = 0; resultCode === 0 && lifetimeSeconds > 0 && i < (set?.size ?? 1); i++) {
      this.#promise({
        via: "pcp",
        internal: { address, port: first + i },
        protocol,
        external: { address: externalAddress, port: externalPort + i },
        // What is told unasked is rounded up to whole seconds.
        until: this.now + 1000 * (lifetimeSeconds - 1),
        remote,
      });
    }
    return `${resultCode}, ${first}+${set?.size ?? 1} at ${externalPort} for ${lifetimeSeconds} s`;
  }

  #asked(internal: Endpoint, protocol: Transport): Ask & { suggested: number; lifetime: number } {
    return {
      protocol,
      from: { address: internal.address, port: 4000 },
      suggested: this.#one([0, FIRST_PORT, FIRST_PORT + 1, FIRST_PORT + 2]),
      lifetime: this.#one([60, 120, 300, 600]),
    };
  }

  #mapNatPmp(internal: Endpoint, protocol: Transport): string {
    const asked = this.#asked(internal, protocol);
    const answer = natPmp.decodeResponse(this.#ask(natPmpMap(internal.port, asked), internal));
    const told = natPmp.decodeResponse(this.#ask(ADDRESS_REQUEST, internal));
    if (typeof answer !== "object" || answer.kind !== "map") throw new Error("no answer");
    if (typeof told !== "object" || told.kind !== "address") throw new Error("no address");
    if (answer.resultCode === 0) {
      this.#promise({
        via: "nat-pmp",
        internal,
        protocol,
        external: { address: told.externalAddress!, port: answer.externalPort },
        until: this.now + 1000 * answer.lifetimeSeconds,
        remote: undefined,
      });
    }
    return `NAT-PMP map ${show(internal, protocol)} ${asked.suggested} ${asked.lifetime}: ` +
      `${answer.resultCode}, ${answer.externalPort}`;
  }

  #mapPcp(internal: Endpoint, protocol: Transport): string {
    const asked = this.#asked(internal, protocol), nonce = this.#one([NONCE, NONCE, OTHER_NONCE]);
    const remote = this.#one([undefined, undefined, ...REMOTES]);
    const filter = (prefixLength: number, remoteAddress: string) =>
      ({ type: "filter", prefixLength, remotePort: 0, remoteAddress }) as const;
    const options: PcpOption[] = [filter(0, "0.0.0.0")];
    if (remote) options.push(filter(128, remote));
    if (asked.suggested !== 0 && this.#below(4) === 0) options.push({ type: "prefer-failure" });
    const suggestedAddress = this.#one(["0.0.0.0", "0.0.0.0", "203.0.113.8"]);
    const request = pcpMap(internal.port, { ...asked, nonce, options, suggestedAddress });
    const [data] = this.#askAll(request, internal);
    // One port's request is about the whole set that it belongs to, filters and lifetime.
    if (data![3] === 0) this.#void(internal, protocol, "pcp");
    return `PCP map ${show(internal, protocol)} ${asked.suggested} ${asked.lifetime} ` +
      `${options.map(({ type }) => type)} ${remote}: ` +
      this.#hearPcp(data!, internal.address);
  }

  #mapSet(internal: Endpoint, protocol: Transport): string {
    const asked = this.#asked(internal, protocol), size = 2 + this.#below(MAX_SET - 1);
    const parity = this.#below(2) === 0;
    const all = {
      type: "filter",
      prefixLength: 0,
      remotePort: 0,
      remoteAddress: "0.0.0.0",
    } as const;
    const set = { type: "port-set", size, firstInternalPort: internal.port, parity } as const;
    const answers = this.#askAll(
      pcpMap(internal.port, { ...asked, options: [all, set] }),
      internal,
    );
    return `PCP map ${show(internal, protocol)}+${size} ${asked.suggested} ${asked.lifetime}: ` +
      answers.map((data) => this.#hearPcp(data, internal.address)).join("; ");
  }

  #addUpnp(internal: Endpoint, protocol: Transport): string {
    const { from, suggested, lifetime } = this.#asked(internal, protocol);
    const action = this.#one(["AddPortMapping", "AddPortMapping", "AddAnyPortMapping"]);
    const remote = this.#one(["", "", ...REMOTES]), name = protocol.toUpperCase();
    const result = this.call(
      action,
      mapping(suggested || FIRST_PORT, {
        protocol: name,
        internalPort: internal.port,
        client: internal.address,
        lease: lifetime,
        remote,
      }),
      from,
    );
    if (typeof result === "object") {
      const port = Number(result["NewReservedPort"] ?? (suggested || FIRST_PORT));
      const told = this.call("GetExternalIPAddress", {}, from) as SoapArguments;
      this.#promise({
        via: "upnp",
        internal,
        protocol,
        external: { address: told["NewExternalIPAddress"]!, port },
        until: this.now + 1000 * lifetime,
        remote: remote || undefined,
      });
      const shown = this.call("GetSpecificPortMappingEntry", named(port, name, remote), from);
      assertEquals((shown as SoapArguments)["NewInternalPort"], `${internal.port}`);
    }
    return `${action} ${show(internal, protocol)} ${suggested} ${lifetime} ${remote}: ` +
      JSON.stringify(result);
  }

  #delete(internal: Endpoint, protocol: Transport): string {
    const from = { address: internal.address, port: 4000 };
    const how = this.#below(3);
    if (how === 0) {
      this.#ask(natPmpMap(internal.port, { protocol, lifetime: 0 }), internal);
    } else if (how === 1) {
      const answer = this.#ask(pcpMap(internal.port, { from, protocol, lifetime: 0 }), internal);
      if (answer[3] !== 0) return `PCP delete ${show(internal, protocol)}: ${answer[3]}`;
    } else {
      // UPnP's words name no address: the port of that number on the client's own is meant.
      const address = this.gateway.table.externalAddressFor(internal.address);
      const own = this.gateway.list(this.now).find((entry) =>
        isSame(entry.internal, internal) && entry.protocol === PROTOCOL_NUMBER[protocol] &&
        entry.external.address === address
      );
      if (!own) return "nothing";
      const args = named(own.external.port, protocol.toUpperCase());
      const result = this.call("DeletePortMapping", args, from);
      if (typeof result !== "object") return `DeletePortMapping: ${result}`;
    }
    this.#void(internal, protocol);
    return `${["NAT-PMP", "PCP", "UPnP"][how]} delete ${show(internal, protocol)}`;
  }

  #flow(internal: Endpoint, protocol: Transport): string {
    const number = PROTOCOL_NUMBER[protocol], remote = { address: REMOTES[0]!, port: 1 };
    const told = this.gateway.lookupOutbound(number, internal, remote, this.now);
    const address = this.gateway.table.externalAddressFor(internal.address) ?? "203.0.113.7";
    const external = told ?? { address, port: FIRST_PORT + this.#below(6) };
    if (!told && this.gateway.holds(number, external, this.now)) return "nothing";
    this.gateway.noteOutbound(number, internal, external, remote, 30_000, this.now);
    return `flow ${show(internal, protocol)} as ${external.port}`;
  }

  #addStatic(internal: Endpoint, protocol: Transport): string {
    const port = FIRST_PORT + this.#below(6);
    const rarely = this.#below(4) === 0;
    const made = rarely && this.gateway.addStatic(protocol, port, internal, this.now);
    if (typeof made === "object") this.#void(internal, protocol);
    this.drain();
    return `static ${show(internal, protocol)} ${port}: ${JSON.stringify(made)}`;
  }

  /** PCP's clients are told of each mapping, NAT-PMP's of the address, and UPnP's that it changed. */
  #renumber(): string {
    const rarely = this.#below(3) === 0;
    if (!rarely) return "nothing";
    const addresses = this.#one([
      ["203.0.113.7"],
      ["203.0.113.8", "203.0.113.7"],
      ["198.51.99.1"],
      [],
    ]);
    this.gateway.setExternalAddresses(addresses, this.now);
    const { sent } = this.drain();
    const isAnew = this.gateway.epochSeconds("nat-pmp", this.now) === 0;
    const before = this.promised;
    this.promised = [];
    for (const one of before) {
      if (one.via !== "nat-pmp" || isAnew) continue;
      const told = natPmp.decodeResponse(this.#ask(ADDRESS_REQUEST, one.internal));
      if (typeof told !== "object" || told.kind !== "address") throw new Error("no address");
      const address = told.externalAddress!;
      this.promised.push({ ...one, external: { address, port: one.external.port } });
    }
    const told = sent.filter(({ to }) => HOSTS.includes(to.address))
      .map(({ data, to }) => this.#hearPcp(data, to.address));
    return `new addresses ${addresses}: ${told.join("; ")}`;
  }

  #wait(): string {
    const ms = this.#one([500, 10_000, 60_000, 119_000, 200_000]);
    this.runTo(this.now + ms);
    return `waited ${ms} ms`;
  }
}

function isSame(a: Endpoint, b: Endpoint): boolean {
  return a.address === b.address && a.port === b.port;
}

function show({ address, port }: Endpoint, protocol: Transport): string {
  return `${protocol} ${address}:${port}`;
}

it("no protocol, and no administrator elsewhere, takes from a client what another promised it", () => {
  let kept = 0;
  for (let seed = 1; seed <= SEEDS; seed++) {
    const town = new Town(seed);
    for (let i = 0; i < STEPS; i++) {
      town.step();
      kept += town.promised.length;
    }
  }
  // Else nothing would have been looked at.
  assertEquals(kept > SEEDS * STEPS, true);
});
