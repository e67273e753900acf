/** One group of photos in the grid: its best photo, which opens in place to show more of them. */

import { element } from "../shared/dom.js";
import { count, fileName, groupLabel } from "../shared/words.js";
import { Fold } from "./fold.js";

export class Stack extends Fold {
  /** The element, an item of a list. */
  element = element("li");
  /** The group shown: {rank, size, best, more}. A photo that was found by itself is a group of one. */
  group = null;

  #tile;
  #like;
  #best = null;

  /** `tile` gives the tile of a photo, always the same one; `like` asks for more photos like one. */
  constructor(tile, like) {
    super("toggle", "group", tile);
    this.#tile = tile;
    this.#like = like;
    this.list.ariaLabel = "More photos of this group";
  }

  get photos() {
    return [...this.#best.photos, ...super.photos];
  }

  /** What Escape can close, the outer before the inner: the group, and the copies of its photos. */
  get opened() {
    return [this, this.#best.copies, ...this.tiles.map(({ copies }) => copies)].filter(({ open }) => open);
  }

  contains(other) {
    return this.element.contains(other);
  }

  /** Show this group; if it was open, it stays so. */
  update(group) {
    this.group = group;
    const { best, more, size } = group;
    const tile = this.#tile(best);
    tile.label(best, groupLabel(group));
    if (tile.element !== this.element.firstElementChild) {
      this.element.replaceChildren(tile.element, tile.copies.list, this.list);
    }
    this.#best = tile;
    const several = more.length > 0;
    this.element.classList.toggle("stack", several);
    this.button.replaceChildren(element("i", { className: "sheets" }), size.toLocaleString("en"));
    this.button.ariaLabel = `${count(size, "photo")} of this group: ${fileName(best.paths[0])}`;
    this.button.title = this.button.ariaLabel;
    if (!several) {
      this.button.remove();
    } else if (this.button.parentElement !== tile.over) {
      tile.over.append(this.button);
    }
    this.turn(this.open && several);
  }

  turn(open) {
    super.turn(open);
    if (open) {
      const { best, more, size } = this.group;
      // The answer has but a few photos of a group; a search by its best one finds the others.
      const textContent = `${(size - 1 - more.length).toLocaleString("en")} more like this`;
      const button = element("button", { type: "button", textContent, onclick: () => this.#like(best) });
      this.fill(more, ...(size - 1 > more.length ? [element("li", { className: "left" }, button)] : []));
    }
  }
}
