import { decodePaymentSignatureHeader } from "@x402/core/http";
import { paymentMiddleware, setSettlementOverrides, x402ResourceServer } from "@x402/express";
import { bazaarResourceServerExtension, declareDiscoveryExtension } from "@x402/extensions/bazaar";
import {
  declarePaymentIdentifierExtension,
  PAYMENT_IDENTIFIER,
  validatePaymentIdentifierRequirement,
} from "@x402/extensions/payment-identifier";
import express from "express";
import { listen } from "../listen.mjs";
import { serveRoutes } from "./express-routes.mjs";
import { paidRoutes, permit2Answer, permit2Routes, resourceServer } from "./offers.mjs";

export function startExpressV2({ facilitator, payTo, seller }) {
  const throughPermit2 = permit2Routes(payTo);
  const paid = { ...paidRoutes(payTo), ...throughPermit2 };
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
  for (const path of Object.keys(throughPermit2).map((route) => route.split(" ")[1])) {
    app.get(path, (req, res) => {
      const { answer, charge } = permit2Answer(seller, path, req.query);
      if (charge) setSettlementOverrides(res, charge);
      res.json(answer);
    });
  }

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
