// What the page asks the server: requests with the token, and refusals as problem documents say them.

const MOST_TRIES = 6;
const TOKEN = "rayseg-token";

let token = sessionStorage.getItem(TOKEN) ?? "";

/** An answer other than the one asked for. */
export class Refusal extends Error {
  constructor(status, title, detail, requestId = "", retryAfterS = 0) {
    super(detail || title);
    Object.assign(this, { status, title, detail, requestId, retryAfterS });
  }
}

/** Keep a token for this tab; an empty one forgets it. */
export function setToken(value) {
  token = value;
  if (value) sessionStorage.setItem(TOKEN, value);
  else sessionStorage.removeItem(TOKEN);
}

export const hasToken = () => token !== "";

/** The JSON of an answer, null where it has none; throws a `Refusal`. Paths are relative, so a prefix in front is kept. */
export async function ask(path, { method = "GET", body, type, signal } = {}) {
  const headers = new Headers({ Accept: "application/json" });
  if (token) headers.set("Authorization", `Bearer ${token}`);
  if (type) headers.set("Content-Type", type);
  let answer;
  try {
    answer = await fetch(path, { method, body, headers, signal, cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "No answer", "The server cannot be reached. Is it running, and is this computer connected?");
  }
  if (!answer.ok) throw await refusalOf(answer);
  return answer.status === 204 ? null : answer.json();
}

/** As `ask`; a busy server is asked again when it says so. `waiting` hears for how many seconds. */
export async function askPatiently(path, request, waiting) {
  for (let tries = 1; ; tries++) {
    try {
      return await ask(path, request);
    } catch (error) {
      const busy = error instanceof Refusal && (error.status === 503 || error.status === 429);
      if (!busy || tries === MOST_TRIES) throw error;
      const seconds = Math.min(30, Math.max(1, error.retryAfterS));
      waiting(seconds);
      await pause(seconds * 1000, request.signal);
    }
  }
}

/** Resolves after a while, or rejects at once when `signal` is aborted. */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("given up", "AbortError"));
    });
  });
}

async function refusalOf(answer) {
  const problem = await answer.json().catch(() => ({}));
  const retryAfterS = Number(answer.headers.get("Retry-After")) || 0;
  const title = problem.title ?? (answer.statusText || `Status ${answer.status}`);
  return new Refusal(answer.status, title, text(problem.detail), text(problem.request_id), retryAfterS);
}

const text = (value) => (typeof value === "string" ? value : "");
