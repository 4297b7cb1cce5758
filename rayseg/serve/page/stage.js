// The canvas: the image, its instances over it, and which of them lies under the pointer.

import { Tracer } from "./rle.js";
import { Tip } from "./tip.js";
import { Zoom } from "./zoom.js";

const MOST_SCALE = 4;
const TALLEST = 0.72; // of the window
const FILL = 0.4;
const SHARP = 3; // device pixels per pixel of the image from which on its pixels are shown as squares
const COARSE = 1.5; // device pixels per cell of a traced grid from which on masks are traced to the pixel

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
  #coarse = null; // traces all masks in good time
  #exact = null; // traces to the pixel what is looked at enlarged
  #probe = new OffscreenCanvas(1, 1).getContext("2d");

  /** `zoomed` is called when another part of the picture is shown. */
  constructor(canvas, tip, pointed, zoomed) {
    this.#canvas = canvas;
    this.#tip = new Tip(tip, canvas.parentElement);
    this.zoom = new Zoom(canvas, () => {
      this.#tip.leavePointer();
      zoomed();
      this.#later();
    });
    for (const kind of ["pointermove", "pointerdown", "wheel", "dblclick"]) {
      canvas.addEventListener(kind, (event) => pointed(this.#under(event), event), { passive: true });
    }
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
    this.#coarse = new Tracer(width, height);
    this.#exact = this.#coarse.exact ? this.#coarse : null;
    this.#later();
  }

  /** Move an enlarged picture so that an instance is seen. */
  reveal(one) {
    const { width, height } = this.#picture;
    const [x, y, across, down] = one.bbox;
    this.zoom.reveal([x / width, y / height, across / width, down / height]);
  }

  /** Trace the masks of instances: each gets a `path`. Damaged ones get an empty one; their number comes back. */
  trace(instances) {
    let damaged = 0;
    for (const one of instances) {
      try {
        one.path = this.#coarse.path(one.segmentation.counts);
        one.exact = this.#coarse.exact ? one.path : null;
      } catch {
        one.path = one.exact = new Path2D();
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

  /** Say something of an instance beside the pointer, or at the instance where there is none; nothing without lines. */
  say(lines, event, instance) {
    this.#tip.say(lines, event, instance);
    if (lines && !event) this.#putTip();
  }

  #putTip() {
    const [x, y, across, down] = this.#tip.instance.bbox;
    const area = this.#canvas.getBoundingClientRect();
    const view = this.#view();
    const scale = area.width / (view.right - view.left);
    const [left, top] = [area.x + (x - view.left) * scale, area.y + (y - view.top) * scale];
    this.#tip.put(new DOMRect(left, top, across * scale, down * scale), seen(this.#tip.instance, view));
  }

  /** What is shown as a PNG of the image's own size, every mask to the pixel. */
  async png() {
    const { width, height } = this.#picture;
    const canvas = new OffscreenCanvas(width, height);
    const pen = canvas.getContext("2d");
    if (!pen) throw new Error("The image is too large for a canvas of this browser.");
    const all = { left: 0, top: 0, right: width, bottom: height };
    this.#paint(pen, 1, all, (one) => this.#exactPath(one), null);
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
    const enlarged = scale * ratio * this.zoom.factor;
    pen.imageSmoothingQuality = "high";
    pen.imageSmoothingEnabled = enlarged < SHARP;
    const exact = !this.zoom.smallest && (enlarged * width) / this.#coarse.columns > COARSE;
    this.#paint(pen, enlarged, this.#view(), (one) => (exact ? this.#exactPath(one) : one.path), this.#active);
    if (this.#tip.instance && !this.#tip.atPointer) this.#putTip();
  }

  /** The part of the image that is seen, in its pixels. */
  #view() {
    const { width, height } = this.#picture;
    const [left, top] = [this.zoom.left * width, this.zoom.top * height];
    return { left, top, right: left + width / this.zoom.factor, bottom: top + height / this.zoom.factor };
  }

  #exactPath(one) {
    this.#exact ??= new Tracer(this.#picture.width, this.#picture.height, Infinity);
    return (one.exact ??= this.#exact.path(one.segmentation.counts));
  }

  #paint(pen, scale, view, pathOf, active) {
    const { bitmap, width, height } = this.#picture;
    pen.setTransform(scale, 0, 0, scale, -scale * view.left, -scale * view.top);
    if (bitmap) pen.drawImage(bitmap, 0, 0, width, height);
    else {
      pen.fillStyle = "#77797d";
      pen.fillRect(0, 0, width, height);
    }
    const line = Math.max(1.5, Math.min(pen.canvas.width, pen.canvas.height) * 0.0025) / scale;
    pen.lineJoin = "round";
    const others = this.#shown.filter((one) => one !== active && seen(one, view));
    for (const one of others) this.#paintMask(pen, one, pathOf(one), line, active !== null, false);
    if (active) this.#paintMask(pen, active, pathOf(active), line, true, true);
    if (this.#captions) this.#paintCaptions(pen, scale, view, others);
  }

  /** In pixels of the canvas: letters of a small part of an enlarged pixel would be misshapen. */
  #paintCaptions(pen, scale, view, instances) {
    const { width, height } = pen.canvas;
    const exported = pen.canvas instanceof OffscreenCanvas;
    const size = exported ? Math.max(8, Math.min(width, height) / 40) : 11 * devicePixelRatio;
    pen.resetTransform();
    for (const one of instances) {
      paintCaption(pen, one, size, (one.bbox[0] - view.left) * scale, (one.bbox[1] - view.top) * scale);
    }
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
    const [across, down] = this.zoom.share(event);
    if (!this.#picture || Math.min(across, down) < 0 || Math.max(across, down) > 1) return null;
    const [left, top] = this.zoom.inPicture(across, down);
    const [x, y] = [left * this.#picture.width, top * this.#picture.height];
    for (let i = this.#shown.length - 1; i >= 0; i--) {
      const one = this.#shown[i];
      if (this.#probe.isPointInPath(one.exact ?? one.path, x, y, "evenodd")) return one;
    }
    return null;
  }
}

/** Whether any of an instance's box lies in a view. */
function seen({ bbox: [x, y, across, down] }, { left, top, right, bottom }) {
  return x < right && x + across > left && y < bottom && y + down > top;
}

/** Name and score, white on black at the upper left corner of a box, moved inside the canvas where it would stick out. */
function paintCaption(pen, one, size, left, top) {
  const text = `${one.category} ${one.score.toFixed(2)}`;
  pen.font = `600 ${size}px system-ui, sans-serif`;
  const across = pen.measureText(text).width + size * 1.4;
  const down = size * 1.5;
  const x = Math.max(0, Math.min(left, pen.canvas.width - across));
  const y = Math.max(0, top - down);
  pen.fillStyle = "rgb(0 0 0 / 78%)";
  pen.fillRect(x, y, across, down);
  pen.fillStyle = one.colour;
  pen.fillRect(x, y, size * 0.35, down);
  pen.fillStyle = "#ffffff";
  pen.textBaseline = "middle";
  pen.fillText(text, x + size * 0.8, y + down / 2);
}
