/**
 * The numbers that standards assign, as their texts list them: a peer of another make would not
 * understand another one, and nothing in here would.
 *
 * @module
 */
import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { NATPMP_OPCODE, NATPMP_RESULT } from "../../core/natpmp/codec.ts";
import { PCP_OPCODE, PCP_OPTION, PCP_RESULT } from "../../core/pcp/constants.ts";
import {
  STUN_ATTRIBUTE,
  STUN_ERROR,
  STUN_METHOD,
  STUN_PASSWORD_ALGORITHM,
} from "../../core/stun/codec.ts";
import { FIREWALL_ERROR, IGD_ERROR, UPNP_ERROR } from "../../core/upnp/igd.ts";

/** What stands in a table of numbers, in its order, as `name number`. */
const listed = (table: Readonly<Record<string, number>>): string =>
  Object.entries(table).map(([name, number]) => `${name} ${number}`).join(", ");

describe("the numbers of", () => {
  it("NAT-PMP (RFC 6886 §3.3, §3.5)", () => {
    assertEquals(listed(NATPMP_OPCODE), "ADDRESS 0, MAP_UDP 1, MAP_TCP 2");
    assertEquals(
      listed(NATPMP_RESULT),
      "SUCCESS 0, UNSUPP_VERSION 1, NOT_AUTHORIZED 2, NETWORK_FAILURE 3, OUT_OF_RESOURCES 4, " +
        "UNSUPP_OPCODE 5",
    );
  });

  it("PCP (RFC 6887 §19, RFC 7220, RFC 7225, RFC 7652 §8, RFC 7753)", () => {
    assertEquals(listed(PCP_OPCODE), "ANNOUNCE 0, MAP 1, PEER 2, AUTHENTICATION 3");
    assertEquals(
      listed(PCP_OPTION),
      "THIRD_PARTY 1, PREFER_FAILURE 2, FILTER 3, DESCRIPTION 128, PREFIX64 129, PORT_SET 130",
    );
    assertEquals(
      listed(PCP_RESULT),
      "SUCCESS 0, UNSUPP_VERSION 1, NOT_AUTHORIZED 2, MALFORMED_REQUEST 3, UNSUPP_OPCODE 4, " +
        "UNSUPP_OPTION 5, MALFORMED_OPTION 6, NETWORK_FAILURE 7, NO_RESOURCES 8, " +
        "UNSUPP_PROTOCOL 9, USER_EX_QUOTA 10, CANNOT_PROVIDE_EXTERNAL 11, ADDRESS_MISMATCH 12, " +
        "EXCESSIVE_REMOTE_PEERS 13, INITIATION 14, AUTHENTICATION_REQUIRED 15, " +
        "AUTHENTICATION_FAILED 16, AUTHENTICATION_SUCCEEDED 17, AUTHORIZATION_FAILED 18, " +
        "SESSION_TERMINATED 19, UNKNOWN_SESSION_ID 20, DOWNGRADE_ATTACK_DETECTED 21, " +
        "AUTHENTICATION_REQUEST 22, AUTHENTICATION_REPLY 23",
    );
  });

  it("STUN, TURN and ICE (RFC 8489 §18, RFC 8656 §18, RFC 8445 §16, RFC 5780 §9, RFC 3489)", () => {
    assertEquals(
      listed(STUN_METHOD),
      "BINDING 1, ALLOCATE 3, REFRESH 4, SEND 6, DATA 7, CREATE_PERMISSION 8, CHANNEL_BIND 9",
    );
    assertEquals(
      listed(STUN_ERROR),
      "TRY_ALTERNATE 300, BAD_REQUEST 400, UNAUTHENTICATED 401, FORBIDDEN 403, " +
        "UNKNOWN_ATTRIBUTE 420, ALLOCATION_MISMATCH 437, STALE_NONCE 438, " +
        "ADDRESS_FAMILY_NOT_SUPPORTED 440, WRONG_CREDENTIALS 441, UNSUPPORTED_TRANSPORT 442, " +
        "PEER_ADDRESS_FAMILY_MISMATCH 443, ALLOCATION_QUOTA_REACHED 486, ROLE_CONFLICT 487, " +
        "SERVER_ERROR 500, INSUFFICIENT_CAPACITY 508",
    );
    assertEquals(listed(STUN_PASSWORD_ALGORITHM), "MD5 1, SHA_256 2");
    const hex = Object.entries(STUN_ATTRIBUTE).map(([name, type]) =>
      `${type.toString(16).padStart(4, "0")} ${name}`
    );
    assertEquals(hex, [
      "0001 MAPPED_ADDRESS",
      "0002 RESPONSE_ADDRESS",
      "0003 CHANGE_REQUEST",
      "0004 SOURCE_ADDRESS",
      "0005 CHANGED_ADDRESS",
      "0006 USERNAME",
      "0007 PASSWORD",
      "0008 MESSAGE_INTEGRITY",
      "0009 ERROR_CODE",
      "000a UNKNOWN_ATTRIBUTES",
      "000b REFLECTED_FROM",
      "000c CHANNEL_NUMBER",
      "000d LIFETIME",
      "0012 XOR_PEER_ADDRESS",
      "0013 DATA",
      "0014 REALM",
      "0015 NONCE",
      "0016 XOR_RELAYED_ADDRESS",
      "0017 REQUESTED_ADDRESS_FAMILY",
      "0019 REQUESTED_TRANSPORT",
      "001a DONT_FRAGMENT",
      "001c MESSAGE_INTEGRITY_SHA256",
      "001d PASSWORD_ALGORITHM",
      "001e USERHASH",
      "0020 XOR_MAPPED_ADDRESS",
      "0024 PRIORITY",
      "0025 USE_CANDIDATE",
      "0026 PADDING",
      "0027 RESPONSE_PORT",
      "8002 PASSWORD_ALGORITHMS",
      "8003 ALTERNATE_DOMAIN",
      "8020 XOR_MAPPED_ADDRESS_DRAFT",
      "8022 SOFTWARE",
      "8023 ALTERNATE_SERVER",
      "8027 CACHE_TIMEOUT",
      "8028 FINGERPRINT",
      "8029 ICE_CONTROLLED",
      "802a ICE_CONTROLLING",
      "802b RESPONSE_ORIGIN",
      "802c OTHER_ADDRESS",
    ]);
  });

  it("UPnP (UDA §3.2.2, WANIPConnection:2 §2.5, WANIPv6FirewallControl:1 §2.6)", () => {
    assertEquals(
      listed(UPNP_ERROR),
      "InvalidAction 401, InvalidArgs 402, InvalidVar 404, ActionFailed 501, " +
        "ArgumentValueInvalid 600, ArgumentValueOutOfRange 601, OptionalActionNotImplemented 602, " +
        "OutOfMemory 603, HumanInterventionRequired 604, StringArgumentTooLong 605, " +
        "ActionNotAuthorized 606",
    );
    assertEquals(
      listed(IGD_ERROR),
      "SpecifiedArrayIndexInvalid 713, NoSuchEntryInArray 714, WildCardNotPermittedInSrcIP 715, " +
        "WildCardNotPermittedInExtPort 716, ConflictInMappingEntry 718, SamePortValuesRequired 724, " +
        "OnlyPermanentLeasesSupported 725, RemoteHostOnlySupportsWildcard 726, " +
        "ExternalPortOnlySupportsWildcard 727, NoPortMapsAvailable 728, " +
        "ConflictWithOtherMechanisms 729, PortMappingNotFound 730, ReadOnly 731, " +
        "WildCardNotPermittedInIntPort 732, InconsistentParameters 733",
    );
    assertEquals(
      listed(FIREWALL_ERROR),
      "PinholeSpaceExhausted 701, FirewallDisabled 702, InboundPinholeNotAllowed 703, " +
        "NoSuchEntry 704, ProtocolNotSupported 705, InternalPortWildcardingNotAllowed 706, " +
        "ProtocolWildcardingNotAllowed 707, PinholeWildCardNotPermittedInSrcIP 708, " +
        "NoTrafficReceived 709",
    );
  });
});
