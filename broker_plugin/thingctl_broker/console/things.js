// The page of things, and of one thing.

import { addThing } from "./addthing.js";
import * as api from "./api.js";
import { foreign, h, put, visible } from "./dom.js";
import { ago, count, duration } from "./format.js";
import { isObject, pretty } from "./json.js";
import * as known from "./known.js";
import * as live from "./live.js";
import * as me from "./me.js";
import { go, hashOf } from "./router.js";
import { Rows } from "./rows.js";
import { failure, notice, pageHead, presence, sendLink, statusBadge, when } from "./widgets.js";

const EVERY = 3000;

const COLUMNS = [
  { label: "Thing", class: "c-name" },
  { label: "Presence", class: "c-presence" },
  { label: "Type and tags", class: "c-type" },
  { label: "Actions", class: "c-actions" },
  { label: "Agent", class: "c-agent" },
  { label: "Last seen", class: "c-seen" },
];

export class ThingsPage {
  constructor() {
    this.title = "Things";
    this.all = [];
    this.search = h("input", { type: "search", name: "q", placeholder: "Name, type, tag or action", "aria-label": "Search things", autocomplete: "off", spellcheck: "false" });
    this.online = h("select", { name: "online", "aria-label": "Presence" }, [["", "Online and offline"], ["yes", "Online"], ["no", "Offline"]].map(([value, label]) => h("option", { value }, label)));
    const bar = h("form", { class: "filters", role: "search", "aria-label": "Filter things", on: { submit: (event) => event.preventDefault() } },
      h("div", { class: "fields" }, h("label", { class: "field wide" }, h("span", {}, "Search"), this.search), h("label", { class: "field" }, h("span", {}, "Presence"), this.online)));
    const change = () => go(["things"], { q: this.search.value.trim(), online: this.online.value }, { replace: true });
    bar.addEventListener("input", change);
    this.rows = new Rows({ label: "Things", columns: COLUMNS, keyOf: (thing) => thing.name, draw: (thing, row) => this.#draw(thing, row) });
    this.state = h("div", { class: "list-state" });
    this.foot = h("p", { class: "list-foot" });
    this.element = h("div", { class: "page things" }, pageHead("Things", me.may("things:write") ? h("button", { type: "button", class: "primary", on: { click: () => addThing(() => this.#readNow()) } }, "Add thing") : null), bar,
      h("div", { class: "split" }, h("section", { class: "list", "aria-label": "List of things" }, this.rows.element, this.state, this.foot)));
  }

  show({ query }) {
    this.query = query;
    if (document.activeElement !== this.search) this.search.value = query.q ?? "";
    this.online.value = ["yes", "no"].includes(query.online) ? query.online : "";
    if (!this.reading && !this.loaded) this.#read();
    this.#drawList();
  }

  destroy() {
    this.gone = true;
    clearTimeout(this.timer);
    this.rows.destroy();
  }

  onShortcut(key) {
    if (key !== "/") return false;
    this.search.focus();
    return true;
  }

  async #read() {
    this.reading = true;
    let pages = 0;
    try {
      const things = await api.things((sofar) => {
        pages += 1;
        if (this.loaded || this.gone) return;
        this.all = sofar;
        this.#drawList();
      });
      known.learn(things);
      this.all = things;
      this.loaded = true;
      this.error = null;
    } catch (error) {
      this.error = error;
    }
    this.reading = false;
    if (this.gone) return;
    this.#drawList();
    this.timer = setTimeout(() => (document.hidden ? this.#later() : this.#read()), EVERY * Math.max(1, pages));
  }

  #readNow() {
    clearTimeout(this.timer);
    if (!this.reading) this.#read();
  }

  #later() {
    document.addEventListener("visibilitychange", () => this.gone || this.#read(), { once: true });
  }

  #drawList() {
    const wanted = (this.query?.q ?? "").toLowerCase();
    const online = this.online.value;
    const fits = (thing) =>
      (!online || thing.online === (online === "yes")) &&
      (!wanted || [thing.name, typeOf(thing), ...tagsOf(thing), ...(thing.actions ?? [])].some((text) => String(text).toLowerCase().includes(wanted)));
    const found = this.all.filter(fits);
    this.rows.set(found);
    this.rows.element.hidden = !found.length;
    let state = null;
    if (!found.length) {
      if (this.error) state = failure(this.error, () => this.#read());
      else if (!this.loaded) state = h("div", { class: "skeleton", role: "status" }, h("span", { class: "hidden-text" }, "Loading things"), Array.from({ length: 6 }, () => h("i")));
      else if (this.all.length) state = notice("No thing fits", "Search looks at names, types, tags and actions.", { actions: [h("button", { type: "button", on: { click: () => { this.search.value = ""; go(["things"]); } } }, "Clear the search")] });
      else state = notice("No thing has connected yet", "Start an agent with this broker's MQTT address. Once it has connected, it shows up here by itself:", { actions: [h("code", {}, "thingctl-agent run my_device.py --thing thermostat-001 --url mqtt://this-broker:1883")] });
    }
    put(this.state, state);
    const there = this.all.filter((thing) => thing.online).length;
    put(this.foot, this.all.length ? `${count(found.length, "thing")}${found.length === this.all.length ? "" : ` of ${this.all.length.toLocaleString("en")}`}, ${there.toLocaleString("en")} online` : "");
  }

  #draw(thing, row) {
    const hash = hashOf(["things", thing.name]);
    row.onclick = (event) => event.target.closest("a, button") || String(getSelection()) || go(["things", thing.name]);
    const actions = thing.actions ?? [];
    const seen = Date.parse(thing.lastSeen);
    return [
      h("div", {}, h("a", { class: "main", href: hash }, foreign(thing.name, 128))),
      h("div", {}, thing.enabled === false ? h("span", { class: "hint" }, "disabled") : presence(thing.online)),
      h("div", {}, typeOf(thing) ? foreign(typeOf(thing), 60) : null, tagsOf(thing).slice(0, 3).map((tag) => h("span", { class: "tag" }, foreign(tag, 40)))),
      h("div", { class: "names" }, actions.length ? foreign(actions.slice(0, 20).join(", "), 200) : h("span", { class: "hint" }, "none announced")),
      h("div", {}, thing.agentVersion ? foreign(thing.agentVersion, 40) : ""),
      h("div", {}, thing.online ? h("span", { class: "hint" }, "connected") : when(seen, ago(seen, live.brokerNow()))),
    ];
  }
}

/** Types and tags, wherever a broker has them. */
function typeOf(thing) {
  return typeof thing.type === "string" ? thing.type : typeof thing.thingType === "string" ? thing.thingType : "";
}

/** Where what a thing announced differs from its type. */
function driftOf({ drift }) {
  const words = { notAnnounced: "not announced", notInType: "not in the type", params: "other params", result: "another result" };
  return drift?.length ? drift.map(({ action, difference }) => h("p", {}, foreign(action, 128), `: ${words[difference] ?? difference}`)) : null;
}

function tagsOf(thing) {
  if (Array.isArray(thing.tags)) return thing.tags.map(String);
  return isObject(thing.tags) ? Object.entries(thing.tags).map(([name, value]) => `${name}: ${value}`) : [];
}

export class ThingPage {
  constructor(name) {
    this.name = name;
    this.title = name;
    this.body = h("div", { class: "thing-body" });
    this.recent = h("section", { class: "card", "aria-label": "Latest commands" });
    this.element = h("div", { class: "page thing" },
      h("nav", { class: "crumbs", "aria-label": "You are in" }, h("a", { href: hashOf(["things"]) }, "Things")),
      pageHead(foreign(name, 128), sendLink({ thing: name })),
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
      const thing = await api.thing(this.name);
      const text = JSON.stringify(thing);
      if (this.gone || text === this.text) return;
      this.text = text;
      this.#draw(thing);
    } catch (error) {
      if (this.gone || this.text) return;
      put(this.body, error.status === 404 ? notice("No thing has this name", "It shows up once it has connected.", { kind: "error", actions: [h("a", { class: "button", href: hashOf(["things"]) }, "All things")] }) : failure(error, () => this.#read()));
    }
  }

  #draw(thing) {
    const announcement = thing.announcement ?? {};
    const actions = announcement.actions ?? [];
    const seen = Date.parse(thing.lastSeen);
    const facts = [
      ["Presence", thing.enabled === false ? h("span", { class: "danger" }, "Disabled: it may not connect, and no command is taken for it") : presence(thing.online)],
      ["Description", thing.description ? foreign(thing.description, 1100) : null],
      ["Last seen", thing.online ? "connected now" : when(seen, ago(seen, live.brokerNow()))],
      ["First seen", when(Date.parse(thing.firstSeen))],
      ["Type", typeOf(thing) ? foreign(typeOf(thing), 128) : null],
      ["Tags", tagsOf(thing).length ? tagsOf(thing).map((tag) => h("span", { class: "tag" }, foreign(tag, 80))) : null],
      ["Agent version", announcement.agentVersion ? foreign(announcement.agentVersion, 80) : null],
      ["Differs from its type", driftOf(thing)],
      ["Schemas not enforced", thing.schemaFaults?.length ? thing.schemaFaults.map((fault) => h("p", {}, foreign(`${fault.action}: ${fault.fault}`, 400))) : null],
      ["MQTT client id", thing.clientId ? foreign(thing.clientId, 128, { class: "mono" }) : null],
    ];
    put(this.body,
      h("section", { class: "card", "aria-label": "About" }, h("dl", { class: "facts" }, facts.filter(([, value]) => value).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))))),
      h("section", { class: "card", "aria-label": "Actions" }, h("header", { class: "card-head" }, h("h2", {}, "Actions")),
        actions.length ? h("ul", { class: "actions-list" }, actions.map((action) => this.#action(action))) : notice("It has announced no actions", "Any action name may be sent to it all the same.", { actions: [h("a", { class: "button", href: hashOf(["send"], { thing: this.name }) }, "Send an action by name")] })));
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
