// A command to many things: how far it has come as a whole, what went wrong first, and how to hold it.

import * as api from "./api.js";
import { announce, copyButton, foreign, h, put, visible } from "./dom.js";
import { count, duration } from "./format.js";
import * as live from "./live.js";
import * as me from "./me.js";
import { outcomeList } from "./outcomes.js";
import { hashOf } from "./router.js";
import { FURTHEST_FIRST, TERMINAL, TROUBLE } from "./statuses.js";
import { confirmDialog, failure, pageHead, statusBadge, thingLink } from "./widgets.js";

const SHOWN = 50;
const STATES = { RUNNING: "Sending", PAUSED: "Paused", STOPPED: "Stopped: too many failures", CANCELED: "Canceled", FINISHED: "Sent to all", UNKNOWN: "Only its executions are known" };

/** A state of a command to many things, as words. */
export const stateWord = (state) => STATES[state] ?? state;

export class GroupView {
  constructor(commandId) {
    this.commandId = commandId;
    this.element = h("article", { class: "details group-view" });
    this.message = h("div", { class: "message", role: "alert" });
    put(this.element, h("p", { class: "list-foot" }, "Loading…"));
    this.unwatch = live.watch({ commandId }, { onSync: () => this.#read(), onExecutions: () => this.#readSoon() });
    this.timer = setInterval(() => document.hidden || this.settled || this.#read(), 2000);
    this.#read();
  }

  destroy() {
    this.gone = true;
    clearInterval(this.timer);
    clearTimeout(this.soon);
    this.unwatch();
  }

  #readSoon() {
    this.soon ??= setTimeout(() => {
      this.soon = null;
      this.#read();
    }, 300);
  }

  async #read() {
    if (this.reading) return;
    this.reading = true;
    try {
      const { commandId } = this;
      const [group, trouble, latest] = await Promise.all([
        api.group(commandId),
        api.executions({ commandId, status: TROUBLE.join(","), limit: SHOWN }),
        api.executions({ commandId, limit: SHOWN }),
      ]);
      const others = latest.executions.filter((execution) => !TROUBLE.includes(execution.status));
      if (!this.gone) this.#show(group, [...trouble.executions, ...others].slice(0, SHOWN));
    } catch (error) {
      if (!this.gone && !this.shown) put(this.element, failure(error, () => this.#read()));
    }
    this.reading = false;
  }

  #show(group, executions) {
    const running = Object.entries(group.statuses).some(([status]) => !TERMINAL.has(status));
    const done = !running && !["RUNNING", "PAUSED", "STOPPED"].includes(group.state);
    if (done && this.settled === false) announce("The command has ended everywhere");
    this.settled = done;
    this.shown = true;
    const focused = this.element.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    put(this.element,
      h("header", { class: "details-head" },
        h("div", {}, h("h2", { tabindex: -1 }, foreign(group.action, 128)), h("p", { class: "sub" }, `on ${count(group.targeted, "thing")}`)),
        h("div", { class: "head-row" }, h("span", { class: "group-state", role: "status" }, done && group.state === "FINISHED" ? "Ended everywhere" : stateWord(group.state)), h("span", { class: "actions" }, this.#moves(group, running)))),
      this.message,
      this.#progress(group),
      this.#refusals(group),
      h("section", { "aria-label": "Executions" },
        h("header", { class: "card-head" }, h("h3", {}, "Executions, trouble first"), h("a", { href: hashOf(["commands"], { command: this.commandId }) }, "See all")),
        executions.length ? h("ul", { class: "trouble recent" }, executions.map((execution) => h("li", {}, statusBadge(execution.status), thingLink(execution.thingId, hashOf(["commands", execution.executionId], { command: this.commandId })),
          h("span", { class: "why" }, foreign(execution.statusReason?.reasonDescription ?? "", 120)), h("span", { class: "why took" }, execution.durationSeconds === undefined ? "" : duration(execution.durationSeconds))))) : h("p", { class: "hint" }, "Nothing has been sent yet.")),
      h("p", { class: "hint" }, "Command ", h("span", { class: "mono" }, this.commandId), copyButton("Copy command id", () => this.commandId)));
    if (focused) (this.element.querySelector(`[data-focus="${focused}"]`) ?? this.element.querySelector("h2")).focus();
  }

  #progress(group) {
    const total = Math.max(1, group.targeted - group.refused);
    const bar = h("div", { class: "bar stacked", role: "progressbar", "aria-label": "Progress of the command", "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(group.percent) },
      FURTHEST_FIRST.filter((status) => group.statuses[status]).map((status) => {
        const part = h("i", { "data-status": status });
        part.style.width = `${(100 * group.statuses[status]) / total}%`;
        return part;
      }));
    return h("section", { class: "progress", "aria-label": "Progress" },
      h("p", {}, h("span", {}, `${count(group.ended, "execution")} ended`), h("span", {}, `${group.percent} %`)), bar,
      outcomeList(group.outcomes, { command: this.commandId },
        group.pending ? h("li", {}, `${group.pending.toLocaleString("en")} not sent yet`) : null));
  }

  #refusals({ refused, refusals = {} }) {
    if (!refused) return null;
    return h("section", { class: "callout", "data-status": "REJECTED", "aria-label": "Not sent" }, h("strong", {}, `${count(refused, "thing")} could not be sent it`),
      Object.entries(refusals).slice(0, 20).map(([thing, why]) => h("p", {}, foreign(thing, 128), ": ", foreign(why, 300))));
  }

  #moves({ state }, running) {
    const moves = [];
    if (me.may("commands:send") && state === "RUNNING") moves.push(["pause", "Pause"]);
    if (me.may("commands:send") && ["PAUSED", "STOPPED"].includes(state)) moves.push(["resume", "Resume"]);
    if (me.may("commands:cancel") && (running || ["RUNNING", "PAUSED", "STOPPED"].includes(state)) && state !== "CANCELED") moves.push(["cancel", "Cancel all"]);
    return moves.map(([move, label]) => h("button", { type: "button", class: move === "cancel" ? "danger" : "", "data-focus": move, on: { click: () => this.#move(move) } }, label));
  }

  async #move(move) {
    put(this.message);
    if (move === "cancel" && !(await confirmDialog("Cancel the whole command?", "Nothing more is sent, and every execution that has not ended is asked to stop.", { yes: "Cancel all", no: "Let it run", danger: true }))) return;
    try {
      await api.moveGroup(this.commandId, move);
      await this.#read();
    } catch (error) {
      put(this.message, h("p", {}, visible(error.message, 500)));
    }
  }
}

/** The page of one command to many things. */
export class GroupPage {
  constructor(commandId) {
    this.title = "Command to many things";
    this.view = new GroupView(commandId);
    this.element = h("div", { class: "page" }, h("nav", { class: "crumbs", "aria-label": "You are in" }, h("a", { href: hashOf(["commands"]) }, "Commands"), " / ", h("a", { href: hashOf(["groups"]) }, "Groups")),
      pageHead("Command to many things"), h("section", { class: "card result", "aria-label": "Command" }, this.view.element));
  }

  show() {}

  destroy() {
    this.view.destroy();
  }
}
