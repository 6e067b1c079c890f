// A seller that lets buyers enter again what they have bought, with the official extension sign-in-with-x.
import { paymentMiddleware, x402ResourceServer } from "@x402/express";
import {
  createSIWxResourceServerExtension,
  declareSIWxExtension,
  InMemorySIWxStorage,
} from "@x402/extensions/sign-in-with-x";
import express from "express";
import { createPublicClient, http } from "viem";
import { NETWORK } from "../chain.mjs";
import { listen } from "../listen.mjs";
import { paidRoutes, resourceServer } from "./offers.mjs";

/** Remembers used nonces too, so that no sign-in is accepted twice. */
class Storage extends InMemorySIWxStorage {
  used = new Set();
  hasUsedNonce(nonce) {
    return this.used.has(nonce);
  }
  recordNonce(nonce) {
    this.used.add(nonce);
  }
}

export async function startSignIn({ facilitator, payTo, rpc, seller }) {
  const app = express();
  // The extension must know the origin, so the server listens first.
  const origin = await listen(app);
  const events = [];
  const chain = createPublicClient({ transport: http(rpc) });
  const signIn = createSIWxResourceServerExtension({
    origin,
    storage: new Storage(),
    // Contract wallets are asked on the chain.
    verifyOptions: { evmVerifier: (args) => chain.verifyMessage(args) },
    onEvent: (event) => events.push(event),
  });
  const { "GET /report": report } = paidRoutes(payTo);
  const paid = {
    "GET /report": {
      ...report,
      extensions: declareSIWxExtension({ statement: "Sign in to read the report again", expirationSeconds: 300 }),
    },
    "GET /plain": { ...report, extensions: declareSIWxExtension() },
    "GET /me": { accepts: [], description: "Who am I", extensions: declareSIWxExtension({ network: NETWORK }) },
  };
  const server = resourceServer(x402ResourceServer, facilitator).registerExtension(signIn);
  // Neither is behind the middleware.
  app.get("/free", (_, res) => res.json({ free: true }));
  app.get("/events", (_, res) => res.json(events));
  app.use(paymentMiddleware(paid, server));
  app.get("/report", (_, res) => res.json({ report: "ok", seller }));
  app.get("/plain", (_, res) => res.json({ report: "plain", seller }));
  app.get("/me", (_, res) => res.json({ me: true, seller }));
  return origin;
}
