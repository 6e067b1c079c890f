// A server with Cloudflare's paid tools (`withX402` of the package `agents`), over streamable HTTP in Node.
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { withX402 } from "agents/x402";
import express from "express";
import { z } from "zod";

/** Starts the server. Returns its URL and a function that ends it. */
export async function startCloudflare({ facilitator, payTo }) {
  const app = express();
  app.use(express.json());
  app.post("/mcp", async (request, response) => {
    // A server for each request, as a stateless Worker has it.
    const plain = new McpServer({ name: "cloudflare", version: "1.0.0" });
    const config = { network: "base-sepolia", recipient: payTo, facilitator: { url: facilitator } };
    const server = withX402(plain, config);
    const number = { n: z.number() };
    server.paidTool("square", "Squares a number", 0.02, number, { readOnlyHint: true }, async ({ n }) => ({
      content: [{ type: "text", text: String(n * n) }],
    }));
    server.registerTool("echo", { description: "Repeats a text", inputSchema: { text: z.string() } }, ({ text }) => ({
      content: [{ type: "text", text }],
    }));
    const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
    response.on("close", () => {
      transport.close();
      plain.close();
    });
    await plain.connect(transport);
    await transport.handleRequest(request, response, request.body);
  });
  app.all("/mcp", (_, response) => response.status(405).end());
  const listener = await new Promise((resolve) => {
    const listener = app.listen(0, "127.0.0.1", () => resolve(listener));
  });
  const stop = () => {
    listener.closeAllConnections();
    listener.close();
  };
  return { url: `http://127.0.0.1:${listener.address().port}/mcp`, stop };
}
