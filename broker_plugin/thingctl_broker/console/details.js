// One execution: all that is known of it, as it stands now.

import * as api from "./api.js";
import { announce, copyButton, foreign, h, put, visible } from "./dom.js";
import { clock, duration, fullMoment } from "./format.js";
import { pretty, write } from "./json.js";
import * as live from "./live.js";
import * as me from "./me.js";
import { go, hashOf } from "./router.js";
import { statusWord, TERMINAL } from "./statuses.js";
import { confirmDialog, factList, failure, icon, notice, progressBar, statusBadge, thingLink, when } from "./widgets.js";

const STEPS = ["QUEUED", "PUBLISHED", "DELIVERED", "STARTED"];
const STEP_WORDS = { QUEUED: "Queued", PUBLISHED: "Published", DELIVERED: "Delivered", STARTED: "Started" };
const STEP_MEANINGS = {
  QUEUED: "The thing is not connected or has not subscribed: the request waits here.",
  PUBLISHED: "The request was written to the thing's connection.",
  DELIVERED: "The thing's MQTT client has acknowledged the request.",
  STARTED: "The thing has answered: it has the request for certain.",
};
const EVENTS = {
  created: "Created",
  published: "Published",
  delivered: "Delivered",
  started: "Started",
  cancelRequested: "Cancel requested",
  ended: "Ended",
  late: "Late response",
};

// Fields that have a place of their own. Others stand among the facts as they are.
const SHOWN = new Set("executionId commandId thingId action params ttl status delivery attempts createdAt expiresAt events result statusReason progress retrySafe late conflicts requestedBy publishedAt deliveredAt startedAt cancelRequestedAt endedAt durationSeconds".split(" "));

function inWords(name) {
  const words = name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
  return words.charAt(0).toUpperCase() + words.slice(1);
}

export class Details {
  /** `onClose`: makes a button to close; `query`: filters to keep in links; `onResent(execution)`: it was sent again. */
  constructor(executionId, { onClose = null, query = {}, onResent = null, execution = null } = {}) {
    this.executionId = executionId;
    this.onClose = onClose;
    this.onResent = onResent ?? ((execution) => go(["commands", execution.executionId], query));
    this.element = h("article", { class: "details" });
    this.status = null;
    this.message = h("div", { class: "message", role: "alert" });
    put(this.element, this.#head(null), h("p", { class: "list-foot" }, "Loading…"));
    this.reading = false;
    this.unwatch = null;
    if (execution) this.#show(execution);
    else this.#read();
    this.ticking = setInterval(() => this.#tick(), 1000);
  }

  destroy() {
    this.gone = true;
    this.unwatch?.();
    clearTimeout(this.retrying);
    clearInterval(this.ticking);
  }

  // Read anew rather than take what the stream says: numbers keep every digit that way.
  async #read() {
    if (this.reading) {
      this.again = true;
      return;
    }
    this.reading = true;
    try {
      this.#show(await api.execution(this.executionId));
    } catch (error) {
      if (!this.gone) this.#fail(error);
    }
    this.reading = false;
    if (this.again && !this.gone) {
      this.again = false;
      this.#read();
    }
  }

  #fail(error) {
    if (this.execution && error.unreachable) return; // what is known stays; the connection says that it is old
    const content = error.status === 404
      ? notice("There is no such execution", "It may have been let go: the broker keeps ended executions for some days only. Or the link is not whole.", { kind: "error" })
      : failure(error, () => this.#read());
    put(this.element, this.#head(null), content);
    if (error.unreachable) this.retrying = setTimeout(() => this.#read(), 3000);
  }

  #watch({ thingId, action, commandId }) {
    const mine = (executions) => executions.some((execution) => execution.executionId === this.executionId);
    this.unwatch = live.watch({ thingId, action, commandId }, {
      onSync: () => this.#read(),
      onExecutions: (executions) => mine(executions) && this.#read(),
    });
  }

  #show(execution) {
    if (this.gone) return;
    this.execution = execution;
    if (this.status && this.status !== execution.status) announce(`${execution.action}: ${statusWord(execution.status)}`);
    this.status = execution.status;
    const focused = this.element.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    const open = new Set([...this.element.querySelectorAll("pre")].filter((pre) => pre.scrollTop > 0).map((pre) => [pre.dataset.name, pre.scrollTop]));
    put(this.element,
      this.#head(execution), this.message, this.#verdict(execution), this.#progress(execution), this.#late(execution),
      json("Params", "params", execution.params, copyButton("Copy as curl", () => curlOf(execution), { worded: true, small: true })), "result" in execution ? json("Result", "result", execution.result) : null,
      this.#delivery(execution), this.#timeline(execution), this.#facts(execution));
    for (const [name, top] of open) this.element.querySelector(`pre[data-name="${name}"]`).scrollTop = top;
    if (!this.unwatch) this.#watch(execution);
    if (focused) (this.element.querySelector(`[data-focus="${focused}"]`) ?? this.element.querySelector("h2")).focus();
  }

  #head(execution) {
    const close = this.onClose && h("button", { type: "button", class: "quiet close", "aria-label": "Close", title: "Close (Esc)", "data-focus": "close", on: { click: this.onClose } }, icon("close"));
    if (!execution) return h("header", { class: "details-head" }, h("h2", { tabindex: -1 }, "Execution"), close);
    const ended = TERMINAL.has(execution.status);
    const asked = Boolean(execution.cancelRequestedAt);
    const may = (scope) => me.mayOn(scope, execution.thingId, execution.action);
    let actions = null;
    if (ended && may("commands:send")) {
      actions = [
        h("button", { type: "button", "data-focus": "again", on: { click: () => this.#sendAgain() } }, "Send again"),
        h("a", { class: "button", "data-focus": "edit", href: hashOf(["send"], { from: execution.executionId }) }, "Edit and send"),
      ];
    } else if (!ended && may("commands:cancel")) {
      actions = h("button", { type: "button", class: "danger", "data-focus": "cancel", disabled: asked, on: { click: () => this.#cancel() } }, asked ? "Cancel requested" : "Cancel");
    }
    return h("header", { class: "details-head" },
      h("div", {},
        h("h2", { tabindex: -1 }, foreign(execution.action, 128)),
        h("p", { class: "sub" }, "on ", thingLink(execution.thingId, hashOf(["things", execution.thingId])))),
      close,
      h("div", { class: "head-row" }, statusBadge(execution.status), this.#elapsed(execution), actions && h("span", { class: "actions" }, actions)));
  }

  #elapsed(execution) {
    const seconds = execution.durationSeconds ?? (live.brokerNow() - Date.parse(execution.createdAt)) / 1000;
    return h("span", { class: "elapsed", "data-role": "elapsed" }, `${TERMINAL.has(execution.status) ? "after" : "for"} ${duration(seconds)}`);
  }

  #tick() {
    const { execution } = this;
    if (!execution || TERMINAL.has(execution.status)) return;
    this.element.querySelector("[data-role=elapsed]")?.replaceWith(this.#elapsed(execution));
  }

  #verdict({ status, statusReason, retrySafe }) {
    if (!statusReason && retrySafe === undefined) return null;
    const advice = retrySafe === true ? "It never left the broker, so it is safe to send it again." : retrySafe === false ? "It may have run: look before you send it again." : null;
    return h("section", { class: "callout", "data-status": status, "aria-label": "Reason" },
      statusReason?.reasonCode ? h("strong", { class: "mono" }, foreign(statusReason.reasonCode)) : null,
      statusReason?.reasonDescription ? h("p", {}, foreign(statusReason.reasonDescription, 1100)) : null,
      advice ? h("p", {}, advice) : null);
  }

  #progress({ status, progress }) {
    if (status !== "IN_PROGRESS") return null;
    const percent = typeof progress?.percent === "number" ? `${Math.round(progress.percent)} %` : "";
    return h("section", { class: "progress", "aria-label": "Progress" },
      h("p", {}, progress?.message ? foreign(progress.message, 1100) : "At work", h("span", {}, percent)), progressBar(progress, "Progress of the execution"));
  }

  #late({ late, status }) {
    if (!late) return null;
    return h("section", { class: "late", "aria-label": "Late response" },
      h("h3", {}, "Late response"),
      h("p", {}, statusBadge(late.status), ` came ${duration(late.delaySeconds)} after the execution had been closed as ${statusWord(status).toLowerCase()}. The status stands.`),
      late.statusReason ? h("p", {}, foreign(`${late.statusReason.reasonCode ?? ""} ${late.statusReason.reasonDescription ?? ""}`, 1200)) : null,
      "result" in late ? json("Its result", "late", late.result) : null);
  }

  #delivery(execution) {
    const reached = STEPS.indexOf(execution.delivery);
    return h("section", { "aria-label": "Delivery" }, h("h3", {}, "Delivery"),
      h("ol", { class: "steps" }, STEPS.map((step, number) =>
        h("li", { "data-reached": number <= reached ? "yes" : "no", "aria-current": number === reached ? "step" : null, title: STEP_MEANINGS[step] }, STEP_WORDS[step]))),
      h("p", { class: "hint" }, STEP_MEANINGS[execution.delivery], execution.attempts > 1 ? ` It was published ${execution.attempts} times.` : ""));
  }

  #timeline(execution) {
    const created = Date.parse(execution.createdAt);
    return h("section", { "aria-label": "Timeline" }, h("h3", {}, "Timeline"),
      h("ol", { class: "timeline" }, execution.events.map(({ at, event }) => {
        const since = (Date.parse(at) - created) / 1000;
        const word = event === "ended" ? statusWord(execution.status) : EVENTS[event] ?? event;
        const status = event === "ended" ? execution.status : event === "late" ? execution.late?.status : null;
        return h("li", { "data-status": status, "data-event": event }, h("span", {}, word), when(Date.parse(at), clock(Date.parse(at))), h("span", { class: "since" }, event === "created" ? "" : `+${duration(since)}`));
      })));
  }

  #facts(execution) {
    const facts = [
      ["Execution", h("span", { class: "mono" }, execution.executionId), copyButton("Copy execution id", () => execution.executionId)],
      ["Command", h("a", { class: "mono", href: hashOf(["groups", execution.commandId]) }, execution.commandId), copyButton("Copy command id", () => execution.commandId)],
      ["Sent by", execution.requestedBy ? foreign(execution.requestedBy) : null],
      ["Created", when(Date.parse(execution.createdAt), fullMoment(Date.parse(execution.createdAt)))],
      [TERMINAL.has(execution.status) ? "Would have expired" : "Expires", when(Date.parse(execution.expiresAt), fullMoment(Date.parse(execution.expiresAt)))],
      ["TTL", duration(execution.ttl)],
      ["Contradictions", execution.conflicts ? `${execution.conflicts}: the thing has contradicted its own verdict` : null],
    ];
    facts.push(...Object.entries(execution).filter(([name]) => !SHOWN.has(name)).map(([name, value]) => [inWords(name), foreign(write(value), 1100)]));
    return h("section", { "aria-label": "Facts" }, h("h3", {}, "Facts"),
      factList(facts));
  }

  async #cancel() {
    await this.#do(async () => this.#show(await api.cancel(this.executionId)));
  }

  async #sendAgain() {
    const { execution } = this;
    const { thingId, action, params, ttl } = execution;
    if (execution.retrySafe === false) {
      const text = "The request had left the broker when its time was up, so the thing may have done it already. Sent again, it may be done twice.";
      if (!(await confirmDialog("Send it again?", text, { yes: "Send again", no: "Do not send", danger: true }))) return;
    }
    await this.#do(async () => this.onResent(await api.send(thingId, action, write(params), ttl)));
  }

  async #do(deed) {
    put(this.message);
    try {
      await deed();
    } catch (error) {
      put(this.message, h("p", {}, visible(error.message, 500)));
    }
  }
}

/** The command as a line for a shell; the token stays in a variable. */
export function curlOf({ thingId, action, params, ttl }) {
  const body = api.commandBody(thingId, action, write(params), ttl).replaceAll("'", "'\\''");
  return `curl -X POST '${new URL("commands", api.BASE)}' -H "Authorization: Bearer $THINGCTL_TOKEN" -H 'Content-Type: application/json' -d '${body}'`;
}

function json(title, name, value, more = null) {
  const text = pretty(value);
  return h("section", { "aria-label": title },
    h("h3", {}, title, copyButton(`Copy ${title.toLowerCase()}`, () => text), more),
    h("pre", { "data-name": name, tabindex: 0, "aria-label": title, dir: "ltr" }, visible(text, 200_000)));
}
