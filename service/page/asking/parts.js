/** What is searched for beside the drawing: photos, words and filters; and the line that shows what the query consists of. */

import * as api from "../shared/api.js";
import { read, steps, watch, write } from "../shared/address.js";
import { element, part } from "../shared/dom.js";
import { fileName, filterName } from "../shared/words.js";

const FACE = 128;
const PHOTOS = ["like", "unlike"];
const FILTERS = ["folder", "after", "before"];

export class Parts extends EventTarget {
  #line = part("parts");
  #wanted = read();
  #drawing = null;
  // Names of photos by their ids. An address has ids only, so that some may be unknown.
  #names = new Map();

  /** Events: "change" when something else is searched for. */
  constructor(removeDrawing) {
    super();
    part("parts-drawing").addEventListener("click", removeDrawing);
    part("parts-undo").addEventListener("click", () => history.back());
    watch(() => this.#moved());
  }

  /** Whether a search needs no drawing. */
  get enough() {
    return this.#wanted.like.length > 0 || this.#wanted.text.length > 0;
  }

  /** Whether a filter leaves photos out. */
  get filtered() {
    return FILTERS.some((name) => this.#wanted[name].length);
  }

  /** Whether there are none of these parts. */
  get none() {
    return Object.values(this.#wanted).every((values) => !values.length);
  }

  /** These parts as parameters of a search. @returns {import("../shared/address.js").Wanted} */
  get params() {
    return Object.fromEntries(Object.entries(this.#wanted).map(([name, values]) => [name, [...values]]));
  }

  /** Whether this photo is one that more like it are wanted of. */
  likes({ id }) {
    return this.#wanted.like.includes(String(id));
  }

  /** Take the names of these photos, which an address does not tell. */
  know(photos) {
    photos.forEach(({ id, paths }) => this.#names.set(String(id), fileName(paths[0])));
    this.show();
  }

  /** The name of a photo, as far as it is known. @param {string} id */
  name(id) {
    return this.#names.get(id) ?? `photo ${id}`;
  }

  /** Ask for more like this photo; a second time, no longer. */
  like(photo) {
    this.#put(photo, this.likes(photo) ? null : "like");
  }

  unlike(photo) {
    this.#put(photo, "unlike");
  }

  /** Ask for these values in place of those that were there. @param {Partial<import("../shared/address.js").Wanted>} some */
  set(some) {
    this.#go({ ...this.#wanted, ...some });
  }

  /** Show whether there is a drawing, or a photo in its place, too. @param {"sketch" | "photo" | null} kind */
  draw(kind) {
    this.#drawing = kind;
    this.show();
  }

  /** Show the line with the parts; with a drawing alone and nothing to undo there is none. */
  show() {
    this.#line.hidden = this.none && !steps();
    this.#nameDrawing();
    part("parts-undo").hidden = !steps();
    const photos = PHOTOS.flatMap((name) => this.#wanted[name].map((id) => this.#photo(id, name)));
    const filters = FILTERS.flatMap((name) => this.#wanted[name].map((value) => this.#filter(value, name)));
    const words = this.#wanted.text.map((word) => this.#word(word));
    part("parts-list").replaceChildren(...words, ...photos, ...filters);
  }

  #nameDrawing() {
    const button = part("parts-drawing");
    const photo = this.#drawing === "photo";
    const [icon, name] = button.children;
    icon.firstElementChild.setAttribute("href", photo ? "#i-image" : "#i-pen");
    name.textContent = photo ? "Photo" : "Drawing";
    button.ariaLabel = `Remove the ${name.textContent.toLowerCase()}`;
    button.title = button.ariaLabel;
    button.hidden = !this.#drawing;
  }

  #put(photo, name) {
    const id = String(photo.id);
    this.#names.set(id, fileName(photo.paths[0]));
    const rest = Object.fromEntries(PHOTOS.map((one) => [one, this.#wanted[one].filter((other) => other !== id)]));
    this.set(name ? { ...rest, [name]: [...rest[name], id] } : rest);
  }

  #remove(value, name) {
    this.set({ [name]: this.#wanted[name].filter((other) => other !== value) });
  }

  #go(wanted) {
    if (!same(wanted, this.#wanted)) {
      this.#wanted = wanted;
      write(wanted);
      this.#changed();
    }
  }

  #moved() {
    const wanted = read();
    const before = this.#wanted;
    this.#wanted = wanted;
    if (same(wanted, before)) {
      this.show();
    } else {
      this.#changed();
    }
  }

  #changed() {
    this.show();
    this.dispatchEvent(new Event("change"));
  }

  #photo(id, name) {
    const word = name === "like" ? "More like" : "Not";
    const says = `${word} ${this.name(id)}`;
    const shown = [element("span", { textContent: word }), this.#face(id)];
    return chip({ kind: name, shown, says, remove: () => this.#remove(id, name) });
  }

  /** The thumbnail of a photo, or its name where there is none: an address may name a photo that was removed. */
  #face(id) {
    const image = element("img", { alt: "" });
    image.addEventListener("error", () => image.replaceWith(element("span", { textContent: this.name(id) })));
    void api.show(image, `thumbnails/${id}?size=${FACE}`);
    return image;
  }

  #word(word) {
    const shown = [element("span", { textContent: `\u201c${word}\u201d` })];
    return chip({ kind: "word", shown, says: `The word ${word}`, remove: () => this.#remove(word, "text") });
  }

  #filter(value, name) {
    const says = filterName(name, value);
    const shown = [element("span", { textContent: says })];
    return chip({ kind: "filter", shown, says, remove: () => this.#remove(value, name) });
  }
}

/** An item of the list: a button that removes a part. `shown` stands in it, and `says` is the same in words. */
function chip({ kind, shown, says, remove }) {
  const button = element("button", { type: "button", className: `part ${kind}`, title: `Remove: ${says}` });
  button.ariaLabel = `Remove: ${says}`;
  button.append(...shown, element("i", { className: "cross" }));
  button.addEventListener("click", remove);
  return element("li", {}, button);
}

function same(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}
