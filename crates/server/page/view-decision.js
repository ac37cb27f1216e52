// The switcher's score against its threshold: to the left of the mark it answers at once, to the right it thinks.

import { attribute, h, setText } from "./dom.js";
import { score } from "./format.js";

export class DecisionView {
  constructor() {
    this.words = h("span.decision-words");
    this.threshold = h("span.decision-threshold");
    this.dot = h("span.decision-dot");
    this.scale = h("span.decision-scale", { role: "img" }, this.threshold, this.dot);
    this.figures = h("span.decision-figures");
    this.element = h("div.decision", { hidden: true, title: "The switcher’s score against its threshold" }, this.words, this.scale, this.figures);
  }

  /** @param {{score: number, threshold: number, thinks: boolean} | null} decision */
  update(decision) {
    this.element.hidden = decision === null;
    if (!decision) return;
    const place = (/** @type {number} */ value) => `${Math.min(Math.max(value, 0), 1) * 100}%`;
    this.element.classList.toggle("thinks", decision.thinks);
    this.threshold.style.left = place(decision.threshold);
    this.dot.style.left = place(decision.score);
    setText(this.words, decision.thinks ? "Chose to think" : "Chose to answer at once");
    setText(this.figures, `${score(decision.score)} ${decision.thinks ? "≥" : "<"} ${score(decision.threshold)}`);
    attribute(this.scale, "aria-label", `Switcher: score ${score(decision.score)}, threshold ${score(decision.threshold)}`);
  }
}
