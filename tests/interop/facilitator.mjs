// The official facilitator code behind a minimal HTTP server, for protocol versions 2 and 1.
import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { ExactEvmScheme } from "@x402/evm/exact/facilitator";
import { ExactEvmSchemeV1 } from "@x402/evm/exact/v1/facilitator";
import { UptoEvmScheme } from "@x402/evm/upto/facilitator";
import express from "express";
import { publicActions } from "viem";
import { FACILITATOR } from "./accounts.mjs";
import { serveBazaar } from "./bazaar.mjs";
import { clients, NETWORK, NETWORK_V1 } from "./chain.mjs";
import { listen } from "./listen.mjs";

/** Resolves with the facilitator's address. */
export async function startFacilitator(rpc) {
  const wallet = clients(rpc).writer.extend(publicActions);
  const oneAtATime = queue();
  const signer = toFacilitatorEvmSigner({
    ...wallet,
    address: FACILITATOR.address,
    // One account sends all settlements: two at once would take the same transaction number.
    writeContract: (args) => oneAtATime(() => wallet.writeContract(args)),
    sendTransaction: (args) => oneAtATime(() => wallet.sendTransaction(args)),
  });
  const facilitator = new x402Facilitator()
    .register(NETWORK, new ExactEvmScheme(signer))
    // Offered so that sellers can show `upto` offers. Its contracts are not on this chain, so
    // such a payment is refused.
    .register(NETWORK, new UptoEvmScheme(signer))
    .registerV1(NETWORK_V1, new ExactEvmSchemeV1(signer));

  const app = express();
  app.use(express.json({ limit: "1mb" }));
  app.get("/supported", (_, res) => res.json(facilitator.getSupported()));
  const list = serveBazaar(app);
  for (const action of ["verify", "settle"]) {
    app.post(`/${action}`, async (req, res) => {
      const { paymentPayload, paymentRequirements } = req.body;
      try {
        const result = await facilitator[action](paymentPayload, paymentRequirements);
        console.error(`[facilitator] ${action} ${JSON.stringify(result)}`);
        if (action === "settle" && result.success) list(paymentPayload, paymentRequirements);
        res.json(result);
      } catch (error) {
        console.error(`[facilitator] ${action} failed:`, error);
        res.status(500).json({ error: error.message });
      }
    });
  }
  return listen(app);
}

/** Runs asynchronous jobs one after the other, whatever becomes of each. */
function queue() {
  let last = Promise.resolve();
  return (job) => {
    const result = last.then(job);
    last = result.catch(() => {});
    return result;
  };
}
