// The page of groups: the commands to many things, newest first.

import * as api from "./api.js";
import { foreign, h, put } from "./dom.js";
import { count } from "./format.js";
import { stateWord } from "./group.js";
import { go, hashOf } from "./router.js";
import { failure, notice, pageHead, sendLink, when } from "./widgets.js";

const EVERY = 3000;
const FILTERS = {
  "": "All",
  "RUNNING,PAUSED,STOPPED": "Under way",
  RUNNING: stateWord("RUNNING"),
  PAUSED: stateWord("PAUSED"),
  STOPPED: stateWord("STOPPED"),
  CANCELED: stateWord("CANCELED"),
  FINISHED: stateWord("FINISHED"),
};

export class GroupsPage {
  constructor() {
    this.title = "Groups";
    this.older = [];
    this.filter = h("select", { id: "groups-state" }, Object.entries(FILTERS).map(([state, word]) => h("option", { value: state }, word)));
    this.filter.addEventListener("change", () => go(["groups"], { state: this.filter.value }));
    this.list = h("section", { class: "card", "aria-label": "List of groups" }, h("p", { class: "hint" }, "loading…"));
    this.element = h("div", { class: "page groups" },
      h("nav", { class: "crumbs", "aria-label": "You are in" }, h("a", { href: hashOf(["commands"]) }, "Commands")),
      pageHead("Groups", sendLink({ to: "all" })),
      h("p", { class: "groups-filter" }, h("label", { for: this.filter.id }, "State"), this.filter),
      this.list);
    this.timer = setInterval(() => document.hidden || this.older.length || this.#read(), EVERY);
  }

  /** Show the place that the URL names. */
  show({ query }) {
    const state = query.state in FILTERS ? query.state : "";
    if (state === this.state) return;
    this.state = state;
    this.filter.value = state;
    this.older = [];
    this.text = null;
    this.#read();
  }

  destroy() {
    this.gone = true;
    clearInterval(this.timer);
  }

  /** Read the first page, or the one behind `cursor`. */
  async #read(cursor = null) {
    const { state } = this;
    try {
      const page = await api.groups({ state, cursor });
      if (this.gone || state !== this.state) return;
      if (cursor) this.older.push(...this.groups);
      this.groups = page.groups;
      this.#draw([...this.older, ...page.groups], page.nextCursor);
    } catch (error) {
      if (!this.gone && !this.text) put(this.list, failure(error, () => this.#read()));
    }
  }

  #draw(groups, next) {
    const text = JSON.stringify([groups, next]);
    if (text === this.text) return;
    this.text = text;
    const focused = this.list.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    put(this.list, groups.length ? h("ul", { class: "entries" }, groups.map(entry)) : this.#nothing(),
      next ? h("p", { class: "actions" }, h("button", { type: "button", on: { click: () => this.#read(next) } }, "Show older ones")) : null);
    if (focused) this.list.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  }

  #nothing() {
    if (this.state) return notice("No group is in this state", "Another state may have some.", { actions: [h("a", { class: "button", href: hashOf(["groups"]) }, "All groups")] });
    return notice("No groups yet", "A command to several things, a type, tags or all is a group. The latest ones are listed here.", { actions: [sendLink({ to: "all" })].filter(Boolean) });
  }
}

function entry({ commandId, action, state, createdAt, requestedBy, targeted, pending, refused }) {
  const parts = [count(targeted, "thing"), pending ? `${pending.toLocaleString("en")} not sent yet` : null, refused ? `${refused.toLocaleString("en")} refused` : null];
  return h("li", {},
    h("div", {}, h("a", { href: hashOf(["groups", commandId]) }, foreign(action, 128)), h("p", { class: "hint" }, when(Date.parse(createdAt)), " by ", foreign(requestedBy, 128))),
    h("span", {}, parts.filter(Boolean).join(", ")),
    h("span", { class: "group-state" }, stateWord(state)));
}
