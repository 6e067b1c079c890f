// The official facilitator code behind a minimal HTTP server, for protocol versions 2 and 1.
import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { ExactEvmScheme } from "@x402/evm/exact/facilitator";
import { ExactEvmSchemeV1 } from "@x402/evm/exact/v1/facilitator";
import { UptoEvmScheme } from "@x402/evm/upto/facilitator";
import { createErc20ApprovalGasSponsoringExtension, EIP2612_GAS_SPONSORING } from "@x402/extensions";
import express from "express";
import { parseTransaction, publicActions, recoverTransactionAddress } from "viem";
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
  /** Sends the buyer's approval, and then the settlement. */
  const sendTransactions = (transactions) =>
    oneAtATime(async () => {
      const hashes = [];
      for (const transaction of transactions) {
        const signedByBuyer = typeof transaction === "string";
        if (signedByBuyer) await payGasOf(wallet, transaction);
        const hash = signedByBuyer
          ? await wallet.sendRawTransaction({ serializedTransaction: transaction })
          : await wallet.sendTransaction(transaction);
        const { status } = await wallet.waitForTransactionReceipt({ hash });
        if (status !== "success") throw new Error(`erc20_approval_tx_failed: ${hash}`);
        hashes.push(hash);
      }
      return hashes;
    });
  const facilitator = new x402Facilitator()
    .register(NETWORK, new ExactEvmScheme(signer))
    .register(NETWORK, new UptoEvmScheme(signer))
    .registerV1(NETWORK_V1, new ExactEvmSchemeV1(signer))
    .registerExtension(EIP2612_GAS_SPONSORING)
    .registerExtension(createErc20ApprovalGasSponsoringExtension({ ...signer, sendTransactions }));

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

/** Gives the sender of a signed transaction the gas that it can cost. */
async function payGasOf(wallet, serializedTransaction) {
  const { gas, maxFeePerGas } = parseTransaction(serializedTransaction);
  const sender = await recoverTransactionAddress({ serializedTransaction });
  const missing = gas * maxFeePerGas - (await wallet.getBalance({ address: sender }));
  if (missing > 0n) {
    const hash = await wallet.sendTransaction({ to: sender, value: missing });
    await wallet.waitForTransactionReceipt({ hash });
  }
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
