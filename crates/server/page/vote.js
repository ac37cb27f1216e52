// The vote while it builds. The server counts the final one (equal answers are its business); until its summary comes, the
// page shows what the streams that have ended say, compared as plain text.

/** @typedef {{answer: string, votes: number, weight: number, choices: number[]}} Group */

/**
 * The final answer in a text that has ended, as far as its form tells: what stands behind "answer:", a boxed
 * expression, or a short text itself.
 * @param {string} content
 * @returns {string | null}
 */
export function provisionalAnswer(content) {
  const plain = content.replace(/[*_`]/g, "").trim();
  if (plain === "") return null;
  const boxed = [...plain.matchAll(/\\boxed\{([^{}]*)\}/g)].at(-1)?.[1];
  const named = [...plain.matchAll(/answer\s*(?:is\s*:?|[:=])\s*([^\n]+)/gi)].at(-1)?.[1];
  const answer = (boxed ?? named ?? (plain.length <= 40 ? plain : null))?.trim().replace(/\.$/, "");
  return answer || null;
}

/**
 * Groups of equal answers, the heaviest first.
 * @param {import("./turn.js").Choice[]} choices
 * @param {boolean} byScore weigh each vote by its score
 * @returns {Group[]}
 */
export function tally(choices, byScore) {
  /** @type {Map<string, Group>} */
  const groups = new Map();
  for (const choice of choices) {
    if (choice.answer === null || choice.finish === "decided") continue;
    const group = groups.get(choice.answer) ?? { answer: choice.answer, votes: 0, weight: 0, choices: [] };
    group.votes += 1;
    group.weight += byScore ? (choice.score ?? 0) : 1;
    group.choices.push(choice.index);
    groups.set(choice.answer, group);
  }
  return [...groups.values()].sort((a, b) => b.weight - a.weight || b.votes - a.votes);
}
