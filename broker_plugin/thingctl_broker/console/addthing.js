// Adding a thing: what it is, and then the bundle that enrols its device.

import * as api from "./api.js";
import { announce, h, visible } from "./dom.js";
import { enrolmentView } from "./enrolment.js";
import { formDialog, labelled, listed, suggesting } from "./widgets.js";

/** The fields of what an operator says of a thing: {elements, read(), inputOf(error)}. */
export function definitionFields({ type = "", tags = [], description = "" } = {}) {
  let types = [];
  api.thingTypes().then((found) => (types = found.map((one) => one.name)), () => {});
  const typed = suggesting({ id: "thing-type", placeholder: "none", value: type }, () => types);
  const tagged = h("input", { type: "text", id: "thing-tags", autocomplete: "off", placeholder: "floor-2, north", value: tags.join(", ") });
  const about = h("input", { type: "text", id: "thing-about", maxlength: 1024, autocomplete: "off", value: description });
  return {
    elements: [labelled("Type", typed.input, { list: typed.list }), labelled("Tags", tagged, { note: "separated by commas" }), labelled("Description", about)],
    read: () => ({ type: typed.input.value.trim() || null, tags: listed(tagged.value), description: about.value.trim() }),
    inputOf: ({ pointer }) => ({ "/type": typed.input, "/description": about })[pointer] ?? (pointer?.startsWith("/tags") ? tagged : null),
  };
}

/** Ask for a thing and add it; `added()` is called when it is there. */
export function addThing(added) {
  const name = h("input", { type: "text", id: "thing-name", required: true, maxlength: 128, autocomplete: "off", spellcheck: "false", placeholder: "thermostat-002" });
  const definition = definitionFields();
  const dialog = formDialog("Add a thing", [labelled("Name", name, { note: "A to Z, a to z, 0 to 9 and : _ . -" }), definition.elements], {
    label: "Add thing",
    wide: true,
    inputOf: (error) => definition.inputOf(error) ?? name,
    async save() {
      const thing = await api.addThing({ name: name.value.trim(), ...definition.read() });
      announce("The thing is added");
      added();
      return enrolmentView(`${visible(thing.name, 128)} is added`, thing, () => dialog.close());
    },
  });
}
