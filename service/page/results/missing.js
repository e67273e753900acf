/** The line above the photos that says how many parts of the collection did not answer, where it lies on many machines. */

import { part } from "../shared/dom.js";
import { missingParts } from "../shared/words.js";

export class Missing {
  #line = part("missing");
  #names = new Set();
  #parts = 0;

  /** Take from the answer of /info how many parts there are. */
  know({ shards = [] }) {
    this.#parts = shards.length;
  }

  /** Say what is missing in this answer; nothing where it is complete. */
  show(answer) {
    this.#names.clear();
    this.add(answer);
  }

  /** Say what is missing in another page of that answer, too. */
  add({ missing_shards: names = [] }) {
    names.forEach((name) => this.#names.add(name));
    const { size } = this.#names;
    const text = size ? missingParts(size, this.#parts) : "";
    // Written only where it differs, so that a screen reader does not read the same sentence twice.
    if (this.#line.textContent !== text) {
      this.#line.textContent = text;
    }
  }

  /** Say nothing. */
  hide() {
    this.show({});
  }
}
