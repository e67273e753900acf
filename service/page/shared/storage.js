/**
 * What the browser keeps for this page: `forTab` for as long as the tab is open, `forSite` for good.
 *
 * A browser that blocks site data throws at the first touch of its storage, and one whose storage is full throws when
 * something is written. What it does not take is kept in memory, for as long as the page is open.
 */

class Storage {
  #name;
  #memory = new Map();

  /** @param {"sessionStorage" | "localStorage"} name of the browser's storage */
  constructor(name) {
    this.#name = name;
  }

  /** The text under this key; null where there is none. */
  get(key) {
    try {
      return this.#memory.get(key) ?? window[this.#name].getItem(key);
    } catch {
      return null;
    }
  }

  set(key, text) {
    try {
      window[this.#name].setItem(key, text);
      this.#memory.delete(key);
    } catch {
      this.#memory.set(key, text);
    }
  }

  /** Keep something under this key, or nothing. */
  mark(key, yes) {
    return yes ? this.set(key, "1") : this.remove(key);
  }

  remove(key) {
    this.#memory.delete(key);
    try {
      window[this.#name].removeItem(key);
    } catch {
      // It is blocked, so there is nothing in it.
    }
  }
}

export const forTab = new Storage("sessionStorage");
export const forSite = new Storage("localStorage");
