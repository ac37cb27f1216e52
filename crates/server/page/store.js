// What the browser keeps: settings, the conversation, the key. A full or forbidden storage loses the keeping, never the page.

import { end, isLive } from "./turn.js";

const SETTINGS = "edgethink.settings";
const TURNS = "edgethink.conversation";
const KEY = "edgethink.key";
/** Of the stored form; another version is not read. */
const VERSION = 1;

/** @param {Storage} place @param {string} name @returns {any} */
function read(place, name) {
  try {
    const stored = JSON.parse(place.getItem(name) ?? "null");
    return stored?.version === VERSION ? stored.value : null;
  } catch {
    return null;
  }
}

/** @param {Storage} place @param {string} name @param {unknown} value null removes it */
function write(place, name, value) {
  try {
    if (value === null) place.removeItem(name);
    else place.setItem(name, JSON.stringify({ version: VERSION, value }));
    return true;
  } catch {
    return false;
  }
}

/** Only what the reader changed is kept, so that a server's defaults can change. @returns {Partial<import("./settings.js").Settings>} */
export const loadSettings = () => read(localStorage, SETTINGS) ?? {};

/** @param {Partial<import("./settings.js").Settings>} changed */
export const saveSettings = (changed) => write(localStorage, SETTINGS, changed);

/** @returns {import("./turn.js").Turn[]} */
export function loadTurns() {
  const turns = read(localStorage, TURNS);
  if (!Array.isArray(turns)) return [];
  // A page that was closed in the middle of an answer finds the half it had.
  for (const turn of turns) if (isLive(turn)) end(turn, "stopped");
  return turns;
}

/**
 * Keeps the conversation; when the storage is full, its newest turns.
 * @param {import("./turn.js").Turn[]} turns
 */
export function saveTurns(turns) {
  for (let from = 0; from < turns.length; from = from + Math.ceil((turns.length - from) / 2)) {
    if (write(localStorage, TURNS, turns.slice(from))) return;
  }
  write(localStorage, TURNS, null);
}

/** @returns {string | null} */
export const loadKey = () => read(sessionStorage, KEY) ?? read(localStorage, KEY);

/** @param {string | null} key @param {boolean} remember beyond this tab */
export function saveKey(key, remember) {
  write(sessionStorage, KEY, key);
  write(localStorage, KEY, remember ? key : null);
}
