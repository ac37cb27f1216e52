// Where the question is written: the text, the switch for thinking, budget and streams, and the buttons to send and stop.

import { h } from "./dom.js";
import { whole } from "./format.js";
import { icon } from "./icons.js";
import { budgetStops, mostStreams, nearestStop } from "./settings.js";
import { segments, slider } from "./controls.js";

/**
 * @typedef {object} Host
 * @property {() => import("./settings.js").Settings} settings
 * @property {(changed: Partial<import("./settings.js").Settings>) => void} change
 * @property {() => any} props
 * @property {(text: string) => void} ask
 * @property {() => void} stop
 * @property {() => void} answerNow
 */

export class ComposerView {
  /** @param {HTMLElement} dock @param {Host} host */
  constructor(dock, host) {
    this.host = host;
    this.area = h("textarea.question-area", { id: "question", rows: "1", placeholder: "Ask something", "aria-label": "Your question", autocomplete: "off" });
    this.area.addEventListener("input", () => this.#grow());
    this.area.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.#submit();
      }
    });
    this.send = h("button.round.primary", { type: "submit", title: "Send (Enter)", "aria-label": "Send" }, icon("send"));
    this.stop = h("button.round.stop", { type: "button", hidden: true, title: "Stop (Esc)", "aria-label": "Stop", onclick: host.stop }, icon("stop"));
    this.now = h("button.button.now", { type: "button", hidden: true, title: "End the thought (Alt+A)", onclick: host.answerNow }, icon("skip"), "Answer now");
    this.think = segments("Thinking", "think", { auto: "Auto", on: "On", off: "Off" }, (value) => host.change({ think: /** @type {any} */ (value) }));
    this.budget = slider("Budget", (place) => host.change({ budget: this.stops[place] ?? null }));
    this.streams = slider("Streams", (n) => host.change({ n }));
    /** @type {(number | null)[]} */
    this.stops = [null];
    const form = h(
      "form.composer",
      { onsubmit: (/** @type {Event} */ event) => (event.preventDefault(), this.#submit()) },
      this.area,
      h("div.composer-row", {}, this.think.element, this.budget.element, this.streams.element, h("div.composer-buttons", {}, this.now, this.stop, this.send)),
    );
    dock.append(form);
    this.refresh();
  }

  /** Settings or the server's answer have changed. */
  refresh() {
    const settings = this.host.settings();
    const props = this.host.props();
    this.stops = budgetStops(props, settings.adapter);
    this.think.set(settings.think);
    const place = nearestStop(this.stops, settings.budget);
    const budget = this.stops[place];
    this.budget.set(place, 0, this.stops.length - 1, budget === null ? "none" : whole(budget), budget === null ? "none" : `${budget} tokens`);
    this.budget.disable(settings.think === "off");
    this.streams.set(settings.n, 1, mostStreams(props), String(settings.n), settings.n === 1 ? "1 stream" : `${settings.n} streams`);
    // Without a switcher there is nobody to choose.
    this.think.disable("auto", Boolean(props) && !props.switcher);
  }

  /** @param {boolean} live an answer is coming @param {boolean} thinking a thought is open */
  busy(live, thinking) {
    // Who has the focus on a button that goes away keeps a place on the page.
    const lost = (live && document.activeElement === this.send) || (!live && [this.stop, this.now].includes(document.activeElement));
    this.send.hidden = live;
    this.stop.hidden = !live;
    this.now.hidden = !(live && thinking);
    if (lost) this.focus();
  }

  focus() {
    this.area.focus();
  }

  #submit() {
    const text = this.area.value.trim();
    if (!text || this.send.hidden) return;
    this.area.value = "";
    this.#grow();
    this.host.ask(text);
  }

  #grow() {
    this.area.style.height = "auto";
    this.area.style.height = `${Math.min(this.area.scrollHeight, 220)}px`;
  }
}
