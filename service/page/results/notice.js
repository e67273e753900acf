/** The message in place of photos: an invitation to draw, what is missing, or what went wrong. */

import { element, part, progress, prose } from "../shared/dom.js";

export class Notice {
  #said = "";
  #start;

  constructor(start) {
    this.#start = start;
  }

  /** Say this, with the `share` of a build that is done (null: nobody knows), and ask for a "key" or a "folder". */
  say(title, text, share, form) {
    // Written only where it differs, so that a screen reader does not read the same message twice.
    if (this.#said !== title + text) {
      this.#said = title + text;
      part("notice-title").textContent = title;
      part("notice-text").replaceChildren(...prose(text));
    }
    progress(part("notice-progress"), share);
    part("key-form").hidden = form !== "key";
    part("folder-choose").hidden = form !== "folder";
    this.offer([]);
    this.#start.hide();
    part("ghosts").hidden = true;
    part("notice").hidden = false;
  }

  /** Offer these words below what is said. @param {(word: string) => void} take searches with one of them */
  offer(words, take) {
    const buttons = words.map((word) =>
      element("button", { type: "button", className: "quiet", textContent: word, onclick: () => take(word) }),
    );
    part("notice-words").replaceChildren(...buttons.map((button) => element("li", {}, button)));
  }

  invite() {
    this.say(
      "What are you looking for?",
      "Draw its outline, and photos of it appear. You can also drop, paste or choose an image, and draw over it.",
    );
    this.#start.show();
    part("ghosts").hidden = false;
  }

  hide() {
    this.#said = "";
    part("notice").hidden = true;
    this.#start.hide();
    part("ghosts").hidden = true;
  }
}
