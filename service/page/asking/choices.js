/** The person's choices beside the sketch: the view, a word, and filters. */

import * as api from "../shared/api.js";
import { choice, choose, closeOutside, element, byId } from "../shared/dom.js";
import { forSite } from "../shared/storage.js";
import { percent, unknownWord } from "../shared/words.js";

const PAGE_SIZES = [10, 20, 50, 100, 200];
const VIEW = "sketch-search-view";
const UNFOLDED = "sketch-search-unfolded";
// The first day that a server accepts.
const FIRST_DAY = "1900-01-01";
// The most folders that a server lists.
const FOLDERS = 1000;
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
    this.#count.addEventListener("change", () => this.#changed(() => undefined));
    this.#fold.checked = forSite.get(UNFOLDED) === null;
    this.#fold.addEventListener("change", () => this.#changed(() => forSite.mark(UNFOLDED, !this.#fold.checked)));
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
      this.#changed(() => (this.#view = view));
    }
  }

  #changed(set) {
    set();
    this.dispatchEvent(new Event("change"));
  }
}

/** The form of filters: only photos below a folder, or of some days. What it adds is shown with the parts of the query. */
export class Filter {
  #box = byId("filter");
  #parts;
  #folders = [];

  constructor(parts) {
    this.#parts = parts;
    this.#box.addEventListener("toggle", () => this.#box.open && void this.#fill());
    closeOutside(this.#box);
    byId("filter-folder").addEventListener("input", () => this.#complain(""));
    byId("filter-after").addEventListener("input", () => this.#bound());
    byId("filter-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#apply();
    });
  }

  async #fill() {
    const { after, before } = this.#parts.params;
    byId("filter-folder").value = "";
    this.#complain("");
    byId("filter-after").value = after[0] ?? "";
    byId("filter-before").value = before[0] ?? "";
    this.#bound();
    // A collection on many machines does not list its folders.
    this.#folders = (await api.gallery().catch(() => null))?.below ?? [];
    byId("filter-folders").replaceChildren(...this.#folders.map((value) => element("option", { value })));
  }

  #bound() {
    byId("filter-before").min = byId("filter-after").value || FIRST_DAY;
  }

  #apply() {
    const value = (name) => byId(`filter-${name}`).value;
    const typed = value("folder").replace(/^\/+|\/+$/g, "").trim();
    const { folder: others } = this.#parts.params;
    const meant = this.#meant(typed);
    if (typed && !meant.length) {
      this.#complain(`No folder of this collection has \u201c${typed}\u201d in its name.`);
      return;
    }
    this.#box.open = false;
    this.#box.firstElementChild.focus();
    this.#parts.set({
      folder: [...new Set([...others, ...meant])],
      after: [value("after")].filter(Boolean),
      before: [value("before")].filter(Boolean),
    });
  }

  #complain(problem) {
    byId("filter-folder").setCustomValidity(problem);
    if (problem) {
      byId("filter-folder").reportValidity();
    }
  }

  /** The folders that a text means: a whole path, or else all whose name contains it, the uppermost of each branch. */
  #meant(typed) {
    if (!typed || this.#folders.includes(typed)) {
      return typed ? [typed] : [];
    }
    const [lower, slash] = [typed.toLowerCase(), /[^/]*$/];
    const found = this.#folders.filter((path) => path.match(slash)[0].toLowerCase().includes(lower));
    const upper = found.filter((path) => !found.some((other) => path.startsWith(`${other}/`)));
    // Where not all folders are listed, it may name another.
    const whole = this.#folders.length > 0 && this.#folders.length < FOLDERS;
    return upper.length || whole ? upper.slice(0, 8) : [typed];
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
