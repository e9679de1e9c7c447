// Adding a thing: what it is, and then the settings that its agent needs, told this once.

import * as api from "./api.js";
import { announce, copyButton, h, put, visible } from "./dom.js";
import { suggesting } from "./widgets.js";

/** Ask for a thing and add it; `added()` is called when it is there. */
export function addThing(added) {
  let types = [];
  api.thingTypes().then((found) => (types = found.map((type) => type.name)), () => {});
  const name = h("input", { type: "text", id: "new-thing", required: true, maxlength: 128, autocomplete: "off", spellcheck: "false", placeholder: "thermostat-002" });
  const type = suggesting({ id: "new-type", placeholder: "none" }, () => types);
  const tags = h("input", { type: "text", id: "new-tags", autocomplete: "off", placeholder: "floor-2, north" });
  const about = h("input", { type: "text", id: "new-about", maxlength: 1024, autocomplete: "off" });
  const fault = h("div", { class: "message", role: "alert" });
  const submit = h("button", { type: "submit", class: "primary" }, "Add thing");
  const form = h("form", { novalidate: true, "aria-label": "Add thing" },
    h("h2", { id: "add-title" }, "Add a thing"),
    field("Name", name, "A to Z, a to z, 0 to 9 and : _ . -"), field("Type", type.input, null, type.list), field("Tags", tags, "separated by commas"), field("Description", about),
    fault, h("p", { class: "actions" }, h("button", { type: "button", on: { click: () => dialog.close() } }, "Cancel"), submit));
  const dialog = h("dialog", { class: "ask", "aria-labelledby": "add-title" }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    put(fault);
    const asked = { name: name.value.trim(), tags: tags.value.split(",").map((tag) => tag.trim()).filter(Boolean), description: about.value.trim() };
    if (type.input.value.trim()) asked.type = type.input.value.trim();
    try {
      show(await api.addThing(asked));
      added();
    } catch (error) {
      put(fault, h("p", {}, visible(error.message, 500)));
      ({ "/type": type.input, "/description": about }[error.pointer] ?? (error.pointer?.startsWith("/tags") ? tags : name)).focus();
    }
    submit.disabled = false;
  });

  function show(thing) {
    const text = bundle(thing);
    put(dialog, h("div", { class: "bundle" },
      h("h2", { id: "add-title", tabindex: -1 }, `${visible(thing.name, 128)} is added`),
      h("p", {}, "These settings let its agent in. The password is told this once: copy them now, into a file on the device that nobody else may read, and check the address."),
      h("pre", { tabindex: 0, "aria-label": "Settings of its agent" }, visible(text)),
      h("p", { class: "help" }, "Start it with ", h("code", {}, "thingctl-agent run --config agent.toml my_actions.py")),
      h("p", { class: "actions" }, copyButton("Copy the settings", () => text, { worded: true }), h("button", { type: "button", class: "primary", on: { click: () => dialog.close() } }, "Done"))));
    dialog.querySelector("h2").focus();
    announce("The thing is added");
  }

  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  name.focus();
}

function field(label, input, note = null, list = null) {
  return h("div", { class: "field" }, h("label", { for: input.id }, label), input, list, note && h("p", { class: "help" }, note));
}

/** The agent's settings, as the TOML that it reads. */
function bundle({ name, credentials }) {
  const settings = { thing: name, url: `mqtt://${location.hostname}:1883`, username: credentials.username, password: credentials.password };
  return Object.entries(settings).map(([key, value]) => `${key} = ${JSON.stringify(value)}`).join("\n") + "\n";
}
