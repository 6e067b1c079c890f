// Who is who. Everyone comes from Anvil's well-known test mnemonic, so that tests can name keys
// without passing any around. Nothing here is worth a cent anywhere else.
import { mnemonicToAccount } from "viem/accounts";

const MNEMONIC = "test test test test test test test test test test test junk";

export const account = (index) => mnemonicToAccount(MNEMONIC, { addressIndex: index });

/** Pays the gas of every settlement; also deployed and owns the token. */
export const FACILITATOR = account(0);

/** Each holds USDC when the world is ready. */
export const BUYERS = [1, 2, 3, 4, 5, 12].map(account);

/** One payee per seller, so that a balance tells which seller was paid. */
export const PAYEE = {
  "express-v2": account(6).address,
  "express-v1": account(7).address,
  hono: account(8).address,
  fastapi: account(9).address,
  flask: account(10).address,
  mcp: account(11).address,
  "sign-in": account(13).address,
};

/** Signs its offers and its receipts. */
export const SIGNING_PAYEE = account(14);

/** The token proxy's admin: it may not call the token, so it is nobody who plays another part. */
export const PROXY_ADMIN = account(19);
