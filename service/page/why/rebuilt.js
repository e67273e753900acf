/** The list of pictures that a drawing, or a photo in its place, is put together to from patches of photos. */

import { element } from "../shared/dom.js";
import { count, fileName, trouble } from "../shared/words.js";

// As many photos as the server puts a picture together from at once.
const TOGETHER = 3;

export class Rebuilt {
  #list;

  /** @param {HTMLUListElement} list */
  constructor(list) {
    this.#list = list;
  }

  /** Whether nothing has been asked for yet. */
  get empty() {
    return !this.#list.childElementCount;
  }

  clear() {
    this.#list.replaceChildren();
  }

  /**
   * Ask for the pictures and show them.
   *
   * @param {object[]} results the photos that are explained
   * @param {(source: "photos" | "gallery") => Promise<object>} ask for the answer of POST /explain
   * @param {AbortSignal} signal after which nothing is shown any more
   */
  async show(results, ask, signal) {
    this.#tell("Putting it together\u2026");
    try {
      const rebuilt = [];
      for (const source of ["photos", "gallery"]) {
        rebuilt.push(...(await ask(source)).rebuilt);
        signal.throwIfAborted();
      }
      this.#list.replaceChildren(...rebuilt.map((one) => item(one, results)));
    } catch (error) {
      if (!signal.aborted) {
        const again = element("button", { type: "button", className: "quiet", textContent: "Try again" });
        again.addEventListener("click", () => void this.show(results, ask, signal));
        this.#tell(trouble(error).join(": "), again);
      }
    }
  }

  #tell(text, ...more) {
    this.#list.replaceChildren(element("li", {}, text, ...more));
  }
}

function item({ source, photo, image }, results) {
  const result = results.find(({ id }) => id === photo);
  const text = {
    photo: `From ${result ? fileName(result.paths[0]) : "one photo"}`,
    photos: `From ${count(Math.min(TOGETHER, results.length), "photo")} together`,
    gallery: "From all photos there are",
  }[source];
  return element("li", {}, element("img", { src: image, alt: "" }), element("p", { className: "name", textContent: text }));
}
