// One question and its answer as data: the chunks of a stream, folded. Nothing here touches the page.

import { provisionalAnswer } from "./vote.js";

/**
 * @typedef {object} Choice one stream
 * @property {number} index
 * @property {string} reasoning
 * @property {string} content
 * @property {number} thoughtTokens counted by chunks while it comes, exact once it has ended
 * @property {boolean} thoughtDone
 * @property {string | null} thoughtEnd model, budget, loop, turn, caller; null while open, or if it never ended
 * @property {string | null} finish stop, length, cancelled, decided, or idle for a stream that was never begun
 * @property {number | null} score
 * @property {string | null} answer
 */

/**
 * @typedef {object} Turn
 * @property {string} question
 * @property {string | null} id of the completion, for `end_thought`
 * @property {"waiting"|"running"|"done"|"stopped"|"failed"} status
 * @property {{n: number, vote: string, scoring: string, budget: number | null, think: string}} asked
 * @property {{score: number, threshold: number, thinks: boolean} | null} decision
 * @property {Choice[]} choices
 * @property {{winner: number, groups: import("./vote.js").Group[]} | null} vote
 * @property {any} summary
 * @property {any} usage
 * @property {number} beganMs
 * @property {number | null} firstMs from the request to the first text, as this page saw it
 * @property {{message: string, status: number, type: string | null, param: string | null, code: string | null, retryAfterS: number | null} | null} error
 */

/**
 * @param {string} question
 * @param {import("./settings.js").Settings} settings
 * @param {number} nowMs
 * @returns {Turn}
 */
export function newTurn(question, settings, nowMs) {
  const { n, vote, scoring, budget, think } = settings;
  return {
    question,
    id: null,
    status: "waiting",
    asked: { n, vote, scoring, budget, think },
    decision: null,
    choices: Array.from({ length: n }, (_, index) => newChoice(index)),
    vote: null,
    summary: null,
    usage: null,
    beganMs: nowMs,
    firstMs: null,
    error: null,
  };
}

/** @param {number} index @returns {Choice} */
function newChoice(index) {
  return {
    index,
    reasoning: "",
    content: "",
    thoughtTokens: 0,
    thoughtDone: false,
    thoughtEnd: null,
    finish: null,
    score: null,
    answer: null,
  };
}

/**
 * Folds one chunk into the turn.
 * @param {Turn} turn
 * @param {any} chunk
 * @param {number} nowMs
 */
export function apply(turn, chunk, nowMs) {
  turn.status = "running";
  turn.id ??= chunk.id ?? null;
  if (chunk.usage) turn.usage = chunk.usage;
  for (const part of chunk.choices ?? []) delta(turn, part, nowMs);
  const more = chunk.edgethink;
  if (!more) return;
  if (more.decision) turn.decision = more.decision;
  if (more.thought_ended) {
    const choice = choiceOf(turn, more.thought_ended.index);
    choice.thoughtTokens = more.thought_ended.tokens;
    choice.thoughtEnd = more.thought_ended.end;
    choice.thoughtDone = true;
  }
  if (more.scored) choiceOf(turn, more.scored.index).score = more.scored.score;
  if (more.timings) summarize(turn, more);
}

/** @param {Turn} turn @param {any} part @param {number} nowMs */
function delta(turn, part, nowMs) {
  const choice = choiceOf(turn, part.index);
  const reasoning = part.delta?.reasoning_content ?? part.delta?.reasoning ?? "";
  const content = part.delta?.content ?? "";
  if (reasoning || content) turn.firstMs ??= nowMs - turn.beganMs;
  if (reasoning) {
    choice.reasoning += reasoning;
    choice.thoughtTokens += 1;
  }
  if (content) {
    choice.content += content;
    choice.thoughtDone ||= choice.reasoning !== "";
  }
  if (part.finish_reason) {
    choice.finish = part.finish_reason;
    choice.answer = provisionalAnswer(choice.content);
  }
}

/** @param {Turn} turn @param {any} summary */
function summarize(turn, summary) {
  turn.summary = summary;
  turn.vote = summary.vote ?? null;
  turn.decision ??= summary.decision ?? null;
  for (const one of summary.choices ?? []) {
    const choice = choiceOf(turn, one.index);
    choice.answer = one.answer;
    choice.score = one.score;
    choice.finish = one.finish;
    choice.thoughtTokens = one.reasoning_tokens;
    choice.thoughtEnd = one.thought_closed;
    choice.thoughtDone ||= one.thought_closed !== null;
  }
  // Waves and a scaled n begin fewer streams than were asked for.
  for (const choice of turn.choices) choice.finish ??= "idle";
}

/**
 * Ends a turn that no chunk ends: the reader stopped it, or it failed.
 * @param {Turn} turn
 * @param {"done"|"stopped"|"failed"} status
 */
export function end(turn, status) {
  turn.status = status;
  if (status !== "done") {
    for (const choice of turn.choices) choice.finish ??= choice.reasoning || choice.content ? "cancelled" : "idle";
  }
}

/** @param {Turn} turn @param {number} index */
function choiceOf(turn, index) {
  let choice = turn.choices.find((one) => one.index === index);
  if (!choice) {
    choice = newChoice(index);
    turn.choices.push(choice);
    turn.choices.sort((a, b) => a.index - b.index);
  }
  return choice;
}

/** @param {Turn} turn */
export const isLive = (turn) => turn.status === "waiting" || turn.status === "running";

/** @param {Choice} choice a thought that is open now */
export const isThinking = (choice) => choice.reasoning !== "" && !choice.thoughtDone && choice.finish === null;

/**
 * The choice whose text is the turn's answer: the vote's winner, else the best scored, else the first with a text.
 * @param {Turn} turn
 * @returns {Choice | null}
 */
export function best(turn) {
  const answered = turn.choices.filter((choice) => choice.content !== "");
  const winner = turn.vote && answered.find((choice) => choice.index === turn.vote?.winner);
  if (winner) return winner;
  return answered.reduce((/** @type {Choice | null} */ top, one) => (!top || (one.score ?? 0) > (top.score ?? 0) ? one : top), null);
}

/**
 * The conversation as messages of the API. A turn without an answer is left out, or two questions would stand in a row.
 * @param {Turn[]} turns
 * @param {string} question the new one
 */
export function messages(turns, question) {
  const all = [];
  for (const turn of turns) {
    const answer = best(turn)?.content;
    if (answer) all.push({ role: "user", content: turn.question }, { role: "assistant", content: answer });
  }
  all.push({ role: "user", content: question });
  return all;
}
