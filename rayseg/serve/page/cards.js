// The list of batches: a card of each, with how far it is and the button that ends or forgets it.

import { counted, element, whole } from "./elements.js";

/** The states of batches that are under way. */
export const ACTIVE = new Set(["queued", "planning", "running"]);

/** A list with a card of each batch. `pressed` hears of the batch whose button is pressed, as it was shown last. */
export class BatchCards {
  #list;
  #heading;
  #pressed;
  #known = new Map(); // id to its card

  /** The focus of a card that goes is taken over by its neighbour, or by the heading when it was the last. */
  constructor(list, heading, pressed) {
    this.#list = list;
    this.#heading = heading;
    this.#pressed = pressed;
  }

  /** Show these, in this order; those come back whose state is another than before. Cards that stay are kept. */
  show(batches) {
    const known = new Map(batches.map((batch) => [batch.id, this.#known.get(batch.id) ?? this.#make(batch)]));
    const changed = batches.filter((batch) => known.get(batch.id).batch.state !== batch.state);
    for (const batch of batches) fill(known.get(batch.id), batch);
    this.#known = known;
    this.#arrange(new Set([...known.values()].map((card) => card.root)));
    return changed;
  }

  #arrange(wanted) {
    const focused = document.activeElement;
    const held = [...this.#list.children].find((root) => root.contains(focused));
    const next = !held || wanted.has(held) ? focused : (neighbour(held, wanted) ?? this.#heading);
    for (const root of [...this.#list.children]) if (!wanted.has(root)) root.remove();
    let at = this.#list.firstElementChild;
    for (const root of wanted) {
      if (root === at) at = at.nextElementSibling;
      else this.#list.insertBefore(root, at);
    }
    if (held && next !== document.activeElement) next.focus();
  }

  #make(batch) {
    const card = {
      batch,
      pill: element("span", { className: "pill" }),
      bar: element("progress", { max: 1, "aria-label": `Progress of batch ${batch.id}` }),
      counts: element("p", { className: "numbers" }),
      error: element("p", { className: "error" }),
      button: element("button", { type: "button" }),
    };
    const model = element("span", { className: "small" }, [batch.model, batch.id, time(batch.created)].filter(Boolean).join(" · "));
    const paths = element("p", { className: "paths" }, words(batch.images), element("span", { className: "soft" }, " to "), batch.out ?? "");
    card.button.addEventListener("click", () => this.#pressed(card.batch));
    const top = element("div", { className: "top" }, card.pill, model, card.button);
    card.root = element("li", { tabIndex: -1 }, top, paths, card.bar, card.counts, card.error);
    return card;
  }
}

/** The next card that stays, else the one before: the card and not its button, so that a key held down presses no other. */
function neighbour(card, wanted) {
  for (const way of ["nextElementSibling", "previousElementSibling"]) {
    for (let one = card[way]; one; one = one[way]) if (wanted.has(one)) return one;
  }
  return null;
}

function fill(card, batch) {
  const active = ACTIVE.has(batch.state);
  card.batch = batch;
  card.pill.textContent = batch.state;
  card.pill.className = `pill ${active ? "active" : batch.state}`;
  if (batch.total > 0) card.bar.value = batch.done / batch.total;
  else if (active) card.bar.removeAttribute("value");
  else card.bar.value = 0;
  card.bar.hidden = !active;
  const parts = [counts(batch)];
  if (batch.failed) parts.push(`${whole(batch.failed)} failed`);
  if (active && batch.rate) parts.push(`${batch.rate.toFixed(batch.rate < 10 ? 1 : 0)} per second`);
  if (active && batch.eta_s != null) parts.push(`${span(batch.eta_s)} left`);
  card.counts.textContent = parts.join(" · ");
  card.error.textContent = errorText(batch.error);
  card.error.hidden = !batch.error;
  card.button.textContent = active ? "Cancel" : "Forget";
  card.button.className = active ? "" : "quiet";
  card.button.setAttribute("aria-label", `${card.button.textContent} batch ${batch.id}`);
}

/** "100 of 1,000 images". */
export const counts = (batch) => (batch.total == null ? "counting" : `${whole(batch.done ?? 0)} of ${counted(batch.total, "image")}`);

/** The images of a batch: their place, or how many they are. */
export const words = (images) => (Array.isArray(images) ? (images.length === 1 ? images[0] : counted(images.length, "URI")) : images);

const errorText = (error) => (error && typeof error === "object" ? (error.message ?? error.detail ?? "") : (error ?? ""));

function time(created) {
  const date = new Date(typeof created === "number" ? created * 1000 : created);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

function span(seconds) {
  if (seconds < 90) return counted(Math.max(1, Math.round(seconds)), "second");
  if (seconds < 5400) return counted(Math.round(seconds / 60), "minute");
  return `${(seconds / 3600).toFixed(1)} hours`;
}
