// Which things a command is for, and how fast the broker sends it to many.

import * as api from "./api.js";
import { h, put } from "./dom.js";
import * as known from "./known.js";
import { FormError } from "./schema.js";
import { labelled, listed, suggesting } from "./widgets.js";

const NAMED_MAX = 200; // names in the query for the actions of several things

// How each choice is called, what is asked for then, an example.
export const KINDS = {
  thing: ["One thing"],
  things: ["Several things", "Names, with commas", "thermostat-001, thermostat-002"],
  type: ["All things of a type", "Thing type", "thermostat"],
  tags: ["All things with tags", "Tags, with commas", "floor-2, north"],
  all: ["All things"],
};

const RULES = [
  ["rate", "Rate", "things in a second"],
  ["batch", "In parallel", "executions that run at the same time"],
  ["maxFailures", "Failures", "after so many, nothing more is sent"],
];

/** The choice of things. `onKind()`: another kind was chosen; `onChange()`: other things were. */
export class Audience {
  constructor({ onKind, onChange }) {
    this.types = [];
    this.to = h("select", { id: "send-to" }, Object.entries(KINDS).map(([kind, [label]]) => h("option", { value: kind }, label)));
    this.many = suggesting({ id: "send-many" }, () => this.#suggestions());
    this.label = h("label", { for: "send-many" });
    this.manyField = h("div", { class: "field", hidden: true }, this.label, this.many.input, this.many.list);
    this.rules = Object.fromEntries(RULES.map(([name]) => [name, h("input", { id: `send-${name}`, type: "text", inputmode: "decimal", class: "number", autocomplete: "off" })]));
    this.rollout = h("details", { class: "rollout", hidden: true }, h("summary", {}, "Roll out step by step"),
      h("div", { class: "object" }, RULES.map(([name, label, note]) => labelled(label, this.rules[name], { note }))));
    this.elements = [labelled("To", this.to), this.manyField];
    this.to.addEventListener("change", () => {
      this.many.input.value = "";
      this.draw();
      onKind();
    });
    this.many.input.addEventListener("change", onChange);
    this.many.input.addEventListener("input", () => this.#suggestions().includes(this.many.input.value) && onChange());
  }

  get kind() {
    return this.to.value;
  }

  get isMany() {
    return this.kind !== "thing";
  }

  get input() {
    return this.manyField.hidden ? this.to : this.many.input;
  }

  /** Show what the URL or a draft says. */
  show(kind, value = "", rules = {}) {
    this.to.value = kind in KINDS ? kind : "thing";
    this.many.input.value = value;
    for (const [name, input] of Object.entries(this.rules)) input.value = rules[name] ?? "";
    this.rollout.open = Object.values(rules).some(Boolean);
    this.draw();
  }

  draw() {
    const [, label, placeholder] = KINDS[this.kind];
    this.manyField.hidden = !label;
    this.rollout.hidden = !this.isMany;
    put(this.label, label ?? "");
    this.many.input.placeholder = placeholder ?? "";
    if (this.kind === "type" && !this.types.length) api.thingTypes().then((types) => (this.types = types.map((type) => type.name)), () => {});
  }

  /** What is in the fields, to be shown again. */
  get draft() {
    return { to: this.kind, value: this.many.input.value, rules: Object.fromEntries(Object.entries(this.rules).map(([name, input]) => [name, input.value])) };
  }

  /** `targets` of the API; raises FormError. */
  targets() {
    const values = listed(this.many.input.value);
    if (this.kind === "all") return { all: true };
    if (!values.length) throw new FormError(`${KINDS[this.kind][1]}: say which`, this.many.input);
    return this.kind === "type" ? { type: values[0] } : { [this.kind]: values };
  }

  /** Parameters of the API for the actions of these things; null: not chosen yet. */
  query() {
    const values = listed(this.many.input.value);
    if (this.kind === "all") return {};
    if (!values.length) return null;
    return { type: { type: values[0] }, tags: { tag: values }, things: { thingId: values.slice(0, NAMED_MAX) } }[this.kind];
  }

  /** `rollout` of the API; raises FormError. */
  rolloutRules() {
    const found = {};
    for (const [name, label] of RULES) {
      const input = this.rules[name];
      const text = input.value.trim();
      if (text === "") continue;
      if (!/^\d{1,9}(\.\d+)?$/.test(text)) throw new FormError(`${label} must be a number`, input);
      found[name] = Number(text);
    }
    return found;
  }

  #suggestions() {
    return { type: this.types, things: known.thingNames(), tags: known.tagNames() }[this.kind] ?? [];
  }
}
