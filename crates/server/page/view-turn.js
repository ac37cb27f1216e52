// One turn on the page: question, decision, thought or streams, vote, answer, figures. `update` may be called on every frame.

import { attribute, h, setText } from "./dom.js";
import { counted, duration, rate, score as shown } from "./format.js";
import { icon } from "./icons.js";
import { best, isLive } from "./turn.js";
import { AnswerView } from "./view-answer.js";
import { DecisionView } from "./view-decision.js";
import { QuestionView } from "./view-question.js";
import { StreamView } from "./view-stream.js";
import { ThoughtView } from "./view-thought.js";
import { VoteView } from "./view-vote.js";

/**
 * @typedef {object} Actions
 * @property {(text: string) => void} copy
 * @property {(text: string) => void} edit
 * @property {() => void} again
 * @property {(index: number | null) => void} answerNow
 */

export class TurnView {
  /** @type {Map<number, StreamView>} */
  #streams = new Map();

  /**
   * @param {import("./turn.js").Turn} turn
   * @param {Actions} actions
   * @param {boolean} open thoughts unfolded
   */
  constructor(turn, actions, open) {
    this.turn = turn;
    this.actions = actions;
    this.open = open;
    this.many = turn.asked.n > 1;
    this.question = new QuestionView(turn.question, actions);
    this.decision = new DecisionView();
    this.thought = new ThoughtView("", open);
    this.streams = h("ol.streams", { "aria-label": "Streams" });
    this.vote = new VoteView();
    this.answer = new AnswerView();
    this.wait = h("p.wait", { text: "Reading the question" });
    this.error = h("div.error", { role: "alert", hidden: true });
    this.figures = h("span.figures");
    const copy = () => actions.copy(best(turn)?.content ?? "");
    this.copy = h("button.icon-button", { type: "button", title: "Copy", "aria-label": "Copy the answer", onclick: copy }, icon("copy"));
    this.again = h("button.icon-button", { type: "button", title: "Ask again", "aria-label": "Ask again", onclick: actions.again }, icon("again"));
    this.foot = h("div.turn-foot", {}, this.figures, h("div.tools", {}, this.copy, this.again));
    const reply = h("div.reply", {}, this.decision.element, this.wait, this.thought.element, this.streams, this.vote.element, this.answer.element, this.error, this.foot);
    this.element = h("article.turn", { "aria-label": "Question and answer" }, this.question.element, reply);
    this.update();
  }

  update() {
    const { turn } = this;
    const live = isLive(turn);
    const chosen = best(turn);
    this.element.classList.toggle("live", live);
    this.question.update(live);
    this.decision.update(turn.decision);
    if (this.many) this.#updateStreams(live);
    else if (turn.choices[0]) this.thought.update(turn.choices[0]);
    // Streams show their own answers; one answer for all stands when the vote has ended.
    this.answer.update(this.many && live ? "" : (chosen?.content ?? ""));
    const begun = turn.choices.some((choice) => choice.reasoning || choice.content);
    this.wait.hidden = !live || begun;
    this.streams.hidden = !this.many || !(live || begun);
    setText(this.wait, turn.status === "running" ? "Beginning" : "Reading the question");
    this.#updateError();
    this.foot.hidden = live || (turn.status === "failed" && !begun);
    setText(this.figures, figures(turn));
    this.copy.hidden = !chosen;
  }

  /** @param {boolean} live */
  #updateStreams(live) {
    const { turn } = this;
    for (const choice of turn.choices) {
      let view = this.#streams.get(choice.index);
      if (!view) {
        view = new StreamView(choice.index, this.open, () => this.actions.answerNow(choice.index));
        this.#streams.set(choice.index, view);
        this.streams.append(view.element);
      }
      view.update(choice, turn.vote?.winner === choice.index, live);
    }
    this.vote.update(turn);
  }

  #updateError() {
    const { error, status } = this.turn;
    const failed = status === "failed" && error !== null;
    if (this.error.hidden === !failed) return;
    attribute(this.error, "hidden", !failed);
    if (!failed) return;
    const retry = error.retryAfterS === null ? "" : ` Try again in ${counted(error.retryAfterS, "second")}.`;
    const names = [error.status || "", error.type, error.code, error.param && `at "${error.param}"`].filter(Boolean).join(" · ");
    this.error.replaceChildren(
      h("p.error-message", { text: `${sentence(error.message)}${retry}` }),
      names ? h("p.error-names", { text: names }) : "",
      h("button.button", { type: "button", text: "Try again", onclick: this.actions.again }),
    );
  }
}

/** @param {string} text */
function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

/** @param {import("./turn.js").Turn} turn */
function figures(turn) {
  const parts = [];
  if (turn.status === "stopped") parts.push("stopped");
  const chosen = best(turn);
  if (chosen?.finish === "length") parts.push("out of tokens");
  const tokens = turn.usage?.completion_tokens;
  if (tokens !== undefined) parts.push(counted(tokens, "token"));
  const timings = turn.summary?.timings;
  if (timings) {
    if (timings.decode_tps > 0) parts.push(`${rate(timings.decode_tps)} tokens/s`);
    parts.push(`first token ${duration(timings.ttft_ms)}`, `all ${duration(timings.total_ms)}`);
  }
  const score = turn.asked.n === 1 ? chosen?.score : null;
  if (score !== null && score !== undefined) parts.push(`score ${shown(score)}`);
  return parts.join(" · ");
}
