// A server that speaks the page's part of the API and takes its time: what the real one does too fast to be watched (a
// thought that can be stopped), or seldom (a full queue, a lost connection). It serves the page's own files.
//
// `node mock.mjs [port]` starts it by itself, to work on the page.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";

const PAGE = new URL("../../crates/server/page/", import.meta.url);
const TYPES = { ".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml" };
const CSP = "default-src 'self'";
const THRESHOLD = 0.76;
const BLOCK_TOKENS = 16;

const PROPS = {
  version: "0.0.0-mock",
  model: { id: "mock", name: "MockForCausalLM", parameters: 2_900_000, context_tokens: 1024, weights: "int8", isa: "avx512vnni", threads: 2 },
  adapters: [{ name: "thinking", masked: true, budgets: [96, 128, 192, 256], rank: 16 }],
  switcher: { threshold: THRESHOLD },
  verifier: true,
  default_think: "auto",
  limits: { max_n: 8, max_tokens: 1024, queue: 16 },
  kv: { blocks_total: 512, block_tokens: BLOCK_TOKENS, block_bytes: 20_480 },
};

const THOUGHT =
  "Okay, let me think about this step by step.\nPlan: together Jack Ida.\nNow Ida = 18. Jack = Ida - 16 = 18 - 16 = 2. " +
  "together = Jack + Ida 18 = 2 + 18 = 20.\nLet me go over it once more. Ida = 18. Jack = Ida - 16 = 2. Good, that fits.\n" +
  "So the answer is 20.";
const MARKDOWN =
  "## What it can show\n\nSome **bold**, *italic* and `inline code`:\n\n1. one\n2. two\n   - deeper\n\n```rust\nfn main() {}\n```\n\n" +
  "<img src=x onerror=alert(1)> stays text.";

/** What a stream says, by the question and its index. */
function script(question, index) {
  if (/markdown/i.test(question)) return { thought: "", answer: MARKDOWN, score: 0.9 };
  if (/half of/i.test(question)) return { thought: "", answer: "49", score: 0.9 };
  const answer = index % 4 === 3 ? 18 : 20;
  const thought = THOUGHT.replaceAll("20", String(answer)).split(" ").slice(0, 20 + ((index * 9) % 40)).join(" ");
  return { thought, answer: `**Final answer:** ${answer}`, score: answer === 20 ? 0.97 - index * 0.03 : 0.31 };
}

/**
 * Starts the server on a free port of the loopback.
 * @param {{tokenMs?: number, key?: string | null, port?: number}} [options]
 */
export async function startMock({ tokenMs = 15, key = null, port = 0 } = {}) {
  const state = { tokens: 0, blocks: 3, running: new Map(), requests: [], fail: null };

  async function chat(request, response) {
    const body = JSON.parse(await read(request));
    state.requests.push(body);
    if (state.fail) {
      const { status, error, headers = {} } = state.fail;
      state.fail = null;
      return json(response, status, { error }, headers);
    }
    const id = `chatcmpl-${state.requests.length}`;
    const question = body.messages.at(-1).content;
    const auto = body.edgethink.think === "auto";
    const hard = script(question, 0).thought !== "";
    const thinks = body.edgethink.think === "on" || (auto && hard);
    const decision = auto ? { score: hard ? 0.83 : 0.21, threshold: THRESHOLD, thinks } : null;
    const ended = new Set();
    state.running.set(id, ended);
    let open = true;
    response.on("close", () => (open = false));
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    const send = (choices, more = {}) => response.write(`data: ${JSON.stringify({ id, object: "chat.completion.chunk", created: 1, model: "mock", choices, ...more })}\n\n`);
    const note = (index, edgethink) => send([{ index, delta: {}, finish_reason: null }], { edgethink });
    const began = performance.now();
    await wait(tokenMs * 3);
    const ttft = performance.now() - began;
    if (decision) note(0, { decision });
    const budget = body.edgethink.budget ?? Infinity;
    const streams = Array.from({ length: body.n }, (_, index) => {
      const { thought, answer, score } = script(question, index);
      const tokens = thinks ? thought.match(/\S+\s*|\s+/g) ?? [] : [];
      return { index, tokens, answer: answer.match(/\S+\s*|\s+/g) ?? [], score, at: 0, said: 0, closed: null, done: false };
    });
    response.write(": ping\n\n");
    for (const { index } of streams) send([{ index, delta: { role: "assistant" }, finish_reason: null }]);
    while (open && streams.some((one) => !one.done)) {
      await wait(tokenMs);
      if (!open) break;
      for (const one of streams) step(one);
      state.blocks = 3 + Math.ceil(streams.reduce((sum, one) => sum + one.at + one.said, 0) / BLOCK_TOKENS);
      if (state.cut) {
        state.cut = false;
        return response.destroy();
      }
    }
    state.running.delete(id);
    if (!open) return;
    send([], { usage: usage(streams), edgethink: summary(streams, body, decision, ttft, performance.now() - began) });
    response.end("data: [DONE]\n\n");

    function step(one) {
      const { index } = one;
      if (one.done) return;
      if (one.closed === null && one.tokens.length > 0) {
        const end = ended.has(index) || ended.has(null) ? "caller" : one.at >= budget ? "budget" : one.at >= one.tokens.length ? "model" : null;
        if (end) {
          one.closed = end;
          return note(index, { thought_ended: { index, tokens: one.at, end } });
        }
        const text = one.tokens[one.at++];
        state.tokens += 1;
        return send([{ index, delta: { reasoning_content: text, reasoning: text }, finish_reason: null }]);
      }
      if (one.said < one.answer.length) {
        state.tokens += 1;
        return send([{ index, delta: { content: one.answer[one.said++] }, finish_reason: null }]);
      }
      one.done = true;
      send([{ index, delta: {}, finish_reason: "stop" }]);
      if (body.edgethink.scoring) note(index, { scored: { index, score: one.score } });
    }
  }

  const server = createServer(async (request, response) => {
    const path = new URL(request.url, "http://mock").pathname;
    const ended = /^\/v1\/chat\/completions\/([^/]+)\/end_thought$/.exec(path);
    if (path === "/" || path.startsWith("/page/")) return file(response, path === "/" ? "index.html" : path.slice(6));
    if (key && request.headers.authorization !== `Bearer ${key}`) {
      return json(response, 401, { error: { message: "missing or wrong API key", type: "authentication_error", param: null, code: "invalid_api_key" } });
    }
    if (path === "/props") return json(response, 200, PROPS);
    if (path === "/metrics") return text(response, metrics(state));
    if (path === "/v1/chat/completions") return chat(request, response);
    if (ended) {
      const set = state.running.get(ended[1]);
      if (!set) return json(response, 404, { error: { message: "no such completion", type: "not_found_error", param: null, code: null } });
      set.add(JSON.parse(await read(request)).index);
      return json(response, 200, { ended: 1 });
    }
    json(response, 404, { error: { message: "no such path", type: "not_found_error", param: null, code: null } });
  });
  await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    state,
    close: () => new Promise((resolve) => (server.closeAllConnections(), server.close(resolve))),
  };
}

function usage(streams) {
  const reasoning = streams.reduce((sum, one) => sum + one.at, 0);
  const completion = reasoning + streams.reduce((sum, one) => sum + one.said, 0);
  return { prompt_tokens: 53, completion_tokens: completion, total_tokens: 53 + completion, completion_tokens_details: { reasoning_tokens: reasoning }, prompt_tokens_details: { cached_tokens: 0 } };
}

function summary(streams, body, decision, ttft, total) {
  const groups = [];
  for (const one of streams) {
    const answer = one.answer.join("").replace("**Final answer:** ", "");
    let group = groups.find((other) => other.answer === answer);
    if (!group) groups.push((group = { answer, votes: 0, weight: 0, choices: [] }));
    group.votes += 1;
    group.weight += body.edgethink.vote === "weighted" ? one.score : 1;
    group.choices.push(one.index);
  }
  groups.sort((a, b) => b.weight - a.weight);
  return {
    decision,
    vote: streams.length > 1 ? { winner: groups[0].choices[0], groups } : null,
    choices: streams.map((one) => ({ index: one.index, answer: one.answer.join("").replace("**Final answer:** ", ""), score: body.edgethink.scoring ? one.score : null, reasoning_tokens: one.at, completion_tokens: one.at + one.said, thought_closed: one.closed, budget_forced: one.closed === "budget", finish: "stop" })),
    budget: body.edgethink.budget ? { hard: body.edgethink.budget, thought_tokens: body.edgethink.budget, response_tokens: 64, line: `Use at most ${body.edgethink.budget} tokens.` } : null,
    early_stopped: false,
    adapter: { use: "masked", name: "thinking", shared_tokens: 46 },
    timings: { queue_ms: 0.1, ttft_ms: ttft, prefill_tps: 900, decode_tps: (usage(streams).completion_tokens / total) * 1000, total_ms: total },
    usage: { verifier_tokens: 6 },
    kv: { blocks_used_peak: 24, block_tokens: BLOCK_TOKENS, block_bytes: PROPS.kv.block_bytes },
  };
}

function metrics(state) {
  return `# HELP edgethink_kv_blocks_used blocks in use\n# TYPE edgethink_kv_blocks_used gauge\nedgethink_kv_blocks_used ${state.blocks}\nedgethink_kv_blocks_total 512\nedgethink_tokens_generated_total ${state.tokens}\nedgethink_decisions_total{thinks="true"} 1\n`;
}

async function file(response, name) {
  try {
    const body = await readFile(new URL(name, PAGE));
    response.writeHead(200, { "content-type": TYPES[extname(name)] ?? "application/octet-stream", "content-security-policy": CSP });
    response.end(body);
  } catch {
    response.writeHead(404).end();
  }
}

async function read(request) {
  let body = "";
  for await (const piece of request) body += piece;
  return body;
}

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function json(response, status, body, headers = {}) {
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body));
}

function text(response, body) {
  response.writeHead(200, { "content-type": "text/plain; version=0.0.4" }).end(body);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { url } = await startMock({ tokenMs: 40, port: Number(process.argv[2] ?? 0) });
  console.log(url);
}
