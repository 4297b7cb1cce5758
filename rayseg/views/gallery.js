"use strict";
(() => {
  const form = document.querySelector("form");
  const root = document.documentElement;
  const instances = [...document.querySelectorAll("[data-class]")];
  const masks = instances.filter((element) => element.classList.contains("mask"));

  function update() {
    const least = Number(form.score.value);
    const chosen = new Set([...form.querySelectorAll("[name=class]:checked")].map((box) => box.value));
    for (const element of instances) {
      const shown = Number(element.dataset.score) >= least && chosen.has(element.dataset.class);
      element.classList.toggle("off", !shown);
    }
    const shown = masks.filter((mask) => !mask.classList.contains("off")).length;
    form.least.value = least.toFixed(2);
    form.shown.value = `${shown} of ${masks.length} instances shown`;
    root.classList.toggle("no-captions", !form.captions.checked);
    root.style.setProperty("--zoom", `${form.zoom.value}px`);
    root.style.setProperty("--fill", form.fill.value);
  }

  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  update();
})();
