/**
 * A home network in the virtual world: a gateway that is a NAT and runs the simulated gateway,
 * client hosts behind it, and a peer on the Internet.
 *
 * @module
 */
import { describeDatagram } from "../../adapters/packets.ts";
import type { SimulatedGateway } from "../../core/gateway/gateway.ts";
import type { ServerEvent } from "../../core/table/server_request.ts";
import type { Instant, Machine } from "../../core/machine.ts";
import {
  type LinkOptions,
  type Nat,
  type Process,
  type Segment,
  type SimSocket,
  StrictMachine,
  World,
} from "../../core/sim/mod.ts";
import { ClientHost, GATEWAY } from "./client_host.ts";
import { PEER } from "./scenario.ts";
import { execute, type GatewayFaceOptions, makeGateway } from "./gateway.ts";
import { Forger } from "./forger.ts";
import { Skewed } from "./skew.ts";
import type { SubjectKind } from "./subject.ts";

const EXTERNAL = "203.0.113.7";

/** How a home is made. */
export interface HomeOptions extends GatewayFaceOptions {
  readonly seed: number;
  readonly traceSize: number;
  readonly link: LinkOptions;
  /** Seconds that the gateway's clock makes of one. */
  readonly clockRate: number;
}

/** The world with all that is in it. */
export class Home {
  readonly world: World;
  readonly lan: Segment;
  readonly internet: Segment;
  readonly nat: Nat;
  readonly gateway: SimulatedGateway;
  readonly clients: ClientHost[] = [];
  readonly peer: SimSocket;
  /** Every nonce that was ever sent, with the wish that it is for. */
  readonly nonces: Map<string, object> = new Map<string, object>();
  /** What the gateway spoke at first. */
  readonly spoken: readonly ("pcp" | "nat-pmp")[];
  readonly forger: Forger;
  /** The host whose ports others have mapped (THIRD_PARTY). */
  readonly thirdParty = "192.168.1.240";
  /** Addresses that hosts have or had. */
  readonly used: Set<string> = new Set<string>([GATEWAY]);
  readonly #strict: StrictMachine<ServerEvent, SimulatedGateway>;
  readonly #rate: number;
  #process: Process<ServerEvent>;
  #isListening = true;

  constructor(options: HomeOptions) {
    this.world = new World({
      seed: options.seed,
      trace: {
        size: options.traceSize,
        decode: (data, { from, protocol }) =>
          protocol === "udp" ? describeDatagram(data, from.port) : undefined,
      },
    });
    this.internet = this.world.segment("internet", { delayMs: 10 });
    this.lan = this.world.segment("lan", options.link);
    this.nat = this.world.nat("gateway", {
      inside: [this.lan, GATEWAY],
      outside: [this.internet, EXTERNAL],
    });
    const outside = this.world.host("peer");
    outside.attach(this.internet, PEER);
    this.peer = outside.bind({ port: 9 });
    this.gateway = makeGateway(options, EXTERNAL, this.world.fork());
    this.spoken = this.gateway.protocols.filter((protocol) => protocol !== "upnp");
    this.#rate = options.clockRate;
    this.nat.forwarder = {
      lookupInbound: (protocol, external, remote, now) =>
        this.gateway.lookupInbound(protocol, external, remote, now * this.#rate),
      lookupOutbound: (protocol, internal, remote, now) =>
        this.gateway.lookupOutbound(protocol, internal, remote, now * this.#rate),
      holds: (protocol, external, now) => this.gateway.holds(protocol, external, now * this.#rate),
      noteOutbound: (protocol, internal, external, remote, idleMs, now) =>
        this.gateway.noteOutbound(
          protocol,
          internal,
          external,
          remote,
          idleMs * this.#rate,
          now * this.#rate,
        ),
    };
    this.#strict = new StrictMachine(this.gateway);
    this.#process = this.#run();
    this.forger = new Forger(this, "192.168.1.66");
    this.scenario("boot");
  }

  /** Another program on the host of `neighbour`. */
  addProgram(kind: SubjectKind, neighbour: ClientHost): ClientHost {
    const client = new ClientHost(this, `host${this.clients.length}`, kind, neighbour);
    this.clients.push(client);
    return client;
  }

  /** A host behind a NAT of its own, which does not know what it is asked for. */
  addInnerClient(kind: SubjectKind, outside: string): ClientHost {
    const inner = this.world.segment("inner", { delayMs: 1 });
    this.world.nat("inner-nat", {
      inside: [inner, "10.0.0.1"],
      outside: [this.lan, outside],
      gateway: GATEWAY,
    });
    const client = new ClientHost(this, `host${this.clients.length}`, kind, "10.0.0.2", inner);
    this.clients.push(client);
    return client;
  }

  addClient(kind: SubjectKind, address: string): ClientHost {
    const client = new ClientHost(this, `host${this.clients.length}`, kind, address);
    this.clients.push(client);
    return client;
  }

  /** What the gateway's clock shows. */
  get gatewayNow(): Instant {
    return this.world.now * this.#rate;
  }

  /** Puts a scenario command to the gateway. */
  scenario(line: string): void {
    this.world.note(line);
    this.#strict.command((gateway, now) => execute(gateway, line, now), this.gatewayNow);
    // Where nothing listens, there is no socket, and ICMP says so.
    if (this.gateway.isListening !== this.#isListening) {
      this.#isListening = this.gateway.isListening;
      this.#process.stop();
      this.#process = this.#run();
    }
    this.#process.do(() => {});
    if (line === "reboot") this.nat.reboot();
  }

  /** Gives the gateway another WAN address. */
  changeExternal(address: string): void {
    this.nat.changeExternal(this.nat.external[0]!, address);
    this.scenario(`external ${address}`);
  }

  #run(): Process<ServerEvent> {
    const port = this.#isListening ? 5351 : 15351;
    return this.nat.host.run<ServerEvent, Machine<ServerEvent>>(
      new Skewed(this.#strict, this.#rate),
      {
        server: { address: GATEWAY, port },
        other: { address: GATEWAY, port: 5999 },
      },
      { onEvent: () => {} },
    );
  }
}
