// What the protocol 2 sellers written in JavaScript charge. offers.py says the same in Python.
import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { UptoEvmScheme } from "@x402/evm/upto/server";
import { declareEip2612GasSponsoringExtension, declareErc20ApprovalGasSponsoringExtension } from "@x402/extensions";
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

/** The routes that are paid through Permit2. `upto` charges less than its ceiling: see `charge`. */
export function permit2Routes(payTo) {
  const common = { network: NETWORK, payTo, maxTimeoutSeconds: 60 };
  const exact = { ...common, scheme: "exact", price: "$0.01", extra: { assetTransferMethod: "permit2" } };
  const upto = { ...common, scheme: "upto", price: "$0.05" };
  const route = (description, offer, extensions) => ({
    accepts: [offer],
    description,
    mimeType: "application/json",
    ...(extensions && { extensions }),
  });
  const permit = declareEip2612GasSponsoringExtension();
  const approval = declareErc20ApprovalGasSponsoringExtension();
  return {
    "GET /permit2": route("A report through Permit2", exact),
    "GET /upto": route("A report by its use", upto),
    "GET /permit2-sponsored": route("A report, without gas for the approval", exact, permit),
    "GET /upto-sponsored": route("A report by its use, without gas for the approval", upto, permit),
    "GET /permit2-approved": route("A report, with an approval that the facilitator sends", exact, approval),
    "GET /upto-approved": route("A report by its use, with an approval that the facilitator sends", upto, approval),
  };
}

/** The answer of each of these routes, and the atomic units that an `upto` route charges: `?charge=`, or 20000. */
export function permit2Answer(seller, path, query) {
  const name = path.slice(1);
  const charge = name.startsWith("upto") ? { amount: query.charge ?? "20000" } : undefined;
  return { answer: { report: name, seller }, charge };
}

/** A resource server of the given package, ready for `paymentMiddleware`. */
export function resourceServer(x402ResourceServer, facilitator) {
  return new x402ResourceServer(new HTTPFacilitatorClient({ url: facilitator }))
    .register(NETWORK, new ExactEvmScheme())
    .register(NETWORK, new UptoEvmScheme());
}

export const EVENTS = ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"];
