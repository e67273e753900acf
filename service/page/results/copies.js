/** The near duplicates of a photo: a button that says how many photos it stands for, and the list that opens with it. */

import * as api from "../shared/api.js";
import { element } from "../shared/dom.js";
import { Latest } from "../shared/latest.js";
import { copiesLabel, count, fileName, photoLabel, trouble } from "../shared/words.js";

// A server tells of so many photos at once. Nobody looks through longer bursts here.
const MOST = 64;
let lists = 0;

export class Copies {
  /** Lies over the photo. */
  button = element("button", { type: "button", className: "times" });
  /** Comes after the photo. */
  list = element("ol", { id: `copies-${++lists}`, className: "further copies", hidden: true });

  #tile;
  #ids = [];
  #tiles = [];
  #question = new Latest();

  /** @param {(photo: object) => import("./tile.js").Tile} tile gives the tile of a copy */
  constructor(tile) {
    this.#tile = tile;
    this.button.setAttribute("aria-controls", this.list.id);
    this.button.addEventListener("click", () => this.#turn(!this.open));
    this.#turn(false);
  }

  get open() {
    return !this.list.hidden;
  }

  get photos() {
    return this.open ? this.#tiles.map(({ result }) => result) : [];
  }

  contains(other) {
    return this.button === other || this.list.contains(other);
  }

  /** Offer the copies of this result. If those of the same photos were shown, they stay. */
  offer({ paths, copies = [] }) {
    const name = fileName(paths[0]);
    this.button.hidden = !copies.length;
    this.button.textContent = `\u00d7${(copies.length + 1).toLocaleString("en")}`;
    this.button.ariaLabel = copiesLabel(copies.length, name);
    this.button.title = this.button.ariaLabel;
    this.list.ariaLabel = `Near duplicates of ${name}`;
    if (copies.join() !== this.#ids.join()) {
      this.#ids = copies;
      this.#turn(false);
    }
    // What is asked of a tile may have changed, such as whether its photo is liked.
    this.#tiles.forEach((tile) => tile.label(tile.result, photoLabel(tile.result)));
  }

  /** Show the photo only, and put the focus where its copies can be opened again. */
  close() {
    this.#turn(false);
    this.button.focus({ preventScroll: true });
  }

  #turn(open) {
    this.#question.stop();
    this.#tiles = [];
    this.list.replaceChildren();
    this.list.hidden = !open;
    this.button.ariaExpanded = String(open);
    if (open) {
      this.#read();
    }
  }

  #read() {
    void this.#question.ask(
      (signal) => api.photos(this.#ids.slice(0, MOST), signal),
      (photos) => this.#fill(photos),
      (error) => this.list.replaceChildren(element("li", { className: "left", textContent: trouble(error).join(": ") })),
    );
  }

  #fill(photos) {
    this.#tiles = photos.map((photo) => {
      const tile = this.#tile(photo);
      tile.label(photo, photoLabel(photo));
      return tile;
    });
    const items = this.#tiles.map((tile) => element("li", {}, tile.element));
    const left = this.#ids.length - photos.length;
    const rest = left ? [element("li", { className: "left", textContent: `and ${count(left, "more photo")}` })] : [];
    this.list.replaceChildren(...items, ...rest);
  }
}
