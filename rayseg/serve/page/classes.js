// The classes of what is found, each with a box that shows or hides its instances.

import { colourOf, element, swatch, whole } from "./elements.js";

const get = (id) => document.getElementById(id);

/** What is switched off stays so for the next answer. `changed` is called when another choice is made. */
export class ClassFilter {
  #box;
  #changed;
  #off = new Set(); // class ids

  constructor(box, changed) {
    this.#box = box;
    this.#changed = changed;
    box.addEventListener("change", (event) => this.#switch([event.target]));
    for (const [id, checked] of [["all", true], ["none", false]]) {
      get(id).addEventListener("click", () => {
        const boxes = [...box.querySelectorAll("input")];
        for (const one of boxes) one.checked = checked;
        this.#switch(boxes);
      });
    }
  }

  /** List the classes of these. */
  show(instances) {
    const names = new Map(instances.map((one) => [one.category_id, one.category]));
    const labels = [...names].sort(([a], [b]) => a - b).map(([id, name]) => {
      const box = element("input", { type: "checkbox", value: id, checked: !this.#off.has(id) });
      return element("label", {}, box, swatch(colourOf(id)), name, element("span", { className: "count" }));
    });
    this.#box.replaceChildren(...labels);
  }

  /** Say of each class how many of these it has. */
  count(instances) {
    for (const label of this.#box.children) {
      const id = Number(label.querySelector("input").value);
      label.querySelector(".count").textContent = whole(instances.filter((one) => one.category_id === id).length);
    }
  }

  allows(one) {
    return !this.#off.has(one.category_id);
  }

  #switch(boxes) {
    for (const box of boxes) {
      if (box.checked) this.#off.delete(Number(box.value));
      else this.#off.add(Number(box.value));
    }
    this.#changed();
  }
}
