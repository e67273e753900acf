/** One photo in the grid, as a thumbnail with its name. */

import * as api from "../shared/api.js";
import { element, icon } from "../shared/dom.js";
import { fileName } from "../shared/words.js";
import { Copies } from "./stack.js";

const SHARP_RATIO = 1.2;
// Photos up to this rank are in view, and load without waiting until the page is laid out.
const IN_VIEW = 20;

/** The identity of a photo. Its id alone may belong to another photo once the server has another index. */
export const identity = (result) => `${result.id} ${result.paths[0]}`;

export class Tile {
  element;
  over = element("div", { className: "over" });
  /** The near duplicates of the photo, whose list is to be put behind the element. */
  copies;
  result;

  #button;
  #like;
  #unlike;
  #mark;
  #parts;
  #rank = element("span", { className: "rank" });
  #name = element("span", { className: "name" });

  /** The photos that it shows now: its own, and the copies that are open. */
  get photos() { return [this.result, ...this.copies.photos]; }

  /** `actions.open` shows the result, and `actions.mark` is Chosen.mark; the photo is put into `parts`. */
  constructor(result, actions, parts) {
    const image = element("img", { alt: "", loading: result.rank > IN_VIEW ? "lazy" : "eager", decoding: "async" });
    const frame = element("span", { className: "frame" }, image, this.#rank);
    image.addEventListener("load", () => frame.classList.add("here"));
    image.addEventListener("error", () => frame.classList.add("gone"));
    this.result = result;
    this.copies = new Copies((photo) => new Tile(photo, actions, parts));
    this.#button = element("button", { type: "button", className: "photo", onclick: () => actions.open(this.result) }, frame, this.#name);
    this.#mark = actions.mark;
    this.#parts = parts;
    this.#like = this.#small("like");
    this.#unlike = this.#small("unlike");
    this.over.append(this.#like, this.copies.button, this.#unlike);
    this.element = element("div", { className: "tile" }, this.#button, this.over);
    void api.show(image, `${result.thumbnail_url}?size=${window.devicePixelRatio > SHARP_RATIO ? 512 : 320}`);
  }

  /** Label it as this result of the same photo: `rank` in its corner; `spoken` is read out in place of all texts. */
  label(result, { rank, spoken }) {
    this.result = result;
    const name = fileName(result.paths[0]);
    this.#rank.textContent = rank;
    this.#name.textContent = name;
    this.#button.title = result.paths.join("\n");
    this.#button.setAttribute("aria-label", spoken);
    this.#mark(this.#button, result);
    this.#like.ariaLabel = `More like ${name}`;
    this.#unlike.ariaLabel = `Not ${name}`;
    this.copies.offer(result);
  }

  #small(action) {
    const title = action === "like" ? "More like this" : "Not this";
    const onclick = () => this.#parts[action](this.result);
    return element("button", { type: "button", className: `small ${action}`, title, onclick }, icon(action));
  }
}
