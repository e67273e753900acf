/** The dialog with the whole photo. */

import { fileName, score } from "./words.js";

const ENLARGED = 2.5;

export class Viewer {
  #api;
  #dialog = document.getElementById("viewer");
  #image = document.getElementById("viewer-image");
  #results = [];
  #place = 0;

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.#api = api;
    this.#on("close", "click", () => this.#dialog.close());
    this.#on("previous", "click", () => this.#step(-1));
    this.#on("next", "click", () => this.#step(1));
    this.#on("image", "load", () => this.#loaded());
    this.#on("image", "error", () => this.#fallBack());
    this.#dialog.addEventListener("keydown", (event) => this.#key(event));
    // Only the backdrop is the dialog itself; all inside lies in elements of its own.
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.#dialog.close());
  }

  /** Show one of these results, by its place from 0. */
  open(results, place) {
    this.#results = results;
    this.#place = place;
    this.#fill();
    this.#dialog.showModal();
  }

  #fill() {
    const result = this.#results[this.#place];
    const part = (name) => document.getElementById(`viewer-${name}`);
    const name = fileName(result.paths[0]);
    part("title").textContent = name;
    part("rank").textContent = `${result.rank} of ${this.#results.length}`;
    part("score").textContent = score(result.score);
    part("paths-label").textContent = result.paths.length > 1 ? "Paths of this photo" : "Path";
    part("paths").replaceChildren(
      ...result.paths.map((path) => Object.assign(document.createElement("li"), { textContent: path })),
    );
    part("note").textContent = "";
    part("previous").disabled = this.#place === 0;
    part("next").disabled = this.#place === this.#results.length - 1;
    this.#image.alt = name;
    this.#image.removeAttribute("src");
    this.#dialog.classList.add("loading");
    void this.#api.show(this.#image, result.photo_url ?? this.#small());
  }

  #small() {
    return `${this.#results[this.#place].thumbnail_url}?size=1024`;
  }

  #loaded() {
    // A small photo blown up to a large screen shows nothing but its pixels.
    this.#image.style.maxWidth = `${ENLARGED * this.#image.naturalWidth}px`;
    this.#image.style.maxHeight = `${ENLARGED * this.#image.naturalHeight}px`;
    this.#dialog.classList.remove("loading");
  }

  /** Browsers cannot show every format that can be indexed, and the file may be gone. */
  #fallBack() {
    if (this.#image.dataset.path !== this.#small()) {
      void this.#api.show(this.#image, this.#small());
      return;
    }
    this.#dialog.classList.remove("loading");
    document.getElementById("viewer-note").textContent = "This photo cannot be opened any more.";
  }

  #step(by) {
    if (this.#place + by in this.#results) {
      this.#place += by;
      this.#fill();
    }
  }

  #key(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) {
      event.preventDefault();
      this.#step(by);
    }
  }

  #on(name, event, react) {
    document.getElementById(`viewer-${name}`).addEventListener(event, react);
  }
}
