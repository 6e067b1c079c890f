// What the protocol 2 sellers written in JavaScript charge. offers.py says the same in Python.
import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { UptoEvmScheme } from "@x402/evm/upto/server";
import { NETWORK } from "../chain.mjs";

/** The paid routes, in the shape `paymentMiddleware` takes. */
export function paidRoutes(payTo) {
  const offer = (price, scheme = "exact") => ({ scheme, price, network: NETWORK, payTo, maxTimeoutSeconds: 60 });
  const route = (description, mimeType, ...accepts) => ({ accepts, description, mimeType });
  return {
    "GET /report": route("A report", "application/json", offer("$0.01")),
    "POST /echo": route("The request's own body", "application/octet-stream", offer("$0.02")),
    "GET /stream": route("Three events", "text/event-stream", offer("$0.01")),
    "GET /fail": route("A handler that fails", "application/json", offer("$0.01")),
    "GET /dear": route("A dear report", "application/json", offer("$2.00")),
    "GET /several": route(
      "A report with several offers, the dear one first",
      "application/json",
      offer("$1.50"),
      offer("$0.01"),
      offer("$0.05", "upto"),
    ),
  };
}

/** A resource server of the given package, ready for `paymentMiddleware`. */
export function resourceServer(x402ResourceServer, facilitator) {
  return new x402ResourceServer(new HTTPFacilitatorClient({ url: facilitator }))
    .register(NETWORK, new ExactEvmScheme())
    .register(NETWORK, new UptoEvmScheme());
}

export const EVENTS = ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"];
