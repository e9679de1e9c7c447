// JSON without loss: numbers that JavaScript cannot hold stay as they were written.

const exact = typeof JSON.rawJSON === "function";

/** Parse; a number that would change stays its text where the browser supports that. */
export function parse(text) {
  if (!exact) return JSON.parse(text);
  return JSON.parse(text, (_key, value, context) => {
    if (typeof value !== "number" || context?.source === undefined) return value;
    return lossless(value, context.source) ? value : JSON.rawJSON(context.source);
  });
}

function lossless(value, source) {
  if (String(value) === source) return true;
  return Number.isFinite(value) && !/^-?\d{16,}/.test(source) && source.replace(/[-.]|e.*$/gi, "").length < 16;
}

/** Write, on several lines unless it is short. */
export function pretty(value) {
  const line = JSON.stringify(value);
  return line.length <= 60 ? line : JSON.stringify(value, null, 2);
}

export const write = (value) => JSON.stringify(value);

/** An object, and no number kept as its text. */
export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(exact && JSON.isRawJSON(value));
}
