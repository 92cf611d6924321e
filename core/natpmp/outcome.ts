/**
 * What an answer, or the lack of one, comes to for the job that was asked, by its kind.
 *
 * @module
 */
import type { Instant } from "../machine.ts";
import type { Failure } from "../mapping.ts";
import type { Outbox } from "../outbox.ts";
import type { ExternalAddress } from "./address.ts";
import type { NatPmpResponse } from "./codec.ts";
import { failureOf, type Job } from "./exchange.ts";
import type { Leases } from "./leases.ts";
import type { NatPmpEvent } from "./types.ts";

/** Ends the jobs of one client. */
export class Outcome {
  readonly #leases: Leases;
  readonly #address: ExternalAddress;
  readonly #outbox: Outbox<NatPmpEvent>;

  /** Acts on these. */
  constructor(leases: Leases, address: ExternalAddress, outbox: Outbox<NatPmpEvent>) {
    this.#leases = leases;
    this.#address = address;
    this.#outbox = outbox;
  }

  /** The gateway has answered a job; `isAnswer` has said that the response is of its kind. */
  answered(job: Job, response: NatPmpResponse, now: Instant): void {
    const failure = failureOf(response, now);
    if (failure) return this.failed(job, failure, now);
    switch (job.kind) {
      case "address":
        if (response.kind === "address") this.#address.heard(response, !job.quiet, now);
        return;
      case "map":
        if (response.kind === "map") this.#leases.granted(job.lease, response, now);
        return;
      case "delete":
        return this.#leases.unmapped(job.lease, "revoked");
      case "delete-all":
        return this.#allUnmapped(job);
    }
  }

  /** A job came to nothing; that is fatal for it alone (PMP-C-27). */
  failed(job: Job, failure: Failure, now: Instant): void {
    switch (job.kind) {
      case "address":
        if (!job.quiet) this.#address.failed(failure);
        return;
      case "map":
        return this.#leases.notGranted(job.lease, failure, now);
      case "delete":
        return this.#leases.unmapped(job.lease, "revoked", failure);
      case "delete-all":
        return this.#allUnmapped(job, failure);
    }
  }

  #allUnmapped(job: Job & { kind: "delete-all" }, failure?: Failure): void {
    for (const lease of job.leases) {
      if (lease.state === "revoked") this.#leases.unmapped(lease, "revoked", failure);
    }
    if (job.quiet) return;
    const event = { type: "all-unmapped", protocol: job.protocol } as const;
    this.#outbox.emit(failure ? { ...event, failure } : event, job.protocol);
  }
}
