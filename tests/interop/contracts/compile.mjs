// Compiles the stand-ins for x402's Permit2 proxies, which takes a few seconds, and checks them against the published ABI.
//
//   node contracts/compile.mjs FILE
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import { x402ExactPermit2ProxyABI, x402UptoPermit2ProxyABI } from "@x402/evm";
import { formatAbiItem } from "viem/utils";

const PUBLISHED = {
  x402ExactPermit2Proxy: x402ExactPermit2ProxyABI,
  x402UptoPermit2Proxy: x402UptoPermit2ProxyABI,
};
const SOURCE = "Permit2Proxies.sol";

const solc = createRequire(import.meta.url)("solc");
const input = {
  language: "Solidity",
  sources: { [SOURCE]: { content: readFileSync(new URL(SOURCE, import.meta.url), "utf8") } },
  settings: {
    evmVersion: "cancun",
    optimizer: { enabled: true },
    outputSelection: { "*": { "*": ["abi", "evm.deployedBytecode.object"] } },
  },
};
const { contracts, errors = [] } = JSON.parse(solc.compile(JSON.stringify(input)));
if (errors.length > 0) throw new Error(errors.map((error) => error.formattedMessage).join("\n"));

/** What a caller sees of a contract: its functions, events and errors. */
function face(abi) {
  const seen = abi.filter((item) => item.type !== "constructor");
  return seen.map((item) => `${item.type} ${formatAbiItem(item)}`).sort().join("\n");
}

const compiled = Object.entries(PUBLISHED).map(([name, published]) => {
  const { abi, evm } = contracts[SOURCE][name];
  if (face(abi) !== face(published)) {
    throw new Error(`${name} is\n${face(abi)}\nbut its published ABI is\n${face(published)}`);
  }
  return [name, `0x${evm.deployedBytecode.object}`];
});
writeFileSync(process.argv[2], JSON.stringify(Object.fromEntries(compiled)));
