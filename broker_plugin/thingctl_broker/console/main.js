// The console: which page is shown, and who is signed in.

import { ClientPage } from "./client.js";
import { ClientsPage } from "./clients.js";
import { CommandsPage } from "./commands.js";
import { h, put, visible } from "./dom.js";
import { GroupPage } from "./group.js";
import { GroupsPage } from "./groups.js";
import * as known from "./known.js";
import * as live from "./live.js";
import * as me from "./me.js";
import { OverviewPage } from "./overview.js";
import { go, hashOf, here } from "./router.js";
import { SendPage } from "./send.js";
import * as session from "./session.js";
import { SettingsPage } from "./settings.js";
import { applyTheme, places, Shell } from "./shell.js";
import { signInPage } from "./signin.js";
import { ThingPage } from "./thing.js";
import { ThingsPage } from "./things.js";
import { notice, pageHead } from "./widgets.js";

const app = document.getElementById("app");
let shell = null;
let page = null;
let shown = "";

/** Which page a path names: a key that is the same as long as the page can show it, and how to make it. */
function pageOf([first, second, third]) {
  switch (first) {
    case undefined: return ["overview", () => new OverviewPage()];
    case "commands": return ["commands", () => new CommandsPage()];
    case "groups": return second === undefined ? ["groups", () => new GroupsPage()] : [`groups/${second}`, () => new GroupPage(second)];
    case "send": return ["send", () => new SendPage()];
    case "things": return second === undefined ? ["things", () => new ThingsPage()] : [`things/${second}`, () => new ThingPage(second)];
    case "clients": return second === undefined ? ["clients", () => new ClientsPage()] : [`clients/${second}`, () => new ClientPage(second)];
    case "settings": return [["settings", second ?? "", third ?? ""].join("/"), () => new SettingsPage([second, third])];
    default: return ["nowhere", () => new Nowhere()];
  }
}

class Nowhere {
  title = "Nothing here";
  element = h("div", { class: "page" }, pageHead("Nothing here"), notice("There is no such page", "The link may be old or cut short.", { actions: [h("a", { class: "button", href: hashOf([]) }, "To the overview")] }));
  show() {}
  destroy() {}
}

function showPage() {
  if (!shell) return;
  const place = here();
  const [first] = places();
  if (!place.path.length && first?.length) {
    go(first, {}, { replace: true }); // the overview is of everything, and this token is not
    return;
  }
  const [key, make] = pageOf(place.path);
  if (key !== shown) {
    const first = shown === "";
    page?.destroy();
    page = make();
    shown = key;
    put(shell.main, page.element);
    shell.main.scrollTop = 0;
    document.title = `${visible(page.title, 60)} · thingctl`;
    shell.mark(place.path[0] === "groups" ? "commands" : place.path[0] ?? "");
    if (!first) shell.main.querySelector("h1")?.focus({ preventScroll: true });
  }
  page.show(place);
}

function close() {
  page?.destroy();
  page = null;
  shown = "";
  shell?.destroy();
  shell = null;
  live.stop();
  known.forget();
  if (!session.token()) me.forget();
}

async function open(why = "") {
  close();
  if (!session.token()) {
    document.title = "Sign in · thingctl";
    put(app, signInPage(() => open(), why));
    return;
  }
  try {
    await me.read();
  } catch {
    return; // the token is no longer valid: the session has ended, and the page to sign in is there
  }
  close();
  shell = new Shell(() => session.end());
  put(app, shell.element);
  showPage();
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const writing = event.target.closest?.("input, textarea, select");
  if (writing && event.key !== "Escape") return;
  if (writing) writing.blur();
  else if (page?.onShortcut?.(event.key)) event.preventDefault();
});

applyTheme();
session.whenEnded(open);
addEventListener("hashchange", showPage);
open();
