// The page of things: which there are, narrowed and sorted as the reader likes.

import { addThing } from "./addthing.js";
import * as api from "./api.js";
import { toCsv } from "./csv.js";
import { announce, foreign, h, put, visible } from "./dom.js";
import { commandLine } from "./enrolment.js";
import { ago, count } from "./format.js";
import * as known from "./known.js";
import { ListPage } from "./list.js";
import * as live from "./live.js";
import * as me from "./me.js";
import { go, hashOf } from "./router.js";
import { opens } from "./rows.js";
import { exportButton, failure, notice, presence, skeleton, when } from "./widgets.js";

const EVERY = 3000;
const TAGS_SHOWN = 2;

const COLUMNS = [
  { label: "Thing", class: "c-name" },
  { label: "Presence", class: "c-presence" },
  { label: "Type", class: "c-type" },
  { label: "Tags", class: "c-tags" },
  { label: "Actions", class: "c-actions" },
  { label: "Agent", class: "c-agent" },
  { label: "Last seen", class: "c-seen" },
];

const PRESENCE = { "": "Any presence", yes: "Online", no: "Offline" };
const SORTS = { "": "Name", seen: "Last seen, latest first", "-seen": "Last seen, earliest first" };
const COMPARE = {
  seen: (a, b) => order(seenAt(b), seenAt(a)),
  "-seen": (a, b) => order(seenAt(a), seenAt(b)),
};

export class ThingsPage extends ListPage {
  constructor() {
    const add = () => h("button", { type: "button", class: "primary", on: { click: () => this.#add() } }, "Add thing");
    super({
      title: "Things",
      path: "things",
      filters: [
        { name: "q", label: "Search", placeholder: "Name, type, tag or action" },
        { name: "type", label: "Type", placeholder: "Any type", suggestions: () => distinct(this.all.map((thing) => thing.type ?? "")) },
        { name: "tag", label: "Tag", placeholder: "Any tag", suggestions: () => distinct(this.all.flatMap((thing) => thing.tags)) },
        { name: "online", label: "Presence", options: PRESENCE },
        { name: "sort", label: "Sort by", options: SORTS },
      ],
      actions: [exportButton(() => this.#export()), me.may("things:write") ? add() : null],
      columns: COLUMNS,
      keyOf: (thing) => thing.name,
      draw,
    });
    this.all = [];
  }

  show({ query }) {
    this.showFilters(query);
    if (!this.reading && !this.loaded) this.#read();
    this.#drawList();
  }

  destroy() {
    super.destroy();
    clearTimeout(this.timer);
  }

  #add() {
    addThing(() => this.#readNow());
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

  #found() {
    const { q, type, tag, online, sort } = this.filters;
    const wanted = q.toLowerCase();
    const found = this.all.filter((thing) =>
      (!online || thing.online === (online === "yes")) && (!type || thing.type === type) && (!tag || thing.tags.includes(tag)) &&
      (!wanted || [thing.name, thing.type ?? "", ...thing.tags, ...(thing.actions ?? [])].some((text) => text.toLowerCase().includes(wanted))));
    return sort in COMPARE ? found.sort(COMPARE[sort]) : found;
  }

  #drawList() {
    const found = this.#found();
    const there = this.all.filter((thing) => thing.online).length;
    const of = found.length === this.all.length ? "" : ` of ${this.all.length.toLocaleString("en")}`;
    const foot = this.loaded ? (this.all.length ? `${count(found.length, "thing")}${of}, ${there.toLocaleString("en")} online` : "") : this.all.length ? `${count(this.all.length, "thing")} so far, loading…` : "";
    this.showItems(found, () => this.#nothing(), foot);
  }

  /** What stands in place of an empty list. */
  #nothing() {
    if (this.error) return failure(this.error, () => this.#read());
    if (!this.loaded) return skeleton("Loading things", 6);
    if (this.all.length) return notice("No thing fits", "Search looks at names, types, tags and actions. Type and tag are matched by their exact names.", { actions: [h("button", { type: "button", on: { click: () => go(["things"]) } }, "Clear the search")] });
    this.empty ??= this.#nothingYet();
    return this.empty;
  }

  #nothingYet() {
    const add = me.may("things:write") ? h("button", { type: "button", class: "primary", on: { click: () => this.#add() } }, "Add the first thing") : null;
    const text = h("p", {}, "Add a thing: the broker makes a bundle that installs its agent.");
    const more = h("div");
    api.enrolment().then((enrolment) => {
      if (enrolment?.bundleFault) put(more, h("p", {}, "Bundles cannot be made yet: ", foreign(enrolment.bundleFault, 500)));
      else if (enrolment?.open && enrolment.mqttUrl) put(more, h("p", {}, "This broker also takes things that were not added. Start an agent with its address:"), commandLine(`thingctl-agent run my_actions.py --thing thermostat-001 --url ${enrolment.mqttUrl}`));
    }, () => {});
    return h("div", { class: "notice" }, h("h2", {}, "There is no thing yet"), text, add ? h("p", { class: "actions" }, add) : null, more);
  }

  #export() {
    const found = this.#found().slice(0, known.EXPORTED_MAX);
    announce(`${count(found.length, "thing")} exported`);
    return toCsv(["name", "online", "enabled", "type", "tags", "actions", "agentVersion", "lastSeen", "description"],
      found.map((thing) => [thing.name, thing.online, thing.enabled, thing.type, thing.tags.join(" "), (thing.actions ?? []).join(" "), thing.agentVersion, thing.lastSeen, thing.description]));
  }
}

function draw(thing, row) {
  opens(row, ["things", thing.name]);
  const seen = Date.parse(thing.lastSeen);
  const actions = thing.actions ?? [];
  const tags = thing.tags.slice(0, TAGS_SHOWN);
  return [
    h("div", {}, h("a", { class: "main", href: hashOf(["things", thing.name]) }, foreign(thing.name, 128))),
    h("div", {}, thing.enabled === false ? h("span", { class: "hint" }, "disabled") : presence(thing.online)),
    h("div", {}, thing.type ? foreign(thing.type, 60) : null),
    h("div", { title: thing.tags.length ? visible(thing.tags.join(", "), 1000) : null }, tags.map((tag) => h("span", { class: "tag" }, foreign(tag, 40))), thing.tags.length > tags.length ? h("span", { class: "hint" }, ` +${thing.tags.length - tags.length}`) : null),
    h("div", { title: visible(actions.slice(0, 50).join(", "), 2000) }, thing.actions ? [h("span", { class: "number-of" }, actions.length), h("span", { class: "hint" }, visible(actions.slice(0, 20).join(", "), 200))] : h("span", { class: "hint" }, "none announced")),
    h("div", {}, thing.agentVersion ? foreign(shortVersion(thing.agentVersion), 40, { title: visible(thing.agentVersion, 200) }) : ""),
    h("div", {}, thing.online ? h("span", { class: "hint" }, "connected") : Number.isFinite(seen) ? when(seen, ago(seen, live.brokerNow())) : h("span", { class: "hint" }, "never")),
  ];
}

/** When a thing was last there: now for one that is online. */
function seenAt(thing) {
  return thing.online ? Infinity : Date.parse(thing.lastSeen) || 0;
}

/** Of "thingctl-agent/1.2.3" the version: the name is the same in every row. */
export function shortVersion(text) {
  return /^[^\s/]+[/ ]v?(\d\S*)$/.exec(text)?.[1] ?? text;
}

function distinct(names) {
  return [...new Set(names.filter(Boolean))].sort();
}

function order(one, other) {
  return one === other ? 0 : one < other ? -1 : 1;
}
