// The view of one image: from a file to instances, and what can be done with them without asking again.

import { Refusal, askPatiently } from "./api.js";
import { listenForImages } from "./arrivals.js";
import { ClassFilter } from "./classes.js";
import { cocoDataset, cocoResults, jsonBlob, save } from "./downloads.js";
import { colourOf, counted, element, swatch, whole } from "./elements.js";
import { InstanceList } from "./instances.js";
import { drawHistogram, drawTimes, summary } from "./panel.js";
import { Stage } from "./stage.js";
import { ZoomBar } from "./zoombar.js";

const LEAST_SCORE = 0.05; // what is asked for; the slider goes down to it

const get = (id) => document.getElementById(id);

/** Wires the view up. `refused` is told of errors first, and says whether it dealt with them. */
export class ImageView {
  #refused;
  #models = [];
  #file = null;
  #alongside = ""; // what is said of other files that came with it
  #bitmap = null; // of the file; null where the browser cannot show it
  #answer = null;
  #active = null;
  #asking = null;
  #stage = new Stage(get("canvas"), get("tip"), (one, event) => this.#point(one, event), () => this.#zoomBar.show());
  #zoomBar = new ZoomBar(this.#stage.zoom);
  #list = new InstanceList(get("instances"), (one) => this.#point(one, null));
  #classes = new ClassFilter(get("classes"), () => this.#update());

  constructor(refused) {
    this.#refused = refused;
    listenForImages(
      (file, further) => this.#take(file, further),
      (file) => this.fail(new Error(`${file.name} is no image.`)),
    );
    for (const id of ["score", "captions", "fill"]) get(id).addEventListener("input", () => this.#update());
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

  /** Say why there are no models yet. */
  expect(words) {
    get("model-facts").textContent = words;
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

  async #take(file, further) {
    this.#asking?.abort();
    this.#file = file;
    const left = `${counted(further, "further file")} ${further === 1 ? "was" : "were"} left out`;
    this.#alongside = further ? ` ${left}; a folder of images is a batch.` : "";
    this.#answer = null;
    this.#active = null;
    const bitmap = await createImageBitmap(file).catch(() => null); // some formats only the server knows
    if (this.#file !== file) return;
    this.#bitmap = bitmap;
    this.#stage.zoom.all();
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
      this.#say("");
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
    this.#say(words);
  }

  #say(words) {
    get("status").textContent = `${words}${this.#alongside}`;
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
    drawHistogram(get("histogram"), answer.instances, LEAST_SCORE);
    this.#classes.show(answer.instances);
    drawTimes(get("times"), answer.timing_ms);
    get("found").hidden = false;
    this.#update();
    const total = Math.round(answer.timing_ms["round trip"]);
    this.#say(`${counted(answer.instances.length, "instance")} in ${whole(total)} milliseconds.`);
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
    return this.#answer.instances.filter((one) => one.score >= least && this.#classes.allows(one));
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
    this.#classes.count(instances.filter((one) => one.score >= least));
    this.#list.show(shown, width * height);
    get("canvas").setAttribute("aria-label", `${this.#file.name}, ${width} by ${height} pixels: ${summary(shown)}`);
    this.#draw(shown);
  }

  #draw(shown) {
    const options = { captions: get("captions").checked, fill: Number(get("fill").value) };
    this.#stage.draw(shown, this.#active, options);
  }

  #point(under, event) {
    const one = this.#answer && under; // else it is of the image before
    const changed = one !== this.#active;
    this.#active = one;
    if (this.#answer && changed) {
      this.#list.mark(one, event !== null);
      this.#draw(this.#shown());
      if (one && !event) this.#stage.reveal(one);
    }
    if (!one) return this.#stage.say(null);
    const part = (100 * one.area) / (this.#answer.width * this.#answer.height);
    const name = element("strong", {}, swatch(one.colour), one.category);
    const facts = [`score ${one.score.toFixed(3)}`, `area ${whole(one.area)} px, ${part.toFixed(part < 1 ? 2 : 1)} %`];
    return this.#stage.say([name, ...facts.map((fact) => element("span", {}, fact))], event, one);
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
