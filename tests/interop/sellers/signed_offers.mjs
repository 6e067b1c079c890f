// A seller that signs its offers and its receipts, with the official extension offer-receipt.
import { paymentMiddleware, x402ResourceServer } from "@x402/express";
import {
  createEIP712OfferReceiptIssuer,
  createJWSOfferReceiptIssuer,
  createOfferReceiptExtension,
  declareOfferReceiptExtension,
} from "@x402/extensions/offer-receipt";
import express from "express";
import { hexToBytes, sha256, toHex } from "viem";
import { sign } from "viem/accounts";
import { listen } from "../listen.mjs";
import { paidRoutes, resourceServer } from "./offers.mjs";

/** Signs as the payee: EIP-712, or a JWS whose key would have to be fetched. */
function issuer(format, payee) {
  if (format === "eip712") {
    const signTypedData = (data) => payee.signTypedData(data);
    return createEIP712OfferReceiptIssuer(`did:pkh:eip155:1:${payee.address}`, signTypedData);
  }
  const kid = "did:web:api.example.com#key-1";
  const privateKey = toHex(payee.getHdKey().privateKey);
  return createJWSOfferReceiptIssuer(kid, {
    kid,
    format,
    algorithm: "ES256K",
    sign: async (bytes) => {
      const { r, s } = await sign({ hash: sha256(bytes), privateKey });
      const word = (number) => hexToBytes(number, { size: 32 });
      return Buffer.concat([word(r), word(s)]).toString("base64url");
    },
  });
}

export async function startSignedOffers({ facilitator, payee, format }) {
  const app = express();
  const server = resourceServer(x402ResourceServer, facilitator);
  server.registerExtension(createOfferReceiptExtension(issuer(format, payee)));
  const { "GET /report": report, "GET /several": several } = paidRoutes(payee.address);
  const signed = (route, includeTxHash) => ({
    ...route,
    extensions: declareOfferReceiptExtension({ includeTxHash }),
  });
  app.get("/free", (_, res) => res.json({ free: true }));
  app.use(
    paymentMiddleware(
      { "GET /report": signed(report, true), "GET /several": signed(several, false) },
      server,
    ),
  );
  app.get("/report", (_, res) => res.json({ report: "ok" }));
  app.get("/several", (_, res) => res.json({ report: "several" }));
  return listen(app);
}
