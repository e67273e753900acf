/**
 * The grid without an end: asks for the next results when someone has scrolled to the last ones.
 *
 * A search ranks the photos that it has chosen. Choosing more of them would move others to places that have been passed
 * already, and they would never be seen. So one ranking is read to its end; then twice as many clusters are opened, or
 * photos let through, and what has not been shown yet comes next.
 */

import { part } from "../shared/dom.js";
import { trouble } from "../shared/words.js";

// Before the end is in sight, so that it rarely is.
const AHEAD = "600px";

export class Pages {
  #ask;
  #show;
  #button = part("more");
  #note = part("more-note");
  #known = new Set();
  #sizes = { page: 0, most: 0 };
  // Of the ranking that is read: how to ask for it and for a longer one, its photos, and how many have been passed.
  #same = {};
  #longer = null;
  #candidates = 0;
  #offset = 0;
  #running = null;
  #near = false;

  /**
   * @param {(page: Record<string, string | number>, signal: AbortSignal) => Promise<object>} ask for the answer of a
   *   search with these parameters
   * @param {(results: object[]) => void} show shows results that have not been there yet
   */
  constructor(ask, show) {
    this.#ask = ask;
    this.#show = show;
    this.#button.addEventListener("click", () => this.#more());
    new IntersectionObserver(([entry]) => this.#look(entry.isIntersecting), { rootMargin: AHEAD }).observe(this.#button);
    // What nobody scrolls to is not worth a search: who draws looks at the first photos.
    document.addEventListener("scroll", () => this.#near && window.scrollY > 0 && this.#more(), { passive: true });
  }

  /**
   * The first results are there; what an older search still brings is not shown.
   *
   * @param {object} answer of the search
   * @param {{page: number, most: number}} sizes how many results to ask for, and how many one may
   */
  start(answer, sizes) {
    this.stop();
    this.#sizes = sizes;
    this.#known = new Set(answer.results.map(({ id }) => id));
    this.#took(answer, 0);
  }

  /** There is nothing to go on with. */
  stop() {
    this.#running?.abort();
    this.#running = null;
    this.#button.hidden = true;
    this.#note.textContent = "";
  }

  #look(near) {
    this.#near = near;
    if (near && window.scrollY > 0) {
      void this.#more();
    }
  }

  async #more() {
    if (this.#running || this.#button.hidden) {
      return;
    }
    const ours = new AbortController();
    this.#running = ours;
    this.#note.textContent = "Looking for more\u2026";
    const read = this.#offset >= this.#candidates;
    const page = read
      ? { offset: 0, k: this.#sizes.most, ...this.#longer }
      : { offset: this.#offset, k: this.#left(), ...this.#same };
    try {
      const answer = await this.#ask(page, ours.signal);
      if (!ours.signal.aborted) {
        this.#running = null;
        this.#take(answer, page.offset, read);
      }
    } catch (error) {
      if (!ours.signal.aborted) {
        // The button stays, for another try.
        this.#note.textContent = trouble(error).join(": ");
        this.#running = null;
      }
    }
  }

  /** How many to ask for: never more than the ranking has left, which would make it another one. */
  #left() {
    const { page, most } = this.#sizes;
    return Math.min(this.#offset < this.#known.size ? most : page, this.#candidates - this.#offset);
  }

  #take(answer, offset, longer) {
    const fresh = answer.results.filter(({ id }) => !this.#known.has(id));
    fresh.forEach(({ id }) => this.#known.add(id));
    this.#show(fresh);
    this.#took(answer, offset, longer ? this.#longer : {});
    if (this.#near && (!fresh.length || window.scrollY > 0)) {
      // The observer tells of changes only, and the button may still be in sight.
      requestAnimationFrame(() => this.#near && this.#more());
    }
  }

  #took({ results, select, thin, clusters, candidates }, offset, asked = {}) {
    const all = clusters.length < asked.nprobe || candidates < asked.thin || !results.length;
    this.#offset = offset + results.length;
    this.#candidates = candidates;
    if (select === "clusters") {
      this.#same = { nprobe: clusters.length };
      this.#longer = { nprobe: 2 * clusters.length };
    } else {
      this.#same = thin ? { select, thin } : { select };
      this.#longer = thin ? { select, thin: 2 * candidates } : null;
    }
    const end = (all || !this.#longer) && this.#offset >= this.#candidates;
    this.#button.hidden = end;
    this.#note.textContent = end && this.#known.size ? "These are all the photos." : "";
  }
}
