// Elements made of text, never of markup.

/** An element with properties, and children that are elements or text. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-") || name === "role" || name === "for") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** A square of a class's colour. */
export function swatch(colour) {
  const made = element("span", { className: "swatch" });
  made.style.background = colour;
  return made;
}

const COLOURS = document.querySelector('meta[name="class-colours"]').content.split(" ");

/** The colour of a class, as everywhere in rayseg. */
export const colourOf = (classId) => COLOURS[((classId % COLOURS.length) + COLOURS.length) % COLOURS.length];

/** 1234567 as "1,234,567". */
export const whole = (number) => number.toLocaleString("en");

/** "1 instance", "2 instances". */
export const counted = (number, noun) => `${whole(number)} ${noun}${number === 1 ? "" : "s"}`;
