// A table of which only the rows in sight exist. Rows have one height, the style sheet's --row.

import { h, put } from "./dom.js";
import { go } from "./router.js";

const BEYOND = 12; // rows drawn above and below those in sight

/**
 * `columns`: [{label, class}]; `draw(item, row)`: the cells of a row, as one element for each column;
 * `keyOf(item)`; `onEnd()`: the last rows have come into sight; `onScroll()`.
 * Each row has one link, `a.main`, and the arrow keys go from one to the next.
 */
export class Rows {
  constructor({ label, columns, draw, keyOf, onEnd = () => {}, onScroll = () => {} }) {
    this.columns = columns;
    this.draw = draw;
    this.keyOf = keyOf;
    this.onEnd = onEnd;
    this.onScroll = onScroll;
    this.items = [];
    this.drawn = new Map();
    this.active = 0;
    this.frame = 0;
    const cells = columns.map((column) => h("div", { class: `th ${column.class ?? ""}`, role: "columnheader" }, column.label));
    this.canvas = h("div", { class: "canvas", role: "rowgroup" });
    this.element = h("div", { class: "rows", tabindex: -1 },
      h("div", { class: "table", role: "table", "aria-label": label },
        h("div", { class: "thead", role: "rowgroup" }, h("div", { class: "tr", role: "row", "aria-rowindex": 1 }, cells)), this.canvas));
    this.table = this.element.firstChild;
    this.element.addEventListener("scroll", () => this.schedule(true), { passive: true });
    this.element.addEventListener("keydown", (event) => this.#onKey(event));
    this.element.addEventListener("focusin", (event) => {
      const row = event.target.closest("[data-index]");
      if (row) this.active = Number(row.dataset.index);
    });
    this.resized = new ResizeObserver(() => this.schedule(false));
    this.resized.observe(this.element);
  }

  destroy() {
    this.resized.disconnect();
    cancelAnimationFrame(this.frame);
  }

  /** How high a row is at this width. */
  get rowHeight() {
    return parseFloat(getComputedStyle(this.element).getPropertyValue("--row")) || 40;
  }

  /** The index of the first row in sight. */
  get first() {
    return Math.max(0, Math.floor(this.element.scrollTop / this.rowHeight));
  }

  get last() {
    return Math.min(this.items.length - 1, Math.ceil((this.element.scrollTop + this.element.clientHeight) / this.rowHeight));
  }

  /** Whether the reader is at the top, where new rows come in. */
  get atTop() {
    return this.element.scrollTop < this.rowHeight / 2;
  }

  /** Show `items`. What is in sight stays in sight, unless the reader is at the top. `changed`: keys to draw anew. */
  set(items, changed = null) {
    const anchor = this.atTop ? null : this.items[this.first];
    const focused = this.drawn.size && this.canvas.contains(document.activeElement) ? this.items[this.active] : null;
    this.items = items;
    this.canvas.style.height = `${items.length * this.rowHeight}px`;
    this.table.setAttribute("aria-rowcount", items.length + 1);
    if (anchor) {
      const now = this.#indexOf(this.keyOf(anchor));
      if (now >= 0) this.#keep(anchor, now);
    }
    if (focused) {
      const now = this.#indexOf(this.keyOf(focused));
      if (now >= 0) this.active = now;
    }
    if (changed === null) {
      for (const row of this.drawn.values()) row.stale = true;
    } else {
      for (const key of changed) {
        const row = this.drawn.get(key);
        if (row) row.stale = true;
      }
    }
    this.render();
  }

  #keep(anchor, now) {
    const offset = this.element.scrollTop - this.anchorIndex(anchor) * this.rowHeight;
    const wanted = now * this.rowHeight + offset;
    if (Math.abs(wanted - this.element.scrollTop) > 0.5) this.element.scrollTop = wanted;
  }

  anchorIndex(anchor) {
    const row = this.drawn.get(this.keyOf(anchor));
    return row ? row.index : this.first;
  }

  #indexOf(key) {
    return this.items.findIndex((item) => this.keyOf(item) === key);
  }

  scrollToTop() {
    this.element.scrollTop = 0;
    this.schedule(true);
  }

  /** Draw the rows in sight again: their relative times depend on now. */
  refresh() {
    for (const row of this.drawn.values()) row.stale = true;
    this.render();
  }

  schedule(scrolled) {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      if (!scrolled) this.canvas.style.height = `${this.items.length * this.rowHeight}px`;
      this.render();
      this.onScroll();
    });
  }

  render() {
    const height = this.rowHeight;
    const from = Math.max(0, this.first - BEYOND);
    const to = Math.min(this.items.length, this.last + BEYOND + 1);
    const wanted = new Set();
    let previous = null;
    for (let index = from; index < to; index += 1) {
      const item = this.items[index];
      const key = this.keyOf(item);
      wanted.add(key);
      let row = this.drawn.get(key);
      if (!row) {
        row = { element: h("div", { class: "tr", role: "row" }), stale: true, index: -1 };
        this.drawn.set(key, row);
      }
      if (row.stale) this.#fill(row, item);
      if (row.index !== index) {
        row.index = index;
        row.element.dataset.index = index;
        row.element.setAttribute("aria-rowindex", index + 2);
        row.element.style.transform = `translateY(${index * height}px)`;
      }
      row.element.style.height = `${height}px`;
      const link = row.element.querySelector("a.main");
      if (link) link.tabIndex = index === this.active || (this.active < from && index === from) ? 0 : -1;
      // The order in the document is the order on the screen: readers and Tab follow it.
      const expected = previous ? previous.nextSibling : this.canvas.firstChild;
      if (row.element !== expected && row.element.parentNode !== this.canvas) this.canvas.insertBefore(row.element, expected);
      else if (row.element !== expected && !row.element.contains(document.activeElement)) this.canvas.insertBefore(row.element, expected);
      previous = row.element;
    }
    for (const [key, row] of this.drawn) {
      if (wanted.has(key) || row.element.contains(document.activeElement)) continue;
      row.element.remove();
      this.drawn.delete(key);
    }
    if (this.items.length && this.last >= this.items.length - 2 * BEYOND) this.onEnd();
  }

  #fill(row, item) {
    const focus = row.element.contains(document.activeElement) ? [...row.element.querySelectorAll("a, button")].indexOf(document.activeElement) : -1;
    const cells = this.draw(item, row.element);
    cells.forEach((cell, number) => {
      cell.classList.add("td", ...(this.columns[number].class ?? "").split(" ").filter(Boolean));
      cell.setAttribute("role", "cell");
    });
    put(row.element, cells);
    row.stale = false;
    if (focus >= 0) row.element.querySelectorAll("a, button")[focus]?.focus({ preventScroll: true });
  }

  #onKey(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (step === undefined || event.altKey || event.ctrlKey || event.metaKey || !event.target.closest("[data-index]")) return;
    event.preventDefault();
    this.focus(Math.min(this.items.length - 1, Math.max(0, this.active + step)));
  }

  /** Bring a row into sight and put the focus on its link. */
  focus(index) {
    if (index < 0 || index >= this.items.length) return;
    this.active = index;
    const height = this.rowHeight;
    const head = this.table.firstChild.offsetHeight;
    const top = index * height;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top + height + head > this.element.scrollTop + this.element.clientHeight) this.element.scrollTop = top + height + head - this.element.clientHeight;
    this.render();
    this.drawn.get(this.keyOf(this.items[index]))?.element.querySelector("a.main")?.focus({ preventScroll: true });
  }
}

/** A click on the row goes where its link goes, unless it hits another link or selects text. */
export function opens(row, path, query) {
  row.onclick = (event) => event.target.closest("a, button") || String(getSelection()) || go(path, query);
}
