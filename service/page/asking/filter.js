/** The form of filters: only photos below a folder, or of some days. What it adds is shown with the parts of the query. */

import { closeOutside, element, part } from "../shared/dom.js";
import { folderOf } from "../shared/words.js";

// So many folders are suggested, the latest ones.
const MOST_FOLDERS = 100;
// The first day that a server takes.
const FIRST_DAY = "1900-01-01";

export class Filter {
  #box = part("filter");
  #parts;
  #folders = new Set();

  constructor(parts) {
    this.#parts = parts;
    this.#box.addEventListener("toggle", () => this.#box.open && this.#fill());
    closeOutside(this.#box);
    part("filter-after").addEventListener("input", () => this.#bound());
    part("filter-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#apply();
    });
  }

  know(photos) {
    const folders = photos.flatMap(({ paths }) => paths.map(folderOf)).filter(Boolean);
    this.#folders = new Set([...new Set([...folders, ...this.#folders])].slice(0, MOST_FOLDERS));
  }

  #fill() {
    const { after, before } = this.#parts.params;
    part("filter-folder").value = "";
    part("filter-after").value = after[0] ?? "";
    part("filter-before").value = before[0] ?? "";
    this.#bound();
    const options = [...this.#folders].sort().map((value) => element("option", { value }));
    part("filter-folders").replaceChildren(...options);
  }

  /** No day before the first one may be chosen as the last one. */
  #bound() {
    part("filter-before").min = part("filter-after").value || FIRST_DAY;
  }

  #apply() {
    const value = (name) => part(`filter-${name}`).value;
    const folder = value("folder").replace(/^\/+|\/+$/g, "");
    const { folder: others } = this.#parts.params;
    this.#box.open = false;
    this.#box.firstElementChild.focus();
    this.#parts.set({
      folder: [...new Set(folder.trim() ? [...others, folder] : others)],
      after: [value("after")].filter(Boolean),
      before: [value("before")].filter(Boolean),
    });
  }
}
