/** Lists of photos that open in place: near duplicates of a photo, and the photos of a group. */

import * as api from "../shared/api.js";
import { element } from "../shared/dom.js";
import { count, fileName, groupLabel, photoLabel, trouble } from "../shared/words.js";

const MOST = 64;

let lists = 0;

/** What opens has `contents` to show: `photos` that are there, and the ids of `others`, which are asked for. */
export class Fold {
  button;
  list;
  /** Of the photos in the list; none while it is closed, so that their thumbnails are never asked for. */
  tiles = [];
  tile;

  #question = new api.Latest();

  /** Takes the classes of button and list; `tile` gives the tile of a photo. */
  constructor(button, list, tile) {
    this.tile = tile;
    const onclick = () => this.turn(!this.open);
    this.button = element("button", { type: "button", className: button, ariaExpanded: "false", onclick });
    this.list = element("ol", { id: `further-${++lists}`, className: `further ${list}`, hidden: true });
    this.button.setAttribute("aria-controls", this.list.id);
  }

  get open() { return !this.list.hidden; }
  get photos() { return this.tiles.flatMap((tile) => tile.photos); }
  contains(other) { return this.button === other || this.list.contains(other); }

  close() {
    this.turn(false);
    this.button.focus({ preventScroll: true });
  }

  turn(open) {
    this.list.hidden = !open;
    this.button.ariaExpanded = String(open);
    this.#question.stop();
    const { photos, others } = /** @type {any} */ (this).contents;
    this.fill(open ? photos : []);
    if (open && others.length) {
      void this.#question.ask(
        (signal) => inParts(others, signal),
        (more) => this.fill([...photos, ...more]),
        (error) => this.fill(photos, element("li", { className: "left", textContent: trouble(error).join(": ") })),
      );
    }
  }

  fill(photos, ...items) {
    this.tiles = photos.map((photo) => {
      const tile = this.tile(photo);
      tile.label(photo, photoLabel(photo));
      return tile;
    });
    this.list.replaceChildren(...this.tiles.map((tile) => element("li", {}, tile.element, tile.copies.list)), ...items);
  }
}

/** The near duplicates of a photo: a button that says how many photos it stands for, and the list that opens with it. */
export class Copies extends Fold {
  #ids = [];

  constructor(tile) { super("times", "copies", tile); }

  get contents() { return { photos: [], others: this.#ids }; }

  /** Offer the copies of this result. If those of the same photos were shown, they stay. */
  offer({ paths, copies = [] }) {
    const name = fileName(paths[0]);
    this.button.hidden = !copies.length;
    this.button.textContent = `\u00d7${(copies.length + 1).toLocaleString("en")}`;
    this.button.ariaLabel = `${count(copies.length, "near duplicate")} of ${name}`;
    this.button.title = `${this.button.ariaLabel}: the same picture, resized, cropped or taken in a burst`;
    this.list.ariaLabel = `Near duplicates of ${name}`;
    if (copies.join() !== this.#ids.join()) {
      this.#ids = copies;
      this.turn(false);
    }
    this.tiles.forEach((tile) => tile.label(tile.result, photoLabel(tile.result)));
  }
}

/** One group of photos in the grid: its best photo, which opens in place to show more. */
export class Stack extends Fold {
  element = element("li");
  /** The group shown: {rank, size, best, more}. A photo that was found by itself is a group of one. */
  group = null;

  #best = null;

  /** `tile` gives the tile of a photo, always the same one. */
  constructor(tile) {
    super("toggle", "group", tile);
    this.list.ariaLabel = "More photos of this group";
  }

  get photos() { return [...this.#best.photos, ...super.photos]; }
  get contents() { return { photos: this.group.more, others: this.group.others ?? [] }; }

  /** What Escape can close, the outer before the inner: the group, and the copies of its photos. */
  get opened() { return [this, this.#best.copies, ...this.tiles.map(({ copies }) => copies)].filter(({ open }) => open); }

  contains(other) { return this.element.contains(other); }

  update(group) {
    this.group = group;
    const { best, more, size } = group;
    const tile = this.tile(best);
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
    return this;
  }
}

/** Request photos by their ids, in parts of the permitted size. */
async function inParts(ids, signal) {
  const parts = Array.from({ length: Math.ceil(ids.length / MOST) }, (_, i) => ids.slice(MOST * i, MOST * (i + 1)));
  return (await Promise.all(parts.map((part) => api.photos(part, signal)))).flat();
}
