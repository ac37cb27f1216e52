// What a reader can set, its defaults, and the request that it becomes.

/**
 * @typedef {object} Settings
 * @property {"auto"|"on"|"off"} think
 * @property {number | null} budget tokens of thought; null is none
 * @property {number | null} minThink a thought is at least this long
 * @property {number} n parallel streams
 * @property {"majority"|"weighted"|"best"} vote
 * @property {"off"|"verifier"|"genrm"} scoring
 * @property {"exact"|"off"|"0.95"} earlyStop
 * @property {boolean} waves begin only the streams that can decide the vote
 * @property {boolean} scaleN the switcher's score chooses how many streams
 * @property {number} temperature
 * @property {number | null} seed
 * @property {number | null} maxTokens
 * @property {string} system
 * @property {string | null} adapter
 * @property {boolean} openThoughts unfold thoughts while they come
 * @property {boolean | null} panel null: open where there is room
 */

/**
 * Defaults for a server; `props` is null until it has answered.
 * @param {any} props
 * @returns {Settings}
 */
export function defaults(props) {
  const verifier = props?.verifier === true;
  return {
    think: props?.default_think ?? "auto",
    budget: null,
    minThink: null,
    n: 1,
    vote: verifier ? "weighted" : "majority",
    scoring: verifier ? "verifier" : "off",
    earlyStop: "exact",
    waves: false,
    scaleN: false,
    temperature: 0.7,
    seed: null,
    maxTokens: null,
    system: "",
    adapter: null,
    openThoughts: false,
    panel: null,
  };
}

/**
 * What holds: the defaults, what the reader changed, and of that only what this server has. Kept settings may come from
 * another server at the same address.
 * @param {any} props
 * @param {Partial<Settings>} changed
 * @returns {Settings}
 */
export function resolve(props, changed) {
  const settings = { ...defaults(props), ...changed };
  if (!props) return settings;
  if (!props.adapters?.some((/** @type {any} */ one) => one.name === settings.adapter)) settings.adapter = null;
  if (!props.switcher && settings.think === "auto") settings.think = props.default_think === "off" ? "off" : "on";
  if (!props.verifier && settings.scoring === "verifier") settings.scoring = "off";
  const stops = budgetStops(props, settings.adapter);
  settings.budget = stops[nearestStop(stops, settings.budget)];
  settings.n = Math.min(settings.n, mostStreams(props));
  return settings;
}

/** The end of the slider for streams. @param {any} props */
export const mostStreams = (props) => Math.min(props?.limits?.max_n ?? 8, 8);

/**
 * Stops of the budget slider: the budgets the adapter was trained with, then none. A budget that leaves no room in the
 * model's context is none of them.
 * @param {any} props
 * @param {string | null} adapter
 * @returns {(number | null)[]}
 */
export function budgetStops(props, adapter) {
  const adapters = props?.adapters ?? [];
  const chosen = adapters.find((/** @type {any} */ one) => one.name === adapter) ?? adapters[0];
  const most = (props?.model?.context_tokens ?? Infinity) / 2;
  const fit = (/** @type {number[]} */ budgets) => budgets.filter((budget) => budget <= most).sort((a, b) => a - b);
  const trained = fit([...(chosen?.budgets ?? [])]);
  return [...(trained.length > 0 ? trained : fit([128, 256, 512, 1024, 2048])), null];
}

/**
 * The nearest stop to a budget that this adapter may not have.
 * @param {(number | null)[]} stops
 * @param {number | null} budget
 * @returns {number} its place
 */
export function nearestStop(stops, budget) {
  if (budget === null) return stops.length - 1;
  let best = 0;
  for (const [place, stop] of stops.entries()) {
    const nearer = stop !== null && Math.abs(stop - budget) < Math.abs((stops[best] ?? Infinity) - budget);
    if (nearer) best = place;
  }
  return best;
}

/**
 * The body of `POST /v1/chat/completions`. Only keys with a value are sent: the server refuses what it does not know.
 * @param {Settings} settings
 * @param {any} props
 * @param {{role: string, content: string}[]} messages
 */
export function request(settings, props, messages) {
  const many = settings.n > 1;
  const system = settings.system.trim();
  /** @type {Record<string, any>} */
  const edgethink = { think: settings.think };
  if (settings.think !== "off") {
    if (settings.budget !== null) edgethink.budget = settings.budget;
    if (settings.minThink) edgethink.min_think = settings.minThink;
    if (settings.adapter) edgethink.adapter = settings.adapter;
  }
  if (settings.scoring !== "off") edgethink.scoring = settings.scoring;
  if (many) {
    // A vote by scores has no meaning without them.
    edgethink.vote = settings.scoring === "off" ? "majority" : settings.vote;
    edgethink.early_stop = settings.earlyStop === "0.95" ? 0.95 : settings.earlyStop;
    if (settings.waves) edgethink.waves = true;
    if (settings.scaleN && settings.think === "auto") edgethink.scale_n = true;
  }
  return {
    model: props?.model?.id ?? "default",
    messages: system ? [{ role: "system", content: system }, ...messages] : messages,
    stream: true,
    stream_options: { include_usage: true },
    n: settings.n,
    temperature: settings.temperature,
    ...(settings.seed === null ? {} : { seed: settings.seed }),
    ...(settings.maxTokens ? { max_completion_tokens: settings.maxTokens } : {}),
    edgethink,
  };
}
