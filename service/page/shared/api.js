/** The HTTP API of the server that this page came from. */

import { download, element, forTab } from "./dom.js";

const KEY = "sketch-search-key";
// The status of what a proxy says in the server's place: to sign in, by a redirect (0) or not; and that the server is down.
const LOGINS = new Set([0, 401, 403]);
const DOWN = new Set([502, 503, 504]);
let key = forTab.get(KEY);

/** The server refused, or failed; the message is a sentence for people, and `nearest` lists words that could be meant. */
export class Refused extends Error {
  /** @param told the error of the answer @param {number} retryAfter seconds after which to try again; 0: it did not say */
  constructor(status, told, retryAfter) {
    super(told.message);
    Object.assign(this, { status, code: told.code, requestId: told.request_id, nearest: told.nearest ?? [], retryAfter });
  }
}

export class Away extends Error {}
/** A login in front of the server answers in its place. */
export class SignedOut extends Error {}

/** The address of a path of the server. It is relative to this page, because a proxy may serve both below a folder. */
const address = (path) => new URL(path.replace(/^\//, ""), location.origin + location.pathname).href;

export const hasKey = () => key !== null;

export function useKey(given) {
  key = given;
  forTab.set(KEY, given);
}

export const info = () => told("info");

/** The collection; its `days` count the photos in these folders, or all. @param {string[]} [folder] */
export const gallery = (folder = []) => told(`gallery?${parameters({ folder })}`);

/** The folders in a folder of the server's machine; "": in the pictures folder of its user. */
export const folders = (path) => told(`folders?${parameters(path ? { path } : {})}`);

/** Start to add a folder of the server's machine to the index; null: look for changes in the indexed ones. */
export const build = (folder) => post("build", folder === null ? {} : { folder });
export const remove = (folder) => post("remove", { folder });

/** Ask with a sketch, a Blob or form, or null, and parameters; a list is repeated. `locate` answers much sooner than `explain`. */
export const search = (sketch, params, signal) => post("search", params, sketch, signal);
export const explain = (sketch, params, signal) => post("explain", params, sketch, signal);
export const locate = (sketch, params, signal) => post("locate", params, sketch, signal);

/** Words of the network's vocabulary that begin like this. @returns {Promise<string[]>} at most so many */
export const words = async (prefix, limit, signal) => (await told(`words?${parameters({ prefix, limit })}`, { signal })).words;
export const photos = async (ids, signal) => (await told(`photos?${parameters({ id: ids })}`, { signal })).photos;
export const facts = (id) => told(`photos/${id}/facts`);
export const file = async (path) => (await ask(path)).blob();
export const reveal = (id) => ask(`photos/${id}/reveal`, { method: "POST" });

/** Save a file of the server under this name. With a key, a script has to fetch it. */
export async function downloadFrom(path, params, name) {
  const wanted = `${path}?${parameters(params)}`;
  if (hasKey()) { download(await file(wanted), name); } else { element("a", { href: address(wanted), download: name }).click(); }
}

/** Show an image of the server in an img element, which gets its "error" event if it fails. Only a script can send a key. */
export async function show(image, path) {
  const url = address(path);
  image.dataset.path = path;
  if (!hasKey()) {
    image.src = url;
    return;
  }
  try {
    const blob = await file(path);
    if (image.dataset.path !== path) { return; }
    const local = URL.createObjectURL(blob);
    image.src = local;
    await image.decode().catch(() => undefined);
    URL.revokeObjectURL(local);
  } catch {
    if (image.dataset.path === path) { image.dispatchEvent(new Event("error")); }
  }
}

export function picture(path, properties = {}) {
  const image = element("img", { className: "face", alt: "", ...properties });
  void show(image, path);
  return image;
}

const told = async (path, options) => (await ask(path, options)).json();

const post = (path, params, body, signal) => told(`${path}?${parameters(params)}`, { method: "POST", body, signal });

/** @throws {Refused | Away | SignedOut} and AbortError */
async function ask(path, options = {}) {
  let answer;
  try {
    // The server redirects nothing.
    answer = await fetch(address(path), { ...options, redirect: "manual", headers: hasKey() ? { "X-API-Key": key } : {} });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Away("The server does not answer.", { cause: error });
  }
  if (answer.ok && !answer.headers.get("Content-Type")?.startsWith("text/html")) { return answer; }
  // A proxy in front of the server may answer with something other than the server's JSON.
  const { error } = (await answer.json().catch(() => null)) ?? {};
  if (!error?.code) {
    const { status } = answer;
    if (answer.ok || LOGINS.has(status)) { throw new SignedOut(); }
    const message = `The server answered ${status}.`;
    throw DOWN.has(status) ? new Away(message) : new Refused(status, { code: "", message }, 0);
  }
  const wait = Number(answer.headers.get("Retry-After")) || 0;
  throw new Refused(answer.status, error, wait);
}

const parameters = (params) =>
  new URLSearchParams(Object.entries(params).flatMap(([name, values]) => [values].flat().map((value) => [name, value])));

/** Asks one question at a time: the answer or error of an older one is ignored. */
export class Latest {
  #running = null;

  get busy() { return this.#running !== null; }

  stop() {
    this.#running?.abort();
    this.#running = null;
  }

  /** Ask; then `take` gets the answer, or `fail` the error. The question's signal is aborted once it counts no more. */
  async ask(question, take, fail) {
    this.stop();
    this.#running = new AbortController();
    const { signal } = this.#running;
    try {
      const answer = await question(signal);
      signal.throwIfAborted();
      this.#running = null;
      take(answer);
    } catch (error) {
      if (!signal.aborted) {
        this.#running = null;
        fail(error);
      }
    }
  }
}
