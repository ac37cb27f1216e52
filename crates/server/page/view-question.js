// The reader's question, with editing in place: a changed question is asked again from there.

import { h, setText } from "./dom.js";
import { icon } from "./icons.js";

export class QuestionView {
  /**
   * @param {string} question
   * @param {{edit: (text: string) => void, copy: (text: string) => void}} actions
   */
  constructor(question, actions) {
    this.question = question;
    this.actions = actions;
    this.text = h("h2.question-text", { text: question });
    this.edit = h("button.icon-button", { type: "button", title: "Edit", "aria-label": "Edit the question", onclick: () => this.#begin() }, icon("edit"));
    const copy = h("button.icon-button", { type: "button", title: "Copy", "aria-label": "Copy the question", onclick: () => actions.copy(question) }, icon("copy"));
    this.tools = h("div.tools", {}, copy, this.edit);
    this.element = h("div.question", {}, this.text, this.tools);
  }

  /** @param {boolean} live nothing is edited while an answer comes */
  update(live) {
    setText(this.text, this.question);
    this.edit.disabled = live;
  }

  #begin() {
    const area = h("textarea", { "aria-label": "Edit the question", rows: Math.min(this.question.split("\n").length + 1, 10) });
    area.value = this.question;
    const close = () => {
      form.replaceWith(this.text, this.tools);
      this.element.classList.remove("editing");
      this.edit.focus();
    };
    const submit = (/** @type {Event} */ event) => {
      event.preventDefault();
      const text = area.value.trim();
      if (text) this.actions.edit(text);
    };
    const form = h(
      "form.edit",
      { onsubmit: submit },
      area,
      h("div.edit-buttons", {}, h("button.button", { type: "button", text: "Cancel", onclick: close }), h("button.button.primary", { type: "submit", text: "Ask again" })),
    );
    area.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        close();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        submit(event);
      }
    });
    this.element.classList.add("editing");
    this.element.replaceChildren(form);
    area.focus();
  }
}
