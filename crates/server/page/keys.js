// The keyboard: one table for what is listed and one listener for what is done.

/** Keys and what they do, as the list shows them. */
export const SHORTCUTS = /** @type {const} */ ([
  ["Enter", "send the question"],
  ["Shift+Enter", "a new line"],
  ["Esc", "stop the answer, or close what is open"],
  ["Alt+A", "answer now: end the thought"],
  ["Alt+T", "thinking auto, on, off"],
  ["Alt+R", "ask again"],
  ["Alt+N", "new chat"],
  ["Alt+S", "settings"],
  ["/", "write the question"],
  ["?", "this list"],
]);

/**
 * @param {{stop: () => boolean, answerNow: () => void, think: () => void, again: () => void, newChat: () => void,
 *   panel: () => void, write: () => void, list: () => void}} host `stop` says whether there was something to stop
 */
export function listen(host) {
  /** @type {Record<string, () => void>} */
  const alt = { KeyA: host.answerNow, KeyT: host.think, KeyR: host.again, KeyN: host.newChat, KeyS: host.panel };
  document.addEventListener("keydown", (event) => {
    // A dialog has its own Esc; text under composition has its own everything.
    if (event.isComposing || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      if (host.stop()) event.preventDefault();
      return;
    }
    if (event.altKey && !event.ctrlKey && !event.metaKey) {
      const run = alt[event.code];
      if (!run) return;
      event.preventDefault();
      run();
      return;
    }
    if (event.ctrlKey || event.metaKey || isField(event.target)) return;
    if (event.key === "/") {
      event.preventDefault();
      host.write();
    } else if (event.key === "?") {
      event.preventDefault();
      host.list();
    }
  });
}

/** @param {EventTarget | null} target */
function isField(target) {
  return target instanceof HTMLElement && target.matches("input:not([type=radio], [type=checkbox], [type=range]), textarea, select");
}
