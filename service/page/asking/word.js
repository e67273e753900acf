/** The field for a word, which the network's vocabulary completes, and the words that it guesses for the drawing. */

import * as api from "../shared/api.js";
import { element, part } from "../shared/dom.js";
import { Latest } from "../shared/latest.js";
import { percent } from "../shared/words.js";

const COMPLETIONS = 12;
// What browsers call the event when a completion is chosen; older ones give it no name.
const CHOSEN = "insertReplacementText";

export class Word {
  #parts;
  #form = part("word-form");
  #field = part("word");
  #question = new Latest();

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
        this.#complete(this.#field.value.trim());
      }
    });
  }

  /** Offer the field, if there is a vocabulary, or a text tower, which reads any text. @param model, index as /info tells them */
  offer({ vocabulary }, { text_tower: tower }) {
    this.#form.hidden = !vocabulary && !tower;
    const known = `A word or a phrase: this network knows ${vocabulary.toLocaleString("en")} words`;
    this.#field.title = tower ? `Any words, which ${tower} reads` : known;
  }

  /** Offer these words for the drawing. @param {{word: string, probability: number}[]} guesses */
  guess(guesses) {
    const { text } = this.#parts.params;
    const fresh = guesses.filter(({ word }) => !text.includes(word));
    part("guesses").replaceChildren(...fresh.map((one) => this.#guess(one)));
  }

  #guess({ word, probability }) {
    const says = `Search with the word ${word}, too; it is right with ${percent(probability)}`;
    const sure = element("small", { textContent: percent(probability) });
    const onclick = () => {
      this.#field.focus({ preventScroll: true });
      this.#take(word);
    };
    const properties = { type: "button", className: "part guess", title: says, ariaLabel: says, onclick };
    return element("li", {}, element("button", properties, word, sure));
  }

  #take(word) {
    if (word) {
      this.#field.value = "";
      part("words").replaceChildren();
      this.#parts.set({ text: [word] });
    }
  }

  #complete(prefix) {
    void this.#question.ask(
      async (signal) => (prefix ? api.words(prefix, COMPLETIONS, signal) : []),
      (words) => part("words").replaceChildren(...words.map((value) => element("option", { value }))),
      // A word can be written out as well; a search says what is wrong with the server.
      () => undefined,
    );
  }
}
