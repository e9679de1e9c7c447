// Small parts that several pages show.

import { foreign, h, icon, put, s, visible } from "./dom.js";
import { fullMoment, moment } from "./format.js";
import * as me from "./me.js";
import { hashOf } from "./router.js";
import { statusMark, statusWord } from "./statuses.js";

/** A status, told by shape, colour and word. */
export function statusBadge(status) {
  const mark = s("svg", { viewBox: "0 0 16 16", class: "mark", "aria-hidden": "true" }, s("circle", { cx: 8, cy: 8, r: 7 }), s("path", { d: statusMark(status) }));
  return h("span", { class: "status", "data-status": status }, mark, h("span", {}, statusWord(status)));
}

/** A moment, in full when asked. */
export function when(ms, text = moment(ms)) {
  return h("time", { datetime: Number.isFinite(ms) ? new Date(ms).toISOString() : null, title: fullMoment(ms) }, text);
}

/** Whether a thing is there; `words` for yes and no. */
export function presence(online, words = ["Online", "Offline"]) {
  return h("span", { class: "presence", "data-online": online ? "yes" : "no" }, h("i", { "aria-hidden": "true" }), words[online ? 0 : 1]);
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

/** A text field with suggestions; it offers the few that fit best what is typed. */
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

/** Show a dialog made of `content`, whose heading has the id `dialog-title`; it leaves the page when it closes. */
export function openDialog(content, { onClose = () => {}, wide = false } = {}) {
  const dialog = h("dialog", { class: wide ? "ask wide" : "ask", "aria-labelledby": "dialog-title" }, content);
  const before = document.activeElement;
  dialog.addEventListener("close", () => {
    dialog.remove();
    onClose(dialog.returnValue);
    if (document.activeElement === document.body) (before?.isConnected ? before : successor(before))?.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** The element that a page has drawn in the place of one that it took away. */
function successor(element) {
  const key = element?.dataset?.focus;
  return key ? document.querySelector(`[data-focus="${CSS.escape(key)}"]`) : null;
}

/** Ask before doing; `text`: words or elements. Resolves to whether to go on. */
export function confirmDialog(title, text, { yes, no = "Keep as it is", danger = false, wide = false }) {
  return new Promise((resolve) => {
    openDialog(
      h("form", { method: "dialog" }, h("h2", { id: "dialog-title" }, title), typeof text === "string" ? h("p", {}, text) : text,
        h("p", { class: "actions" }, h("button", { value: "no", autofocus: true }, no), h("button", { value: "yes", class: danger ? "danger" : "primary" }, yes))),
      { onClose: (answer) => resolve(answer === "yes"), wide });
  });
}

/**
 * Ask with a form; `fields`: its elements. `save()` does what was asked for and may raise: the
 * message is shown, and `inputOf(error)` gets the focus. The dialog closes when `save` returns nothing.
 */
export function formDialog(title, fields, { label, save, inputOf = () => null, focus = null, wide = false }) {
  const fault = h("div", { class: "message", role: "alert" });
  const submit = h("button", { type: "submit", class: "primary" }, label);
  const form = h("form", { novalidate: true, "aria-label": title },
    h("h2", { id: "dialog-title" }, title), fields, fault,
    h("p", { class: "actions" }, h("button", { type: "button", on: { click: () => dialog.close() } }, "Cancel"), submit));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    put(fault);
    try {
      const next = await save();
      if (next) {
        put(dialog, next);
        dialog.querySelector("h2").focus();
      } else dialog.close();
    } catch (error) {
      put(fault, h("p", {}, visible(error.message, 500)));
      inputOf(error)?.focus();
    }
    submit.disabled = false;
  });
  const dialog = openDialog(form, { wide });
  (focus ?? form.querySelector("input, textarea, select"))?.focus();
  return dialog;
}

/** A labelled field of a form. */
export function labelled(label, input, { note = null, list = null } = {}) {
  const help = note && h("p", { class: "help", id: `${input.id}-help` }, note);
  if (help) input.setAttribute("aria-describedby", help.id);
  return h("div", { class: "field" }, h("label", { for: input.id }, label), input, list, help);
}

/** The names in a field, between commas. */
export function listed(text) {
  return text.split(",").map((part) => part.trim()).filter(Boolean);
}

/** Give the browser a file to save. */
export function saveFile(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** A button that saves what `make()` returns as CSV; it names the file after `page`. */
export function exportButton(make, page = "things") {
  const button = h("button", { type: "button", class: "export", title: "Save the list as CSV", "aria-label": "Export CSV" }, icon("save"), h("span", {}, "CSV"));
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      saveFile(`thingctl-${page}-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.csv`, await make(), "text/csv");
    } catch (error) {
      await confirmDialog("The list cannot be exported", visible(error.message, 500), { yes: "Try again", no: "Close" }).then((again) => again && setTimeout(() => button.click()));
    }
    button.disabled = false;
  });
  return button;
}

/** A link to a thing. */
export function thingLink(name, hash, props = {}) {
  return h("a", { href: hash, ...props }, foreign(name, 128));
}

/** Names and what they are, `[name, value, extra]`; those without a value are left out. */
export function factList(facts) {
  return h("dl", { class: "facts" }, facts.filter(([, value]) => value).map(([name, value, extra]) => h("div", {}, h("dt", {}, name), h("dd", {}, value, extra))));
}

/** The shape of a list of so many `rows` while it is read. */
export function skeleton(text, rows) {
  return h("div", { class: "skeleton", role: "status" }, h("span", { class: "hidden-text" }, text), Array.from({ length: rows }, () => h("i")));
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
