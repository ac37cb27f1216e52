// Live figures from the server's Prometheus text: polled while someone can see them.

/**
 * Sums a metric's samples over its labels.
 * @param {string} text
 * @param {string} name
 * @returns {number | null} null when the server does not have it
 */
export function metric(text, name) {
  let sum = null;
  for (const line of text.split("\n")) {
    if (!line.startsWith(name) || !/[ {]/.test(line[name.length] ?? "")) continue;
    const value = Number.parseFloat(line.slice(line.lastIndexOf("}") + 1 || name.length).trim());
    if (Number.isFinite(value)) sum = (sum ?? 0) + value;
  }
  return sum;
}

/** @typedef {{atMs: number, tokens: number | null, blocksUsed: number | null, blocksTotal: number | null}} Reading */

/** @param {string} text @param {number} atMs @returns {Reading} */
export function reading(text, atMs) {
  return {
    atMs,
    tokens: metric(text, "edgethink_tokens_generated_total"),
    blocksUsed: metric(text, "edgethink_kv_blocks_used"),
    blocksTotal: metric(text, "edgethink_kv_blocks_total"),
  };
}

/**
 * Calls back with a reading every second while `wanted` holds and the page is seen, and at once on `poke`.
 */
export class Poller {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {import("./api.js").Api} api
   * @param {() => boolean} wanted
   * @param {(now: Reading) => void} onReading
   */
  constructor(api, wanted, onReading) {
    this.api = api;
    this.wanted = wanted;
    this.onReading = onReading;
    document.addEventListener("visibilitychange", () => this.poke());
  }

  /** Reads now and goes on from there. */
  async poke() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (document.hidden || !this.wanted()) return;
    try {
      this.onReading(reading(await this.api.metrics(), performance.now()));
    } catch {
      // No figures this time; whether the server is there, the conversation says.
    }
    // Two pokes at once leave one timer.
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.poke(), 1000);
  }
}
