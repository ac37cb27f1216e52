// The machine at work: tokens per second, time to the first token, KV memory.

import { Chart } from "./chart.js";
import { h } from "./dom.js";
import { bytes, duration, rate } from "./format.js";

export class MachineView {
  /** @type {import("./metrics.js").Reading | null} */
  #last = null;

  /** @param {() => any} props */
  constructor(props) {
    this.props = props;
    this.speed = new Chart("Tokens per second", rate, "line");
    this.first = new Chart("First token", duration, "bars");
    this.memory = new Chart("KV memory", bytes, "line");
    this.element = h("div.machine", {}, this.speed.element, this.first.element, this.memory.element);
  }

  /** A second has passed. @param {import("./metrics.js").Reading} now */
  reading(now) {
    const last = this.#last;
    this.#last = now;
    if (last && now.tokens !== null && last.tokens !== null && now.atMs > last.atMs) {
      // A server that began anew counts from zero.
      this.speed.push(Math.max(now.tokens - last.tokens, 0) / ((now.atMs - last.atMs) / 1000));
    }
    if (now.blocksUsed !== null) this.#memory(now.blocksUsed);
  }

  /** An answer is complete. @param {any} summary */
  answered(summary) {
    if (Number.isFinite(summary.timings?.ttft_ms)) this.first.push(summary.timings.ttft_ms);
    // Between two readings a short answer comes and goes; its peak is known.
    if (Number.isFinite(summary.kv?.blocks_used_peak)) this.#memory(summary.kv.blocks_used_peak);
  }

  /** @param {number} blocks */
  #memory(blocks) {
    const kv = this.props()?.kv;
    if (!kv) return;
    this.memory.push(blocks * kv.block_bytes, { note: `of ${bytes(kv.blocks_total * kv.block_bytes)}` });
  }
}
