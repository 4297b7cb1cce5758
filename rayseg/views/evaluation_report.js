"use strict";
(() => {
  const root = document.documentElement;
  const themes = ["automatic", "light", "dark"];
  const button = document.getElementById("theme");
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme ?? "automatic") + 1) % themes.length];
    if (next === "automatic") delete root.dataset.theme;
    else root.dataset.theme = next;
    button.textContent = `Theme: ${next}`;
  });

  for (const [id, name] of [["truths", "truth"], ["predictions", "found"], ["others", "other"]]) {
    const box = document.getElementById(id);
    if (!box) continue;
    box.parentElement.hidden = false;
    box.addEventListener("change", () => root.classList.toggle(`hide-${name}`, !box.checked));
  }

  const value = (row, column) => row.children[column].textContent;
  const compare = (a, b) => {
    const [x, y] = [a, b].map((text) => (text === "n/a" ? NaN : Number.parseFloat(text.replaceAll(",", ""))));
    if (Number.isNaN(x) && Number.isNaN(y)) return a.localeCompare(b);
    return Number.isNaN(x) ? -1 : Number.isNaN(y) ? 1 : x - y;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].children];
    heads.forEach((head, column) => {
      const sorter = document.createElement("button");
      sorter.type = "button";
      sorter.textContent = head.textContent;
      head.replaceChildren(sorter);
      sorter.addEventListener("click", () => {
        const falling = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows].sort((a, b) => compare(value(a, column), value(b, column)));
        table.tBodies[0].append(...(falling ? rows.reverse() : rows));
      });
    });
  }
})();
