// The page: which view is open, which model is asked, what happens to an image. Text from outside only ever becomes text.

import { Refusal, askPatiently, hasToken, passing, setToken } from "./api.js";
import { Batches } from "./batches.js";
import { counted } from "./elements.js";
import { ImageView } from "./image.js";
import { keep, recall } from "./kept.js";

const VIEWS = ["image", "batches"];
const LABELS = { automatic: "Auto", light: "Light", dark: "Dark" };
const THEMES = Object.keys(LABELS);
const THEME = "rayseg-theme";

const get = (id) => document.getElementById(id);
const view = new ImageView(refused);
const batches = new Batches(refused);
let beginning = new AbortController();

/** A 401 brings up the token's field, or empties it of a token that is not known; says whether it was one. */
function refused(error) {
  if (!(error instanceof Refusal) || error.status !== 401) return false;
  if (!get("token").hidden && !hasToken()) return true; // it is up, and perhaps written in
  if (hasToken()) get("token-hint").textContent = "It does not know the one that was given.";
  setToken("");
  batches.watch(false);
  get("forget").hidden = true;
  get("token").hidden = false;
  get("token-value").value = "";
  get("token-value").focus();
  return true;
}

async function begin() {
  beginning.abort();
  beginning = new AbortController();
  const { signal } = beginning;
  try {
    const { models } = await askPatiently("v1/models", { signal }, wait, passing);
    get("forget").hidden = !hasToken();
    view.offer(models);
    batches.offer(models);
    if (get("token").hidden) return;
    if (get("token").contains(document.activeElement)) get("main").focus({ preventScroll: true });
    get("token").hidden = true;
    watch();
  } catch (error) {
    if (error.name === "AbortError") return;
    view.expect("…");
    if (!refused(error)) view.fail(error);
  }
}

function wait(seconds, { title }) {
  view.expect(`${title}. Asking again in ${counted(seconds, "second")}.`);
}

/** Open the view that the address names, and say whether it names one: if not, things stay as they are. */
function open() {
  const name = location.hash.slice(1) || VIEWS[0];
  if (!VIEWS.includes(name)) return false;
  for (const one of VIEWS) get(one).hidden = one !== name;
  for (const link of document.querySelectorAll('nav a[href^="#"]')) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = name === "batches" ? "Batches · rayseg" : "rayseg";
  watch();
  return true;
}

function watch() {
  batches.watch(!get("batches").hidden && get("token").hidden);
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  get("theme").textContent = LABELS[name];
  get("theme").setAttribute("aria-label", `Theme: ${name}`);
  keep("localStorage", THEME, name);
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
  if (open()) get("main").focus({ preventScroll: true });
});
theme(THEMES.find((name) => name === recall("localStorage", THEME)) ?? THEMES[0]);
begin();
open();
