// What the page asks the server: requests with the token, and refusals as problem documents say them.

import { keep, recall } from "./kept.js";

const MOST_TRIES = 6;
const MOST_WAIT_S = 30;
const TOKEN = "rayseg-token";

let token = recall("sessionStorage", TOKEN) ?? "";

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
  keep("sessionStorage", TOKEN, value);
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

const busy = ({ status }, tries) => (status === 503 || status === 429) && tries < MOST_TRIES;

/** Whether a refusal may pass: of a server that starts, is busy or is away. */
export const passing = ({ status }) => status === 0 || status === 429 || status >= 500;

/**
 * As `ask`; refused, it asks again when the server says so, or after longer and longer waits, as long as `again` allows:
 * if not given, a few times, and only where the server is busy. `waiting` hears for how many seconds, and of the refusal.
 */
export async function askPatiently(path, request, waiting, again = busy) {
  for (let tries = 1; ; tries++) {
    try {
      return await ask(path, request);
    } catch (error) {
      if (!(error instanceof Refusal) || !again(error, tries)) throw error;
      const seconds = Math.min(MOST_WAIT_S, error.retryAfterS || 2 ** (tries - 1));
      waiting(seconds, error);
      await pause(seconds * 1000, request.signal);
    }
  }
}

/** Resolves after a while, or rejects at once when `signal` is aborted. */
function pause(ms, signal) {
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
