// The page served by `edgethink serve` on the pocket model. run.sh starts it and sets EDGETHINK_URL.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch } from "./browser.mjs";
import { accessible, ask, ended, EASY, EASY_ANSWER, fits, HARD, HARD_ANSWER, open, PHONE, ready, shot, slide } from "./harness.mjs";

const url = process.env.EDGETHINK_URL;
const options = { skip: url ? false : "no EDGETHINK_URL: start it by run.sh" };
let browser;

/** The adapter before budget forcing: its thoughts are five times as long. */
const WORDY = "wordy";

before(async () => {
  if (url) await load(WORDY, "sft");
  browser = await launch();
});

after(() => browser.close());

/** A test with a page of its own. */
function on(name, context, steps) {
  test(name, options, async () => {
    const { page, close } = await open(browser, url, context);
    await ready(page);
    await steps(page);
    await close();
  });
}

/** Loads an adapter below the server's root. */
async function load(name, path) {
  const body = JSON.stringify({ lora_name: name, lora_path: path });
  const reply = await fetch(`${url}/v1/load_lora_adapter`, { method: "POST", headers: { "content-type": "application/json" }, body });
  assert.ok(reply.ok, await reply.text());
}

/** Settings that no control is needed for, as if they had been kept. */
async function keep(page, settings) {
  await page.evaluate((value) => localStorage.setItem("edgethink.settings", JSON.stringify({ version: 1, value })), settings);
  await page.reload();
  await ready(page);
}

/** Many thoughts that run to their budget, whatever the model: its own are over before a slow page has pressed a key. */
const LONG = { think: "on", adapter: WORDY, budget: 800, n: 8, temperature: 1.5, earlyStop: "off" };

/** The page's requests from here on: the model can close no thought, only the budget, or the reader. */
async function endless(page) {
  const reply = await page.request.post(`${url}/tokenize`, { data: { content: "</think>", add_special: false } });
  const { tokens } = await reply.json();
  assert.equal(tokens.length, 1, "the closing tag is one token");
  await page.route("**/v1/chat/completions", (route) => route.continue({ postData: { ...route.request().postDataJSON(), logit_bias: { [tokens[0]]: -100 } } }));
}

const SIX_STEPS =
  "Tom has 14 apples. Anna has 5 more than Tom. Ben has twice as many as Anna. Ida has 3 more than Ben. Leo has 4 fewer than Ida. Mia has twice as many as Leo. Olga has 5 more than Mia. How many apples does Olga have?";

/** Eight streams that all run to their end. */
const VOTED = { think: "on", temperature: 0.8, seed: 5, n: 8, earlyStop: "off" };

/** Presses a key as soon as a thought is seen. A test runner that asks from outside may come when it is over. */
async function pressWhenThinking(page, key) {
  await page.evaluate((init) => {
    new MutationObserver((_, observer) => {
      if (!document.querySelector(".stream.thinking")) return;
      observer.disconnect();
      document.body.dispatchEvent(new KeyboardEvent("keydown", { bubbles: true, cancelable: true, ...init }));
    }).observe(document.body, { subtree: true, attributes: true });
  }, key);
}

on("the page is served with its policy and can be kept", {}, async (page) => {
  const response = await page.request.get(url);
  assert.match(response.headers()["content-security-policy"], /default-src 'self'/);
  const etag = response.headers().etag;
  assert.ok(etag);
  assert.equal((await page.request.get(url, { headers: { "if-none-match": etag } })).status(), 304);
  assert.match((await page.request.get(`${url}/page/main.js`)).headers()["content-type"], /javascript/);
  assert.equal((await page.request.get(`${url}/page/../src/lib.rs`)).status(), 404);
});

on("a hard question gets a thought, an easy one does not", {}, async (page) => {
  await shot(page, "welcome-light");
  await ask(page, HARD);
  let turn = await ended(page);
  assert.match(await turn.locator(".decision").innerText(), /Chose to think/);
  assert.match(await turn.locator(".answer").innerText(), HARD_ANSWER);
  assert.match(await turn.locator(".thought-count").innerText(), /^\d+ tokens$/);
  assert.match(await turn.locator(".thought-end").innerText(), /ended by itself/);
  assert.match(await turn.locator(".figures").innerText(), /tokens\/s · first token .* · all/);
  await ask(page, EASY);
  turn = await ended(page);
  assert.match(await turn.locator(".decision").innerText(), /answer at once/);
  assert.match(await turn.locator(".answer").innerText(), EASY_ANSWER);
  assert.equal(await turn.locator(".thought").isVisible(), false);
  await accessible(page, "a conversation, light");
  await shot(page, "answers-light");
});

on("a thought streams and Esc stops it", {}, async (page) => {
  await keep(page, LONG);
  await endless(page);
  await pressWhenThinking(page, { key: "Escape" });
  await ask(page, HARD);
  const turn = await ended(page);
  assert.match(await turn.locator(".figures").innerText(), /stopped/);
  const running = () => page.request.get(`${url}/metrics`).then(async (reply) => /edgethink_requests_running (\d+)/.exec(await reply.text())?.[1]);
  for (let tries = 0; (await running()) !== "0"; tries += 1) {
    assert.ok(tries < 50, "the server stops computing");
    await page.waitForTimeout(100);
  }
});

on("answer now ends the thoughts that are open", {}, async (page) => {
  await keep(page, LONG);
  await endless(page);
  await pressWhenThinking(page, { key: "a", code: "KeyA", altKey: true });
  await ask(page, HARD);
  const turn = await ended(page);
  const ends = await turn.locator(".stream .thought-end").allTextContents();
  assert.ok(ends.includes("ended by you"), ends.join(", "));
});

on("thinking off, and a budget that holds", {}, async (page) => {
  await page.getByRole("radio", { name: "Off" }).check();
  await ask(page, EASY);
  let turn = await ended(page);
  assert.equal(await turn.locator(".decision").isVisible(), false);
  assert.equal(await turn.locator(".thought").isVisible(), false);
  assert.equal(await page.getByRole("slider", { name: "Budget" }).isDisabled(), true);
  await page.getByRole("button", { name: "New chat" }).click();
  await keep(page, { think: "on", adapter: WORDY, temperature: 0 });
  await slide(page, "Budget", 0);
  assert.match(await page.getByRole("slider", { name: "Budget" }).getAttribute("aria-valuetext"), /^\d+ tokens$/);
  // Six steps take it 400 tokens.
  await ask(page, SIX_STEPS);
  turn = await ended(page);
  assert.match(await turn.locator(".thought-end").innerText(), /ended by the budget/);
});

on("8 streams vote", {}, async (page) => {
  await keep(page, { ...VOTED, n: 1 });
  await slide(page, "Streams", 8);
  await ask(page, HARD);
  const turn = await ended(page);
  assert.equal(await turn.locator(".stream").count(), 8);
  assert.match(await turn.locator(".vote li.won").innerText(), HARD_ANSWER);
  assert.equal(await turn.locator(".stream.won").count(), 1);
  assert.ok((await turn.locator(".score:visible").count()) >= 4);
  assert.match(await turn.locator(":scope > .reply > .answer").innerText(), HARD_ANSWER);
  await turn.locator(".stream summary").first().click();
  assert.match(await turn.locator(".stream .thought-text").first().innerText(), /\w/);
  await accessible(page, "streams, light");
  await turn.locator(".stream summary").first().click();
  await shot(page, "streams-light");
});

on("settings and the conversation stay", {}, async (page) => {
  await page.getByRole("radio", { name: "On" }).check();
  await slide(page, "Budget", 1);
  await slide(page, "Streams", 2);
  await slide(page, "Temperature", 4);
  await page.getByLabel("Seed").fill("42");
  await page.getByRole("textbox", { name: "System prompt" }).fill("Be short.");
  await page.getByRole("textbox", { name: "System prompt" }).blur();
  const budget = await page.getByRole("slider", { name: "Budget" }).getAttribute("aria-valuetext");
  await ask(page, HARD);
  await ended(page);
  await page.reload();
  await ready(page);
  assert.equal(await page.getByRole("radio", { name: "On" }).isChecked(), true);
  assert.equal(await page.getByRole("slider", { name: "Budget" }).getAttribute("aria-valuetext"), budget);
  assert.equal(await page.getByRole("slider", { name: "Streams" }).inputValue(), "2");
  assert.equal(await page.getByRole("slider", { name: "Temperature" }).inputValue(), "4");
  assert.equal(await page.getByLabel("Seed").inputValue(), "42");
  assert.equal(await page.getByRole("textbox", { name: "System prompt" }).inputValue(), "Be short.");
  assert.equal(await page.locator(".stream").count(), 2);
  await page.getByRole("button", { name: "Reset settings" }).click();
  assert.equal(await page.getByRole("slider", { name: "Streams" }).inputValue(), "1");
});

on("the charts show the machine", {}, async (page) => {
  for (const question of [HARD, EASY]) {
    await ask(page, question);
    await ended(page);
  }
  await page.waitForTimeout(1500);
  const labels = await page.locator(".chart").evaluateAll((charts) => charts.map((chart) => chart.getAttribute("aria-label")));
  assert.equal(labels.length, 3);
  for (const label of labels) assert.match(label, /: now .*\d/);
});

on("dark", { colorScheme: "dark" }, async (page) => {
  await keep(page, VOTED);
  await ask(page, HARD);
  await ended(page);
  await accessible(page, "dark");
  await shot(page, "streams-dark");
});

on("the toggle holds against the system", { colorScheme: "dark" }, async (page) => {
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await background();
  const toggle = page.getByRole("button", { name: /^Colours/ });
  await toggle.click();
  assert.match(await toggle.getAttribute("aria-label"), /light/);
  assert.notEqual(await background(), dark);
  await page.reload();
  assert.notEqual(await background(), dark);
});

on("a phone, 360 px wide", PHONE, async (page) => {
  await fits(page, "welcome");
  await shot(page, "phone-welcome");
  await ask(page, HARD);
  await ended(page);
  await fits(page, "answer");
  await shot(page, "phone-answer");
  await page.getByRole("button", { name: "New chat" }).tap();
  await page.getByRole("radio", { name: "On" }).check();
  await slide(page, "Streams", 8);
  await ask(page, HARD);
  await ended(page);
  await fits(page, "streams");
  await accessible(page, "phone");
  await shot(page, "phone-streams");
  await page.getByRole("button", { name: "Settings" }).tap();
  await page.waitForSelector("#panel:not([hidden])");
  await fits(page, "panel");
  await accessible(page, "phone, panel");
  await shot(page, "phone-panel");
  await page.getByRole("button", { name: "Close the panel" }).tap();
  assert.equal(await page.locator("#panel").isVisible(), false);
});

on("by keyboard alone", {}, async (page) => {
  await page.keyboard.press("/");
  await page.keyboard.type("Tell me half of");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("98.");
  await page.keyboard.press("Enter");
  assert.match(await (await ended(page)).locator(".answer").innerText(), EASY_ANSWER);
  await page.keyboard.press("Alt+t");
  assert.equal(await page.getByRole("radio", { name: "On" }).isChecked(), true);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement?.getAttribute("value")), "on");
  await page.keyboard.press("Tab");
  await page.keyboard.press("ArrowLeft");
  assert.match(await page.getByRole("slider", { name: "Budget" }).getAttribute("aria-valuetext"), /tokens/);
  await page.keyboard.press("Tab");
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.getByRole("slider", { name: "Streams" }).inputValue(), "2");
  await page.keyboard.press("Alt+r");
  await page.waitForSelector(".stream");
  await ended(page);
  await page.keyboard.press("Alt+s");
  assert.equal(await page.locator("#panel").isVisible(), false);
  await page.evaluate(() => document.activeElement?.blur());
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keyboard shortcuts" }).waitFor();
  await accessible(page, "shortcuts");
  await shot(page, "shortcuts");
  await page.keyboard.press("Escape");
  assert.equal(await page.getByRole("dialog", { name: "Keyboard shortcuts" }).isVisible(), false);
  await page.keyboard.press("Alt+n");
  assert.equal(await page.locator(".turn").count(), 0);
});

on("reduced motion stands still", { reducedMotion: "reduce" }, async (page) => {
  const still = await page.evaluate(() => Number.parseFloat(getComputedStyle(document.querySelector(".composer")).transitionDuration));
  assert.ok(still < 0.001);
});
