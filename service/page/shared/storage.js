/**
 * What the browser keeps for this page: `forTab` for as long as the tab is open, `forSite` for good.
 *
 * A browser that blocks site data throws at the first touch of its storage, and one whose storage is full throws when
 * something is written. What it does not take is not kept.
 */

class Storage {
  #name;

  /** @param {"sessionStorage" | "localStorage"} name of the browser's storage */
  constructor(name) {
    this.#name = name;
  }

  /** The text under this key; null where there is none. */
  get(key) {
    return this.#touch((kept) => kept.getItem(key));
  }

  set(key, text) {
    this.#touch((kept) => kept.setItem(key, text));
  }

  mark(key, yes) {
    return yes ? this.set(key, "1") : this.remove(key);
  }

  remove(key) {
    this.#touch((kept) => kept.removeItem(key));
  }

  #touch(use) {
    try {
      return use(window[this.#name]);
    } catch {
      return null;
    }
  }
}

export const forTab = new Storage("sessionStorage");
export const forSite = new Storage("localStorage");
