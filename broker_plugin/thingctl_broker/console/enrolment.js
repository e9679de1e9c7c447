// What a device needs to get in: its bundle, as the broker made it, and the line to type there.

import { copyButton, foreign, h, visible } from "./dom.js";
import { factList, icon, saveFile } from "./widgets.js";

/** The line that installs an agent from a bundle. */
export function installLine(file) {
  return `sudo thingctl-agent install --bundle ${file} --handlers my_actions.py`;
}

/** A command to type, with a button that copies it. */
export function commandLine(text) {
  return h("p", { class: "command-line" }, h("code", {}, visible(text, 500)), copyButton("Copy the command", () => text));
}

/** What a dialog shows of a thing whose password has just been made. `done()`: closes it. */
export function enrolmentView(title, thing, done) {
  return h("div", { class: "enrolment" },
    h("h2", { id: "dialog-title", tabindex: -1 }, title),
    thing.bundle ? bundleSteps(thing) : withoutBundle(thing),
    h("p", { class: "actions" }, h("button", { type: "button", class: "primary", on: { click: done } }, "Done")));
}

function bundleSteps({ name, bundle }) {
  const file = `${name}.bundle`;
  const text = `${JSON.stringify(bundle, null, 2)}\n`;
  return [
    h("p", {}, "The bundle is one file with everything that the device needs, its password among it. The broker shows the password this once."),
    factList([
      ["Broker", h("span", { class: "mono" }, foreign(bundle.url, 300))],
      ["Trusts", bundle.ca ? "the certificate authority in the bundle" : /^mqtts|^wss/.test(bundle.url) ? "the authorities of its system" : "any broker at that address: the connection has no TLS"],
    ]),
    h("ol", { class: "numbered" },
      h("li", {}, h("p", {}, "Save the bundle, and copy it to the device."),
        h("p", { class: "actions" }, h("button", { type: "button", on: { click: () => saveFile(file, text, "application/json") } }, icon("save"), `Download ${visible(file, 60)}`))),
      h("li", {}, h("p", {}, "On the device, install the agent with it:"), commandLine(installLine(file))),
      h("li", {}, h("p", {}, "Delete the file."))),
  ];
}

function withoutBundle({ bundleFault, credentials }) {
  return [
    h("p", {}, bundleFault ? ["The broker made no bundle: ", foreign(bundleFault, 500)] : "The broker made no bundle."),
    h("p", {}, "The device signs in with these. The broker shows the password this once."),
    factList([
      ["User name", [h("span", { class: "mono" }, foreign(credentials?.username ?? "", 128)), copyButton("Copy the user name", () => credentials.username)]],
      ["Password", [h("span", { class: "mono" }, foreign(credentials?.password ?? "", 128)), copyButton("Copy the password", () => credentials.password)]],
    ]),
  ];
}
