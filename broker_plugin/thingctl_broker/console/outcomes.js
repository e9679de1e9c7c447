// Outcomes: executions put together by status, reason and equal result.

import { foreign, h } from "./dom.js";
import { statusWord } from "./statuses.js";
import { hashOf } from "./router.js";
import { thingLink } from "./widgets.js";

/**
 * The outcomes of a command as a line shows them: `words` are reason and result, `names` things of each that did
 * not succeed, `more` whether there are others. A result shows where another outcome differs by it alone.
 */
export function outcomeParts(outcomes) {
  return outcomes.map(({ status, count: number, reasonCode = "", result, examples, more = false }) => {
    const kin = outcomes.filter((other) => other.status === status && (other.reasonCode ?? "") === reasonCode);
    const words = [reasonCode, result !== undefined && kin.length > 1 ? JSON.stringify(result) : ""].filter(Boolean);
    return { status, count: number, words, names: status === "SUCCEEDED" ? [] : examples, more };
  });
}

/** Outcomes as a list; the things in it lead to their executions, narrowed by `query`. `more`: another line of it. */
export function outcomeList(outcomes, query, more = null) {
  return h("ul", { class: "legend outcomes", "aria-label": "Outcomes" }, outcomeParts(outcomes).map((part) => entry(part, query)), more);
}

function entry({ status, count: number, words, names, more }, query) {
  const link = (name) => thingLink(name, hashOf(["commands"], { ...query, thing: name }));
  return h("li", { "data-status": status }, h("i"), h("span", {}, `${number.toLocaleString("en")} ${statusWord(status).toLowerCase()}`), words.map((word) => foreign(word, 200)),
    names.length ? h("span", { class: "names" }, names.map((name, index) => [index ? ", " : "(", link(name)]), more ? ", …)" : ")") : null);
}
