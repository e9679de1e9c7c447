// The page to send a command: a thing or many, an action, its params, and the result beside them.

import * as api from "./api.js";
import { Audience } from "./audience.js";
import { confirmBulk, dryRunResult } from "./bulk.js";
import { Details } from "./details.js";
import { announce, foreign, h, put, visible } from "./dom.js";
import { isObject, parse, pretty, write } from "./json.js";
import * as known from "./known.js";
import * as me from "./me.js";
import { go, hashOf } from "./router.js";
import { FormError, paramsForm } from "./schema.js";
import { icon, notice, pageHead, presence, suggesting } from "./widgets.js";

/** What a thing announced, and behind it what its type has besides. */
function together(announced = [], typed = []) {
  const names = new Set(announced.map((action) => action.name));
  return [...announced, ...typed.filter((action) => !names.has(action.name))];
}

/** What was typed before the page was loaded anew (F5), for the same place. */
const DRAFT = "thingctl.draft";
let draft = null;
if (performance.getEntriesByType("navigation")[0]?.type === "reload") {
  try {
    draft = parse(sessionStorage.getItem(DRAFT));
  } catch {
    draft = null;
  }
  if (draft?.hash !== location.hash) draft = null;
}

export class SendPage {
  constructor() {
    this.title = "Send command";
    this.raw = false;
    this.thing = suggesting({ id: "send-thing", required: true, placeholder: "thermostat-001" }, known.thingNames);
    this.audience = new Audience({ onKind: () => this.#chooseKind(), onChange: () => this.#chooseMany() });
    this.dry = h("button", { type: "button", hidden: true, on: { click: () => this.#send(true) } }, "Dry run");
    this.about = h("p", { class: "help", "aria-live": "polite" });
    this.action = suggesting({ id: "send-action", required: true, maxlength: 128, placeholder: "setTemperature" }, () => this.#announced().map((action) => action.name));
    this.buttons = h("div", { class: "choices", role: "group", "aria-label": "Actions that the thing announced" });
    this.described = h("div", { class: "help" });
    this.differ = h("p", { class: "help" });
    this.params = h("div", { class: "params" });
    this.toggle = h("button", { type: "button", class: "quiet small", on: { click: () => this.#toggle() } });
    this.ttl = h("input", { id: "send-ttl", type: "text", inputmode: "numeric", class: "number", placeholder: "60", autocomplete: "off" });
    this.fault = h("div", { class: "message", role: "alert" });
    this.submit = h("button", { type: "submit", class: "primary" }, icon("send"), "Send command");
    this.result = h("section", { class: "card result", "aria-label": "Result" });
    this.form = h("form", { class: "card send-form", novalidate: true, "aria-label": "Send command", on: { submit: (event) => this.#submit(event) } },
      this.audience.elements[0],
      (this.thingField = h("div", { class: "field" }, h("label", { for: "send-thing" }, "Thing"), this.thing.input, this.thing.list, this.about)),
      this.audience.elements[1],
      h("div", { class: "field" }, h("label", { for: "send-action" }, "Action"), this.action.input, this.action.list, this.buttons, this.described),
      h("div", { class: "group top", role: "group", "aria-labelledby": "send-params-title" },
        h("div", { class: "group-head" }, h("span", { id: "send-params-title" }, "Parameters"), this.toggle), this.differ, this.params),
      h("div", { class: "field" }, h("label", { for: "send-ttl" }, "TTL in seconds"), this.ttl, h("p", { class: "help" }, "How long the thing may take. Past it, the request is not delivered any more. Empty: the broker's default.")),
      this.audience.rollout, h("div", { class: "send-foot" }, this.fault, h("p", { class: "actions" }, this.submit, this.dry)));
    for (const event of ["input", "change", "click"]) this.form.addEventListener(event, () => this.#keepSoon());
    this.element = h("div", { class: "page send" }, pageHead("Send command"), h("div", { class: "columns" }, this.form, this.result));
    this.thing.input.addEventListener("change", () => this.#chooseThing());
    this.thing.input.addEventListener("input", () => known.thingNames().includes(this.thing.input.value) && this.#chooseThing());
    this.action.input.addEventListener("input", () => this.#chooseAction());
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
    const kept = draft ?? {};
    draft = null;
    this.audience.show(kept.to ?? query.to, kept.value ?? query.value, kept.rules);
    this.#showKind();
    this.thing.input.value = kept.thing ?? start.thing ?? query.thing ?? "";
    this.action.input.value = kept.action ?? start.action ?? query.action ?? "";
    this.ttl.value = kept.ttl ?? start.ttl ?? "";
    this.start = kept.params ?? start.params;
    this.startText = kept.text ?? null;
    this.shown = null;
    this.chosen = null;
    put(this.fault);
    await (this.audience.isMany ? this.#chooseMany() : this.#chooseThing());
    if (fault) this.#complain(fault);
    if (this.audience.isMany) this.audience.to.focus();
    else if (!this.thing.input.value) this.thing.input.focus();
    else if (!this.action.input.value) this.action.input.focus();
  }

  destroy() {
    this.gone = true;
    clearTimeout(this.keeping);
    this.details?.destroy();
  }

  #keepSoon() {
    clearTimeout(this.keeping);
    this.keeping = setTimeout(() => this.#keep(), 100);
  }

  /** Keep what is in the form for when the page is loaded anew. */
  #keep() {
    const { text } = this;
    const kept = { hash: location.hash, ...this.audience.draft, thing: this.thing.input.value, action: this.action.input.value, ttl: this.ttl.value, params: text ? undefined : this.filled?.read(true), text: text?.value };
    try {
      sessionStorage.setItem(DRAFT, write(kept));
    } catch {
      sessionStorage.removeItem(DRAFT); // longer than a session may keep
    }
  }

  onShortcut(key) {
    if (key !== "/") return false;
    (this.audience.isMany ? this.audience.input : this.thing.input).focus();
    return true;
  }

  #announced() {
    return (this.of?.actions ?? []).filter((action) => (this.audience.isMany ? me.mayAct(action.name) : me.mayOn("commands:send", this.chosen ?? "", action.name)));
  }

  #chooseKind() {
    this.#showKind();
    this.chosen = null;
    this.of = null;
    put(this.buttons);
    if (this.audience.isMany) this.#chooseMany();
    else this.#chooseThing();
  }

  #showKind() {
    this.thingField.hidden = this.audience.isMany;
    this.dry.hidden = !this.audience.isMany;
  }

  /** The actions to choose from are those that the things have; their form is made from the schema they share. */
  async #chooseMany() {
    const query = this.audience.query();
    const chosen = `many ${write(query)}`;
    if (chosen === this.chosen) return;
    this.chosen = chosen;
    let found = { things: 0, actions: [] };
    if (query) found = await api.actions(query).catch(() => ({ things: 0, actions: known.actionNames().map((name) => ({ name })) }));
    if (this.gone || this.chosen !== chosen) return;
    this.of = found;
    this.#offer(query && found.things ? null : query ? "No thing fits." : null);
  }

  /** Show the actions to choose from. */
  #offer(instead = null) {
    const actions = this.#announced();
    const all = this.of?.things;
    put(this.buttons, instead ? h("span", { class: "help" }, instead) : actions.slice(0, 24).map((action) => h("button", { type: "button", class: "choice", "data-action": action.name, on: { click: () => this.#pick(action.name) } }, foreign(action.name, 60), all && action.things < all ? h("span", { class: "hint" }, `${action.things.toLocaleString("en")} of ${all.toLocaleString("en")}`) : null)));
    this.shown = null;
    this.#chooseAction();
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
    this.#offer(this.of && !this.#announced().length ? "It announced no actions; any name may be sent." : null);
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
    this.raw = this.startText !== null;
    this.#drawParams(this.start ?? {});
    if (this.startText !== null) this.text.value = this.startText;
    this.start = undefined;
    this.startText = null;
    put(this.differ, action && this.audience.isMany && action.alike === false ? "The things announced different parameters for this action." : null);
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
    if (this.busy) return;
    put(this.fault);
    for (const input of this.form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
    try {
      const many = this.audience.isMany ? this.audience.targets() : null;
      const rollout = many ? this.audience.rolloutRules() : {};
      const thing = this.thing.input.value.trim();
      const action = this.action.input.value.trim();
      if (!many && !thing) throw new FormError("Choose a thing", this.thing.input);
      if (!action) throw new FormError("Choose an action", this.action.input);
      const entered = this.#read();
      const params = write(entered);
      const ttl = this.#readTtl();
      this.#setBusy(true);
      if (many) {
        const answer = await api.sendToMany(many, action, params, ttl, { rollout, dryRun: true });
        const hopeless = answer.refused > 0 && answer.refused === answer.targeted;
        if (dryRun || hopeless) this.#showDryRun(answer);
        if (hopeless && !dryRun) throw new FormError("The broker would refuse it for every one of these things. The result says why.", this.params.querySelector("input, select, textarea"));
        if (!dryRun && (answer.targeted < 2 || (await confirmBulk(answer, { action, params: entered, rollout })))) {
          const { commandId } = await api.sendToMany(many, action, params, ttl, { rollout });
          announce("Command sent");
          go(["groups", commandId]);
        }
        this.#setBusy(false);
        return;
      }
      const execution = await api.send(thing, action, params, ttl);
      announce("Command sent");
      this.#showResult(execution);
      known.refresh();
    } catch (error) {
      this.#complain(error);
    }
    this.#setBusy(false);
  }

  /** A button that is busy keeps the focus, for when a dialog gives it back. */
  #setBusy(busy) {
    this.busy = busy;
    for (const button of [this.submit, this.dry]) button.setAttribute("aria-disabled", String(busy));
  }

  #complain(error) {
    put(this.fault, h("p", {}, visible(error.message, 500)));
    const pointer = error.pointer ?? "";
    if (pointer.startsWith("/targets")) this.audience.input.focus();
    if (pointer.startsWith("/rollout")) this.audience.rollout.querySelector("input").focus();
    const places = { "/thingId": this.thing.input, "/action": this.action.input, "/ttl": this.ttl };
    const told = [...this.params.querySelectorAll("[data-pointer]")].find((input) => input.dataset.pointer === error.pointer);
    const input = error instanceof FormError ? error.input : places[error.pointer] ?? told ?? null;
    if (!input) return;
    input.setAttribute("aria-invalid", "true");
    input.focus();
  }

  #showDryRun(answer) {
    this.details?.destroy();
    this.details = null;
    announce("Nothing was sent");
    put(this.result, dryRunResult(answer));
    this.#bringIntoSight();
  }

  /** The head of the result is what a reader looks for. */
  #bringIntoSight() {
    (this.result.querySelector(".details-head") ?? this.result.querySelector("h2") ?? this.result).scrollIntoView({ block: "nearest" });
  }

  #showResult(execution) {
    this.details?.destroy();
    if (!execution) {
      put(this.result, notice("The result shows up here", "How far the command got, its progress, and how it ended."));
      return;
    }
    this.details = new Details(execution.executionId, { execution, onResent: (again) => this.#showResult(again) });
    put(this.result, this.details.element, h("p", { class: "list-foot" }, h("a", { href: hashOf(["commands", execution.executionId]) }, "Open among all commands")));
    this.#bringIntoSight();
  }
}

