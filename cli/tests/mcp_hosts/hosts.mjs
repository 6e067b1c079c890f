// Buys from two kinds of paid MCP servers through `bursar mcp proxy`, with two official clients.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { startCloudflare } from "./cloudflare.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const bursar = process.env.BURSAR;
const world = JSON.parse(readFileSync(process.env.BURSAR_INTEROP_WORLD, "utf8"));
// Account 1 of Anvil's published mnemonic, which holds USDC in the world.
const key = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
const payTo = world.sellers.mcp.payTo;
const token = "the-token-of-the-test-of-the-hosts";

const directory = mkdtempSync(join(tmpdir(), "bursar-hosts-"));
const cloudflare = await startCloudflare({ facilitator: world.facilitator, payTo });
const policy = join(directory, "policy.toml");
writeFileSync(
  policy,
  `version = 1
networks = ["base-sepolia"]
[global]
ask_above = "0.015 USD"
[[mcp_server]]
name = "python"
url = "${world.sellers.mcp.url}"
[[mcp_server]]
name = "cloudflare"
url = "${cloudflare.url}"
`,
);
const proxy = ["mcp", "proxy", "--policy", policy, "--ledger", join(directory, "ledger.db")];

try {
  await typescript();
  await python();
  console.log("both hosts bought from both servers");
} finally {
  cloudflare.stop();
  rmSync(directory, { recursive: true });
}

/** Returns the payment of a result, after a look at the last text and at the chain. */
async function paid(result) {
  assert.equal(result.isError ?? false, false, JSON.stringify(result));
  const payment = result._meta["bursar/payment"];
  assert.equal(payment.payment, "paid", JSON.stringify(result));
  assert.deepEqual(JSON.parse(result.content.at(-1).text), payment);
  const body = {
    jsonrpc: "2.0",
    id: 1,
    method: "eth_getTransactionReceipt",
    params: [payment.receipt.transaction],
  };
  const answer = await fetch(world.rpc, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  assert.equal((await answer.json()).result.status, "0x1", "the chain settled the payment");
  return payment;
}

function priced(tools) {
  assert.match(tools.cloudflare__square, /^Price: 0\.02 USD \(listed\); bursar pays it/);
  assert.match(tools.cloudflare__square, /Squares a number$/);
  assert.match(tools.python__report, /^Price: /);
}

/** The TypeScript client, over standard input and output. Its user approves a payment, and then refuses one. */
async function typescript() {
  const client = new Client({ name: "host", version: "1.0.0" }, { capabilities: { elicitation: {} } });
  const asked = [];
  let approve = true;
  client.setRequestHandler(ElicitRequestSchema, ({ params }) => {
    asked.push(params.message);
    return { action: "accept", content: { approve } };
  });
  const transport = new StdioClientTransport({
    command: bursar,
    args: proxy,
    env: { BURSAR_PRIVATE_KEY: key },
  });
  await client.connect(transport);
  const { tools } = await client.listTools();
  priced(Object.fromEntries(tools.map((tool) => [tool.name, tool.description])));

  const report = await client.callTool({ name: "python__report", arguments: { topic: "from TypeScript" } });
  assert.equal((await paid(report)).price, "0.01 USDC");
  assert.equal(JSON.parse(report.content[0].text).topic, "from TypeScript");
  assert.equal(asked.length, 0);

  const square = await client.callTool({ name: "cloudflare__square", arguments: { n: 7 } });
  assert.equal((await paid(square)).price, "0.02 USDC");
  assert.equal(square.content[0].text, "49");
  assert.equal(asked.length, 1);
  assert.match(asked[0], /^Pay 0\.02 USDC to /);

  approve = false;
  const refused = await client.callTool({ name: "cloudflare__square", arguments: { n: 8 } });
  assert.equal(refused.isError, true);
  assert.equal(refused._meta["bursar/payment"].error.denial.rule, "approval");

  const echo = await client.callTool({ name: "cloudflare__echo", arguments: { text: "hello" } });
  assert.deepEqual(echo.content, [{ type: "text", text: "hello" }]);
  assert.equal(echo._meta["bursar/payment"].payment, "not_paid");
  await client.close();
}

/** The Python client, over streamable HTTP. */
async function python() {
  const server = spawn(bursar, [...proxy, "--http", "127.0.0.1:0"], {
    env: { BURSAR_PRIVATE_KEY: key, BURSAR_MCP_TOKEN: token },
    stdio: ["ignore", "ignore", "pipe"],
  });
  try {
    const url = await new Promise((resolve, reject) => {
      createInterface({ input: server.stderr }).on("line", (line) => {
        const found = /serving (\S+);/.exec(line);
        if (found) resolve(found[1]);
        else console.error(line);
      });
      server.on("exit", () => reject(new Error("the proxy ended")));
    });
    const interpreter = join(here, "../../../tests/interop/.venv/bin/python");
    const env = { URL: url, TOKEN: token, PATH: process.env.PATH };
    const { stdout } = await promisify(execFile)(interpreter, [join(here, "host.py")], { env });
    const told = JSON.parse(stdout);
    priced(told.tools);
    assert.equal((await paid(told.results.python__report)).price, "0.01 USDC");
    assert.equal((await paid(told.results.cloudflare__square)).price, "0.02 USDC");
    assert.equal(told.results.cloudflare__square.content[0].text, "144");
    assert.equal(told.results.cloudflare__echo.content[0].text, "hello");
    assert.equal(told.asked.length, 1);
  } finally {
    server.kill("SIGTERM");
  }
}
