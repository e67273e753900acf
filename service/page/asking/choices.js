/** The person's choices beside the sketch: the view, and a word. */

import * as api from "../shared/api.js";
import { byId, choice, choose, closeOutside, element, forSite } from "../shared/dom.js";
import { unknownWord } from "../shared/words.js";

const PAGE_SIZES = [10, 20, 50, 100, 200];
const VIEW = "sketch-search-view";
const UNFOLDED = "sketch-search-unfolded";
const COUNT = "sketch-search-count";
const COMPLETIONS = 12;
// What browsers call the event when a completion is chosen; older ones give it no name.
const CHOSEN = "insertReplacementText";

/** The view of the results; `changed` is called when another one is chosen, with true if it is to be decided anew. @param {(anew?: boolean) => void} changed */
export function createOptions(changed) {
  const [count, fold] = [byId("count"), byId("fold")];
  let view = "auto";
  let variants = 1;

  closeOutside(byId("settings"));
  choose("view", forSite.get(VIEW));
  choice("view", (value) => {
    if (value !== view) {
      forSite.set(VIEW, value);
      view = value;
      changed(true);
    }
  });
  count.addEventListener("change", () => {
    forSite.set(COUNT, count.value);
    changed();
  });
  fold.checked = forSite.get(UNFOLDED) === null;
  fold.addEventListener("change", () => {
    forSite.mark(UNFOLDED, !fold.checked);
    changed();
  });

  return {
    params: (auto = "auto") => ({ k: count.value || "20", view: view === "auto" ? auto : view, fold: String(fold.checked) }),
    /** During drawing, one variant of the drawing makes searches quicker. */
    quick: () => (variants > 1 ? { quality: "draft" } : {}),
    /** Offer what this server can do. @type {(model: Model, limits: Limits) => void} */
    offer(model, limits) {
      variants = model.variants;
      const sizes = new Set([...PAGE_SIZES.filter((size) => size <= limits.max_k), limits.default_k]);
      const wanted = count.value || forSite.get(COUNT);
      count.replaceChildren(...[...sizes].sort((a, b) => a - b).map((size) => new Option(String(size), String(size))));
      count.value = sizes.has(Number(wanted)) ? wanted : String(limits.default_k);
    },
  };
}

/** The field for a word, completed by the vocabulary. @param {Parts} parts */
export function createWord(parts) {
  const [form, field, list] = [byId("word-form"), byId("word"), byId("words")];
  const question = new api.Latest();

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    take(field.value.trim());
  });
  field.addEventListener("input", (event) => {
    const { inputType } = /** @type {InputEvent} */ (event);
    if (!inputType || inputType === CHOSEN) { form.requestSubmit(); } else { complete(field.value.trim()); }
  });
  parts.onChange(() => unknown(null));

  /** Show that a word is unknown, and the `nearest`; null: nothing. @type {(word: string | null, nearest?: string[], rest?: boolean, choose?: (word: string) => void) => void} */
  function unknown(word, nearest = [], rest = false, choose = take) {
    byId("word-unknown").textContent = word === null ? "" : unknownWord(word, rest, nearest.length);
    const chip = (/** @type {string} */ textContent) => {
      const onclick = () => {
        unknown(null);
        choose(textContent);
      };
      return element("button", { type: "button", className: "quiet", textContent, onclick });
    };
    byId("word-nearest").replaceChildren(...nearest.map((one) => element("li", {}, chip(one))));
  }

  function take(/** @type {string} */ word) {
    if (word) {
      field.value = "";
      list.replaceChildren();
      unknown(null);
      parts.set({ text: [word] });
    }
  }

  /** Offer words that begin so to the fields with the list `words`. @param {string} prefix */
  function complete(prefix) {
    void question.ask(
      (signal) => (prefix ? api.words(prefix, COMPLETIONS, signal) : /** @type {string[]} */ ([])),
      (words) => list.replaceChildren(...words.map((value) => element("option", { value }))),
      () => {},
    );
  }

  return {
    unknown, complete, take,
    /** Take what is in the field. @returns {boolean} whether that is another word */
    submit() {
      const before = parts.params().text;
      form.requestSubmit();
      return parts.params().text !== before;
    },
    /** Offer the field, if there is a vocabulary, or a text tower, which reads any text. @type {(model: Model, index: Index) => void} */
    offer({ vocabulary }, { text_tower: tower }) {
      form.hidden = !vocabulary && !tower;
      field.title = tower ? `Any words, read by ${tower}` : `${vocabulary.toLocaleString("en")} English words, and common things in 13 other languages`;
    },
  };
}
