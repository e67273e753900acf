/** One photo in the grid, as a thumbnail with its name. */

import { element } from "../shared/dom.js";
import { fileName } from "../shared/words.js";

const SHARP_RATIO = 1.2;

/** What a photo is known by. Its id alone may mean another photo, once the server has another index. */
export function identity(result) {
  return `${result.id} ${result.paths[0]}`;
}

export class Tile {
  /** The element, to be put into an item of a list. */
  element;
  /** The part of it that lies over the photo, for further buttons. */
  over = element("div", { className: "over" });

  #button;
  #parts = {};
  #result;

  /**
   * @param {object} result of a search
   * @param {import("../shared/api.js").Api} api
   * @param {(result: object) => void} open called with the result when the photo is chosen
   */
  constructor(result, api, open) {
    const image = element("img", { alt: "", loading: "lazy", decoding: "async" });
    for (const name of ["rank", "name", "score"]) {
      this.#parts[name] = element("span", { className: name });
    }
    const { rank, name, score } = this.#parts;
    const frame = element("span", { className: "frame" }, image, rank);
    image.addEventListener("load", () => frame.classList.add("here"));
    image.addEventListener("error", () => frame.classList.add("gone"));
    this.#result = result;
    this.#button = element("button", { type: "button", className: "photo" }, frame, name, score);
    this.#button.addEventListener("click", () => open(this.#result));
    this.element = element("div", { className: "tile" }, this.#button, this.over);
    const size = window.devicePixelRatio > SHARP_RATIO ? 512 : 320;
    void api.show(image, `${result.thumbnail_url}?size=${size}`);
  }

  /**
   * Label it as this result, which is of the same photo.
   *
   * @param {{rank: number | string, score: string, spoken: string}} label what is written in the corner and beside the
   *   name, and what is read out in place of all of it
   */
  label(result, { rank, score, spoken }) {
    this.#result = result;
    this.#parts.rank.textContent = rank;
    this.#parts.name.textContent = fileName(result.paths[0]);
    this.#parts.score.textContent = score;
    this.#button.title = result.paths.join("\n");
    this.#button.setAttribute("aria-label", spoken);
  }
}
