// Which part of a picture a canvas shows: all of it, or an enlarged part that is moved about.

const MOST = 40;
const STEP = 1.5;
const STILL = 4; // a pointer that moves less than so many pixels is pressed, not dragged

/** Listens on `canvas` and calls `changed` when another part is to be shown. Shares are of the canvas, 0 to 1. */
export class Zoom {
  factor = 1; // how much larger than when all is shown
  left = 0; // of what is shown, in shares of the whole picture
  top = 0;
  #canvas;
  #changed;
  #grip = null; // where a drag began

  constructor(canvas, changed) {
    this.#canvas = canvas;
    this.#changed = changed;
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("dblclick", (event) => this.by(STEP * STEP, ...this.share(event)));
    canvas.addEventListener("pointerdown", (event) => this.#press(event));
    canvas.addEventListener("pointermove", (event) => this.#drag(event));
    canvas.addEventListener("lostpointercapture", () => (this.#grip = null));
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Whether all is shown. */
  get smallest() {
    return this.factor === 1;
  }

  /** Whether it cannot be enlarged further. */
  get largest() {
    return this.factor === MOST;
  }

  /** Where an event is on the canvas. */
  share({ clientX, clientY }) {
    const area = this.#canvas.getBoundingClientRect();
    return [(clientX - area.x) / area.width, (clientY - area.y) / area.height];
  }

  /** Where a place on the canvas lies in the picture, in shares of it. */
  inPicture(across, down) {
    return [this.left + across / this.factor, this.top + down / this.factor];
  }

  /** Enlarge around a place on the canvas, which stays where it is. */
  by(times, across = 0.5, down = 0.5) {
    const [x, y] = this.inPicture(across, down);
    const wanted = this.factor * times;
    this.factor = wanted < 1 + 1e-6 ? 1 : Math.min(MOST, wanted); // there and back it is exactly 1 again
    this.#show(x - across / this.factor, y - down / this.factor);
  }

  in = () => this.by(STEP);
  out = () => this.by(1 / STEP);
  all = () => this.by(0);

  /** Move so that a box, in shares of the picture, is seen. */
  reveal([x, y, width, height]) {
    const seen = 1 / this.factor;
    const held = (from, size, at) => (from < at || from + size > at + seen ? from + size / 2 - seen / 2 : at);
    this.#show(held(x, width, this.left), held(y, height, this.top));
  }

  #show(left, top) {
    const most = 1 - 1 / this.factor;
    this.left = Math.max(0, Math.min(most, left));
    this.top = Math.max(0, Math.min(most, top));
    this.#canvas.classList.toggle("enlarged", !this.smallest);
    this.#changed();
  }

  #wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return; // else the page could not be scrolled across the picture
    event.preventDefault();
    this.by(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.004)), ...this.share(event));
  }

  #press(event) {
    if (this.smallest || this.#grip || event.button !== 0) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#grip = { id: event.pointerId, x: event.clientX, y: event.clientY, left: this.left, top: this.top, moved: false };
  }

  #drag(event) {
    if (event.pointerId !== this.#grip?.id) return;
    const { x, y, left, top } = this.#grip;
    const [across, down] = [event.clientX - x, event.clientY - y];
    this.#grip.moved ||= Math.hypot(across, down) > STILL;
    if (!this.#grip.moved) return;
    const area = this.#canvas.getBoundingClientRect();
    this.#show(left - across / area.width / this.factor, top - down / area.height / this.factor);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = 0.2 / this.factor;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const zooms = { "+": this.in, "=": this.in, "-": this.out, 0: this.all };
    if (zooms[event.key]) zooms[event.key]();
    else if (moves[event.key] && !this.smallest) this.#show(this.left + moves[event.key][0], this.top + moves[event.key][1]);
    else return;
    event.preventDefault();
  }
}
