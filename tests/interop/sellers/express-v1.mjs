// The legacy protocol: offers in the 402's body, payment in X-PAYMENT. One offer a route.
import express from "express";
import { paymentMiddleware } from "x402-express";
import { NETWORK_V1 } from "../chain.mjs";
import { listen } from "../listen.mjs";
import { serveRoutes } from "./express-routes.mjs";

export function startExpressV1({ facilitator, payTo, seller }) {
  const route = (price, description, mimeType) => ({
    price,
    network: NETWORK_V1,
    config: { description, mimeType, maxTimeoutSeconds: 60 },
  });
  const paid = {
    "GET /report": route("$0.01", "A report", "application/json"),
    "POST /echo": route("$0.02", "The request's own body", "application/octet-stream"),
    "GET /stream": route("$0.01", "Three events", "text/event-stream"),
    "GET /fail": route("$0.01", "A handler that fails", "application/json"),
    "GET /dear": route("$2.00", "A dear report", "application/json"),
  };
  const app = express();
  app.use(paymentMiddleware(payTo, paid, { url: facilitator }));
  serveRoutes(app, seller);
  return listen(app);
}
