/** The query beside the drawing: photos, words and filters; and the line that shows all its parts. */

import * as api from "../shared/api.js";
import { read, rewrite, steps, write } from "../shared/history.js";
import { element, byId } from "../shared/dom.js";
import { fileName, hiddenCount, inFolders, period } from "../shared/words.js";

const FACE = 128;
const PHOTOS = ["like", "unlike", "unlike_kind"];
const PHOTO_WORDS = { like: "More like", unlike: "Not", unlike_kind: "None like" };
const FILTERS = ["folder", "after", "before"];

export class Parts extends EventTarget {
  #wanted = read();
  #drawing = null;
  #described = "";
  // How many photos look like each unwanted one, by its id.
  #alike = new Map();
  // Names of photos by their ids. An address has ids only, so that some may be unknown.
  #names = new Map();

  constructor(removeDrawing) {
    super();
    byId("parts-drawing").addEventListener("click", removeDrawing);
    byId("parts-undo").addEventListener("click", () => history.back());
    // The person has moved through the history, or has changed the address.
    window.addEventListener("popstate", () => this.#moved());
  }

  get enough() {
    return this.#wanted.like.length > 0 || this.#wanted.text.length > 0 || this.filtered;
  }

  get filtered() {
    return FILTERS.some((name) => this.#wanted[name].length);
  }

  get none() {
    return Object.values(this.#wanted).every((values) => !values.length);
  }

  /** These parts as parameters of a search. @returns {import("../shared/history.js").Wanted} */
  get params() {
    return this.#wanted;
  }

  likes({ id }) {
    return this.#wanted.like.includes(String(id));
  }

  /** Take the names of these photos, which an address does not contain. */
  know(photos) {
    photos.forEach(({ id, paths }) => this.#names.set(String(id), fileName(paths[0])));
    this.show();
  }

  /** Take from the answer of a search what unwanted photos hide. */
  hide({ unliked = [], hidden = 0 }) {
    this.#alike = new Map(unliked.map(({ id, alike }) => [String(id), alike]));
    byId("parts-hidden").textContent = hidden ? hiddenCount(hidden) : "";
    this.show();
  }

  name(id) {
    return this.#names.get(id) ?? `photo ${id}`;
  }

  /** Like this photo; a second time, no longer. */
  like(photo) {
    this.#put(photo, this.likes(photo) ? null : "like");
  }

  unlike(photo) {
    this.#put(photo, "unlike");
  }

  /** Replace the values of these parts. @param {Partial<import("../shared/history.js").Wanted>} some */
  set(some) {
    const wanted = { ...this.#wanted, ...some };
    if (!same(wanted, this.#wanted)) {
      this.#wanted = wanted;
      write(wanted);
      this.#changed();
    }
  }

  /** Drop an unusable word, as if it had never been there. @returns {string} the word */
  dropWord() {
    const [word] = this.#wanted.text;
    this.#wanted = { ...this.#wanted, text: [] };
    rewrite(this.#wanted);
    this.show();
    return word;
  }

  clear() {
    this.set(Object.fromEntries(Object.keys(this.#wanted).map((name) => [name, []])));
  }

  /** Another drawing takes the place of this one: a step, which changes nothing else but for a query that begins `anew`. */
  turn(anew) {
    const before = this.#wanted;
    this.#wanted = anew ? { ...before, ...Object.fromEntries([...PHOTOS, "text"].map((name) => [name, []])) } : before;
    write(this.#wanted, !same(before, this.#wanted));
    this.show();
  }

  /** Show whether there is a drawing, or a photo in its place, too. @param {"sketch" | "photo" | null} kind */
  draw(kind) {
    this.#drawing = kind;
    this.show();
  }

  /** Say what is drawn; "": a drawing. */
  describe(text) {
    this.#described = text;
    this.show();
  }

  /** Show the line with the parts, in the order in which they count; with a drawing alone and nothing to undo there is none. */
  show() {
    byId("parts").hidden = this.none && !steps() && !this.#described;
    this.#nameDrawing();
    byId("parts-undo").hidden = !steps();
    const chips = (...names) => names.flatMap((name) => this.#wanted[name].map((value) => this.#chip(name, value)));
    byId("parts-first").replaceChildren(...this.#filters(), ...chips("text", "like"));
    byId("parts-list").replaceChildren(...chips("unlike", "unlike_kind"));
  }

  #nameDrawing() {
    const button = byId("parts-drawing");
    const photo = this.#drawing === "photo";
    button.querySelector("use").setAttribute("href", photo ? "#i-image" : "#i-pen");
    button.ariaLabel = `Remove the ${photo ? "photo" : "drawing"}`;
    button.title = button.ariaLabel;
    byId("parts-things").textContent = this.#described || (photo ? "Photo" : "Drawing");
    button.hidden = !this.#drawing;
  }

  #put(photo, name) {
    const id = String(photo.id);
    this.#names.set(id, fileName(photo.paths[0]));
    const rest = Object.fromEntries(PHOTOS.map((one) => [one, this.#wanted[one].filter((other) => other !== id)]));
    this.set(name ? { ...rest, [name]: [...rest[name], id] } : rest);
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

  #filters() {
    const { folder, after, before } = this.#wanted;
    const all = [[inFolders(folder), { folder: [] }], [period(after[0], before[0]), { after: [], before: [] }]];
    return all.filter(([says]) => says).map(([says, without]) => element("li", {}, this.#part("filter", says, [says], without)));
  }

  /** An item of the list: a button that removes this part, and for an unwanted photo one that hides those like it. */
  #chip(name, value) {
    const without = { [name]: this.#wanted[name].filter((other) => other !== value) };
    if (name === "text") {
      return element("li", {}, this.#part("word", `The word ${value}`, [`\u201c${value}\u201d`], without));
    }
    const word = PHOTO_WORDS[name];
    const part = this.#part(name, `${word} ${this.name(value)}`, [word, this.#face(value)], without);
    const alike = name === "unlike" ? this.#alike.get(value) : 0;
    return element("li", {}, part, ...(alike ? [this.#others(value, alike)] : []));
  }

  #part(kind, says, [shown, ...face], without) {
    const title = `Remove: ${says}`;
    const button = element("button", { type: "button", className: `part ${kind}`, title, ariaLabel: title, onclick: () => this.set(without) });
    button.append(element("span", { textContent: shown }), ...face, element("i", { className: "cross" }));
    return button;
  }

  #others(id, alike) {
    const textContent = `and ${alike.toLocaleString("en")} like it`;
    const title = `Also hide the photos that look like ${this.name(id)}`;
    const onclick = () => this.#put({ id, paths: [this.name(id)] }, "unlike_kind");
    return element("button", { type: "button", className: "quiet", textContent, title, onclick });
  }

  /** The thumbnail of a photo, or its name where there is none: an address may name a photo that was removed. */
  #face(id) {
    const image = api.picture(`thumbnails/${id}?size=${FACE}`);
    image.addEventListener("error", () => image.replaceWith(element("span", { textContent: this.name(id) })));
    return image;
  }
}

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
