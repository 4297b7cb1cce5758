// What is said of one instance in a small box over the picture: beside the pointer, or at the instance.

const BESIDE = 14; // pixels from the pointer
const APART = 8; // from the instance
const MARGIN = 4; // to the frame

/** Keeps `box` inside `frame`, over which it lies. */
export class Tip {
  instance = null; // of which something is said
  atPointer = false;
  #box;
  #frame;

  constructor(box, frame) {
    this.#box = box;
    this.#frame = frame;
  }

  /** Say this of an instance, beside the pointer of an event if there is one. Without lines nothing is said. */
  say(lines, event, instance) {
    this.instance = lines ? instance : null;
    this.atPointer = Boolean(lines && event);
    this.#box.hidden = !lines;
    if (!lines) return;
    this.#box.replaceChildren(...lines);
    if (!event) return;
    const frame = this.#frame.getBoundingClientRect();
    this.#move(event.clientX - frame.x + BESIDE, event.clientY - frame.y + BESIDE);
  }

  /** What lies under the pointer may be another now: from here on the tip belongs to its instance. */
  leavePointer() {
    this.atPointer = false;
  }

  /** Above where the instance is in the window if there is room, else below; hidden where it is not seen. */
  put(area, seen) {
    this.#box.hidden = !seen;
    if (!seen) return;
    const frame = this.#frame.getBoundingClientRect();
    const above = area.y - frame.y - this.#box.offsetHeight - APART;
    this.#move(area.x - frame.x, above > MARGIN ? above : area.bottom - frame.y + APART);
  }

  #move(x, y) {
    const { offsetWidth, offsetHeight } = this.#box;
    this.#box.style.left = `${Math.max(MARGIN, Math.min(x, this.#frame.clientWidth - offsetWidth - MARGIN))}px`;
    this.#box.style.top = `${Math.max(MARGIN, Math.min(y, this.#frame.clientHeight - offsetHeight - MARGIN))}px`;
  }
}
