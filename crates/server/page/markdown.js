// A small, safe part of Markdown, made into nodes: paragraphs, headings, lists, rules, fenced code, and inside a line code,
// bold and italic. Everything else stays text. HTML is text too: no string ever becomes markup.

import { h } from "./dom.js";

const FENCE = /^ {0,3}(```+|~~~+)\s*(\S*)/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const INLINE = /(`+)([^`]|[^`].*?[^`])\1(?!`)|\*\*(?=\S)(.+?)(?<=\S)\*\*(?!\*)|(?<![\w*])([*_])(?=\S)(.+?)(?<=\S)\4(?![\w*])/;

/**
 * @param {string} text
 * @returns {DocumentFragment}
 */
export function render(text) {
  const out = document.createDocumentFragment();
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  // A question is a heading of level 2: an answer's begin below it, and go down one step at a time.
  const top = Math.min(...lines.map((line) => HEADING.exec(line)?.[1].length ?? Infinity));
  let level = 2;
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    if (line.trim() === "") {
      at += 1;
    } else if (FENCE.test(line)) {
      at = fence(lines, at, out);
    } else if (HEADING.test(line)) {
      const [, marks, title] = /** @type {RegExpExecArray} */ (HEADING.exec(line));
      level = Math.min(marks.length - top + 3, level + 1, 6);
      out.append(inline(h(`h${level}`), title));
      at += 1;
    } else if (RULE.test(line)) {
      out.append(h("hr"));
      at += 1;
    } else if (ITEM.test(line)) {
      at = list(lines, at, out);
    } else {
      at = paragraph(lines, at, out);
    }
  }
  return out;
}

/** A fence that is never closed runs to the end: so it looks while it streams. @param {string[]} lines @param {number} at @param {Node} out */
function fence(lines, at, out) {
  const [, marks, language] = /** @type {RegExpExecArray} */ (FENCE.exec(lines[at]));
  const code = [];
  let next = at + 1;
  while (next < lines.length && !lines[next].trimStart().startsWith(marks)) code.push(lines[next++]);
  const label = language ? `Code, ${language}` : "Code";
  out.appendChild(h("pre", { tabindex: "0", role: "region", "aria-label": label }, h("code", { text: code.join("\n") })));
  return next + 1;
}

/** @param {string[]} lines @param {number} at @param {Node} out */
function paragraph(lines, at, out) {
  const text = [];
  const other = (/** @type {string} */ line) => line.trim() === "" || [FENCE, HEADING, RULE, ITEM].some((form) => form.test(line));
  do text.push(lines[at++]);
  while (at < lines.length && !other(lines[at]));
  out.appendChild(inline(h("p"), text.join("\n")));
  return at;
}

/** Items of one list; deeper ones make a list inside the item before them. @param {string[]} lines @param {number} at @param {Node} out */
function list(lines, at, out) {
  const first = /** @type {RegExpExecArray} */ (ITEM.exec(lines[at]));
  const depth = first[1].length;
  const numbered = /\d/.test(first[2]);
  const start = Number.parseInt(first[2], 10);
  const element = h(numbered ? "ol" : "ul", numbered && start !== 1 ? { start } : {});
  out.appendChild(element);
  let item = null;
  while (at < lines.length) {
    const line = lines[at];
    const match = ITEM.exec(line);
    if (match && match[1].length >= depth + 2 && item) {
      at = list(lines, at, item);
    } else if (match && match[1].length < depth + 2 && match[1].length >= depth && /\d/.test(match[2]) === numbered) {
      item = inline(h("li"), match[3]);
      element.append(item);
      at += 1;
    } else if (!match && item && line.trim() !== "" && /^\s{2,}/.test(line)) {
      inline(item, `\n${line.trim()}`);
      at += 1;
    } else if (line.trim() === "" && at + 1 < lines.length && (ITEM.exec(lines[at + 1])?.[1].length ?? -1) >= depth) {
      at += 1;
    } else {
      break;
    }
  }
  return at;
}

/**
 * Appends a line with code, bold and italic to an element.
 * @template {Element} T
 * @param {T} element
 * @param {string} text
 * @returns {T}
 */
function inline(element, text) {
  let rest = text;
  for (;;) {
    const match = INLINE.exec(rest);
    if (!match) break;
    element.append(rest.slice(0, match.index));
    if (match[1]) element.append(h("code", { text: match[2] }));
    else if (match[3]) element.append(inline(h("strong"), match[3]));
    else element.append(inline(h("em"), match[5]));
    rest = rest.slice(match.index + match[0].length);
  }
  element.append(rest);
  return element;
}
