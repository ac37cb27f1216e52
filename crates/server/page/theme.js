// The colour scheme, before the first paint: "auto" follows the system, "light" and "dark" hold.
// A classic script in the head, because a module would run after the page was seen in the wrong colours.
(() => {
  const KEY = "edgethink.theme";
  const root = document.documentElement;

  /** @returns {"auto"|"light"|"dark"} */
  function get() {
    return root.dataset.theme === "light" || root.dataset.theme === "dark" ? root.dataset.theme : "auto";
  }

  /** @param {string | null} theme */
  function set(theme) {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
    try {
      localStorage.setItem(KEY, get());
    } catch {
      // A browser that keeps nothing still shows the theme until it is closed.
    }
  }

  let stored = null;
  try {
    stored = localStorage.getItem(KEY);
  } catch {
    // See above.
  }
  if (stored) set(stored);
  Object.assign(window, { edgethinkTheme: { get, set } });
})();
