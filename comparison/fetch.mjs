// @x402/fetch as it comes, for the comparison: fetch.mjs URL TRIES. Its packages are those of tests/interop.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(new URL("../tests/interop/package.json", import.meta.url));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { wrapFetchWithPaymentFromConfig } = await load("@x402/fetch");
const { ExactEvmScheme } = await load("@x402/evm");
const { privateKeyToAccount } = await load("viem/accounts");

const [url, tries] = process.argv.slice(2);
const pay = wrapFetchWithPaymentFromConfig(fetch, {
  schemes: [{ network: "eip155:84532", client: new ExactEvmScheme(privateKeyToAccount(process.env.BUYER_KEY)) }],
});
for (let n = 0; n < Number(tries); n++) {
  try {
    const response = await pay(url);
    if (response.ok) break;
    console.error("status", response.status);
  } catch (error) {
    console.error(String(error));
  }
}
process.exit(0);
