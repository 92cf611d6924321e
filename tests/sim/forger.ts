/**
 * Somebody on the network who answers in the gateway's place: with another nonce, from another port
 * or address, to what was asked and unasked. Nothing may change because of it, and since the model
 * does not believe it, whatever does change is a breach.
 *
 * What NAT-PMP has to believe is not among it: an announcement from the gateway's address, and an
 * answer from its address and port.
 *
 * @module
 */
import { fromHex, putU16, putU32 } from "../../core/bytes.ts";
import { below, type RandomSource } from "../../core/random.ts";
import { encodeAddressResponse, encodeMapResponse } from "../../core/natpmp/codec.ts";
import { encodeResponse } from "../../core/pcp/codec.ts";
import type { Host } from "../../core/sim/mod.ts";
import { INITIAL_HOPS } from "../../core/sim/packet.ts";
import { PROTOCOL_NUMBER } from "../../core/mapping.ts";
import type { ClientHost } from "./client_host.ts";
import type { Home } from "./home.ts";
import { pick } from "./scenario.ts";

const FORGED_ADDRESS = "203.0.113.66";
const FORGED_PORT = 6666;

/** Forges answers. */
export class Forger {
  readonly #home: Home;
  readonly #host: Host;

  constructor(home: Home, address: string) {
    this.#home = home;
    this.#host = home.world.host("forger");
    this.#host.attach(home.lan, address);
  }

  /** Sends a client something that it must not believe. */
  forge(random: RandomSource, client: ClientHost): void {
    const { gateway } = client;
    const mine = this.#host.interfaces[0]!.addresses[0]!;
    const isStranger = below(random, 2) === 0;
    const wrong = isStranger
      ? { address: mine, port: 5351 }
      : { address: gateway.address, port: pick(random, [5350, 5999, 40_000]) };
    const kind = below(random, 5);
    switch (kind) {
      // The right source, but a nonce that nobody has sent.
      case 0:
        return this.#send(gateway, client, this.#pcpMap(random, client, undefined));
      // All right, but for the source.
      case 1:
        return this.#send(wrong, client, this.#pcpMap(random, client, nonceOf(client)));
      case 2:
        return this.#send(wrong, client, this.#natPmpMap(random, client));
      // An announcement of a new table: by NAT-PMP the gateway's address is enough.
      case 3: {
        const bytes = encodeAddressResponse({
          resultCode: 0,
          epochSeconds: 0,
          externalAddress: FORGED_ADDRESS,
        });
        return this.#send({ address: mine, port: 5351 }, client, bytes, below(random, 2) === 0);
      }
      default: {
        const bytes = encodeResponse({
          kind: "announce",
          resultCode: 0,
          lifetimeSeconds: 0,
          epochSeconds: 0,
          options: [],
        });
        return this.#send(wrong, client, bytes, below(random, 2) === 0);
      }
    }
  }

  #pcpMap(random: RandomSource, client: ClientHost, nonce: string | undefined): Uint8Array {
    const wish = pick(random, client.model.wishes);
    const bytes = new Uint8Array(12);
    random.fill(bytes);
    return encodeResponse({
      kind: "map",
      resultCode: pick(random, [0, 0, 2, 8]),
      lifetimeSeconds: pick(random, [0, 5, 7200]),
      epochSeconds: pick(random, [0, 1_000_000]),
      options: [],
      nonce: nonce === undefined ? bytes : fromHex(nonce),
      protocol: PROTOCOL_NUMBER[wish.protocol],
      internalPort: wish.internalPort,
      externalPort: FORGED_PORT,
      externalAddress: FORGED_ADDRESS,
    });
  }

  #natPmpMap(random: RandomSource, client: ClientHost): Uint8Array {
    const { protocol, internalPort } = pick(random, client.model.wishes);
    const bytes = encodeMapResponse({
      protocol,
      internalPort,
      resultCode: 0,
      epochSeconds: 0,
      externalPort: FORGED_PORT,
      lifetimeSeconds: 7200,
    });
    if (below(random, 3) === 0) {
      putU16(bytes, 2, 2);
      putU32(bytes, 12, 0);
    }
    return bytes;
  }

  #send(
    from: { address: string; port: number },
    client: ClientHost,
    data: Uint8Array,
    isAnnounced = false,
  ): void {
    this.#home.world.note(`somebody forges an answer for ${client.name}`);
    const to = { address: client.address, port: isAnnounced ? 5350 : client.port };
    this.#host.sendPacket({ protocol: "udp", from, to, data, hops: INITIAL_HOPS });
  }
}

function nonceOf(client: ClientHost): string | undefined {
  return client.model.nonceInUse();
}
