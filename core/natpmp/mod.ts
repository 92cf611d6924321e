/**
 * NAT-PMP (RFC 6886): the wire format and the machines that speak it.
 *
 * @module
 */
export * from "./codec.ts";
