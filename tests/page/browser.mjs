// The system's Chromium, headless, with a fresh profile and without its own traffic.

import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const PLACES = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** @returns {Promise<import("playwright-core").Browser>} */
export async function launch() {
  const executablePath = PLACES.find((place) => place && existsSync(place));
  if (!executablePath) throw new Error("no chromium: apt-get install chromium, or name it in CHROMIUM");
  return chromium.launch({ executablePath, headless: true, args: ARGS });
}
