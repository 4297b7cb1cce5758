// The view of batches: what runs, how far it is; starting and cancelling them, and forgetting those that have ended.

import { Refusal, ask } from "./api.js";
import { counted, element, whole } from "./elements.js";

const EVERY_MS = { active: 1500, idle: 10_000 };
const ACTIVE = new Set(["queued", "planning", "running"]);

const get = (id) => document.getElementById(id);

/** Wires the view up. `refused` is told of errors first, and says whether it dealt with them. */
export class Batches {
  #refused;
  #watched = false;
  #timer = 0;
  #cards = new Map(); // id to what is on the page for it
  #cancelling = null;
  #blind = false; // the last look failed, and what is said is about that

  constructor(refused) {
    this.#refused = refused;
    document.addEventListener("visibilitychange", () => this.watch(this.#watched));
    get("post").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#start(new FormData(event.target));
    });
    get("cancel").addEventListener("close", () => {
      if (get("cancel").returnValue === "cancel") this.#cancel(this.#cancelling);
    });
  }

  /** The models that a batch may be labelled with. */
  offer(models) {
    const select = get("post").elements.model;
    select.replaceChildren(...models.map((one) => element("option", { value: one.name }, one.name)));
    select.value = models.find((one) => one.default)?.name ?? "";
    select.closest("label").hidden = models.length < 2;
  }

  /** Look again and again while the view is open and the window to be seen. */
  watch(open) {
    this.#watched = open;
    clearTimeout(this.#timer);
    if (open && !document.hidden) this.#look();
  }

  async #look() {
    clearTimeout(this.#timer);
    let wait = EVERY_MS.idle;
    try {
      const { batches } = await ask("v1/batches");
      this.#show(batches);
      if (this.#blind) get("batch-problem").hidden = true;
      this.#blind = false;
      if (batches.some((one) => ACTIVE.has(one.state))) wait = EVERY_MS.active;
    } catch (error) {
      this.#fail(error);
      this.#blind = true;
      if (!error.status) wait = EVERY_MS.active;
    }
    clearTimeout(this.#timer);
    if (this.#watched && !document.hidden) this.#timer = setTimeout(() => this.#look(), wait);
  }

  async #start(form) {
    get("batch-problem").hidden = true;
    const body = { images: form.get("images").trim(), out: form.get("out").trim() };
    if (form.get("model")) body.model = form.get("model");
    try {
      await ask("v1/batches", { method: "POST", body: JSON.stringify(body), type: "application/json" });
      get("post").reset();
      get("new").open = false;
      get("batch-status").textContent = "The batch is accepted.";
      this.#look();
    } catch (error) {
      this.#fail(error);
    }
  }

  async #cancel(id) {
    get("batch-problem").hidden = true;
    try {
      await ask(`v1/batches/${encodeURIComponent(id)}`, { method: "DELETE" });
      this.#look();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error) {
    if (this.#refused(error)) return;
    const title = error instanceof Refusal ? `${error.title}. ` : "";
    get("batch-problem").replaceChildren(element("strong", {}, title), error.message);
    get("batch-problem").hidden = false;
  }

  #show(batches) {
    const known = new Map();
    for (const batch of batches) {
      const card = this.#cards.get(batch.id) ?? this.#card(batch);
      known.set(batch.id, card);
      if (card.state && card.state !== batch.state) {
        get("batch-status").textContent = `Batch ${batch.id}: ${batch.state}, ${counts(batch)}.`;
      }
      fill(card, batch);
    }
    const gone = [...this.#cards.keys()].filter((id) => !known.has(id));
    for (const id of gone) this.#cards.get(id).root.remove();
    this.#cards = known;
    const wanted = [...known.values()].map((card) => card.root);
    if (wanted.some((root, i) => get("list").children[i] !== root)) get("list").replaceChildren(...wanted);
    get("no-batches").hidden = batches.length > 0;
  }

  #card(batch) {
    const card = {
      state: "",
      pill: element("span", { className: "pill" }),
      bar: element("progress", { max: 1, "aria-label": `Progress of batch ${batch.id}` }),
      counts: element("p", { className: "numbers" }),
      error: element("p", { className: "error" }),
      cancel: element("button", { type: "button" }),
    };
    const model = element("span", { className: "small" }, [batch.model, batch.id, time(batch.created)].filter(Boolean).join(" · "));
    const paths = element("p", { className: "paths" }, words(batch.images), element("span", { className: "soft" }, " to "), batch.out ?? "");
    card.cancel.addEventListener("click", () => {
      if (!ACTIVE.has(card.state)) return this.#cancel(batch.id);
      this.#cancelling = batch.id;
      get("cancel-what").textContent = `${words(batch.images)} to ${batch.out}`;
      get("cancel").returnValue = "";
      return get("cancel").showModal();
    });
    const top = element("div", { className: "top" }, card.pill, model, card.cancel);
    card.root = element("li", {}, top, paths, card.bar, card.counts, card.error);
    return card;
  }
}

function fill(card, batch) {
  card.state = batch.state;
  card.pill.textContent = batch.state;
  card.pill.className = `pill ${ACTIVE.has(batch.state) ? "active" : batch.state}`;
  if (batch.total > 0) card.bar.value = batch.done / batch.total;
  else if (ACTIVE.has(batch.state)) card.bar.removeAttribute("value");
  else card.bar.value = 0;
  card.bar.hidden = !ACTIVE.has(batch.state);
  const parts = [counts(batch)];
  if (batch.failed) parts.push(`${whole(batch.failed)} failed`);
  if (ACTIVE.has(batch.state) && batch.rate) parts.push(`${batch.rate.toFixed(batch.rate < 10 ? 1 : 0)} per second`);
  if (ACTIVE.has(batch.state) && batch.eta_s != null) parts.push(`${span(batch.eta_s)} left`);
  card.counts.textContent = parts.join(" · ");
  card.error.textContent = errorText(batch.error);
  card.error.hidden = !batch.error;
  card.cancel.textContent = ACTIVE.has(batch.state) ? "Cancel" : "Forget";
  card.cancel.className = ACTIVE.has(batch.state) ? "" : "quiet";
  card.cancel.setAttribute("aria-label", `${card.cancel.textContent} batch ${batch.id}`);
}

const counts = (batch) => (batch.total == null ? "counting" : `${whole(batch.done ?? 0)} of ${counted(batch.total, "image")}`);

const words = (images) => (Array.isArray(images) ? (images.length === 1 ? images[0] : counted(images.length, "URI")) : images);

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
