// What the browser keeps for the page. Where its storage is blocked or full, things last as long as the page is open.

/** A text kept in "sessionStorage" or "localStorage", null where there is none. */
export function recall(storage, name) {
  try {
    return window[storage].getItem(name);
  } catch {
    return null;
  }
}

/** Keep a text there; an empty one is taken out. */
export function keep(storage, name, text) {
  try {
    if (text) window[storage].setItem(name, text);
    else window[storage].removeItem(name);
  } catch {
    // the page goes on with what it knows
  }
}
