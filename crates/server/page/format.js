// Numbers as people read them.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const ONE = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** @param {number} value 12345 -> "12,345" */
export const whole = (value) => WHOLE.format(value);

/** @param {number} count @param {string} one @param {string} [many] "1 token", "2 tokens" */
export const counted = (count, one, many = `${one}s`) => `${whole(count)} ${count === 1 ? one : many}`;

/** @param {number} value a probability or a weight: "0.79", "<0.01" */
export const score = (value) => (value > 0 && value < 0.005 ? "<0.01" : value.toFixed(2));

/** @param {number} value tokens per second: "38.2", "3,034" */
export const rate = (value) => (value < 100 ? ONE : WHOLE).format(value);

/** @param {number} ms "11 ms", "1.4 s" */
export function duration(ms) {
  if (ms < 10) return `${ONE.format(ms)} ms`;
  if (ms < 1000) return `${WHOLE.format(ms)} ms`;
  return ms < 60_000 ? `${ONE.format(ms / 1000)} s` : `${WHOLE.format(ms / 60_000)} min`;
}

/** @param {number} count bytes: "640 KiB", "1.5 GiB" */
export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${(value < 10 && unit > 0 ? ONE : WHOLE).format(value)} ${units[unit]}`;
}

/** @param {number} count parameters: "494 M", "1.5 B" */
export function parameters(count) {
  if (count >= 1e9) return `${ONE.format(count / 1e9)} B`;
  return count >= 1e6 ? `${ONE.format(count / 1e6)} M` : `${WHOLE.format(count / 1e3)} k`;
}
