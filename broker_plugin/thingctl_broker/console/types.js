// Thing types: which there are, and the actions of one as JSON.

import * as api from "./api.js";
import { announce, foreign, h, put, visible } from "./dom.js";
import { count } from "./format.js";
import * as me from "./me.js";
import { go, hashOf } from "./router.js";
import { confirmDialog, failure, formDialog, labelled, notice } from "./widgets.js";

/** A type is about every thing of it, so a limited token may not change one. */
function mayChange() {
  return me.may("things:write") && !me.isLimited();
}

/** A type as its owner writes it: without its name, and without what is counted. */
function written({ description = "", actions = [] }) {
  return JSON.stringify({ description, actions }, null, 2);
}

export class TypesPart {
  constructor() {
    this.actions = mayChange() ? h("button", { type: "button", class: "primary", on: { click: () => this.#add() } }, "Add type") : null;
    this.element = h("section", { class: "card", "aria-label": "Thing types" }, h("p", { class: "hint" }, "loading…"));
    this.read();
  }

  async read() {
    try {
      const types = await api.thingTypes();
      if (this.gone) return;
      put(this.element, types.length ? h("ul", { class: "entries" }, types.map((type) => h("li", {},
        h("div", {}, h("a", { href: hashOf(["settings", "types", type.name]) }, foreign(type.name, 128)), type.description ? h("p", { class: "hint" }, foreign(type.description, 300)) : null),
        h("span", { class: "hint" }, count(type.actions.length, "action")), h("a", { href: hashOf(["things"], { type: type.name }) }, count(type.things, "thing"))))) : notice("There is no thing type yet", "A type holds the actions that many things share. Params are checked against its schemas."));
    } catch (error) {
      if (!this.gone) put(this.element, failure(error, () => this.read()));
    }
  }

  #add() {
    const name = h("input", { type: "text", id: "type-name", required: true, maxlength: 128, autocomplete: "off", spellcheck: "false", placeholder: "thermostat" });
    formDialog("Add a thing type", labelled("Name", name, { note: "A to Z, a to z, 0 to 9 and : _ . -" }), {
      label: "Add type",
      inputOf: () => name,
      async save() {
        const wanted = name.value.trim();
        await api.putThingType(wanted, written({}));
        announce("The type is added");
        go(["settings", "types", wanted]);
      },
    });
  }
}

export class TypePart {
  constructor(name) {
    this.name = name;
    this.element = h("section", { class: "card type", "aria-label": "Thing type" }, h("p", { class: "hint" }, "loading…"));
    this.read();
  }

  async read() {
    try {
      const type = await api.thingType(this.name);
      if (!this.gone) this.#show(type);
    } catch (error) {
      if (!this.gone) put(this.element, error.status === 404 ? notice("No thing type has this name", "It may have been removed.", { kind: "error" }) : failure(error, () => this.read()));
    }
  }

  #show(type) {
    const text = h("textarea", { id: "type-json", class: "mono", rows: 22, spellcheck: "false", value: written(type), readonly: !mayChange() });
    const fault = h("div", { class: "message", role: "alert" });
    const save = async () => {
      put(fault);
      try {
        JSON.parse(text.value);
      } catch (error) {
        put(fault, h("p", {}, `This is not JSON: ${visible(error.message, 300)}`));
        return text.focus();
      }
      try {
        await api.putThingType(this.name, text.value);
        announce("Saved");
        await this.read();
      } catch (error) {
        put(fault, h("p", {}, error.pointer ? `${visible(error.pointer, 200)}: ` : "", visible(error.message, 500)));
        text.focus();
      }
    };
    put(this.element, h("header", { class: "card-head" }, h("h2", {}, foreign(this.name, 128)), h("a", { href: hashOf(["things"], { type: this.name }) }, count(type.things, "thing"))),
      labelled("Description and actions, as JSON", text, { note: "The schemas are JSON Schema 2020-12." }), fault,
      mayChange() ? h("p", { class: "actions" }, h("button", { type: "button", class: "primary", on: { click: save } }, "Save"), h("button", { type: "button", class: "danger", on: { click: () => this.#remove(fault) } }, "Remove")) : null);
  }

  async #remove(fault) {
    if (!(await confirmDialog(`Remove ${visible(this.name, 128)}?`, "A type can be removed when no thing is of it.", { yes: "Remove", danger: true }))) return;
    try {
      await api.removeThingType(this.name);
      go(["settings", "types"]);
    } catch (error) {
      put(fault, h("p", {}, visible(error.message, 500)));
    }
  }
}
