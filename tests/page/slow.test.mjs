// The page against a server that takes its time: what is over too soon on the real one, or seldom happens there.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { launch } from "./browser.mjs";
import { accessible, ask, ended, EASY, HARD, open, ready, shot, slide } from "./harness.mjs";
import { startMock } from "./mock.mjs";

let browser, mock, page, context, close;
const REFUSED = /status of (401|429|503)|ERR_/;

before(async () => {
  browser = await launch();
});

after(() => browser.close());

beforeEach(async () => {
  mock = await startMock({ tokenMs: 20 });
  ({ page, context, close } = await open(browser, mock.url, { expect: REFUSED }));
  await ready(page);
});

afterEach(async () => {
  await close();
  await mock.close();
});

test("a thought counts while it comes, and folds", async () => {
  await ask(page, HARD);
  await page.locator(".thought.live .thought-tail", { hasText: /\w/ }).waitFor();
  assert.match(await page.locator(".thought-tail").innerText(), /\w/);
  const count = () => page.locator(".thought-count").innerText().then((text) => Number.parseInt(text, 10));
  const first = await count();
  await page.waitForTimeout(300);
  assert.ok((await count()) > first);
  assert.equal(await page.locator(".thought-text").isVisible(), false);
  await accessible(page, "thinking");
  await shot(page, "thinking");
  const turn = await ended(page);
  assert.match(await turn.locator(".thought-end").innerText(), /ended by itself/);
  await turn.locator(".thought summary").click();
  assert.match(await turn.locator(".thought-text").innerText(), /step by step/);
  assert.match(await page.locator("#status").innerText(), /Answer:.*20/);
});

test("Esc stops, and the half that came stays", async () => {
  await ask(page, HARD);
  await page.waitForSelector(".thought.live");
  await page.keyboard.press("Escape");
  const turn = await ended(page);
  assert.match(await turn.locator(".figures").innerText(), /stopped/);
  assert.match(await turn.locator(".thought-end").innerText(), /stopped/);
  assert.equal(await page.getByRole("button", { name: "Send" }).isVisible(), true);
  await page.reload();
  assert.match(await page.locator(".thought-end").innerText(), /stopped/);
});

test("a page that is closed in the middle finds the half it had", async () => {
  await ask(page, HARD);
  await page.waitForSelector(".thought.live");
  await page.reload();
  assert.match(await page.locator(".turn .figures").innerText(), /stopped/);
});

test("answer now ends the thought, and the answer follows", async () => {
  await ask(page, HARD);
  await page.waitForSelector(".thought.live");
  await page.getByRole("button", { name: "Answer now" }).click();
  const turn = await ended(page);
  assert.match(await turn.locator(".thought-end").innerText(), /ended by you/);
  assert.match(await turn.locator(".answer").innerText(), /20/);
});

test("answer now for one stream only", async () => {
  await slide(page, "Streams", 3);
  await ask(page, HARD);
  await page.getByRole("button", { name: "Stream 2: answer now" }).click();
  const turn = await ended(page);
  const ends = await turn.locator(".stream .thought-end").allTextContents();
  assert.deepEqual(ends, ["ended by itself", "ended by you", "ended by itself"]);
});

test("the vote builds before it is counted", async () => {
  await slide(page, "Streams", 8);
  await ask(page, HARD);
  await page.waitForSelector(".stream.thinking");
  await shot(page, "streams-thinking");
  await page.waitForSelector(".turn.live .vote li");
  assert.match(await page.locator(".vote-how").innerText(), /still open/);
  assert.equal(await page.locator(".vote .won").count(), 0);
  const turn = await ended(page);
  assert.match(await turn.locator(".vote li.won").innerText(), /20[\s\S]*6 votes[\s\S]*wins/);
  assert.equal(await turn.locator(".stream.won").count(), 1);
});

test("a full queue is said, and can be tried again", async () => {
  mock.state.fail = { status: 429, error: { message: "the queue is full", type: "rate_limit_error", code: "queue_full", param: null }, headers: { "retry-after": "2" } };
  await ask(page, EASY);
  await page.getByRole("alert").waitFor();
  assert.match(await page.getByRole("alert").innerText(), /The queue is full\. Try again in 2 seconds[\s\S]*429[\s\S]*queue_full/);
  await accessible(page, "an error");
  await shot(page, "error");
  await page.getByRole("button", { name: "Try again" }).click();
  assert.match(await (await ended(page)).locator(".answer").innerText(), /49/);
  assert.equal(await page.locator(".turn").count(), 1);
});

test("a lost connection is said", async () => {
  await ask(page, HARD);
  await page.waitForSelector(".thought.live");
  mock.state.cut = true;
  assert.match(await page.getByRole("alert").innerText(), /connection|network|answer/i);
  assert.match(await (await ended(page)).locator(".thought-end").innerText(), /stopped/);
});

test("a server that asks for a key gets one, for this tab or for good", async () => {
  await close();
  await mock.close();
  mock = await startMock({ tokenMs: 5, key: "secret" });
  ({ page, context, close } = await open(browser, mock.url, { expect: REFUSED }));
  const dialog = page.getByRole("dialog", { name: "API key" });
  await dialog.waitFor();
  await accessible(page, "the key");
  await shot(page, "key");
  await dialog.getByLabel("API key").fill("wrong");
  await dialog.getByRole("button", { name: "Use key" }).click();
  await dialog.waitFor();
  await dialog.getByLabel("API key").fill("secret");
  await dialog.getByRole("button", { name: "Use key" }).click();
  await ready(page);
  await ask(page, EASY);
  assert.match(await (await ended(page)).locator(".answer").innerText(), /49/);
  assert.equal(await page.evaluate(() => localStorage.getItem("edgethink.key")), null);
  await page.reload();
  await ready(page);
  await page.getByRole("button", { name: "API key" }).click();
  await dialog.getByLabel("API key").fill("secret");
  await dialog.getByLabel("Remember").check();
  await dialog.getByRole("button", { name: "Use key" }).click();
  const other = await context.newPage();
  await other.goto(mock.url);
  await ready(other);
});

test("edit, ask again, new chat and undo", async () => {
  await ask(page, EASY);
  await ended(page);
  await ask(page, "once more: half of 98");
  await ended(page);
  assert.equal(mock.state.requests.at(-1).messages.length, 3);
  await page.locator(".turn").last().getByRole("button", { name: "Ask again" }).click();
  await ended(page);
  assert.equal(mock.state.requests.length, 3);
  assert.equal(mock.state.requests.at(-1).messages.length, 3);
  const first = page.locator(".turn").first();
  await first.hover();
  await first.getByRole("button", { name: "Edit the question" }).click();
  await page.getByRole("textbox", { name: "Edit the question" }).fill("half of 98, please");
  await page.keyboard.press("Enter");
  await ended(page);
  assert.equal(await page.locator(".turn").count(), 1);
  assert.deepEqual(mock.state.requests.at(-1).messages, [{ role: "user", content: "half of 98, please" }]);
  await page.getByRole("button", { name: "New chat" }).click();
  assert.equal(await page.locator(".turn").count(), 0);
  await page.getByRole("button", { name: "Undo" }).click();
  assert.equal(await page.locator(".turn").count(), 1);
});

test("copy puts the answer on the clipboard", async () => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: mock.url });
  await ask(page, EASY);
  await (await ended(page)).getByRole("button", { name: "Copy the answer" }).click();
  await page.getByText("Copied.").waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "49");
});

test("markdown in an answer", async () => {
  await ask(page, "show me markdown");
  const answer = (await ended(page)).locator(".answer");
  assert.equal(await answer.locator("h3").innerText(), "What it can show");
  assert.equal(await answer.locator("pre").innerText(), "fn main() {}");
  assert.match(await answer.innerText(), /<img src=x onerror=alert\(1\)> stays text/);
  assert.equal(await answer.locator("img").count(), 0);
  await accessible(page, "markdown");
});
