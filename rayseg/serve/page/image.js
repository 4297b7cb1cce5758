// The view of one image: from a file to instances, and what can be done with them without asking again.

import { Refusal, askPatiently } from "./api.js";
import { cocoDataset, cocoResults, jsonBlob, save } from "./downloads.js";
import { colourOf, counted, element, swatch, whole } from "./elements.js";
import { InstanceList } from "./instances.js";
import { Stage } from "./stage.js";

const LEAST_SCORE = 0.05; // what is asked for; the slider goes down to it
const BINS = 24;

const get = (id) => document.getElementById(id);

/** Wires the view up. `refused` is told of errors first, and says whether it dealt with them. */
export class ImageView {
  #refused;
  #models = [];
  #file = null;
  #bitmap = null; // of the file; null where the browser cannot show it
  #answer = null;
  #off = new Set(); // class ids
  #active = null;
  #asking = null;
  #stage = new Stage(get("canvas"), get("tip"), (one, event) => this.#point(one, event));
  #list = new InstanceList(get("instances"), (one) => this.#point(one, null));

  constructor(refused) {
    this.#refused = refused;
    this.#listenForImages();
    for (const id of ["score", "captions", "fill"]) get(id).addEventListener("input", () => this.#update());
    get("classes").addEventListener("change", (event) => this.#switch([event.target]));
    for (const [id, checked] of [["all", true], ["none", false]]) {
      get(id).addEventListener("click", () => {
        const boxes = [...get("classes").querySelectorAll("input")];
        for (const box of boxes) box.checked = checked;
        this.#switch(boxes);
      });
    }
    get("model").addEventListener("change", () => {
      this.#describeModel();
      this.#ask();
    });
    get("again").addEventListener("click", () => this.#ask());
    get("results").addEventListener("click", () => this.#saveJson("results", cocoResults(this.#shown())));
    get("dataset").addEventListener("click", () => {
      const { classes } = this.#model();
      this.#saveJson("coco", cocoDataset(this.#shown(), this.#answer, this.#file.name, classes ?? []));
    });
    get("png").addEventListener("click", () => this.#savePng());
  }

  /** The models that there are; an image that waits for them is asked about. */
  offer(models) {
    this.#models = models;
    const select = get("model");
    select.replaceChildren(...models.map((one) => element("option", { value: one.name }, one.name)));
    select.value = (models.find((one) => one.default) ?? models[0])?.name ?? "";
    select.hidden = models.length < 2;
    this.#describeModel();
    if (this.#file && !this.#answer) this.#ask();
  }

  /** Say what went wrong. */
  fail(error) {
    const id = error.requestId ? element("span", { className: "small" }, ` Request ${error.requestId}`) : "";
    const title = error instanceof Refusal ? `${error.title}. ` : "";
    get("problem").replaceChildren(element("strong", {}, title), error.message, id);
    get("problem").hidden = false;
  }

  #model() {
    return this.#models.find((one) => one.name === get("model").value) ?? {};
  }

  #describeModel() {
    const { name, classes = [], architecture, fingerprint = "" } = this.#model();
    const what = [this.#models.length < 2 ? name : null, architecture === name ? null : architecture];
    what.push(counted(classes.length, "class").replace("classs", "classes"), fingerprint.slice(0, 12));
    get("model-facts").textContent = what.filter(Boolean).join(" · ");
    get("model-facts").title = classes.join(", ");
  }

  // ---- an image comes

  #listenForImages() {
    const stage = get("stage");
    const take = (files) => files.length && this.#take([...files]);
    for (const id of ["choose", "another"]) get(id).addEventListener("click", () => get("file").click());
    get("file").addEventListener("change", () => {
      take(get("file").files);
      get("file").value = "";
    });
    addEventListener("paste", (event) => take(event.clipboardData?.files ?? []));
    addEventListener("dragover", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      stage.classList.add("over");
    });
    addEventListener("dragleave", (event) => event.relatedTarget || stage.classList.remove("over"));
    addEventListener("drop", (event) => {
      stage.classList.remove("over");
      if (!event.dataTransfer?.files.length) return;
      event.preventDefault();
      location.hash = "#image";
      take(event.dataTransfer.files);
    });
  }

  async #take(files) {
    const file = files.find((one) => one.type === "" || one.type.startsWith("image/"));
    if (!file) {
      this.fail(new Error(`${files[0].name} is no image.`));
      return;
    }
    this.#asking?.abort();
    this.#file = file;
    this.#answer = null;
    this.#active = null;
    const bitmap = await createImageBitmap(file).catch(() => null); // some formats only the server knows
    if (this.#file !== file) return;
    this.#bitmap = bitmap;
    get("invitation").hidden = true;
    get("found").hidden = true;
    get("stage").classList.remove("empty");
    get("under").hidden = false;
    get("canvas").hidden = bitmap === null;
    if (bitmap) this.#stage.show(bitmap, bitmap.width, bitmap.height);
    get("canvas").setAttribute("aria-label", file.name);
    this.#point(null, null);
    await this.#ask();
  }

  // ---- the server is asked

  async #ask() {
    const file = this.#file;
    if (!file) return;
    this.#asking?.abort();
    const asking = (this.#asking = new AbortController());
    this.#wait(`Looking at ${file.name}.`);
    const began = performance.now();
    try {
      const request = { method: "POST", body: file, type: file.type || "application/octet-stream", signal: asking.signal };
      const answer = await askPatiently(`v1/predict?${this.#query()}`, request, (seconds) =>
        this.#wait(`The server is busy. Asking again in ${counted(seconds, "second")}.`),
      );
      if (asking.signal.aborted) return;
      answer.timing_ms = { ...answer.timing_ms, "round trip": performance.now() - began };
      this.#receive(answer);
    } catch (error) {
      if (error.name === "AbortError") return;
      get("status").textContent = "";
      if (this.#refused(error)) return;
      this.fail(error);
      if (error.status < 400 || error.status >= 429) this.#offerAnotherTry();
    } finally {
      if (this.#asking === asking) this.#wait(null);
    }
  }

  #offerAnotherTry() {
    const button = element("button", { type: "button" }, "Try again");
    button.addEventListener("click", () => this.#ask());
    get("problem").append(button);
  }

  #wait(words) {
    get("busy").hidden = words === null;
    get("again").disabled = words !== null || !this.#file;
    if (words === null) return;
    get("problem").hidden = true;
    get("status").textContent = words;
  }

  #query() {
    const query = new URLSearchParams({ masks: "rle", score_threshold: LEAST_SCORE });
    const model = get("model").value;
    if (model) query.set("model", model);
    if (get("max-detections").value) query.set("max_detections", get("max-detections").value);
    if (get("iou-threshold").value) query.set("iou_threshold", get("iou-threshold").value);
    return query;
  }

  #receive(answer) {
    this.#answer = answer;
    this.#stage.show(this.#bitmap, answer.width, answer.height);
    get("canvas").hidden = false;
    for (const one of answer.instances) one.colour = colourOf(one.category_id);
    answer.instances.sort((a, b) => b.score - a.score);
    const damaged = this.#stage.trace(answer.instances);
    if (damaged) this.fail(new Error(`${counted(damaged, "mask")} could not be read and stay out of the picture.`));
    this.#warnOfTheBitmap();
    this.#drawHistogram();
    this.#drawClasses();
    this.#drawTimes();
    get("found").hidden = false;
    this.#update();
    const total = Math.round(answer.timing_ms["round trip"]);
    get("status").textContent = `${counted(answer.instances.length, "instance")} in ${whole(total)} milliseconds.`;
  }

  #warnOfTheBitmap() {
    const { width, height } = this.#answer;
    if (!this.#bitmap) this.fail(new Error("This browser cannot show such an image. The masks are right; they lie on grey."));
    else if (this.#bitmap.width !== width || this.#bitmap.height !== height) {
      const sizes = `${this.#bitmap.width} by ${this.#bitmap.height} pixels, on the server ${width} by ${height}`;
      this.fail(new Error(`The image is shown stretched or turned: it has ${sizes}. The masks are of the server's.`));
    }
  }

  // ---- what is shown of the answer

  #shown() {
    const least = Number(get("score").value);
    return this.#answer.instances.filter((one) => one.score >= least && !this.#off.has(one.category_id));
  }

  #switch(boxes) {
    for (const box of boxes) {
      if (box.checked) this.#off.delete(Number(box.value));
      else this.#off.add(Number(box.value));
    }
    this.#update();
  }

  #update() {
    const least = Number(get("score").value);
    get("least").textContent = least.toFixed(2);
    if (!this.#answer) return;
    const shown = this.#shown();
    if (!shown.includes(this.#active)) this.#point(null, null);
    const { instances, width, height } = this.#answer;
    get("count").textContent = `${whole(shown.length)} of ${counted(instances.length, "instance")} shown`;
    for (const bar of get("histogram").children) bar.classList.toggle("under", Number(bar.dataset.to) <= least);
    for (const label of get("classes").children) {
      const id = Number(label.querySelector("input").value);
      const above = instances.filter((one) => one.category_id === id && one.score >= least);
      label.querySelector(".count").textContent = whole(above.length);
    }
    this.#list.show(shown, width * height);
    get("canvas").setAttribute("aria-label", `${this.#file.name}, ${width} by ${height} pixels: ${summary(shown)}`);
    this.#draw(shown);
  }

  #draw(shown) {
    const options = { captions: get("captions").checked, fill: Number(get("fill").value) };
    this.#stage.draw(shown, this.#active, options);
  }

  #point(one, event) {
    const changed = one !== this.#active;
    this.#active = one;
    if (this.#answer && changed) {
      this.#list.mark(one, event !== null);
      this.#draw(this.#shown());
    }
    if (!one) return this.#stage.say(null);
    const part = (100 * one.area) / (this.#answer.width * this.#answer.height);
    const name = element("strong", {}, swatch(one.colour), one.category);
    const facts = [`score ${one.score.toFixed(3)}`, `area ${whole(one.area)} px, ${part.toFixed(part < 1 ? 2 : 1)} %`];
    return this.#stage.say([name, ...facts.map((fact) => element("span", {}, fact))], event, one);
  }

  #drawHistogram() {
    const counts = new Array(BINS).fill(0);
    const width = (1 - LEAST_SCORE) / BINS;
    for (const { score } of this.#answer.instances) {
      counts[Math.max(0, Math.min(BINS - 1, Math.floor((score - LEAST_SCORE) / width)))]++;
    }
    const most = Math.max(1, ...counts);
    const bars = counts.map((count, i) => {
      const bar = element("span");
      bar.dataset.to = LEAST_SCORE + (i + 1) * width;
      bar.style.height = count ? `${10 + (90 * count) / most}%` : "0";
      return bar;
    });
    get("histogram").replaceChildren(...bars);
  }

  #drawClasses() {
    const names = new Map(this.#answer.instances.map((one) => [one.category_id, one.category]));
    const labels = [...names].sort(([a], [b]) => a - b).map(([id, name]) => {
      const box = element("input", { type: "checkbox", value: id, checked: !this.#off.has(id) });
      return element("label", {}, box, swatch(colourOf(id)), name, element("span", { className: "count" }));
    });
    get("classes").replaceChildren(...labels);
  }

  #drawTimes() {
    const rows = Object.entries(this.#answer.timing_ms).map(([name, ms]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, ms < 10 ? ms.toFixed(1) : whole(Math.round(ms)))),
    );
    get("times").replaceChildren(...rows);
  }

  // ---- files

  #name(ending) {
    return `${this.#file.name.replace(/\.[^.]*$/, "") || "image"}.${ending}`;
  }

  #saveJson(kind, value) {
    save(jsonBlob(value), this.#name(`${kind}.json`));
  }

  async #savePng() {
    try {
      save(await this.#stage.png(), this.#name("masks.png"));
    } catch (error) {
      this.fail(error);
    }
  }
}

function summary(instances) {
  const counts = new Map();
  for (const one of instances) counts.set(one.category, (counts.get(one.category) ?? 0) + 1);
  return [...counts].map(([name, count]) => `${count} ${name}`).join(", ") || "nothing shown";
}
