// What the browser tests share: a fresh page whose console must stay clean, the steps of a reader, axe, and screenshots.

import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

const axeSource = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const SHOTS = process.env.PAGE_SHOTS;

/** Widths of a desk and of a small phone. */
export const DESK = { viewport: { width: 1280, height: 860 } };
export const PHONE = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };

/** A question that needs a thought, its answer, and one that does not. */
export const HARD = "Olga lost 9 keys. Jack has 16 fewer than Ida. Ida has 18 cups. Tina has 13 old cats. How many cups do Jack and Ida have together?";
export const HARD_ANSWER = /\b20\b/;
export const EASY = "Tell me half of 98.";
export const EASY_ANSWER = /\b49\b/;

/**
 * Opens the page in a context of its own. `close` fails the test if the page logged an error, left out the ones that the
 * test expects.
 * @param {import("playwright-core").Browser} browser
 * @param {string} url
 * @param {import("playwright-core").BrowserContextOptions & {expect?: RegExp}} [options]
 */
export async function open(browser, url, { expect, ...options } = {}) {
  const context = await browser.newContext({ ...DESK, colorScheme: "light", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  const errors = [];
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(url);
  const close = async () => {
    await context.close();
    assert.deepEqual(errors.filter((error) => !expect?.test(error)), [], "the page logs no error");
  };
  return { page, context, close };
}

/** Waits until the server has told the page what it is. */
export async function ready(page) {
  await page.waitForSelector(".dot[data-state=up]");
}

/** Types a question and sends it with Enter. */
export async function ask(page, text) {
  await page.fill("#question", text);
  await page.press("#question", "Enter");
}

/** The last turn, when it has ended. */
export async function ended(page) {
  await page.waitForSelector(".turn:last-child:not(.live)");
  return page.locator(".turn").last();
}

/** Moves a slider to a place, as the arrow keys do. */
export async function slide(page, name, place) {
  await page.getByRole("slider", { name }).evaluate((input, value) => {
    input.value = String(value);
    input.dispatchEvent(new Event("input", { bubbles: true }));
  }, place);
}

/** No violation of WCAG 2.2 A and AA or of axe's best practices. */
export async function accessible(page, what) {
  await page.evaluate(axeSource);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const found = violations.map((one) => `${one.id}: ${one.help} (${one.nodes.map((node) => node.target.join(" ")).join(", ")})`);
  assert.deepEqual(found, [], `${what}: axe finds nothing`);
}

/** Nothing sticks out to the side. */
export async function fits(page, what) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  assert.ok(wide <= 0, `${what}: ${wide} px wider than the window`);
}

/** A screenshot into the folder PAGE_SHOTS, if there is one. */
export async function shot(page, name) {
  if (!SHOTS) return;
  await mkdir(SHOTS, { recursive: true });
  await page.screenshot({ path: join(SHOTS, `${name}.png`), animations: "disabled" });
}
