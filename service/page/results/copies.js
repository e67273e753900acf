/** The near duplicates of a photo: a button that says how many photos it stands for, and the list that opens with it. */

import * as api from "../shared/api.js";
import { element } from "../shared/dom.js";
import { Latest } from "../shared/latest.js";
import { copiesLabel, count, fileName, photoLabel, trouble } from "../shared/words.js";
import { Fold } from "./fold.js";

// A server tells of so many photos at once. Nobody looks through longer bursts here.
const MOST = 64;

export class Copies extends Fold {
  #ids = [];
  #question = new Latest();

  constructor(tile) {
    super("times", "copies", tile);
  }

  /** Offer the copies of this result. If those of the same photos were shown, they stay. */
  offer({ paths, copies = [] }) {
    const name = fileName(paths[0]);
    this.button.hidden = !copies.length;
    this.button.textContent = `\u00d7${(copies.length + 1).toLocaleString("en")}`;
    this.button.ariaLabel = copiesLabel(copies.length, name);
    this.button.title = this.button.ariaLabel;
    this.list.ariaLabel = `Near duplicates of ${name}`;
    if (copies.join() !== this.#ids.join()) {
      this.#ids = copies;
      this.turn(false);
    }
    // What is asked of a tile may have changed, such as whether its photo is liked.
    this.tiles.forEach((tile) => tile.label(tile.result, photoLabel(tile.result)));
  }

  turn(open) {
    super.turn(open);
    this.#question.stop();
    if (open) {
      const item = (textContent) => element("li", { className: "left", textContent });
      void this.#question.ask(
        (signal) => api.photos(this.#ids.slice(0, MOST), signal),
        (photos) => {
          const left = this.#ids.length - photos.length;
          this.fill(photos, ...(left ? [item(`and ${count(left, "more photo")}`)] : []));
        },
        (error) => this.fill([], item(trouble(error).join(": "))),
      );
    }
  }
}
