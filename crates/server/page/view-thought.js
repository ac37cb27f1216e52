// A thought: folded to one line that shows how long it is, how it ended and, while it comes, its newest words.

import { attribute, growText, h, setText } from "./dom.js";
import { counted } from "./format.js";
import { icon } from "./icons.js";
import { isThinking } from "./turn.js";

/** How a thought ended, for people. */
const ENDS = {
  model: "ended by itself",
  budget: "ended by the budget",
  loop: "ended in a loop",
  turn: "broke off",
  caller: "ended by you",
};

/** @param {import("./turn.js").Choice} choice */
function ending(choice) {
  if (choice.thoughtEnd) return /** @type {Record<string, string>} */ (ENDS)[choice.thoughtEnd] ?? choice.thoughtEnd;
  if (choice.finish === "decided") return "ended by the vote";
  if (choice.finish === "length") return "out of tokens";
  return choice.finish === "cancelled" ? "stopped" : "";
}

export class ThoughtView {
  /**
   * @param {string} label of this thought among others, for a screen reader
   * @param {boolean} open
   */
  constructor(label, open) {
    this.name = h("span.thought-name");
    this.count = h("span.thought-count");
    this.end = h("span.thought-end");
    this.tail = h("span.thought-tail", { "aria-hidden": "true" });
    this.text = h("div.thought-text", { tabindex: "0", role: "region", "aria-label": `Thought ${label}`.trim() });
    this.element = h(
      "details.thought",
      { open, hidden: true },
      h("summary", {}, icon("chevron"), this.name, this.count, this.end, this.tail),
      this.text,
    );
  }

  /** @param {import("./turn.js").Choice} choice */
  update(choice) {
    attribute(this.element, "hidden", choice.reasoning === "");
    const thinking = isThinking(choice);
    this.element.classList.toggle("live", thinking);
    setText(this.name, thinking ? "Thinking" : "Thought");
    setText(this.count, counted(choice.thoughtTokens, "token"));
    setText(this.end, ending(choice));
    // The newest words, only where they are seen.
    setText(this.tail, thinking && !this.element.open ? choice.reasoning.slice(-120).replace(/\s+/g, " ").trimStart() : "");
    const atEnd = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < 24;
    growText(this.text, choice.reasoning);
    if (thinking && atEnd) this.text.scrollTop = this.text.scrollHeight;
  }
}
