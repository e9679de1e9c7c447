// The page of commands: the list, live, and beside it the details of one.

import { announce, foreign, h, put } from "./dom.js";
import { toCsv } from "./csv.js";
import { Details } from "./details.js";
import { Executions, readFilters } from "./executions.js";
import { filterBar } from "./filters.js";
import { count, duration, shortId } from "./format.js";
import * as known from "./known.js";
import * as live from "./live.js";
import { go, hashOf } from "./router.js";
import { opens, Rows } from "./rows.js";
import { TERMINAL } from "./statuses.js";
import { exportButton, failure, icon, notice, pageHead, progressBar, sendLink, skeleton, statusBadge, thingLink, when } from "./widgets.js";

const COLUMNS = [
  { label: "Execution ID", class: "c-id" },
  { label: "Thing", class: "c-thing" },
  { label: "Action", class: "c-action" },
  { label: "Status", class: "c-status" },
  { label: "Created", class: "c-created" },
  { label: "Duration", class: "c-duration" },
];

export class CommandsPage {
  constructor() {
    this.title = "Commands";
    this.query = {};
    this.added = 0;
    this.bar = filterBar((query) => go(this.selected ? ["commands", this.selected] : ["commands"], query));
    this.rows = new Rows({
      label: "Commands",
      columns: COLUMNS,
      keyOf: (item) => item.executionId,
      draw: (item, row) => this.#draw(item, row),
      onEnd: () => this.list?.loadMore(),
      onScroll: () => this.#onScroll(),
    });
    this.newer = h("button", { type: "button", class: "newer", hidden: true, on: { click: () => this.rows.scrollToTop() } });
    this.state = h("div", { class: "list-state" });
    this.foot = h("p", { class: "list-foot" });
    this.aside = h("aside", { class: "details-pane", "aria-label": "Execution", hidden: true });
    this.element = h("div", { class: "page commands" },
      pageHead("Commands", h("a", { class: "button", href: hashOf(["groups"]) }, "Groups"), exportButton(() => this.#export(), "commands"), sendLink()),
      this.bar.element, this.bar.whole,
      h("div", { class: "split" }, h("section", { class: "list", "aria-label": "List of commands" }, this.newer, this.rows.element, this.state, this.foot), this.aside));
    this.ticking = setInterval(() => this.#tick(), 1000);
  }

  /** Show the place that the URL names. */
  show({ path, query }) {
    const asked = JSON.stringify(readFilters(query));
    this.query = query;
    if (asked !== this.asked) {
      this.asked = asked;
      this.#open(readFilters(query));
    }
    this.#select(path[1] ?? null);
  }

  destroy() {
    clearInterval(this.ticking);
    this.unwatch?.();
    this.list?.destroy();
    this.details?.destroy();
    this.rows.destroy();
  }

  onShortcut(key) {
    if (key === "/") this.bar.focus();
    else if (key === "Escape" && this.selected) this.#close();
    else return false;
    return true;
  }

  #open(filters) {
    this.unwatch?.();
    this.list?.destroy();
    this.bar.show(filters);
    this.added = 0;
    this.rows.set([]);
    this.rows.element.scrollTop = 0;
    const list = (this.list = new Executions(filters, (changed) => list === this.list && this.#drawList(changed)));
    this.#drawList(null);
    const filter = {};
    if (filters.thing) filter.thingId = filters.thing;
    if (filters.action) filter.action = filters.action;
    if (filters.command) filter.commandId = filters.command;
    this.unwatch = live.watch(filter, {
      onSync: () => list.load(this.rows.atTop ? null : this.rows.items[this.rows.last]?.executionId),
      onExecutions: (executions) => this.#take(executions),
    });
  }

  #take(executions) {
    const following = this.rows.atTop;
    const keep = following ? undefined : Math.max(5000, this.rows.last + 1000);
    const added = this.list.apply(executions, { drop: following, keep });
    if (!following && added) {
      this.added += added;
      this.#showNewer();
    }
  }

  #onScroll() {
    if (this.rows.atTop && this.added) {
      this.added = 0;
      this.list.apply([], { drop: true });
      this.#drawList(null);
    }
    this.#showNewer();
  }

  #showNewer() {
    this.newer.hidden = !this.added;
    if (this.added) put(this.newer, icon("up"), `${count(this.added, "new command")}`);
  }

  #drawList(changed) {
    const { list } = this;
    if (list.items.length || list.loaded) this.rows.set(list.items, changed);
    const filtered = Object.values(this.query).some(Boolean);
    let state = null;
    if (list.error && !list.items.length) state = failure(list.error, () => list.load());
    else if (list.loaded && !list.items.length && !list.more) state = filtered ? this.#nothingFits() : nothingYet();
    else if (!list.loaded) state = skeleton("Loading commands", 8);
    put(this.state, state);
    this.rows.element.hidden = !list.items.length;
    put(this.foot, this.#footText());
  }

  #footText() {
    const { list } = this;
    if (!list.items.length) return list.loading ? (list.loaded ? "Looking further back…" : "loading…") : "";
    const shown = count(list.items.length, "command");
    if (list.error) return [`${shown} loaded; reading on failed. `, h("button", { type: "button", class: "quiet small", on: { click: () => list.loadMore() } }, "Try again")];
    if (list.loading) return `${shown} so far, loading…`;
    return list.more ? `${shown} loaded; scroll for older ones` : `${shown}, all that there are`;
  }

  async #export() {
    const executions = await this.list.all(known.EXPORTED_MAX);
    announce(`${count(executions.length, "command")} exported`);
    return toCsv(["executionId", "commandId", "thingId", "action", "status", "delivery", "createdAt", "endedAt", "durationSeconds", "reasonCode", "reasonDescription", "requestedBy"],
      executions.map((one) => [one.executionId, one.commandId, one.thingId, one.action, one.status, one.delivery, one.createdAt, one.endedAt, one.durationSeconds, one.statusReason?.reasonCode, one.statusReason?.reasonDescription, one.requestedBy]));
  }

  #nothingFits() {
    return notice("No command fits these filters", "Things and actions are matched by their exact names. New commands that fit show up here by themselves.", {
      actions: [h("button", { type: "button", on: { click: () => go(["commands"]) } }, "Clear filters")],
    });
  }

  #draw(item, row) {
    row.dataset.selected = item.executionId === this.selected ? "yes" : "no";
    row.dataset.left = item.left ? "yes" : "no";
    opens(row, ["commands", item.executionId], this.query);
    const id = h("a", { class: "main mono", href: hashOf(["commands", item.executionId], this.query), title: item.executionId, "aria-label": `Execution ${item.executionId}`, "aria-current": item.executionId === this.selected ? "true" : null }, shortId(item.executionId));
    const running = !TERMINAL.has(item.status);
    const elapsed = running ? (live.brokerNow() - item.createdMs) / 1000 : item.durationSeconds;
    const percent = item.status === "IN_PROGRESS" && item.progress ? progressBar(item.progress, "Progress") : null;
    return [
      h("div", {}, id),
      h("div", {}, thingLink(item.thingId, hashOf(["things", item.thingId]), { tabindex: -1 })),
      h("div", {}, foreign(item.action)),
      h("div", {}, statusBadge(item.status), percent, hint(item)),
      h("div", {}, when(item.createdMs)),
      h("div", { class: running ? "running" : "" }, running && elapsed < 0.1 ? "…" : duration(elapsed)),
    ];
  }

  #tick() {
    if (document.hidden) return;
    const running = this.rows.items.slice(this.rows.first, this.rows.last + 1).filter((item) => !TERMINAL.has(item.status));
    if (running.length) this.rows.set(this.rows.items, running.map((item) => item.executionId));
  }

  #select(executionId) {
    if (executionId === this.selected) return;
    const before = this.selected;
    this.selected = executionId;
    this.rows.set(this.rows.items, [before, executionId].filter(Boolean));
    this.details?.destroy();
    this.details = null;
    this.aside.hidden = !executionId;
    this.element.dataset.details = executionId ? "yes" : "no";
    if (!executionId) return;
    this.details = new Details(executionId, { onClose: () => this.#close(), query: this.query });
    put(this.aside, this.details.element);
    this.aside.scrollTop = 0;
    announce("Execution opened beside the list");
  }

  #close() {
    const index = this.rows.items.findIndex((item) => item.executionId === this.selected);
    go(["commands"], this.query);
    if (index >= 0) requestAnimationFrame(() => this.rows.focus(index));
  }
}

/** Why a request has not got further, where that is what one wants to know. */
function hint(item) {
  if (item.status === "SENT" && item.delivery === "QUEUED") return h("span", { class: "hint" }, "waits for the thing");
  if (item.status === "TIMED_OUT" && item.delivery === "QUEUED") return h("span", { class: "hint" }, "never left");
  return null;
}

function nothingYet() {
  return notice("No command has been sent yet", "Choose a thing and an action. Its progress and its result show up here as they come.", {
    actions: [sendLink({}, "Send the first command")].filter(Boolean),
  });
}
