// A local x402 world: chain, facilitator and official sellers, all on loopback.
//
//   node world.mjs [FILE]
//
// Writes one JSON line (to standard output, and to FILE if named) when everything answers; logs
// go to standard error. Lives until its standard input closes, a signal, or fifteen minutes.
import { renameSync, writeFileSync } from "node:fs";
import { PAYEE, SIGNING_PAYEE } from "./accounts.mjs";
import { CHAIN_ID, startChain, USDC } from "./chain.mjs";
import { startFacilitator } from "./facilitator.mjs";
import { stopAll } from "./processes.mjs";
import { startExpressV1 } from "./sellers/express-v1.mjs";
import { startExpressV2 } from "./sellers/express-v2.mjs";
import { startHono } from "./sellers/hono.mjs";
import { startPython } from "./sellers/python.mjs";
import { startSignIn } from "./sellers/sign_in.mjs";
import { startSignedOffers } from "./sellers/signed_offers.mjs";

const LIFETIME_MS = 15 * 60 * 1000;

// How each seller is started, and how it shows that it is ready.
const SELLERS = {
  "express-v2": [startExpressV2, answersHttp],
  "express-v1": [startExpressV1, answersHttp],
  hono: [startHono, answersHttp],
  fastapi: [(config) => startPython("fastapi_app.py", config), answersHttp],
  flask: [(config) => startPython("flask_app.py", config), answersHttp],
  mcp: [(config) => startPython("mcp_app.py", config), answersMcp],
};

let ending = false;
async function end(code, reason) {
  if (ending) return;
  ending = true;
  console.error(`[world] ends: ${reason}`);
  await stopAll();
  process.exit(code);
}

for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"]) process.on(signal, () => end(0, signal));
process.stdin.resume().on("close", () => end(0, "standard input closed"));
setTimeout(() => end(1, "fifteen minutes are over"), LIFETIME_MS);

try {
  const world = await start();
  const line = `${JSON.stringify(world)}\n`;
  const file = process.argv[2];
  if (file) {
    // Renamed into place, so that nobody reads half a file.
    writeFileSync(`${file}.new`, line);
    renameSync(`${file}.new`, file);
  }
  process.stdout.write(line);
} catch (error) {
  await end(1, error.stack);
}

async function start() {
  const onExit = (error) => end(1, error.message);
  const rpc = await startChain(onExit);
  const facilitator = await startFacilitator(rpc);
  // It has routes of its own, so it is not among the sellers.
  const signIn = { payTo: PAYEE["sign-in"] };
  signIn.url = await startSignIn({ seller: "sign-in", payTo: signIn.payTo, facilitator, rpc });
  await answersHttp(signIn.url);
  // They have routes of their own, so they are not among the sellers.
  const signedOffers = {};
  for (const format of ["eip712", "jws"]) {
    const url = await startSignedOffers({ facilitator, payee: SIGNING_PAYEE, format });
    await answersHttp(url);
    signedOffers[format] = { url, payTo: SIGNING_PAYEE.address };
  }
  const entries = Object.entries(SELLERS).map(async ([seller, [startSeller, isReady]]) => {
    const payTo = PAYEE[seller];
    const url = await startSeller({ seller, payTo, facilitator, onExit });
    await isReady(url);
    return [seller, { url, payTo }];
  });
  const sellers = Object.fromEntries(await Promise.all(entries));
  return { rpc, chainId: CHAIN_ID, usdc: USDC, facilitator, sellers, signIn, signedOffers };
}

async function answersHttp(url) {
  await expect(200, `${url}/free`);
  // The first paid request makes a seller ask its facilitator what it supports.
  await expect(402, `${url}/report`);
}

async function answersMcp(url) {
  const list = { jsonrpc: "2.0", id: 1, method: "tools/list" };
  await expect(200, url, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json, text/event-stream" },
    body: JSON.stringify(list),
  });
}

async function expect(status, url, init) {
  const response = await fetch(url, init);
  await response.arrayBuffer();
  if (response.status !== status) throw new Error(`${url} answered ${response.status}, not ${status}`);
}
