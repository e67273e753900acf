/** One group of photos in the grid: its best photo, which opens in place to show more of them. */

import { element } from "../shared/dom.js";
import { count, fileName, groupLabel, photoLabel } from "../shared/words.js";

let lists = 0;

export class Stack {
  /** The element, an item of a list. */
  element = element("li");
  /** The group shown: {rank, size, best, more}. A photo that was found by itself is a group of one. */
  group = null;

  #tile;
  #like;
  // The tiles shown: of the best photo, and while the group is open of further ones.
  #tiles = [];
  #toggle = element("button", { type: "button", className: "toggle" });
  #further = element("ol", { id: `group-${++lists}`, className: "further", ariaLabel: "More photos of this group" });

  /**
   * @param {(result: object) => import("./tile.js").Tile} tile gives the tile of a photo, always the same one
   * @param {(result: object) => void} like asks for more photos like this one
   */
  constructor(tile, like) {
    this.#tile = tile;
    this.#like = like;
    this.#toggle.setAttribute("aria-controls", this.#further.id);
    this.#toggle.addEventListener("click", () => this.#turn(!this.open));
    this.element.append(this.#further);
    this.#turn(false);
  }

  get open() {
    return this.element.classList.contains("open");
  }

  get photos() {
    return this.#tiles.flatMap((tile) => tile.photos);
  }

  /** What Escape can close, the outer before the inner: the group, and the copies of its photos. */
  get opened() {
    return [this, ...this.#tiles.map(({ copies }) => copies)].filter(({ open }) => open);
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
      this.element.replaceChildren(tile.element, tile.copies.list, this.#further);
    }
    this.#tiles = [tile];
    const several = more.length > 0;
    this.element.classList.toggle("stack", several);
    this.#toggle.replaceChildren(element("i", { className: "sheets" }), size.toLocaleString("en"));
    this.#toggle.ariaLabel = `${count(size, "photo")} of this group: ${fileName(best.paths[0])}`;
    this.#toggle.title = this.#toggle.ariaLabel;
    if (!several) {
      this.#toggle.remove();
    } else if (this.#toggle.parentElement !== tile.over) {
      tile.over.append(this.#toggle);
    }
    this.#turn(this.open && several);
  }

  /** Show the best photo only, and put the focus where it can be opened again. */
  close() {
    this.#turn(false);
    this.#toggle.focus({ preventScroll: true });
  }

  #turn(open) {
    this.element.classList.toggle("open", open);
    this.#toggle.ariaExpanded = String(open);
    this.#further.hidden = !open;
    // The thumbnails of a group that is closed are never asked for.
    this.#tiles = this.#tiles.slice(0, 1);
    this.#further.replaceChildren(...(open ? this.#items() : []));
  }

  #items() {
    const { best, more, size } = this.group;
    const items = more.map((result) => {
      const tile = this.#tile(result);
      tile.label(result, photoLabel(result));
      this.#tiles.push(tile);
      return element("li", {}, tile.element, tile.copies.list);
    });
    const left = size - 1 - more.length;
    if (left <= 0) {
      return items;
    }
    // The answer has but a few photos of a group; a search by its best one finds the others.
    const button = element("button", { type: "button", textContent: `${left.toLocaleString("en")} more like this` });
    button.addEventListener("click", () => this.#like(best));
    return [...items, element("li", { className: "left" }, button)];
  }
}
