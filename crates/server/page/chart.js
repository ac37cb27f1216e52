// A small chart: the last samples as a line with a soft fill, or as bars, on a floor at zero.

import { attribute, h, setText, svg } from "./dom.js";

const WIDTH = 240;
const HEIGHT = 44;
const SAMPLES = 60;

export class Chart {
  /** @type {number[]} */
  #values = [];

  /**
   * @param {string} title
   * @param {(value: number) => string} format
   * @param {"line"|"bars"} form
   */
  constructor(title, format, form) {
    this.title = title;
    this.format = format;
    this.form = form;
    this.value = h("span.figure", { text: "–" });
    this.note = h("span.note");
    this.fill = svg("path.chart-fill");
    this.line = svg("path.chart-line");
    this.image = svg(
      "svg.chart",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: no data yet` },
      svg("path.chart-floor", { d: `M0 ${HEIGHT - 0.5}H${WIDTH}` }),
      this.fill,
      this.line,
    );
    this.element = h("figure.gauge-card", {}, h("figcaption", {}, h("span", { text: title }), this.note, this.value), this.image);
  }

  /**
   * @param {number} value
   * @param {{top?: number, note?: string}} [more] `top` is the least height of the scale
   */
  push(value, { top = 0, note } = {}) {
    this.#values.push(value);
    if (this.#values.length > SAMPLES) this.#values.shift();
    const shown = this.format(value);
    const peak = Math.max(...this.#values);
    setText(this.value, shown);
    if (note !== undefined) setText(this.note, note);
    attribute(this.image, "aria-label", `${this.title}: now ${shown}, highest of the last ${this.#values.length} ${this.format(peak)}`);
    this.#draw(Math.max(peak, top) || 1);
  }

  /** @param {number} top */
  #draw(top) {
    const y = (/** @type {number} */ value) => (HEIGHT - 1 - (value / top) * (HEIGHT - 5)).toFixed(1);
    if (this.form === "bars") {
      const step = 8;
      const shown = this.#values.slice(-Math.floor(WIDTH / step));
      const from = WIDTH - shown.length * step + 3;
      const bars = shown.map((value, place) => `M${from + place * step} ${HEIGHT - 1}V${y(value)}h5V${HEIGHT - 1}z`);
      attribute(this.fill, "d", bars.slice(0, -1).join(""));
      attribute(this.line, "d", bars.at(-1) ?? "");
      attribute(this.image, "data-form", "bars");
      return;
    }
    const step = WIDTH / (SAMPLES - 1);
    const from = WIDTH - (this.#values.length - 1) * step;
    const points = this.#values.map((value, place) => `${(from + place * step).toFixed(1)} ${y(value)}`);
    attribute(this.line, "d", `M${points.join("L")}`);
    attribute(this.fill, "d", `M${from.toFixed(1)} ${HEIGHT}L${points.join("L")}V${HEIGHT}z`);
  }
}
