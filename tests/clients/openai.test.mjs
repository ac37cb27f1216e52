// The official openai client for JavaScript.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import OpenAI from "openai";

const HARD = "Olga lost 9 keys. Jack has 16 fewer than Ida. Ida has 18 cups. Tina has 13 old cats. How many cups do Jack and Ida have together?";
const EASY = "Tell me half of 98.";
const client = new OpenAI({ baseURL: `${process.env.EDGETHINK_URL}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: HARD }];
let model;

before(async () => {
  model = (await client.models.list()).data[0].id;
});

test("chat", async () => {
  const reply = await client.chat.completions.create({ model, messages, temperature: 0, edgethink: { think: "auto" } });
  assert.match(reply.choices[0].message.content, /20/);
  assert.match(reply.choices[0].message.reasoning_content, /Jack/);
  assert.equal(reply.edgethink.decision.thinks, true);
  assert.ok(reply.usage.completion_tokens_details.reasoning_tokens > 0);
});

test("stream, and the helper that gathers it", async () => {
  const stream = client.chat.completions.stream({ model, messages, temperature: 0 });
  let text = "";
  stream.on("content", (delta) => (text += delta));
  const final = await stream.finalChatCompletion();
  assert.match(text, /20/);
  assert.equal(final.choices[0].message.content, text);
  assert.equal(final.choices[0].finish_reason, "stop");
});

test("n = 4 in one stream", async () => {
  const texts = ["", "", "", ""];
  let summary;
  const stream = await client.chat.completions.create({ model, messages, n: 4, temperature: 0.8, seed: 3, stream: true, edgethink: { think: "on", vote: "majority" } });
  for await (const chunk of stream) {
    for (const choice of chunk.choices) texts[choice.index] += choice.delta.content ?? "";
    summary = chunk.edgethink ?? summary;
  }
  const winner = texts[summary.vote.winner];
  assert.ok(winner.includes(summary.vote.groups[0].answer));
});

test("an aborted stream ends", async () => {
  const stream = await client.chat.completions.create({ model, messages, n: 8, stream: true, temperature: 0.8, edgethink: { think: "on", min_think: 400 } });
  for await (const chunk of stream) {
    if (chunk.choices[0]?.delta.reasoning_content) stream.controller.abort();
  }
  assert.ok(stream.controller.signal.aborted);
});

test("tools", async () => {
  const tools = [{ type: "function", function: { name: "count", parameters: { type: "object", properties: { person: { type: "string" } }, required: ["person"] } } }];
  const reply = await client.chat.completions.create({ model, messages: [{ role: "user", content: EASY }], temperature: 0, tools });
  assert.ok(reply.choices[0].message.content || reply.choices[0].message.tool_calls);
});

test("json_schema", async () => {
  const schema = { type: "object", properties: { answer: { type: "integer" } }, required: ["answer"], additionalProperties: false };
  const reply = await client.chat.completions.create({ model, messages, temperature: 0, response_format: { type: "json_schema", json_schema: { name: "answer", strict: true, schema } } });
  assert.equal(typeof JSON.parse(reply.choices[0].message.content).answer, "number");
});

test("responses", async () => {
  const reply = await client.responses.create({ model, input: HARD, temperature: 0 });
  assert.match(reply.output_text, /20/);
  let streamed = "";
  for await (const event of await client.responses.create({ model, input: HARD, temperature: 0, stream: true })) {
    if (event.type === "response.output_text.delta") streamed += event.delta;
  }
  assert.equal(streamed, reply.output_text);
});

test("a mistake names the field", async () => {
  await assert.rejects(client.chat.completions.create({ model, messages, n: 0 }), (error) => error.status === 400 && error.param === "n");
});
