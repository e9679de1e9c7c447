// What the pages of things and of clients have in common: filters that the URL holds, a table, a foot.

import { h, put } from "./dom.js";
import { go } from "./router.js";
import { Rows } from "./rows.js";
import { pageHead, suggesting } from "./widgets.js";

export class ListPage {
  /**
   * `path`: of the page, and its class. `columns`, `keyOf`, `draw`, `onEnd`: see `Rows`. `actions`: buttons of the head.
   * `filters`: the controls in their order, `{ name, label, ...props }`: a choice with `options` (an object of
   * values and texts), a field with `suggestions()`, else the search. `sort` is the filter that narrows nothing.
   */
  constructor({ title, path, filters, actions = [], ...table }) {
    const noun = title.toLowerCase();
    this.title = title;
    this.path = path;
    this.controls = filters.map((filter) => control(filter, noun));
    this.clear = h("button", { type: "button", class: "quiet", on: { click: () => go([path]) } }, "Clear filters");
    this.bar = h("form", { class: "filters", role: "search", "aria-label": `Filter ${noun}`, on: { submit: (event) => event.preventDefault() } },
      h("div", { class: "fields" }, this.controls.map(({ element }) => element), this.clear));
    this.bar.addEventListener("input", () => go([path], this.#asked(), { replace: true }));
    this.rows = new Rows({ label: title, ...table });
    this.instead = h("div", { class: "list-state" });
    this.foot = h("p", { class: "list-foot" });
    this.element = h("div", { class: `page ${path}` }, pageHead(title, ...actions), this.bar,
      h("div", { class: "split" }, h("section", { class: "list", "aria-label": `List of ${noun}` }, this.rows.element, this.instead, this.foot)));
  }

  /** Show the filters that the URL names, and leave them in `this.filters` by name. The field with the focus stays as typed. */
  showFilters(query) {
    this.filters = {};
    for (const { name, input, options } of this.controls) {
      const value = query[name] ?? "";
      this.filters[name] = options && !Object.hasOwn(options, value) ? "" : value;
      if (options || document.activeElement !== input) input.value = this.filters[name];
    }
    this.clear.hidden = !Object.entries(this.filters).some(([name, value]) => value && name !== "sort");
  }

  /** Show `items`, or what `instead()` makes in the place of an empty table, and the text of the foot. */
  showItems(items, instead, foot) {
    this.rows.set(items);
    this.rows.element.hidden = !items.length;
    put(this.instead, items.length ? null : instead());
    put(this.foot, foot);
  }

  destroy() {
    this.gone = true;
    this.rows.destroy();
  }

  onShortcut(key) {
    if (key !== "/") return false;
    this.controls[0].input.focus();
    return true;
  }

  #asked() {
    return Object.fromEntries(this.controls.map(({ name, input }) => [name, input.value.trim()]));
  }
}

function control({ name, label, options, suggestions, ...props }, noun) {
  const { input, list } = options ? { input: h("select", { name, "aria-label": label }, Object.entries(options).map(([value, text]) => h("option", { value }, text))) }
    : suggestions ? suggesting({ name, "aria-label": label, ...props }, suggestions)
    : { input: h("input", { type: "search", name, "aria-label": `Search ${noun}`, autocomplete: "off", spellcheck: "false", ...props }) };
  return { name, input, options, element: h("label", { class: options || suggestions ? "field" : "field wide" }, h("span", {}, label), input, list) };
}
