/** The person's choices beside the sketch: the view, and a word. */

import * as api from "../shared/api.js";
import { choice, choose, closeOutside, element, byId } from "../shared/dom.js";
import { forSite } from "../shared/storage.js";
import { percent, unknownWord } from "../shared/words.js";

const PAGE_SIZES = [10, 20, 50, 100, 200];
const VIEW = "sketch-search-view";
const UNFOLDED = "sketch-search-unfolded";
const COMPLETIONS = 12;
// What browsers call the event when a completion is chosen; older ones give it no name.
const CHOSEN = "insertReplacementText";

export class Options extends EventTarget {
  #view = "auto";
  #count = byId("count");
  #fold = byId("fold");
  #variants = 1;

  constructor() {
    super();
    closeOutside(byId("settings"));
    choose("view", forSite.get(VIEW));
    choice("view", (value) => this.#show(value));
    this.#count.addEventListener("change", () => this.#changed());
    this.#fold.checked = forSite.get(UNFOLDED) === null;
    this.#fold.addEventListener("change", () => {
      forSite.mark(UNFOLDED, !this.#fold.checked);
      this.#changed();
    });
  }

  get params() {
    return { k: this.#count.value || "20", view: this.#view, fold: String(this.#fold.checked) };
  }

  /** During drawing, one variant of the drawing makes searches quicker. */
  get quick() {
    return this.#variants > 1 ? { variants: 1 } : {};
  }

  /** Offer what this server can do. @param model and limits as /info tells them */
  offer(model, limits) {
    this.#variants = model.variants;
    const sizes = new Set([...PAGE_SIZES.filter((size) => size <= limits.max_k), limits.default_k]);
    const wanted = sizes.has(Number(this.#count.value)) ? this.#count.value : String(limits.default_k);
    const sorted = [...sizes].sort((a, b) => a - b);
    this.#count.replaceChildren(...sorted.map((size) => new Option(String(size), String(size))));
    this.#count.value = wanted;
  }

  #show(view) {
    if (view !== this.#view) {
      forSite.set(VIEW, view);
      this.#view = view;
      this.#changed();
    }
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** The field for a word, which the network's vocabulary completes, and the words that it guesses for the drawing. */
export class Word {
  #parts;
  #form = byId("word-form");
  #field = byId("word");
  #question = new api.Latest();
  #known = 0;

  constructor(parts) {
    this.#parts = parts;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#take(this.#field.value.trim());
    });
    this.#field.addEventListener("input", ({ inputType }) => {
      if (!inputType || inputType === CHOSEN) {
        this.#form.requestSubmit();
      } else {
        this.complete(this.#field.value.trim());
      }
    });
    parts.addEventListener("change", () => this.unknown(null));
  }

  /** Offer the field, if there is a vocabulary, or a text tower, which reads any text. @param model, index as /info tells them */
  offer({ vocabulary }, { text_tower: tower }) {
    this.#known = vocabulary;
    this.#form.hidden = !vocabulary && !tower;
    const known = `${vocabulary.toLocaleString("en")} English words, and common things in 13 other languages`;
    this.#field.title = tower ? `Any words, read by ${tower}` : known;
  }

  /** Offer words for the drawing: those that are guessed, or else those that it may `perhaps` be. */
  guess({ guesses, perhaps = [] }) {
    const { text } = this.#parts.params;
    const words = [...guesses, ...perhaps.map((word) => ({ word }))].filter(({ word }) => !text.includes(word));
    byId("guesses").replaceChildren(...words.map((one) => this.#guess(one)));
    byId("guesses").classList.remove("stale");
  }

  /** Show that this word is unknown, whether the `rest` of the query is searched for, and the `nearest`; null: show nothing. */
  unknown(word, nearest = [], rest = false) {
    byId("word-unknown").textContent = word === null ? "" : unknownWord(word, this.#known, rest, nearest.length);
    const chips = nearest.map((one) => {
      const onclick = () => this.#take(one);
      return element("li", {}, element("button", { type: "button", className: "quiet", textContent: one, onclick }));
    });
    byId("word-nearest").replaceChildren(...chips);
  }

  #guess({ word, probability }) {
    const sure = probability !== undefined;
    const says = `Also search with the word ${word}, ${sure ? `${percent(probability)} likely` : "a wild guess"}`;
    const onclick = () => {
      this.#field.focus({ preventScroll: true });
      this.#take(word);
    };
    const properties = { type: "button", className: "part guess", title: says, ariaLabel: says, onclick };
    const shown = sure ? [word, element("small", { textContent: percent(probability) })] : [`${word}?`];
    return element("li", {}, element("button", properties, ...shown));
  }

  #take(word) {
    if (word) {
      this.#field.value = "";
      byId("words").replaceChildren();
      this.unknown(null);
      this.#parts.set({ text: [word] });
    }
  }

  /** Offer words that begin so to the fields with the list `words`. */
  complete(prefix) {
    void this.#question.ask(
      async (signal) => (prefix ? api.words(prefix, COMPLETIONS, signal) : []),
      (words) => byId("words").replaceChildren(...words.map((value) => element("option", { value }))),
      // A word can be typed in full; a search shows errors of the server.
      () => undefined,
    );
  }
}
