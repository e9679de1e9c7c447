// The first page: how the last hour went, and what needs attention.

import * as api from "./api.js";
import { addThing } from "./addthing.js";
import { foreign, h, put } from "./dom.js";
import { ago, count, duration } from "./format.js";
import { installLine } from "./enrolment.js";
import * as live from "./live.js";
import * as me from "./me.js";
import { outcomeList } from "./outcomes.js";
import { commandsPlot, latencyPlot } from "./plots.js";
import { hashOf } from "./router.js";
import { TROUBLE } from "./statuses.js";
import { failure, notice, pageHead, sendLink, statusBadge, thingLink, when } from "./widgets.js";

const EVERY = 5000;

export class OverviewPage {
  constructor() {
    this.title = "Overview";
    this.minutes = Array.from({ length: 60 }, (_, index) => ({ ms: Date.now() - (59 - index) * 60_000, created: 0, total: 0, ended: {}, latency: null }));
    this.tiles = h("dl", { class: "tiles", "aria-label": "The last hour" });
    this.commands = commandsPlot(() => this.minutes);
    this.latency = latencyPlot(() => this.minutes);
    this.trouble = h("section", { class: "card", "aria-label": "Latest trouble" });
    this.outcomes = h("div");
    this.state = h("div");
    this.first = h("section", { class: "card first-steps", "aria-label": "First steps", hidden: true });
    this.body = h("div", { class: "overview-body", hidden: true }, this.first, this.tiles, h("div", { class: "plots" }, this.commands.element, this.latency.element), this.trouble);
    this.element = h("div", { class: "page overview" },
      pageHead("Overview", sendLink()), this.state, this.body);
  }

  show() {
    if (this.timer) return;
    this.timer = setInterval(() => document.hidden || this.#read(), EVERY);
    this.unwatch = live.watch({ status: TROUBLE.join(",") }, {
      onSync: () => this.#read(),
      onExecutions: () => this.#readSoon(),
    });
    this.#read();
  }

  destroy() {
    clearInterval(this.timer);
    clearTimeout(this.soon);
    this.unwatch?.();
    this.commands.destroy();
    this.latency.destroy();
    this.gone = true;
  }

  #readSoon() {
    this.soon ??= setTimeout(() => {
      this.soon = null;
      this.#read();
    }, 500);
  }

  async #read() {
    try {
      const [overview] = await Promise.all([api.overview(), this.#readTrouble()]);
      if (this.gone) return;
      this.#show(overview);
      put(this.state);
    } catch (error) {
      if (!this.gone && this.body.hidden) put(this.state, failure(error, () => this.#read()));
    }
  }

  #show({ things, executions, hour, minutes, outcomes }) {
    this.minutes = minutes.map((m) => ({ ...m, ms: Date.parse(m.at), total: Object.values(m.ended).reduce((sum, n) => sum + n, 0) }));
    const ended = Object.values(hour.ended).reduce((sum, n) => sum + n, 0);
    const good = hour.ended.SUCCEEDED ?? 0;
    const latency = hour.latency;
    put(this.tiles,
      tile("Things online", things.online.toLocaleString("en"), `of ${count(things.total, "thing")}`, hashOf(["things"])),
      tile("Commands, last hour", hour.created.toLocaleString("en"), `${count(executions.live, "still running", "still running")}`, hashOf(["commands"], { since: "1h" })),
      tile("Succeeded", ended ? `${percent(good / ended)} %` : "–", ended ? `${good.toLocaleString("en")} of ${ended.toLocaleString("en")} ended` : "nothing has ended", hashOf(["commands"], { since: "1h", status: "SUCCEEDED" })),
      tile("Time to the verdict", latency ? duration(latency.p50) : "–", latency ? `95 %: ${duration(latency.p95)}, 99 %: ${duration(latency.p99)}` : "no answers yet"));
    this.#showFirstSteps(things.total, executions.total);
    put(this.outcomes, outcomes.length ? outcomeList(outcomes, { since: "1h" }) : null);
    this.body.hidden = false;
    this.commands.redraw();
    this.latency.redraw();
  }

  /** Until the first command: what to do, and what of it is done. */
  #showFirstSteps(things, executions) {
    const done = `${things > 0} ${executions > 0}`;
    this.first.hidden = executions > 0;
    if (this.steps === done || executions > 0) return;
    this.steps = done;
    const add = me.may("things:write") ? h("button", { type: "button", class: things ? null : "primary", on: { click: () => addThing(() => this.#read()) } }, "Add thing") : null;
    put(this.first, h("header", { class: "card-head" }, h("h2", {}, "First steps")), h("ol", { class: "numbered" },
      h("li", { "data-done": things > 0 ? "yes" : null }, h("p", {}, things ? "A thing is there." : "Add a thing. The broker makes a bundle: one file that lets its device in."), things ? h("p", {}, h("a", { href: hashOf(["things"]) }, "See the things")) : add && h("p", { class: "actions" }, add)),
      h("li", {}, h("p", {}, "Install the agent on its device, with the bundle:"), h("p", {}, h("code", {}, installLine("NAME.bundle")))),
      h("li", {}, h("p", {}, "Send it a command, and see the result here."), me.may("commands:send") ? h("p", {}, h("a", { href: hashOf(["send"]) }, "Send the first command")) : null)));
  }

  async #readTrouble() {
    const { executions } = await api.executions({ status: TROUBLE.join(","), limit: 8 });
    if (this.gone) return;
    const now = live.brokerNow();
    const head = h("header", { class: "card-head" }, h("h2", {}, "Latest trouble"), executions.length ? h("a", { href: hashOf(["commands"], { status: TROUBLE.join(",") }) }, "See all") : null);
    if (!executions.length) {
      put(this.trouble, head, notice("Nothing has gone wrong", "Commands that fail, are rejected or time out show up here."));
      return;
    }
    put(this.trouble, head, this.outcomes, h("ul", { class: "trouble" }, executions.map((execution) => h("li", {},
      statusBadge(execution.status),
      h("a", { href: hashOf(["commands", execution.executionId]) }, foreign(execution.action)),
      thingLink(execution.thingId, hashOf(["things", execution.thingId])),
      h("span", { class: "why" }, foreign(execution.statusReason?.reasonDescription || execution.statusReason?.reasonCode || "", 160)),
      when(Date.parse(execution.createdAt), ago(Date.parse(execution.createdAt), now))))));
  }
}

function tile(name, value, more, href = null) {
  const figure = href ? h("a", { href, class: "figure" }, value) : h("span", { class: "figure" }, value);
  return h("div", { class: "tile card" }, h("dt", {}, name), h("dd", {}, figure, h("span", { class: "more" }, more)));
}

function percent(share) {
  const value = share * 100;
  return value > 99 && value < 100 ? Math.min(99.9, value).toFixed(1) : Math.round(value);
}
