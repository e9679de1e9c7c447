// Plots of the last hour, in SVG: no library, and a table for screen readers.

import { h, put, s } from "./dom.js";
import { duration, minute } from "./format.js";
import { ENDS, statusWord } from "./statuses.js";

const HEIGHT = 190;
const LEFT = 52;
const RIGHT = 8;
const TOP = 10;
const BOTTOM = 24;

/** A figure that is drawn anew when its width changes. `draw(width)` returns {svg, readout(index)}. */
function figure(title, legend, table, draw, length) {
  const readout = h("span", { class: "readout" });
  const body = h("div", { class: "plot", tabindex: 0, role: "img", "aria-label": `${title}. The figures are in the table below; the arrow keys read them out.` });
  const element = h("figure", { class: "card plot-card" },
    h("figcaption", {}, h("h2", {}, title), readout, legend), body,
    h("details", { class: "as-table" }, h("summary", {}, "As a table"), table));
  let width = 0;
  let drawn = null;
  let at = -1;
  const point = (index) => {
    at = index;
    body.querySelector(".cursor")?.remove();
    if (index < 0 || !drawn) return put(readout);
    const x = LEFT + ((width - LEFT - RIGHT) / length) * (index + 0.5);
    drawn.svg.append(s("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }));
    put(readout, drawn.readout(index));
  };
  const redraw = () => {
    width = Math.max(280, body.clientWidth);
    drawn = draw(width);
    put(body, drawn.svg);
    if (at >= 0) point(at);
  };
  body.addEventListener("pointermove", (event) => {
    const box = body.getBoundingClientRect();
    const index = Math.floor(((event.clientX - box.left - LEFT) / (width - LEFT - RIGHT)) * length);
    point(index >= 0 && index < length ? index : -1);
  });
  body.addEventListener("pointerleave", () => point(-1));
  body.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    point(Math.min(length - 1, Math.max(0, at < 0 ? length - 1 : at + step)));
  });
  body.addEventListener("blur", () => point(-1));
  const resized = new ResizeObserver(() => body.clientWidth !== width && redraw());
  resized.observe(body);
  return { element, redraw, destroy: () => resized.disconnect() };
}

function frame(width, minutes, label) {
  const svg = s("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, "aria-hidden": "true" });
  const step = (width - LEFT - RIGHT) / minutes.length;
  const every = width < 500 ? 20 : 10;
  minutes.forEach(({ ms }, index) => {
    if (new Date(ms).getMinutes() % every) return;
    const x = LEFT + step * (index + 0.5);
    if (x < width - 20) svg.append(s("text", { class: "tick", x, y: HEIGHT - 6, "text-anchor": "middle" }, minute(ms)));
  });
  const y = (share) => HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM);
  for (const [share, text] of label) {
    svg.append(s("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(share), y2: y(share) }));
    svg.append(s("text", { class: "tick", x: LEFT - 8, y: y(share) + 4, "text-anchor": "end" }, text));
  }
  return { svg, step, y };
}


/** Commands that ended in each minute, by status, and how many were sent. */
export function commandsPlot(read) {
  const legend = h("ul", { class: "legend" }, ENDS.map((status) => h("li", { "data-status": status }, h("i"), statusWord(status))), h("li", { class: "sent" }, h("i"), "Sent"));
  const body = h("tbody");
  const table = h("table", {}, h("thead", {}, h("tr", {}, ["Minute", "Sent", ...ENDS.map(statusWord)].map((text) => h("th", { scope: "col" }, text)))), body);
  const draw = (width) => {
    const minutes = read();
    put(body, minutes.filter((m) => m.created || m.total).map((m) => h("tr", {}, h("th", { scope: "row" }, minute(m.ms)), h("td", {}, m.created), ENDS.map((status) => h("td", {}, m.ended[status] ?? 0)))));
    const top = nice(Math.max(4, ...minutes.map((m) => Math.max(m.created, m.total))));
    const { svg, step, y } = frame(width, minutes, [0, 0.5, 1].map((share) => [share, (top * share).toLocaleString("en")]));
    minutes.forEach((m, index) => {
      let below = 0;
      for (const status of ENDS) {
        const count = m.ended[status] ?? 0;
        if (!count) continue;
        const bottom = y(below / top);
        below += count;
        const head = y(below / top);
        svg.append(s("rect", { class: "column", "data-status": status, x: LEFT + step * index + step * 0.14, width: Math.max(1, step * 0.72), y: head, height: Math.max(1, bottom - head) }));
      }
    });
    const line = minutes.map((m, index) => `${index ? "L" : "M"}${(LEFT + step * index).toFixed(1)} ${y(m.created / top).toFixed(1)}h${step.toFixed(1)}`).join("");
    svg.append(s("path", { class: "line sent", d: line }));
    return {
      svg,
      readout: (index) => {
        const m = minutes[index];
        const ends = ENDS.filter((status) => m.ended[status]).map((status) => `${m.ended[status].toLocaleString("en")} ${statusWord(status).toLowerCase()}`);
        return `${minute(m.ms)}: ${[`${m.created.toLocaleString("en")} sent`, ...ends].join(", ")}`;
      },
    };
  };
  return figure("Commands per minute", legend, table, draw, 60);
}

const LINES = [["p50", "Median"], ["p95", "95 %"], ["p99", "99 %"]];

/** How long things took to answer, minute by minute; the scale is logarithmic. */
export function latencyPlot(read) {
  const legend = h("ul", { class: "legend" }, LINES.map(([name, word]) => h("li", { class: name }, h("i"), word)));
  const body = h("tbody");
  const table = h("table", {}, h("thead", {}, h("tr", {}, ["Minute", "Answers", ...LINES.map(([, word]) => word)].map((text) => h("th", { scope: "col" }, text)))), body);
  const draw = (width) => {
    const minutes = read();
    const known = minutes.filter((m) => m.latency);
    put(body, known.map((m) => h("tr", {}, h("th", { scope: "row" }, minute(m.ms)), h("td", {}, m.latency.count), LINES.map(([name]) => h("td", {}, duration(m.latency[name]))))));
    const values = known.flatMap((m) => LINES.map(([name]) => Math.max(1e-4, m.latency[name])));
    const low = Math.floor(Math.log10(Math.min(0.001, ...values)));
    const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(0.1, ...values))));
    const share = (value) => (Math.log10(Math.max(1e-4, value)) - low) / (high - low);
    const labels = Array.from({ length: high - low + 1 }, (_, number) => [number / (high - low), power(low + number)]);
    const { svg, step, y } = frame(width, minutes, labels);
    for (const [name] of [...LINES].reverse()) {
      let path = "";
      let open = false;
      minutes.forEach((m, index) => {
        const x = LEFT + step * (index + 0.5);
        if (m.latency) {
          const at = `${x.toFixed(1)} ${y(share(m.latency[name])).toFixed(1)}`;
          path += open ? `L${at}` : `M${at}`;
          const alone = !minutes[index - 1]?.latency && !minutes[index + 1]?.latency;
          if (alone) svg.append(s("circle", { class: `dot ${name}`, cx: x, cy: y(share(m.latency[name])), r: 2.5 }));
        }
        open = Boolean(m.latency);
      });
      svg.append(s("path", { class: `line ${name}`, d: path }));
    }
    return {
      svg,
      readout: (index) => {
        const m = minutes[index];
        if (!m.latency) return `${minute(m.ms)}: no answers`;
        return `${minute(m.ms)}: ${LINES.map(([name, word]) => `${word} ${duration(m.latency[name])}`).join(", ")}`;
      },
    };
  };
  return figure("Time to the verdict", legend, table, draw, 60);
}

function power(exponent) {
  if (exponent < 0) return `${10 ** (exponent + 3)} ms`;
  const seconds = 10 ** exponent;
  return seconds < 1000 ? `${seconds} s` : `${seconds / 1000}k s`;
}

/** The next round number from `value` on. */
function nice(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((step) => step * unit).find((step) => step >= value);
}
