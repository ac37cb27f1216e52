// What a screen reader hears. The conversation itself is silent: a region that grows by the token would never stop talking.

import { setText } from "./dom.js";

const status = /** @type {HTMLElement} */ (document.getElementById("status"));
const toastBox = /** @type {HTMLElement} */ (document.getElementById("toast"));
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** @param {string} text */
export function say(text) {
  setText(status, text);
}

/**
 * A short notice at the foot of the page, perhaps with something to do about it.
 * @param {string} text
 * @param {{label: string, run: () => void}} [action]
 */
export function toast(text, action) {
  clearTimeout(timer);
  const close = () => {
    toastBox.hidden = true;
  };
  toastBox.replaceChildren(text);
  if (action) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = action.label;
    button.addEventListener("click", () => {
      close();
      action.run();
    });
    toastBox.append(button);
  }
  toastBox.hidden = false;
  timer = setTimeout(close, action ? 8000 : 3000);
}
