// A command to many things before it is sent: who would get it, who would be refused, and the question.

import { foreign, h, visible } from "./dom.js";
import { count } from "./format.js";
import { pretty } from "./json.js";
import { hashOf } from "./router.js";
import { confirmDialog, notice, thingLink } from "./widgets.js";

const NAMES_SHOWN = 200;
const RULE_WORDS = { rate: (n) => `${n} things in a second`, batch: (n) => `${n} in parallel`, maxFailures: (n) => `stopped after ${n} failures` };

/** Ask whether to send; `answer`: of the dry run. Resolves to whether to go on. */
export function confirmBulk(answer, { action, params, rollout }) {
  const rules = Object.entries(rollout).map(([name, value]) => RULE_WORDS[name](value.toLocaleString("en")));
  return confirmDialog(`Send ${visible(action, 60)} to ${count(answer.targeted, "thing")}?`, [
    h("pre", { tabindex: 0, "aria-label": "Params" }, visible(pretty(params), 4000)),
    h("p", {}, rules.length ? `Step by step: ${rules.join(", ")}.` : "To all of them at the same time."),
    doubts(answer),
  ], { yes: `Send to ${count(answer.targeted, "thing")}`, no: "Do not send", wide: true });
}

/** What a dry run found, as the content of the result. */
export function dryRunResult(answer) {
  const { targeted, things } = answer;
  return h("div", { class: "details" }, h("h2", { tabindex: -1 }, `${count(targeted, "thing")} would get it`), targeted ? null : notice("No thing fits", "Choose other things."),
    doubts(answer),
    things.length ? h("ul", { class: "names-list" }, things.slice(0, NAMES_SHOWN).map((name) => h("li", {}, thingLink(name, hashOf(["things", name]))))) : null,
    targeted > NAMES_SHOWN ? h("p", { class: "hint" }, `and ${(targeted - NAMES_SHOWN).toLocaleString("en")} more`) : null,
    h("p", { class: "hint" }, "Nothing was sent."));
}

/** What speaks against sending: refusals, and things without the action. */
function doubts({ refused = 0, refusals = [], unannounced = 0 }) {
  if (!refused && !unannounced) return null;
  return h("section", { class: "callout", "data-status": "REJECTED", "aria-label": "Problems" },
    refused ? h("strong", {}, `The broker would refuse it for ${count(refused, "thing")}`) : null,
    refusals.map(({ detail, things, example, pointer = "" }) => h("p", {}, `${count(things, "thing")} (`, foreign(example, 60), things > 1 ? ", …" : "", "): ", pointer ? [h("code", {}, visible(pointer, 100)), " "] : null, foreign(detail, 300))),
    unannounced ? h("p", {}, `${count(unannounced, "thing")} announced no such action, and will most likely reject it.`) : null);
}
