// The controls that appear more than once: a slider, a switch of several words, a number, a choice, a tick.

import { attribute, h, setText } from "./dom.js";

let count = 0;
const newId = () => `field-${++count}`;

/**
 * A slider with its name and its value in words.
 * @param {string} name
 * @param {(value: number) => void} onChange
 */
export function slider(name, onChange) {
  const id = newId();
  const shown = h("output.field-value", { for: id });
  const input = h("input", { id, type: "range", step: "1", oninput: () => onChange(Number(input.value)) });
  const element = h("div.field.slider", {}, h("div.field-head", {}, h("label", { for: id, text: name }), shown), input);
  return {
    element,
    /** @param {number} value @param {number} min @param {number} max @param {string} text @param {string} [spoken] @param {number} [step] */
    set(value, min, max, text, spoken = text, step = 1) {
      attribute(input, "step", step);
      attribute(input, "min", min);
      attribute(input, "max", max);
      if (Number(input.value) !== value) input.value = String(value);
      attribute(input, "aria-valuetext", spoken);
      input.style.setProperty("--part", String(max > min ? (value - min) / (max - min) : 0));
      setText(shown, text);
    },
    /** @param {boolean} off */
    disable(off) {
      input.disabled = off;
      element.classList.toggle("off", off);
    },
  };
}

/**
 * A row of words of which one holds.
 * @param {string} name
 * @param {string} key the radio group
 * @param {Record<string, string>} options value to word
 * @param {(value: string) => void} onChange
 */
export function segments(name, key, options, onChange) {
  const group = `${key}-${newId()}`;
  /** @type {HTMLInputElement[]} */
  const inputs = [];
  const words = Object.entries(options).map(([value, word]) => {
    const input = h("input", { type: "radio", name: group, value, onchange: () => onChange(value) });
    inputs.push(input);
    return h("label.segment", {}, input, h("span", { text: word }));
  });
  const element = h("fieldset.segments", {}, h("legend", { text: name }), h("div.segments-row", {}, ...words));
  return {
    element,
    /** @param {string} value */
    set(value) {
      for (const input of inputs) input.checked = input.value === value;
    },
    /** @param {string} value @param {boolean} off */
    disable(value, off) {
      for (const input of inputs) if (input.value === value) input.disabled = off;
    },
  };
}

/**
 * A whole number that may be left empty.
 * @param {string} name
 * @param {string} hint what empty means
 * @param {number} min
 * @param {(value: number | null) => void} onChange
 */
export function number(name, hint, min, onChange) {
  const id = newId();
  const input = h("input", { id, type: "number", min, step: "1", inputmode: "numeric", placeholder: hint });
  input.addEventListener("change", () => {
    const value = Number.parseInt(input.value, 10);
    onChange(Number.isFinite(value) && value >= min ? value : null);
  });
  return {
    element: h("div.field.inline", {}, h("label", { for: id, text: name }), input),
    /** @param {number | null} value */
    set(value) {
      if (document.activeElement !== input) input.value = value === null ? "" : String(value);
    },
  };
}

/**
 * One of several, in a menu.
 * @param {string} name
 * @param {(value: string) => void} onChange
 */
export function choice(name, onChange) {
  const id = newId();
  const select = h("select", { id, onchange: () => onChange(select.value) });
  const element = h("div.field.inline", {}, h("label", { for: id, text: name }), select);
  return {
    element,
    /** @param {Record<string, string>} options value to word @param {string} value */
    set(options, value) {
      const wanted = JSON.stringify(options);
      if (select.dataset.options !== wanted) {
        select.replaceChildren(...Object.entries(options).map(([key, word]) => h("option", { value: key, text: word })));
        select.dataset.options = wanted;
      }
      select.value = value;
    },
  };
}

/**
 * A tick with its words.
 * @param {string} name
 * @param {string} why one line below
 * @param {(value: boolean) => void} onChange
 */
export function tick(name, why, onChange) {
  const id = newId();
  const input = h("input", { id, type: "checkbox", "aria-describedby": `${id}-why`, onchange: () => onChange(input.checked) });
  const element = h("div.field.tick", {}, input, h("label", { for: id, text: name }), h("p.why", { id: `${id}-why`, text: why }));
  return {
    element,
    /** @param {boolean} value */
    set(value) {
      input.checked = value;
    },
    /** @param {boolean} off */
    disable(off) {
      input.disabled = off;
      element.classList.toggle("off", off);
    },
  };
}
