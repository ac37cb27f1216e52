// The page's modules one by one, in the browser that runs them.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch } from "./browser.mjs";
import { open } from "./harness.mjs";
import { startMock } from "./mock.mjs";

let browser, mock, page, close;

before(async () => {
  [browser, mock] = await Promise.all([launch(), startMock()]);
  ({ page, close } = await open(browser, mock.url));
});

after(async () => {
  await close();
  await browser.close();
  await mock.close();
});

const markdown = (text) =>
  page.evaluate(async (source) => {
    const { render } = await import("/page/markdown.js");
    const box = document.createElement("div");
    box.append(render(source));
    return box.innerHTML;
  }, text);

test("markdown: blocks", async () => {
  assert.equal(await markdown("# One\n\ntwo\nthree"), "<h3>One</h3><p>two\nthree</p>");
  assert.equal(await markdown("- a\n- b\n  - c\n- d"), "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>");
  assert.equal(await markdown("3. a\n4. b"), '<ol start="3"><li>a</li><li>b</li></ol>');
  assert.equal(await markdown("---"), "<hr>");
  assert.match(await markdown("```js\nlet a = `b`;\n\n<i>\n```\nend"), /aria-label="Code, js"><code>let a = `b`;\n\n&lt;i&gt;<\/code><\/pre><p>end<\/p>/);
  assert.match(await markdown("```\nnot closed yet"), /<code>not closed yet<\/code>/);
});

test("markdown: inside a line", async () => {
  assert.equal(await markdown("**Final answer:** 20"), "<p><strong>Final answer:</strong> 20</p>");
  assert.equal(await markdown("*a* and `**b**`"), "<p><em>a</em> and <code>**b**</code></p>");
  assert.equal(await markdown("2 * 3 * 4 = 24, snake_case_name"), "<p>2 * 3 * 4 = 24, snake_case_name</p>");
  assert.equal(await markdown("**bold with *italic***"), "<p><strong>bold with <em>italic</em></strong></p>");
});

test("markdown: no string becomes markup", async () => {
  for (const attack of ["<img src=x onerror=alert(1)>", "[a](javascript:alert(1))", "**<script>alert(1)</script>**", "`<b>`", "# <svg/onload=1>"]) {
    assert.doesNotMatch(await markdown(attack), /<(img|script|svg|a|b)[\s>]/, attack);
  }
});

test("markdown: hostile text ends soon", async () => {
  const began = Date.now();
  for (const unit of ["*", "_", "`", "**a", "- ", "  - a\n", "#", "*a_", "\n"]) await markdown(unit.repeat(8000));
  assert.ok(Date.now() - began < 5000);
});

test("event stream: pieces cut anywhere", async () => {
  const text = ': ping\r\n\r\ndata: {"a":1}\r\n\r\ndata: zwei\ndata:Zeilen ü\n\nid: 7\ndata: [DONE]\n\ndata: no end';
  const found = await page.evaluate(async (source) => {
    const { events } = await import("/page/stream.js");
    const bytes = new TextEncoder().encode(source);
    const all = [];
    for (let size = 1; size <= bytes.length; size += 1) {
      const body = new ReadableStream({
        start(controller) {
          for (let from = 0; from < bytes.length; from += size) controller.enqueue(bytes.slice(from, from + size));
          controller.close();
        },
      });
      const one = [];
      for await (const data of events(body)) one.push(data);
      all.push(JSON.stringify(one));
    }
    return [...new Set(all)];
  }, text);
  assert.deepEqual(found, [JSON.stringify(['{"a":1}', "zwei\nZeilen ü", "[DONE]"])]);
});

test("settings become a request without empty keys", async () => {
  const bodies = await page.evaluate(async () => {
    const { defaults, request } = await import("/page/settings.js");
    const props = { model: { id: "m" }, verifier: true, default_think: "auto" };
    const of = (changed) => request({ ...defaults(props), ...changed }, props, [{ role: "user", content: "q" }]);
    return [of({}), of({ n: 4, budget: 96, seed: 7, system: " s ", earlyStop: "0.95" }), of({ think: "off", budget: 96, n: 2, scoring: "off" })];
  });
  assert.deepEqual(bodies[0], {
    model: "m",
    messages: [{ role: "user", content: "q" }],
    stream: true,
    stream_options: { include_usage: true },
    n: 1,
    temperature: 0.7,
    edgethink: { think: "auto", scoring: "verifier" },
  });
  assert.deepEqual(bodies[1].edgethink, { think: "auto", budget: 96, scoring: "verifier", vote: "weighted", early_stop: 0.95 });
  assert.deepEqual(bodies[1].messages[0], { role: "system", content: "s" });
  assert.equal(bodies[1].seed, 7);
  assert.deepEqual(bodies[2].edgethink, { think: "off", vote: "majority", early_stop: "exact" });
});

test("kept settings that this server does not have are left out", async () => {
  const found = await page.evaluate(async () => {
    const { resolve } = await import("/page/settings.js");
    const props = { adapters: [{ name: "a", budgets: [96, 128] }], switcher: null, verifier: false, default_think: "on", limits: { max_n: 4 } };
    return resolve(props, { adapter: "other", think: "auto", scoring: "verifier", budget: 100, n: 8, seed: 3 });
  });
  const { adapter, think, scoring, budget, n, seed } = found;
  assert.deepEqual([adapter, think, scoring, budget, n, seed], [null, "on", "off", 96, 4, 3]);
});

test("a budget snaps to what the adapter was trained with", async () => {
  const places = await page.evaluate(async () => {
    const { budgetStops, nearestStop } = await import("/page/settings.js");
    const stops = budgetStops({ adapters: [{ name: "a", budgets: [256, 96, 128] }] }, null);
    const small = budgetStops({ model: { context_tokens: 1024 }, adapters: [{ name: "a", budgets: [1000, 3000] }] }, null);
    return [stops, nearestStop(stops, 100), nearestStop(stops, 4000), nearestStop(stops, null), small];
  });
  assert.deepEqual(places, [[96, 128, 256, null], 0, 2, 3, [128, 256, 512, null]]);
});

test("the vote as it builds", async () => {
  const [answers, groups] = await page.evaluate(async () => {
    const { provisionalAnswer, tally } = await import("/page/vote.js");
    const choice = (index, answer, score, finish = "stop") => ({ index, answer, score, finish });
    return [
      ["**Final answer:** 20", "so \\boxed{7}", "The answer is 3.", "49", "", "a long text without any form of an answer in it"].map(provisionalAnswer),
      tally([choice(0, "20", 0.2), choice(1, "18", 0.9), choice(2, "20", 0.3), choice(3, null, 1), choice(4, "18", 1, "decided")], true),
    ];
  });
  assert.deepEqual(answers, ["20", "7", "3", "49", null, null]);
  assert.deepEqual(groups.map(({ answer, votes, choices }) => [answer, votes, choices]), [["18", 1, [1]], ["20", 2, [0, 2]]]);
});

test("prometheus text", async () => {
  const text = '# TYPE a_total counter\na_total{x="1"} 2\na_total{x="2"} 3.5\na_total_more 9\nb 1e3\n';
  const values = await page.evaluate(async (source) => {
    const { metric } = await import("/page/metrics.js");
    return ["a_total", "b", "c"].map((name) => metric(source, name));
  }, text);
  assert.deepEqual(values, [5.5, 1000, null]);
});

test("a storage that is full keeps the newest turns", async () => {
  const kept = await page.evaluate(async () => {
    const { loadTurns, saveTurns } = await import("/page/store.js");
    const turns = Array.from({ length: 8 }, (_, index) => ({ question: "x".repeat(1_000_000), index, choices: [], status: "done" }));
    saveTurns(turns);
    const found = loadTurns().map((turn) => turn.index);
    localStorage.clear();
    return found;
  });
  assert.ok(kept.length > 0 && kept.length < 8);
  assert.equal(kept.at(-1), 7);
});
