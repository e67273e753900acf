/** What the person has chosen beside the sketch: how to search, what to show, and how many results at a time. */

import { choice, choose, part } from "../shared/dom.js";
import { forSite } from "../shared/storage.js";

const PAGE_SIZES = [10, 20, 50, 100, 200];
const VIEW = "sketch-search-view";

export class Options extends EventTarget {
  #careful = true;
  #view = "auto";
  #count = part("count");
  #most = 0;

  /** Events: "change" when something else was chosen. */
  constructor() {
    super();
    choose("view", forSite.get(VIEW));
    choice("view", (value) => this.#show(value));
    choice("care", (value) => this.#changed(() => (this.#careful = value === "careful")));
    this.#count.addEventListener("change", () => this.#changed(() => undefined));
  }

  /** The parameters of a search. */
  get params() {
    return { method: this.#careful ? "auto" : "ret", k: this.#count.value || "20", view: this.#view };
  }

  /** How many results to ask for at a time, and how many one may. */
  get sizes() {
    const page = Number(this.params.k);
    return { page, most: this.#most || page };
  }

  /** Offer what this server can do. @param model and limits as /info tells them */
  offer(model, limits) {
    this.#most = limits.max_k;
    part("care").hidden = !(model.methods.includes("ret") && (model.best_method !== "ret" || model.diffuses));
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
