// The side panel: the machine's figures, what is set less often, and what the server is.

import { choice, number, segments, slider, tick } from "./controls.js";
import { attribute, h } from "./dom.js";
import { parameters, whole } from "./format.js";
import { icon } from "./icons.js";

/**
 * @typedef {object} Host
 * @property {() => import("./settings.js").Settings} settings
 * @property {(changed: Partial<import("./settings.js").Settings>) => void} change
 * @property {() => void} reset
 * @property {() => any} props
 * @property {() => void} close
 * @property {() => void} key
 * @property {{element: HTMLElement}} machine
 */

export class PanelView {
  /** @param {HTMLElement} panel @param {Host} host */
  constructor(panel, host) {
    this.host = host;
    const set = (/** @type {any} */ changed) => host.change(changed);
    this.vote = segments("Vote", "vote", { majority: "Majority", weighted: "Weighted" }, (vote) => set({ vote }));
    this.scoring = choice("Score answers", (scoring) => set({ scoring }));
    this.early = choice("End the vote early", (earlyStop) => set({ earlyStop }));
    this.waves = tick("Waves", "Begin only the streams that can decide the vote.", (waves) => set({ waves }));
    this.scaleN = tick("Streams by score", "The switcher chooses how many, up to the slider.", (scaleN) => set({ scaleN }));
    this.minThink = number("Shortest thought", "any length", 1, (minThink) => set({ minThink }));
    this.adapter = choice("Adapter", (adapter) => set({ adapter }));
    this.temperature = slider("Temperature", (tenths) => set({ temperature: tenths / 10 }));
    this.seed = number("Seed", "random", 0, (seed) => set({ seed }));
    this.maxTokens = number("Most tokens", "model’s limit", 1, (maxTokens) => set({ maxTokens }));
    this.open = tick("Unfold thoughts", "Show a thought while it comes.", (openThoughts) => set({ openThoughts }));
    this.system = h("textarea", { id: "system", rows: "3", placeholder: "None", onchange: () => set({ system: this.system.value }) });
    this.facts = h("dl.facts");
    this.close = h("button.icon-button", { type: "button", title: "Close", "aria-label": "Close the panel", onclick: host.close }, icon("close"));
    panel.append(
      h("div.panel-head", {}, h("h2", { text: "Live" }), this.close),
      host.machine.element,
      section("Thinking", this.adapter.element, this.minThink.element, this.open.element),
      section("Streams", this.vote.element, this.scoring.element, this.early.element, this.waves.element, this.scaleN.element),
      section("Sampling", this.temperature.element, this.seed.element, this.maxTokens.element),
      section("System prompt", h("div.field", {}, h("label.unseen", { for: "system", text: "System prompt" }), this.system)),
      section(
        "Server",
        this.facts,
        h(
          "div.panel-buttons",
          {},
          h("button.button", { type: "button", text: "API key", onclick: host.key }),
          h("button.button", { type: "button", text: "Reset settings", onclick: host.reset }),
        ),
      ),
    );
    this.refresh();
  }

  /** Settings or the server's answer have changed. */
  refresh() {
    const settings = this.host.settings();
    const props = this.host.props();
    this.vote.set(settings.scoring === "off" ? "majority" : settings.vote);
    this.vote.disable("weighted", settings.scoring === "off");
    const scorers = { off: "No", ...(props?.verifier ? { verifier: "Verifier" } : {}), genrm: "The model itself" };
    this.scoring.set(scorers, settings.scoring);
    this.early.set({ exact: "When certain", "0.95": "At 95 %", off: "Never" }, settings.earlyStop);
    this.waves.set(settings.waves);
    this.scaleN.set(settings.scaleN);
    this.scaleN.disable(settings.think !== "auto" || (props && !props.switcher));
    this.minThink.set(settings.minThink);
    this.seed.set(settings.seed);
    this.maxTokens.set(settings.maxTokens);
    this.open.set(settings.openThoughts);
    this.temperature.set(Math.round(settings.temperature * 10), 0, 20, settings.temperature.toFixed(1));
    if (document.activeElement !== this.system) this.system.value = settings.system;
    const adapters = props?.adapters ?? [];
    attribute(this.adapter.element, "hidden", adapters.length < 2);
    this.adapter.set(Object.fromEntries(adapters.map((/** @type {any} */ one) => [one.name, one.name])), settings.adapter ?? adapters[0]?.name ?? "");
    this.#facts(props);
  }

  /** @param {any} props */
  #facts(props) {
    if (!props) {
      this.facts.replaceChildren(h("dt", { text: "State" }), h("dd", { text: "no answer yet" }));
      return;
    }
    const { model } = props;
    const facts = {
      Model: model.id,
      Architecture: model.name,
      Parameters: parameters(model.parameters),
      Context: `${whole(model.context_tokens)} tokens`,
      Weights: model.weights,
      Processor: `${model.isa}, ${model.threads === 1 ? "1 thread" : `${model.threads} threads`}`,
      Version: props.version,
    };
    this.facts.replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [h("dt", { text: name }), h("dd", { text: String(value) })]));
  }
}

/** @param {string} title @param {...Node} fields */
function section(title, ...fields) {
  return h("section.panel-section", {}, h("h2", { text: title }), ...fields);
}
