// The canvas: the image, its instances over it, and which of them lies under the pointer.

import { Tracer } from "./rle.js";

const MOST_SCALE = 4;
const TALLEST = 0.72; // of the window
const FILL = 0.4;

/** Draws one picture and the instances that `draw` is told of. `pointed` hears of the instance under the pointer. */
export class Stage {
  #canvas;
  #tip;
  #picture = null;
  #shown = [];
  #active = null;
  #captions = true;
  #fill = FILL;
  #awaited = false;
  #tipAt = null; // the instance that the tip stands at, if not at the pointer
  #probe = new OffscreenCanvas(1, 1).getContext("2d");

  constructor(canvas, tip, pointed) {
    this.#canvas = canvas;
    this.#tip = tip;
    canvas.addEventListener("pointermove", (event) => pointed(this.#under(event), event));
    canvas.addEventListener("pointerdown", (event) => pointed(this.#under(event), event));
    canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && pointed(null, event));
    new ResizeObserver(() => this.#later()).observe(canvas.parentElement);
    addEventListener("resize", () => this.#later());
  }

  /** Show an image (null where the browser cannot) of so many pixels, without instances. */
  show(bitmap, width, height) {
    if (this.#picture?.bitmap !== bitmap) this.#picture?.bitmap?.close();
    this.#picture = { bitmap, width, height };
    this.#shown = [];
    this.#active = null;
    this.#later();
  }

  /** Trace the masks of instances: each gets a `path`. Damaged ones get an empty one; their number comes back. */
  trace(instances) {
    const { width, height } = this.#picture;
    const tracer = new Tracer(width, height);
    let damaged = 0;
    for (const one of instances) {
      try {
        one.path = tracer.path(one.segmentation.counts);
      } catch {
        one.path = new Path2D();
        damaged++;
      }
    }
    return damaged;
  }

  /** Draw these, of which one may be the `active`. */
  draw(shown, active, { captions, fill }) {
    this.#shown = [...shown].sort((a, b) => b.area - a.area); // the small ones on top, where they can be pointed at
    this.#active = active;
    this.#captions = captions;
    this.#fill = fill;
    this.#later();
  }

  /** Say something beside the pointer, or at an instance. */
  say(lines, event, instance) {
    this.#tip.hidden = !lines;
    this.#tipAt = lines && !event ? instance : null;
    if (!lines) return;
    this.#tip.replaceChildren(...lines);
    const frame = this.#canvas.parentElement.getBoundingClientRect();
    if (event) this.#putTip(event.clientX - frame.x + 14, event.clientY - frame.y + 14);
    else this.#putTipAtInstance();
  }

  /** Above its box where there is room, else below. */
  #putTipAtInstance() {
    const area = this.#canvas.getBoundingClientRect();
    const frame = this.#canvas.parentElement.getBoundingClientRect();
    const scale = area.width / this.#picture.width;
    const [x, y, , height] = this.#tipAt.bbox.map((value) => value * scale);
    const above = area.y - frame.y + y - this.#tip.offsetHeight - 8;
    this.#putTip(area.x - frame.x + x, above > 4 ? above : area.y - frame.y + y + height + 8);
  }

  #putTip(x, y) {
    const frame = this.#canvas.parentElement;
    const { offsetWidth, offsetHeight } = this.#tip;
    this.#tip.style.left = `${Math.max(4, Math.min(x, frame.clientWidth - offsetWidth - 4))}px`;
    this.#tip.style.top = `${Math.max(4, Math.min(y, frame.clientHeight - offsetHeight - 4))}px`;
  }

  /** What is shown as a PNG of the image's own size, every mask to the pixel. */
  async png() {
    const { width, height } = this.#picture;
    const canvas = new OffscreenCanvas(width, height);
    const pen = canvas.getContext("2d");
    if (!pen) throw new Error("The image is too large for a canvas of this browser.");
    const tracer = new Tracer(width, height, Infinity);
    this.#paint(pen, 1, (one) => tracer.path(one.segmentation.counts), null);
    return canvas.convertToBlob({ type: "image/png" });
  }

  #later() {
    if (this.#awaited || !this.#picture) return;
    this.#awaited = true;
    requestAnimationFrame(() => {
      this.#awaited = false;
      this.#now();
    });
  }

  #now() {
    const { width, height } = this.#picture;
    const room = this.#canvas.parentElement.clientWidth;
    const scale = Math.min(room / width, (innerHeight * TALLEST) / height, MOST_SCALE);
    const ratio = devicePixelRatio;
    const [across, down] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
    this.#canvas.style.width = `${across}px`;
    this.#canvas.style.height = `${down}px`;
    this.#canvas.width = Math.round(across * ratio);
    this.#canvas.height = Math.round(down * ratio);
    const pen = this.#canvas.getContext("2d");
    pen.imageSmoothingQuality = "high";
    this.#paint(pen, scale * ratio, (one) => one.path, this.#active);
    if (this.#tipAt) this.#putTipAtInstance();
  }

  #paint(pen, scale, pathOf, active) {
    const { bitmap, width, height } = this.#picture;
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    if (bitmap) pen.drawImage(bitmap, 0, 0, width, height);
    else {
      pen.fillStyle = "#77797d";
      pen.fillRect(0, 0, width, height);
    }
    const line = Math.max(1.5, Math.min(width, height) * scale * 0.0025) / scale;
    pen.lineJoin = "round";
    for (const one of this.#shown) if (one !== active) this.#paintMask(pen, one, pathOf(one), line, active !== null, false);
    if (active) this.#paintMask(pen, active, pathOf(active), line, true, true);
    if (this.#captions) this.#paintCaptions(pen, scale, active);
  }

  #paintCaptions(pen, scale, active) {
    const { width, height } = this.#picture;
    const exported = pen.canvas instanceof OffscreenCanvas;
    const size = exported ? Math.max(8, Math.min(width, height) / 40) : (11 * devicePixelRatio) / scale;
    for (const one of this.#shown) if (one !== active) paintCaption(pen, one, size, width);
  }

  #paintMask(pen, one, path, line, anyActive, isActive) {
    pen.fillStyle = one.colour;
    pen.globalAlpha = isActive ? Math.min(0.85, this.#fill + 0.25) : anyActive ? this.#fill * 0.6 : this.#fill;
    pen.fill(path, "evenodd");
    pen.globalAlpha = 1;
    if (isActive) {
      pen.strokeStyle = "#ffffff";
      pen.lineWidth = line * 4;
      pen.stroke(path);
    }
    pen.strokeStyle = one.colour;
    pen.lineWidth = isActive ? line * 2 : line;
    pen.stroke(path);
  }

  #under(event) {
    if (!this.#picture) return null;
    const area = this.#canvas.getBoundingClientRect();
    const x = ((event.clientX - area.x) / area.width) * this.#picture.width;
    const y = ((event.clientY - area.y) / area.height) * this.#picture.height;
    for (let i = this.#shown.length - 1; i >= 0; i--) {
      if (this.#probe.isPointInPath(this.#shown[i].path, x, y, "evenodd")) return this.#shown[i];
    }
    return null;
  }
}

/** Name and score, white on black at the box's upper left corner, moved inside the image where it would stick out. */
function paintCaption(pen, one, size, width) {
  const text = `${one.category} ${one.score.toFixed(2)}`;
  pen.font = `600 ${size}px system-ui, sans-serif`;
  const across = pen.measureText(text).width + size * 1.4;
  const down = size * 1.5;
  const x = Math.max(0, Math.min(one.bbox[0], width - across));
  const y = Math.max(0, one.bbox[1] - down);
  pen.fillStyle = "rgb(0 0 0 / 78%)";
  pen.fillRect(x, y, across, down);
  pen.fillStyle = one.colour;
  pen.fillRect(x, y, size * 0.35, down);
  pen.fillStyle = "#ffffff";
  pen.textBaseline = "middle";
  pen.fillText(text, x + size * 0.8, y + down / 2);
}
