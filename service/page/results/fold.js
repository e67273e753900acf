/** A list that a button opens in place: near duplicates of a photo, or more photos of a group. */

import { element } from "../shared/dom.js";
import { photoLabel } from "../shared/words.js";

let lists = 0;

export class Fold {
  /** Lies over the photo. */
  button;
  /** Comes after the photo. */
  list;
  /** Of the photos in the list; none while it is closed, so that their thumbnails are never asked for. */
  tiles = [];

  #tile;

  /** Takes the classes of button and list; `tile` gives the tile of a photo. */
  constructor(button, list, tile) {
    this.#tile = tile;
    const onclick = () => this.turn(!this.open);
    this.button = element("button", { type: "button", className: button, ariaExpanded: "false", onclick });
    this.list = element("ol", { id: `further-${++lists}`, className: `further ${list}`, hidden: true });
    this.button.setAttribute("aria-controls", this.list.id);
  }

  get open() {
    return !this.list.hidden;
  }

  get photos() {
    return this.tiles.flatMap((tile) => tile.photos);
  }

  contains(other) {
    return this.button === other || this.list.contains(other);
  }

  /** Close the list, and put the focus where it can be opened again. */
  close() {
    this.turn(false);
    this.button.focus({ preventScroll: true });
  }

  turn(open) {
    this.list.hidden = !open;
    this.button.ariaExpanded = String(open);
    this.fill([]);
  }

  /** Show these photos, and then these items. */
  fill(photos, ...items) {
    this.tiles = photos.map((photo) => {
      const tile = this.#tile(photo);
      tile.label(photo, photoLabel(photo));
      return tile;
    });
    this.list.replaceChildren(...this.tiles.map((tile) => element("li", {}, tile.element, tile.copies.list)), ...items);
  }
}
