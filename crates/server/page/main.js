// The page put together: state, the views that show it, and what happens when something is asked.

import { say, toast } from "./announce.js";
import { Api, ApiError } from "./api.js";
import { attribute } from "./dom.js";
import { listen } from "./keys.js";
import { Poller } from "./metrics.js";
import { request, resolve } from "./settings.js";
import { loadKey, loadSettings, loadTurns, saveKey, saveSettings, saveTurns } from "./store.js";
import { apply, best, end, isLive, isThinking, messages, newTurn } from "./turn.js";
import { ChatView } from "./view-chat.js";
import { ComposerView } from "./view-composer.js";
import { keyDialog, shortcutsDialog } from "./view-dialogs.js";
import { HeaderView } from "./view-header.js";
import { MachineView } from "./view-machine.js";
import { PanelView } from "./view-panel.js";

const at = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
/** Wide enough for the panel beside the conversation; narrower, it lies over it. */
const roomy = matchMedia("(min-width: 68rem)");

const api = new Api(loadKey());
/** @type {any} */
let props = null;
let changed = loadSettings();
let turns = loadTurns();
/** @type {AbortController | null} */
let running = null;
/** @type {(() => void) | null} */
let afterKey = null;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let nextTry;

const settings = () => resolve(props, changed);
const modelName = () => props?.model?.id ?? "";
const current = () => turns.at(-1);

// ---- views

const machine = new MachineView(() => props);
const header = new HeaderView(at("header"), { newChat, shortcuts: () => shortcuts.showModal(), panel: () => togglePanel() });
const chat = new ChatView(at("log"), { ask, actions: actionsOf, openThoughts: () => settings().openThoughts });
const composer = new ComposerView(at("dock"), { settings, change, props: () => props, ask, stop, answerNow: () => answerNow(null) });
const panel = new PanelView(at("panel"), { settings, change, reset, props: () => props, close: () => togglePanel(false), key: () => askKey("Sent with every request."), machine });
const shortcuts = shortcutsDialog();
const keys = keyDialog(setKey);
const poller = new Poller(api, () => panelOpen() || running !== null, (now) => machine.reading(now));

/** @param {import("./turn.js").Turn} turn */
function actionsOf(turn) {
  return {
    copy,
    edit: (/** @type {string} */ text) => askFrom(turn, text),
    again: () => askFrom(turn, turn.question),
    answerNow: (/** @type {number | null} */ index) => answerNow(index),
  };
}

// ---- settings and panel

/** @param {Partial<import("./settings.js").Settings>} some */
function change(some) {
  changed = { ...changed, ...some };
  saveSettings(changed);
  composer.refresh();
  panel.refresh();
}

function reset() {
  changed = {};
  change({});
  toast("Settings are as they were at first.");
}

function panelOpen() {
  // Over the conversation it opens only when asked to, whatever a wide window remembers.
  return !at("panel").hidden;
}

/** @param {boolean} [open] */
function togglePanel(open = !panelOpen()) {
  showPanel(open);
  if (roomy.matches) change({ panel: open });
  if (!roomy.matches) (open ? panel.close : header.panel).focus();
}

/** @param {boolean} open */
function showPanel(open) {
  at("panel").hidden = !open;
  attribute(at("main"), "inert", open && !roomy.matches);
  header.panelIs(open);
  if (open) poller.poke();
}

// ---- asking

/** @param {string} text */
function ask(text) {
  if (running) return;
  const turn = newTurn(text, settings(), performance.now());
  const body = request(settings(), props, messages(turns, text));
  turns = [...turns, turn];
  chat.show(turns, modelName());
  run(turn, body);
}

/**
 * Asks in the place of a turn; what came after it goes.
 * @param {import("./turn.js").Turn} turn
 * @param {string} text
 */
function askFrom(turn, text) {
  if (running) return;
  turns = turns.slice(0, turns.indexOf(turn));
  ask(text);
  composer.focus();
}

/** @param {import("./turn.js").Turn} turn @param {object} body */
async function run(turn, body) {
  const controller = new AbortController();
  running = controller;
  saveTurns(turns);
  say("Asked.");
  poller.poke();
  let frame = 0;
  const draw = () => {
    frame = 0;
    chat.update(turn);
    composer.busy(isLive(turn), turn.choices.some(isThinking));
    progress(turn);
  };
  const drawSoon = () => {
    frame ||= requestAnimationFrame(draw);
  };
  draw();
  try {
    for await (const chunk of api.chat(body, controller.signal)) {
      apply(turn, chunk, performance.now());
      drawSoon();
    }
    end(turn, "done");
  } catch (error) {
    fail(turn, error, controller.signal.aborted);
  }
  cancelAnimationFrame(frame);
  running = null;
  draw();
  saveTurns(turns);
  if (turn.summary) machine.answered(turn.summary);
  poller.poke();
}

/** @param {import("./turn.js").Turn} turn @param {unknown} error @param {boolean} stopped */
function fail(turn, error, stopped) {
  end(turn, stopped ? "stopped" : "failed");
  if (stopped) return;
  const known = error instanceof ApiError ? error : new ApiError(0, { message: error instanceof Error ? error.message : String(error) });
  const { message, status, type, param, code, retryAfterS } = known;
  turn.error = { message, status, type, param, code, retryAfterS };
  if (status === 0) connect();
  if (status === 401) askKey("The server asks for a key.", () => askFrom(turn, turn.question));
}

/** Says what a reader who cannot see it needs to know. @param {import("./turn.js").Turn} turn */
function progress(turn) {
  if (turn.status === "failed") return; // The error is an alert of its own.
  if (turn.status === "stopped") say("Stopped.");
  else if (turn.status === "done") say(`Answer: ${best(turn)?.content ?? "none"}`);
  else if (turn.choices.some(isThinking)) say(turn.asked.n > 1 ? `Thinking in ${turn.asked.n} streams.` : "Thinking.");
  else if (turn.choices.some((choice) => choice.content)) say("Answering.");
}

/** @returns {boolean} whether there was an answer to stop */
function stop() {
  if (!running) return false;
  running.abort();
  return true;
}

/** @param {number | null} index */
async function answerNow(index) {
  const turn = current();
  if (!turn?.id || !isLive(turn)) return;
  try {
    await api.endThought(turn.id, index);
  } catch (error) {
    // The thought may have ended meanwhile: then there is nothing to say.
    if (!(error instanceof ApiError && error.status === 404)) toast(error instanceof Error ? error.message : String(error));
  }
}

function newChat() {
  stop();
  const before = turns;
  turns = [];
  saveTurns(turns);
  chat.show(turns, modelName());
  composer.focus();
  const back = () => {
    if (running) return;
    turns = before;
    saveTurns(turns);
    chat.show(turns, modelName());
  };
  if (before.length > 0) toast("A new chat.", { label: "Undo", run: back });
}

/** @param {string} text */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied.");
  } catch {
    toast("The browser does not let this page copy.");
  }
}

// ---- the server

/** @param {string} reason @param {() => void} [then] */
function askKey(reason, then) {
  afterKey = then ?? null;
  keys.open(reason);
}

/** @param {string | null} key @param {boolean} remember */
async function setKey(key, remember) {
  api.key = key;
  saveKey(key, remember);
  const then = afterKey;
  afterKey = null;
  if ((await connect()) && key) then?.();
}

/** Asks the server what it is. @returns {Promise<boolean>} whether it answered */
async function connect() {
  clearTimeout(nextTry);
  try {
    props = await api.props();
    header.server(modelName(), "up");
  } catch (error) {
    const refused = error instanceof ApiError && error.status !== 0;
    header.server("", refused ? "waiting" : "down");
    if (error instanceof ApiError && error.status === 401) askKey("The server asks for a key.");
    else nextTry = setTimeout(connect, 3000);
    return false;
  }
  composer.refresh();
  panel.refresh();
  if (turns.length === 0) chat.show(turns, modelName());
  poller.poke();
  return true;
}

// ---- begin

listen({
  stop: () => {
    if (stop()) return true;
    if (!panelOpen() || roomy.matches) return false;
    togglePanel(false);
    return true;
  },
  answerNow: () => answerNow(null),
  think: () => change({ think: /** @type {const} */ ({ auto: "on", on: "off", off: "auto" })[settings().think] }),
  again: () => {
    const turn = current();
    if (turn) askFrom(turn, turn.question);
  },
  newChat,
  panel: () => togglePanel(),
  write: () => composer.focus(),
  list: () => shortcuts.showModal(),
});
roomy.addEventListener("change", () => showPanel(roomy.matches && (settings().panel ?? true)));
addEventListener("pagehide", () => {
  // Before the browser breaks the connection: that would look like a failure.
  stop();
  saveTurns(turns);
});
header.server("", "waiting");
chat.show(turns, modelName());
showPanel(roomy.matches && (settings().panel ?? true));
connect();
if (roomy.matches) composer.focus();
