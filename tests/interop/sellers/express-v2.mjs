import { decodePaymentSignatureHeader } from "@x402/core/http";
import { paymentMiddleware, x402ResourceServer } from "@x402/express";
import { bazaarResourceServerExtension, declareDiscoveryExtension } from "@x402/extensions/bazaar";
import {
  declarePaymentIdentifierExtension,
  PAYMENT_IDENTIFIER,
  validatePaymentIdentifierRequirement,
} from "@x402/extensions/payment-identifier";
import express from "express";
import { listen } from "../listen.mjs";
import { serveRoutes } from "./express-routes.mjs";
import { paidRoutes, resourceServer } from "./offers.mjs";

export function startExpressV2({ facilitator, payTo, seller }) {
  const paid = paidRoutes(payTo);
  paid["GET /identified"] = {
    ...paid["GET /report"],
    extensions: { [PAYMENT_IDENTIFIER]: declarePaymentIdentifierExtension(true) },
  };
  paid["GET /listed"] = {
    ...paid["GET /report"],
    description: "A report that is listed in the bazaar",
    extensions: declareDiscoveryExtension({
      input: { day: "monday" },
      inputSchema: { properties: { day: { type: "string" } } },
      output: { example: { report: "listed" } },
    }),
  };
  const app = express();
  const server = resourceServer(x402ResourceServer, facilitator).registerExtension(bazaarResourceServerExtension);
  app.use(paymentMiddleware(paid, server));
  serveRoutes(app, seller);
  app.get("/several", (_, res) => res.json({ report: "several", seller }));

  app.get("/listed", (_, res) => res.json({ report: "listed", seller }));

  // The middleware leaves the check to the seller; an answer of 400 settles nothing.
  app.get("/identified", (req, res) => {
    const payment = decodePaymentSignatureHeader(req.header("payment-signature"));
    const { valid, errors } = validatePaymentIdentifierRequirement(payment, true);
    if (!valid) return res.status(400).json({ error: errors });
    res.json({ report: "identified", seller, id: payment.extensions[PAYMENT_IDENTIFIER].info.id });
  });
  return listen(app);
}
