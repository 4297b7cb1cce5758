// The buttons under a picture that enlarge it, and how large it is.

const QUIET_MS = 700; // a factor that stays so long is announced

const get = (id) => document.getElementById(id);

/** Wires the buttons to a `Zoom`. */
export class ZoomBar {
  #zoom;
  #timer = 0;

  constructor(zoom) {
    this.#zoom = zoom;
    const works = { "zoom-in": zoom.in, "zoom-out": zoom.out, "zoom-all": zoom.all };
    for (const [id, work] of Object.entries(works)) get(id).addEventListener("click", work);
  }

  /** Show the factor as it is now. What it comes to rest at is announced, not what it passes through. */
  show() {
    const { smallest, largest, factor } = this.#zoom;
    const text = factor < 10 ? factor.toFixed(1).replace(".0", "") : String(Math.round(factor));
    get("zoom-factor").textContent = `${text}×`;
    // not `disabled`, which would take the focus from the button just pressed
    for (const id of ["zoom-out", "zoom-all"]) get(id).setAttribute("aria-disabled", smallest);
    get("zoom-in").setAttribute("aria-disabled", largest);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => say(smallest ? "All of it is shown." : `Enlarged ${text} times.`), QUIET_MS);
  }
}

function say(words) {
  if (get("zoom-said").textContent !== words) get("zoom-said").textContent = words;
}
