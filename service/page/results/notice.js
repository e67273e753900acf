/** The message in place of photos: an invitation to draw, what is missing, or what went wrong. */

import { element, part, progress, prose } from "../shared/dom.js";
import { examples } from "../drawing/examples.js";
import { paint } from "../drawing/ink.js";

const FACE = 160;

export class Notice {
  #said = "";
  #start;

  /** @param {(marks: object[]) => void} start draws an example */
  constructor(start) {
    this.#start = start;
    part("examples").replaceChildren(...examples().map((example) => this.#example(example)));
  }

  /**
   * Say this.
   *
   * @param {number | null} [share] how much of a build is done; null: nobody knows
   * @param {"key" | "folder"} [form] what is asked for
   */
  say(title, text, share, form) {
    // Written only where it differs, so that a screen reader does not read the same message twice.
    if (this.#said !== title + text) {
      this.#said = title + text;
      part("notice-title").textContent = title;
      part("notice-text").replaceChildren(...prose(text));
    }
    progress(part("notice-progress"), share);
    part("key-form").hidden = form !== "key";
    part("folder-form").hidden = form !== "folder";
    part("start").hidden = true;
    part("ghosts").hidden = true;
    part("notice").hidden = false;
  }

  /** Invite to draw. */
  invite() {
    this.say(
      "What are you looking for?",
      "Draw its outline, and photos of it appear. You can also drop, paste or choose an image, and draw over it.",
    );
    part("start").hidden = false;
    part("ghosts").hidden = false;
  }

  hide() {
    this.#said = "";
    part("notice").hidden = true;
    part("start").hidden = true;
    part("ghosts").hidden = true;
  }

  #example({ name, marks }) {
    const face = element("canvas", { width: FACE, height: FACE });
    paint(face.getContext("2d"), FACE, marks);
    const button = element("button", { type: "button", title: name, ariaLabel: `Start from a sketch: ${name}` }, face);
    button.addEventListener("click", () => this.#start(marks));
    return element("li", {}, button);
  }
}
