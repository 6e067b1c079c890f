// Proves that the world works: the official clients buy from every seller, and the chain agrees.
//
//   tests/interop/run node tests/interop/smoke.mjs
import { readFileSync } from "node:fs";
import { PERMIT2_ADDRESS } from "@x402/evm";
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { UptoEvmScheme } from "@x402/evm/upto/client";
import { decodePaymentRequiredHeader } from "@x402/core/http";
import { decodePaymentResponseHeader, wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { erc20Abi, formatUnits, maxUint256, toHex } from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { decodeXPaymentResponse, wrapFetchWithPayment as wrapFetchWithPaymentV1 } from "x402-fetch";
import { BUYERS } from "./accounts.mjs";
import { clients, NETWORK, USDC, usdcBalance } from "./chain.mjs";

const world = JSON.parse(readFileSync(process.env.BURSAR_INTEROP_WORLD, "utf8"));
const { reader, writer } = clients(world.rpc);
const buyer = BUYERS[0];

const chain = { rpcUrl: world.rpc };
const clientOf = (account) =>
  new x402Client()
    .register(NETWORK, new ExactEvmScheme(account, chain))
    .register(NETWORK, new UptoEvmScheme(account, chain));
const client = clientOf(buyer);
const protocol2 = (payer) => ({
  fetch: wrapFetchWithPayment(fetch, payer),
  receipt: (response) => decodePaymentResponseHeader(response.headers.get("payment-response")),
});
const v2 = protocol2(client);
const v1 = {
  fetch: wrapFetchWithPaymentV1(fetch, buyer),
  receipt: (response) => decodeXPaymentResponse(response.headers.get("x-payment-response")),
};

let failures = 0;

/** Runs a purchase, which resolves with its receipt, and compares what moved on chain. */
async function buy(seller, what, price, purchase, payer = buyer) {
  const { payTo } = world.sellers[seller];
  const balances = () => Promise.all([payer.address, payTo].map((who) => usdcBalance(reader, who)));
  const before = await balances();
  let problem;
  try {
    const receipt = await purchase();
    if (!receipt.success) problem = `receipt says ${JSON.stringify(receipt)}`;
  } catch (error) {
    problem = error.message;
  }
  const after = await balances();
  const [spent, earned] = [before[0] - after[0], after[1] - before[1]];
  if (spent !== price || earned !== price) problem ??= `the price is ${price}`;
  if (problem) failures += 1;
  const usd = (units) => formatUnits(units, 6);
  console.log(
    `${problem ? "FAIL" : "ok  "} ${seller.padEnd(10)} ${what.padEnd(27)}` +
      ` buyer -${usd(spent)}  seller +${usd(earned)}${problem ? `  ${problem}` : ""}`,
  );
}

function assert(condition, message) {
  if (!condition) throw new Error(message);
}

async function buyReport(seller, protocol) {
  const response = await protocol.fetch(`${world.sellers[seller].url}/report`);
  assert(response.status === 200, `status ${response.status}`);
  assert((await response.json()).seller === seller, "not the seller's report");
  return protocol.receipt(response);
}

async function buyEcho(seller, protocol) {
  // Every byte value, so that nothing on the way can take it for text.
  const body = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  const type = "application/x-bytes";
  const response = await protocol.fetch(`${world.sellers[seller].url}/echo`, {
    method: "POST",
    body,
    headers: { "content-type": type },
  });
  assert(response.status === 200, `status ${response.status}`);
  assert(response.headers.get("content-type") === type, "another content type came back");
  assert(Buffer.from(await response.arrayBuffer()).equals(body), "other bytes came back");
  return protocol.receipt(response);
}

/** The official MCP clients bring their own transports; the protocol is small enough by hand. */
async function buyMcpReport() {
  const call = async (_meta) => {
    const params = { name: "report", arguments: { topic: "smoke" }, _meta };
    const response = await fetch(world.sellers.mcp.url, {
      method: "POST",
      headers: { "content-type": "application/json", accept: "application/json, text/event-stream" },
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params }),
    });
    const event = (await response.text()).match(/^data: (.*)$/m)[1];
    return JSON.parse(event).result;
  };
  const unpaid = await call();
  assert(unpaid.isError, "the tool is free");
  const paid = await call({ "x402/payment": await client.createPaymentPayload(unpaid.structuredContent) });
  assert(!paid.isError, paid.content[0].text);
  assert(JSON.parse(paid.content[0].text).topic === "smoke", "not the report asked for");
  return paid._meta["x402/payment-response"];
}

/** Buys a route that is paid through Permit2. */
async function buyByPermit(seller, path, charged, protocol = v2) {
  const response = await protocol.fetch(`${world.sellers[seller].url}${path}`);
  assert(response.status === 200, `status ${response.status}: ${refusal(response)}`);
  const { report } = await response.json();
  assert(path.slice(1).split("?")[0] === report, "not the report of the route");
  const receipt = protocol.receipt(response);
  const amount = report.startsWith("upto") ? `${charged}` : undefined;
  assert(receipt.amount === amount, `the receipt says ${receipt.amount}`);
  assert((receipt.transaction === "") === (charged === 0n), `the transaction is ${receipt.transaction}`);
  return receipt;
}

const refusal = (response) => {
  const terms = response.headers.get("payment-required");
  return terms && decodePaymentRequiredHeader(terms).error;
};

/** Without an allowance, the seller answers 412. The receipt is made up, because there is none. */
async function isRefused(seller, path) {
  const response = await v2.fetch(`${world.sellers[seller].url}${path}`);
  assert(response.status === 412, `status ${response.status}`);
  assert(refusal(response) === "permit2_allowance_required", refusal(response));
  return { success: true };
}

async function approve(amount) {
  const args = [PERMIT2_ADDRESS, amount];
  const hash = await writer.writeContract({ account: buyer, address: USDC, abi: erc20Abi, functionName: "approve", args });
  await reader.waitForTransactionReceipt({ hash });
}

for (const seller of ["express-v2", "hono"]) {
  await approve(0n);
  for (const path of ["/permit2", "/upto"]) await buy(seller, path, 0n, () => isRefused(seller, path));
  // Each sponsored route makes the approval that it needs.
  for (const [path, price] of [
    ["/permit2-sponsored", 10_000n],
    ["/upto-sponsored", 20_000n],
    ["/permit2-approved", 10_000n],
    ["/upto-approved", 20_000n],
  ]) {
    await approve(0n);
    await buy(seller, path, price, () => buyByPermit(seller, path, price));
  }
  // A wallet that has never had gas.
  for (const [path, price] of [
    ["/permit2-sponsored", 10_000n],
    ["/upto-approved", 20_000n],
  ]) {
    const stranger = privateKeyToAccount(generatePrivateKey());
    await reader.request({ method: "anvil_dealERC20", params: [stranger.address, USDC, toHex(100_000n)] });
    const protocol = protocol2(clientOf(stranger));
    await buy(seller, `${path} (no gas)`, price, () => buyByPermit(seller, path, price, protocol), stranger);
  }
  await approve(maxUint256);
  for (const [path, price] of [
    ["/permit2", 10_000n],
    ["/upto", 20_000n],
    ["/upto?charge=50000", 50_000n],
    ["/upto?charge=1", 1n],
    ["/upto?charge=0", 0n],
  ]) {
    await buy(seller, path, price, () => buyByPermit(seller, path, price));
  }
}

for (const seller of Object.keys(world.sellers)) {
  if (seller === "mcp") {
    await buy(seller, "tool report", 10_000n, buyMcpReport);
  } else {
    const protocol = seller === "express-v1" ? v1 : v2;
    await buy(seller, "GET /report", 10_000n, () => buyReport(seller, protocol));
    await buy(seller, "POST /echo", 20_000n, () => buyEcho(seller, protocol));
  }
}
process.exit(failures ? 1 : 0);
