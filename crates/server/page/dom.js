// Building DOM nodes. Nothing on this page is made from a string of HTML.

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * An element. `name` may carry classes: "button.quiet". A property that starts with "on" is a listener, `text` is the
 * text, a value of `false`, `null` or `undefined` leaves the attribute out and `true` sets it empty.
 * @param {string} name
 * @param {Record<string, any>} [props]
 * @param {...Child} children
 * @returns {any}
 */
export function h(name, props = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  return fill(document.createElement(tag), classes, props, children);
}

/**
 * An SVG element, as `h`.
 * @param {string} name
 * @param {Record<string, any>} [props]
 * @param {...Child} children
 * @returns {any}
 */
export function svg(name, props = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), classes, props, children);
}

/**
 * @param {Element} element
 * @param {string[]} classes
 * @param {Record<string, any>} props
 * @param {Child[]} children
 */
function fill(element, classes, props, children) {
  if (classes.length > 0) element.classList.add(...classes);
  for (const [key, value] of Object.entries(props)) {
    if (key === "text") element.textContent = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else attribute(element, key, value);
  }
  for (const child of children) if (child) element.append(child);
  return element;
}

/**
 * Sets, empties or removes an attribute; writes nothing that is already there.
 * @param {Element} element
 * @param {string} name
 * @param {unknown} value
 */
export function attribute(element, name, value) {
  if (value === false || value === null || value === undefined) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/**
 * Text of an element, written only when it changes: a live region speaks and the layout moves on every write.
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Text that grows: only what is new is appended, so a long thought costs no more per frame than a short one.
 * @param {Element} element an element that holds nothing but this text
 * @param {string} text
 */
export function growText(element, text) {
  const node = element.firstChild;
  if (!(node instanceof Text)) {
    element.textContent = text;
  } else if (node.length < text.length) {
    node.appendData(text.slice(node.length));
  } else if (node.length > text.length) {
    node.data = text;
  }
}
