// The list of instances, best first: what the canvas shows, for the keyboard and for screen readers.

import { element, swatch, whole } from "./elements.js";

/** A listbox with one tab stop; arrows, Home and End go through it. `chosen` hears of the instance, or null. */
export class InstanceList {
  #box;
  #chosen;
  #rows = new Map(); // instance to its row
  #active = null;

  constructor(box, chosen) {
    this.#box = box;
    this.#chosen = chosen;
    box.addEventListener("keydown", (event) => this.#key(event));
    box.addEventListener("focus", () => {
      if (!this.#active && box.matches(":focus-visible")) this.#choose([...this.#rows.keys()][0] ?? null);
    });
    box.addEventListener("blur", () => this.#choose(null));
    for (const kind of ["pointerover", "click"]) {
      box.addEventListener(kind, (event) => {
        const row = event.target.closest("li");
        const one = [...this.#rows].find(([, other]) => other === row)?.[0];
        if (one) this.#choose(one);
      });
    }
    box.addEventListener("pointerleave", () => box.matches(":focus-visible") || this.#choose(null));
  }

  /** List these, of an image of so many pixels. Rows that stay are kept. */
  show(instances, pixels) {
    const kept = new Map(instances.map((one) => [one, this.#rows.get(one) ?? row(one, pixels)]));
    this.#rows = kept;
    this.#box.replaceChildren(...kept.values());
    [...kept.values()].forEach((each, i) => (each.id = `instance-${i}`));
    this.mark(kept.has(this.#active) ? this.#active : null, false);
  }

  /** Mark one, or none, as the one that is pointed at. */
  mark(one, scroll) {
    this.#rows.get(this.#active)?.setAttribute("aria-selected", "false");
    this.#active = one;
    const marked = this.#rows.get(one);
    if (!marked) {
      this.#box.removeAttribute("aria-activedescendant");
      return;
    }
    marked.setAttribute("aria-selected", "true");
    this.#box.setAttribute("aria-activedescendant", marked.id);
    if (scroll) this.#reveal(marked);
  }

  #choose(one) {
    if (one !== this.#active) this.#chosen(one);
  }

  #key(event) {
    const all = [...this.#rows.keys()];
    const at = all.indexOf(this.#active);
    const to = { ArrowDown: at + 1, ArrowUp: Math.max(0, at - 1), Home: 0, End: all.length - 1 }[event.key];
    if (event.key === "Escape") this.#choose(null);
    if (to === undefined || !all.length) return;
    event.preventDefault();
    const one = all[Math.min(to, all.length - 1)];
    this.#choose(one);
    this.#reveal(this.#rows.get(one));
  }

  #reveal(row) {
    const [top, bottom] = [row.offsetTop, row.offsetTop + row.offsetHeight];
    if (top < this.#box.scrollTop) this.#box.scrollTop = top;
    else if (bottom > this.#box.scrollTop + this.#box.clientHeight) this.#box.scrollTop = bottom - this.#box.clientHeight;
  }
}

function row(one, pixels) {
  const bar = element("span", { className: "bar", "aria-hidden": "true" }, element("span"));
  bar.firstChild.style.width = `${100 * one.score}%`;
  bar.firstChild.style.background = one.colour;
  return element(
    "li",
    { role: "option", "aria-selected": "false", title: `${((100 * one.area) / pixels).toFixed(2)} % of the image` },
    swatch(one.colour),
    element("span", { className: "name" }, one.category),
    element("span", { className: "unseen" }, ", score "),
    element("span", { className: "number" }, one.score.toFixed(2)),
    bar,
    element("span", { className: "unseen" }, ", area "),
    element("span", { className: "number area" }, `${whole(one.area)} px`),
  );
}
