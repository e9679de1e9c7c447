// The controls above the list of commands. They show what the URL says, and change it.

import { foreign, h, put } from "./dom.js";
import { STATUSES, statusWord } from "./statuses.js";
import * as known from "./known.js";
import { go, hashOf } from "./router.js";
import { icon, suggesting } from "./widgets.js";

const SPANS = [["", "Any time"], ["15m", "Last 15 minutes"], ["1h", "Last hour"], ["24h", "Last 24 hours"], ["7d", "Last 7 days"], ["custom", "From … to …"]];
const NAME = "[A-Za-z0-9:_.\\-]{1,128}";

/** `change(query)`: the filters are to become these. */
export function filterBar(change) {
  const thing = suggesting({ placeholder: "Any thing", name: "thing", pattern: NAME, "aria-label": "Thing" }, known.thingNames);
  const action = suggesting({ placeholder: "Any action", name: "action", maxlength: 128, "aria-label": "Action" }, known.actionNames);
  const tag = suggesting({ placeholder: "Any tag", name: "tag", "aria-label": "Tag" }, known.tagNames);
  const id = h("input", { type: "search", name: "id", placeholder: "Open by its id", "aria-label": "Execution ID", autocomplete: "off", spellcheck: "false", maxlength: 128 });
  const span = h("select", { name: "since", "aria-label": "Time" }, SPANS.map(([value, label]) => h("option", { value }, label)));
  const from = h("input", { type: "datetime-local", step: 1, name: "from", "aria-label": "From" });
  const to = h("input", { type: "datetime-local", step: 1, name: "to", "aria-label": "To" });
  const custom = h("span", { class: "custom-span" }, h("label", {}, "From ", from), h("label", {}, "to ", to));
  const boxes = STATUSES.map((status) => {
    const box = h("input", { type: "checkbox", name: "status", value: status });
    return h("label", { class: "chip", "data-status": status }, box, h("span", {}, statusWord(status)));
  });
  const clear = h("button", { type: "button", class: "quiet", on: { click: () => change({}) } }, icon("close"), "Clear filters");
  const form = h("form", { class: "filters", role: "search", "aria-label": "Filter commands", on: { submit: (event) => event.preventDefault() } },
    h("div", { class: "fields" }, field("Thing", thing), field("Action", action), field("Tag", tag), h("label", { class: "field" }, h("span", {}, "Time"), span), custom, h("label", { class: "field" }, h("span", {}, "Execution ID"), id), clear),
    h("fieldset", { class: "chips" }, h("legend", { class: "hidden-text" }, "Status"), boxes));

  function field(label, { input, list }) {
    return h("label", { class: "field" }, h("span", {}, label), input, list);
  }

  let shown = {};
  const whole = h("p", { class: "only" });

  function read() {
    const statuses = boxes.map((label) => label.firstChild).filter((box) => box.checked).map((box) => box.value);
    const spanQuery = span.value === "custom" ? { from: iso(from.value), to: iso(to.value) } : { since: span.value };
    change({ command: shown.command, thing: thing.input.value.trim(), action: action.input.value.trim(), tag: tag.input.value.trim(), status: statuses.join(","), ...spanQuery });
  }

  form.addEventListener("change", (event) => {
    if (event.target === id) return;
    custom.hidden = span.value !== "custom";
    if (thing.input.reportValidity()) read();
  });
  id.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && id.value.trim()) go(["commands", id.value.trim()], { command: shown.command });
  });
  // A picked suggestion counts without leaving the field.
  for (const { input, list } of [thing, action, tag]) {
    input.addEventListener("input", (event) => {
      const picked = event.inputType === "insertReplacementText" || event.inputType === undefined;
      if ((picked && [...list.options].some((option) => option.value === input.value)) || input.value === "") read();
    });
  }
  form.addEventListener("focusin", known.refresh, { once: true });

  return {
    element: form,
    whole,
    focus: () => thing.input.focus(),
    /** Show `filters`. */
    show(filters) {
      shown = filters;
      whole.hidden = !filters.command;
      put(whole, "Only of one command: ", filters.command ? h("a", { class: "mono", href: hashOf(["groups", filters.command]) }, foreign(filters.command, 40)) : null);
      thing.input.value = filters.thing;
      action.input.value = filters.action;
      tag.input.value = filters.tags.join(", ");
      id.value = "";
      for (const label of boxes) label.firstChild.checked = filters.statuses.includes(label.firstChild.value);
      const isCustom = Boolean(filters.from || filters.to);
      if (isCustom || span.value !== "custom" || filters.since) span.value = isCustom ? "custom" : SPANS.some(([value]) => value === filters.since) ? filters.since : "";
      custom.hidden = span.value !== "custom";
      from.value = local(filters.from);
      to.value = local(filters.to);
      clear.hidden = !(filters.command || filters.thing || filters.action || filters.tags.length || filters.statuses.length || filters.since || isCustom);
    },
  };
}

function iso(value) {
  const ms = Date.parse(value);
  return Number.isNaN(ms) ? "" : new Date(ms).toISOString();
}

function local(text) {
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) return "";
  return new Date(ms - new Date(ms).getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}
