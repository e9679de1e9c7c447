// The page to send a command: a thing, an action, its params, and at once what became of it.

import * as api from "./api.js";
import { Details } from "./details.js";
import { dryRunResult, GroupView } from "./group.js";
import { announce, foreign, h, put, visible } from "./dom.js";
import { isObject, parse, pretty, write } from "./json.js";
import * as known from "./known.js";
import * as me from "./me.js";
import { hashOf } from "./router.js";
import { FormError, paramsForm } from "./schema.js";
import { icon, notice, pageHead, presence, suggesting } from "./widgets.js";

/** What a thing announced, and behind it what its type has besides. */
function together(announced = [], typed = []) {
  const names = new Set(announced.map((action) => action.name));
  return [...announced, ...typed.filter((action) => !names.has(action.name))];
}

// Whom a command may be for: how the choice is called, what is asked for then, an example.
const KINDS = {
  thing: ["One thing"],
  things: ["Several things", "Names, with commas", "thermostat-001, thermostat-002"],
  type: ["All things of a type", "Thing type", "thermostat"],
  tags: ["All things with tags", "Tags, with commas", "floor-2, north"],
  all: ["All things"],
};

const RULES = [
  ["rate", "Rate", "things in a second"],
  ["batch", "At once", "executions that run at the same time"],
  ["maxFailures", "Failures", "after so many, nothing more goes out"],
];

export class SendPage {
  constructor() {
    this.title = "Send command";
    this.raw = false;
    this.thing = suggesting({ id: "send-thing", required: true, placeholder: "thermostat-001" }, known.thingNames);
    this.to = h("select", { id: "send-to" }, Object.entries(KINDS).map(([kind, [label]]) => h("option", { value: kind }, label)));
    this.many = suggesting({ id: "send-many" }, () => (this.to.value === "type" ? this.types : this.to.value === "things" ? known.thingNames() : []));
    this.manyLabel = h("label", { for: "send-many" });
    this.manyField = h("div", { class: "field", hidden: true }, this.manyLabel, this.many.input, this.many.list);
    this.types = [];
    this.rules = Object.fromEntries(RULES.map(([name, label, note]) => [name, { input: h("input", { id: `send-${name}`, type: "text", inputmode: "decimal", class: "number", autocomplete: "off" }), label, note }]));
    this.rollout = h("details", { class: "rollout", hidden: true }, h("summary", {}, "Roll out step by step"),
      h("div", { class: "object" }, Object.entries(this.rules).map(([name, { input, label, note }]) => h("div", { class: "field" }, h("label", { for: `send-${name}` }, label), input, h("p", { class: "help" }, note)))));
    this.dry = h("button", { type: "button", hidden: true, on: { click: () => this.#send(true) } }, "Dry run");
    this.about = h("p", { class: "help", "aria-live": "polite" });
    this.action = suggesting({ id: "send-action", required: true, maxlength: 128, placeholder: "setTemperature" }, () => this.#announced().map((action) => action.name));
    this.buttons = h("div", { class: "choices", role: "group", "aria-label": "Actions that the thing announced" });
    this.described = h("div", { class: "help" });
    this.params = h("div", { class: "params" });
    this.toggle = h("button", { type: "button", class: "quiet small", on: { click: () => this.#toggle() } });
    this.ttl = h("input", { id: "send-ttl", type: "text", inputmode: "numeric", class: "number", placeholder: "60", autocomplete: "off" });
    this.fault = h("div", { class: "message", role: "alert" });
    this.submit = h("button", { type: "submit", class: "primary" }, icon("send"), "Send command");
    this.result = h("section", { class: "card result", "aria-label": "Result" });
    this.form = h("form", { class: "card send-form", novalidate: true, "aria-label": "Send command", on: { submit: (event) => this.#submit(event) } },
      h("div", { class: "field" }, h("label", { for: "send-to" }, "To"), this.to),
      (this.thingField = h("div", { class: "field" }, h("label", { for: "send-thing" }, "Thing"), this.thing.input, this.thing.list, this.about)),
      this.manyField,
      h("div", { class: "field" }, h("label", { for: "send-action" }, "Action"), this.action.input, this.action.list, this.buttons, this.described),
      h("div", { class: "group top", role: "group", "aria-labelledby": "send-params-title" },
        h("div", { class: "group-head" }, h("span", { id: "send-params-title" }, "Parameters"), this.toggle), this.params),
      h("div", { class: "field" }, h("label", { for: "send-ttl" }, "TTL in seconds"), this.ttl, h("p", { class: "help" }, "How long the thing may take. Past it, the request is not delivered any more. Empty: the broker's default.")),
      this.rollout, this.fault, h("p", { class: "actions" }, this.submit, this.dry));
    this.element = h("div", { class: "page send" }, pageHead("Send command"), h("div", { class: "columns" }, this.form, this.result));
    this.thing.input.addEventListener("change", () => this.#chooseThing());
    this.thing.input.addEventListener("input", () => known.thingNames().includes(this.thing.input.value) && this.#chooseThing());
    this.action.input.addEventListener("input", () => this.#chooseAction());
    this.to.addEventListener("change", () => this.#chooseKind());
    this.many.input.addEventListener("change", () => this.#chooseType());
    this.#showResult(null);
    known.refresh().then(() => this.thing.offer());
  }

  /** Show the place: ?thing=, ?action=, or ?from= an execution to send again with changes. */
  async show({ query }) {
    const asked = JSON.stringify(query);
    if (asked === this.asked) return;
    this.asked = asked;
    let start = {};
    let fault = null;
    if (query.from) {
      try {
        const { thingId, action, params, ttl } = await api.execution(query.from);
        start = { thing: thingId, action, params, ttl };
      } catch (error) {
        fault = error;
      }
      if (this.asked !== asked) return;
    }
    this.to.value = query.to in KINDS ? query.to : "thing";
    this.many.input.value = query.value ?? "";
    this.#showKind();
    this.thing.input.value = start.thing ?? query.thing ?? "";
    this.action.input.value = start.action ?? query.action ?? "";
    this.ttl.value = start.ttl ?? "";
    this.start = start.params;
    this.raw = false;
    this.shown = null;
    this.chosen = null;
    put(this.fault);
    await (this.to.value === "thing" ? this.#chooseThing() : this.#chooseType());
    if (fault) this.#complain(fault);
    if (this.to.value !== "thing") this.to.focus();
    else if (!this.thing.input.value) this.thing.input.focus();
    else if (!this.action.input.value) this.action.input.focus();
  }

  destroy() {
    this.gone = true;
    this.details?.destroy();
  }

  onShortcut(key) {
    if (key !== "/") return false;
    this.thing.input.focus();
    return true;
  }

  #announced() {
    return (this.of?.actions ?? []).filter((action) => me.mayOn("commands:send", this.chosen ?? "", action.name));
  }

  #chooseKind() {
    this.#showKind();
    this.many.input.value = "";
    this.chosen = null;
    this.of = null;
    put(this.buttons);
    if (this.to.value === "thing") this.#chooseThing();
    else this.#chooseType();
  }

  #showKind() {
    const kind = this.to.value;
    const [, label, placeholder] = KINDS[kind];
    this.thingField.hidden = kind !== "thing";
    this.manyField.hidden = kind === "thing" || kind === "all";
    this.rollout.hidden = this.dry.hidden = kind === "thing";
    put(this.manyLabel, label ?? "");
    this.many.input.placeholder = placeholder ?? "";
    if (kind === "type" && !this.types.length) api.thingTypes().then((types) => (this.types = types.map((type) => type.name)), () => {});
  }

  /** The actions to choose from are those of the type, where one is meant, and else all that are known. */
  async #chooseType() {
    const name = this.to.value === "type" ? this.many.input.value.trim() : "";
    const type = name ? await api.thingType(name).catch(() => null) : null;
    if (this.gone || this.to.value === "thing") return;
    this.of = { actions: type?.actions ?? known.actionNames().map((action) => ({ name: action })) };
    put(this.buttons, this.of.actions.slice(0, 24).map((action) => h("button", { type: "button", class: "choice", "data-action": action.name, on: { click: () => this.#pick(action.name) } }, foreign(action.name, 60))));
    this.chosen = `${this.to.value} ${name}`;
    this.shown = null;
    this.#chooseAction();
  }

  #targets() {
    const kind = this.to.value;
    const values = this.many.input.value.split(",").map((value) => value.trim()).filter(Boolean);
    if (kind === "all") return { all: true };
    if (!values.length) throw new FormError(`${KINDS[kind][1]}: say which`, this.many.input);
    return kind === "type" ? { type: values[0] } : { [kind]: values };
  }

  #rules() {
    const found = {};
    for (const [name, { input, label }] of Object.entries(this.rules)) {
      const text = input.value.trim();
      if (text === "") continue;
      if (!/^\d{1,9}(\.\d+)?$/.test(text)) throw new FormError(`${label} must be a number`, input);
      found[name] = Number(text);
    }
    return found;
  }

  async #chooseThing() {
    const name = this.thing.input.value.trim();
    if (name === this.chosen) return;
    this.chosen = name;
    this.of = null;
    put(this.about);
    if (name) {
      try {
        const thing = await api.thing(name);
        const type = thing.type ? await api.thingType(thing.type).catch(() => null) : null;
        if (this.chosen !== name || this.gone) return;
        this.of = { actions: together(thing.announcement?.actions, type?.actions) };
        let words = thing.online ? null : " The command will wait for it until its TTL is over.";
        if (thing.enabled === false) words = " It is disabled: no command is taken for it.";
        put(this.about, presence(thing.online), words);
      } catch (error) {
        if (this.chosen !== name || this.gone) return;
        const meanings = { 403: "This token may not see things; a command can be sent to one by its name.", 404: "No thing has this name yet." };
        put(this.about, meanings[error.status] ?? visible(error.message, 300));
      }
    }
    const actions = this.#announced();
    put(this.buttons, actions.slice(0, 24).map((action) => h("button", { type: "button", class: "choice", "data-action": action.name, on: { click: () => this.#pick(action.name) } }, foreign(action.name, 60))));
    if (this.of && !actions.length) put(this.buttons, h("span", { class: "help" }, "It announced no actions; any name may be sent."));
    this.shown = null;
    this.#chooseAction();
  }

  #pick(name) {
    this.action.input.value = name;
    this.#chooseAction();
    this.params.querySelector("input, select, textarea")?.focus();
  }

  #chooseAction() {
    const name = this.action.input.value.trim();
    for (const button of this.buttons.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset.action === name));
    const action = this.#announced().find((candidate) => candidate.name === name);
    const key = `${this.chosen} ${action ? name : ""}`;
    put(this.described, action?.description ? foreign(action.description, 600, { class: "description" }) : null);
    if (key === this.shown) return;
    this.shown = key;
    this.schema = isObject(action?.paramsSchema) ? action.paramsSchema : null;
    this.raw = false;
    this.#drawParams(this.start ?? {});
    this.start = undefined;
  }

  #drawParams(value) {
    this.filled = this.schema && !this.raw ? paramsForm(this.schema, value) : null;
    this.text = null;
    this.toggle.hidden = !this.schema;
    put(this.toggle, this.filled ? "Edit as JSON" : "Back to the form");
    if (this.filled) {
      put(this.params, this.filled.element);
      return;
    }
    this.text = h("textarea", { id: "send-params", class: "mono", rows: 6, spellcheck: "false", "aria-label": "Parameters as JSON", value: pretty(value) });
    put(this.params, this.text, h("p", { class: "help" }, "A JSON object."));
  }

  #toggle() {
    try {
      const value = this.#read();
      this.raw = !this.raw;
      this.#drawParams(value);
      put(this.fault);
    } catch (error) {
      // From a form that is not whole, what there is goes over to the JSON all the same.
      if (this.raw) return this.#complain(error);
      this.raw = true;
      this.#drawParams({});
    }
    this.params.querySelector("input, select, textarea")?.focus();
  }

  #read() {
    if (this.filled) return this.filled.read();
    let value;
    try {
      value = parse(this.text.value.trim() || "{}");
    } catch (error) {
      throw new FormError(`The parameters are not JSON: ${error.message}`, this.text);
    }
    if (!isObject(value)) throw new FormError("The parameters must be a JSON object: {…}", this.text);
    return value;
  }

  #readTtl() {
    const text = this.ttl.value.trim();
    if (text === "") return null;
    if (!/^\d{1,9}$/.test(text)) throw new FormError("The TTL must be a whole number of seconds", this.ttl);
    return Number(text);
  }

  #submit(event) {
    event.preventDefault();
    return this.#send(false);
  }

  async #send(dryRun) {
    if (this.submit.disabled) return;
    put(this.fault);
    for (const input of this.form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
    try {
      const many = this.to.value === "thing" ? null : this.#targets();
      const rollout = many ? this.#rules() : {};
      const thing = this.thing.input.value.trim();
      const action = this.action.input.value.trim();
      if (!many && !thing) throw new FormError("Choose a thing", this.thing.input);
      if (!action) throw new FormError("Choose an action", this.action.input);
      const params = write(this.#read());
      const ttl = this.#readTtl();
      this.submit.disabled = true;
      if (many) {
        const answer = await api.sendToMany(many, action, params, ttl, { rollout, dryRun });
        announce(dryRun ? "Nothing was sent" : "Command sent");
        this.#showMany(answer, dryRun);
        this.submit.disabled = false;
        return;
      }
      const execution = await api.send(thing, action, params, ttl);
      announce("Command sent");
      this.#showResult(execution);
      known.refresh();
    } catch (error) {
      this.#complain(error);
    }
    this.submit.disabled = false;
  }

  #complain(error) {
    put(this.fault, h("p", {}, visible(error.message, 500)));
    const pointer = error.pointer ?? "";
    if (pointer.startsWith("/targets") || pointer.startsWith("/rollout")) (pointer.startsWith("/targets") ? this.many.input : this.rollout.querySelector("input")).focus();
    const places = { "/thingId": this.thing.input, "/action": this.action.input, "/ttl": this.ttl };
    const told = [...this.params.querySelectorAll("[data-pointer]")].find((input) => input.dataset.pointer === error.pointer);
    const input = error instanceof FormError ? error.input : places[error.pointer] ?? told ?? null;
    if (!input) return;
    input.setAttribute("aria-invalid", "true");
    input.focus();
  }

  #showMany(answer, dryRun) {
    this.details?.destroy();
    this.details = null;
    if (dryRun) {
      put(this.result, dryRunResult(answer));
      return;
    }
    this.details = new GroupView(answer.commandId);
    put(this.result, this.details.element, h("p", { class: "list-foot" }, h("a", { href: hashOf(["groups", answer.commandId]) }, "Open by itself")));
  }

  #showResult(execution) {
    this.details?.destroy();
    if (!execution) {
      put(this.result, notice("The result shows up here", "As soon as the command is sent: how far it got, how it goes, and how it ended."));
      return;
    }
    this.details = new Details(execution.executionId, { execution, onResent: (again) => this.#showResult(again) });
    put(this.result, this.details.element, h("p", { class: "list-foot" }, h("a", { href: hashOf(["commands", execution.executionId]) }, "Open among all commands")));
    this.result.scrollIntoView({ block: "nearest" });
  }
}

