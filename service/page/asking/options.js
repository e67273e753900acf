/** What the person has chosen beside the sketch: how to search, what to show, and how many results at a time. */

import { choice, choose, closeOutside, part } from "../shared/dom.js";
import { forSite } from "../shared/storage.js";

const PAGE_SIZES = [10, 20, 50, 100, 200];
const VIEW = "sketch-search-view";
const UNFOLDED = "sketch-search-unfolded";

export class Options extends EventTarget {
  #quality = "good";
  #view = "auto";
  #count = part("count");
  #fold = part("fold");
  #most = 0;
  #variants = 1;

  /** Events: "change" when something else was chosen. */
  constructor() {
    super();
    closeOutside(part("settings"));
    choose("view", forSite.get(VIEW));
    choice("view", (value) => this.#show(value));
    choice("care", (value) => this.#changed(() => (this.#quality = value)));
    this.#count.addEventListener("change", () => this.#changed(() => undefined));
    this.#fold.checked = forSite.get(UNFOLDED) === null;
    this.#fold.addEventListener("change", () => this.#changed(() => forSite.mark(UNFOLDED, !this.#fold.checked)));
  }

  get params() {
    const [quality, fold] = [this.#quality, String(this.#fold.checked)];
    return { quality, k: this.#count.value || "20", view: this.#view, fold };
  }

  /** A search is quicker while somebody draws if one variant of the drawing is looked at. */
  get quick() {
    return this.#variants > 1 ? { variants: 1 } : {};
  }

  /** How many results to ask for at a time, and how many one may. */
  get sizes() {
    const page = Number(this.params.k);
    return { page, most: this.#most || page };
  }

  /** Offer what this server can do. @param model and limits as /info tells them */
  offer(model, limits) {
    this.#most = limits.max_k;
    this.#variants = model.variants;
    part("care").hidden = !(model.methods.includes("ret") && model.best_method !== "ret");
    const sizes = new Set([...PAGE_SIZES.filter((size) => size <= limits.max_k), limits.default_k]);
    const wanted = sizes.has(Number(this.#count.value)) ? this.#count.value : String(limits.default_k);
    const sorted = [...sizes].sort((a, b) => a - b);
    this.#count.replaceChildren(...sorted.map((size) => new Option(`${size} at a time`, String(size))));
    this.#count.value = wanted;
  }

  #show(view) {
    if (view !== this.#view) {
      forSite.set(VIEW, view);
      this.#changed(() => (this.#view = view));
    }
  }

  #changed(set) {
    set();
    this.dispatchEvent(new Event("change"));
  }
}
