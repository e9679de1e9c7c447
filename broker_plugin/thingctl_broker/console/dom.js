// Elements, made by hand. Text becomes a text node, always: there is no other way in here.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element. `props`: attributes; `on`: listeners by event; a value of null or false leaves one out. */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** Make an SVG element. */
export function s(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name === "value" || name === "checked" || name === "disabled" || name === "open") {
      element[name] = value;
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Put `children` in the place of what is in `element`. */
export function put(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Controls, and marks that turn the direction of what stands beside them or hide within it.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** Text from elsewhere, with whatever does not show made to show, and no longer than `longest`. */
export function visible(text, longest = 4000) {
  const whole = String(text);
  const cut = whole.length > longest ? `${whole.slice(0, longest)}… (${whole.length.toLocaleString("en")} characters)` : whole;
  return cut.replace(UNSEEN, (mark) => `\\u${mark.codePointAt(0).toString(16).padStart(4, "0")}`);
}

/** Text from elsewhere as an element whose direction stays its own. */
export function foreign(text, longest = 200, props = {}) {
  return h("bdi", { title: String(text).length > 24 ? visible(text, 1000) : null, ...props }, visible(text, longest));
}

/** Tell a screen reader. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

const ICONS = {
  overview: "M4 19V9m5 10V5m5 14v-7m5 7V8",
  commands: "M5 7l4 5-4 5m7 0h7",
  things: "M7 3h10v18H7zM11 18h2",
  clients: "M9 3h6v5H9zM3 16h6v5H3zm12 0h6v5h-6zM12 8v4m-6 4v-4h12v4",
  send: "M4 12l16-8-6 16-3-7z",
  settings: "M4 7h9m5 0h2M4 17h3m5 0h8M15.5 4.5a2.5 2.5 0 100 5 2.5 2.5 0 000-5zM9.5 14.5a2.5 2.5 0 100 5 2.5 2.5 0 000-5z",
  save: "M12 4v11m-5-5l5 5 5-5M5 20h14",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v11H9zM15 9V4H5v11h4",
  sun: "M12 8a4 4 0 100 8 4 4 0 000-8zM12 3v1m0 16v1m9-9h-1M4 12H3m15.4-6.4l-.7.7M6.3 17.7l-.7.7m12.8 0l-.7-.7M6.3 6.3l-.7-.7",
  moon: "M20 14.5A8.5 8.5 0 019.5 4a8.5 8.5 0 1010.5 10.5z",
  auto: "M12 4a8 8 0 100 16zM12 4a8 8 0 010 16",
  out: "M14 4h5v16h-5M4 12h10m-4-4l4 4-4 4",
  up: "M12 19V5m-6 6l6-6 6 6",
  search: "M11 5a6 6 0 100 12 6 6 0 000-12zm4.5 10.5L20 20",
};

/** One of the few icons; it says nothing that the text beside it does not. */
export function icon(name) {
  return s("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, s("path", { d: ICONS[name] }));
}

/** A button that puts `text()` on the clipboard; `worded`: with its label beside the picture; `small`: as a quiet one. */
export function copyButton(label, text, { worded = false, small = false } = {}) {
  const button = worded
    ? h("button", { type: "button", class: small ? "quiet small" : null }, icon("copy"), label)
    : h("button", { type: "button", class: "quiet small", "aria-label": label, title: label }, icon("copy"));
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      announce("Copied");
      button.dataset.done = "yes";
      setTimeout(() => delete button.dataset.done, 1200);
    } catch {
      announce("The browser does not allow copying here");
    }
  });
  return button;
}
