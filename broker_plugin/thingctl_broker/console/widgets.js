// Small parts that several pages show.

import { foreign, h, icon, put, s } from "./dom.js";
import { fullMoment, moment, statusWord } from "./format.js";
import * as me from "./me.js";
import { hashOf } from "./router.js";

const MARKS = {
  SENT: "M4 8h8",
  IN_PROGRESS: "M8 4v4l3 2",
  SUCCEEDED: "M4.5 8.5l2.5 2.5 4.5-5",
  FAILED: "M5 5l6 6M11 5l-6 6",
  REJECTED: "M4.5 11.5l7-7",
  TIMED_OUT: "M5 4h6L5 12h6z",
  CANCELED: "M5 8h6",
};

/** A status, told by shape, colour and word. */
export function statusBadge(status) {
  const mark = s("svg", { viewBox: "0 0 16 16", class: "mark", "aria-hidden": "true" }, s("circle", { cx: 8, cy: 8, r: 7 }), s("path", { d: MARKS[status] ?? "" }));
  return h("span", { class: "status", "data-status": status }, mark, h("span", {}, statusWord(status)));
}

/** A moment, in full when asked. */
export function when(ms, text = moment(ms)) {
  return h("time", { datetime: Number.isFinite(ms) ? new Date(ms).toISOString() : null, title: fullMoment(ms) }, text);
}

/** Whether a thing is there. */
export function presence(online) {
  return h("span", { class: "presence", "data-online": online ? "yes" : "no" }, h("i", { "aria-hidden": "true" }), online ? "Online" : "Offline");
}

/** How far a running execution has come. */
export function progressBar(progress, label) {
  const percent = typeof progress?.percent === "number" ? Math.min(100, Math.max(0, progress.percent)) : null;
  const bar = h("div", { class: percent === null ? "bar unknown" : "bar", role: "progressbar", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": percent === null ? null : Math.round(percent) }, h("i"));
  if (percent !== null) bar.firstChild.style.width = `${percent}%`;
  return bar;
}

/** What stands in the place of content that is not there: what it is, and what to do. */
export function notice(title, text, { kind = "empty", actions = [] } = {}) {
  return h("div", { class: "notice", "data-kind": kind, role: kind === "error" ? "alert" : null }, h("h2", {}, title), text && h("p", {}, text), actions.length ? h("p", { class: "actions" }, actions) : null);
}

/** A failure, with a way to try again. */
export function failure(error, again) {
  const retry = h("button", { type: "button", on: { click: again } }, "Try again");
  if (error.unreachable) return notice("The broker cannot be reached", "Check that it runs and that this machine can reach it. What was loaded stays; nothing is lost.", { kind: "error", actions: [retry] });
  if (error.status === 403) return notice("This token may not see that", "Sign in with a token that has the scope for it.", { kind: "error" });
  return notice("That did not work", error.message, { kind: "error", actions: [retry] });
}

let lists = 0;

/** A text field with suggestions; only so many at once, the best ones for what is typed. */
export function suggesting(props, suggestions) {
  const list = h("datalist", { id: `suggestions-${(lists += 1)}` });
  const input = h("input", { type: "text", autocomplete: "off", autocapitalize: "off", spellcheck: "false", list: list.id, ...props });
  const offer = () => {
    const typed = input.value.toLowerCase();
    const fitting = [];
    for (const text of suggestions()) {
      if (text.toLowerCase().includes(typed) && fitting.push(text) === 100) break;
    }
    put(list, fitting.map((text) => h("option", { value: text })));
  };
  input.addEventListener("focus", offer);
  input.addEventListener("input", offer);
  return { input, list, offer };
}

/** Ask before doing; resolves to whether to go on. */
export function confirmDialog(title, text, { yes, no = "Keep as it is", danger = false }) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { class: "ask", "aria-labelledby": "ask-title" },
      h("form", { method: "dialog" }, h("h2", { id: "ask-title" }, title), h("p", {}, text),
        h("p", { class: "actions" }, h("button", { value: "no", autofocus: true }, no), h("button", { value: "yes", class: danger ? "danger" : "primary" }, yes))));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A link to a thing. */
export function thingLink(name, hash, props = {}) {
  return h("a", { href: hash, ...props }, foreign(name, 128));
}

/** The way to send a command; null where the token may not. */
export function sendLink(query = {}, label = "Send command") {
  return me.may("commands:send") ? h("a", { class: "button primary", href: hashOf(["send"], query) }, icon("send"), label) : null;
}

/** The head of a page. */
export function pageHead(title, ...rest) {
  return h("header", { class: "page-head" }, h("h1", { tabindex: -1 }, title), rest);
}

export { icon };
