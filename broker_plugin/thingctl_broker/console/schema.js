// A form made from a JSON Schema, field by field. What a form cannot hold stays JSON.

import { h, put, visible } from "./dom.js";
import { isObject, parse, pretty } from "./json.js";

const DEEPEST = 8;
const MOST_FIELDS = 200;
let ids = 0;

/** What was entered is no value; `message` says why, `input` is where. */
export class FormError extends Error {
  constructor(message, input) {
    super(message);
    this.input = input;
  }
}

/**
 * Make a form for the params that `schema` describes, with `value` in it.
 * Returns {element, read(lenient)}: `read` returns the params, and raises FormError; lenient, it leaves out
 * what is no value. null: this schema makes no form.
 */
export function paramsForm(schema, value = {}) {
  const context = { root: schema, counter: { fields: 0 }, pointer: "/params" };
  const resolved = resolve(schema, context);
  if (!isObject(resolved) || !isObject(resolved.properties ?? {}) || (resolved.type ?? "object") !== "object") return null;
  if (Object.keys(resolved.properties ?? {}).length > MOST_FIELDS) return null;
  const { element, read } = objectField(resolved, value, context, 0);
  return { element, read };
}

function resolve(schema, context, depth = 0) {
  if (!isObject(schema) || depth > DEEPEST) return {};
  if (typeof schema.$ref === "string") {
    let target = context.root;
    if (!schema.$ref.startsWith("#/")) return {};
    for (const part of schema.$ref.slice(2).split("/")) target = isObject(target) && Object.hasOwn(target, unescape(part)) ? target[unescape(part)] : {};
    const { $ref, ...beside } = schema;
    return { ...resolve(target, context, depth + 1), ...beside };
  }
  // "This or null" is this, left out or not.
  for (const key of ["anyOf", "oneOf"]) {
    const choices = Array.isArray(schema[key]) ? schema[key].filter((choice) => choice?.type !== "null") : [];
    if (choices.length === 1 && schema[key].length === 2) {
      const { [key]: _, ...beside } = schema;
      return { ...resolve(choices[0], context, depth + 1), ...beside, nullable: true };
    }
  }
  if (Array.isArray(schema.allOf) && schema.allOf.length === 1) return { ...resolve(schema.allOf[0], context, depth + 1), ...schema, allOf: undefined };
  if (Array.isArray(schema.type)) {
    const types = schema.type.filter((type) => type !== "null");
    if (types.length === 1) return { ...schema, type: types[0], nullable: types.length < schema.type.length };
  }
  return schema;
}

const unescape = (part) => part.replaceAll("~1", "/").replaceAll("~0", "~");

function attempt(read) {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/** A field: {element, read(lenient)} with `read` returning undefined for what is left out. */
function field(name, schema, value, required, { item = false, ...around }, depth) {
  const context = { ...around, pointer: `${around.pointer}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}` };
  const resolved = resolve(schema, context);
  const start = value === undefined ? resolved.default : value;
  const labelText = visible(name, 80); // not the title: the name is what programs and the command line take
  context.counter.fields += 1;
  const kind = depth > DEEPEST || context.counter.fields > MOST_FIELDS ? "json" : kindOf(resolved);
  if (kind === "object") {
    const inner = objectField(resolved, isObject(start) ? start : undefined, context, depth + 1, !required);
    const legend = h("legend", {}, labelText, required && !item ? mark() : null);
    return { element: h("fieldset", { class: "group" }, legend, help(resolved, "", name), inner.element), read: inner.read };
  }
  if (kind === "array") {
    const inner = arrayField(labelText, resolved, Array.isArray(start) ? start : [], required, context, depth + 1);
    return { element: h("fieldset", { class: "group" }, h("legend", {}, labelText, required && !item ? mark() : null), help(resolved, "", name), inner.element), read: inner.read };
  }
  const control = CONTROLS[kind](resolved, start, required);
  const id = `field-${(ids += 1)}`;
  control.input.id = id;
  if (!item) control.input.dataset.pointer = context.pointer;
  const note = help(resolved, bounds(resolved), item ? resolved.title ?? "" : name);
  if (note) {
    note.id = `${id}-help`;
    control.input.setAttribute("aria-describedby", note.id);
  }
  const label = h("label", { for: id }, labelText, required && !item ? mark() : null);
  const element = kind === "boolean" && control.input.type === "checkbox" ? h("div", { class: "field check" }, control.input, label, note) : h("div", { class: "field" }, label, control.input, note);
  return { element, read: (lenient) => (lenient ? attempt(() => control.read(labelText)) : control.read(labelText)) };
}

function kindOf(schema) {
  if (Array.isArray(schema.enum) && schema.enum.length) return "choice";
  if ("const" in schema) return "choice";
  switch (schema.type) {
    case "string": return (schema.maxLength ?? 0) > 200 || schema.contentMediaType ? "text" : "string";
    case "integer":
    case "number":
    case "boolean": return schema.type;
    case "object": return isObject(schema.properties) && Object.keys(schema.properties).length ? "object" : "json";
    case "array": return isObject(schema.items) && !schema.prefixItems ? "array" : "json";
    default: return isObject(schema.properties) ? "object" : "json";
  }
}

const CONTROLS = {
  choice(schema, start, required) {
    const values = "const" in schema ? [schema.const] : schema.enum;
    const texts = values.map((value) => JSON.stringify(value));
    const input = h("select", { required },
      !required || start === undefined ? h("option", { value: "" }, required ? "Choose…" : "Not set") : null,
      values.map((value, number) => h("option", { value: number }, visible(typeof value === "string" ? value : texts[number], 200))));
    const chosen = start === undefined ? -1 : texts.indexOf(JSON.stringify(start));
    if (chosen >= 0) input.value = chosen;
    else if ("const" in schema && required) input.value = 0;
    return { input, read: (label) => (input.value === "" ? missing(required, label, input) : values[input.value]) };
  },

  boolean(schema, start, required) {
    if (!required && typeof start !== "boolean") {
      const input = h("select", {}, h("option", { value: "" }, "Not set"), h("option", { value: "true" }, "true"), h("option", { value: "false" }, "false"));
      return { input, read: () => (input.value === "" ? undefined : input.value === "true") };
    }
    const input = h("input", { type: "checkbox", checked: start === true });
    return { input, read: () => input.checked };
  },

  integer: (schema, start, required) => numberControl(schema, start, required, /^[+-]?\d+$/, "a whole number"),
  number: (schema, start, required) => numberControl(schema, start, required, /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i, "a number"),

  string(schema, start, required) {
    const types = { date: "date", email: "email", password: "password" };
    const input = h("input", { type: types[schema.format] ?? "text", value: typeof start === "string" ? start : "", autocomplete: "off", spellcheck: "false" });
    return { input, read: (label) => readText(schema, input, required, label) };
  },

  text(schema, start, required) {
    const input = h("textarea", { rows: 4, value: typeof start === "string" ? start : "" });
    return { input, read: (label) => readText(schema, input, required, label) };
  },

  json(schema, start, required) {
    const input = h("textarea", { rows: 3, class: "mono", spellcheck: "false", placeholder: "JSON", value: start === undefined ? "" : pretty(start) });
    return {
      input,
      read(label) {
        if (input.value.trim() === "") return missing(required, label, input);
        try {
          return parse(input.value);
        } catch (error) {
          throw new FormError(`${label} is not JSON: ${error.message}`, input);
        }
      },
    };
  },
};

function numberControl(schema, start, required, pattern, what) {
  // Text with a check of its own: a number field drops what it does not understand without a word.
  const input = h("input", { type: "text", inputmode: "decimal", autocomplete: "off", class: "number", value: start === undefined || start === null ? "" : JSON.stringify(start) });
  const read = (label) => {
    const text = input.value.trim();
    if (text === "") return missing(required, label, input);
    if (!pattern.test(text)) throw new FormError(`${label} must be ${what}`, input);
    const value = Number(text);
    const { minimum: min, maximum: max, exclusiveMinimum: above, exclusiveMaximum: below, multipleOf: step } = schema;
    if (typeof min === "number" && value < min) throw new FormError(`${label} must be at least ${min}`, input);
    if (typeof max === "number" && value > max) throw new FormError(`${label} must be at most ${max}`, input);
    if (typeof above === "number" && value <= above) throw new FormError(`${label} must be above ${above}`, input);
    if (typeof below === "number" && value >= below) throw new FormError(`${label} must be below ${below}`, input);
    if (typeof step === "number" && Math.abs(value / step - Math.round(value / step)) > 1e-9) throw new FormError(`${label} must be a multiple of ${step}`, input);
    return Number.isSafeInteger(value) || !Number.isInteger(value) ? value : parse(text.replace(/^\+/, ""));
  };
  return { input, read };
}

function readText(schema, input, required, label) {
  if (input.value === "" && !required) return undefined;
  const length = [...input.value].length;
  if (length < (schema.minLength ?? 0)) throw new FormError(`${label} must have at least ${schema.minLength} characters`, input);
  if (length > (schema.maxLength ?? Infinity)) throw new FormError(`${label} may have at most ${schema.maxLength} characters`, input);
  return input.value; // a pattern is the thing's to check: one from elsewhere may take for ever
}

function missing(required, label, input) {
  if (required) throw new FormError(`${label} is needed`, input);
  return undefined;
}

function objectField(schema, value, context, depth, optional = false) {
  const required = new Set(Array.isArray(schema.required) ? schema.required : []);
  const names = Object.keys(schema.properties ?? {});
  const fields = names.map((name) => [name, field(name, schema.properties[name], value?.[name], required.has(name), context, depth)]);
  const rest = Object.entries(value ?? {}).filter(([name]) => !names.includes(name));
  const empty = depth === 0 && !names.length ? h("p", { class: "hint" }, "This action takes no parameters.") : null;
  return {
    element: h("div", { class: "object" }, empty, fields.map(([, { element }]) => element)),
    read(lenient = false) {
      const found = new Map(rest);
      let fault = null;
      for (const [name, { read }] of fields) {
        try {
          const entered = read(lenient);
          if (entered !== undefined) found.set(name, entered);
        } catch (error) {
          fault ??= error;
        }
      }
      if (optional && !found.size) return undefined; // nothing was entered: it is left out
      if (fault) throw fault;
      return Object.fromEntries(found);
    },
  };
}

function arrayField(label, schema, start, required, context, depth) {
  const items = [];
  let number = 0;
  const list = h("div", { class: "items" });
  const most = typeof schema.maxItems === "number" ? schema.maxItems : 1000;
  const least = typeof schema.minItems === "number" ? schema.minItems : 0;
  const add = h("button", { type: "button", class: "small", on: { click: () => append(undefined).querySelector("input, select, textarea, button")?.focus() } }, "Add");
  function append(value) {
    const made = field(`${label} ${(number += 1)}`, schema.items, value, true, { ...context, counter: { fields: 0 }, item: true }, depth);
    const row = h("div", { class: "item" }, made.element, h("button", {
      type: "button", class: "quiet small", "aria-label": `Remove from ${label}`,
      on: { click: () => {
        items.splice(items.findIndex((item) => item.row === row), 1);
        row.remove();
        add.disabled = items.length >= most;
        add.focus();
      } },
    }, "Remove"));
    items.push({ row, read: made.read });
    list.append(row);
    add.disabled = items.length >= most;
    return row;
  }
  for (const value of start) append(value);
  while (items.length < least) append(undefined);
  return {
    element: put(h("div", { class: "array" }), list, add),
    read(lenient = false) {
      if (!items.length && !required) return undefined;
      if (lenient) return items.map((item) => item.read(true) ?? null);
      if (items.length < least) throw new FormError(`${label} must have at least ${least} items`, add);
      return items.map((item) => item.read());
    },
  };
}

function bounds(schema) {
  const { minimum: min, maximum: max, exclusiveMinimum: above, exclusiveMaximum: below } = schema;
  const words = [];
  if (typeof min === "number" && typeof max === "number") words.push(`${min} to ${max}`);
  else if (typeof min === "number") words.push(`at least ${min}`);
  else if (typeof max === "number") words.push(`at most ${max}`);
  if (typeof above === "number") words.push(`above ${above}`);
  if (typeof below === "number") words.push(`below ${below}`);
  return words.join(", ");
}

function help(schema, more = "", name = "") {
  const title = typeof schema.title === "string" && schema.title.toLowerCase() !== name.toLowerCase() ? visible(schema.title, 80) : "";
  const text = [title, typeof schema.description === "string" ? visible(schema.description, 500) : "", more].filter(Boolean).join("; ");
  return text ? h("p", { class: "help" }, text) : null;
}

function mark() {
  return h("span", { class: "needed", title: "needed" }, h("span", { "aria-hidden": "true" }, " *"), h("span", { class: "hidden-text" }, " (needed)"));
}
