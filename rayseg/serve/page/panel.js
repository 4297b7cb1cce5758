// What stands beside an image of its answer as a whole.

import { element, whole } from "./elements.js";

const BINS = 24;

/** Bars of how many instances have which score, from `least` to 1; each knows where it ends. */
export function drawHistogram(box, instances, least) {
  const counts = new Array(BINS).fill(0);
  const width = (1 - least) / BINS;
  for (const { score } of instances) counts[Math.max(0, Math.min(BINS - 1, Math.floor((score - least) / width)))]++;
  const most = Math.max(1, ...counts);
  const bars = counts.map((count, i) => {
    const bar = element("span");
    bar.dataset.to = least + (i + 1) * width;
    bar.style.height = count ? `${10 + (90 * count) / most}%` : "0";
    return bar;
  });
  box.replaceChildren(...bars);
}

/** Milliseconds by name. */
export function drawTimes(list, times) {
  const rows = Object.entries(times).map(([name, ms]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, ms < 10 ? ms.toFixed(1) : whole(Math.round(ms)))),
  );
  list.replaceChildren(...rows);
}

/** "2 red, 1 blue". */
export function summary(instances) {
  const counts = new Map();
  for (const one of instances) counts.set(one.category, (counts.get(one.category) ?? 0) + 1);
  return [...counts].map(([name, count]) => `${count} ${name}`).join(", ") || "nothing shown";
}
