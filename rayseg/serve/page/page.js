// The page: which view is open, which model is asked, what happens to an image. Text from outside only ever becomes text.

import { Refusal, ask, hasToken, setToken } from "./api.js";
import { Batches } from "./batches.js";
import { ImageView } from "./image.js";

const LABELS = { automatic: "Auto", light: "Light", dark: "Dark" };
const THEMES = Object.keys(LABELS);
const THEME = "rayseg-theme";

const get = (id) => document.getElementById(id);
const view = new ImageView(refused);
const batches = new Batches(refused);

/** A 401 brings up the token's field; says whether it did. */
function refused(error) {
  if (!(error instanceof Refusal) || error.status !== 401) return false;
  if (hasToken()) get("token-hint").textContent = "It does not know the one that was given.";
  setToken("");
  get("forget").hidden = true;
  get("token").hidden = false;
  get("token-value").value = "";
  get("token-value").focus();
  return true;
}

async function begin() {
  try {
    const { models } = await ask("v1/models");
    get("token").hidden = true;
    get("forget").hidden = !hasToken();
    view.offer(models);
    batches.offer(models);
    open();
  } catch (error) {
    if (!refused(error)) view.fail(error);
  }
}

function open() {
  const name = location.hash === "#batches" ? "batches" : "image";
  for (const one of ["image", "batches"]) get(one).hidden = one !== name;
  for (const link of document.querySelectorAll('nav a[href^="#"]')) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = name === "batches" ? "Batches · rayseg" : "rayseg";
  batches.watch(name === "batches");
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  get("theme").textContent = LABELS[name];
  get("theme").setAttribute("aria-label", `Theme: ${name}`);
  localStorage.setItem(THEME, name);
}

get("token").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(get("token-value").value.trim());
  begin();
});
get("forget").addEventListener("click", () => {
  setToken("");
  location.reload();
});
get("theme").addEventListener("click", () => {
  theme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
});
addEventListener("hashchange", () => {
  open();
  get("main").focus({ preventScroll: true });
});
theme(THEMES.find((name) => name === localStorage.getItem(THEME)) ?? THEMES[0]);
begin();
