/** The HTTP API of the server that this page came from. */

import { download, element } from "./dom.js";
import { forTab } from "./storage.js";

const KEY = "sketch-search-key";

/** The server refused, or failed; the message is a sentence for people, and `nearest` lists words that could be meant. */
export class Refused extends Error {
  /** @param told the error of the answer @param {number} retryAfter seconds after which to try again; 0: it did not say */
  constructor(status, told, retryAfter) {
    super(told.message);
    this.status = status;
    this.code = told.code;
    this.requestId = told.request_id;
    this.nearest = told.nearest ?? [];
    this.retryAfter = retryAfter;
  }
}

/** No answer came at all. */
export class Away extends Error {}

/** The address of a path of the server. It is relative to this page, because a proxy may serve both below a folder. */
export function address(path) {
  return new URL(path.replace(/^\//, ""), document.baseURI).href;
}

export class Api {
  #key = forTab.get(KEY);

  /** Whether requests carry an API key. */
  get hasKey() {
    return this.#key !== null;
  }

  /** Use this API key from now on, for as long as the tab is open. */
  useKey(key) {
    this.#key = key;
    forTab.set(KEY, key);
  }

  /** What the server has loaded, and what it takes. */
  async info() {
    return (await this.#ask("info")).json();
  }

  /** The folders that are indexed, and the files that could not be read. */
  async gallery() {
    return (await this.#ask("gallery")).json();
  }

  /** The folders in a folder of the server's machine; "": in that for the pictures of who runs it. */
  async folders(path) {
    return (await this.#ask(`folders?${parameters(path ? { path } : {})}`)).json();
  }

  /** Begin to index a folder of the server's machine, too; null: look for changes in those that the index has. */
  async build(folder) {
    await this.#ask(`build?${parameters(folder === null ? {} : { folder })}`, { method: "POST" });
  }

  /**
   * The photos that match a sketch best, or photos that are liked.
   *
   * @param {Blob | null} sketch an image file; none where the parameters name a liked photo
   * @param {Record<string, string | string[]>} params query parameters; a list is a parameter that is repeated
   */
  async search(sketch, params, signal) {
    const answer = await this.#ask(`search?${parameters(params)}`, { method: "POST", body: sketch, signal });
    return answer.json();
  }

  /**
   * Why photos match a sketch, or are like a photo.
   *
   * @param {Blob | null} picture an image file; none where the parameters name a liked photo
   * @param {Record<string, string | string[]>} params query parameters; a list is a parameter that is repeated
   */
  async explain(picture, params, signal) {
    return (await this.#ask(`explain?${parameters(params)}`, { method: "POST", body: picture, signal })).json();
  }

  /** Words of the network's vocabulary that begin like this. @returns {Promise<string[]>} at most so many */
  async words(prefix, limit, signal) {
    return (await (await this.#ask(`words?${parameters({ prefix, limit })}`, { signal })).json()).words;
  }

  /** What results say of these photos: ids, paths and addresses. @param {number[]} ids */
  async photos(ids, signal) {
    return (await (await this.#ask(`photos?${parameters({ id: ids })}`, { signal })).json()).photos;
  }

  /** Some photos of a cluster, and how many it has. */
  async cluster(id, photos, signal) {
    return (await this.#ask(`clusters/${id}?k=${photos}`, { signal })).json();
  }

  /** A file of the server. @returns {Promise<Blob>} */
  async file(path) {
    return (await this.#ask(path)).blob();
  }

  /** Show a photo's file in the file manager of the server's machine. */
  async reveal(id) {
    await this.#ask(`photos/${id}/reveal`, { method: "POST" });
  }

  /** Let the browser save a file of the server, under this name. Where there is a key, a script has to fetch it. */
  async download(path, params, name) {
    const wanted = `${path}?${parameters(params)}`;
    if (this.hasKey) {
      download(await this.file(wanted), name);
    } else {
      element("a", { href: address(wanted), download: name }).click();
    }
  }

  /**
   * Show an image of the server in an img element. Where there is a key the image is fetched, because only a script can
   * send the key. If it fails, the element gets its "error" event either way.
   */
  async show(image, path) {
    const url = address(path);
    image.dataset.path = path;
    if (!this.hasKey) {
      image.src = url;
      return;
    }
    try {
      const blob = await this.file(path);
      if (image.dataset.path !== path) {
        return;
      }
      const local = URL.createObjectURL(blob);
      image.src = local;
      await image.decode().catch(() => undefined);
      URL.revokeObjectURL(local);
    } catch {
      if (image.dataset.path === path) {
        image.dispatchEvent(new Event("error"));
      }
    }
  }

  /** @throws {Refused | Away} and AbortError */
  async #ask(path, options = {}) {
    let answer;
    try {
      answer = await fetch(address(path), { ...options, headers: this.hasKey ? { "X-API-Key": this.#key } : {} });
    } catch (error) {
      throw error.name === "AbortError" ? error : new Away("The server does not answer.", { cause: error });
    }
    if (answer.ok) {
      return answer;
    }
    // A proxy in front of the server may answer with something else than the server's JSON.
    const body = await answer.json().catch(() => null);
    const told = body?.error ?? { code: "", message: `The server answered ${answer.status}.`, request_id: "" };
    const wait = Number(answer.headers.get("Retry-After")) || 0;
    throw new Refused(answer.status, told, wait);
  }
}

function parameters(params) {
  return new URLSearchParams(Object.entries(params).flatMap(([name, values]) => [values].flat().map((value) => [name, value])));
}
