// The conversation: its turns in order, the page before the first question, and a scroll that follows only who is at the end.

import { h } from "./dom.js";
import { TurnView } from "./view-turn.js";

const EXAMPLES = [
  "Ida has 18 cups. Jack has 16 fewer than Ida. How many cups do Jack and Ida have together?",
  "The ring costs twice as much as the clock. The clock costs 13 coins. The ball costs 14 coins more than the ring. How much does the ball cost?",
  "Tell me half of 98.",
];

export class ChatView {
  /** @type {TurnView[]} */
  #views = [];
  #follow = true;

  /**
   * @param {HTMLElement} log
   * @param {{ask: (text: string) => void, actions: (turn: import("./turn.js").Turn) => import("./view-turn.js").Actions, openThoughts: () => boolean}} host
   */
  constructor(log, host) {
    this.log = log;
    this.host = host;
    this.column = h("div.column");
    log.append(this.column);
    log.addEventListener("scroll", () => {
      this.#follow = log.scrollHeight - log.scrollTop - log.clientHeight < 48;
    });
  }

  /**
   * Shows these turns, keeping the views of those that are already there.
   * @param {import("./turn.js").Turn[]} turns
   * @param {string} model
   */
  show(turns, model) {
    this.#views = turns.map((turn) => {
      const known = this.#views.find((view) => view.turn === turn);
      return known ?? new TurnView(turn, this.host.actions(turn), this.host.openThoughts());
    });
    this.column.replaceChildren(...(turns.length > 0 ? this.#views.map((view) => view.element) : [this.#welcome(model)]));
    this.#follow = true;
    this.scroll();
  }

  /** Redraws one turn. @param {import("./turn.js").Turn} turn */
  update(turn) {
    this.#views.find((view) => view.turn === turn)?.update();
    this.scroll();
  }

  scroll() {
    if (this.#follow) this.log.scrollTop = this.log.scrollHeight;
  }

  /** @param {string} model */
  #welcome(model) {
    const button = (/** @type {string} */ text) => h("button.example", { type: "button", text, onclick: () => this.host.ask(text) });
    return h(
      "div.welcome",
      {},
      h("h2", { text: model ? `Ask ${model}` : "Ask" }),
      h("p", { text: "It answers easy questions at once and thinks about hard ones. You see it choose, think and vote." }),
      h("div.examples", { role: "group", "aria-label": "Examples" }, ...EXAMPLES.map(button)),
    );
  }
}
