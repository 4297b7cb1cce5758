// The view of batches: what runs, how far it is; starting and cancelling them, and forgetting those that have ended.

import { Refusal, ask } from "./api.js";
import { ACTIVE, BatchCards, counts, words } from "./cards.js";
import { element } from "./elements.js";

const EVERY_MS = { active: 1500, idle: 10_000 };

const get = (id) => document.getElementById(id);

/** Wires the view up. `refused` is told of errors first, and says whether it dealt with them. */
export class Batches {
  #refused;
  #watched = false;
  #timer = 0;
  #looking = new AbortController();
  #cards = new BatchCards(get("list"), get("batches-title"), (batch) => this.#press(batch));
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
      if (document.activeElement === document.body) get("batches-title").focus({ preventScroll: true }); // its card is gone
      if (get("cancel").returnValue === "cancel") this.#delete(this.#cancelling);
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
    this.#look();
  }

  async #look() {
    clearTimeout(this.#timer);
    this.#looking.abort();
    if (!this.#watched || document.hidden) return;
    this.#looking = new AbortController();
    const { signal } = this.#looking;
    let wait = EVERY_MS.idle;
    try {
      const { batches } = await ask("v1/batches", { signal });
      if (signal.aborted) return;
      this.#show(batches);
      if (this.#blind) get("batch-problem").hidden = true;
      this.#blind = false;
      if (batches.some((one) => ACTIVE.has(one.state))) wait = EVERY_MS.active;
    } catch (error) {
      if (signal.aborted) return;
      this.#fail(error);
      this.#blind = true;
      if (!error.status) wait = EVERY_MS.active;
    }
    if (this.#watched && !document.hidden) this.#timer = setTimeout(() => this.#look(), wait);
  }

  #show(batches) {
    for (const batch of this.#cards.show(batches)) {
      get("batch-status").textContent = `Batch ${batch.id}: ${batch.state}, ${counts(batch)}.`;
    }
    get("no-batches").hidden = batches.length > 0;
  }

  async #start(form) {
    get("batch-problem").hidden = true;
    const body = { images: form.get("images").trim(), out: form.get("out").trim() };
    if (form.get("model")) body.model = form.get("model");
    try {
      await ask("v1/batches", { method: "POST", body: JSON.stringify(body), type: "application/json" });
      get("post").reset();
      if (get("post").contains(document.activeElement)) get("new").querySelector("summary").focus();
      get("new").open = false;
      get("batch-status").textContent = "The batch is accepted.";
      this.#look();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** The button of a batch's card: one that has ended is forgotten, one under way is asked about first. */
  #press(batch) {
    if (!ACTIVE.has(batch.state)) {
      this.#delete(batch.id, "?forget=true");
      return;
    }
    this.#cancelling = batch.id;
    get("cancel-what").textContent = `${words(batch.images)} to ${batch.out}`;
    get("cancel").returnValue = "";
    get("cancel").showModal();
  }

  async #delete(id, query = "") {
    get("batch-problem").hidden = true;
    try {
      await ask(`v1/batches/${encodeURIComponent(id)}${query}`, { method: "DELETE" }).catch((error) => {
        if (!query || error.status !== 404) throw error; // what is not there is forgotten
      });
      if (query) get("batch-status").textContent = `Batch ${id} is forgotten.`;
    } catch (error) {
      this.#fail(error);
    }
    this.#look();
  }

  #fail(error) {
    this.#blind = false;
    if (this.#refused(error)) return;
    const title = error instanceof Refusal ? `${error.title}. ` : "";
    get("batch-problem").replaceChildren(element("strong", {}, title), error.message);
    get("batch-problem").hidden = false;
  }
}
