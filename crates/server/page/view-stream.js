// One of several streams as a card: its state, its answer, its score, and its thought to unfold.

import { attribute, h, setText } from "./dom.js";
import { score } from "./format.js";
import { icon } from "./icons.js";
import { isThinking } from "./turn.js";
import { AnswerView } from "./view-answer.js";
import { ThoughtView } from "./view-thought.js";

/** @param {import("./turn.js").Choice} choice */
function state(choice) {
  if (isThinking(choice)) return "thinking";
  switch (choice.finish) {
    case null:
      return choice.content || choice.thoughtDone ? "answering" : "waiting";
    case "idle":
      return "not begun";
    case "decided":
      return "ended by the vote";
    case "length":
      return "out of tokens";
    case "cancelled":
      return "stopped";
    default:
      return "";
  }
}

/**
 * What the card says in large: the answer, or as much of it as is there; not the words that lead to it.
 * @param {import("./turn.js").Choice} choice
 */
function short(choice) {
  if (choice.answer !== null) return choice.answer;
  const text = choice.content.replace(/[*_`#]/g, "").trim();
  const rest = text.replace(/^final answer:?\s*/i, "");
  return "final answer".startsWith(rest.toLowerCase()) ? "" : rest;
}

export class StreamView {
  /**
   * @param {number} index
   * @param {boolean} open
   * @param {() => void} answerNow
   */
  constructor(index, open, answerNow) {
    const name = `Stream ${index + 1}`;
    this.state = h("span.stream-state");
    this.now = h(
      "button.icon-button.small",
      { type: "button", hidden: true, title: "Answer now", "aria-label": `${name}: answer now`, onclick: answerNow },
      icon("skip"),
    );
    this.short = h("div.stream-answer");
    this.tail = h("div.stream-tail", { "aria-hidden": "true" }, h("span"));
    this.bar = h("span.score-bar");
    this.figure = h("span.score-figure");
    this.score = h("div.score", { hidden: true }, h("span.score-track", {}, this.bar), this.figure);
    this.thought = new ThoughtView(`of stream ${index + 1}`, open);
    this.full = new AnswerView();
    this.thought.element.append(this.full.element);
    this.element = h(
      "li.stream",
      {},
      h("div.stream-head", {}, h("span.stream-name", { text: name }), this.state, this.now),
      this.short,
      this.tail,
      this.score,
      this.thought.element,
    );
  }

  /** @param {import("./turn.js").Choice} choice @param {boolean} won @param {boolean} live */
  update(choice, won, live) {
    const thinking = isThinking(choice);
    this.element.classList.toggle("won", won);
    this.element.classList.toggle("thinking", thinking);
    this.element.classList.toggle("idle", choice.finish === "idle" || choice.finish === "decided");
    setText(this.state, won ? "winner" : state(choice));
    attribute(this.now, "hidden", !(thinking && live));
    const answer = short(choice);
    setText(this.short, answer);
    this.short.hidden = answer === "";
    this.tail.hidden = answer !== "" || this.thought.element.open;
    if (!this.tail.hidden) setText(this.tail.firstChild, choice.reasoning.slice(-160).replace(/\s+/g, " "));
    this.score.hidden = choice.score === null;
    if (choice.score !== null) {
      this.bar.style.width = `${Math.min(Math.max(choice.score, 0), 1) * 100}%`;
      setText(this.figure, `score ${score(choice.score)}`);
    }
    this.thought.update(choice);
    this.full.update(choice.content);
  }
}
