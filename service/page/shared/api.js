/** The HTTP API of the server that this page came from. */

import { download, element, forTab } from "./dom.js";

const KEY = "sketch-search-key";
// The status of what a proxy says in the server's place: to sign in, by a redirect (0) or not; and that the server is down.
const LOGINS = new Set([0, 401, 403]);
const DOWN = new Set([502, 503, 504]);
let key = forTab.get(KEY);

/** The server refused, or failed; the message is a sentence for people, and `nearest` lists words that could be meant. */
export class Refused extends Error {
  code = "";
  requestId = "";
  /** @param {number} status @param {any} told the error of the answer @param {number} retryAfter seconds after which to try again; 0: it did not say */
  constructor(status, told, retryAfter) {
    super(told.message);
    Object.assign(this, { status, code: told.code, requestId: told.request_id, nearest: told.nearest ?? [], retryAfter });
  }
}

export class Away extends Error {}
/** A login in front of the server answers in its place. */
export class SignedOut extends Error {}

/** The address of a path of the server. It is relative to this page, because a proxy may serve both below a folder. @type {(path: string) => string} */
const address = (path) => new URL(path.replace(/^\//, ""), location.origin + location.pathname).href;

export const hasKey = () => key !== null;

export function useKey(/** @type {string} */ given) {
  key = given;
  forTab.set(KEY, given);
}

/** @type {() => Promise<Info>} */
export const info = () => told("info");

/** The collection; its `days` count the photos in these folders, or all. @type {(folder?: string[]) => Promise<Collection>} */
export const gallery = (folder = []) => told(`gallery?${parameters({ folder })}`);

/** The folders in a folder of the server's machine; "": in its user's pictures folder. @type {(path: string) => Promise<Folder>} */
export const folders = (path) => told(`folders?${parameters(path ? { path } : {})}`);

/** Start to add a folder of the server's machine to the index; null: look for changes in the indexed ones. @type {(folder: string | null) => Promise<void>} */
export const build = (folder) => post("build", folder === null ? {} : { folder });
export const remove = (/** @type {string} */ folder) => post("remove", { folder });

/** Ask with a sketch and parameters. @type {(...asked: Parameters<AskServer>) => Promise<Answer>} */
export const search = (sketch, params, signal) => post("search", params, sketch, signal);
/** `locate` answers much sooner. @type {AskServer} */
export const explain = (sketch, params, signal) => post("explain", params, sketch, signal);
/** @type {AskServer} */
export const locate = (sketch, params, signal) => post("locate", params, sketch, signal);

/** Words of the network's vocabulary that begin like this. At most so many. @type {(prefix: string, limit: number, signal: AbortSignal) => Promise<string[]>} */
export const words = async (prefix, limit, signal) => (await told(`words?${parameters({ prefix, limit })}`, { signal })).words;
/** @type {(ids: number[], signal?: AbortSignal) => Promise<Photo[]>} */
export const photos = async (ids, signal) => (await told(`photos?${parameters({ id: ids })}`, { signal })).photos;
export const facts = (/** @type {number} */ id) => told(`photos/${id}/facts`);
export const file = async (/** @type {string} */ path) => (await ask(path)).blob();
export const reveal = (/** @type {number} */ id) => ask(`photos/${id}/reveal`, { method: "POST" });

/** Save a file of the server under this name. With a key, a script has to fetch it. @type {(path: string, params: Asked, name: string) => Promise<void>} */
export async function downloadFrom(path, params, name) {
  const wanted = `${path}?${parameters(params)}`;
  if (hasKey()) { download(await file(wanted), name); } else { element("a", { href: address(wanted), download: name }).click(); }
}

/** Show an image of the server; only a script can send a key. May cause the event "error". @type {(image: HTMLImageElement, path: string) => Promise<void>} */
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
    await image.decode().catch(() => {});
    URL.revokeObjectURL(local);
  } catch {
    if (image.dataset.path === path) { image.dispatchEvent(new Event("error")); }
  }
}

/** @type {(path: string, properties?: Properties<HTMLImageElement>) => HTMLImageElement} */
export function picture(path, properties = {}) {
  const image = element("img", { className: "face", alt: "", ...properties });
  void show(image, path);
  return image;
}

/** @type {(path: string, options?: RequestInit) => Promise<any>} */
const told = async (path, options) => (await ask(path, options)).json();

/** @type {(path: string, params: Asked, body?: Blob | FormData, signal?: AbortSignal) => Promise<any>} */
const post = (path, params, body, signal) => told(`${path}?${parameters(params)}`, { method: "POST", body, signal });

/** @throws {Refused | Away | SignedOut} and AbortError @type {(path: string, options?: RequestInit) => Promise<Response>} */
async function ask(path, options = {}) {
  let answer;
  try {
    // The server redirects nothing.
    answer = await fetch(address(path), { ...options, redirect: "manual", headers: hasKey() ? { "X-API-Key": key } : {} });
  } catch (error) {
    throw /** @type {Error} */ (error).name === "AbortError" ? error : new Away("The server does not answer.", { cause: error });
  }
  if (answer.ok && !answer.headers.get("Content-Type")?.startsWith("text/html")) { return answer; }
  // A proxy in front of the server may answer with something other than the server's JSON.
  const { error } = (await answer.json().catch(() => ({}))) ?? {};
  if (!error?.code) {
    const { status } = answer;
    if (answer.ok || LOGINS.has(status)) { throw new SignedOut(); }
    const message = `The server answered ${status}.`;
    throw DOWN.has(status) ? new Away(message) : new Refused(status, { code: "", message }, 0);
  }
  const wait = Number(answer.headers.get("Retry-After")) || 0;
  throw new Refused(answer.status, error, wait);
}

const parameters = (/** @type {Asked} */ params) =>
  new URLSearchParams(Object.entries(params).flatMap(([name, values]) => [values].flat().map((value) => [name, `${value}`])));

/** Asks one question at a time: the answer or error of an older one is ignored. */
export class Latest {
  #running = /** @type {AbortController} */ (null);

  get busy() { return this.#running !== null; }

  stop() {
    this.#running?.abort();
    this.#running = null;
  }

  /** Ask; then `take` gets the answer, or `fail` the error. The question's signal is aborted once it counts no more. @type {AskLatest} */
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
