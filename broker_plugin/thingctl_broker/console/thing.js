// The page of one thing: what it is, what it can do, what was asked of it, and how it is changed.

import { definitionFields } from "./addthing.js";
import * as api from "./api.js";
import { announce, foreign, h, put, visible } from "./dom.js";
import { enrolmentView } from "./enrolment.js";
import { ago, count, duration } from "./format.js";
import { isObject, pretty } from "./json.js";
import * as live from "./live.js";
import * as me from "./me.js";
import { go, hashOf } from "./router.js";
import { confirmDialog, factList, failure, formDialog, notice, openDialog, pageHead, presence, sendLink, statusBadge, when } from "./widgets.js";

const EVERY = 3000;

/** Where what a thing announced differs from its type. */
function driftOf({ drift }) {
  const words = { notAnnounced: "not announced", notInType: "not in the type", params: "other params", result: "another result" };
  return drift?.length ? drift.map(({ action, difference }) => h("p", {}, foreign(action, 128), `: ${words[difference] ?? difference}`)) : null;
}

/** Until when the password before the present one is valid, too. */
function oldPassword({ oldPassword: old }) {
  if (!old) return null;
  const until = Date.parse(old.validUntil);
  return ["valid until the device signs in with the new one", Number.isFinite(until) ? [", at the latest until ", when(until)] : null];
}

export class ThingPage {
  constructor(name) {
    this.name = name;
    this.title = name;
    this.body = h("div", { class: "thing-body" });
    this.message = h("div", { class: "message", role: "alert" });
    this.recent = h("section", { class: "card", "aria-label": "Latest commands" });
    this.element = h("div", { class: "page thing" },
      h("nav", { class: "crumbs", "aria-label": "You are in" }, h("a", { href: hashOf(["things"]) }, "Things")),
      pageHead(foreign(name, 128), sendLink({ thing: name })), this.message,
      h("div", { class: "columns" }, this.body, this.recent));
  }

  show() {
    if (this.timer) return;
    this.timer = setInterval(() => document.hidden || this.#read(), EVERY);
    this.unwatch = live.watch({ thingId: this.name }, { onSync: () => this.#readRecent(), onExecutions: () => this.#readRecent() });
    this.#read();
    this.#readRecent();
  }

  destroy() {
    this.gone = true;
    clearInterval(this.timer);
    this.unwatch?.();
  }

  async #read() {
    try {
      this.#take(await api.thing(this.name));
    } catch (error) {
      if (this.gone || this.text) return;
      put(this.body, error.status === 404 ? notice("No thing has this name", "It shows up once it has connected.", { kind: "error", actions: [h("a", { class: "button", href: hashOf(["things"]) }, "All things")] }) : failure(error, () => this.#read()));
    }
  }

  #take(thing) {
    const text = JSON.stringify(thing);
    if (this.gone || text === this.text) return;
    this.text = text;
    this.thing = thing;
    const focused = this.body.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    put(this.body, this.#about(thing), this.#actions(thing));
    if (focused) this.body.querySelector(`[data-focus="${focused}"]`)?.focus();
  }

  #about(thing) {
    const announcement = thing.announcement ?? {};
    const seen = Date.parse(thing.lastSeen);
    const facts = [
      ["Presence", thing.enabled === false ? h("span", { class: "danger" }, "Disabled: it may not connect, and no command is taken for it") : presence(thing.online)],
      ["Description", thing.description ? foreign(thing.description, 1100) : null],
      ["Last seen", thing.online ? "connected now" : Number.isFinite(seen) ? when(seen, ago(seen, live.brokerNow())) : "never"],
      ["First seen", when(Date.parse(thing.firstSeen))],
      ["Type", thing.type ? h("a", { href: hashOf(["settings", "types", thing.type]) }, foreign(thing.type, 128)) : null],
      ["Tags", thing.tags.length ? thing.tags.map((tag) => h("a", { class: "tag", href: hashOf(["things"], { tag }) }, foreign(tag, 80))) : null],
      ["Agent version", announcement.agentVersion ? foreign(announcement.agentVersion, 80) : null],
      ["Password", thing.hasPassword ? "set" : "none"],
      ["Old password", oldPassword(thing)],
      ["Two devices?", thing.takeovers ? h("span", { class: "danger" }, `Another client took its session ${count(thing.takeovers, "time")}: is another device using this name?`) : null],
      ["Differs from its type", driftOf(thing)],
      ["Schemas not enforced", thing.schemaFaults?.length ? thing.schemaFaults.map((fault) => h("p", {}, foreign(`${fault.action}: ${fault.fault}`, 400))) : null],
      ["MQTT client id", thing.clientId ? foreign(thing.clientId, 128, { class: "mono" }) : null],
      ["MQTT clients", h("a", { href: hashOf(["clients"], { thing: thing.name }) }, "Its connections and sessions")],
    ];
    return h("section", { class: "card", "aria-label": "About" }, factList(facts), this.#changes(thing));
  }

  #changes({ enabled }) {
    if (!me.mayChange(this.name)) return null;
    const button = (focus, label, deed, props = {}) => h("button", { type: "button", "data-focus": focus, on: { click: deed }, ...props }, label);
    return h("p", { class: "actions changes" },
      button("edit", "Edit", () => this.#edit()),
      enabled ? button("enabled", "Disable", () => this.#disable()) : button("enabled", "Enable", () => this.#do(() => api.changeThing(this.name, { enabled: true }))),
      button("password", "New password", () => this.#newPassword()),
      button("remove", "Remove", () => this.#remove(), { class: "danger" }));
  }

  #edit() {
    const definition = definitionFields(this.thing);
    formDialog(`Edit ${visible(this.name, 128)}`, definition.elements, {
      label: "Save",
      inputOf: definition.inputOf,
      save: async () => {
        this.#take(await api.changeThing(this.name, definition.read()));
        announce("Saved");
      },
    });
  }

  async #disable() {
    const text = "Its connection ends, and it may not connect again until it is enabled. No command is taken for it.";
    if (await confirmDialog(`Disable ${visible(this.name, 128)}?`, text, { yes: "Disable", danger: true })) await this.#do(() => api.changeThing(this.name, { enabled: false }));
  }

  async #newPassword() {
    const ends = h("input", { type: "checkbox", id: "old-ends" });
    const text = [
      h("p", {}, "The old password stays valid until the device has signed in with the new one."),
      h("label", { class: "check", for: ends.id }, ends, "End the old password now. The device is out until it has the new bundle."),
    ];
    if (!(await confirmDialog(`A new password for ${visible(this.name, 128)}?`, text, { yes: "Make a new password" }))) return;
    await this.#do(async () => {
      const thing = await api.newPassword(this.name, ends.checked ? { oldValidFor: 0 } : {});
      const dialog = openDialog(enrolmentView(`A new password for ${visible(this.name, 128)}`, thing, () => dialog.close()), { wide: true });
      dialog.querySelector("h2").focus();
      const { credentials, bundle, bundleFault, ...rest } = thing;
      return rest;
    });
  }

  async #remove() {
    const text = "The broker forgets it: its password, type, tags and description. Commands that wait for it are canceled.";
    if (!(await confirmDialog(`Remove ${visible(this.name, 128)}?`, text, { yes: "Remove", danger: true }))) return;
    await this.#do(async () => {
      await api.removeThing(this.name);
      announce("The thing is removed");
      go(["things"]);
    });
  }

  async #do(deed) {
    put(this.message);
    try {
      const thing = await deed();
      if (thing) this.#take(thing);
    } catch (error) {
      put(this.message, h("p", {}, visible(error.message, 500)));
    }
  }

  #actions(thing) {
    const actions = thing.announcement?.actions ?? [];
    return h("section", { class: "card", "aria-label": "Actions" }, h("header", { class: "card-head" }, h("h2", {}, "Actions")),
      actions.length ? h("ul", { class: "actions-list" }, actions.map((action) => this.#action(action))) : notice("It has announced no actions", "Any action name may be sent to it.", { actions: [h("a", { class: "button", href: hashOf(["send"], { thing: this.name }) }, "Send an action by name")] }));
  }

  #action(action) {
    const schemas = [["Params", action.paramsSchema], ["Result", action.resultSchema], ["Policy", action.policy]].filter(([, value]) => isObject(value) && Object.keys(value).length);
    return h("li", {},
      h("div", { class: "action-line" }, h("strong", {}, foreign(action.name, 128)), me.mayOn("commands:send", this.name, action.name) ? h("a", { class: "button small", href: hashOf(["send"], { thing: this.name, action: action.name }), "aria-label": `Send ${visible(action.name, 128)}` }, "Send") : null),
      action.description ? h("p", { class: "help description" }, foreign(action.description, 600)) : null,
      schemas.length ? h("details", {}, h("summary", {}, "Schema"), schemas.map(([title, value]) => [h("h3", {}, title), h("pre", { tabindex: 0, "aria-label": title }, visible(pretty(value), 20_000))])) : null);
  }

  async #readRecent() {
    if (this.asking) {
      this.again = true;
      return;
    }
    this.asking = true;
    try {
      const { executions } = await api.executions({ thingId: this.name, limit: 12 });
      if (!this.gone) this.#drawRecent(executions);
    } catch (error) {
      if (!this.gone && !this.recent.hasChildNodes()) put(this.recent, failure(error, () => this.#readRecent()));
    }
    this.asking = false;
    if (this.again && !this.gone) {
      this.again = false;
      this.#readRecent();
    }
  }

  #drawRecent(executions) {
    const head = h("header", { class: "card-head" }, h("h2", {}, "Latest commands"), executions.length ? h("a", { href: hashOf(["commands"], { thing: this.name }) }, "See all") : null);
    if (!executions.length) {
      put(this.recent, head, notice("No commands yet", "What is sent to this thing shows up here."));
      return;
    }
    put(this.recent, head, h("ul", { class: "trouble recent" }, executions.map((execution) => h("li", {},
      statusBadge(execution.status),
      h("a", { href: hashOf(["commands", execution.executionId], { thing: this.name }) }, foreign(execution.action)),
      h("span", { class: "why" }, execution.durationSeconds === undefined ? "" : duration(execution.durationSeconds)),
      when(Date.parse(execution.createdAt))))));
  }
}
