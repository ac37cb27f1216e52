// The vote as it builds: one bar per answer, the winner marked when the server has counted.

import { attribute, h, setText } from "./dom.js";
import { counted, score } from "./format.js";
import { isLive } from "./turn.js";
import { tally } from "./vote.js";

export class VoteView {
  constructor() {
    this.how = h("span.vote-how");
    this.list = h("ol.vote-groups");
    this.element = h("section.vote", { hidden: true, "aria-label": "Vote" }, h("div.vote-head", {}, h("span.vote-title", { text: "Vote" }), this.how), this.list);
  }

  /** @param {import("./turn.js").Turn} turn */
  update(turn) {
    const byScore = turn.asked.vote !== "majority" && turn.asked.scoring !== "off";
    const groups = turn.vote?.groups ?? tally(turn.choices, byScore);
    this.element.hidden = groups.length === 0;
    setText(this.how, this.#how(turn, byScore));
    // While votes come the whole width is all that can come, so that a bar only grows; then it is what came.
    const sum = groups.reduce((total, group) => total + group.weight, 0);
    const whole = (isLive(turn) ? Math.max(turn.asked.n, sum) : sum) || 1;
    while (this.list.children.length > groups.length) this.list.lastElementChild?.remove();
    for (const [place, group] of groups.entries()) {
      this.list.children[place] ?? this.list.append(row());
      const [answer, track, figures] = this.list.children[place].children;
      const won = turn.vote !== null && group.choices.includes(turn.vote.winner);
      this.list.children[place].classList.toggle("won", won);
      setText(answer, group.answer);
      attribute(answer, "title", group.answer);
      /** @type {HTMLElement} */ (track.firstElementChild).style.width = `${(group.weight / whole) * 100}%`;
      setText(figures, counted(group.votes, "vote") + (byScore ? ` · ${score(group.weight)}` : "") + (won ? " · wins" : ""));
    }
  }

  /** @param {import("./turn.js").Turn} turn @param {boolean} byScore */
  #how(turn, byScore) {
    const how = byScore ? (turn.asked.vote === "best" ? "best score" : "weighted by score") : "majority";
    if (turn.summary?.early_stopped) return `${how}, decided early`;
    return isLive(turn) ? `${how}, still open` : how;
  }
}

function row() {
  return h("li", {}, h("span.vote-answer"), h("span.vote-track", {}, h("span.vote-bar")), h("span.vote-figures"));
}
