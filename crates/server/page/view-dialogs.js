// Two dialogs: the list of shortcuts, and the API key that a server may ask for.

import { h } from "./dom.js";
import { SHORTCUTS } from "./keys.js";

/** @param {string} title @param {...(Node | string)} body */
function dialog(title, ...body) {
  const heading = h("h2", { text: title, id: `dialog-${title.toLowerCase().replace(/\W+/g, "-")}` });
  const element = h("dialog.dialog", { "aria-labelledby": heading.id }, heading, ...body);
  // A click on the backdrop is a click on the dialog itself, outside of what it holds.
  element.addEventListener("click", (/** @type {Event} */ event) => event.target === element && element.close());
  document.body.append(element);
  return element;
}

/** The list of shortcuts. @returns {HTMLDialogElement} */
export function shortcutsDialog() {
  const rows = SHORTCUTS.flatMap(([keys, what]) => [h("dt", {}, ...keys.split("+").map((key) => h("kbd", { text: key }))), h("dd", { text: what })]);
  const close = h("form.dialog-buttons", { method: "dialog" }, h("button.button", { text: "Close" }));
  return dialog("Keyboard shortcuts", h("dl.shortcuts", {}, ...rows), close);
}

/**
 * Asks for a key.
 * @param {(key: string | null, remember: boolean) => void} onKey null: there is none any more
 */
export function keyDialog(onKey) {
  const input = h("input", { id: "key", type: "password", autocomplete: "off", spellcheck: "false", required: true });
  const remember = h("input", { id: "remember", type: "checkbox" });
  const why = h("p.dialog-why");
  const form = h(
    "form",
    {
      method: "dialog",
      onsubmit: () => onKey(input.value.trim() || null, remember.checked),
    },
    h("div.field", {}, h("label", { for: "key", text: "API key" }), input),
    h("div.field.tick", {}, remember, h("label", { for: "remember", text: "Remember on this device" })),
    h(
      "div.dialog-buttons",
      {},
      h("button.button", { type: "button", text: "Forget", onclick: () => (onKey(null, false), element.close()) }),
      h("button.button.primary", { text: "Use key" }),
    ),
  );
  const element = dialog("API key", why, form);
  return {
    /** @param {string} reason */
    open(reason) {
      if (element.open) return;
      input.value = "";
      why.textContent = reason;
      element.showModal();
      input.focus();
    },
  };
}
