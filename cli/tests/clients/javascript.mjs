// A program with the official JavaScript SDK of OpenAI, which knows nothing of payments.
//
// BURSAR_PROXY is the URL of the proxy, and BURSAR_TOKEN the token. The test of bursar checks the ledger and the seller.

import assert from "node:assert/strict";
import OpenAI from "openai";

const proxy = process.env.BURSAR_PROXY;
const messages = [{ role: "user", content: "Say hello." }];
const client = (route) => new OpenAI({ baseURL: `${proxy}${route}`, apiKey: process.env.BURSAR_TOKEN });
const ask = (route, options = {}) => client(route).chat.completions.create({ model: "gpt-test", messages, ...options });

// The models are free.
const models = [];
for await (const model of client("/openai/v1").models.list()) models.push(model.id);
assert.deepEqual(models, ["gpt-test"]);

// A completion, with the payment in the headers of the answer.
const { data, response } = await ask("/openai/v1").withResponse();
assert.equal(data.choices[0].message.content, "Hello from the seller.");
assert.equal(response.headers.get("bursar-payment-status"), "paid");
assert.equal(response.headers.get("bursar-amount"), "0.01 USDC");

// A stream.
const words = [];
for await (const chunk of await ask("/openai/v1", { stream: true })) words.push(chunk.choices[0]?.delta.content ?? "");
assert.ok(words.length > 1);
assert.equal(words.join(""), "Hello from the seller.");

// The target in the path, without a route.
assert.ok((await ask(`/to/${process.env.BURSAR_SELLER.replace("://", "/")}/v1`)).choices);

// A denial is not repeated, and the error has the words of the policy.
await assert.rejects(ask("/openai/dear/v1"), (error) => {
  assert.equal(error.status, 402);
  assert.equal(error.code, "denied");
  assert.equal(error.error.denial.rule, "max_price");
  return true;
});

// An unknown outcome is not repeated by the SDK. The program repeats it, and pays nothing new.
for (let time = 0; time < 2; time += 1) {
  await assert.rejects(ask("/openai/lost/v1"), (error) => {
    assert.equal(error.status, 424);
    assert.equal(error.headers.get("bursar-payment-status"), "maybe_paid");
    return true;
  });
}

// Without a token, there is nothing.
const stranger = new OpenAI({ baseURL: `${proxy}/openai/v1`, apiKey: "sk-another-key" });
await assert.rejects(async () => stranger.models.list(), (error) => error.status === 401 && error.code === "token");

console.log("javascript: ok");
