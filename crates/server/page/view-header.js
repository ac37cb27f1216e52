// The bar at the top: the name, the model, and the buttons for a new chat, shortcuts, colours and the panel.

import { attribute, h, setText } from "./dom.js";
import { icon } from "./icons.js";

const THEMES = /** @type {const} */ (["auto", "light", "dark"]);
const THEME_ICONS = /** @type {const} */ ({ auto: "auto", light: "sun", dark: "moon" });

export class HeaderView {
  /**
   * @param {HTMLElement} header
   * @param {{newChat: () => void, shortcuts: () => void, panel: () => void}} host
   */
  constructor(header, host) {
    this.model = h("span.model");
    this.dot = h("span.dot", { "aria-hidden": "true" });
    this.theme = h("button.icon-button", { type: "button", onclick: () => this.#nextTheme() });
    this.panel = h(
      "button.icon-button",
      { type: "button", title: "Settings (Alt+S)", "aria-label": "Settings", "aria-controls": "panel", "aria-expanded": "false", onclick: host.panel },
      icon("sliders"),
    );
    header.append(
      h("div.brand", {}, h("h1", { text: "edgethink" }), this.dot, this.model),
      h(
        "nav.bar-buttons",
        { "aria-label": "Page" },
        h("button.icon-button", { type: "button", title: "New chat (Alt+N)", "aria-label": "New chat", onclick: host.newChat }, icon("plus")),
        h("button.icon-button.wide-only", { type: "button", title: "Shortcuts (?)", "aria-label": "Keyboard shortcuts", onclick: host.shortcuts }, icon("keyboard")),
        this.theme,
        this.panel,
      ),
    );
    this.#showTheme();
  }

  /** @param {string} model @param {"waiting"|"up"|"down"} state */
  server(model, state) {
    setText(this.model, state === "down" ? "no server" : model);
    attribute(this.dot, "data-state", state);
  }

  /** @param {boolean} open */
  panelIs(open) {
    attribute(this.panel, "aria-expanded", String(open));
  }

  #nextTheme() {
    const { edgethinkTheme } = /** @type {any} */ (window);
    edgethinkTheme.set(THEMES[(THEMES.indexOf(edgethinkTheme.get()) + 1) % THEMES.length]);
    this.#showTheme();
  }

  #showTheme() {
    const theme = /** @type {"auto"|"light"|"dark"} */ (/** @type {any} */ (window).edgethinkTheme.get());
    const words = { auto: "as the system", light: "light", dark: "dark" }[theme];
    attribute(this.theme, "title", `Colours: ${words}`);
    attribute(this.theme, "aria-label", `Colours: ${words}`);
    this.theme.replaceChildren(icon(THEME_ICONS[theme]));
  }
}
