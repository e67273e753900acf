/** The photos that are part of the query, liked and unliked ones, and the line that shows what the query consists of. */

import { read, steps, watch, write } from "../shared/address.js";
import { element, part } from "../shared/dom.js";
import { fileName } from "../shared/words.js";

const FACE = 128;

export class Parts extends EventTarget {
  #api;
  #line = part("parts");
  #photos = read();
  #drawing = false;
  // Names of photos by their ids. An address has ids only, so that some may be unknown.
  #names = new Map();

  /**
   * Events: "change" when other photos are part of the query.
   *
   * @param {import("../shared/api.js").Api} api
   * @param {() => void} removeDrawing
   */
  constructor(api, removeDrawing) {
    super();
    this.#api = api;
    part("parts-drawing").addEventListener("click", removeDrawing);
    part("parts-undo").addEventListener("click", () => history.back());
    watch(() => this.#moved());
  }

  /** Whether a search needs no drawing. */
  get enough() {
    return this.#photos.like.length > 0;
  }

  /** Whether no photo is part of the query. */
  get none() {
    return !this.#photos.like.length && !this.#photos.unlike.length;
  }

  /** The photos as parameters of a search. */
  get params() {
    return { like: [...this.#photos.like], unlike: [...this.#photos.unlike] };
  }

  /** Whether this photo is one that more like it are wanted of. */
  likes({ id }) {
    return this.#photos.like.includes(String(id));
  }

  /** Take the names of these photos, which an address does not tell. */
  know(photos) {
    photos.forEach(({ id, paths }) => this.#names.set(String(id), fileName(paths[0])));
    this.show();
  }

  /** Ask for more like this photo; a second time, no longer. */
  like(photo) {
    this.#put(photo, this.likes(photo) ? null : "like");
  }

  /** Ask for nothing like this photo. */
  unlike(photo) {
    this.#put(photo, "unlike");
  }

  /** Show whether there is a drawing, too. */
  draw(yes) {
    this.#drawing = yes;
    this.show();
  }

  /** Show the line with the parts; without photos and nothing to undo there is none. */
  show() {
    this.#line.hidden = this.none && !steps();
    part("parts-drawing").hidden = !this.#drawing;
    part("parts-undo").hidden = !steps();
    const chips = ["like", "unlike"].flatMap((list) => this.#photos[list].map((id) => this.#chip(id, list)));
    part("parts-photos").replaceChildren(...chips);
  }

  #put(photo, list) {
    this.#names.set(String(photo.id), fileName(photo.paths[0]));
    this.#change(String(photo.id), list);
  }

  /** Move a photo into this list, or out of both. */
  #change(id, list) {
    const photos = this.params;
    for (const name of ["like", "unlike"]) {
      photos[name] = photos[name].filter((one) => one !== id);
    }
    photos[list]?.push(id);
    this.#photos = photos;
    write(photos);
    this.#changed();
  }

  #moved() {
    const photos = read();
    const same = String(photos.like) === String(this.#photos.like) && String(photos.unlike) === String(this.#photos.unlike);
    this.#photos = photos;
    if (same) {
      this.show();
    } else {
      this.#changed();
    }
  }

  #changed() {
    this.show();
    this.dispatchEvent(new Event("change"));
  }

  #chip(id, list) {
    const image = element("img", { alt: "" });
    void this.#api.show(image, `thumbnails/${id}?size=${FACE}`);
    const name = this.#names.get(id) ?? `photo ${id}`;
    const says = list === "like" ? `More like ${name}` : `Not ${name}`;
    const word = element("span", { textContent: list === "like" ? "More like" : "Not" });
    const cross = element("i", { className: "cross" });
    const button = element("button", { type: "button", className: `part ${list}`, title: `Remove: ${says}` }, word, image, cross);
    button.ariaLabel = `Remove: ${says}`;
    button.addEventListener("click", () => this.#change(id, null));
    return element("li", {}, button);
  }
}
