/** The grid of thumbnails. */

import { element } from "../shared/dom.js";
import { fileName, score } from "../shared/words.js";

/** What a photo is known by. Its id alone may mean another photo, once the server has another index. */
function identity(result) {
  return `${result.id} ${result.paths[0]}`;
}

export class Results {
  #list;
  #api;
  #open;
  // By identity(). Most photos of an answer are in the next one, too; they must not load again or flicker.
  #tiles = new Map();

  /**
   * @param {HTMLOListElement} list
   * @param {import("../shared/api.js").Api} api
   * @param {(place: number) => void} open called with the place in the list, from 0, of a photo that was chosen
   */
  constructor(list, api, open) {
    this.#list = list;
    this.#api = api;
    this.#open = open;
  }

  /** Show these results, best first. */
  show(results) {
    const before = this.#tiles;
    this.#tiles = new Map(
      results.map((result) => [identity(result), before.get(identity(result)) ?? this.#tile(result)]),
    );
    results.forEach((result, place) => this.#label(this.#tiles.get(identity(result)), result, place));
    this.#list.replaceChildren(...this.#tiles.values());
  }

  /** Show these after those that are there; `place` is the first one's. */
  add(results, place) {
    results.forEach((result, i) => {
      const tile = this.#tile(result);
      this.#label(tile, result, place + i);
      this.#tiles.set(identity(result), tile);
      this.#list.append(tile);
    });
  }

  #tile(result) {
    const image = element("img", { alt: "", loading: "lazy", decoding: "async" });
    const frame = element("span", { className: "frame" }, image, element("span", { className: "rank" }));
    image.addEventListener("load", () => frame.classList.add("here"));
    image.addEventListener("error", () => frame.classList.add("gone"));
    const name = element("span", { className: "name" });
    const button = element("button", { type: "button" }, frame, name, element("span", { className: "score" }));
    const size = window.devicePixelRatio > 1.2 ? 512 : 320;
    void this.#api.show(image, `${result.thumbnail_url}?size=${size}`);
    return element("li", {}, button);
  }

  #label(item, result, place) {
    const button = item.firstElementChild;
    const name = fileName(result.paths[0]);
    button.querySelector(".rank").textContent = result.rank;
    button.querySelector(".name").textContent = name;
    button.querySelector(".score").textContent = score(result.score);
    button.title = result.paths.join("\n");
    button.setAttribute("aria-label", `${result.rank}: ${name}, score ${score(result.score)}`);
    button.onclick = () => this.#open(place);
  }
}
