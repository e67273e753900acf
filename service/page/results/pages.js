/**
 * More results: asks for the next ones when the person scrolls to the end of those shown.
 *
 * The first stage of a search chooses candidates, and the second stage ranks them. With more candidates the ranking is
 * another one: photos would move to places that have been shown already, and never be seen. So one ranking is read to
 * its end. Then a ranking of twice as many clusters or candidates is read, without the photos that have been shown.
 */

import { part } from "../shared/dom.js";
import { trouble } from "../shared/words.js";

// How far below the screen the end may be when the next results are asked for.
const AHEAD = "600px";

export class Pages {
  #ask;
  #show;
  #button = part("more");
  #note = part("more-note");
  #known = new Set();
  #sizes = { page: 0, most: 0 };
  // The ranking that is read now: the parameters that ask for it again, those that ask for a longer one, how many
  // photos it has, and how many of them have been read.
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
    // Nothing is asked for before the first scroll: while drawing, people look at the first photos only.
    document.addEventListener("scroll", () => this.#near && window.scrollY > 0 && this.#more(), { passive: true });
  }

  /**
   * Begin with the first results of a search. Results of an older search are not shown any more.
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

  /** End: there are no results to continue. */
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
        // The button stays, so that it can be tried again.
        this.#note.textContent = trouble(error).join(": ");
        this.#running = null;
      }
    }
  }

  /** How many results to ask for. More than the ranking has left would make it another ranking. */
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
      // The observer reports changes only, and the button may have stayed in sight.
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
