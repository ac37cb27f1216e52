// An answer as Markdown, rendered again only when its text changes.

import { h } from "./dom.js";
import { render } from "./markdown.js";

export class AnswerView {
  #shown = "";

  constructor() {
    this.element = h("div.answer", { hidden: true });
  }

  /** @param {string} text */
  update(text) {
    if (text === this.#shown) return;
    this.#shown = text;
    this.element.hidden = text.trim() === "";
    this.element.replaceChildren(render(text));
  }
}
